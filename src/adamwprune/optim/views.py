# SPDX-License-Identifier: MIT
"""A pruner's tensors as a mask update sees them: which can be ranked now, and what scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from adamwprune import kernels
from adamwprune.kernels import formats
from adamwprune.optim import places
from adamwprune.optim.slots import Slot
from adamwprune.prune.shards import local, local_gradient, shard
from adamwprune.prune.slices import View

if TYPE_CHECKING:
    from adamwprune.optim.pruner import Pruner


def obstacle(pruner: Pruner, slot: Slot) -> str | None:
    """Why a tensor cannot be ranked now; None where it can.

    Raises:
        ValueError: the optimizer keeps no moments, and the score needs them.
    """
    if not slot.weight.requires_grad:
        return "frozen"
    if not _has_state(pruner, slot) or (pruner.uses_moments and not _has_moments(pruner, slot)):
        return "it has no optimizer state yet"
    if pruner.uses_movement and slot.movement is None:
        return "it has seen no gradient yet"
    if pruner.uses_gradients and slot.weight.grad is None:
        return "it has no gradient"
    return None


def _has_state(pruner: Pruner, slot: Slot) -> bool:
    """Whether the tensor took part in a step; an attached optimizer that keeps no state at all cannot tell."""
    own = bool(places.without(pruner.optimizer.state.get(slot.weight, {})))
    return own or not (pruner.compact or places.keeps_state(pruner.optimizer))


def _has_moments(pruner: Pruner, slot: Slot) -> bool:
    optimizer = pruner.optimizer
    state = places.without(optimizer.state.get(slot.weight, {}))
    if state and ("exp_avg" not in state or "exp_avg_sq" not in state):
        raise ValueError(
            f"score {pruner.prune.score!r} needs exp_avg and exp_avg_sq, and {type(optimizer).__name__} keeps "
            f"{', '.join(map(str, state)) or 'nothing'} for {slot.name}: use an Adam-family optimizer, or score "
            "magnitude, movement, taylor, lamp or random"
        )
    if state and not pruner.owns_step:
        _check_moments(pruner, slot, state)
    return bool(state) and _age(pruner, slot) > 0


def _check_moments(pruner: Pruner, slot: Slot, state: Mapping[str, Any]) -> None:
    """ValueError where another optimizer's moments are not one per weight, as those of a low-rank projection."""
    for name in ("exp_avg", "exp_avg_sq"):
        if state[name].shape != slot.weight.shape:
            raise ValueError(
                f"score {pruner.prune.score!r} needs a moment for each weight, and {type(pruner.optimizer).__name__} "
                f"keeps {name} of shape {list(state[name].shape)} for {slot.name} of shape {list(slot.weight.shape)}: "
                "use score magnitude, movement, taylor, lamp or random"
            )


def _age(pruner: Pruner, slot: Slot) -> int:
    """Updates that the tensor's moments have seen since they were last zero."""
    moment_age: Callable[[Tensor], int] | None = getattr(pruner.optimizer, "moment_age", None)
    if moment_age is not None:
        return moment_age(slot.weight)
    return int(pruner.optimizer.state[slot.weight].get("step", pruner.step))


def view(pruner: Pruner, slot: Slot) -> View:
    """The tensor as scores see it."""
    state = {name: local(x) for name, x in pruner.optimizer.state.get(slot.weight, {}).items()}
    weight, position = local(slot.weight), shard(slot.weight)
    beta1, beta2 = pruner.optimizer.param_groups[slot.group].get("betas", (0.9, 0.999))
    return kernels.view_type(weight)(
        name=slot.name,
        weight=weight,
        mask=slot.mask,
        compact=slot.compact,
        grad=local_gradient(slot.weight),
        grad_factor=pruner.owed_factor(slot),
        exp_avg=state.get("exp_avg") if pruner.uses_moments else None,
        exp_avg_sq=state.get("exp_avg_sq") if pruner.uses_moments else None,
        movement=slot.movement,
        decode=formats.Units.of(state) if pruner.owns_step and pruner.uses_moments else None,
        betas=(float(beta1), float(beta2)),
        age=_age(pruner, slot) if pruner.uses_moments else 0,
        first=0 if position is None else position.first,
    )
