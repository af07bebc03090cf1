# SPDX-License-Identifier: MIT
"""An exponential moving average of a network's weights (EMA), which is evaluated in its place."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from adamwprune.prune.shards import local

#: The average forgets faster in the beginning: its decay is at most (1 + step) / (WARMUP + step).
WARMUP = 10


class Average:
    """The average, as a network of its own. A pruner that follows ``model`` keeps it masked."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps. Running statistics are averaged too, counters are copied."""
        weight = 1.0 - min(self.decay, (1 + step) / (WARMUP + step))
        ours: list[Any] = []
        theirs: list[Any] = []
        for mine, other in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                ours.append(local(mine))
                theirs.append(local(other))
            else:
                mine.copy_(other)
        torch._foreach_lerp_(ours, theirs, weight)
