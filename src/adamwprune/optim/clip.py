# SPDX-License-Identifier: MIT
"""Gradient clipping by the norm over kept weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from adamwprune import kernels
from adamwprune.optim.groups import parameters
from adamwprune.optim.wrappers import unwrapped
from adamwprune.prune.masks import Mask
from adamwprune.prune.shards import everywhere, local


def kept_norm(
    optimizer: torch.optim.Optimizer,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Norm of the gradient over kept weights, with the factors that gradients are owed."""
    pruner, owed = getattr(optimizer, "pruner", None), getattr(optimizer, "owed", None)
    whole: list[Tensor] = []
    norms: list[Tensor] = []
    for p in parameters(optimizer.param_groups):
        if p.grad is None:
            continue
        slot = pruner.slots.get(p) if pruner is not None and not pruner.prune.mask_grads else None
        mask = None if slot is None else slot.mask
        factor = None if owed is None else owed.of(p)
        if mask is not None and local(p) is not p:
            masked = p.grad.clone()
            kernels.zero_masked(masked, mask)
            whole.append(masked)
        elif mask is None and factor is None:
            whole.append(p.grad)
        else:
            norm = _norm(p.grad, mask, norm_type)
            norms.append(norm if factor is None else norm * factor)
    if norms:
        # Of no tensors torch's norm is a zero on the CPU, for which a GPU would be waited for.
        whole = [*([get_total_norm(whole, norm_type, foreach=foreach)] if whole else []), *norms]
    return everywhere(get_total_norm(whole, norm_type, error_if_nonfinite, foreach))


def _norm(grad: Tensor, mask: Mask | None, norm_type: float) -> Tensor:
    """Norm of a gradient's kept entries, in its dtype."""
    if mask is not None and norm_type == 2.0:
        return kernels.kept_square_sum(grad, mask).sqrt().to(grad.dtype)
    kept = grad if mask is None else grad.masked_select(mask.to_bool(grad.shape))
    norm: Tensor = torch.linalg.vector_norm(kept, norm_type)
    return norm


@torch.no_grad()
def clip_grad_norm_(
    optimizer: torch.optim.Optimizer,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Clip the gradients of an optimizer's parameters so that their norm over kept weights is at most ``max_norm``.

    The norm is that of :func:`torch.nn.utils.clip_grad_norm_` on gradients whose masked entries are zero, also with
    ``Prune(mask_grads=False)``.

    With :class:`adamwprune.AdamWPrune` and its family the gradients of masked tensors are not written: the next
    ``step()`` multiplies by the factor as it reads them, and ``p.grad`` shows what ``backward`` made. The factor is of
    these gradients: ``zero_grad()`` drops it, a step uses it up, clipping again multiplies it, and a further
    ``backward`` adds to the clipped gradient. Changing such a gradient by hand before ``step()`` is refused.

    Args:
        optimizer: any optimizer, also wrapped by a framework; one without a pruner has all its weights.
        max_norm: the largest norm allowed.
        norm_type: the norm, ``inf`` for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: as in torch.

    Returns:
        The norm before clipping, a scalar tensor.

    Raises:
        ValueError: the optimizer releases gradients during backward, so there are none left to clip.
    """
    optimizer = unwrapped(optimizer)
    if getattr(optimizer, "release", None) is not None:
        raise ValueError("release_gradients=True lets go of each gradient during backward: there is nothing to clip")
    norm = kept_norm(optimizer, norm_type, error_if_nonfinite, foreach)
    params = [p for p in parameters(optimizer.param_groups) if p.grad is not None]
    owed = getattr(optimizer, "owed", None)
    later: set[Tensor] = set()
    if owed is not None:
        later = {p for p in params if optimizer.takes_factor(p)}  # type: ignore[attr-defined]
        # torch's own factor, operation by operation.
        owed.add(later, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    clip_grads_with_norm_([p for p in params if p not in later], max_norm, norm, foreach)
    return norm
