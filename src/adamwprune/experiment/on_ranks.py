# SPDX-License-Identifier: MIT
"""One run on the processes that ``torchrun`` started: each trains, and rank 0 keeps the folder and speaks."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from adamwprune.experiment import display, index, signals
from adamwprune.experiment.lease import lease
from adamwprune.experiment.plan import Run, fetch_data
from adamwprune.experiment.runner import Outcome
from adamwprune.experiment.session import INTERRUPTED, conclude
from adamwprune.experiment.store import LOCK, ResultsFolder
from adamwprune.training import ranks
from adamwprune.training.engine import Progress, train
from adamwprune.training.errors import Interrupted


def run_on_ranks(path: Path, run: Run, *, kept_gradients: bool = False, retry_failed: bool = False) -> int:
    """Trains ``run`` in the folder ``path``, or goes on with it; the exit code is the same on every rank."""
    first = ranks.rank() == 0
    screen = display.create()
    with ExitStack() as stack:
        stack.enter_context(ranks.joined(run.config.device))
        stop = threading.Event()
        stack.enter_context(signals.handled(stop.set))  # torchrun hands them on to every rank
        if first:
            folder = ResultsFolder.open_or_create(path, path.name)
            stack.enter_context(lease(path / LOCK, str(path)))
            fetch_data([run], display.Downloads(screen))
            folder.add([run])
            if retry_failed and folder.state(run).status == "failed":
                folder.forget_failure(run)
            screen.note(f"{path}: {run.name} on {ranks.size()} ranks")
        ranks.wait()  # for the data
        try:
            result = train(
                run.config,
                path / "runs" / run.folder,
                kept_gradients=kept_gradients,
                should_stop=stop.is_set,
                on_progress=(lambda progress: _say(screen, progress)) if first else None,
            )
        except Interrupted as error:
            if first:
                screen.note(f"{error}; the same command goes on from there")
            return INTERRUPTED
        failed = int(result["status"] != "finished")
        if not first:
            return failed
        index.rebuild(folder)
        return conclude(
            screen, folder, [run], Outcome(finished=1 - failed, failed=failed, interrupted=False, started=1)
        )


def _say(screen: display.Display, progress: Progress) -> None:
    if progress.news:
        screen.note(progress.news)
