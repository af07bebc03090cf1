# SPDX-License-Identifier: MIT
"""The account: bytes by kind, counted on the tensors that exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from adamwprune.optim.slots import Slot
from adamwprune.prune.shards import local

KINDS = ("weights", "gradients", "state", "mask", "workspace")


def nbytes(tensor: Tensor | None) -> int:
    """Bytes of a tensor's entries on this rank; 0 for None."""
    return 0 if tensor is None else local(tensor).numel() * tensor.element_size()


def count(optimizer: torch.optim.Optimizer, params: Iterable[Tensor]) -> dict[str, int]:
    """Weights, gradients that are allocated now, and the optimizer's state of ``params``, in bytes."""
    total = dict.fromkeys(KINDS, 0)
    for p in params:
        total["weights"] += nbytes(p)
        total["gradients"] += nbytes(p.grad)
        total["state"] += sum(nbytes(x) for x in optimizer.state.get(p, {}).values() if isinstance(x, Tensor))
    return total


def pruned(optimizer: torch.optim.Optimizer, slots: Sequence[Slot], params: Iterable[Tensor]) -> dict[str, int]:
    """:func:`count` of ``params``, with what the pruner keeps of ``slots``."""
    total = count(optimizer, params)
    for slot in slots:
        total["state"] += nbytes(slot.movement)
        total["mask"] += 0 if slot.mask is None else slot.mask.nbytes
        total["workspace"] += nbytes(slot.exchange)
    return total
