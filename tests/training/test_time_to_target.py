# SPDX-License-Identifier: MIT
"""When a run was first as good as it was asked to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from adamwprune.training import ConfigError, RunConfig
from adamwprune.training.engine import train
from adamwprune.training.outcome import time_to_target
from adamwprune.training.resolve import resolve


def evaluation(epoch: int, accuracy: float, loss: float | None, at_target: bool = True) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 10 * epoch,
        "seconds": 2.0 * epoch,
        "sparsity": 0.5,
        "at_target": at_target,
        "val_accuracy": accuracy,
        "val_loss": loss,
    }


RECORDS = [
    evaluation(1, 0.9, 0.3, at_target=False),
    evaluation(2, 0.8, None),
    evaluation(3, 0.9, 0.5),
    evaluation(4, 0.7, 0.4),
    evaluation(5, 0.95, 0.4),
]


@pytest.mark.parametrize(
    ("asked", "epoch"),
    [
        ({}, None),
        ({"target_accuracy": 0.8}, 2),
        ({"target_accuracy": 0.9}, 3),
        ({"target_loss": 0.5}, 3),
        ({"target_loss": 0.4}, 4),
        ({"target_accuracy": 0.9, "target_loss": 0.4}, 5),
        ({"target_accuracy": 0.99}, None),
        ({"target_loss": 0.3}, None),
    ],
)
def test_the_first_evaluation_that_was_good_at_the_target_sparsity(asked: dict[str, float], epoch: int | None) -> None:
    found = time_to_target(RunConfig(**asked), RECORDS)
    assert (found and (found["epoch"], found["step"], found["seconds"])) == (epoch and (epoch, 10 * epoch, 2.0 * epoch))


def test_a_run_stores_it_and_goes_on(tmp_path: Path) -> None:
    result = train(tiny.config(target_accuracy=0.3), tmp_path)
    first = next(
        line
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if line["val_accuracy"] >= 0.3
    )
    assert result["time_to_target"] == {key: first[key] for key in result["time_to_target"]}
    assert result["time_to_target"]["seconds"] > 0
    assert result["steps"] == tiny.STEPS


@pytest.mark.parametrize("changes", [{"target_accuracy": 1.5}, {"target_accuracy": 0.0}, {"target_loss": 0.0}])
def test_what_cannot_be_a_target_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        resolve(tiny.config(**changes))
