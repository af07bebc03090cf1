# SPDX-License-Identifier: MIT
"""torch.distributed.checkpoint: its hidden step must prune nothing, and its round trips are exact or refused."""

from __future__ import annotations

import contextlib
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


def test_the_hidden_step_happens_at_every_save_where_no_state_is_kept():
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    pruner = attach(optimizer, prune(score="movement"))
    train(model, optimizer, 1, 5)
    before = copy.deepcopy(model.state_dict())
    for _ in range(20):
        optimizer.zero_grad()
        get_optimizer_state_dict(model, optimizer)
    assert pruner.step == 5
    assert all(torch.equal(x, before[k]) for k, x in model.state_dict().items())


def test_a_probe_with_a_tensor_learning_rate():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), lr=torch.tensor(0.01), prune=prune(score="magnitude", start=0))
    get_optimizer_state_dict(model, optimizer)
    assert optimizer.pruner.step == 0


def round_trip(name, flatten, base="adamw", **settings):
    """Save at step 7 through torch.distributed.checkpoint, resume, and compare at step 14."""

    def make(model):
        return create_optimizer(name, model, lr=0.01, weight_decay=0.1, base=base, prune=prune(**settings))

    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = mlp()
    optimizer = make(model)
    train(model, optimizer, 1, 7)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    other = copy.deepcopy(model)
    resumed = make(other)
    set_optimizer_state_dict(other, resumed, saved, options=options)
    assert resumed.pruner.step == 7
    train(model, optimizer, 8, 14)
    train(other, resumed, 8, 14)
    assert equal(model, other)


@pytest.mark.parametrize("score", ["magnitude", "movement"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_round_trip(name, score):
    round_trip(name, False, score=score)


@pytest.mark.parametrize("base", ["adamw", "adamwspam"])
def test_flattened_round_trip(base):
    """The form in which torch's own trainers save: nothing but what the live optimizer has is restored."""
    round_trip("adamwprune", True, base=base)


@pytest.mark.parametrize("score", ["magnitude", "movement"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_flattening_loses_is_refused(name, score):
    """Masks of an attached pruner, or accumulated movement: resumed exactly, or not at all."""
    with contextlib.suppress(ValueError):
        round_trip(name, True, score=score)
