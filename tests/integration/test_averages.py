# SPDX-License-Identifier: MIT
"""An average of the weights that the pruner follows is as sparse as the model, at every step, with no further call."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from workbench import KINDS, accuracy, batch, network, ours, train

AVERAGES = {
    "ema": lambda model: AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
    "swa": AveragedModel,
}


def masked_are_zero(model, optimizer):
    masks = optimizer.pruner.named_masks()
    return all(not model.get_parameter(name).detach()[~keep].count_nonzero() for name, keep in masks.items())


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_average_of_every_step_is_sparse(kind, average):
    model, plain = network(), network()
    optimizer, alone = KINDS[kind](model), KINDS[kind](plain)
    followed, left = AVERAGES[average](model), AVERAGES[average](plain)
    optimizer.pruner.follow(followed)
    dense_once = []

    def after(step):
        followed.update_parameters(model)
        left.update_parameters(plain)
        assert masked_are_zero(followed.module, optimizer), step
        dense_once.append(not masked_are_zero(left.module, optimizer))

    for step in range(60):
        train(plain, alone, [step])
        train(model, optimizer, [step], after)
    assert any(dense_once)  # nobody followed this one
    alone.pruner.apply_masks(left)
    for p, q in zip(followed.parameters(), left.parameters(), strict=True):
        assert torch.equal(p, q)  # kept weights are averaged as ever


def test_a_stochastic_average_with_fresh_norms_is_sparse_and_classifies():
    model = network()
    optimizer = ours(model)
    average = AveragedModel(model)
    optimizer.pruner.follow(average)
    train(model, optimizer, after=lambda step: average.update_parameters(model) if step >= 45 else None)
    update_bn([batch(step) for step in range(10)], average)
    assert masked_are_zero(average.module, optimizer)
    zeros = sum(int((p == 0).sum()) for p in average.parameters() if p.dim() == 2)
    assert zeros == sum(entry["masked"] for entry in optimizer.pruner.report()["tensors"].values())
    assert accuracy(average) > 0.85


def test_a_copy_that_is_followed_late_is_masked_at_once():
    model = network()
    optimizer = ours(model)
    train(model, optimizer)
    late = network(seed=1)
    optimizer.pruner.follow(late)
    assert masked_are_zero(late, optimizer)


def test_dense_averages_of_a_checkpoint_are_masked_when_training_goes_on():
    """In whichever order the optimizer and the average are loaded."""
    model = network()
    optimizer = ours(model)
    train(model, optimizer, range(40))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for average_last in (False, True):
        resumed = network(seed=1)
        other = ours(resumed)
        average = AveragedModel(resumed)
        other.pruner.follow(average)
        resumed.load_state_dict(saved[0])
        other.load_state_dict(saved[1])
        assert masked_are_zero(average.module, other)
        if average_last:
            average.module.load_state_dict(network(seed=2).state_dict())
        train(resumed, other, [40])
        assert masked_are_zero(average.module, other)


def test_copies_of_the_optimizer_follow_nothing():
    model = network()
    optimizer = ours(model)
    average = AveragedModel(model)
    optimizer.pruner.follow(average)
    train(model, optimizer, range(30))
    both = copy.deepcopy({"model": model, "optimizer": optimizer})
    before = copy.deepcopy(average.state_dict())
    train(both["model"], both["optimizer"], range(30, 60))
    assert all(torch.equal(value, before[key]) for key, value in average.state_dict().items())


def test_an_average_that_is_dropped_is_not_kept_alive():
    model = network()
    optimizer = ours(model)
    average = AveragedModel(model)
    optimizer.pruner.follow(average)
    gone = weakref.ref(average)
    del average
    gc.collect()
    assert gone() is None
    train(model, optimizer)
    assert optimizer.pruner.at_target


def test_a_stranger_is_refused_before_the_first_mask():
    optimizer = ours(network())
    with pytest.raises(ValueError, match=r"other\.weight.*0\.weight"):
        optimizer.pruner.follow(torch.nn.ModuleDict({"other": torch.nn.Linear(3, 3)}))
