# SPDX-License-Identifier: MIT
"""What an experiment stored, as typed records.

A results folder holds ``matrix.json`` (which runs belong together) and ``runs/<name>-<id>/`` (one folder per run).
Nothing else is read and nothing is computed twice. Unfinished and damaged runs are records too, with their reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

SCHEMA = 1
KIND = "adamwprune-matrix"

Status = Literal["finished", "failed", "unfinished"]
Record = TypeVar("Record")


class ReportError(ValueError):
    """A results folder that cannot be reported on, and what to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One line of ``metrics.jsonl``."""

    epoch: float
    step: int
    val_accuracy: float
    val_loss: float
    sparsity: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySample:
    """One line of ``memory.jsonl``: bytes of the process, of the accelerator, and of the account by kind."""

    step: int
    rss: int | None
    allocated: int | None
    account: Mapping[str, int]
    account_model: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of the matrix, whatever became of it. ``result`` is empty unless the run ended."""

    id: str
    name: str
    folder: str
    status: Status
    reason: str | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    memory: tuple[MemorySample, ...] = ()

    @property
    def seed(self) -> int:
        """Tells the runs of a row apart."""
        return int(self.config.get("seed") or 0)

    @property
    def target(self) -> float:
        """Target sparsity; 0 for a dense run, whatever its configuration says beside."""
        if self.config.get("pruning_method", "none") == "none":
            return 0.0
        return float(self.config.get("target_sparsity") or 0.0)

    def measured(self, phase: str, name: str) -> float | None:
        """A number of ``result.json``'s ``final`` or ``best`` record; None where the run has none."""
        value = (self.result.get(phase) or {}).get(name)
        return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """All runs of one results folder, in the order the matrix lists them."""

    name: str
    path: Path
    runs: tuple[Run, ...]
    strangers: tuple[str, ...] = ()

    def with_status(self, *wanted: Status) -> tuple[Run, ...]:
        """The runs that ended so."""
        return tuple(run for run in self.runs if run.status in wanted)


def read_matrix(results_dir: Path | str) -> Matrix:
    """Read a results folder; a folder that no matrix wrote is refused."""
    path = Path(results_dir)
    marker = path / "matrix.json"
    if not marker.is_file():
        raise ReportError(
            f"{path} is not a results folder: it has no matrix.json. "
            "Expected a folder that a matrix wrote, such as results/digits"
        )
    matrix = _object(marker)
    if matrix.get("kind") != KIND:
        raise ReportError(f"{marker} is not ours: its kind is {matrix.get('kind')!r}, expected {KIND!r}")
    if matrix.get("schema") != SCHEMA:
        raise ReportError(
            f"{marker} has schema {matrix.get('schema')!r}, this version reads {SCHEMA}; "
            "use the version of adamwprune that wrote it"
        )
    entries = matrix.get("runs")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "run_id" in entry for entry in entries):
        raise ReportError(f"{marker} has no list of runs with a run_id each; write it again with `adamwprune matrix`")
    runs = tuple(_read_run(path, entry) for entry in entries)
    known = {run.folder for run in runs}
    present = sorted(f"runs/{child.name}" for child in (path / "runs").glob("*") if child.is_dir())
    strangers = tuple(folder for folder in present if folder not in known)
    return Matrix(name=str(matrix.get("name") or path.name), path=path, runs=runs, strangers=strangers)


def _read_run(root: Path, entry: Mapping[str, Any]) -> Run:
    run_id = str(entry["run_id"])
    name = str(entry.get("name") or run_id)
    folder = f"runs/{name}-{run_id[:8]}"
    directory = root / folder

    def unread(status: Status, reason: str) -> Run:
        return Run(
            id=run_id, name=name, folder=folder, status=status, reason=reason, config=dict(entry.get("config") or {})
        )

    if not directory.is_dir():
        return unread("unfinished", "not started")
    try:
        stored = _ours(directory / "config.json", run_id)
        result = _ours(directory / "result.json", run_id)
        evaluations = tuple(_last_per_step(directory / "metrics.jsonl", _evaluation))
        memory = tuple(_last_per_step(directory / "memory.jsonl", _memory_sample))
    except ReportError as error:
        return unread("failed", str(error))
    config = dict(result.get("config") or stored.get("config") or entry.get("config") or {})
    status, reason = _outcome(result, evaluations, config)
    return Run(
        id=run_id,
        name=name,
        folder=folder,
        status=status,
        reason=reason,
        config=config,
        environment=dict(stored.get("environment") or {}),
        identity=dict(stored.get("identity") or {}),
        result=result,
        evaluations=evaluations,
        memory=memory,
    )


def _outcome(
    result: Mapping[str, Any], evaluations: tuple[Evaluation, ...], config: Mapping[str, Any]
) -> tuple[Status, str | None]:
    if not result:
        if not evaluations:
            return "unfinished", "no evaluation yet"
        last, epochs = evaluations[-1], config.get("epochs")
        if epochs is None:  # a run's length is one or the other
            return "unfinished", f"stopped after step {last.step} of {config.get('iterations')}"
        return "unfinished", f"stopped after epoch {last.epoch:g} of {epochs}"
    if result.get("status") == "finished":
        return "finished", None
    return "failed", str(result.get("reason") or "no reason stored")


def _ours(path: Path, run_id: str) -> Mapping[str, Any]:
    """A run's JSON file, empty if it is not there (yet)."""
    if not path.is_file():
        return {}
    content = _object(path)
    if content.get("schema") != SCHEMA:
        raise ReportError(f"{path.name} has schema {content.get('schema')!r}, expected {SCHEMA}")
    if content.get("run_id") != run_id:
        raise ReportError(f"{path.name} belongs to run {content.get('run_id')!r}, expected {run_id!r}")
    return content


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReportError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path.name} holds a {type(content).__name__}, expected an object")
    return content


def _last_per_step(path: Path, record: Callable[[Mapping[str, Any]], Record]) -> Iterator[Record]:
    """The records of a JSON-lines file in step order.

    A killed run leaves a torn last line, and a resumed one writes the steps after its checkpoint a second time.
    """
    if not path.is_file():
        return
    by_step: dict[int, Record] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
            by_step[int(content["step"])] = record(content)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue
    yield from (by_step[step] for step in sorted(by_step))


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        epoch=float(content["epoch"]),
        step=int(content["step"]),
        val_accuracy=float(content["val_accuracy"]),
        val_loss=float(content["val_loss"]),
        sparsity=float(content["sparsity"]),
    )


def _memory_sample(content: Mapping[str, Any]) -> MemorySample:
    def whole(value: Any) -> int | None:
        return None if value is None else int(value)

    return MemorySample(
        step=int(content["step"]),
        rss=whole(content.get("rss")),
        allocated=whole(content.get("allocated")),
        account={kind: int(size) for kind, size in (content.get("bytes") or {}).items()},
        account_model={kind: int(size) for kind, size in (content.get("bytes_model") or {}).items()},
    )
