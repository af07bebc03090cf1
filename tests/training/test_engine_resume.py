# SPDX-License-Identifier: MIT
"""A run that was stopped anywhere equals, bit for bit, one that never was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from adamwprune.training import Interrupted, RunConfig
from adamwprune.training.engine import train


def records(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    measured = ("seconds", "rss", "throughput")
    return [{key: value for key, value in line.items() if key not in measured} for line in lines]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Tensors and plain values of a checkpoint by their path."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {path: value}
    return {key: leaf for name, child in pairs for key, leaf in flat(child, f"{path}/{name}").items()}


def assert_same_run(one: Path, other: Path) -> None:
    for kind in ("last", "best", "best_any"):
        files = [folder / "checkpoints" / f"{kind}.pt" for folder in (one, other)]
        assert files[0].exists() == files[1].exists()
        if not files[0].exists():
            continue
        a, b = (flat(torch.load(file, weights_only=True)) for file in files)
        assert a.keys() == b.keys()
        for key in a:
            if "seconds" in key or "throughput" in key or key.endswith("_size"):
                continue
            same = torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key]
            assert same, f"{kind}.pt differs in {key}"
    for name in ("metrics.jsonl", "memory.jsonl"):
        assert records(one / name) == records(other / name)
    a, b = (json.loads((folder / "result.json").read_text()) for folder in (one, other))
    for measured in ("seconds", "throughput"):
        assert a.pop(measured).keys() == b.pop(measured).keys()
    assert a == b


def stop_after(steps: int) -> Callable[[], bool]:
    """A ``should_stop`` that lets a call do some steps."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    return should_stop


def in_pieces(config: RunConfig, folder: Path, pieces: list[int]) -> dict[str, Any]:
    for steps in pieces:
        with pytest.raises(Interrupted):
            train(config, folder, should_stop=stop_after(steps))
    return train(config, folder)


@pytest.mark.parametrize("arm", tiny.ARMS)
def test_interrupted_equals_uninterrupted(tmp_path: Path, arm: str) -> None:
    config = tiny.config(**tiny.ARMS[arm])
    result = train(config, tmp_path / "whole")
    assert result["status"] == "finished"
    # Before the first step, inside the first epoch, inside the ramp twice, at an epoch's end, before the last step.
    in_pieces(config, tmp_path / "pieces", [0, 3, 12, 5, 8, 13])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_a_generator_that_only_a_network_uses_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamwprune.models.lenet5 import LeNet5

    plain = LeNet5.forward
    monkeypatch.setattr(
        LeNet5, "forward", lambda self, x: plain(self, torch.nn.functional.dropout(x, 0.2, self.training))
    )
    train(tiny.config(), tmp_path / "whole")
    in_pieces(tiny.config(), tmp_path / "pieces", [4, 20])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
import tiny
from adamwprune.training.engine import train
tiny.register()
steps = 0
def kill():
    global steps
    steps += 1
    if steps > {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
train(tiny.config(**tiny.ARMS[{arm!r}], checkpoint_every={every}), {folder!r}, should_stop=kill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize(("after", "every"), [(4, 0), (24, 5)])
def test_killed_equals_uninterrupted(tmp_path: Path, after: int, every: int) -> None:
    arm = "adamwprune-state"
    folder = tmp_path / "killed"
    script = KILLED.format(here=str(Path(__file__).parent), after=after, arm=arm, every=every, folder=str(folder))
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (folder / "result.json").exists()
    config = tiny.config(**tiny.ARMS[arm], checkpoint_every=every)
    train(config, folder)
    train(config, tmp_path / "whole")
    assert_same_run(tmp_path / "whole", folder)


def test_lines_after_the_last_checkpoint_are_not_doubled(tmp_path: Path) -> None:
    config = tiny.config(checkpoint_every=20)
    with pytest.raises(Interrupted):
        train(config, tmp_path, should_stop=stop_after(10))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "step": 14}\n{"epo')
    with open(tmp_path / "memory.jsonl", "a") as file:
        file.write("torn")
    train(config, tmp_path)
    assert [line["epoch"] for line in records(tmp_path / "metrics.jsonl")] == list(range(1, tiny.EPOCHS + 1))
    assert len(records(tmp_path / "memory.jsonl")) == tiny.EPOCHS


def test_a_finished_run_is_answered_from_its_directory(tmp_path: Path) -> None:
    result = train(tiny.config(), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    assert train(tiny.config(), tmp_path, should_stop=lambda: True) == result
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_resume_false_starts_over(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tiny.config(), tmp_path / "a", should_stop=stop_after(10))
    seen: list[int] = []
    train(tiny.config(), tmp_path / "a", resume=False, on_progress=lambda progress: seen.append(progress.step))
    assert min(seen) <= tiny.STEPS_PER_EPOCH
    train(tiny.config(), tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_two_runs_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    train(tiny.config(seed=3), tmp_path / "first")
    torch.rand(17)
    train(tiny.config(seed=1), tmp_path / "other")
    train(tiny.config(seed=3), tmp_path / "again")
    assert_same_run(tmp_path / "first", tmp_path / "again")
    weights = [torch.load(tmp_path / name / "checkpoints/last.pt")["run"]["model"] for name in ("first", "other")]
    assert not torch.equal(weights[0]["fc1.weight"], weights[1]["fc1.weight"])
