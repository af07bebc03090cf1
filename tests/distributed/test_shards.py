# SPDX-License-Identifier: MIT
"""Tensors whose rows are spread over ranks (DTensor, FSDP2): the run of one process, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from lab import gradients, prune, weights
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import adamwprune as ap

#: Rows that divide evenly or not, and fewer than there are ranks, so that a rank holds none.
SHAPES = ((6, 8), (5, 4, 3, 3), (2, 8), (4, 12), (9,))


def spread(named, mesh):
    """The same parameters, their rows over the ranks of ``mesh``."""
    return [(name, nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [Shard(0)]))) for name, p in named]


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def same(one, many, what):
    """Equal, the sign of zero included."""
    one, many = one.detach(), whole(many.detach())
    assert torch.equal(one, many), what
    assert not one.is_floating_point() or torch.equal(one.signbit(), many.signbit()), what


def backward(named, grads):
    for (_, p), g in zip(named, grads, strict=True):
        if isinstance(p, DTensor):
            g = distribute_tensor(g, p.device_mesh, p.placements)
        p.backward(g)


def as_one_process(rank, make, options, settings, ties=False, shapes=SHAPES, dtype=torch.float32):
    """Weights, masks, exported state and report of both runs, after every step."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    single = weights(shapes, dtype)
    if ties:
        for _, p in single:
            p.data = p.data.sign() * p.data.abs().clamp(0.5, 1.5).round()
    runs = [(named, make(named, **options, prune=prune(**settings))) for named in (single, spread(single, mesh))]
    for step in range(14):
        for named, optimizer in runs:
            optimizer.zero_grad()
            backward(named, gradients(single, step))
            optimizer.step()
        (one, first), (many, second) = runs
        for (name, p), (_, q) in zip(one, many, strict=True):
            same(p, q, f"{name} at step {step}")
        masks = second.pruner.named_masks()
        assert first.pruner.named_masks().keys() == masks.keys()
        for name, mask in first.pruner.named_masks().items():
            same(mask, masks[name], f"mask of {name} at step {step}")
        for name in ("tensors", "sparsity", "left_out", "last_update"):
            assert first.pruner.report()[name] == second.pruner.report()[name], name
    saved, theirs = first.state_dict(), second.state_dict()
    assert saved["param_groups"] == theirs["param_groups"]
    for number, entry in saved["state"].items():
        assert entry.keys() == theirs["state"][number].keys()
        for name, value in entry.items():
            assert name == "step" or isinstance(theirs["state"][number][name], DTensor)
            same(value, theirs["state"][number][name], f"{name} of {number}")
    assert second.pruner.at_target
    assert any(not q.to_local().numel() for _, q in many) == (rank == 2)


def attached(named, prune, **options):
    optimizer = torch.optim.AdamW(named, **options)
    ap.attach(optimizer, prune)
    return optimizer


CASES = {
    "layer": (ap.AdamWPrune, {}, {}),
    "global": (ap.AdamWPrune, {}, {"distribution": "global", "sparsity": 0.9}),
    "erk": (ap.AdamWPrune, {"amsgrad": True}, {"distribution": "erk", "score": "fisher", "sparsity": 0.8}),
    "budgets": (ap.AdamWPrune, {}, {"distribution": "magnitude", "min_density": 0.3}),
    "ties": (ap.AdamWPrune, {"lr": 0.0}, {"score": "magnitude", "sparsity": 0.4}),
    "ties-global": (ap.AdamWPrune, {"lr": 0.0}, {"score": "magnitude", "distribution": "global", "sparsity": 0.4}),
    "random": (ap.AdamWPrune, {}, {"score": "random"}),
    "movement": (ap.AdamWPrune, {}, {"score": "movement"}),
    "taylor": (ap.AdamWPrune, {}, {"score": "taylor", "mask_grads": False}),
    "pattern": (ap.AdamWPrune, {}, {"pattern": "2:4", "score": "magnitude"}),
    "regrow": (ap.AdamWPrune, {}, {"regrow": 0.3}),
    "spam": (ap.AdamWSPAM, {"spam": ap.Spam(interval=5, min_age=1)}, {}),
    "attached": (attached, {}, {}),
}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_masks_and_weights_are_those_of_one_process(ranks, world, case):
    make, options, settings = CASES[case]
    ranks(world, as_one_process, make, {"lr": 0.01, "weight_decay": 0.1} | options, settings, case.startswith("ties"))


def clipped(rank, mask_grads):
    """torch's norm of the masked gradients, and the step that follows, up to the order of the norm's sum."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    single = weights(SHAPES)
    runs = []
    for named in (single, spread(single, mesh)):
        optimizer = ap.AdamWPrune(named, lr=0.01, prune=prune(mask_grads=mask_grads))
        norms = []
        for step in range(12):
            optimizer.zero_grad()
            backward(named, gradients(single, step))
            norms.append(ap.clip_grad_norm_(optimizer, 0.1))
            optimizer.step()
        assert optimizer.pruner.at_target
        runs.append((norms, [whole(p.detach()) for _, p in named]))
    (norms, one), (others, many) = runs
    torch.testing.assert_close(others, norms)
    torch.testing.assert_close(many, one)
    # The gradients are clipped in place, where they can be seen.
    last = nn.utils.get_total_norm([p.grad for _, p in named]).full_tensor()
    assert not mask_grads or abs(float(last) - 0.1) < 1e-5


@pytest.mark.parametrize("mask_grads", [True, False])
def test_clipping(ranks, mask_grads):
    ranks(3, clipped, mask_grads)


def refused(rank):
    """What is said of layouts and scores that cannot be taken."""
    mesh = init_device_mesh("cpu", (2,))
    columns = [("a.weight", nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)])))]
    mixed = [*spread([("a.weight", torch.ones(4, 4))], mesh), ("b.weight", nn.Parameter(torch.ones(4, 4)))]
    rows = spread([("a.weight", torch.ones(4, 4))], mesh)
    said = []
    for named, settings in ((columns, {}), (mixed, {}), (rows, {"score": "lamp"})):
        with pytest.raises(ValueError, match=r"sharded|whole tensors") as error:
            ap.AdamWPrune(named, prune=prune(**settings))
        said.append(str(error.value))
    ap.AdamWPrune(mixed, prune=prune(exclude=("b.*",)))
    optimizer = ap.AdamWPrune(rows, lr=0.0, prune=prune(score="magnitude", start=0, every=1))
    rows[0][1].data.to_local()[rank:] = torch.nan
    rows[0][1].grad = torch.ones_like(rows[0][1])
    with pytest.raises(ap.NonFiniteScoreError, match="12 of 16 scores"):
        optimizer.step()
    return said


def test_what_cannot_be_taken_is_refused(ranks):
    columns, mixed, lamp = ranks(2, refused)[0]
    assert "Shard(0), as fully_shard does by default" in columns
    assert "nobody holds each weight exactly once" in mixed
    assert "'lamp' must see whole tensors" in lamp
