# SPDX-License-Identifier: MIT
"""Clipping between backward and step sees the gradients of pruned weights as zero."""

from __future__ import annotations

import pytest
import torch
from lab import mlp, prune, train
from torch.nn.utils import clip_grad_norm_ as torch_clip

from adamwprune import AdamWPrune, attach, clip_grad_norm_


def own(model, **settings):
    return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**settings))


def theirs(model, **settings):
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    attach(optimizer, prune(score="magnitude", **settings))
    return optimizer


def with_gradients(make, steps, **settings):
    model = mlp()
    optimizer = make(model, **settings)
    train(model, optimizer, 1, steps)
    optimizer.zero_grad()
    batch = torch.randn(6, 8, generator=torch.Generator().manual_seed(99))
    model(batch).square().sum().backward()
    return model, optimizer


def reference(model, optimizer):
    """Parameters whose gradients are masked by hand."""
    masks = optimizer.pruner.named_masks()
    copies = []
    for name, p in model.named_parameters():
        copy = torch.nn.Parameter(p.detach().clone())
        copy.grad = torch.where(masks.get(name, torch.tensor(True)), p.grad, 0.0)
        copies.append(copy)
    return copies


def clipped(optimizer, p):
    """The gradient as the next step uses it."""
    factor = optimizer.owed.of(p) if isinstance(optimizer, AdamWPrune) else None
    return p.grad if factor is None else p.grad * factor


@pytest.mark.parametrize("make", [own, theirs])
@pytest.mark.parametrize("steps", [1, 3, 12])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, float("inf")])
@pytest.mark.parametrize("mask_grads", [True, False])
def test_ours_gives_torchs_result_on_masked_gradients(make, steps, norm_type, mask_grads):
    model, optimizer = with_gradients(make, steps, mask_grads=mask_grads)
    copies = reference(model, optimizer)
    expected = torch_clip(copies, 0.5, norm_type)
    norm = clip_grad_norm_(optimizer, 0.5, norm_type)
    if mask_grads:
        assert torch.equal(norm, expected)
    torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    masks = optimizer.pruner.named_masks()
    for (name, p), copy in zip(model.named_parameters(), copies, strict=True):
        keep = masks.get(name, torch.ones_like(p, dtype=torch.bool))
        torch.testing.assert_close(clipped(optimizer, p)[keep], copy.grad[keep], rtol=1e-6, atol=0)


@pytest.mark.parametrize("make", [own, theirs])
def test_torchs_own_clipping_sees_the_sparse_network(make):
    model, optimizer = with_gradients(make, 12)
    copies = reference(model, optimizer)
    dense, _ = with_gradients(make, 12, mask_grads=False)
    expected = torch_clip(copies, 0.5)
    assert torch.equal(torch_clip(model.parameters(), 0.5), expected)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), copies, strict=True))
    assert torch_clip(dense.parameters(), 0.5) > expected


def test_without_a_pruner_it_is_torchs():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 8)).sum().backward()
    model[4].bias.grad = None
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert torch.equal(clip_grad_norm_(optimizer, 0.1), norm)
    clipped = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert float(clipped) == pytest.approx(0.1, rel=1e-4)


def test_error_if_nonfinite_and_foreach():
    model, optimizer = with_gradients(own, 12)
    expected = torch_clip(reference(model, optimizer), 1e9)
    assert torch.equal(clip_grad_norm_(optimizer, 1e9, foreach=False), expected)
    model[0].bias.grad[0] = torch.nan
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(optimizer, 1.0, error_if_nonfinite=True)


def test_a_spike_in_a_pruned_weight_does_not_scale_the_others():
    model, optimizer = with_gradients(own, 12, mask_grads=False)
    masked = ~optimizer.pruner.named_masks()["0.weight"]
    model[0].weight.grad[masked] = 1e20
    before = model[0].weight.grad[~masked].clone()
    assert clip_grad_norm_(optimizer, 1e6) < 1e6
    assert torch.equal(model[0].weight.grad[~masked], before)
