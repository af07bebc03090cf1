# SPDX-License-Identifier: MIT
"""The equality tests can fail: each small mistake in the oracle shows, the selection ones at the first mask update."""

from __future__ import annotations

import brute
import pytest
import torch
from lab import against_oracle, backward, gradients, ours, prune, weights
from oracle import MaskedAdam


class OneTooMany(MaskedAdam):
    """>= for >: the weight at the threshold goes too."""

    def counts(self, tensors, masked, sparsity):
        return [count + 1 for count in super().counts(tensors, masked, sparsity)]


class RoundsDown(MaskedAdam):
    def counts(self, tensors, masked, sparsity):
        return [int(sparsity * t.w.numel()) for t in tensors]


class OneStepLate(MaskedAdam):
    """The ramp is shifted by one step."""

    def progress(self, step):
        return super().progress(step - 1)


class OneStepEarly(MaskedAdam):
    def progress(self, step):
        return super().progress(step + 1)


class SlowFirst(MaskedAdam):
    """The original's cube: slow first, fast at the end."""

    def progress(self, step):
        return min(1.0, ((step - self.start) / (self.end - self.start))) ** 3


class Uncorrected(MaskedAdam):
    """Scores see raw moments: tensors of different age are not comparable."""

    def scores(self, t, score):
        ages, t.steps = t.steps, 10**9
        try:
            return super().scores(t, score)
        finally:
            t.steps = ages


class TiesGoFirst(MaskedAdam):
    """Of equal scores the earlier goes."""

    def live(self, t, score):
        values = super().live(t, score)
        return [value + 1e-6 * i for i, value in enumerate(values)]


class OldGradient(MaskedAdam):
    """Scores before the step's update of the moments."""

    def adam(self, t, g):
        before = t.v.clone()
        super().adam(t, g)
        t.stale = before

    def scores(self, t, score):
        now, t.v = t.v, t.stale
        try:
            return super().scores(t, score)
        finally:
            t.v = now


class KeepsMoments(MaskedAdam):
    """Moments of pruned weights live on, and move the weight until the next mask."""

    def update(self, share):
        moments = [(t, t.m.clone()) for t in self.tensors]
        super().update(share)
        for t, m in moments:
            t.m.copy_(m)


class Rerounded(MaskedAdam):
    """The decay is applied after the update."""

    def adam(self, t, g):
        wd, self.weight_decay = self.weight_decay, 0.0
        super().adam(t, g)
        self.weight_decay = wd
        t.w.mul_(1 - self.lr * wd)


def first_difference(mutant, late=None, tied=False, **settings):
    """The step at which the mutant is told from the library; None if it never is."""
    named = weights([(6, 7), (5, 9)])
    if tied:
        for _, p in named:
            p.data = p.data.sign() * 0.5
    options = {"lr": 0.0 if tied else 0.01, "weight_decay": 0.1}
    oracle = mutant(named, **options, **settings)
    optimizer = ours(named, prune(**settings), **options)
    for step in range(14):
        if step == late:
            extra = [("late.weight", weights([(8, 5)], seed=9)[0][1])]
            optimizer.add_param_group({"params": extra})
            oracle.add(*extra[0])
            named += extra
        optimizer.zero_grad()
        grads = gradients(named, step)
        backward(named, grads)
        optimizer.step()
        oracle.step(grads)
        try:
            against_oracle(optimizer, named, oracle)
        except AssertionError:
            return step + 1
    return None


FIRST = {"start": 3, "end": 11, "every": 2, "schedule": "linear"}
CASES = [
    (OneTooMany, {}, 3),
    (RoundsDown, {"sparsity": 0.37}, 5),
    (OneStepLate, {"start": 2}, 4),
    (OneStepEarly, {}, 3),
    (SlowFirst, {"schedule": "cubic"}, 5),
    (Uncorrected, {"distribution": "global", "late": 3}, 5),
    (TiesGoFirst, {"tied": True, "score": "magnitude"}, 5),
    (OldGradient, {"score": "fisher"}, 5),
    (KeepsMoments, {}, 5),
    (Rerounded, {}, 1),
]


@pytest.mark.parametrize(("mutant", "settings", "expected"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_mutant_is_found_at_its_first_chance(mutant, settings, expected):
    """Updates at 3 (of nothing, the ramp's start), 5, ..."""
    settings = {**FIRST, **settings}
    assert first_difference(MaskedAdam, **settings) is None
    assert first_difference(mutant, **settings) == expected


def test_the_selection_oracle_is_not_the_identity():
    scores = [[3.0, 1.0, 2.0], [1.0, 0.5]]
    assert brute.lowest_positions(scores, 2) == [set(), {0, 1}]
    assert brute.lowest_positions(scores, 3) == [{1}, {0, 1}]
    assert brute.lowest_positions([[1.0] * 4], 2) == [{2, 3}]
    assert brute.lowest_positions(scores, 3, [3, 1]) == [{1, 2}, {1}]


def test_dense_oracle_without_pruning_is_torchs_adamw():
    named, twins = weights(), weights()
    oracle = MaskedAdam(named, sparsity=0.0, amsgrad=True, weight_decay=0.2)
    optimizer = torch.optim.AdamW(twins, amsgrad=True, weight_decay=0.2)
    for step in range(20):
        optimizer.zero_grad()
        backward(twins, gradients(twins, step))
        optimizer.step()
        oracle.step(gradients(named, step))
    assert all(torch.equal(p, t.w) for (_, p), t in zip(twins, oracle.tensors, strict=True))
