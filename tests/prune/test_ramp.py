# SPDX-License-Identifier: MIT
"""Schedules and ramps against their definitions and published values."""

from __future__ import annotations

import itertools

import brute
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamwprune import Prune
from adamwprune.prune import SCHEDULES
from adamwprune.prune.schedules import Ramp


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_definition(name):
    for k in range(101):
        assert SCHEDULES[name](k / 100) == pytest.approx(brute.share(name, k / 100), abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_ends_exactly_and_never_falls(name):
    values = [SCHEDULES[name](k / 1000) for k in range(1001)]
    assert values[-1] == 1.0
    assert all(a <= b for a, b in itertools.pairwise(values))


def test_cubic_golden_values():
    """Zhu & Gupta's ramp to one half over 20 steps has reached 0.4375 half way; to 0.9 it has then pruned 79 %."""
    ramp = Prune(sparsity=0.5, total_steps=20, start=0, end=20).ramp()
    assert 0.5 * ramp.fraction(10) == 0.4375
    assert 0.9 * ramp.fraction(10) == pytest.approx(0.7875)
    assert [0.5 * ramp.fraction(k) for k in (0, 5, 15, 20, 21)] == [0.0, 0.2890625, 0.4921875, 0.5, 0.5]


@brute.quick
@given(
    start=st.integers(0, 60), length=st.integers(1, 60), every=st.integers(1, 20), name=st.sampled_from(list(SCHEDULES))
)
def test_updates_come_at_the_scheduled_steps(start, length, every, name):
    end = start + length
    ramp = Prune(sparsity=0.5, total_steps=end, start=start, end=end, every=every, schedule=name).ramp()
    done, seen = None, []
    for step in range(end + 5):
        if ramp.pending(step, done):
            seen.append(step)
            done = step
    assert seen == brute.events(start, end, every)
    assert ramp.latest(start - 1) is None
    for step in seen:
        assert ramp.fraction(step) == pytest.approx(brute.share(name, (step - start) / length), abs=1e-12)
    assert ramp.fraction(end) == 1.0
    assert ramp.fraction(start - 1) == 0.0


def test_a_late_update_is_made_up_once():
    ramp = Ramp.resolve(10, 30, 5, SCHEDULES["linear"], 40)
    assert ramp.pending(13, 9)
    assert not ramp.pending(13, 13)
    assert ramp.pending(15, 13)
    assert ramp.pending(35, 29)
    assert not ramp.pending(35, 30)


@pytest.mark.parametrize(("total", "expected"), [(100_000, 50), (2000, 50), (1000, 25), (100, 2), (8, 1)])
def test_every_gives_short_runs_at_least_twenty_updates(total, expected):
    ramp = Prune(sparsity=0.5, total_steps=total).ramp()
    assert ramp.every == expected
    assert (ramp.start, ramp.end) == (total // 4, total * 3 // 4)
    if total >= 40:
        assert len(brute.events(ramp.start, ramp.end, ramp.every)) > 20


def test_custom_schedule_is_clamped_and_must_end_at_one():
    ramp = Prune(sparsity=0.5, total_steps=10, start=0, end=10, schedule=lambda p: 3 * p - 2).ramp()
    assert [ramp.fraction(k) for k in (0, 5, 9, 10)] == [0.0, 0.0, pytest.approx(0.7), 1.0]
    overshooting = Prune(sparsity=0.5, total_steps=10, start=0, end=10, schedule=lambda p: 4 * p - 3 * p * p).ramp()
    assert overshooting.fraction(8) == 1.0
    with pytest.raises(ValueError, match="must end at 1"):
        Prune(sparsity=0.5, total_steps=10, schedule=lambda p: p / 2)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"start": 0.5, "end": 0.5}, "before"),
        ({"start": 9, "end": 4}, "before"),
        ({"start": 0.9, "end": 50}, "before"),
        ({"start": 3, "end": 0.02}, "before"),
        ({"start": 3, "end": 101}, "after the run's 100 steps"),
        ({"start": 0.001, "end": 0.004}, "before"),
    ],
)
def test_impossible_windows_are_refused(window, message):
    with pytest.raises(ValueError, match=message):
        Prune(sparsity=0.5, total_steps=100, **window)
