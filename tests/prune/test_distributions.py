# SPDX-License-Identifier: MIT
"""Budgets: exact totals, bounds, ERK's published values, cuts through the scores of all tensors."""

from __future__ import annotations

import itertools
import math

import brute
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from adamwprune.prune.distributions import BY_SHAPE, Bounds, apportion, by_cut, erk, layer, rounded

SHAPES = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


def free(shapes):
    return [Bounds(shape, 0, math.prod(shape)) for shape in shapes]


@brute.quick
@given(shapes=SHAPES, sparsity=st.floats(0, 0.99))
def test_layer_masks_the_rounded_share_of_each(shapes, sparsity):
    assert layer(free(shapes), sparsity) == [brute.rounded(sparsity, math.prod(shape)) for shape in shapes]


def test_halves_round_up():
    assert [rounded(0.5, n) for n in (0, 1, 2, 3, 5)] == [0, 1, 1, 2, 3]


@brute.quick
@given(shapes=SHAPES, sparsity=st.floats(0, 0.99))
def test_erk_is_exact_in_total_and_close_to_its_densities(shapes, sparsity):
    ideal = brute.erk_ideal(shapes, sparsity)
    counts = erk(free(shapes), sparsity)
    assert sum(counts) == brute.rounded(sparsity, sum(math.prod(shape) for shape in shapes))
    assert all(abs(count - x) < 1 + 1e-9 for count, x in zip(counts, ideal, strict=True))


@brute.quick
@given(shapes=SHAPES, sparsity=st.floats(0, 0.99))
def test_erk_equals_largest_remainders_of_the_exact_densities(shapes, sparsity):
    """Where no two remainders are alike: which of equal ones goes up is a matter of rounding."""
    ideal = brute.erk_ideal(shapes, sparsity)
    remainders = sorted(float(x) % 1 for x in ideal)
    assume(all(b - a > 1e-6 for a, b in itertools.pairwise([0.0, *(r for r in remainders if r), 1.0])))
    counts = erk(free(shapes), sparsity)
    assert counts == brute.largest_remainders(ideal, brute.rounded(sparsity, sum(math.prod(s) for s in shapes)))


def test_erk_golden_values():
    """jaxpruner's ERK at one half over these shapes: 0.0, 0.31, 0.655."""
    shapes = [(2, 4), (3, 6), (2, 4, 6)]
    ideal = brute.erk_ideal(shapes, 0.5)
    assert [round(float(x) / math.prod(s), 3) for x, s in zip(ideal, shapes, strict=True)] == [0.0, 0.31, 0.655]
    assert erk(free(shapes), 0.5) == [0, 6, 31]


@brute.quick
@given(data=st.data(), shapes=SHAPES, sparsity=st.floats(0, 0.99))
def test_bounds_hold_and_the_total_is_exact_where_they_allow_it(data, shapes, sparsity):
    tensors = []
    for shape in shapes:
        low = data.draw(st.integers(0, math.prod(shape)))
        tensors.append(Bounds(shape, low, data.draw(st.integers(low, math.prod(shape)))))
    low, high = sum(t.masked for t in tensors), sum(t.limit for t in tensors)
    for name, distribution in BY_SHAPE.items():
        counts = distribution(tensors, sparsity)
        assert all(t.masked <= count <= t.limit for t, count in zip(tensors, counts, strict=True))
        if name == "erk":
            assert sum(counts) == min(max(brute.rounded(sparsity, sum(t.numel for t in tensors)), low), high)


def test_apportion_shares_a_difference_by_room():
    tensors = [Bounds((10, 10), 50, 100), Bounds((10, 10), 0, 100), Bounds((30, 10), 0, 300)]
    assert apportion([10.0, 40.0, 50.0], 100, tensors) == [50, 22, 28]
    assert apportion([], 0, []) == []


@brute.quick
@given(data=st.data(), shapes=SHAPES, sparsity=st.floats(0, 0.99), levels=st.integers(1, 30))
def test_a_cut_through_all_scores_equals_brute_force(data, shapes, sparsity, levels):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    tensors, scores = [], []
    for shape in shapes:
        numel = math.prod(shape)
        masked = data.draw(st.integers(0, numel))
        limit = data.draw(st.integers(masked, numel))
        tensors.append(Bounds(shape, masked, limit))
        scores.append(torch.randint(-levels, levels, (numel - masked,), generator=generator).float())
    total = brute.rounded(sparsity, sum(t.numel for t in tensors))
    total = min(max(total, sum(t.masked for t in tensors)), sum(t.limit for t in tensors))
    taken = brute.lowest_positions(
        [s.tolist() for s in scores], total - sum(t.masked for t in tensors), [t.limit - t.masked for t in tensors]
    )
    counts = by_cut(tensors, [lambda s=s: s.split(99) for s in scores], sparsity)
    assert counts == [t.masked + len(positions) for t, positions in zip(tensors, taken, strict=True)]


@pytest.mark.parametrize("distribution", BY_SHAPE)
def test_no_sparsity_masks_nothing(distribution):
    assert BY_SHAPE[distribution](free([(3, 4), (1, 1)]), 0.0) == [0, 0]
