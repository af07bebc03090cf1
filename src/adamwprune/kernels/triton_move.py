# SPDX-License-Identifier: MIT
"""Masking, compacting and measuring tensors on GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from adamwprune.kernels import triton_passes
from adamwprune.kernels.layout import starts
from adamwprune.kernels.triton_step import KINDS, on
from adamwprune.prune.masks import BLOCK, Mask

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zero_masked(tensor: Tensor, mask: Mask) -> None:
    """Set the masked entries of a row-major tensor of the parameter's shape to zero, in place."""
    if mask.numel:
        with on(tensor.device):
            triton_passes.zero_kernel[(-(-mask.numel // BLOCK),)](_raw(tensor), mask.bits, mask.numel)
    torch.autograd.graph.increment_version(tensor)


def compact(entries: Tensor, old: Mask | None, new: Mask) -> Tensor:
    """As :func:`adamwprune.kernels.reference.compact`, out of place."""
    target = entries.new_empty(new.kept)
    if new.kept:
        before = new if old is None else old
        with on(entries.device):
            triton_passes.compact_kernel[(-(-new.numel // BLOCK),)](
                _raw(entries), _raw(target), before.bits, starts(before), new.bits, starts(new), new.numel, old is None
            )
    return target


def kept_square_sum(grad: Tensor, mask: Mask) -> Tensor:
    """Sum of the squares of a row-major gradient's kept entries, a float64 scalar on its device."""
    sums = torch.empty(-(-mask.numel // BLOCK), dtype=torch.float64, device=grad.device)
    if mask.numel:
        with on(grad.device):
            triton_passes.square_sum_kernel[(len(sums),)](
                grad.data_ptr(), mask.bits.data_ptr(), sums, mask.numel, KIND=KINDS[grad.dtype]
            )
    return sums.sum()


def _raw(tensor: Tensor) -> Tensor:
    """A row-major tensor's entries as integers: what is moved is not computed with."""
    return tensor.detach().reshape(-1).view(_INTEGERS[tensor.element_size()])
