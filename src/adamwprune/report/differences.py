# SPDX-License-Identifier: MIT
"""What differs between the rows of a comparison: in their resolved configs, and in where they ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adamwprune.report.arms import BESIDE_ARM, NAMED_FIELDS, PRUNING_FIELDS
from adamwprune.report.comparison import Comparison, Row
from adamwprune.report.read import Run

# Of what a run stored about itself: what can change numbers, times or bytes without being another arm.
COMPARED_ENVIRONMENT = ("adamwprune", "commit", "torch", "python", "system", "device", "threads")
COMPARED_IDENTITY = ("data", "backend", "versions")


@dataclass(frozen=True, slots=True)
class Difference:
    """One config field that does not have the same value everywhere; None where it does not apply.

    ``named`` is true where the rows' names already promise the difference.
    """

    field: str
    values: Mapping[str, Any]
    named: bool


def config_differences(comparison: Comparison) -> list[Difference]:
    """The fields whose resolved values differ between arms, in field order."""
    arms = _arms(comparison)
    found = []
    for name in dict.fromkeys(name for row in arms.values() for name in row.config):
        values = {label: _value(row, name) for label, row in arms.items()}
        distinct = {repr(value) for value in values.values() if value is not None}
        if name not in BESIDE_ARM and len(distinct) > 1:
            found.append(Difference(name, values, name in NAMED_FIELDS or name.startswith("spam_")))
    return found


def shared_config(comparison: Comparison) -> dict[str, Any]:
    """The fields that have one value in every arm they apply to, without seed, target and place."""
    arms = _arms(comparison)
    shared = {}
    for name in dict.fromkeys(name for row in arms.values() for name in row.config):
        values = [value for row in arms.values() if (value := _value(row, name)) is not None]
        if name not in BESIDE_ARM and values and len({repr(value) for value in values}) == 1:
            shared[name] = values[0]
    return shared


def _arms(comparison: Comparison) -> dict[str, Row]:
    """One row for each label: the rows of a label share all but the target."""
    arms: dict[str, Row] = {}
    for row in comparison.rows:
        arms.setdefault(row.label, row)
    return arms


def _value(row: Row, name: str) -> Any:
    """A field's value where it acts; None where it does not."""
    if row.target == 0.0 and name in PRUNING_FIELDS - {"pruning_method"}:
        return None
    if name == "base" and row.config.get("optimizer") != "adamwprune":
        return None
    return row.config.get(name)


def environment(runs: Iterable[Run]) -> dict[str, dict[str, int]]:
    """Each stored environment value with the number of runs that had it."""
    counts: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, value in _place(run).items():
            values = counts.setdefault(name, {})
            values[value] = values.get(value, 0) + 1
    return counts


def environment_warnings(runs: Iterable[Run]) -> list[str]:
    """One sentence for everything that was not the same where compared runs were made."""
    warnings = []
    for name, values in environment(runs).items():
        if len(values) > 1:
            listed = ", ".join(f"{value} ({count} runs)" for value, count in sorted(values.items()))
            warnings.append(f"{name} differs between compared runs: {listed}")
    return warnings


def _place(run: Run) -> dict[str, str]:
    place = {name: run.environment.get(name) for name in COMPARED_ENVIRONMENT}
    place |= {name: run.identity.get(name) for name in COMPARED_IDENTITY}
    return {name: _shown(value) for name, value in place.items() if value is not None}


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={part}" for name, part in value.items())
    return str(value)
