# SPDX-License-Identifier: MIT
"""A small real matrix: killed in the middle, continued, reported; the numbers are those of an undisturbed one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from adamwprune.cli import main
from adamwprune.experiment.session import continue_matrix
from adamwprune.experiment.store import ResultsFolder

COMMON = "data=digits epochs=1 checkpoint-every=5 threads=1 device=cpu"
ARMS = (
    "--arm",
    f"{COMMON} optimizer=adamw",
    "--arm",
    f"{COMMON} optimizer=adamwprune pruning-method=state target-sparsity=0.9",
)


def numbers(path: Path) -> dict[str, dict[str, float]]:
    folder = ResultsFolder.open(path)
    results = {run.name: folder.state(run).result for run in folder.runs}
    return {name: result["final"] for name, result in results.items() if result}


def finished(path: Path) -> Counter[str]:
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return Counter(line["name"] for line in lines if line["event"] == "finished")


@pytest.mark.timeout(300)
def test_a_killed_matrix_ends_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = [sys.executable, "-m", "adamwprune", "matrix", "run", *ARMS, "--jobs", "1", "--name", "killed"]
    runner = subprocess.Popen(start, cwd=tmp_path, stdout=subprocess.DEVNULL)
    killed = tmp_path / "results" / "killed"
    deadline = time.monotonic() + 120
    while not list(killed.glob("runs/*/checkpoints/last.pt")):
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(runner.pid).children()
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() for worker in workers)

    (tmp_path / ".config").write_text("CONFIG_NONSENSE=y\n")  # continuing does not read it
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["matrix", "continue"])
    printed = capsys.readouterr().out
    assert left.value.code == 0, printed
    assert "lenet5-digits-adamwprune-state-90-s0" in printed
    assert "page: results/killed/report/index.html" in printed
    assert (killed / "report" / "index.html").is_file()
    assert finished(killed) == dict.fromkeys(numbers(killed), 1)
    assert len(numbers(killed)) == 2

    from adamwprune.training import engine

    folder = ResultsFolder.open(killed)
    undisturbed = {run.name: engine.train(run.config, tmp_path / run.name)["final"] for run in folder.runs}
    assert numbers(killed) == undisturbed

    # A finished matrix starts no worker; its table is printed again.
    before = (killed / "log.jsonl").read_text()
    assert continue_matrix(killed) == 0
    assert "2 finished before" in capsys.readouterr().out
    assert (killed / "log.jsonl").read_text() == before
