# SPDX-License-Identifier: MIT
"""The one training loop: from a config to a result, in a directory that survives whatever stops it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adamwprune import data
from adamwprune.files import JsonLines
from adamwprune.training import checkpoint, device, memory, outcome, ranks, shards, takeover, throughput
from adamwprune.training.config import RunConfig, known
from adamwprune.training.directory import RunDirectory
from adamwprune.training.errors import Interrupted, TrainingError
from adamwprune.training.identity import environment, identity, run_id, run_name
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

#: Seconds between progress reports inside an epoch.
REPORT_EVERY = 0.25


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; ``metrics`` is its latest evaluation (empty before the first)."""

    epoch: float
    epochs: float
    step: int
    steps: int
    metrics: dict[str, Any]
    phase: str

    @property
    def news(self) -> str | None:
        """A line about the evaluation that was just made; None at other times."""
        if self.phase != "evaluate":
            return None
        return f"step {self.step} of {self.steps}: {outcome.line(self.metrics)}"


def train(
    config: RunConfig,
    directory: Path | str,
    *,
    resume: bool = True,
    kept_gradients: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train as ``config`` says, or go on where an earlier call was stopped.

    In processes that ``torchrun`` started, called on each of them alike, it is one run on as many ranks.

    Args:
        config: the run; open fields are filled from the recipe.
        directory: the run's own directory. One that holds its finished result is answered from there.
        resume: False starts over, whatever the directory holds of this run.
        kept_gradients: several ranks exchange the gradients of kept weights only.
        on_progress: called after evaluations and a few times a second.
        should_stop: asked before every step; when it says yes, a checkpoint is written.

    Returns:
        The content of ``result.json``: ``status`` is ``finished`` or ``failed``, with the ``reason``.

    Raises:
        ValueError: the config, the data or the directory cannot be used; nothing was written.
        Interrupted: ``should_stop`` said so; the same call goes on from there.
    """
    config = resolve(config)
    ranks.share(known(config.batch_size) // config.accumulate)  # uneven parts are refused before anything is written
    decides = identity(config, data.checksum(known(config.data), config.data_dir))
    folder = RunDirectory(Path(directory), run_id(decides))
    folder.check(decides["config"])
    if resume and (result := folder.stored_result()) is not None:
        return result
    if config.resume_from and not (resume and folder.last.is_file()):
        takeover.check(config.resume_from, decides)
    with (
        device.settings(config.device, config.threads, config.deterministic),
        ranks.joined(config.device),
    ):
        # A frame of its own: what it made is let go before the ranks part.
        return _train(
            config,
            folder,
            {
                "name": run_name(config),
                "config": config.as_dict(),
                "identity": decides,
                "environment": environment(config),
            },
            resume,
            kept_gradients,
            on_progress or (lambda progress: None),
            should_stop or (lambda: False),
        )


def _train(
    config: RunConfig,
    folder: RunDirectory,
    about: dict[str, Any],
    resume: bool,
    kept_gradients: bool,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    run = Run(config, kept_gradients=kept_gradients)
    ranks.wait()  # until all have looked at the directory as it was
    if not resume:
        folder.clear()
    folder.begin(about)
    if config.resume_from and not folder.last.is_file():
        takeover.take(folder, config.resume_from)
    ranks.wait()
    loop = Loop.begin(run, folder, on_progress)
    try:
        return loop.train(should_stop)
    finally:
        loop.close()


@dataclass(slots=True)
class Loop:
    """A run in its directory."""

    run: Run
    folder: RunDirectory
    on_progress: Callable[[Progress], None]
    metrics: JsonLines
    memory: JsonLines
    latest: dict[str, Any] = field(default_factory=dict)
    best: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "eval": 0.0})
    #: Steps trained since this call began or last evaluated, and the seconds that they took.
    _pace: tuple[int, float] = (0, 0.0)
    _reported: float = 0.0

    @classmethod
    def begin(cls, run: Run, folder: RunDirectory, on_progress: Callable[[Progress], None]) -> Loop:
        """Start, or restore the last checkpoint and cut the records back to it."""
        if not folder.last.is_file():
            folder.forget_best(outcome.BEST)
            part = run.config.train_examples
            on = "" if part is None else f" on {part} training images"
            folder.log(f"started {run_name(run.config)}, {run.steps} steps{on}, {run.at_once} examples at once")
            return cls(run, folder, on_progress, folder.records(folder.metrics), folder.records(folder.memory))
        saved = checkpoint.load(folder.last, folder.run_id)
        run.restore(saved["run"])
        loop = cls(
            run,
            folder,
            on_progress,
            folder.records(folder.metrics, saved["metrics_size"]),
            folder.records(folder.memory, saved["memory_size"]),
            latest=saved["latest"],
            seconds=saved["seconds"],
        )
        # What the best files hold is what counts: they may be newer than the last checkpoint, and never older.
        for kind in outcome.BEST:
            if folder.best(kind).is_file():
                loop.best[kind] = checkpoint.load(folder.best(kind), folder.run_id)["record"]
        folder.log(f"resumed at step {run.step} of {run.steps}")
        before, now = folder.stored_config()["environment"], environment(run.config)
        changed = [f"{key} was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key]]
        if changed:
            folder.log(f"the environment has changed since the run began: {'; '.join(changed)}")
        return loop

    def train(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Train to the end, and measure."""
        run, config = self.run, self.run.config
        run.model.train()
        run.agree()
        try:
            while run.step < run.steps:
                if ranks.anywhere(should_stop()):
                    self._save()
                    self.folder.log(f"interrupted at step {run.step} of {run.steps}")
                    raise Interrupted(f"{run_name(config)} was interrupted at step {run.step} of {run.steps}")
                began = time.perf_counter()
                run.train_step()
                self._count(time.perf_counter() - began)
                if run.evaluation_due:
                    self._evaluate()
                every = config.checkpoint_every or config.eval_steps or run.steps_per_epoch
                if run.step % every == 0 or run.step == run.steps:
                    self._save()
                self._report("train")
            return self._finish()
        except TrainingError as error:
            return self._conclude(str(error), outcome.unmeasured(self.latest, self.best))

    def _count(self, seconds: float) -> None:
        """Account for a step."""
        self.seconds["train"] += seconds
        self._pace = (self._pace[0] + 1, self._pace[1] + seconds)

    def _evaluate(self) -> None:
        run = self.run
        train_loss = run.train_loss()  # waits for the device, so that the times are right
        steps, seconds = self._pace
        self._pace = (0, 0.0)
        began = time.perf_counter()
        scores = run.evaluate("val")
        self.seconds["eval"] += time.perf_counter() - began
        self.latest = {
            "epoch": run.epoch,
            "step": run.step,
            "seconds": sum(self.seconds.values()),
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            **outcome.described("val", run, scores),
            "target": run.config.target_sparsity,
            "sparsity": run.sparsity,
            "at_target": run.at_target,
            "throughput": throughput.measured(run, steps, seconds),
        }
        where = {name: self.latest[name] for name in ("epoch", "step", "seconds")}
        self.metrics.append(self.latest)
        self.memory.append({**where, **memory.sample(run.optimizer, run.config.device)})
        self.folder.log(f"epoch {run.epoch} step {run.step}: train loss {train_loss:.4f}, {outcome.line(self.latest)}")
        if run.task.broken:
            name, reason = next(iter(run.task.broken.items()))
            self.folder.log(f"{len(run.task.broken)} examples could not be read, the first being {name} ({reason})")
        if math.isnan(scores.loss):
            raise TrainingError(f"the validation loss after step {run.step} is {scores.loss}")
        for kind in outcome.BEST:
            if (kind == "best_any" or self.latest["at_target"]) and self._beats(self.best.get(kind)):
                self.best[kind] = self.latest
                content = {"record": self.latest, "model": shards.whole(run.judged.state_dict())}
                self.folder.save(self.folder.best(kind), content)
        self._report("evaluate")

    def _beats(self, other: dict[str, Any] | None) -> bool:
        """Whether the latest evaluation is better than another."""
        return other is None or self.run.task.rank(self.latest) > self.run.task.rank(other)

    def _save(self) -> None:
        self.metrics.sync()
        self.memory.sync()
        content = {
            "run": self.run.state(),
            "latest": self.latest,
            "seconds": self.seconds,
            "metrics_size": self.metrics.size,
            "memory_size": self.memory.size,
        }
        self.folder.save(self.folder.last, content)

    def _report(self, phase: str) -> None:
        now = time.monotonic()
        if phase == "train" and now - self._reported < REPORT_EVERY:
            return
        self._reported = now
        run = self.run
        epochs = round(run.steps / run.steps_per_epoch, 2)
        self.on_progress(Progress(int(run.epoch), epochs, run.step, run.steps, dict(self.latest), phase))

    def _finish(self) -> dict[str, Any]:
        run = self.run
        reason = None
        if not run.at_target:
            reason = f"ended at sparsity {run.sparsity:.6f}, its target is {known(run.config.target_sparsity):.6f}"
        began = time.perf_counter()
        ranks.wait()  # for the best checkpoints, which all read
        records = outcome.measured(run, self.folder, self.latest, self.best)
        self.seconds["eval"] += time.perf_counter() - began
        return self._conclude(reason, records)

    def _conclude(self, reason: str | None, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
        self.folder.log("finished" if reason is None else f"failed: {reason}")
        result = self.folder.finish(
            {"name": run_name(self.run.config), **outcome.result(self.run, self.folder, reason, records, self.seconds)}
        )
        self._report("done")
        return result

    def close(self) -> None:
        """Close the records and the data."""
        self.run.task.close()
        self.metrics.close()
        self.memory.close()
