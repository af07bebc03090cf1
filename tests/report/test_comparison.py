# SPDX-License-Identifier: MIT
"""Which runs make a row, and which rows stand beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from adamwprune.report.arms import NAMED_FIELDS, PLACE_FIELDS, PRUNING_FIELDS, VARIANT_FIELDS
from adamwprune.report.comparison import Comparison, Row, compare
from adamwprune.report.differences import config_differences, environment_warnings, shared_config
from adamwprune.report.read import read_matrix
from adamwprune.training.config import RunConfig

MAGNITUDE = {"pruning_method": "magnitude", "target_sparsity": 0.9}
STATE = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.9}


def only(path: Path) -> Comparison:
    (comparison,) = compare(read_matrix(path))
    return comparison


def row(comparison: Comparison, label: str, target: float = 0.9) -> Row:
    (found,) = (one for one in comparison.rows if one.label == label and one.target == target)
    return found


def test_fields_that_decide_nothing_make_no_arm() -> None:
    """The report's list of places against the config's own marks."""
    fields = {field.name: field for field in dataclasses.fields(RunConfig)}
    assert {name for name, field in fields.items() if not field.metadata["science"]} <= PLACE_FIELDS
    assert fields.keys() >= PLACE_FIELDS | PRUNING_FIELDS | NAMED_FIELDS | VARIANT_FIELDS


def test_default_experiment_has_its_rows_in_blocks(tiny: Path) -> None:
    comparison = only(tiny)
    assert [(one.block, one.kind) for one in comparison.rows] == [(0.0, "dense")] * 2 + [
        (target, kind) for target in (0.5, 0.7, 0.9) for kind in ("magnitude", "sparse", "sparse", "sparse")
    ]
    assert all(one.n == 3 for one in comparison.rows)
    assert comparison.targets == (0.5, 0.7, 0.9)


def test_failed_and_unfinished_runs_are_in_no_row(tiny: Path) -> None:
    assert not any("sgd" in one.label for one in only(tiny).rows)


def test_dense_row_is_that_of_the_stepping_optimizer(tiny: Path) -> None:
    comparison = only(tiny)
    for label, dense in (
        ("adamw magnitude", "adamw dense"),
        ("adamwprune/adamw state", "adamw dense"),
        ("adamwprune/adamwspam state", "adamwspam dense"),
    ):
        reference = row(comparison, label).dense
        assert reference is not None
        assert reference.label == dense


def test_borrowed_magnitude_row_is_noted(tiny: Path) -> None:
    comparison = only(tiny)
    reference = row(comparison, "adamwprune/adamwspam state", 0.7).magnitude
    assert reference is not None
    assert (reference.label, reference.target) == ("adamw magnitude", 0.7)
    assert any("adamwprune/adamwspam state: no magnitude row" in note for note in comparison.notes)


def test_best_magnitude_variant_is_chosen_on_validation(folder: Any) -> None:
    for seed in range(3):
        folder.add(seed=seed)
        folder.add(**STATE, seed=seed)
        folder.add(**MAGNITUDE, seed=seed, accuracy=0.90)
        folder.add(**MAGNITUDE, seed=seed, accuracy=0.95, distribution="global")
        folder.add(**MAGNITUDE, seed=seed, accuracy=0.93, score="lamp")
    reference = row(only(folder.write()), "adamwprune/adamw state").magnitude
    assert reference is not None
    assert reference.config["distribution"] == "global"


def test_arms_whose_names_collide_are_told_apart_by_what_differs(folder: Any) -> None:
    for distribution in ("layer", "global"):
        folder.add(**MAGNITUDE, distribution=distribution)
    labels = {one.label for one in only(folder.write()).rows}
    assert labels == {"adamw magnitude [distribution=layer]", "adamw magnitude [distribution=global]"}


def test_runs_of_different_recipes_are_never_averaged(folder: Any) -> None:
    for seed, rate in enumerate((0.001, 0.002)):
        folder.add(seed=seed, learning_rate=rate)
    assert [one.n for one in only(folder.write()).rows] == [1, 1]


def test_places_make_no_arm_but_a_repeated_seed_counts_once(folder: Any) -> None:
    folder.add(seed=0, threads=1)
    folder.add(seed=0, threads=2)
    folder.add(seed=1, threads=2)
    comparison = only(folder.write())
    assert [one.n for one in comparison.rows] == [2]
    assert any("repeats seed 0" in note for note in comparison.notes)


def test_small_dense_stands_beside_the_row_with_as_many_weights(folder: Any) -> None:
    for seed in range(3):
        folder.add(seed=seed)
        folder.add(seed=seed, width=0.33)
        folder.add(seed=seed, width=0.9)
        for target in (0.5, 0.9):
            folder.add(**(STATE | {"target_sparsity": target}), seed=seed)
    comparison = only(folder.write())
    small = row(comparison, "adamw small dense (width 0.33)", 0.0)
    assert (small.block, small.kind) == (0.9, "small dense")
    assert row(comparison, "adamwprune/adamw state").small is not None
    assert row(comparison, "adamwprune/adamw state", 0.5).small is None
    assert row(comparison, "adamw small dense (width 0.9)", 0.0).block == 0.0
    assert small.dense is not None
    assert small.dense.label == "adamw dense"


def test_missing_references_are_noted(folder: Any) -> None:
    folder.add(**STATE)
    notes = " ".join(only(folder.write()).notes)
    for expected in ("fewer than 3 seeds", "no dense row", "no magnitude row at this sparsity", "no small dense row"):
        assert expected in notes


def test_models_are_compared_apart(folder: Any) -> None:
    folder.add(model="lenet5")
    folder.add(model="resnet18", data="cifar10")
    assert [one.title for one in compare(read_matrix(folder.write()))] == ["lenet5 on digits", "resnet18 on cifar10"]


def test_config_diff_tells_promised_from_unpromised(folder: Any) -> None:
    folder.add()
    folder.add(**MAGNITUDE)
    folder.add(**STATE, weight_decay=0.01)
    comparison = only(folder.write())
    found = {one.field: one for one in config_differences(comparison)}
    assert {name for name, one in found.items() if not one.named} == {"weight_decay"}
    assert found["weight_decay"].values["adamwprune/adamw state"] == 0.01
    assert {"optimizer", "pruning_method", "score"} <= found.keys()
    assert "distribution" not in found, "it acts in two arms and is the same in both"
    shared = shared_config(comparison)
    assert shared["learning_rate"] == 0.002
    assert not {"weight_decay", "seed", "target_sparsity", "threads"} & shared.keys()


def test_warnings_where_environments_differ(folder: Any) -> None:
    folder.add(seed=0)
    folder.add(seed=1, environment={"torch": "2.12.0", "commit": "fff0000"})
    warnings = environment_warnings(read_matrix(folder.write()).runs)
    assert [warning.split()[0] for warning in warnings] == ["commit", "torch"]
    assert "2.12.0 (1 runs), 2.13.0 (1 runs)" in warnings[1]
