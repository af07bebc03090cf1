# SPDX-License-Identifier: MIT
"""Whole runs of the optimizer on the Triton backend: the native backend's masks, weights and state, step by step."""

from __future__ import annotations

import pytest
import torch

import adamwprune as ap
from adamwprune import kernels
from adamwprune.kernels import native

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = ((60, 80), (3, 4, 3, 3), (33,))
STEPS = 5


def run(backend, device, dtype=torch.float32, clip=None, **options):
    """Train tensors on given gradients; returns the optimizer and its weights."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    named = [(f"layer{i}.weight", torch.nn.Parameter(x.to(device, dtype))) for i, x in enumerate(drawn)]
    settings = {"sparsity": 0.8, "total_steps": STEPS, "start": 1, "end": 3, "every": 2, "mask_grads": False}
    prune = ap.Prune(**{**settings, **options.pop("prune", {})})
    with kernels.use(backend):
        optimizer = ap.AdamWPrune(named, lr=1e-2, weight_decay=0.1, prune=prune, **options)
        for _ in range(STEPS):
            for _, p in named:
                p.grad = torch.randn(p.shape, generator=generator).to(device, dtype)
            if clip is not None:
                ap.clip_grad_norm_(optimizer, clip)
            optimizer.step()
        assert optimizer.pruner.report()["backend"] == backend
        assert optimizer.pruner.at_target
    return optimizer, [p.detach().cpu() for _, p in named]


def assert_alike(ours, theirs):
    """Equal where the tensors' first, unpruned steps were taken on the same device; else close."""
    if DEVICE.type == "cpu":
        assert torch.equal(ours, theirs)
    else:
        # One rounding of a step to bfloat16 is two of its units, 2^-8 each.
        rtol = 1e-2 if ours.dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=1e-6)


@pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")
@pytest.mark.parametrize(
    "options",
    [
        {"clip": 0.5},
        {"dtype": torch.bfloat16, "amsgrad": True, "prune": {"score": "magnitude", "distribution": "global"}},
        {"base": "adamwspam", "spam": ap.Spam(interval=100), "prune": {"score": "movement"}},
        {"prune": {"pattern": "2:4", "sparsity": 0.5}},
        {"prune": {"regrow": 0.3}},
        {"dtype": torch.bfloat16, "state": "8bit", "correction": True, "clip": 0.5},
    ],
    ids=str,
)
def test_a_run_is_the_native_backends(options):
    ours, weights = run("triton", DEVICE, **options)
    theirs, expected = run("native", torch.device("cpu"), **options)
    for a, b in zip(weights, expected, strict=True):
        assert_alike(a, b)
    for p, q in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            assert_alike(ours.state[p][name].cpu(), theirs.state[q][name])
    masks = theirs.pruner.named_masks()
    assert masks
    for name, mask in ours.pruner.named_masks().items():
        assert torch.equal(mask.cpu(), masks[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_replays_the_step():
    weights = []
    for captured in (False, True):
        torch.manual_seed(0)
        named = [("layer.weight", torch.nn.Parameter(torch.randn(300, 200, device="cuda")))]
        named[0][1].grad = torch.randn_like(named[0][1])
        prune = ap.Prune(sparsity=0.5, total_steps=2, start=0, end=1, every=1, mask_grads=False)
        lr = torch.tensor(1e-2, device="cuda")
        optimizer = ap.AdamWPrune(named, lr=lr, capturable=True, prune=prune)
        for _ in range(3):
            optimizer.step()
        torch.cuda.synchronize()
        step = optimizer.step
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                optimizer.step()
            step = graph.replay
        for i in range(3):
            lr.fill_(1e-2 / (i + 1))
            step()
        torch.cuda.synchronize()
        weights.append(named[0][1].detach().clone())
    assert torch.equal(*weights)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_learning_rate_on_the_device_beside_counts_on_the_host():
    weights = []
    for lr in (1e-2, torch.tensor(1e-2, device="cuda")):
        torch.manual_seed(0)
        named = [(f"layer{i}.weight", torch.nn.Parameter(torch.randn(64, 64, device="cuda"))) for i in range(2)]
        prune = ap.Prune(sparsity=0.5, total_steps=2, start=0, end=1, every=1)
        optimizer = ap.AdamWPrune(named, lr=lr, fused=True, prune=prune)
        for _ in range(4):
            for _, p in named:
                p.grad = torch.randn_like(p)
            optimizer.step()
        weights.append(named[1][1].detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_between_mask_updates_waits_for_nothing():
    named = [(f"layer{i}.weight", torch.nn.Parameter(torch.randn(64, 64, device="cuda"))) for i in range(4)]
    optimizer = ap.AdamWPrune(
        named, lr=1e-2, prune=ap.Prune(sparsity=0.5, total_steps=2, start=0, end=1, every=1, mask_grads=False)
    )
    for i in range(6):
        for _, p in named:
            p.grad = torch.randn_like(p)
        torch.cuda.set_sync_debug_mode("error" if i > 3 else "default")
        try:
            if i > 3:
                ap.clip_grad_norm_(optimizer, 1.0)
            optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
