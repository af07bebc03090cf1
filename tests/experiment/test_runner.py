# SPDX-License-Identifier: MIT
"""The runner keeps its promises when workers or the runner itself die. The engine is a fake; the processes are real."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import psutil
import pytest
from fake_matrix import HERE, FakeMatrix, make_run
from rich.console import Console

from adamwprune.experiment import index
from adamwprune.experiment.display import Display, LiveDisplay
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.lease import BusyError, lease
from adamwprune.experiment.runner import Outcome, Runner, default_jobs
from adamwprune.experiment.store import LOCK, ResultsFolder


def run(folder: ResultsFolder, jobs: int = 1, display: Display | None = None) -> tuple[Outcome, str]:
    output = StringIO()
    index.rebuild(folder)
    shown = display or Display(Console(file=output))
    outcome = Runner(folder, folder.runs, shown, jobs=jobs, engine="fake_engine").run()
    return outcome, output.getvalue()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def start_driver(matrix: FakeMatrix, jobs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "drive.py"), str(matrix.path), str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def expected_value(seed: int) -> float:
    value = seed
    for _ in range(10):
        value = (value * 31 + 7) % 1009
    return value / 1009


def test_runs_everything_once_and_marks_what_fails(fake_matrix: FakeMatrix) -> None:
    folder = fake_matrix.create(range(5), s1="die", s2="nan", s3="raise", s4="die again")
    outcome, output = run(folder)
    # Seed 1 dies at step 5 and goes on from there; seed 4 dies after its last step, twice.
    assert fake_matrix.statuses() == ["finished", "finished", "failed", "failed", "failed"]
    assert fake_matrix.starts() == {0: 1, 1: 2, 2: 1, 3: 1, 4: 2}
    assert set(fake_matrix.steps().values()) == {1}, "a run that goes on repeats no step"
    assert fake_matrix.values() == {"run-0": expected_value(0), "run-1": expected_value(1)}
    assert (outcome.finished, outcome.failed, outcome.interrupted) == (2, 3, False)
    reasons = [folder.state(r).reason for r in folder.runs]
    assert reasons[2] == "the loss is NaN"
    assert reasons[3] == "RuntimeError: no memory left"
    assert "died 2 times (signal 9)" in (reasons[4] or "")
    assert "[5/5]" in output
    assert "goes on from its last checkpoint" in output

    with sqlite3.connect(folder.path / "index.sqlite") as database:
        rows = dict(database.execute("SELECT seed, status FROM runs"))
    database.close()
    assert rows == {0: "finished", 1: "finished", 2: "failed", 3: "failed", 4: "failed"}

    # Nothing is left to do: no worker starts, whatever failed stays failed.
    again, _ = run(ResultsFolder.open(folder.path))
    assert again.started == 0
    assert sum(fake_matrix.starts().values()) == 7

    # A failed run that is to be tried again goes on from its checkpoint.
    fake_matrix.behave()
    folder.forget_failure(folder.runs[3])
    run(folder)
    assert fake_matrix.statuses()[3] == "finished"
    assert (folder.directory(folder.runs[3]) / "result.failed.json").exists()
    assert set(fake_matrix.steps().values()) == {1}


def test_survives_kill_9_of_the_runner_and_of_a_worker(fake_matrix: FakeMatrix) -> None:
    seeds = range(4)
    fake_matrix.create(seeds, **{f"s{seed}": "slow" for seed in seeds})
    driver = start_driver(fake_matrix, jobs=2)
    wait_for(lambda: fake_matrix.steps()["step 0 3"] > 0 and fake_matrix.steps()["step 1 3"] > 0)
    workers = psutil.Process(driver.pid).children()
    with pytest.raises(BusyError, match="in use by process"), lease(fake_matrix.path / LOCK, "it"):
        pass
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers), "workers notice that their parent is gone"
    assert fake_matrix.values() == {}

    driver = start_driver(fake_matrix, jobs=1)
    wait_for(lambda: fake_matrix.starts()[0] > 1)
    os.kill(psutil.Process(driver.pid).children()[0].pid, signal.SIGKILL)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, output
    assert fake_matrix.values() == {f"run-{seed}": expected_value(seed) for seed in seeds}
    assert fake_matrix.starts() == {0: 3, 1: 2, 2: 1, 3: 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_a_checkpoint(fake_matrix: FakeMatrix, number: signal.Signals) -> None:
    fake_matrix.create([1, 2], s1="slow", s2="slow")
    driver = start_driver(fake_matrix, jobs=1)
    wait_for(lambda: fake_matrix.steps()["step 1 2"] > 0)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130, output
    assert fake_matrix.statuses() == ["interrupted", "waiting"]
    run(ResultsFolder.open(fake_matrix.path))
    assert fake_matrix.values() == {"run-1": expected_value(1), "run-2": expected_value(2)}
    assert set(fake_matrix.steps().values()) == {1}


def test_workers_that_cannot_start_are_an_error(fake_matrix: FakeMatrix) -> None:
    folder = fake_matrix.create([0])
    index.rebuild(folder)
    with pytest.raises(ExperimentError, match="workers cannot start: ModuleNotFoundError"):
        Runner(folder, folder.runs, Display(Console(file=StringIO())), jobs=1, engine="no_such_engine").run()
    assert fake_matrix.statuses() == ["waiting"]


def test_an_index_that_cannot_be_written_is_an_error(fake_matrix: FakeMatrix) -> None:
    folder = fake_matrix.create([0])
    (folder.path / "index.sqlite").mkdir()
    with pytest.raises(ExperimentError, match=r"index.sqlite cannot be written: unable to open database file"):
        index.rebuild(folder)


def test_live_display_shows_runs_and_time(fake_matrix: FakeMatrix) -> None:
    folder = fake_matrix.create([3], s3="slow")
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    run(folder, display=LiveDisplay(console))
    assert "run-3" in output.getvalue()
    assert "val 50.00%" in output.getvalue()
    assert "1/1" in output.getvalue()


def test_default_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = 1 << 40
    monkeypatch.setattr("adamwprune.training.machine.cores", lambda: 8)
    monkeypatch.setattr("adamwprune.training.machine.free_memory", lambda: memory)
    one = make_run(0)
    assert default_jobs([one]) == 8
    for config, jobs in (({"threads": 3}, 2), ({"threads": 16}, 1), ({"threads": 0}, 1), ({"device": "cuda"}, 1)):
        changed = type(one)(run_id="x", name="x", config=one.config.replace(**config))
        assert default_jobs([one, changed]) == jobs
    memory = 2 << 30
    assert default_jobs([one]) == 2
