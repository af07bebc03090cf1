# SPDX-License-Identifier: MIT
"""Where a block's state begins: what every kernel on compact state needs beside the mask, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from adamwprune.prune.masks import BLOCK, Mask


def starts(mask: Mask) -> Tensor:
    """Compact slot of each block's first kept weight, counted the first time and kept with the mask."""
    if mask.starts is None:
        mask.starts = block_starts(mask.bits)
    return mask.starts


def block_starts(bits: Tensor) -> Tensor:
    """The same of packed bits: int64, one per :data:`~adamwprune.prune.masks.BLOCK` weights, without a host sync."""
    per_block = BLOCK // 8
    blocks = -(-bits.numel() // per_block)
    counts = torch.zeros(blocks * per_block, dtype=torch.uint8, device=bits.device)
    counts[: bits.numel()] = _ones(bits)
    sums = counts.view(blocks, per_block).sum(dim=1, dtype=torch.int64)
    return sums.cumsum(0) - sums


def _ones(bits: Tensor) -> Tensor:
    """How many bits of each byte are set."""
    pairs = bits - ((bits >> 1) & 0x55)
    nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (nibbles + (nibbles >> 4)) & 0x0F
