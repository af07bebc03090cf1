# SPDX-License-Identifier: MIT
"""Copies are networks too: EMA and SWA copies are masked by name."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import mlp, prune, train
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from adamwprune import AdamWPrune


@pytest.fixture
def pruned():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), lr=0.05, prune=prune())
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    train(model, optimizer, 1, 14, lambda _: average.update_parameters(model))
    return model, optimizer, average


def masked_like(model, tensors, optimizer):
    masks = optimizer.pruner.named_masks()
    assert set(masks) == {"0.weight", "2.weight", "4.weight"}
    for (name, _), q in zip(model.named_parameters(), tensors, strict=True):
        if name in masks:
            assert not q.detach()[~masks[name]].count_nonzero()
            assert q.detach()[masks[name]].count_nonzero() > 0.8 * masks[name].sum()
        else:
            assert q.count_nonzero()


def test_an_average_is_not_sparse_until_it_is_masked(pruned):
    model, optimizer, average = pruned
    masks = optimizer.pruner.named_masks()
    assert average.module[0].weight[~masks["0.weight"]].count_nonzero()
    live = average.module[0].weight[masks["0.weight"]].clone()
    optimizer.pruner.apply_masks(average)
    masked_like(model, average.parameters(), optimizer)
    assert torch.equal(average.module[0].weight[masks["0.weight"]], live)


@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_copies_under_wrappers(pruned, wrap):
    model, optimizer, _ = pruned
    other = mlp(seed=3)
    optimizer.pruner.apply_masks(wrap(other))
    masked_like(model, other.parameters(), optimizer)


def test_named_tensors_of_another_dtype(pruned):
    model, optimizer, _ = pruned
    tensors = {name: torch.randn(p.shape, dtype=torch.float64) for name, p in model.named_parameters()}
    optimizer.pruner.apply_masks(tensors.items())
    masked_like(model, tensors.values(), optimizer)


def test_an_optimizer_of_a_compiled_model_masks_a_plain_copy():
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    optimizer = AdamWPrune(compiled.named_parameters(), prune=prune())
    train(model, optimizer, 1, 12)
    plain = AveragedModel(mlp(seed=2))
    optimizer.pruner.apply_masks(plain)
    assert sum(int((p == 0).sum()) for p in plain.parameters()) == 112


def test_a_copy_whose_names_do_not_match_is_refused(pruned):
    """Nothing masked, in silence, would be a dense network that is taken for a sparse one."""
    _, optimizer, _ = pruned
    with pytest.raises(ValueError, match="name"):
        optimizer.pruner.apply_masks(nn.ModuleDict({"other": mlp()}))


def test_before_anything_is_pruned_nothing_happens():
    optimizer = AdamWPrune(mlp().named_parameters(), prune=prune())
    other = mlp(seed=1)
    before = copy.deepcopy(other.state_dict())
    optimizer.pruner.apply_masks(other)
    assert all(torch.equal(x, before[k]) for k, x in other.state_dict().items())


def test_named_masks_are_of_the_weights_shape(pruned):
    model, optimizer, _ = pruned
    for name, keep in optimizer.pruner.named_masks().items():
        assert keep.dtype == torch.bool
        assert keep.shape == model.get_parameter(name).shape
        assert torch.equal(keep, model.get_parameter(name) != 0)
