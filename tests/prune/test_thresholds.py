# SPDX-License-Identifier: MIT
"""Radix selection against a sort: ties, signs, denormals, any chunking."""

from __future__ import annotations

import itertools
import math

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune import NonFiniteScoreError
from adamwprune.prune.thresholds import NOTHING_BELOW, lowest, order_key

FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0000001, 1e-45, -1e-45, 1.1754942e-38, 3.4e38, -3.4e38, 0.1]),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def split(values, cuts):
    edges = sorted({0, len(values), *(c for c in cuts if c <= len(values))})
    return [torch.tensor(values[a:b], dtype=torch.float32) for a, b in itertools.pairwise(edges)]


@brute.thorough
@given(
    values=st.lists(FLOATS, min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    share=st.floats(0, 1),
)
def test_lowest_equals_a_sort(values, cuts, share):
    values = torch.tensor(values, dtype=torch.float32).tolist()
    count = round(share * len(values))
    chunks = split(values, cuts)
    cut = lowest(lambda: chunks, count)
    assert cut.count == count
    assert cut.threshold == (sorted(values)[count - 1] if count else -math.inf)
    keeps = cut.splitter()
    kept = torch.cat([keeps(chunk) for chunk in chunks])
    removed = set((~kept).nonzero().flatten().tolist())
    assert removed == brute.lowest_positions([values], count)[0]


@brute.quick
@given(st.lists(FLOATS, min_size=2, max_size=40))
def test_keys_order_like_the_scores(values):
    x = torch.tensor(values, dtype=torch.float32)
    keys = order_key(x)
    assert keys.dtype == torch.int32
    assert torch.equal(keys[:, None] < keys[None], x[:, None] < x[None])
    assert torch.equal(keys[:, None] == keys[None], x[:, None] == x[None])


def test_eight_equal_scores_at_one_half_keep_the_first_four():
    keeps = lowest(lambda: [torch.full((8,), 0.25)], 4).splitter()
    assert keeps(torch.full((8,), 0.25)).tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("count", [0, 1, 2500, 4999, 5000])
def test_large_inputs_at_every_kind_of_count(count):
    x = torch.randn(5000, generator=torch.Generator().manual_seed(1)).round(decimals=2)
    keeps = lowest(lambda: x.split(777), count).splitter()
    kept = torch.cat([keeps(part) for part in x.split(777)])
    assert int((~kept).sum()) == count
    if 0 < count < 5000:
        assert x[~kept].max() <= x[kept].min()


def test_no_scores_and_nothing_to_take():
    assert lowest(list, 0) == NOTHING_BELOW
    assert (NOTHING_BELOW.count, NOTHING_BELOW.spare) == (0, 0)
    assert lowest(lambda: [torch.empty(0)], 0).count == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_scores_are_refused(bad):
    chunks = [torch.ones(4), torch.tensor([0.0, bad, 2.0])]
    for count in (0, 3):
        with pytest.raises(NonFiniteScoreError, match=r"1 of 3 scores are NaN or infinite"):
            lowest(lambda: chunks, count)


def test_counts_beyond_the_scores_are_our_own_mistake():
    for count in (-1, 4):
        with pytest.raises(AssertionError):
            lowest(lambda: [torch.ones(3)], count)
