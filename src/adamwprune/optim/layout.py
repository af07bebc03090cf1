# SPDX-License-Identifier: MIT
"""Where a masked tensor's state lies: one entry per weight while most are kept, one per kept weight after that.

Compacting saves little while little is masked, and the update on compact state takes longer than on dense state there.
Masks only shrink where state may be compact, so the layout follows from the mask alone.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from adamwprune import kernels
from adamwprune.kernels import formats, reference
from adamwprune.optim.slots import Slot
from adamwprune.prune.masks import Mask, whole

#: Entries of our own optimizers' state with one value per weight.
PER_WEIGHT = (*reference.MOMENTS, formats.CORRECTION)


def take_mask(slot: Slot, state: MutableMapping[str, Any], new: Mask) -> None:
    """Make ``new`` the tensor's mask, and keep of its state and movement what ``new`` keeps."""
    old = slot.mask if slot.compact else None
    slot.mask = new
    for name in PER_WEIGHT:
        if name not in state:
            continue
        if slot.compact:
            state[name] = kernels.compact(state[name], old, new)
        else:
            # Our kernels take state in the order of the mask, row-major, whatever the weight's strides.
            state[name] = state[name].contiguous()
            kernels.zero_masked(state[name], new)
    if slot.movement is None:
        return
    if slot.compact:
        slot.movement = kernels.compact(slot.movement, old, new)
    else:
        kernels.zero_masked(slot.movement, new)


def decoded(name: str, codes: Tensor, units: formats.Units, mask: Mask | None) -> Tensor:
    """Moments ``name`` in float32 of codes in the same layout, compact by ``mask`` (None: of the weight's shape)."""
    flat = codes.reshape(-1)
    out = torch.empty(flat.shape, dtype=torch.float32, device=codes.device)
    for chunk in mask.chunks() if mask is not None else whole(flat.numel(), flat.device):
        own = units.chunk(chunk.low, chunk.high)
        out[chunk.start : chunk.stop] = own(name, flat[chunk.start : chunk.stop], chunk.index)
    return out.view(codes.shape)
