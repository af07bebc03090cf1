# SPDX-License-Identifier: MIT
"""Prune: what it refuses, with the value and the fix in the message."""

from __future__ import annotations

import dataclasses

import pytest

from adamwprune import Prune
from adamwprune.prune import DISTRIBUTIONS, SCHEDULES, SCORES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity=1\.0: expected in \[0, 1\)"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"sparsity": "0.5"}, "sparsity='0.5': expected a number"),
        ({"sparsity": None}, "sparsity=None: expected a number"),
        ({"total_steps": "10"}, "total_steps='10': expected a number"),
        ({"total_steps": 0}, "total_steps=0: expected at least 1"),
        ({"start": -1}, "start=-1"),
        ({"start": -0.5}, "start=-0.5"),
        ({"end": 1.5}, r"end=1\.5.*share in \[0\.0, 1\.0\] or a step"),
        ({"start": 0.8, "end": 0.2}, "must lie before"),
        ({"start": 8, "end": 8}, "must lie before"),
        ({"every": 0}, "every=0: expected at least 1, or None"),
        ({"regrow": 1.0}, "regrow=1.0"),
        ({"regrow": -0.1}, "regrow=-0.1"),
        ({"min_density": 1.5}, "min_density=1.5"),
        ({"sparsity": 0.995}, "below min_density"),
        ({"sparsity": 0.8, "min_density": 0.3}, "below min_density"),
        ({"include": "conv*"}, r"include='conv\*' is a string: expected a tuple"),
        ({"exclude": "conv*"}, "exclude=.* is a string"),
        ({"score": "hessian"}, "unknown score 'hessian': expected one of magnitude"),
        (
            {"score": "auto", "total_steps": None, "start": 8},
            "start=8 is a step of a run of unknown length",
        ),
        ({"schedule": "exponential"}, "unknown schedule 'exponential': expected one of cubic, linear"),
        ({"distribution": "even"}, "unknown distribution 'even': expected one of layer, erk, global"),
    ],
)
def test_refusals_name_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Prune(**{"sparsity": 0.5, "total_steps": 100, **settings})


def test_the_documented_defaults():
    prune = Prune(sparsity=0.5, total_steps=10)
    named = {field.name: getattr(prune, field.name) for field in dataclasses.fields(prune)}
    assert named == {
        "sparsity": 0.5, "total_steps": 10, "start": 0.25, "end": 0.75, "every": None, "schedule": "cubic",
        "score": "state", "distribution": "layer", "pattern": None, "regrow": 0.0, "min_density": 0.01,
        "mask_grads": True, "include": None, "exclude": (),
    }  # fmt: skip


def test_it_is_frozen_and_keyword_only():
    with pytest.raises(TypeError):
        Prune(0.5)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Prune(sparsity=0.5).sparsity = 0.6  # type: ignore[misc]


def test_total_steps_may_come_late_but_the_ramp_then_names_the_two_ways():
    prune = Prune(sparsity=0.5)
    with pytest.raises(ValueError, match=r"total_steps=N.*set_total_steps\(N\)"):
        prune.ramp()
    assert dataclasses.replace(prune, total_steps=40).ramp().end == 30


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, "bitter0", "bitter1", "bitter2"])
def test_every_registered_name_is_accepted(schedule, distribution):
    for score in [*SCORES, "bitter0"]:
        prune = Prune(sparsity=0.5, total_steps=9, schedule=schedule, distribution=distribution, score=score)
        assert prune.ranking() is SCORES["hybrid" if score == "bitter0" else score]


def test_budget_score_is_the_ranking_for_global_and_none_by_shape():
    assert Prune(sparsity=0.5, distribution="layer").budget_score() is None
    assert Prune(sparsity=0.5, distribution="erk").budget_score() is None
    assert Prune(sparsity=0.5, distribution="global", score="fisher").budget_score() is SCORES["fisher"]
    assert Prune(sparsity=0.5, distribution="bitter1", score="fisher").budget_score() is SCORES["magnitude"]


@pytest.mark.parametrize(
    ("window", "chosen"),
    [
        ({}, "magnitude"),
        ({"start": 0.5, "end": 0.9}, "magnitude"),
        ({"start": 0.74, "end": 0.9}, "magnitude"),
        ({"start": 0.75, "end": 0.9}, "state"),
        ({"start": 74, "end": 90}, "magnitude"),
        ({"start": 75, "end": 90}, "state"),
        ({"start": 0, "end": 90}, "magnitude"),
    ],
)
def test_auto_ranks_by_the_state_in_the_last_quarter(window, chosen):
    for distribution, budget in (("layer", None), ("global", chosen), ("fisher", "fisher")):
        prune = Prune(sparsity=0.5, total_steps=100, score="auto", distribution=distribution, **window)
        assert prune.ranking() is SCORES[chosen]
        assert prune.budget_score() is (SCORES[budget] if budget else None)


def test_auto_looks_at_the_share_and_not_at_the_step_it_is_rounded_to():
    # 0.75 of six steps is rounded to step 4, which is two thirds; the length may also come later.
    prune = Prune(sparsity=0.5, score="auto", start=0.75, end=1.0)
    assert prune.ranking() is dataclasses.replace(prune, total_steps=6).ranking() is SCORES["state"]
