# SPDX-License-Identifier: MIT
"""report(): its keys, its counts, and the bytes of LeNet-5's shapes at 50 and 90 %."""

from __future__ import annotations

import math

import pytest
import torch
from lab import attached, backward, gradients, mlp, ours, prune, train, weights
from torch import nn

from adamwprune import AdamWPrune, Prune, attach, create_optimizer, kernels
from adamwprune.kernels import native
from adamwprune.optim import OPTIMIZERS

LENET = [(6, 1, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 400), (120,), (84, 120), (84,)]
KINDS = ("weights", "gradients", "state", "mask", "workspace")


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
@pytest.mark.parametrize("distribution", ["layer", "global", "erk"])
def test_state_and_mask_bytes_per_prunable_weight(sparsity, distribution):
    """At most 8 (1 - s) + 1/8 bytes, and 1 %; where a tensor keeps more than 70 %, its state is stored as a whole."""
    named = weights(LENET)
    optimizer = ours(named, prune(sparsity=sparsity, distribution=distribution))
    for step in range(11):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
    report = optimizer.pruner.report()
    prunable = sum(tensor["weights"] for tensor in report["tensors"].values())
    assert prunable == sum(math.prod(shape) for shape in LENET if len(shape) > 1)
    per_weight = (report["bytes"]["state"] + report["bytes"]["mask"]) / prunable
    stored = [t["weights"] - (t["masked"] if t["sparsity"] >= 0.3 else 0) for t in report["tensors"].values()]
    assert 8 * sum(stored) / prunable < per_weight <= (8 * sum(stored) / prunable + 1 / 8) * 1.01
    assert sum(stored) / prunable <= (1 - sparsity) * (1.1 if distribution == "erk" else 1.0) + 1e-3
    actual = sum(
        value.untyped_storage().nbytes() for name, p in named if p.dim() > 1 for value in optimizer.state[p].values()
    )
    assert report["bytes"]["state"] == actual


def test_the_keys_and_counts():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), prune=prune(exclude=("4.weight",)))
    train(model, optimizer, 1, 12)
    report = optimizer.pruner.report()
    assert set(report) == {
        "step", "target", "score", "sparsity", "last_update", "backend", "tensors", "left_out", "bytes", "bytes_model",
    }  # fmt: skip
    assert (report["step"], report["target"], report["sparsity"], report["last_update"]) == (12, 0.5, 0.5, 10)
    assert (report["score"], report["backend"]) == ("state", "reference")
    assert report["tensors"] == {
        "0.weight": {"weights": 96, "masked": 48, "sparsity": 0.5},
        "2.weight": {"weights": 96, "masked": 48, "sparsity": 0.5},
    }
    assert set(report["left_out"]) == {"0.bias", "2.bias", "4.weight", "4.bias"}
    assert "exclude" in report["left_out"]["4.weight"]
    assert report["left_out"]["0.bias"] == "fewer than two dimensions"
    total = sum(p.numel() for p in model.parameters())
    assert report["bytes"] == {
        "weights": 4 * 192, "gradients": 4 * 192, "state": 2 * (8 * 48 + 4), "mask": 2 * 12, "workspace": 0,
    }  # fmt: skip
    assert report["bytes_model"] == {
        "weights": 4 * total,
        "gradients": 4 * total,
        "state": 2 * (8 * 48 + 4)
        + sum(8 * p.numel() + 4 for n, p in model.named_parameters() if n not in report["tensors"]),
        "mask": 24,
        "workspace": 0,
    }


def test_before_the_first_step_nothing_is_there():
    optimizer = AdamWPrune(mlp().named_parameters(), prune=prune())
    report = optimizer.pruner.report()
    assert (report["step"], report["sparsity"], report["last_update"]) == (0, 0.0, None)
    assert report["bytes"]["state"] == report["bytes"]["mask"] == report["bytes"]["gradients"] == 0
    assert not optimizer.pruner.at_target


def test_sparsity_zero_is_at_its_target():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), prune=Prune(sparsity=0.0))
    train(model, optimizer, 1, 3)
    assert optimizer.pruner.at_target
    assert optimizer.pruner.report()["bytes"]["mask"] == 0
    bare = AdamWPrune(model.parameters(), prune=Prune(sparsity=0.0))
    assert bare.pruner.report()["sparsity"] == 0.0


def test_movement_is_in_the_account():
    """Its buffer: four bytes a live weight where state is compact, four bytes a weight where it is not."""
    for make, entries in ((ours, 32), (attached, 64)):
        named = weights([(8, 8)])
        optimizer = make(named, prune(score="movement"))
        reference = make(weights([(8, 8)]), prune(score="magnitude"))
        for step in range(12):
            backward(named, gradients(named, step))
            optimizer.step()
            twins = [(n, p) for n, p in zip(["layer0.weight"], reference.param_groups[0]["params"], strict=True)]
            backward(twins, gradients(twins, step))
            reference.step()
        extra = optimizer.pruner.report()["bytes"]["state"] - reference.pruner.report()["bytes"]["state"]
        assert extra == 4 * entries


def test_recorded_gradients_are_workspace_while_they_exist():
    named = weights([(8, 8)])
    optimizer = ours(named, prune(score="magnitude", regrow=0.3))
    for step in range(1, 6):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
    assert optimizer.pruner.report()["bytes"]["workspace"] == 0
    optimizer.zero_grad()
    backward(named, gradients(named, 6))
    assert optimizer.pruner.report()["bytes"]["workspace"] > 0
    optimizer.step()
    assert optimizer.pruner.report()["bytes"]["workspace"] == 0


def test_dense_amsgrad_and_sgd_states_are_counted_as_they_are():
    named = weights([(8, 8)])
    optimizer = torch.optim.SGD(named, lr=0.1, momentum=0.9)
    attach(optimizer, prune(score="magnitude"))
    backward(named, gradients(named, 0))
    optimizer.step()
    assert optimizer.pruner.report()["bytes"]["state"] == 4 * 64
    amsgrad = ours(weights([(8, 8)]), prune(), amsgrad=True)
    named = [("layer0.weight", amsgrad.param_groups[0]["params"][0])]
    for step in range(12):
        backward(named, gradients(named, step))
        amsgrad.step()
    assert amsgrad.pruner.report()["bytes"]["state"] == 12 * 32 + 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reports(name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 8))
    optimizer = create_optimizer(name, model, lr=0.01, prune=prune(score="magnitude"))
    for _ in range(11):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 4)).sum().backward()
        optimizer.step()
    report = optimizer.pruner.report()
    assert report["sparsity"] == 0.5
    assert set(report["bytes"]) == set(report["bytes_model"]) == set(KINDS)
    assert all(report["bytes"][kind] <= report["bytes_model"][kind] for kind in KINDS)


@pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")
def test_the_kernels_of_tensors_that_fast_ones_do_not_know():
    """The native kernel knows no float64; beside float32 tensors both are named."""
    wide = weights([(6, 6)], torch.float64)
    both = [*weights([(5, 7)]), ("wide.weight", wide[0][1])]
    optimizers = [ours(wide, prune()), ours(both, prune())]
    with kernels.use("native"):
        assert [o.pruner.report()["backend"] for o in optimizers] == ["reference", "native, reference"]
