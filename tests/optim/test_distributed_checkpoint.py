# SPDX-License-Identifier: MIT
"""torch.distributed.checkpoint: its hidden step must prune nothing, and its round trips are exact or refused."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import equal, mlp, prune, train
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from adamwprune import AdamWPrune, attach, create_optimizer
from adamwprune.optim import OPTIMIZERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_hidden_step_of_distributed_checkpoint_prunes_nothing(name):
    """It sets lr=0 and zero gradients and steps, to make a fresh optimizer create its state."""
    model, reference = mlp(), mlp()
    settings = prune(score="magnitude", start=0, every=1)
    optimizer = create_optimizer(name, model, lr=0.01, prune=settings)
    for _ in range(3):
        get_optimizer_state_dict(model, optimizer)
    assert optimizer.pruner.step == 0
    assert equal(model, reference)
    assert all(group["lr"] == 0.01 for group in optimizer.param_groups)
    assert optimizer.spam_clock.step == 0 if name == "adamwspam" else True


def test_the_hidden_step_happens_at_every_save_before_the_first_step_where_no_state_is_kept():
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    pruner = attach(optimizer, prune(score="movement"))
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.state.clear()
        get_optimizer_state_dict(model, optimizer)
    assert pruner.step == 0
    assert all(torch.equal(x, before[k]) for k, x in model.state_dict().items())


def test_a_probe_with_a_tensor_learning_rate():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), lr=torch.tensor(0.01), prune=prune(score="magnitude", start=0))
    get_optimizer_state_dict(model, optimizer)
    assert optimizer.pruner.step == 0


#: Optimizers that keep no exp_avg_sq, or nothing at all, and one that keeps it; an attached pruner serves them.
OTHERS = {
    "plain SGD": lambda named: torch.optim.SGD(named, lr=0.1),
    "RMSprop": lambda named: torch.optim.RMSprop(named, lr=0.01),
    "AdamW": lambda named: torch.optim.AdamW(named, lr=0.01),
}


def make(name, model, **settings):
    if name in OTHERS:
        optimizer = OTHERS[name](model.named_parameters())
        attach(optimizer, prune(**settings))
        return optimizer
    base = {"base": settings.pop("base")} if "base" in settings else {}
    return create_optimizer(name, model, lr=0.01, weight_decay=0.1, prune=prune(**settings), **base)


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("score", ["magnitude", "movement"])
@pytest.mark.parametrize("name", [*OPTIMIZERS, *OTHERS])
@pytest.mark.parametrize("at", [1, 7], ids=["dense", "pruned"])
def test_round_trip(name, score, flatten, at):
    """Saved through torch.distributed.checkpoint and resumed: bit for bit the run that was not stopped."""
    round_trip(name, flatten, at, score=score)


@pytest.mark.parametrize("base", ["adamw", "adamwspam"])
def test_flattened_round_trip_of_the_default_score(base):
    round_trip("adamwprune", True, 7, base=base)


def round_trip(name, flatten, at, **settings):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = mlp()
    optimizer = make(name, model, **settings)
    train(model, optimizer, 1, at)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    other = copy.deepcopy(model)
    resumed = make(name, other, **settings)
    for _ in range(2):  # the second time into an optimizer that is not fresh
        set_optimizer_state_dict(other, resumed, copy.deepcopy(saved), options=options)
    assert resumed.pruner.step == at
    assert resumed.pruner.report()["tensors"] == optimizer.pruner.report()["tensors"]
    train(model, optimizer, at + 1, 14)
    train(other, resumed, at + 1, 14)
    assert equal(model, other)
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_same_optimizer_without_a_pruner_takes_it(name, flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = mlp()
    optimizer = make(name, model, score="magnitude")
    train(model, optimizer, 1, 7)
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    other, theirs = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    plain = OTHERS[name](other.named_parameters())
    set_optimizer_state_dict(other, plain, saved, options=options)
    for number, entry in plain.state_dict()["state"].items():
        for key in entry.keys() - {"prune_mask"}:
            assert torch.equal(entry[key], theirs["state"][number][key])
    train(other, plain, 8, 9)
    assert other[0].weight.count_nonzero() > model[0].weight.count_nonzero()


def test_places_weigh_nothing_and_change_nothing():
    """Live state names what a checkpoint adds; scores, the account and the optimizer itself do not see it."""
    model, plain = mlp(), mlp()
    optimizer, dense = torch.optim.SGD(model.named_parameters(), lr=0.1), torch.optim.SGD(plain.parameters(), lr=0.1)
    attach(optimizer, prune(score="magnitude", start=10, end=12))
    train(model, optimizer, 1, 9)
    train(plain, dense, 1, 9)
    assert equal(model, plain)
    assert {name for entry in optimizer.state.values() for name in entry} == {"prune_mask"}
    assert optimizer.pruner.report()["bytes"]["state"] == 0
    assert all(bool(entry["prune_mask"].all()) for entry in optimizer.state_dict()["state"].values() if entry)


def test_a_tensor_that_never_had_a_gradient_is_pruned_where_no_state_is_kept():
    """It has no place, and plain SGD keeps nothing that could tell it from the others."""
    model = mlp()
    model.append(torch.nn.Linear(4, 4))
    model.forward = lambda x: model[4](model[3](model[2](model[1](model[0](x)))))
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    pruner = attach(optimizer, prune(score="magnitude"))
    train(model, optimizer, 1, 14)
    assert pruner.at_target
    assert pruner.report()["tensors"]["5.weight"]["masked"] == 8


def test_a_copy_without_hooks_saves_a_dense_checkpoint():
    model = mlp()
    optimizer = make("plain SGD", model, score="movement")
    train(model, optimizer, 1, 7)
    copied = copy.deepcopy(optimizer)
    resumed = make("plain SGD", mlp(), score="movement")
    resumed.load_state_dict(copied.state_dict())
    assert resumed.pruner.step == 0
    assert not resumed.pruner.named_masks()
