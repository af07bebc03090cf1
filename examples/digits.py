# SPDX-License-Identifier: MIT
"""What every example needs: scans of handwritten digits, a small network, options, and a line that says how it went."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import adamwprune as ap
from adamwprune import data


def options(steps: int = 300, sparsity: float = 0.8) -> argparse.Namespace:
    """What can be chosen on the command line; the folder for checkpoints is made."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--sparsity", type=float, default=sparsity)
    parser.add_argument("--folder", type=Path, default=Path("runs") / name, help="where checkpoints go")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint halfway of an earlier run")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    chosen.half = chosen.folder / "half.pt"
    return chosen


@functools.cache
def scans(train: bool) -> tuple[Tensor, Tensor]:
    """Images as vectors, and their labels."""
    digits = data.load("digits", "data")
    split = digits.train if train else digits.test
    return (split.images / 255.0).flatten(1), split.labels


def batch(step: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The batch of one step: its number decides, so a run that is resumed sees what it would have seen."""
    images, labels = scans(train=True)
    chosen = torch.randint(len(labels), (size,), generator=torch.Generator().manual_seed(step))
    return images[chosen], labels[chosen]


def network() -> nn.Sequential:
    """A classifier with 101,632 prunable weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 10))


def accuracy(model: nn.Module) -> float:
    """Share of the test scans that the model names rightly."""
    images, labels = scans(train=False)
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return float((model(images.to(dtype)).argmax(1) == labels).float().mean())


def sparsity(model: nn.Module, pruner: ap.Pruner) -> float:
    """Share of zeros among the prunable weights, counted in the model at hand."""
    names = pruner.report()["tensors"]
    weights = [p for name, p in model.named_parameters() if name.removeprefix("module.") in names]
    return sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)


def show(model: nn.Module, pruner: ap.Pruner) -> None:
    """Print what was measured."""
    report = pruner.report()
    used, count = report["bytes"], sum(tensor["weights"] for tensor in report["tensors"].values())
    print(
        f"step {pruner.step}: sparsity {sparsity(model, pruner):.2%}, test accuracy {accuracy(model):.2%}, "
        f"state and mask {(used['state'] + used['mask']) / count:.2f} bytes per prunable weight"
    )
