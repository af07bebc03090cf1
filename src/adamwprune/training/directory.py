# SPDX-License-Identifier: MIT
"""A run's directory: which files it has, whose it is, and how a run begins in it or goes on."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from adamwprune.files import JsonLines, plain, read_json, write_json, writing
from adamwprune.training import checkpoint, ranks
from adamwprune.training.errors import DirectoryError
from adamwprune.training.identity import USUAL, WAYS, differences

#: Version of every file in the directory.
SCHEMA = 1


class Unwritten(JsonLines):
    """Records of a rank that writes none."""

    def __init__(self) -> None:
        """There is no file."""

    @property
    def size(self) -> int:
        """Nothing was written."""
        return 0

    def append(self, record: dict[str, Any]) -> None:
        """Rank 0 adds it."""

    def sync(self) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        """There is nothing to close."""


class RunDirectory:
    """The files of one run. Looking writes nothing, and only rank 0 writes at all."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        #: Of several ranks one writes.
        self.writes = ranks.rank() == 0
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.memory = path / "memory.jsonl"
        self.result = path / "result.json"
        self.log_file = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.pt"

    def best(self, kind: str) -> Path:
        """Checkpoint of the ``best`` evaluation at the target sparsity, or of ``best_any``."""
        return self.checkpoints / f"{kind}.pt"

    def check(self, ours: dict[str, Any]) -> None:
        """Refuse a directory that is another run's, or nobody's; ``ours`` is what decides this run's numbers.

        Raises:
            DirectoryError: says whose it is, and in what the runs differ.
        """
        if not self.config.is_file():
            strangers = [file.name for file in self.path.iterdir()] if self.path.is_dir() else []
            strangers = [name for name in strangers if not name.startswith(".") and name != self.log_file.name]
            if strangers:
                raise DirectoryError(
                    f"{self.path} is not a run's directory: it holds {', '.join(sorted(strangers)[:4])} and no "
                    "config.json; choose an empty or a new one"
                )
            return
        stored = self._stored(self.config)
        if stored.get("run_id") != self.run_id:
            theirs = {**USUAL, **((stored.get("identity") or {}).get("config") or {})}
            differing = differences(theirs, {**USUAL, **ours})
            ways = bool(differing) and set(differing) <= set(WAYS)
            raise DirectoryError(
                f"{self.path} holds run {stored.get('run_id')} ({stored.get('name')}), not run {self.run_id}: "
                f"{', '.join(differing.values()) or 'its data, kernels or component versions differ'}; "
                + "choose another directory"
                + (f", where resume_from={str(self.path)!r} goes on with that run" if ways else "")
            )

    def stored_result(self) -> dict[str, Any] | None:
        """The result of a run that has ended here; None where it has not."""
        return self._stored(self.result) if self.result.is_file() else None

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations of the run so far; on rank 0 alone, which writes them."""
        return [json.loads(line) for line in self.metrics.read_text().splitlines()] if self.writes else []

    def stored_config(self) -> dict[str, Any]:
        """What ``config.json`` holds; empty before the run began."""
        return self._stored(self.config) if self.config.is_file() else {}

    def _stored(self, path: Path) -> dict[str, Any]:
        try:
            content = read_json(path)
        except ValueError as error:
            raise DirectoryError(f"{error}: delete {self.path} to start over") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise DirectoryError(f"{path} is not of schema {SCHEMA}: it was written by another version of adamwprune")
        return content

    def clear(self) -> None:
        """Remove what an earlier attempt of this run left; other files stay."""
        if not self.writes:
            return
        for file in (self.result, self.metrics, self.memory, self.log_file):
            file.unlink(missing_ok=True)
        if self.checkpoints.is_dir():
            shutil.rmtree(self.checkpoints)

    def begin(self, header: dict[str, Any]) -> None:
        """Make the directory and its ``config.json``, unless they are there."""
        if not self.writes:
            return
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        if not self.config.is_file():
            write_json(self.config, {"schema": SCHEMA, "run_id": self.run_id, **header})

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write ``result.json``, and return what it holds."""
        content: dict[str, Any] = {"schema": SCHEMA, "run_id": self.run_id, **result}
        if self.writes:
            write_json(self.result, content)
            return self._stored(self.result)
        # Of a run that failed on one rank, this one must not wait for the file.
        return {name: plain(value) for name, value in content.items()}

    def records(self, path: Path, size: int = 0) -> JsonLines:
        """``metrics`` or ``memory``, cut back to the ``size`` that a checkpoint saw."""
        return JsonLines(path, size) if self.writes else Unwritten()

    def save(self, path: Path, content: dict[str, Any]) -> None:
        """Write one of the checkpoints."""
        if self.writes:
            checkpoint.save(path, self.run_id, content)

    def forget_best(self, kinds: tuple[str, ...]) -> None:
        """Remove the best checkpoints of an attempt that is not gone on with."""
        for kind in kinds if self.writes else ():
            self.best(kind).unlink(missing_ok=True)

    def log(self, message: str) -> None:
        """Add a line to ``log.txt``."""
        if not self.writes:
            return
        with writing(self.log_file), open(self.log_file, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
