# SPDX-License-Identifier: MIT
"""A matrix of fake runs, for tests of the runner and the store."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from adamwprune.experiment.plan import Run
from adamwprune.experiment.store import ResultsFolder
from adamwprune.training.config import RunConfig

HERE = Path(__file__).parent


def make_run(seed: int) -> Run:
    return Run(run_id=f"{seed:012}", name=f"run-{seed}", config=RunConfig(seed=seed, device="cpu", threads=1))


class FakeMatrix:
    """A results folder whose runs the fake engine trains."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path / "results" / "fake"
        self.log = path / "engine.log"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("FAKE_LOG", str(self.log))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))

    def create(self, seeds: Sequence[int], **behaviour: str) -> ResultsFolder:
        self.behave(**behaviour)
        folder = ResultsFolder.open_or_create(self.path, "fake")
        folder.add([make_run(seed) for seed in seeds])
        return folder

    def behave(self, **behaviour: str) -> None:
        """``s1="die"``: what the run of seed 1 does."""
        named = {name.removeprefix("s"): what for name, what in behaviour.items()}
        self._monkeypatch.setenv("FAKE_BEHAVIOUR", json.dumps(named))

    def starts(self) -> Counter[int]:
        return Counter(int(line.split()[1]) for line in self._lines() if line.startswith("start"))

    def steps(self) -> Counter[str]:
        return Counter(line for line in self._lines() if line.startswith("step"))

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def values(self) -> dict[str, float]:
        folder = ResultsFolder.open(self.path)
        states = {run.name: folder.state(run) for run in folder.runs}
        return {name: s.result["final"]["val_accuracy"] for name, s in states.items() if s.status == "finished"}

    def statuses(self) -> list[str]:
        folder = ResultsFolder.open(self.path)
        return [folder.state(run).status for run in folder.runs]
