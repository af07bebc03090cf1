# SPDX-License-Identifier: MIT
"""Runs what a results folder still lacks, several runs at a time, and survives the death of its workers."""

from __future__ import annotations

import contextlib
import json
import queue
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamwprune.experiment import index, signals
from adamwprune.experiment.display import Display
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.plan import Run
from adamwprune.experiment.pool import Message, WorkerProcess, start_worker
from adamwprune.experiment.store import ResultsFolder
from adamwprune.experiment.worker import ENGINE
from adamwprune.training import machine

ATTEMPTS = 2
"""A run whose worker dies goes on once more from its checkpoint; then it is marked failed."""

HOPELESS = 3
"""So many workers that die before they are ready mean that none will ever be."""

WORKER_BYTES = 800 << 20
"""Memory that a worker with a small network takes, torch included."""

POLL = 0.2
PATIENCE = 120.0
"""Seconds that workers have to write a checkpoint when the matrix is interrupted."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a matrix ended."""

    finished: int
    failed: int
    interrupted: bool
    started: int


class Runner:
    """Runs those of ``runs`` that are waiting or interrupted; the caller holds the folder's lease."""

    def __init__(
        self,
        folder: ResultsFolder,
        runs: Sequence[Run],
        display: Display,
        *,
        jobs: int,
        threads: int = 1,
        engine: str = ENGINE,
    ) -> None:
        self.folder = folder
        self.runs = runs
        self.pending = deque(run for run in runs if self._unfinished(run))
        self.display = display
        self.jobs = jobs
        self.threads = threads
        self.engine = engine
        self.messages: queue.Queue[Message] = queue.Queue()
        self.workers: list[WorkerProcess] = []
        self.attempts: Counter[str] = Counter()
        self.stillborn = 0
        self.signals = 0
        self.stop_deadline: float | None = None

    def run(self) -> Outcome:
        """Runs until nothing is left to do or a signal asks to stop."""
        size = min(self.jobs, len(self.pending))
        with (
            signals.handled(self._signalled),
            self.display.running(self.folder.path.name, len(self.runs), len(self.pending), size),
        ):
            try:
                for slot in range(size):
                    self._start(slot)
                while self.workers:
                    self._turn()
            finally:
                for worker in self.workers:
                    worker.kill()
        return self._outcome()

    def _turn(self) -> None:
        if self.signals and self.stop_deadline is None:
            self._ask_to_stop()
        if self.stop_deadline is not None and (self.signals > 1 or time.monotonic() > self.stop_deadline):
            for worker in self.workers:
                worker.kill()
        with contextlib.suppress(queue.Empty):
            worker, message = self.messages.get(timeout=POLL)
            if message is None:
                self._gone(worker)
            else:
                self._heard(worker, message)
        self.display.refresh()

    def _heard(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "progress":
            assert worker.run is not None
            self.display.progress(worker.slot, worker.run, message)
            return
        if event == "ready":
            worker.ready = True
            self.stillborn = 0
        elif worker.run is not None:
            run, worker.run = worker.run, None
            if event == "error":
                self.folder.mark_failed(run, message["reason"])
            self._ended(worker, run, event if event == "interrupted" else None)
        self._next(worker)

    def _next(self, worker: WorkerProcess) -> None:
        if not self.pending or self.signals:
            worker.stop()
            return
        run = self.pending.popleft()
        self.attempts[run.run_id] += 1
        self._log("start", run, attempt=self.attempts[run.run_id], worker=worker.process.pid)
        self.display.started(worker.slot, run)
        worker.give(run, self.folder.directory(run), self.folder.path / ".locks" / run.folder)

    def _gone(self, worker: WorkerProcess) -> None:
        self.workers.remove(worker)
        run, worker.run = worker.run, None
        code = worker.process.returncode
        if run is not None:
            self._lost(worker, run, code)
        elif not worker.ready:
            self.stillborn += 1
            if self.stillborn >= HOPELESS:
                raise ExperimentError(f"workers cannot start: {worker.last_words()} (see {worker.log})")
        self.display.idle(worker.slot)
        if self.pending and not self.signals and len(self.workers) < self.jobs:
            self._start(worker.slot)

    def _lost(self, worker: WorkerProcess, run: Run, code: int) -> None:
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._log("lost", run, cause=cause)
        if self.signals:
            return
        if self._unfinished(run) and self.attempts[run.run_id] < ATTEMPTS:
            self.display.note(f"{run.name}: its worker died ({cause}); it goes on from its last checkpoint")
            self.pending.appendleft(run)
            return
        if self._unfinished(run):
            self.folder.mark_failed(run, f"its worker died {ATTEMPTS} times ({cause}); see {worker.log}")
        self._ended(worker, run, None)

    def _ended(self, worker: WorkerProcess, run: Run, event: str | None) -> None:
        state = self.folder.state(run)
        self._log(event or state.status, run, reason=state.reason)
        index.update(self.folder, run)
        self.display.ended(worker.slot, run, state)

    def _unfinished(self, run: Run) -> bool:
        return self.folder.state(run).status in ("waiting", "interrupted")

    def _start(self, slot: int) -> None:
        log = self.folder.path / "logs" / f"worker-{slot}.log"
        self.workers.append(start_worker(slot, log, self.engine, self.threads, self.messages))

    def _ask_to_stop(self) -> None:
        self.stop_deadline = time.monotonic() + PATIENCE
        self.display.note("stopping: the runs in progress write a checkpoint (once more: stop at once)")
        for worker in self.workers:
            worker.stop()

    def _signalled(self) -> None:
        self.signals += 1

    def _log(self, event: str, run: Run, **details: Any) -> None:
        line = {"time": time.time(), "event": event, "run_id": run.run_id, "name": run.name, **details}
        with Path(self.folder.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _outcome(self) -> Outcome:
        states = Counter(self.folder.state(run).status for run in self.runs)
        return Outcome(
            finished=states["finished"],
            failed=states["failed"],
            interrupted=bool(self.signals) and states["finished"] + states["failed"] < len(self.runs),
            started=len(self.attempts),
        )


def default_jobs(runs: Iterable[Run]) -> int:
    """As many runs at a time as processor and memory have room for; one where they share an accelerator."""
    configs = [run.config for run in runs]
    if any(config.device != "cpu" for config in configs):
        return 1
    cores = machine.cores()
    threads = max((config.threads or cores for config in configs), default=1)
    return max(1, min(cores // threads, machine.free_memory() // WORKER_BYTES))
