# SPDX-License-Identifier: MIT
"""SPAM against a hand-written oracle (arXiv 2501.06842, with the differences that optim/spam.py states)."""

from __future__ import annotations

import math

import pytest
import torch
from lab import backward, mlp, prune, train, weights

from adamwprune import AdamWPrune, AdamWSPAM, Prune, Spam


class SpamOracle:
    """One tensor. Reset before the update of step t where t % interval == 0; bias correction counts from the reset."""

    def __init__(self, w, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, *, spam):
        self.w, self.lr, self.betas, self.eps, self.wd, self.spam = w.clone(), lr, betas, eps, weight_decay, spam
        self.m, self.v, self.t, self.age, self.was_reset = torch.zeros_like(w), torch.zeros_like(w), 0, 0, False

    def step(self, g, factors=None):
        spam = self.spam
        self.t += 1
        if factors is not None:
            self.m, self.v = self.m * factors[0], self.v * factors[1]
        if spam.interval and self.t % spam.interval == 0:
            self.m, self.v, self.age, self.was_reset = torch.zeros_like(g), torch.zeros_like(g), 0, True
        if spam.theta is not None and self.age >= spam.min_age:
            spike = (g * g > spam.theta * self.v) & (self.v > 0)
            g = torch.where(spike, g.sign() * (spam.theta * self.v).sqrt(), g)
        lr = self.lr
        if self.was_reset and self.age < spam.warmup:
            lr = lr * (1 - math.cos(math.pi * (self.age + 1) / (spam.warmup + 1))) / 2
        self.age += 1
        b1, b2 = self.betas
        self.w = self.w * (1 - lr * self.wd)
        self.m = torch.lerp(self.m, g, 1 - b1)
        self.v = self.v * b2 + (1 - b2) * g * g
        denominator = self.v.sqrt() / (1 - b2**self.age) ** 0.5 + self.eps
        self.w = self.w - lr / (1 - b1**self.age) * self.m / denominator


def spiky(shape, step):
    """Gaussian gradients; every seventh step has a few that are a thousand times larger."""
    generator = torch.Generator().manual_seed(step)
    g = torch.randn(shape, generator=generator)
    if step % 7 == 6:
        g = torch.where(torch.rand(shape, generator=generator) < 0.1, 1000 * g, g)
    return g


@pytest.mark.parametrize(
    "spam",
    [
        Spam(interval=20, warmup=6, min_age=4, theta=25.0),
        Spam(interval=13, warmup=20, min_age=0, theta=5000.0),
        Spam(interval=0, min_age=3, theta=9.0),
        Spam(interval=20, warmup=0, min_age=4, theta=None),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [{}, {"foreach": True}])
def test_spam_equals_the_oracle(spam, path):
    named = weights([(6, 5)])
    oracle = SpamOracle(named[0][1].detach(), lr=0.01, weight_decay=0.1, spam=spam)
    optimizer = AdamWSPAM(named, lr=0.01, weight_decay=0.1, spam=spam, **path)
    for step in range(65):
        optimizer.zero_grad()
        g = spiky((6, 5), step)
        backward(named, [g])
        optimizer.step()
        oracle.step(g)
        torch.testing.assert_close(named[0][1].detach(), oracle.w, rtol=1e-5, atol=1e-7, msg=f"step {step + 1}")
        torch.testing.assert_close(optimizer.state[named[0][1]]["exp_avg_sq"], oracle.v, rtol=1e-5, atol=1e-10)


def test_spikes_are_clipped_to_the_square_root_of_theta_v():
    named = weights([(2, 2)])
    optimizer = AdamWSPAM(named, spam=Spam(theta=4.0, min_age=2, interval=0), betas=(0.0, 0.5))
    for g in (1.0, 1.0):
        named[0][1].grad = torch.full((2, 2), g)
        optimizer.step()
    v = 0.75
    named[0][1].grad = torch.tensor([[100.0, -100.0], [0.5, -0.5]])
    optimizer.step()
    bound = math.sqrt(4.0 * v)
    torch.testing.assert_close(optimizer.state[named[0][1]]["exp_avg"], torch.tensor([[bound, -bound], [0.5, -0.5]]))


def test_a_soft_reset_answers_a_spike_of_the_norm():
    spam = Spam(theta=None, interval=0, zscore=3.0, soft_reset=(0.5, 0.9))
    named = weights([(6, 5)])
    oracle = SpamOracle(named[0][1].detach(), spam=spam)
    optimizer = AdamWSPAM(named, spam=spam)
    norms, spikes = [], 0
    for step in range(60):
        g = torch.randn(6, 5, generator=torch.Generator().manual_seed(step)) * (50.0 if step in (5, 30) else 1.0)
        norm = float(g.norm())
        past = torch.tensor(norms[-100:], dtype=torch.float64)
        spike = len(past) >= 10 and (norm - float(past.mean())) / float(past.std(correction=0)) > 3.0
        spikes += spike
        norms.append(norm)
        optimizer.zero_grad()
        backward(named, [g])
        optimizer.step()
        oracle.step(g, (0.5, 0.9) if spike else None)
        torch.testing.assert_close(named[0][1].detach(), oracle.w, rtol=1e-5, atol=1e-7, msg=f"step {step}")
    assert spikes >= 1


def test_non_finite_norms_are_not_remembered():
    optimizer = AdamWSPAM(weights([(3, 3)]), spam=Spam(zscore=2.0))
    clock = optimizer.spam_clock
    for norm in [1.0, 1.1] * 6:
        assert not clock.is_spike(norm)
    assert not clock.is_spike(math.inf)
    assert not clock.is_spike(math.nan)
    assert len(clock.norms) == 12
    assert clock.is_spike(9.0)
    assert not AdamWSPAM(weights()).spam_clock.is_spike(1e9)


@pytest.mark.parametrize("score", ["state", "magnitude"])
def test_updates_wait_for_old_moments_only_where_they_rank_by_them(score):
    """A reset at step 10, min_age 5: the update due at 12 comes at 14, with moments of five steps."""
    model = mlp()
    settings = Prune(sparsity=0.5, total_steps=40, start=4, end=28, every=8, score=score)
    optimizer = AdamWPrune(
        model.named_parameters(), prune=settings, base="adamwspam", spam=Spam(interval=10, min_age=5, warmup=2)
    )
    seen = []
    train(model, optimizer, 1, 40, lambda step: seen.append(optimizer.pruner.last_update))
    updates = sorted({step for step in seen if step is not None})
    # The reset before step 20 would make the update of step 20 wait; the one before step 28 does not exist.
    assert updates == ([4, 14, 24, 28] if score == "state" else [4, 12, 20, 28])
    assert optimizer.pruner.at_target


@pytest.mark.parametrize(("end", "resets"), [(20, 1), (22, 1), (24, 2), (19, 2)])
def test_a_reset_that_would_delay_the_last_update_is_skipped(end, resets):
    """min_age 5, interval 10: the reset before step 20 leaves an update at 24 in time, but not one at 20 to 23."""
    model = mlp()
    optimizer = AdamWPrune(
        model.named_parameters(),
        prune=Prune(sparsity=0.5, total_steps=29, start=2, end=end, every=3),
        base="adamwspam",
        spam=Spam(interval=10, min_age=5),
    )
    was_reset = []

    def watch(step):
        was_reset.append(optimizer.spam_clock.last_reset)
        if step == end:
            assert optimizer.pruner.last_update == end
            assert optimizer.pruner.at_target

    train(model, optimizer, 1, 29, watch)
    assert sorted(set(was_reset)) == [0, 9, 19][: resets + 1]


def test_a_pruned_spam_step_leaves_pruned_state_at_zero():
    model = mlp()
    optimizer = AdamWPrune(
        model.named_parameters(),
        prune=prune(),
        base="adamwspam",
        spam=Spam(interval=6, min_age=2, warmup=3),
        amsgrad=True,
    )
    train(model, optimizer, 1, 14)
    assert optimizer.pruner.at_target
    for name, keep in optimizer.pruner.named_masks().items():
        w = model.get_parameter(name)
        assert not w[~keep].count_nonzero()
        assert optimizer.state[w]["max_exp_avg_sq"].numel() == int(keep.sum())


@pytest.mark.parametrize(
    "wrong",
    [
        {"theta": -1.0}, {"interval": -1}, {"warmup": -1}, {"min_age": -1}, {"zscore": 0.0}, {"history": 5},
        {"soft_reset": (0.5, 1.1)}, {"interval": 10, "min_age": 10},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)) + "|min_age"):
        Spam(**wrong)
