# SPDX-License-Identifier: MIT
"""What becomes of a run: the measurements at its end, and the content of ``result.json``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from adamwprune.training import checkpoint, memory, shards, throughput
from adamwprune.training.config import RunConfig
from adamwprune.training.directory import RunDirectory
from adamwprune.training.evaluate import Scores
from adamwprune.training.run import Run

#: Kinds of best checkpoint: among evaluations at the target sparsity, and among all.
BEST = ("best", "best_any")

KEPT = ("epoch", "step", "val_accuracy", "val_loss", "val_perplexity", "sparsity")


def described(split: str, run: Run, scores: Scores) -> dict[str, Any]:
    """Scores on a split under the names that are stored. Perplexity belongs to text; that of a huge loss is none."""
    perplexity = math.exp(scores.loss) if run.task.unit == "tokens" and scores.loss < 100 else None
    return {f"{split}_loss": scores.loss, f"{split}_accuracy": scores.accuracy, f"{split}_perplexity": perplexity}


def line(record: dict[str, Any]) -> str:
    """An evaluation for people."""
    speed = record["throughput"]
    return (
        f"validation loss {record['val_loss']:.4f}, accuracy {record['val_accuracy']:.4f}, "
        f"sparsity {record['sparsity']:.4f}, {speed['per_second']:.0f} {speed['unit']}/s"
    )


def measured(
    run: Run, folder: RunDirectory, latest: dict[str, Any], best: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The last and the best evaluations with the test split, which is looked at only here.

    The network that is judged is left with the weights of a best checkpoint.
    """
    records = {"final": _with_test(run, latest)}
    for kind, record in best.items():
        if record["step"] == latest["step"]:
            records[kind] = records["final"]
        else:
            shards.load(run.judged, checkpoint.load(folder.best(kind), folder.run_id)["model"])
            records[kind] = _with_test(run, record)
    return records


def unmeasured(latest: dict[str, Any], best: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same of a run that broke down: evaluations as far as there are any, and no test."""
    untested = {"test_accuracy": None, "test_loss": None, "test_perplexity": None}
    records = {"final": latest, **best} if latest else {}
    return {kind: {**{name: record[name] for name in KEPT}, **untested} for kind, record in records.items()}


def time_to_target(config: RunConfig, evaluations: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """When the first evaluation was as good as the config asks: at the target sparsity, in every measure given.

    None where nothing is asked, or none was.
    """
    accuracy, loss = config.target_accuracy, config.target_loss
    if accuracy is None and loss is None:
        return None
    for record in evaluations:
        measured = record["val_loss"]  # None where it was not finite
        good = accuracy is None or record["val_accuracy"] >= accuracy
        if good and record["at_target"] and (loss is None or (measured is not None and measured <= loss)):
            return {name: record[name] for name in ("epoch", "step", "seconds", "val_accuracy", "val_loss")}
    return None


def result(
    run: Run,
    folder: RunDirectory,
    reason: str | None,
    records: dict[str, dict[str, Any]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of ``result.json``; ``reason`` is why the run failed, None where it did not."""
    prunable = sum(p.numel() for p in memory.prunable(run.optimizer))
    account = None if run.pruner is None else run.pruner.report()
    masked = 0 if account is None else sum(tensor["masked"] for tensor in account["tensors"].values())
    return {
        "status": "finished" if reason is None else "failed",
        "reason": reason,
        "config": run.config.as_dict(),
        **{kind: records.get(kind) for kind in ("final", *BEST)},
        "target_sparsity": run.config.target_sparsity,
        "sparsity": run.sparsity,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "prunable": prunable,
        "kept": prunable - masked,
        "account": account,
        "time_to_target": time_to_target(run.config, folder.evaluations()),
        "seconds": {**seconds, "total": sum(seconds.values())},
        "throughput": throughput.measured(run, run.step, seconds["train"]),
        "steps": run.step,
    }


def _with_test(run: Run, record: dict[str, Any]) -> dict[str, Any]:
    return {**{name: record[name] for name in KEPT}, **described("test", run, run.evaluate("test"))}
