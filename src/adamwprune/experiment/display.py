# SPDX-License-Identifier: MIT
"""What a person sees while a matrix runs: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from adamwprune.experiment.plan import Run
from adamwprune.experiment.store import State

HEARTBEAT = 60.0
"""Without a terminal, a line at least this often (seconds)."""


class Display:
    """Plain lines: one for each run that ended. The live display extends it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = 0
        self.done = 0
        self.left = 0
        self.fractions: dict[int, float] = {}
        self.ended_here = 0
        self.began = time.monotonic()
        self.last_line = self.began

    @contextmanager
    def running(self, name: str, total: int, left: int, workers: int) -> Iterator[None]:
        """Shows the matrix for the duration of the block."""
        self.total = total
        self.done = total - left
        self.left = left
        self.began = self.last_line = time.monotonic()
        yield

    def started(self, slot: int, run: Run) -> None:
        """A worker has begun a run."""
        self.fractions[slot] = 0.0

    def progress(self, slot: int, run: Run, message: dict[str, Any]) -> None:
        """A worker has come further."""
        self.fractions[slot] = message["step"] / max(1, message["steps"])

    def ended(self, slot: int, run: Run, state: State) -> None:
        """A run is over, or interrupted."""
        self.fractions.pop(slot, None)
        if state.status in ("finished", "failed"):
            self.done += 1
            self.ended_here += 1
        self._note_with_count(describe(run, state))

    def idle(self, slot: int) -> None:
        """A worker has left."""
        self.fractions.pop(slot, None)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.last_line = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Called a few times a second."""
        if time.monotonic() - self.last_line > HEARTBEAT:
            running = ", ".join(f"{fraction:.0%}" for fraction in self.fractions.values())
            self._note_with_count(f"running: {running}")

    def seconds_left(self) -> float | None:
        """Estimated from the share of the work that was done since the start."""
        worked = self.ended_here + sum(self.fractions.values())
        if worked < 0.05:
            return None
        return (time.monotonic() - self.began) * max(0.0, self.left - worked) / worked

    def _note_with_count(self, text: str) -> None:
        seconds = self.seconds_left()
        left = "" if seconds is None or self.done == self.total else f"  ({clock(seconds)} left)"
        self.note(f"[{self.done:>{len(str(self.total))}}/{self.total}] {text}{left}")


class LiveDisplay(Display):
    """A bar for the matrix and one for each worker."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.matrix = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self.slots = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}", markup=False),
            console=console,
        )
        self.bars: dict[int, TaskID] = {}
        self.whole = self.matrix.add_task("matrix", total=None, left="")

    @contextmanager
    def running(self, name: str, total: int, left: int, workers: int) -> Iterator[None]:
        with super().running(name, total, left, workers):
            self.matrix.update(self.whole, description=name, total=self.total, completed=self.done)
            self.bars = {slot: self.slots.add_task("starting", total=1.0, state="") for slot in range(workers)}
            with Live(Group(self.matrix, self.slots), console=self.console, refresh_per_second=5, transient=True):
                yield

    def started(self, slot: int, run: Run) -> None:
        super().started(slot, run)
        self.slots.update(self.bars[slot], description=run.name, completed=0.0, state="")

    def progress(self, slot: int, run: Run, message: dict[str, Any]) -> None:
        super().progress(slot, run, message)
        words = [f"epoch {message['epoch']:g}/{message['epochs']:g}"]
        if (accuracy := message.get("val_accuracy")) is not None:
            words.append(f"val {accuracy:6.2%}")
        if sparsity := message.get("sparsity"):
            words.append(f"sparsity {sparsity:.0%}")
        self.slots.update(self.bars[slot], completed=self.fractions[slot], state="  ".join(words))

    def idle(self, slot: int) -> None:
        super().idle(slot)
        self.slots.update(self.bars[slot], description="idle", completed=0.0, state="")

    def refresh(self) -> None:
        seconds = self.seconds_left()
        left = "" if seconds is None else f"{clock(seconds)} left"
        self.matrix.update(self.whole, completed=self.done, left=left)


class Downloads:
    """Progress of downloads: a line for each tenth of a file."""

    def __init__(self, screen: Display) -> None:
        self.screen = screen
        self.shown: dict[str, int] = {}

    def __call__(self, path: str, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if tenth > self.shown.get(path, -1):
            self.shown[path] = tenth
            self.screen.note(f"fetching {path}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")


class Preparation:
    """Progress of preparing a text: a line every few seconds."""

    def __init__(self, screen: Display, every: float = 5.0) -> None:
        self.screen = screen
        self.every = every
        self.began = self.shown = time.monotonic()

    def __call__(self, documents: int, tokens: int) -> None:
        now = time.monotonic()
        if now - self.shown >= self.every:
            self.shown = now
            rate = tokens / (now - self.began) / 1e6
            self.screen.note(f"preparing: {documents:,} documents, {tokens:,} tokens, {rate:.1f} million a second")


def create() -> Display:
    """The display that suits standard output."""
    console = Console()
    return LiveDisplay(console) if console.is_terminal else Display(console)


def describe(run: Run, state: State) -> str:
    """One run in one line."""
    if state.status != "finished":
        return f"{run.name}  {state.status}" + (f": {state.reason}" if state.reason else "")
    result = state.result or {}
    final, seconds = result.get("final") or {}, (result.get("seconds") or {}).get("total")
    words = [run.name]
    if (accuracy := final.get("val_accuracy")) is not None:
        words.append(f"val {accuracy:.2%}")
    if (sparsity := final.get("sparsity")) is not None:
        words.append(f"sparsity {sparsity:.1%}")
    if seconds is not None:
        words.append(f"{seconds:.1f} s")
    return "  ".join(words)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
