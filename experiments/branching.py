# SPDX-License-Identifier: MIT
"""Many ways to prune one dense run: the part that the experiments share, whatever the network.

A seed is trained dense once. An arm goes on from that run's state where its window begins, so that arms of one seed
share everything before it, and a late window costs a quarter of a run. A row of the results file is one run; rows that
are there are not run again. `experiments/compare.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import adamwprune as ap

#: Seeds to choose by; what was chosen is confirmed on others.
CHOOSING = range(5)


class Training(ABC):
    """One network in training, batches by seed and step alone."""

    model: nn.Module
    optimizer: ap.AdamWPrune
    #: The highest learning rate.
    lr: float

    @abstractmethod
    def lr_factor(self, step: int) -> float:
        """The learning rate of a step, as a share of the highest."""

    @abstractmethod
    def take_step(self, step: int) -> None:
        """One step, the learning rate being set."""

    @abstractmethod
    def validation(self) -> dict[str, float]:
        """What a row says of the trained network: ``loss``, and ``accuracy`` where there is one."""

    def go(self, first: int, last: int) -> None:
        """Take steps ``first`` to ``last``."""
        self.model.train()
        for step in range(first, last):
            PROGRESS[0] = self.lr_factor(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * self.lr_factor(step)
            self.take_step(step)


def cosine_to_a_tenth(step: int, steps: int, warmup: int) -> float:
    """A share of the peak: up a line for ``warmup`` steps, then down to a tenth at ``steps``."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay on matrices and filters only."""
    named = list(model.named_parameters())
    return [
        {"params": [(n, p) for n, p in named if (p.dim() >= 2) == decays], "weight_decay": weight_decay * decays}
        for decays in (True, False)
    ]


@dataclass(frozen=True)
class Arm:
    """A way to prune: the window as shares of the run, and what ranks."""

    window: tuple[float, float]
    score: str | Callable[..., Tensor]
    distribution: str = "global"


def powered(w: Tensor, v: Tensor, *, alpha: float) -> Tensor:
    """|w| v^alpha."""
    return w.abs() * v**alpha


def follows_lr(w: Tensor, v: Tensor, *, progress: list[float]) -> Tensor:
    """|w| v^alpha with an alpha that grows from 0 to 1/4 as the learning rate falls to a tenth."""
    return w.abs() * v ** (0.25 * (1 - max(progress[0] - 0.1, 0.0) / 0.9))


PROGRESS = [1.0]


def function(score: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The score with nothing but w and v among its parameters, which is how the library sees what it needs."""
    return lambda w, v: score(w, v)


WINDOWS = {"25-75": (0.25, 0.75), "50-90": (0.5, 0.9), "75-90": (0.75, 0.9), "75-85": (0.75, 0.85)}
SCORES: dict[str, tuple[str | Callable[..., Tensor], str]] = {
    "magnitude-layer": ("magnitude", "layer"),
    "magnitude-global": ("magnitude", "global"),
    "magnitude-erk": ("magnitude", "erk"),
    "lamp": ("lamp", "global"),
    "state-layer": ("state", "layer"),
    "state-global": ("state", "global"),
    "fisher-global": ("fisher", "global"),
    "eighth-layer": (function(partial(powered, alpha=0.125)), "layer"),
    "eighth-global": (function(partial(powered, alpha=0.125)), "global"),
    "three-eighths-global": (function(partial(powered, alpha=0.375)), "global"),
    "lr-alpha-global": (function(partial(follows_lr, progress=PROGRESS)), "global"),
    "magnitude-state-budgets": ("magnitude", "state"),
    "state-lamp-budgets": ("state", "lamp"),
    "state-erk": ("state", "erk"),
    "taylor-global": ("taylor", "global"),
    "movement-global": ("movement", "global"),
}
ARMS = {
    f"{window}/{name}": Arm(WINDOWS[window], score, distribution)
    for window in WINDOWS
    for name, (score, distribution) in SCORES.items()
}


@dataclass(frozen=True)
class Setting:
    """A network, its data and its training: what arms have in common."""

    steps: int
    #: Steps between mask updates.
    every: int
    #: A run in training by seed, pruned or dense.
    train: Callable[[int, ap.Prune | None], Training]
    #: Whether arms go on with Adam's state, too, and not with the weights alone.
    keeps_state: bool = True
    #: Globs of the weights that are pruned; None: the library's own rule.
    include: tuple[str, ...] | None = None
    #: Dense networks that a sparse one must beat, by name: fewer blocks, narrower blocks.
    small: Mapping[str, Callable[[int], Training]] = field(default_factory=dict)


def save(run: Training, path: Path) -> None:
    """Write what `load` reads."""
    torch.save({"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}, path)


def load(run: Training, path: Path, *, state: bool = True) -> None:
    """Take up the weights of a checkpoint, and Adam's state unless it is not wanted."""
    saved = torch.load(path, weights_only=True)
    run.model.load_state_dict(saved["model"])
    if state:
        run.optimizer.load_state_dict(saved["optimizer"])


def dense_states(setting: Setting, seed: int, folder: Path) -> tuple[dict[int, Path], dict[str, float]]:
    """Checkpoints of the dense run where windows begin, and what it reached."""
    starts = sorted({int(start * setting.steps) for start, _ in WINDOWS.values()})
    paths = {start: folder / f"dense-{seed}-{start}.pt" for start in starts}
    final = folder / f"dense-{seed}.json"
    if not final.exists():
        run = setting.train(seed, None)
        for start, stop in zip([0, *starts], [*starts, setting.steps], strict=True):
            if start:
                save(run, paths[start])
            run.go(start, stop)
        final.write_text(json.dumps(run.validation()))
    return paths, json.loads(final.read_text())


def pruned(
    setting: Setting, seed: int, arm: Arm, sparsity: float, states: Mapping[int, Path]
) -> tuple[dict[str, float], dict[str, float]]:
    """What an arm reaches that goes on from the dense run, and the sparsity of each tensor."""
    start = int(arm.window[0] * setting.steps)
    prune = ap.Prune(
        sparsity=sparsity,
        # The schedule counts from the checkpoint on.
        total_steps=setting.steps - start,
        start=0,
        end=int(arm.window[1] * setting.steps) - start,
        every=setting.every,
        score=arm.score,
        distribution=arm.distribution,
        include=setting.include,
    )
    run = setting.train(seed, prune)
    load(run, states[start], state=setting.keeps_state)
    run.go(start, setting.steps)
    assert run.optimizer.pruner is not None
    assert run.optimizer.pruner.at_target
    tensors = run.optimizer.pruner.report()["tensors"]
    return run.validation(), {name: round(tensor["sparsity"], 4) for name, tensor in tensors.items()}


class Results:
    """A file of rows, one a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        self.done = {(row["arm"], row["sparsity"], row["seed"]) for row in rows}

    def lacks(self, arm: str, sparsity: float, seed: int) -> bool:
        """Whether the run is still to be done."""
        return (arm, sparsity, seed) not in self.done

    def add(
        self, arm: str, sparsity: float, seed: int, began: float, reached: Mapping[str, float], **more: object
    ) -> None:
        """Write a run that is done; ``began`` on the clock of `time.perf_counter`."""
        row = {"arm": arm, "sparsity": sparsity, "seed": seed, **{name: round(v, 5) for name, v in reached.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps({**row, **more, "seconds": round(time.perf_counter() - began, 1)}) + "\n")
        print(arm, sparsity, seed, *(f"{name} {value:.4f}" for name, value in reached.items()), flush=True)


def run(
    setting: Setting,
    results: Results,
    seeds: Iterable[int],
    arms: Sequence[str] = (),
    sparsities: Sequence[float] = (0.8,),
    small: Iterable[str] = (),
) -> None:
    """Do what is asked for and not there yet: every arm at every sparsity beside the dense run, seed by seed."""
    folder = results.path.with_suffix(".states")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        began = time.perf_counter()
        states, dense = dense_states(setting, seed, folder)
        if results.lacks("dense", 0.0, seed):
            results.add("dense", 0.0, seed, began, dense)
        for name in small:
            if results.lacks(name, 0.0, seed):
                began, training = time.perf_counter(), setting.small[name](seed)
                training.go(0, setting.steps)
                weights = sum(p.numel() for p in training.model.parameters())
                results.add(name, 0.0, seed, began, training.validation(), weights=weights)
        prune(setting, results, seed, {name: ARMS[name] for name in arms}, sparsities, states)


def prune(
    setting: Setting,
    results: Results,
    seed: int,
    arms: Mapping[str, Arm],
    sparsities: Sequence[float],
    states: Mapping[int, Path],
) -> None:
    """Every arm at every sparsity that is not there yet, of one seed."""
    for (name, arm), sparsity in product(arms.items(), sparsities):
        if results.lacks(name, sparsity, seed):
            began = time.perf_counter()
            reached, tensors = pruned(setting, seed, arm, sparsity, states)
            results.add(name, sparsity, seed, began, reached, tensors=tensors)


def options(description: str | None, arms: Iterable[str] = ARMS, *, small: bool = False) -> argparse.ArgumentParser:
    """The options that every experiment has; ``small``: and those of one that trains small dense networks, too."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of rows, one a run; states lie beside it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*CHOOSING])
    parser.add_argument("--arms", nargs="+", default=[], choices=arms, metavar="ARM")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8])
    if small:
        parser.add_argument("--small", nargs="+", default=[], metavar="NAME", help="dense networks with fewer weights")
    return parser
