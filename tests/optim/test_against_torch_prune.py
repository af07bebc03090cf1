# SPDX-License-Identifier: MIT
"""One-shot magnitude masks against torch.nn.utils.prune, layerwise and global."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import mlp
from torch import nn
from torch.nn.utils import prune as torch_prune

from adamwprune import Prune, attach

LAYERS = (0, 2, 4)


def one_shot(model, sparsity, distribution):
    """Masks after one update of a constant schedule, with weights that do not move."""
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.0)
    settings = Prune(
        sparsity=sparsity,
        total_steps=3,
        start=1,
        end=2,
        schedule="constant",
        score="magnitude",
        distribution=distribution,
        min_density=0.0,
    )
    pruner = attach(optimizer, settings)
    model(torch.ones(2, 8)).square().sum().backward()
    optimizer.step()
    assert pruner.at_target
    return pruner.named_masks()


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.77, 0.9, 0.99])
def test_layerwise(sparsity):
    model = mlp()
    reference = copy.deepcopy(model)
    masks = one_shot(model, sparsity, "layer")
    for i in LAYERS:
        count = int((~masks[f"{i}.weight"]).sum())
        torch_prune.l1_unstructured(reference[i], "weight", amount=count)
        assert torch.equal(reference[i].weight_mask.bool(), masks[f"{i}.weight"])


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.77, 0.9, 0.99])
def test_global(sparsity):
    model = mlp()
    reference = copy.deepcopy(model)
    masks = one_shot(model, sparsity, "global")
    count = sum(int((~mask).sum()) for mask in masks.values())
    torch_prune.global_unstructured(
        [(reference[i], "weight") for i in LAYERS], torch_prune.L1Unstructured, amount=count
    )
    for i in LAYERS:
        assert torch.equal(reference[i].weight_mask.bool(), masks[f"{i}.weight"])


def test_random_is_worse_than_magnitude_on_a_network_with_small_weights():
    """Otherwise the comparison would show nothing."""
    torch.manual_seed(0)
    teacher = nn.Linear(32, 8, bias=False)
    teacher.weight.data *= torch.rand(8, 32) ** 4
    x = torch.randn(64, 32)
    wanted, loss = teacher(x), {}
    for score in ("magnitude", "random"):
        model = copy.deepcopy(teacher)
        optimizer = torch.optim.SGD([("w", model.weight)], lr=0.0)
        attach(optimizer, Prune(sparsity=0.5, total_steps=3, start=1, end=2, schedule="constant", score=score))
        model(x).square().sum().backward()
        optimizer.step()
        loss[score] = (model(x) - wanted).square().mean().item()
    assert loss["magnitude"] < 0.05 * loss["random"]
