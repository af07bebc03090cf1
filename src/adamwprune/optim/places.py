# SPDX-License-Identifier: MIT
"""Places in live state for what a checkpoint adds to it.

torch.distributed.checkpoint restores only what a fresh optimizer has after a step with zero gradients. So live
state holds, from that step on, an empty tensor for each entry of ours that its checkpoints will have.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from adamwprune.optim.slots import Slot
from adamwprune.prune.shards import local

#: What the checkpoint of a tensor holds beside the optimizer's own state: 1 where a weight is kept; its movement.
MASK, MOVEMENT = "prune_mask", "prune_movement"


def hold(state: MutableMapping[str, Any], slot: Slot, *, marked: bool) -> None:
    """Name our entries in a tensor's state; an optimizer that makes its own on the first step must have done so.

    ``marked`` says that masks are marks in the state itself.
    """
    device = local(slot.weight).device
    if not marked and not carries_marks(state, slot):
        state.setdefault(MASK, torch.empty(0, dtype=torch.uint8, device=device))
    if slot.movement is not None:
        state.setdefault(MOVEMENT, torch.empty(0, device=device))


def carries_marks(state: Mapping[str, Any], slot: Slot) -> bool:
    """Whether a tensor's dense state has an entry for each weight in which masks can be marked."""
    return "exp_avg_sq" in state and bool(state["exp_avg_sq"].shape == slot.weight.shape)


def without(state: Mapping[str, Any]) -> dict[str, Any]:
    """A tensor's state but for the places of our entries."""
    return {name: value for name, value in state.items() if name not in (MASK, MOVEMENT)}


def keeps_state(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer keeps anything of its own for some tensor."""
    return any(without(entry) for entry in optimizer.state.values())
