# SPDX-License-Identifier: MIT
"""When does Adam's state prune better than magnitude? A character GPT on Shakespeare, many windows and scores.

    python experiments/when_state_pays.py --text input.txt --results FILE.jsonl --seeds 0 1 2 --arms 75-90/state-global

4 blocks x 96, 2,000 steps of 24 x 128 bytes, AdamW (lr 2e-3, betas 0.9/0.98, decay 0.1 on matrices), 100 steps of
warm-up, cosine to a tenth, clipping at 1, bf16 autocast. Pruned: the blocks' four matrices, every 20 steps, cubic.

A seed is trained dense once. An arm goes on from that run's state where its window begins, so that arms of one seed
share everything before it, and a late window costs a quarter of a run. `--small` trains the dense networks that a
sparse one must beat: fewer blocks, narrower blocks. A row of the results file is one run; rows that are there are not
run again. `experiments/compare.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import adamwprune as ap
from adamwprune.models.gpt2 import GPT2, Shape

STEPS, BATCH, LENGTH = 2000, 24, 128
LR, WARMUP = 2e-3, 100
SHAPE = Shape(blocks=4, heads=4, width=96, context=LENGTH, vocabulary=256)
MATRICES = ("h.*.c_attn.weight", "h.*.c_proj.weight", "h.*.c_fc.weight")
#: Seeds to choose by; what was chosen is confirmed on others.
CHOOSING = range(5)


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
    """|w| v^alpha with an alpha that grows from 0 to 1/4 as the learning rate falls."""
    return w.abs() * v ** (0.25 * (1 - progress[0]))


WINDOWS = {"25-75": (0.25, 0.75), "50-90": (0.5, 0.9), "75-90": (0.75, 0.9), "75-85": (0.75, 0.85)}
PROGRESS = [1.0]


def function(score: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The score with nothing but w and v among its parameters, which is how the library sees what it needs."""
    return lambda w, v: score(w, v)


SCORES: dict[str, tuple[str | Callable[..., Tensor], str]] = {
    "magnitude-layer": ("magnitude", "layer"),
    "magnitude-global": ("magnitude", "global"),
    "magnitude-erk": ("magnitude", "erk"),
    "lamp": ("lamp", "global"),
    "state-layer": ("state", "layer"),
    "state-global": ("state", "global"),
    "fisher-global": ("fisher", "global"),
    "eighth-global": (function(partial(powered, alpha=0.125)), "global"),
    "three-eighths-global": (function(partial(powered, alpha=0.375)), "global"),
    "lr-alpha-global": (function(partial(follows_lr, progress=PROGRESS)), "global"),
    "magnitude-state-budgets": ("magnitude", "state"),
    "state-lamp-budgets": ("state", "lamp"),
    "taylor-global": ("taylor", "global"),
}
ARMS = {
    f"{window}/{name}": Arm(WINDOWS[window], score, distribution)
    for window in WINDOWS
    for name, (score, distribution) in SCORES.items()
}


def lr_factor(step: int) -> float:
    """Warm-up, then a cosine to a tenth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def groups(model: GPT2) -> list[dict[str, Any]]:
    """Decay on matrices only."""
    named = list(model.named_parameters())
    return [
        {"params": [(n, p) for n, p in named if (p.dim() >= 2) == decays], "weight_decay": 0.1 * decays}
        for decays in (True, False)
    ]


class Run:
    """One network in training, batches by seed and step alone."""

    def __init__(self, text: Tensor, seed: int, shape: Shape = SHAPE, prune: ap.Prune | None = None) -> None:
        torch.manual_seed(seed)
        cut = int(0.9 * len(text))
        self.train, self.val, self.seed = text[:cut], text[cut:], seed
        self.model = GPT2(shape)
        self.optimizer = ap.AdamWPrune(groups(self.model), lr=LR, betas=(0.9, 0.98), fused=True, prune=prune)

    def go(self, first: int, last: int) -> None:
        """Take steps ``first`` to ``last``."""
        self.model.train()
        for step in range(first, last):
            PROGRESS[0] = (lr_factor(step) - 0.1) / 0.9
            for group in self.optimizer.param_groups:
                group["lr"] = LR * lr_factor(step)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            at = torch.randint(len(self.train) - LENGTH, (BATCH, 1), generator=generator)
            rows = self.train[at + torch.arange(LENGTH + 1)].long()
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(rows[:, :-1])
            loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
            loss.backward()
            ap.clip_grad_norm_(self.optimizer, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    @torch.no_grad()
    def validation(self) -> float:
        """Nats per byte over the whole validation text."""
        self.model.eval()
        rows = self.val[: len(self.val) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1).long()
        total = 0.0
        for part in rows.split(64):
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(part[:, :-1])
            total += float(
                functional.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            )
        return total / rows[:, 1:].numel()


def dense_states(text: Tensor, seed: int, folder: Path) -> tuple[dict[int, Path], float]:
    """Checkpoints of the dense run where windows begin, and its validation loss."""
    starts = sorted({int(start * STEPS) for start, _ in WINDOWS.values()})
    paths = {start: folder / f"dense-{seed}-{start}.pt" for start in starts}
    final = folder / f"dense-{seed}.json"
    if not final.exists():
        run = Run(text, seed)
        for start, stop in zip([0, *starts], [*starts, STEPS], strict=True):
            if start:
                torch.save({"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}, paths[start])
            run.go(start, stop)
        final.write_text(json.dumps(run.validation()))
    return paths, json.loads(final.read_text())


def pruned_loss(
    text: Tensor, seed: int, arm: Arm, sparsity: float, states: dict[int, Path]
) -> tuple[float, dict[str, float]]:
    """Validation loss of an arm that goes on from the dense run, and the sparsity of each tensor."""
    start = int(arm.window[0] * STEPS)
    prune = ap.Prune(
        sparsity=sparsity,
        # The schedule counts from the checkpoint on.
        total_steps=STEPS - start,
        start=0,
        end=int(arm.window[1] * STEPS) - start,
        every=20,
        score=arm.score,
        distribution=arm.distribution,
        include=MATRICES,
    )
    run = Run(text, seed, prune=prune)
    saved = torch.load(states[start], weights_only=True)
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.go(start, STEPS)
    assert run.optimizer.pruner is not None
    assert run.optimizer.pruner.at_target
    tensors = run.optimizer.pruner.report()["tensors"]
    return run.validation(), {name: round(tensor["sparsity"], 4) for name, tensor in tensors.items()}


def small_shapes() -> dict[str, Shape]:
    """Dense networks with about as many weights in their blocks as the sparse one keeps, and the shallow ones."""
    shapes = {f"{n} blocks": Shape(blocks=n, heads=4, width=96, context=LENGTH, vocabulary=256) for n in (1, 2)}
    for sparsity in (0.5, 0.8, 0.9):
        width = round(96 * math.sqrt(1 - sparsity) / 4) * 4
        shapes[f"width {width}"] = Shape(blocks=4, heads=4, width=width, context=LENGTH, vocabulary=256)
    return shapes


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*CHOOSING])
    parser.add_argument("--arms", nargs="+", default=[], choices=ARMS, metavar="WINDOW/SCORE")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.8])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = torch.frombuffer(bytearray(options.text.read_bytes()), dtype=torch.uint8)
    states_folder = options.results.with_suffix(".states")
    states_folder.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.results.exists():
        done = {(r["arm"], r["sparsity"], r["seed"]) for r in map(json.loads, options.results.read_text().splitlines())}

    def record(arm: str, sparsity: float, seed: int, began: float, loss: float, **more: Any) -> None:
        row = {"arm": arm, "sparsity": sparsity, "seed": seed, "loss": round(loss, 5), **more}
        with options.results.open("a") as file:
            file.write(json.dumps({**row, "seconds": round(time.perf_counter() - began, 1)}) + "\n")
        print(arm, sparsity, seed, f"{loss:.4f}", flush=True)

    for seed in options.seeds:
        began = time.perf_counter()
        states, dense = dense_states(text, seed, states_folder)
        if ("dense", 0.0, seed) not in done:
            record("dense", 0.0, seed, began, dense)
        for name, shape in small_shapes().items() if options.small else ():
            if (name, 0.0, seed) not in done:
                began, run = time.perf_counter(), Run(text, seed, shape)
                run.go(0, STEPS)
                record(name, 0.0, seed, began, run.validation(), weights=sum(p.numel() for p in run.model.parameters()))
        for arm in options.arms:
            for sparsity in options.sparsities:
                if (arm, sparsity, seed) not in done:
                    began = time.perf_counter()
                    loss, tensors = pruned_loss(text, seed, ARMS[arm], sparsity, states)
                    record(arm, sparsity, seed, began, loss, tensors=tensors)


if __name__ == "__main__":
    main()
