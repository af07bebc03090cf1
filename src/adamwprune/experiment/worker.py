# SPDX-License-Identifier: MIT
"""A long-lived process that runs one run after another; importing torch costs seconds, so it is done once.

It reads JSON lines from its standard input and answers with JSON lines. When its input closes, its parent is gone,
and it leaves at once: the last checkpoint is what the next attempt goes on from.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

from adamwprune.experiment.lease import lease
from adamwprune.training.config import RunConfig
from adamwprune.training.errors import Interrupted

ENGINE = "adamwprune.training.engine"

LEFTOVER = 60.0
"""Seconds to wait for a run directory that a dying worker still holds."""


class Worker:
    """The process's state: what it was told, and how it answers."""

    def __init__(self, engine: Any, commands: TextIO, answers: TextIO) -> None:
        self.engine = engine
        self.commands = commands
        self.answers = answers
        self.stop = threading.Event()
        self.tasks: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def serve(self) -> None:
        """Runs what it is given until it is told to stop."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._say("ready")
        while (task := self.tasks.get()) is not None:
            self._run(task)

    def _listen(self) -> None:
        for line in self.commands:
            message = json.loads(line)
            if message["command"] == "run":
                self.tasks.put(message)
            elif message["command"] == "stop":
                self.stop.set()
                self.tasks.put(None)
        if not self.stop.is_set():
            os._exit(1)

    def _run(self, task: dict[str, Any]) -> None:
        directory = Path(task["directory"])
        try:
            with lease(Path(task["lock"]), str(directory), wait=LEFTOVER):
                result = self.engine.train(
                    RunConfig(**task["config"]),
                    directory,
                    on_progress=self._report,
                    should_stop=self.stop.is_set,
                )
        except Interrupted:
            self._say("interrupted")
        except Exception as error:
            traceback.print_exc()
            self._say("error", reason=f"{type(error).__name__}: {error}")
        else:
            self._say("done", status=result["status"], reason=result.get("reason"))

    def _report(self, progress: Any) -> None:
        self._say(
            "progress",
            epoch=progress.epoch,
            epochs=progress.epochs,
            step=progress.step,
            steps=progress.steps,
            **{name: progress.metrics.get(name) for name in ("val_accuracy", "sparsity")},
        )

    def _say(self, event: str, **details: Any) -> None:
        print(json.dumps({"event": event, **details}), file=self.answers, flush=True)


def main() -> None:
    """Entry point of the process; everything that is printed goes to standard error, which the runner logs."""
    parser = argparse.ArgumentParser(description="runs of a matrix, as told by the runner")
    parser.add_argument("--engine", default=ENGINE)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(importlib.import_module(arguments.engine), sys.stdin, answers)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop.set())
    worker.serve()


if __name__ == "__main__":
    main()
