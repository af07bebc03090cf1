# SPDX-License-Identifier: MIT
"""n:m patterns against brute force, group by group."""

from __future__ import annotations

import math

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune import NonFiniteScoreError, Prune
from adamwprune.prune import Mask
from adamwprune.prune.patterns import parse_pattern

CASES = st.sampled_from(["2:4", "1:2", "1:4", "3:4", "2:3"])


@brute.quick
@given(
    data=st.data(),
    text=CASES,
    lead=st.integers(1, 4),
    groups=st.integers(1, 3),
    tail=st.lists(st.integers(1, 3), max_size=2),
    levels=st.integers(1, 9),
)
def test_select_equals_brute_force(data, text, lead, groups, tail, levels):
    pattern = parse_pattern(text)
    shape = (lead, groups * pattern.m, *tail)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scores = torch.randint(-levels, levels, shape, generator=generator).float()
    full = Mask.full(math.prod(shape), torch.device("cpu"))
    count = math.prod(shape) // pattern.m
    removed = pattern.m - pattern.n
    first, second = sorted(data.draw(st.lists(st.integers(0, count), min_size=2, max_size=2)))
    slack = data.draw(st.integers(0, removed - 1))
    half = pattern.select(scores, full, shape, first * removed + slack)
    expected = brute.n_of_m(scores, torch.ones(shape, dtype=torch.bool), pattern.n, pattern.m, first)
    assert torch.equal(half.to_bool(shape), expected)
    done = pattern.select(-scores, half, shape, second * removed)
    assert torch.equal(done.to_bool(shape), brute.n_of_m(-scores, expected, pattern.n, pattern.m, second - first))


@brute.quick
@given(text=CASES, lead=st.integers(1, 5), groups=st.integers(1, 4))
def test_the_whole_target_leaves_n_of_every_m(text, lead, groups):
    pattern = parse_pattern(text)
    shape = (lead, groups * pattern.m)
    numel = math.prod(shape)
    target = brute.rounded(pattern.sparsity, numel)
    mask = pattern.select(torch.randn(shape), Mask.full(numel, torch.device("cpu")), shape, target)
    assert (mask.to_bool(shape).view(-1, pattern.m).sum(1) == pattern.n).all()
    assert mask.masked == target


def test_ties_in_a_group_keep_the_earlier():
    pattern = parse_pattern("2:4")
    mask = pattern.select(torch.ones(1, 4), Mask.full(4, torch.device("cpu")), (1, 4), 2)
    assert mask.to_bool().tolist() == [True, True, False, False]


def test_asking_for_fewer_than_are_masked_changes_nothing():
    pattern = parse_pattern("1:2")
    before = Mask.from_bool(torch.tensor([[True, False, False, True]]))
    after = pattern.select(torch.randn(1, 4), before, (1, 4), 1)
    assert torch.equal(after.bits, before.bits)


def test_non_finite_scores_are_refused():
    with pytest.raises(NonFiniteScoreError):
        parse_pattern("1:2").select(torch.tensor([[0.0, math.nan]]), Mask.full(2, torch.device("cpu")), (1, 2), 1)


def test_text_and_sparsity():
    pattern = parse_pattern("2:8")
    assert (str(pattern), pattern.sparsity, parse_pattern(None)) == ("2:8", 0.75, None)
    assert pattern.refusal((3, 16, 5)) is None
    assert "not a multiple of 8" in pattern.refusal((3, 12))


@pytest.mark.parametrize("text", ["4:4", "0:4", "5:4", "2:4:8", "2-4", "", "a:b", (4, 4)])
def test_other_patterns_are_refused(text):
    with pytest.raises(ValueError, match='expected None or "n:m"'):
        Prune(sparsity=0.5, total_steps=10, pattern=text)


def test_a_sparsity_that_the_pattern_cannot_reach_is_refused():
    with pytest.raises(ValueError, match=r"set sparsity=0\.5"):
        Prune(sparsity=0.6, total_steps=10, pattern="2:4")
    with pytest.raises(ValueError, match="regrow"):
        Prune(sparsity=0.5, total_steps=10, pattern="2:4", regrow=0.1)
    assert Prune(sparsity=0.0, pattern="2:4").parsed_pattern() == parse_pattern("2:4")


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 2), (12, 5, 2, 2)])
def test_inputs_in_front_are_the_transposed_tensor(shape):
    pattern = parse_pattern("2:4")
    scores = torch.randn(shape)
    full, count = Mask.full(scores.numel(), torch.device("cpu")), scores.numel() // 4
    mask = pattern.select(scores, full, shape, count, inputs=0).to_bool(shape)
    turned = scores.transpose(0, 1).contiguous()
    expected = pattern.select(turned, full, tuple(turned.shape), count).to_bool(turned.shape)
    assert torch.equal(mask, expected.transpose(0, 1))


def test_a_shape_is_refused_along_its_inputs():
    pattern = parse_pattern("2:4")
    assert pattern.refusal((6, 8)) is None
    assert pattern.refusal((6, 8), inputs=0) == "its 6 inputs are not a multiple of 4 (pattern 2:4)"
