# SPDX-License-Identifier: MIT
"""The account: bytes by kind, counted on the tensors that exist."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

KINDS = ("weights", "gradients", "state", "mask", "workspace")


def nbytes(tensor: Tensor | None) -> int:
    """Bytes of a tensor's entries; 0 for None."""
    return 0 if tensor is None else tensor.numel() * tensor.element_size()


def count(optimizer: torch.optim.Optimizer, params: Iterable[Tensor]) -> dict[str, int]:
    """Weights, gradients that are allocated now, and the optimizer's state of ``params``, in bytes."""
    total = dict.fromkeys(KINDS, 0)
    for p in params:
        total["weights"] += nbytes(p)
        total["gradients"] += nbytes(p.grad)
        total["state"] += sum(nbytes(x) for x in optimizer.state.get(p, {}).values() if isinstance(x, Tensor))
    return total
