# SPDX-License-Identifier: MIT
"""Run folders as they are found: finished, failed, stopped, torn, foreign."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adamwprune.report import ReportError, build, table
from adamwprune.report.read import read_matrix


def test_each_run_has_a_status_and_a_reason(tiny: Path) -> None:
    matrix = read_matrix(tiny)
    assert len(matrix.runs) == 2 * 3 + 4 * 3 * 3 + 3
    assert {run.status for run in matrix.runs[:-3]} == {"finished"}
    assert [(run.status, run.reason) for run in matrix.runs[-3:]] == [
        ("failed", "loss is nan at step 80"),
        ("unfinished", "stopped after epoch 4 of 10"),
        ("unfinished", "not started"),
    ]


def test_a_run_whose_length_is_in_steps_stopped_after_a_step(folder: Any) -> None:
    folder.add(status="unfinished", epochs=None, iterations=200)
    (run,) = read_matrix(folder.write()).runs
    assert (run.status, run.reason) == ("unfinished", "stopped after step 80 of 200")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is not a results folder"),
        ("{", "cannot be read"),
        ("[]", "holds a list"),
        ('{"schema": 1, "kind": "other"}', "is not ours"),
        ('{"schema": 2, "kind": "adamwprune-matrix", "runs": []}', "has schema 2"),
        ('{"schema": 1, "kind": "adamwprune-matrix"}', "has no list of runs"),
        ('{"schema": 1, "kind": "adamwprune-matrix", "runs": [{"name": "x"}]}', "has no list of runs"),
    ],
)
@pytest.mark.parametrize("entry", [build, table])
def test_folders_that_are_not_ours_are_refused(
    tmp_path: Path, content: str | None, complaint: str, entry: Callable[[Path], Any]
) -> None:
    if content is not None:
        (tmp_path / "matrix.json").write_text(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ReportError, match=complaint):
        entry(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a results folder"):
        table(tmp_path / "nowhere")


def test_torn_last_line_is_left_out(folder: Any) -> None:
    directory = folder.add()
    whole = read_matrix(folder.write()).runs[0].evaluations
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 11, "step": 220, "val_ac')
    assert read_matrix(folder.path).runs[0].evaluations == whole


def test_steps_written_twice_count_once_and_the_last_wins(folder: Any) -> None:
    directory = folder.add()
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    with (directory / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(records[3] | {"val_accuracy": 0.5}) + "\n")
    evaluations = read_matrix(folder.write()).runs[0].evaluations
    assert [one.step for one in evaluations] == [record["step"] for record in records]
    assert evaluations[3].val_accuracy == 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"run_id": "someone else"}, "belongs to run"), ({"schema": 7}, "has schema 7")],
)
def test_a_foreign_result_is_a_failed_run(folder: Any, change: dict[str, Any], reason: str) -> None:
    path = folder.add() / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    run = read_matrix(folder.write()).runs[0]
    assert run.status == "failed"
    assert reason in str(run.reason)


def test_a_broken_result_is_a_failed_run(folder: Any) -> None:
    (folder.add() / "result.json").write_text('{"schema": 1, ')
    run = read_matrix(folder.write()).runs[0]
    assert (run.status, run.result) == ("failed", {})
    assert "result.json cannot be read" in str(run.reason)


def test_folders_outside_the_matrix_are_named_and_not_counted(folder: Any) -> None:
    folder.add(seed=0)
    stranger = folder.add(seed=1)
    folder.entries.pop()
    matrix = read_matrix(folder.write())
    assert len(matrix.runs) == 1
    assert matrix.strangers == (f"runs/{stranger.name}",)
    assert stranger.name in table(folder.path)


def test_a_dense_run_has_no_target(folder: Any) -> None:
    folder.add(pruning_method="none", target_sparsity=0.5)
    assert read_matrix(folder.write()).runs[0].target == 0.0
