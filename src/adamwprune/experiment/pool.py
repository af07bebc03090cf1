# SPDX-License-Identifier: MIT
"""The runner's side of a worker process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamwprune.experiment.plan import Run

Message = tuple["WorkerProcess", dict[str, Any] | None]
"""What a worker said; None when it is gone."""


@dataclass
class WorkerProcess:
    """One worker: its process, its slot in the display, and the run it has."""

    slot: int
    process: subprocess.Popen[str]
    log: Path
    run: Run | None = None
    ready: bool = False

    def give(self, run: Run, directory: Path, lock: Path) -> None:
        """Lets it start ``run``."""
        self.run = run
        self._send(
            {
                "command": "run",
                "config": run.config.as_dict(),
                "directory": str(directory),
                "lock": str(lock),
            }
        )

    def stop(self) -> None:
        """Asks it to write a checkpoint, if it has a run, and to leave."""
        self._send({"command": "stop"})

    def kill(self) -> None:
        """Ends it now."""
        self.process.kill()

    def last_words(self) -> str:
        """The last line it wrote to its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it left no message"

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it is dead, and its reader thread says so


def start_worker(slot: int, log: Path, engine: str, threads: int, messages: queue.Queue[Message]) -> WorkerProcess:
    """Starts a worker whose messages go to ``messages``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "adamwprune.experiment.worker", "--engine", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
    worker = WorkerProcess(slot, process, log)
    threading.Thread(target=_forward(worker, messages), daemon=True).start()
    return worker


def _forward(worker: WorkerProcess, messages: queue.Queue[Message]) -> Callable[[], None]:
    def forward() -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            try:
                messages.put((worker, json.loads(line)))
            except ValueError:
                break  # it died in the middle of a line
        worker.process.wait()
        messages.put((worker, None))

    return forward
