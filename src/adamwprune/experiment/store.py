# SPDX-License-Identifier: MIT
"""A matrix's folder: which runs belong to it, and what became of each.

``matrix.json`` lists the runs; the run directories are the truth about them. Nothing here deletes a result.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.plan import Run
from adamwprune.files import read_json, write_json
from adamwprune.training.config import RunConfig

KIND = "adamwprune-matrix"
SCHEMA = 1
LOCK = ".lock"

Status = Literal["finished", "failed", "interrupted", "waiting"]


@dataclass(frozen=True, kw_only=True)
class State:
    """What became of a run: ``interrupted`` left a directory without a result, ``waiting`` has not started."""

    status: Status
    reason: str | None = None
    result: dict[str, Any] | None = None


class ResultsFolder:
    """The folder of one matrix."""

    def __init__(self, path: Path, name: str, created: str, runs: list[Run]) -> None:
        self.path = path
        self.name = name
        self.created = created
        self.runs = runs

    @classmethod
    def open(cls, path: Path) -> ResultsFolder:
        """An existing matrix; anything else is refused."""
        marker = path / "matrix.json"
        if not marker.is_file():
            raise ExperimentError(f"{path} is not a results folder of ours: it has no matrix.json")
        matrix = _read_object(marker)
        if matrix.get("kind") != KIND:
            raise ExperimentError(f"{marker} is not ours: its kind is {matrix.get('kind')!r}, expected {KIND!r}")
        if matrix.get("schema") != SCHEMA:
            raise ExperimentError(f"{marker} has schema {matrix.get('schema')!r}; this version writes schema {SCHEMA}")
        try:
            runs = [_run(entry) for entry in matrix["runs"]]
            return cls(path, matrix["name"], matrix["created"], runs)
        except (KeyError, TypeError) as error:
            raise ExperimentError(f"{marker} is damaged or from another version: {error}") from None

    @classmethod
    def open_or_create(cls, path: Path, name: str) -> ResultsFolder:
        """The matrix at ``path``; a folder that holds something else is refused. Writes nothing."""
        if path.exists() and not path.is_dir():
            raise ExperimentError(f"{path} is a file; choose another results folder")
        if path.is_dir() and any(child.name != LOCK for child in path.iterdir()):
            if not (path / "matrix.json").exists():
                raise ExperimentError(
                    f"{path} is not empty and has no matrix.json: it is not ours; choose another folder"
                )
            return cls.open(path)
        return cls(path, name, datetime.now(UTC).isoformat(timespec="seconds"), [])

    def add(self, runs: Sequence[Run]) -> list[Run]:
        """Adds the runs that are not there yet and stores the list; returns the new ones.

        A run that is there takes over what does not decide its numbers, such as where the data are.
        """
        merged = {run.run_id: run for run in self.runs}
        new = [run for run in runs if run.run_id not in merged]
        merged |= {run.run_id: run for run in runs}
        self._store(list(merged.values()))
        return new

    def supersede(self, runs: Sequence[Run]) -> int:
        """Takes older runs off the list if ``runs`` are meant to replace them; how many.

        A run of the same name but another identity was made with other settings, another recipe or an older
        version. Then none of the older runs belongs in one table with ``runs``. Their directories stay.
        """
        names, wanted = {run.name for run in runs}, {run.run_id for run in runs}
        older = [run for run in self.runs if run.run_id not in wanted]
        if not any(run.name in names for run in older):
            return 0
        self._store([run for run in self.runs if run.run_id in wanted])
        return len(older)

    def _store(self, runs: list[Run]) -> None:
        self.runs = runs
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(
            self.path / "matrix.json",
            {
                "schema": SCHEMA,
                "kind": KIND,
                "name": self.name,
                "created": self.created,
                "runs": [run.as_dict() for run in self.runs],
            },
        )

    def directory(self, run: Run) -> Path:
        """Where the run's files are."""
        return self.path / "runs" / run.folder

    def state(self, run: Run) -> State:
        """What became of ``run``, read from its directory."""
        return read_state(self.directory(run), run.run_id)

    def adopt(self, run: Run) -> bool:
        """Takes over a run that another matrix beside this one has finished; False if there is none."""
        for sibling in sorted(self.path.parent.glob(f"*/runs/{run.folder}")):
            if sibling == self.directory(run) or not (sibling.parents[1] / "matrix.json").is_file():
                continue
            if read_state(sibling, run.run_id).status == "finished":
                target = self.directory(run)
                partial = target.with_name(f".{target.name}")
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(sibling, partial, copy_function=_link_or_copy)
                partial.rename(target)
                return True
        return False

    def mark_failed(self, run: Run, reason: str) -> None:
        """Stores a failure that the engine could not store itself."""
        self.directory(run).mkdir(parents=True, exist_ok=True)
        write_json(
            self.directory(run) / "result.json",
            {
                "schema": SCHEMA,
                "run_id": run.run_id,
                "name": run.name,
                "status": "failed",
                "reason": reason,
                "config": run.config.as_dict(),
                "target_sparsity": run.config.target_sparsity,
            },
        )

    def forget_failure(self, run: Run) -> None:
        """Lets a failed run go on: its failure is kept beside it under another name."""
        result = self.directory(run) / "result.json"
        result.rename(result.with_name("result.failed.json"))


def read_state(directory: Path, run_id: str) -> State:
    """What became of the run in ``directory``."""
    path = directory / "result.json"
    if not path.is_file():
        return State(status="interrupted" if directory.is_dir() else "waiting")
    result = _read_object(path)
    if result.get("run_id") != run_id:
        raise ExperimentError(f"{path} belongs to run {result.get('run_id')!r}, expected {run_id!r}; move it away")
    status: Status = "finished" if result.get("status") == "finished" else "failed"
    return State(status=status, reason=result.get("reason"), result=result)


def folders(results_dir: Path) -> list[Path]:
    """The matrices under ``results_dir``, the one that was worked on last at the end."""
    return [marker.parent for marker in sorted(results_dir.glob("*/matrix.json"), key=_last_use)]


def latest(results_dir: Path) -> Path:
    """The matrix that was worked on last."""
    known = folders(results_dir)
    if not known:
        raise ExperimentError(f"there is no matrix under {results_dir}/; `make` starts one")
    return known[-1]


def _last_use(marker: Path) -> float:
    used = marker.with_name(LOCK)
    return max(path.stat().st_mtime for path in (marker, used) if path.exists())


def _run(entry: dict[str, Any]) -> Run:
    return Run(run_id=entry["run_id"], name=entry["name"], config=RunConfig(**entry["config"]))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except ValueError as error:
        raise ExperimentError(f"{error}; move it away to start its run again") from None
    if not isinstance(value, dict):
        raise ExperimentError(f"{path} holds {type(value).__name__}, expected an object")
    return value


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
