# SPDX-License-Identifier: MIT
"""What a checkpoint says of pruning."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from adamwprune.prune.masks import Mask


@dataclass(slots=True)
class Loaded:
    """The schedule's place, the masks and the movement buffers, already checked against the optimizer."""

    step: int = 0
    last_update: int | None = None
    masks: dict[Tensor, Mask] = field(default_factory=dict)
    movement: dict[Tensor, Tensor] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
