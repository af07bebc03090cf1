# SPDX-License-Identifier: MIT
"""Loss and accuracy of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from adamwprune.training import ranks
from adamwprune.training.device import autocast


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean cross-entropy without label smoothing, and the fraction of targets that were thought most likely."""

    loss: float
    accuracy: float


def cross_entropy(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, reduction: str = "mean") -> Tensor:
    """Cross-entropy in float32: of images (batch, classes) and of sequences (batch, length, classes) alike."""
    return functional.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), label_smoothing=label_smoothing, reduction=reduction
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "fp32",
    *,
    together: Tensor | None = None,
) -> Scores:
    """Scores over all targets of ``batches``, of which each rank has its own. The model's mode stays as it was.

    Where weights are spread over ranks, all must call the network equally often: with the input ``together`` those do
    that have no batch left.
    """
    training = model.training
    model.eval()
    count = torch.zeros((), dtype=torch.int64, device=device)
    loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for inputs, targets in batches:
        if together is not None:
            ranks.anywhere(True)
        with autocast(device.type, precision):
            logits = model(inputs)
        loss += cross_entropy(logits, targets, reduction="sum")
        correct += (logits.argmax(-1) == targets).sum()
        count += targets.numel()
    if together is not None:
        _wait_for_others(model, together, device, precision)
    model.train(training)
    targets_seen = ranks.total(count).item()
    return Scores(ranks.total(loss).item() / targets_seen, ranks.total(correct).item() / targets_seen)


def _wait_for_others(model: nn.Module, inputs: Tensor, device: torch.device, precision: str) -> None:
    """Call the network along until no rank has a batch left."""
    while ranks.anywhere(False):
        with autocast(device.type, precision):
            model(inputs)
