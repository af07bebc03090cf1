# SPDX-License-Identifier: MIT
"""The results folder: what is ours, what became of each run, and that nothing is run or lost twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_matrix import make_run

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.lease import BusyError, lease
from adamwprune.experiment.plan import Run
from adamwprune.experiment.store import ResultsFolder, folders, latest


def new(path: Path, *seeds: int) -> ResultsFolder:
    folder = ResultsFolder.open_or_create(path, path.name)
    folder.add([make_run(seed) for seed in seeds])
    return folder


def finish(folder: ResultsFolder, run: Run, **content: object) -> None:
    folder.directory(run).mkdir(parents=True)
    result = {"run_id": run.run_id, "status": "finished", "reason": None, **content}
    (folder.directory(run) / "result.json").write_text(json.dumps(result))


def test_a_matrix_is_stored_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "results" / "m"
    folder = ResultsFolder.open_or_create(path, "m")
    assert not path.exists(), "looking writes nothing"
    assert len(folder.add([make_run(0), make_run(1)])) == 2
    again = ResultsFolder.open_or_create(path, "m")
    assert again.runs == folder.runs
    moved = make_run(1)
    moved = Run(run_id=moved.run_id, name=moved.name, config=moved.config.replace(data_dir="/data"))
    assert again.add([moved, make_run(2)]) == [make_run(2)]
    stored = ResultsFolder.open(path)
    assert [run.config.seed for run in stored.runs] == [0, 1, 2]
    assert stored.runs[1].config.data_dir == "/data"
    assert json.loads((path / "matrix.json").read_text())["kind"] == "adamwprune-matrix"


def test_outdated_runs_leave_the_list_but_not_the_disk(tmp_path: Path) -> None:
    folder = new(tmp_path / "m", 0, 1, 2)
    finish(folder, folder.runs[0])
    assert folder.supersede([make_run(3)]) == 0, "another seed is the same experiment"
    changed = Run(run_id="another-id-0", name="run-0", config=make_run(0).config.replace(epochs=3))
    assert folder.supersede([changed]) == 3
    folder.add([changed])
    assert ResultsFolder.open(folder.path).runs == [changed]
    back = make_run(0)
    assert folder.supersede([back]) == 1
    folder.add([back])
    assert folder.state(back).status == "finished", "what was finished is not run again"


def test_folders_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="is a file"):
        ResultsFolder.open_or_create(tmp_path / "file", "x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(ExperimentError, match="it is not ours"):
        ResultsFolder.open_or_create(tmp_path / "photos", "x")
    with pytest.raises(ExperimentError, match=r"has no matrix\.json"):
        ResultsFolder.open(tmp_path / "photos")
    marker = tmp_path / "photos" / "matrix.json"
    for text, message in (
        ('{"kind": "numpy"}', "is not ours: its kind is 'numpy'"),
        ('{"kind": "adamwprune-matrix", "schema": 99}', "has schema 99"),
        ('{"kind": "adamwprune-matrix", "schema": 1, "name": "x"}', "is damaged"),
        ("[]", "holds list"),
        ("{", "cannot be read"),
    ):
        marker.write_text(text)
        with pytest.raises(ExperimentError, match=message):
            ResultsFolder.open_or_create(tmp_path / "photos", "x")
    (tmp_path / "empty").mkdir()
    ResultsFolder.open_or_create(tmp_path / "empty", "x")


def test_states_are_read_from_the_run_directories(tmp_path: Path) -> None:
    folder = new(tmp_path / "m", 0, 1, 2, 3)
    finish(folder, folder.runs[0])
    folder.mark_failed(folder.runs[1], "no memory left")
    folder.directory(folder.runs[2]).mkdir()
    assert [folder.state(run).status for run in folder.runs] == ["finished", "failed", "interrupted", "waiting"]
    assert folder.state(folder.runs[1]).reason == "no memory left"
    folder.forget_failure(folder.runs[1])
    assert folder.state(folder.runs[1]).status == "interrupted"
    finish(folder, folder.runs[3], run_id="another")
    with pytest.raises(ExperimentError, match="belongs to run 'another'"):
        folder.state(folder.runs[3])


def test_a_run_that_another_matrix_finished_is_taken_over(tmp_path: Path) -> None:
    one, two = new(tmp_path / "one", 0, 1), new(tmp_path / "two", 0, 1)
    finish(one, one.runs[0], marker=7)
    one.mark_failed(one.runs[1], "NaN")
    assert two.adopt(two.runs[0])
    assert not two.adopt(two.runs[1]), "only what is finished"
    assert two.state(two.runs[0]).result["marker"] == 7  # type: ignore[index]
    assert one.state(one.runs[0]).status == "finished"


def test_the_latest_matrix(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="there is no matrix under"):
        latest(tmp_path)
    for age, name in ((50, "b"), (10, "c"), (90, "a")):
        folder = new(tmp_path / name, 0)
        stamp = 1e9 - age
        os.utime(folder.path / "matrix.json", (stamp, stamp))
    assert [path.name for path in folders(tmp_path)] == ["a", "b", "c"]
    with lease(tmp_path / "a" / ".lock", "a"):
        pass
    assert latest(tmp_path).name == "a", "what a runner worked on last"


def test_a_lease_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "m" / ".lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\nfrom adamwprune.experiment.lease import lease\n"
            f"with lease(pathlib.Path({str(lock)!r}), 'm'):\n  print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"in use by process {holder.pid}"), lease(lock, "m"):
        pass
    holder.kill()
    holder.communicate()
    with lease(lock, "m"):
        pass
