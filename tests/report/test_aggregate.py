# SPDX-License-Identifier: MIT
"""Means and deviations against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.report.aggregate import curve, median, paired_differences, summarise

numbers = st.floats(min_value=-1e3, max_value=1e3)


@given(st.lists(numbers, min_size=2, max_size=12))
def test_summary_is_mean_and_sample_deviation(values: list[float]) -> None:
    summary = summarise(values)
    assert summary is not None
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert summary.sd == pytest.approx(np.std(values, ddof=1), abs=1e-6)


@given(numbers)
def test_one_number_has_no_deviation(value: float) -> None:
    summary = summarise([value])
    assert summary is not None
    assert (summary.n, summary.mean, summary.sd, summary.spread) == (1, value, None, 0.0)


def test_nothing_has_no_summary() -> None:
    assert summarise([]) is None
    assert median([]) is None
    assert paired_differences({1: 0.5}, {2: 0.5}) is None
    assert curve([]) == []


@given(st.dictionaries(st.integers(0, 9), st.tuples(numbers, numbers), min_size=2), st.sets(st.integers(0, 9)))
def test_differences_are_paired_by_key(pairs: dict[int, tuple[float, float]], missing: set[int]) -> None:
    ours = {key: a for key, (a, _) in pairs.items()}
    theirs = {key: b for key, (_, b) in pairs.items() if key not in missing}
    expected = [ours[key] - theirs[key] for key in ours if key in theirs]
    summary = paired_differences(ours, theirs)
    assert (summary is None) == (not expected)
    if summary is not None:
        assert summary.n == len(expected)
        assert summary.mean == pytest.approx(np.mean(expected), abs=1e-9)


def test_pairing_removes_what_the_seeds_share() -> None:
    """Seeds that differ widely, and a difference that is the same in each: only pairing sees it."""
    dense = {0: 0.90, 1: 0.95, 2: 0.99}
    sparse = {seed: value - 0.01 for seed, value in dense.items()}
    summary = paired_differences(sparse, dense)
    assert summary is not None
    assert summary.mean == pytest.approx(-0.01)
    assert summary.sd == pytest.approx(0.0, abs=1e-12)


def test_curve_holds_the_positions_that_all_have() -> None:
    points = curve([{1: 0.1, 2: 0.2, 3: 0.3}, {1: 0.3, 3: 0.5}])
    assert [x for x, _ in points] == [1, 3]
    assert [summary.mean for _, summary in points] == pytest.approx([0.2, 0.4])
