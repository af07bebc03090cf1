# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""Small passes over one tensor: zero what is masked, move what stays. Entries are integers of their size."""

from __future__ import annotations

import triton
import triton.language as tl

from adamwprune.kernels.triton_language import BLOCK, mask_bytes, places, ranks, spread, start


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
