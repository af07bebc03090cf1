# SPDX-License-Identifier: MIT
"""What the tests here train: a small network on scans of handwritten digits, each batch decided by its step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamwprune import AdamWPrune, Prune, attach
from adamwprune.data.digits import INFO

STEPS = 60
PIXELS = 14 * 14


@functools.cache
def scans() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images as vectors, each with its labels."""
    data = INFO.read(INFO, Path())
    halves = [functional.avg_pool2d(split.images / 255.0, 2).flatten(1) for split in (data.train, data.test)]
    return halves[0], data.train.labels, halves[1], data.test.labels


def batch(step: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The batch of one step."""
    images, labels, _, _ = scans()
    chosen = torch.randint(len(labels), (size,), generator=torch.Generator().manual_seed(step))
    return images[chosen], labels[chosen]


def network(seed: int = 0) -> nn.Sequential:
    """A classifier with 7,082 prunable weights and a norm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(PIXELS, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


def accuracy(model: nn.Module) -> float:
    """Share of the test scans that a network names rightly."""
    _, _, images, labels = scans()
    mode, _ = model.training, model.eval()
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float().mean()
    model.train(mode)
    return float(right)


def prune(**settings: Any) -> Prune:
    """Half of the weights, between steps 15 and 45 of 60."""
    return Prune(**{"sparsity": 0.5, "total_steps": STEPS, "every": 3, **settings})


def ours(model: nn.Module, state: str | None = None, **settings: Any) -> AdamWPrune:
    """AdamWPrune as most use it."""
    return AdamWPrune(model.named_parameters(), lr=0.01, weight_decay=0.1, state=state, prune=prune(**settings))


def eight_bit(model: nn.Module, **settings: Any) -> AdamWPrune:
    """Its larger tensor keeps 8-bit codes."""
    return ours(model, state="8bit", **settings)


def attached(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """torch's AdamW, with a pruner beside it."""
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01, weight_decay=0.1)
    attach(optimizer, prune(**settings))
    return optimizer


KINDS = {"ours": ours, "attached": attached, "8-bit": eight_bit}


def loss_of(model: nn.Module, step: int) -> Tensor:
    images, labels = batch(step)
    return functional.cross_entropy(model(images), labels)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: Iterable[int] = range(STEPS),
    after: Callable[[int], None] | None = None,
) -> None:
    """The plain loop that everything else is compared with."""
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        if after is not None:
            after(step)


def weights(model: nn.Module) -> list[Tensor]:
    """A network's parameters and buffers, copied."""
    return copy.deepcopy(list(model.state_dict().values()))


def same(a: Iterable[Tensor], b: Iterable[Tensor]) -> bool:
    """Equal bit for bit, +0.0 and -0.0 aside."""
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


class Twin:
    """torch's AdamW on a copy of a model, masked by hand with the masks that another optimizer has found."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = copy.deepcopy(model)
        group = optimizer.param_groups[0]
        lr = group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=group["weight_decay"])
        self.masks: dict[str, Tensor] = {}

    def mask_gradients(self) -> None:
        for name, keep in self.masks.items():
            self.model.get_parameter(name).grad.masked_fill_(~keep, 0)

    def take_masks(self, masks: dict[str, Tensor]) -> None:
        """Zero what is masked now, weights and state."""
        self.masks = masks
        for name, keep in masks.items():
            p = self.model.get_parameter(name)
            for tensor in (p.data, *(value for value in self.optimizer.state[p].values() if value.shape == p.shape)):
                tensor.masked_fill_(~keep, 0)
