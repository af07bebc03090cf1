# SPDX-License-Identifier: MIT
"""Writes the golden files of the present formats. Run once per format version; what exists is never overwritten.

    python tests/golden/make_golden.py

A later release must still read every file here: people's checkpoints and results are of these versions.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from adamwprune import AdamWPrune, Prune, Spam, attach, kernels

HERE = Path(__file__).parent
BEFORE, AFTER = 12, 4


def network() -> torch.nn.Module:
    """Two small layers with fixed weights."""
    model = torch.nn.Sequential(torch.nn.Linear(7, 9), torch.nn.ReLU(), torch.nn.Linear(9, 5))
    for i, p in enumerate(model.parameters()):
        p.data = torch.linspace(-1, 1, p.numel()).view(p.shape).mul(i + 1).sin()
    return model


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, steps: int) -> None:
    """Steps with gradients that depend on nothing but the step."""
    with kernels.use("reference"):
        for step in range(first, first + steps):
            for i, p in enumerate(model.parameters()):
                p.grad = torch.linspace(0, 3, p.numel()).view(p.shape).mul(step + i + 1).cos()
            optimizer.step()


def adamwprune(model: torch.nn.Module) -> torch.optim.Optimizer:
    """The state score on the SPAM base, a reset behind it."""
    prune = Prune(sparsity=0.6, total_steps=20, distribution="global")
    spam = Spam(interval=5, warmup=2, min_age=1, theta=100.0)
    return AdamWPrune(model.named_parameters(), lr=0.01, base="adamwspam", prune=prune, spam=spam)


def attached(model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD, whose masks travel as bytes (packed bits at first), with a movement buffer."""
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.01, momentum=0.9)
    attach(optimizer, Prune(sparsity=0.5, total_steps=20, score="movement"))
    return optimizer


OPTIMIZERS = {"adamwprune": adamwprune, "attached": attached}


def main() -> None:
    """Write what is missing."""
    for name, make in OPTIMIZERS.items():
        path = HERE / f"{name}-v1.pt"
        if path.exists():
            continue
        model = network()
        optimizer = make(model)
        train(model, optimizer, 0, BEFORE)
        saved = {
            "model": {key: x.clone() for key, x in model.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "masks": optimizer.pruner.named_masks(),
        }
        torch.save(saved, path.with_suffix(".tmp"))
        saved = torch.load(path.with_suffix(".tmp"), weights_only=True)
        train(model, optimizer, BEFORE, AFTER)
        torch.save({**saved, "after": model.state_dict()}, path)
        path.with_suffix(".tmp").unlink()
    results()


def results() -> None:
    """A matrix of two short runs, without its checkpoints."""
    target = HERE / "results-v1"
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        arms = ("optimizer=adamw", "optimizer=adamwprune pruning-method=state target-sparsity=0.5")
        flags = [word for arm in arms for word in ("--arm", f"{arm} epochs=2 width=0.5")]
        command = [sys.executable, "-m", "adamwprune", "matrix", "run", *flags, "--name", "golden"]
        subprocess.run([*command, "--results-dir", folder], check=True)
        made = Path(folder) / "golden"
        stored = [path for path in made.glob("runs/*/*") if path.suffix in (".json", ".jsonl")]
        for path in (made / "matrix.json", *stored):
            copy = target / path.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


if __name__ == "__main__":
    main()
