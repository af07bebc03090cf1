# SPDX-License-Identifier: MIT
"""Scores against their formulas in double precision, and how functions become scores."""

from __future__ import annotations

from typing import Any

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.prune import ALIASES, SCORES, STATE_FAMILY, Prune, canonical_score
from adamwprune.prune.scores import find_score

N = 257


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    w, m, g, movement = torch.randn(4, N, generator=generator).to(dtype)
    v = torch.rand(N, generator=generator).to(dtype) * 1e-3
    w[:5], m[3:8], v[6:11] = 0, 0, 0
    return {"w": w, "m": m, "v": v, "g": g, "movement": movement, "index": torch.arange(N)}


FORMULAS = {
    "magnitude": lambda x: x["w"].abs(),
    "hybrid": lambda x: x["w"] ** 2 * x["m"].abs() / (x["v"] ** 0.5 + 1e-8),
    "scale-aware": lambda x: x["w"].abs() * x["v"] ** 0.5 / (x["m"].abs() + 1e-8),
    "state": lambda x: x["w"].abs() * x["v"] ** 0.25,
    "fisher": lambda x: x["w"].abs() * x["v"] ** 0.5,
    "taylor": lambda x: (x["w"] * x["g"]).abs(),
    "movement": lambda x: x["movement"],
}


@pytest.mark.parametrize("name", [*FORMULAS, *ALIASES])
def test_score_equals_its_formula_in_double_precision(name):
    x = inputs()
    expected = FORMULAS[ALIASES.get(name, name)]({k: t.double() for k, t in x.items()})
    score = SCORES[canonical_score(name)]
    torch.testing.assert_close(score(**x).double(), expected, rtol=1e-6, atol=0)


def test_every_registered_score_has_an_oracle_here():
    assert set(SCORES) == {*FORMULAS, "lamp", "random"}
    assert ALIASES == {"bitter0": "hybrid", "bitter1": "magnitude", "bitter2": "scale-aware"}
    assert set(STATE_FAMILY) <= set(SCORES)
    assert [name for name, score in SCORES.items() if score.whole] == ["lamp"]


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("size", [0, 1, N])
def test_scores_are_float32_of_the_slices_length(name, size):
    x = {k: t[:size] for k, t in inputs().items()}
    result = SCORES[name](**x)
    assert result.dtype == torch.float32
    assert result.shape == (size,)
    assert result.isfinite().all()


@pytest.mark.parametrize("name", [name for name, score in SCORES.items() if not score.whole])
def test_elementwise_scores_do_not_depend_on_chunking(name):
    x = inputs()
    chunked = [SCORES[name](**{k: t[i : i + 50] for k, t in x.items()}) for i in range(0, N, 50)]
    assert torch.equal(torch.cat(chunked), SCORES[name](**x))


@brute.quick
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-12, 7.25]), min_size=1, max_size=24))
def test_lamp_equals_brute_force(values):
    w = torch.tensor(values)
    torch.testing.assert_close(SCORES["lamp"](w=w).double(), torch.tensor(brute.lamp(w), dtype=torch.float64))


def test_lamp_ranks_like_magnitude_and_the_largest_scores_one():
    w = inputs()["w"]
    scores = SCORES["lamp"](w=w)
    assert scores.max() == 1.0
    assert scores.argmax() == w.abs().argmax()
    live = w != 0
    assert torch.equal(scores[live].argsort(), w[live].abs().argsort())


def test_random_is_a_fixed_order_without_a_trend():
    index = torch.arange(20_000)
    scores = SCORES["random"](index=index)
    assert torch.equal(scores, SCORES["random"](index=index.clone()))
    assert torch.equal(scores[5000:], SCORES["random"](index=index[5000:]))
    assert scores.unique().numel() > 19_900
    removed = scores < scores.median()
    for part in removed.view(20, -1):
        assert 0.42 < float(part.float().mean()) < 0.58
    assert abs(float(torch.corrcoef(torch.stack([index.float(), scores]))[0, 1])) < 0.03


def splitmix64(index: int) -> int:
    """The mixing of splitmix64 (Steele, Lea and Flood 2014) in Python's whole numbers, without its last xor."""
    word = index * 0x9E3779B97F4A7C15 % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    return (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64


def test_random_is_the_same_on_every_machine():
    """Its 24 bits are the upper ones of a published hash."""
    places = [0, 1, 2, 1000, 2**31, 2**40 + 7, 2**63 - 1]
    scores = SCORES["random"](index=torch.tensor(places))
    assert scores.tolist() == [splitmix64(place) >> 40 for place in places]


def test_needs_are_told_by_parameter_names():
    assert SCORES["hybrid"].needs == {"w", "m", "v"}
    assert SCORES["hybrid"].needs_moments
    assert not SCORES["taylor"].needs_moments
    assert find_score(lambda v, w: w * v).needs == {"w", "v"}


def test_custom_functions_by_position_and_by_name():
    x = inputs()
    by_position = find_score(lambda a, b, c, d: a + 2 * b + 3 * c + 4 * d)
    assert torch.equal(by_position(**x), x["w"] + 2 * x["m"] + 3 * x["v"] + 4 * x["g"])
    by_name = find_score(lambda movement, w: movement - w)
    assert torch.equal(by_name(**x), x["movement"] - x["w"])
    assert find_score(lambda w: w.double())(**x).dtype == torch.float32


@pytest.mark.parametrize("function", [lambda a, b: a, lambda: 0, lambda w, m, v, g, h: w])
def test_functions_of_other_things_are_refused(function):
    with pytest.raises(ValueError, match=r"expected four slices \(w, m, v, g\)"):
        Prune(sparsity=0.5, total_steps=10, score=function)


def test_a_score_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \[\]"):
        find_score(lambda w: w.sum())(**inputs())


@pytest.mark.parametrize("name", ["bitter9", "State", ""])
def test_unknown_scores_list_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"magnitude, hybrid.*bitter0"):
        canonical_score(name)


def by_position(w: torch.Tensor, /) -> torch.Tensor:
    return w.abs()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.abs, "abs has no signature: wrap it"),
        (by_position, "takes .'w'. by position only, and slices come by name"),
        (lambda w: w.numpy(), "returned ndarray: expected a tensor of real numbers"),
        (lambda w: torch.complex(w, w), "returned torch.complex64: expected a tensor of real numbers"),
    ],
)
def test_functions_that_cannot_be_called_or_ranked_by_say_so(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_score(function)(w=torch.ones(3))
