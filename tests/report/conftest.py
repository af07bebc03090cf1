# SPDX-License-Identifier: MIT
"""A results folder as an experiment writes it, with invented numbers."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from adamwprune.training.config import RunConfig

EPOCHS = 10
PRUNABLE, PARAMETERS = 60_000, 61_706
RESOLVED = {
    "data": "digits",
    "epochs": EPOCHS,
    "batch_size": 64,
    "learning_rate": 0.002,
    "weight_decay": 0.0001,
    "lr_schedule": "cosine",
    "device": "cpu",
    "threads": 1,
}
PRUNED = {"prune_start": 0.25, "prune_end": 0.75, "prune_every": 5, "schedule": "cubic", "distribution": "layer"}
ENVIRONMENT = {"adamwprune": "0.1.0", "commit": "abc1234", "torch": "2.13.0", "python": "3.11.7",
               "system": "Linux x86_64", "device": "cpu", "threads": 1}  # fmt: skip
IDENTITY = {"data": "d" * 64, "device": "cpu", "backend": "reference", "versions": {"data": 1, "optim": 1}}


class Folder:
    """A results folder under construction. Every ``add`` writes one run; ``write`` marks the folder as ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def add(
        self, *, accuracy: float = 0.97, status: str = "finished", scores: dict[str, float] | None = None, **given: Any
    ) -> Path:
        """One run with its own noise; ``status`` may also be ``unfinished`` or ``missing``. Returns its folder.

        ``scores`` are added to its final ones, or replace them.
        """
        environment = ENVIRONMENT | given.pop("environment", {})
        config = config_of(**given)
        run_id = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        name = "-".join(str(config[k]) for k in ("model", "optimizer", "base", "pruning_method", "score", "seed"))
        name += f"-{config['target_sparsity'] or 0}"
        self.entries.append({"run_id": run_id, "name": name, "config": config})
        directory = self.path / "runs" / f"{name}-{run_id[:8]}"
        if status != "missing":
            self._write_run(directory, run_id, name, config, environment, accuracy, status, scores or {})
        return directory

    def write(self) -> Path:
        put(self.path / "matrix.json", {"kind": "adamwprune-matrix", "name": "tiny", "created": "2026-01-01T00:00:00"}
            | {"runs": self.entries})  # fmt: skip
        return self.path

    def _write_run(self, directory: Path, run_id: str, name: str, config: dict[str, Any], environment: dict[str, Any],
                   accuracy: float, status: str, scores: dict[str, float]) -> None:  # fmt: skip
        noise = random.Random(name)
        target = config["target_sparsity"] or 0.0
        share = config["width"] ** 2
        prunable = int(PRUNABLE * share)
        kept = prunable - int(target * prunable + 0.5)
        account = account_of(prunable, kept, pruned=target > 0)
        put(directory / "config.json", {"run_id": run_id, "name": name, "config": config, "environment": environment}
            | {"identity": IDENTITY})  # fmt: skip
        evaluations, samples = [], []
        final = accuracy + noise.gauss(0, 0.004)
        for epoch in range(1, (EPOCHS if status == "finished" else 4) + 1):
            ramp = min(1.0, max(0.0, (epoch / EPOCHS - 0.25) / 0.5))
            sparsity = target * (1 - (1 - ramp) ** 3)
            value = final - 0.6 * 0.4**epoch + noise.gauss(0, 0.002)
            evaluations.append({"epoch": epoch, "step": 20 * epoch, "seconds": 0.1 * epoch, "learning_rate": 0.001,
                                "train_loss": 1 / epoch, "val_loss": 1 / epoch, "val_accuracy": value,
                                "target": target, "sparsity": sparsity, "at_target": ramp == 1.0})  # fmt: skip
            now = account_of(prunable, prunable - int(sparsity * prunable), pruned=sparsity > 0)
            samples.append({"epoch": epoch, "step": 20 * epoch, "seconds": 0.1 * epoch, "rss": 4 * 10**8 + epoch,
                            "allocated": None, "bytes": now, "bytes_model": now})  # fmt: skip
        lines(directory / "metrics.jsonl", evaluations)
        lines(directory / "memory.jsonl", samples)
        if status == "unfinished":
            return
        end = {"epoch": EPOCHS, "val_accuracy": evaluations[-1]["val_accuracy"], "val_loss": 0.1,
               "test_accuracy": final, "test_loss": 0.1, "sparsity": 1 - kept / prunable} | scores  # fmt: skip
        best = end | {"val_accuracy": max(one["val_accuracy"] for one in evaluations[-3:])}
        put(directory / "result.json", {
            "run_id": run_id, "name": name, "status": status, "config": config, "final": end, "best": best,
            "reason": None if status == "finished" else "loss is nan at step 80", "best_any": best,
            "target_sparsity": target, "sparsity": end["sparsity"], "parameters": int(PARAMETERS * share),
            "prunable": prunable, "kept": kept, "steps": 20 * EPOCHS,
            "account": {"bytes": account, "bytes_model": account} if target else None,
            "seconds": {"train": 1.5 + noise.random(), "eval": 0.2, "total": 2.0},
        })  # fmt: skip


def config_of(**given: Any) -> dict[str, Any]:
    """A resolved config: the recipe's values, then the given ones."""
    pruned = PRUNED | {"score": given.get("pruning_method")} if given.get("pruning_method", "none") != "none" else {}
    return RunConfig(**(RESOLVED | pruned | given)).as_dict()


def account_of(prunable: int, kept: int, *, pruned: bool) -> dict[str, int]:
    return {
        "weights": 4 * prunable,
        "gradients": 4 * prunable,
        "state": 8 * kept,
        "mask": prunable // 8 if pruned else 0,
        "workspace": 0,
    }


def put(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1} | content))


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps({"schema": 1} | record) + "\n" for record in records))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty results folder to fill."""
    return Folder(tmp_path / "tiny")


def digits_like(folder: Folder, seeds: int = 3) -> Path:
    """The shape of the default experiment: two dense arms, four pruned ones, three targets."""
    spam = {"optimizer": "adamwprune", "base": "adamwspam", "spam_theta": 5000.0, "spam_interval": 100}
    for seed in range(seeds):
        folder.add(optimizer="adamw", seed=seed, accuracy=0.972)
        folder.add(optimizer="adamwspam", seed=seed, accuracy=0.974, spam_theta=5000.0, spam_interval=100)
        for target, loss in ((0.5, 0.001), (0.7, 0.004), (0.9, 0.025)):
            common = {"seed": seed, "target_sparsity": target}
            folder.add(optimizer="adamw", pruning_method="magnitude", accuracy=0.972 - loss, **common)
            folder.add(optimizer="adamw", pruning_method="movement", accuracy=0.968 - 2 * loss, **common)
            folder.add(optimizer="adamwprune", pruning_method="state", accuracy=0.973 - loss, **common)
            folder.add(**spam, pruning_method="state", accuracy=0.974 - loss, **common)
    return folder.write()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the default experiment's, with a failed and two unfinished runs; read only."""
    folder = Folder(tmp_path_factory.mktemp("results") / "tiny")
    digits_like(folder)
    folder.add(optimizer="sgd", seed=0, status="failed")
    folder.add(optimizer="sgd", seed=1, status="unfinished")
    folder.add(optimizer="sgd", seed=2, status="missing")
    return folder.write()


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model: dense, magnitude in two variants, and state, which differ by known losses; read only."""
    folder = Folder(tmp_path_factory.mktemp("results") / "spoken")
    for seed in range(3):
        for fields, loss in (
            ({"optimizer": "adamw"}, 1.50),
            ({"optimizer": "adamw", "pruning_method": "magnitude", "target_sparsity": 0.5}, 1.60),
            ({"optimizer": "adamw", "pruning_method": "magnitude", "score": "lamp", "target_sparsity": 0.5}, 1.58),
            ({"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.5}, 1.55),
        ):
            loss += 0.1 * seed
            found = {"val_loss": loss, "test_loss": loss}
            folder.add(seed=seed, scores={**found, "val_perplexity": math.exp(loss), "test_perplexity": 4.0}, **fields)
    return folder.write()
