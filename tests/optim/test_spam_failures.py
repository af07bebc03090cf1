# SPDX-License-Identifier: MIT
"""One test for each way in which the original's SPAM went wrong."""

from __future__ import annotations

import pytest
import torch
from lab import backward, mlp, train, weights

from adamwprune import AdamWPrune, AdamWSPAM, Spam


def test_a_step_is_counted_once():
    """There two functions counted the same step, so that resets came twice as often."""
    model = mlp()
    optimizer = AdamWSPAM(model.parameters(), spam=Spam(interval=10, min_age=2))
    resets = []
    train(model, optimizer, 1, 45, lambda step: resets.append(optimizer.spam_clock.last_reset))
    assert optimizer.spam_clock.step == 45
    assert sorted(set(resets)) == [0, 9, 19, 29, 39]
    assert all(int(state["step"]) == 45 for state in optimizer.state.values())


def test_an_odd_interval_resets_once_per_interval():
    model = mlp()
    optimizer = AdamWSPAM(model.parameters(), spam=Spam(interval=7, min_age=1))
    resets = []
    train(model, optimizer, 1, 30, lambda step: resets.append(optimizer.spam_clock.last_reset))
    assert sorted(set(resets)) == [0, 6, 13, 20, 27]


@pytest.mark.parametrize("lr", [0.01, torch.tensor(0.01)], ids=["float", "tensor"])
def test_the_learning_rate_never_collapses(lr):
    """There the warm-up multiplied the group's rate in place, again and again, down to 1e-31."""
    model = mlp()
    optimizer = AdamWSPAM(model.parameters(), lr=lr, spam=Spam(interval=8, warmup=8, min_age=2))
    rates, moved = [], []
    before = [p.detach().clone() for p in model.parameters()]

    def watch(step):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        now = [p.detach().clone() for p in model.parameters()]
        moved.append(sum(float((p - q).abs().sum()) for p, q in zip(now, before, strict=True)))
        before[:] = now

    train(model, optimizer, 1, 60, watch)
    assert set(rates) == {float(lr)}
    assert min(moved) > 0
    # The first step after a reset (step 56) is small; the last of that warm-up is not.
    assert moved[55] < 0.2 * moved[54]
    assert moved[59] > 2 * moved[55]


def test_schedulers_and_warm_up_multiply():
    """A scheduler sets the rate; the warm-up scales a copy of what it set."""
    model = mlp()
    optimizer = AdamWSPAM(model.parameters(), lr=0.01, spam=Spam(interval=8, warmup=8, min_age=2))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / (1 + step))
        train(model, optimizer, step, step)
        scheduler.step()


@pytest.mark.parametrize("make", [AdamWSPAM, lambda p, **k: AdamWPrune(p, base="adamwspam", **k)])
def test_amsgrad_can_be_turned_off(make):
    """There bool("false") was True, and SPAM's baseline carried a third buffer."""
    model = mlp()
    for amsgrad in (None, False, True):
        optimizer = make(model.parameters(), amsgrad=amsgrad)
        train(model, optimizer, 1, 2)
        for state in optimizer.state.values():
            assert ("max_exp_avg_sq" in state) is bool(amsgrad)


def test_clipping_with_an_empty_second_moment_freezes_nothing():
    """There (and in the published code) v = 0 clipped the gradient to nothing, so that v stayed 0."""
    named = weights([(4, 4)])
    optimizer = AdamWSPAM(named, spam=Spam(theta=50.0, min_age=0, interval=5, warmup=0), weight_decay=0.0)
    late = torch.zeros(4, 4)
    late[0] = 1.0
    for step in range(12):
        before = named[0][1].detach().clone()
        optimizer.zero_grad()
        backward(named, [late if step < 8 else torch.ones(4, 4)])
        optimizer.step()
        moved = named[0][1].detach() != before
        assert moved[0].all()
        assert moved[1:].all() if step >= 8 else not moved[1:].any()


def test_the_first_update_after_a_reset_is_not_too_large():
    """There bias correction went on counting: the first update was 3.16 times too large; AMSGrad kept its maximum."""
    for amsgrad in (False, True):
        named = weights([(4, 4)])
        optimizer = AdamWSPAM(
            named, lr=0.01, weight_decay=0.0, amsgrad=amsgrad, spam=Spam(interval=50, warmup=0, min_age=2, theta=None)
        )
        for step in range(1, 52):
            before = named[0][1].detach().clone()
            named[0][1].grad = torch.ones(4, 4) * (10.0 if step < 20 else 1.0)
            optimizer.step()
            if step in (50, 51):
                torch.testing.assert_close(
                    (before - named[0][1].detach()).abs(), torch.full((4, 4), 0.01), rtol=1e-3, atol=0
                )


def test_resets_do_not_touch_the_step_count_of_checkpoints():
    model = mlp()
    optimizer = AdamWSPAM(model.parameters(), spam=Spam(interval=10, min_age=2))
    train(model, optimizer, 1, 25)
    assert {float(state["step"]) for state in optimizer.state_dict()["state"].values()} == {25.0}


def test_the_two_bases_differ():
    """There the ResNet trainers never called the SPAM functions: both bases were one computation."""
    models = [mlp(), mlp()]
    for model, options in zip(models, [{}, {"base": "adamwspam", "spam": Spam(interval=5, min_age=1)}], strict=True):
        train(model, AdamWPrune(model.parameters(), **options), 1, 8)
    assert not torch.equal(models[0][0].weight, models[1][0].weight)
