# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""Small passes over one tensor: zero what is masked, move what stays, sum squares of what is kept."""

from __future__ import annotations

import triton
import triton.language as tl

from adamwprune.kernels.triton_language import BLOCK, load, mask_bytes, places, ranks, spread, start


@triton.jit
def zero_kernel(tensor, bits, numel):
    """Write zeros where the mask says so; nothing is read but the mask."""
    block = tl.program_id(0).to(tl.int64)
    place = places()
    gone = ~spread(mask_bytes(bits, block, numel)) & (block * BLOCK + place < numel)
    zero = tl.zeros(place.shape, tensor.dtype.element_ty)
    tl.store(tensor + block * BLOCK + place, zero, mask=gone)


@triton.jit
def compact_kernel(entries, target, old_bits, old_starts, bits, starts, numel, ALL: tl.constexpr):
    """Copy the entries that ``bits`` keeps from their old slots (ALL: their places) to their new ones."""
    block = tl.program_id(0).to(tl.int64)
    after = mask_bytes(bits, block, numel)
    stays = spread(after)
    if ALL:
        origin, slot = block * BLOCK, places()
    else:
        origin, slot = start(old_starts, block), ranks(mask_bytes(old_bits, block, numel))
    entry = tl.load(entries + origin + slot, mask=stays, other=0)
    tl.store(target + start(starts, block) + ranks(after), entry, mask=stays)


@triton.jit
def square_sum_kernel(gradient, bits, sums, numel, KIND: tl.constexpr):
    """Sum of the squares of each block's kept entries, in float64. ``gradient`` and ``bits`` are addresses."""
    block = tl.program_id(0).to(tl.int64)
    live = spread(mask_bytes(bits, block, numel))
    g = load(gradient, block * BLOCK, places(), live, False, KIND, False).to(tl.float64)
    tl.store(sums + block, tl.sum(tl.sum(g * g, axis=1), axis=0))
