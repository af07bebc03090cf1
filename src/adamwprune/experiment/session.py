# SPDX-License-Identifier: MIT
"""One call from a list of runs to the printed table: what ``make`` and the command line do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adamwprune.experiment import display, index
from adamwprune.experiment.lease import lease
from adamwprune.experiment.plan import Run, fetch_data
from adamwprune.experiment.runner import Outcome, Runner, default_jobs
from adamwprune.experiment.store import LOCK, ResultsFolder, latest
from adamwprune.experiment.worker import ENGINE
from adamwprune.training import machine

OK, SOME_FAILED, INTERRUPTED = 0, 1, 130


def run_matrix(
    path: Path,
    runs: Sequence[Run],
    *,
    jobs: int = 0,
    retry_failed: bool = False,
    supersede: bool = False,
    engine: str = ENGINE,
) -> int:
    """Runs what of ``runs`` the folder lacks, reports on the whole folder, and returns the exit code.

    The folder may hold other runs already; they stay, and stay listed unless ``supersede`` finds them outdated.
    """
    screen = display.create()
    before = ResultsFolder.open_or_create(path, path.name)
    lacking = [run for run in runs if before.state(run).status != "finished"]
    fetch_data(lacking, display.Downloads(screen))
    with lease(path / LOCK, str(path)):
        folder = ResultsFolder.open_or_create(path, path.name)
        if supersede and (older := folder.supersede(runs)):
            screen.note(f"{path}: {older} runs of other settings or versions leave the list; their directories stay")
        new = folder.add(runs)
        adopted = _prepare(folder, runs, retry_failed)
        _announce(screen, folder, runs, new, adopted)
        index.rebuild(folder)
        jobs = jobs or default_jobs(runs)
        if (wanted := jobs * max((run.config.threads for run in runs), default=1)) > machine.cores():
            screen.note(
                f"warning: {jobs} runs at a time want {wanted} threads of {machine.cores()}: expect them to crawl"
            )
        threads = max(1, machine.cores() // jobs)
        outcome = Runner(folder, runs, screen, jobs=jobs, threads=threads, engine=engine).run()
        return conclude(screen, folder, runs, outcome)


def continue_matrix(
    path: Path | None,
    *,
    results_dir: Path = Path("results"),
    changes: dict[str, Any] | None = None,
    jobs: int = 0,
    retry_failed: bool = False,
    engine: str = ENGINE,
) -> int:
    """Goes on with a stored matrix (None: the one that was worked on last), whatever ``.config`` says now.

    ``changes`` may only name fields that do not decide a run's numbers.
    """
    path = path or latest(results_dir)
    folder = ResultsFolder.open(path)
    runs = [Run(run_id=r.run_id, name=r.name, config=r.config.replace(**(changes or {}))) for r in folder.runs]
    return run_matrix(path, runs, jobs=jobs, retry_failed=retry_failed, engine=engine)


def _prepare(folder: ResultsFolder, runs: Sequence[Run], retry_failed: bool) -> int:
    """Readies the failed runs if they are to be tried again, adopts what others finished; how many were adopted."""
    adopted = 0
    for run in runs:
        status = folder.state(run).status
        if status == "failed" and retry_failed:
            folder.forget_failure(run)
        elif status == "waiting":
            adopted += folder.adopt(run)
    return adopted


def _announce(
    screen: display.Display, folder: ResultsFolder, runs: Sequence[Run], new: Sequence[Run], adopted: int
) -> None:
    statuses = [folder.state(run).status for run in runs]
    words = [f"{folder.path}: {len(runs)} runs"]
    if new and len(folder.runs) > len(new):
        words.append(f"{len(new)} of them new here")
    if done := statuses.count("finished"):
        words.append(f"{done} finished before" + (f" ({adopted} in another matrix)" if adopted else ""))
    if begun := statuses.count("interrupted"):
        words.append(f"{begun} to be continued")
    if failed := statuses.count("failed"):
        words.append(f"{failed} failed before")
    screen.note(", ".join(words))


def conclude(screen: display.Display, folder: ResultsFolder, runs: Sequence[Run], outcome: Outcome) -> int:
    """Reports on what became of the runs; the exit code."""
    if outcome.interrupted:
        ended = outcome.finished + outcome.failed
        screen.note(f"interrupted: {ended} of {len(runs)} runs are done; the same command goes on from here")
        return INTERRUPTED
    from adamwprune import report

    page = folder.path / "report" / "index.html"
    if outcome.started or not page.exists():
        page = report.build(folder.path).page
    screen.note("\n" + report.table(folder.path).rstrip())
    screen.note(f"\nplots: {page.parent}/*.png   page: {page}")
    if not outcome.failed:
        return OK
    for run in runs:
        state = folder.state(run)
        if state.status == "failed":
            screen.note(f"failed: {run.name}: {state.reason}")
    screen.note(
        f"{outcome.failed} of {len(runs)} runs failed; the same command with --retry-failed (make: RETRY_FAILED=1) "
        "tries again"
    )
    return SOME_FAILED
