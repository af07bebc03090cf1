# SPDX-License-Identifier: MIT
"""Gradients as soon as backward has made them: masked entries become zero, and what regrowth ranks by is recorded."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamwprune import kernels
from adamwprune.kernels import reference
from adamwprune.optim.slots import Slot
from adamwprune.prune.masks import Mask
from adamwprune.prune.shards import local, local_gradient

if TYPE_CHECKING:
    from adamwprune.optim.pruner import Pruner


def register_hook(pruner: Pruner, slot: Slot) -> Any:
    """Look at a tensor's gradient after every backward; the handle removes the hook.

    The hook holds neither: a pruner that is dropped leaves whole gradients behind. Nor does it refer weakly to the
    tensor: torch exchanges tensors in place (``module.cpu()`` of a sharded model), and refuses those.
    """
    this = weakref.ref(pruner)

    def after_backward(weight: Tensor) -> None:
        owner = this()
        if owner is not None and weight in owner.slots:
            _see_gradient(owner, owner.slots[weight])

    # torch takes hooks of trainable tensors only; a frozen one may be thawed later.
    frozen = not slot.weight.requires_grad
    slot.weight.requires_grad_(True)
    handle = slot.weight.register_post_accumulate_grad_hook(after_backward)  # type: ignore[no-untyped-call]
    slot.weight.requires_grad_(not frozen)
    return handle


def _see_gradient(pruner: Pruner, slot: Slot) -> None:
    grad = local_gradient(slot.weight)
    if slot.mask is None or grad is None:
        return
    if pruner.prune.regrow and pruner.due(pruner.step + 1):
        _record_exchange(slot, slot.mask, grad, goes_on=pruner.prune.mask_grads)
    if pruner.prune.mask_grads:
        kernels.zero_masked(grad, slot.mask)
    slot.recorded = (grad.data_ptr(), grad._version)


def _record_exchange(slot: Slot, mask: Mask, grad: Tensor, *, goes_on: bool) -> None:
    """Keep the masked entries of a gradient that is about to be masked.

    Micro-batches add up: masked entries were zeroed after the last one, so they hold this one's alone. That the
    gradient goes on from there shows in its version, which `backward` raises by one; any other history (zero_grad,
    a step that GradScaler skipped) starts afresh.
    """
    fresh = grad.detach().float().masked_fill(mask.to_bool(grad.shape), 0)
    if goes_on and slot.exchange is not None and slot.recorded == (grad.data_ptr(), grad._version - 1):
        slot.exchange += fresh
    else:
        slot.exchange = fresh


def accumulate_movement(slot: Slot, grad: Tensor, grad_scale: float, factor: Tensor | None) -> None:
    """Add this step's ``-w * g`` to the tensor's movement.

    Gradients come multiplied by ``grad_scale``, which is negative where steps go uphill, and are owed ``factor``.
    """
    weight = local(slot.weight)
    if slot.movement is None:
        entries = slot.mask.kept if slot.compact and slot.mask is not None else weight.numel()
        slot.movement = torch.zeros(entries, dtype=torch.float32, device=weight.device)
    reference.accumulate_movement(slot.movement, weight, local(grad), slot.mask, slot.compact, 1.0 / grad_scale, factor)
