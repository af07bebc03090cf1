# SPDX-License-Identifier: MIT
"""The pruner of an optimizer that a framework has wrapped."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adamwprune.optim import Pruner
from adamwprune.optim.wrappers import unwrapped


def find_pruner(optimizer: torch.optim.Optimizer) -> Pruner | None:
    """The pruner of an optimizer, or of the one inside it.

    None where the optimizer could prune and was told not to: ``AdamWPrune(prune=None)``, a dense baseline.

    Raises:
        ValueError: it has no pruner at all, so nothing would be pruned in silence.
    """
    inner = unwrapped(optimizer)
    if not hasattr(inner, "pruner"):
        raise ValueError(
            f"{type(inner).__name__} has no pruner, so nothing would be pruned: use AdamWPrune(..., prune=Prune(...)), "
            "or attach(optimizer, Prune(...)) first"
        )
    pruner: Pruner | None = inner.pruner
    return pruner


def tell_total_steps(optimizers: Sequence[torch.optim.Optimizer], total_steps: float) -> list[Pruner]:
    """Set the steps of the run where ``Prune(total_steps=None)`` left them open.

    Raises:
        ValueError: an optimizer has no pruner, or the number of its steps cannot be known.
    """
    pruners = [pruner for optimizer in optimizers if (pruner := find_pruner(optimizer)) is not None]
    late = [pruner for pruner in pruners if pruner.prune.total_steps is None]
    if late and (not 0 < total_steps < float("inf") or len(optimizers) > 1):
        raise ValueError(
            f"the number of optimizer steps cannot be known here (the framework says {total_steps}, for "
            f"{len(optimizers)} optimizers): bound the run (max_steps or max_epochs), or pass Prune(total_steps=N)"
        )
    for pruner in late:
        pruner.set_total_steps(int(total_steps))
    return pruners
