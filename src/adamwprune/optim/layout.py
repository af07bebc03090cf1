# SPDX-License-Identifier: MIT
"""Where a masked tensor's state lies: one entry per weight while most are kept, one per kept weight after that.

Compacting saves little while little is masked, and the update on compact state takes longer than on dense state there.
The first compaction of a tensor is the dearest part of a mask update, because it writes to fresh memory, so a large
network turns compact over several updates. No result depends on the layout.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adamwprune import kernels
from adamwprune.kernels import formats, reference
from adamwprune.optim.slots import Slot
from adamwprune.prune.masks import Mask, whole

#: Entries of our own optimizers' state with one value per weight.
PER_WEIGHT = (*reference.MOMENTS, formats.CORRECTION)


#: Weights that may turn compact in one mask update: a share of the network's, and as many in any case.
PACKED_SHARE, PACKED_ANYWAY = 0.25, 1 << 22


def take_mask(slot: Slot, state: MutableMapping[str, Any], new: Mask) -> None:
    """Make ``new`` the tensor's mask, and keep of its state and movement what ``new`` keeps; the layout stays."""
    old, slot.mask = slot.mask, new
    if slot.compact:
        _compact(slot, state, old)
        return
    for name in PER_WEIGHT:
        if name in state:
            # Our kernels take state in the order of the mask, row-major, whatever the weight's strides.
            state[name] = state[name].contiguous()
            kernels.zero_masked(state[name], new)
    if slot.movement is not None:
        kernels.zero_masked(slot.movement, new)


def fit(slot: Slot, state: MutableMapping[str, Any]) -> None:
    """Bring new, dense state into the layout that a masked tensor has already."""
    assert slot.mask is not None
    for name in PER_WEIGHT:
        if name in state:
            state[name] = kernels.compact(state[name], None, slot.mask) if slot.compact else state[name].contiguous()


def pack(slot: Slot, state: MutableMapping[str, Any]) -> None:
    """Store a masked tensor's dense state and movement for kept weights only."""
    slot.compact = True
    _compact(slot, state, None)


def _compact(slot: Slot, state: MutableMapping[str, Any], old: Mask | None) -> None:
    """Keep what the mask keeps of entries that are compact by ``old`` (None: dense)."""
    assert slot.mask is not None
    for name in PER_WEIGHT:
        if name in state:
            state[name] = kernels.compact(state[name], old, slot.mask)
    if slot.movement is not None:
        slot.movement = kernels.compact(slot.movement, old, slot.mask)


def next_to_pack(slots: Sequence[Slot], *, last: bool = False) -> Iterator[Slot]:
    """Tensors that turn compact at this mask update: the first of those waiting that the limit has room for.

    The ``last`` update has no limit.
    """
    masked = [slot.mask.numel for slot in slots if slot.mask is not None]
    limit = sum(masked) if last else max(PACKED_ANYWAY, int(PACKED_SHARE * sum(masked)))
    packed = 0
    for slot in slots:
        if slot.packable and slot.mask is not None and (not packed or packed + slot.mask.numel <= limit):
            packed += slot.mask.numel
            yield slot


def decoded(name: str, codes: Tensor, units: formats.Units, mask: Mask | None) -> Tensor:
    """Moments ``name`` in float32 of codes in the same layout, compact by ``mask`` (None: of the weight's shape)."""
    flat = codes.reshape(-1)
    out = torch.empty(flat.shape, dtype=torch.float32, device=codes.device)
    for chunk in mask.chunks() if mask is not None else whole(flat.numel(), flat.device):
        own = units.chunk(chunk.low, chunk.high)
        out[chunk.start : chunk.stop] = own(name, flat[chunk.start : chunk.stop], chunk.index)
    return out.view(codes.shape)
