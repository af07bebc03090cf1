# SPDX-License-Identifier: MIT
"""Gradient clipping by the norm over kept weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from adamwprune import kernels


def kept_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Gradients with masked weights' entries zero: the tensors themselves, or copies where ``mask_grads`` is off."""
    pruner = getattr(optimizer, "pruner", None)
    grads = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            slot = pruner.slots.get(p) if pruner is not None and not pruner.prune.mask_grads else None
            if slot is None or slot.mask is None:
                grads.append(p.grad)
            else:
                masked = p.grad.clone()
                kernels.zero_masked(masked, slot.mask)
                grads.append(masked)
    return grads


def kept_norm(optimizer: torch.optim.Optimizer, norm_type: float = 2.0) -> Tensor:
    """Norm of the gradient over kept weights."""
    return get_total_norm(kept_gradients(optimizer), norm_type)


@torch.no_grad()
def clip_grad_norm_(
    optimizer: torch.optim.Optimizer,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Clip the gradients of an optimizer's parameters so that their norm over kept weights is at most ``max_norm``.

    The result is that of :func:`torch.nn.utils.clip_grad_norm_` on gradients whose masked entries are zero, also with
    ``Prune(mask_grads=False)``.

    Args:
        optimizer: any optimizer; one without a pruner has all its weights.
        max_norm: the largest norm allowed.
        norm_type: the norm, ``inf`` for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: as in torch.

    Returns:
        The norm before clipping, a scalar tensor.
    """
    norm = get_total_norm(kept_gradients(optimizer), norm_type, error_if_nonfinite, foreach)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    clip_grads_with_norm_(params, max_norm, norm, foreach)
    return norm
