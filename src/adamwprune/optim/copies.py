# SPDX-License-Identifier: MIT
"""Copies of a network that are masked as it is: averages of its weights (EMA, SWA), frozen teachers."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from adamwprune import kernels
from adamwprune.optim.slots import Slot
from adamwprune.prune.shards import local

#: What wrappers call the module inside.
_WRAPPERS = ("module", "_orig_mod")


class Copies:
    """The copies that follow a pruner's masks; one that nobody else holds is forgotten."""

    def __init__(self) -> None:
        self._modules: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()

    def add(self, copy: torch.nn.Module, slots: Iterable[Slot]) -> None:
        """Take a copy in.

        Raises:
            ValueError: no parameter of the copy has the name of a prunable tensor.
        """
        ours = [slot.name for slot in slots]
        theirs = [name for name, _ in copy.named_parameters()]
        if ours and not _pairs(ours, theirs):
            raise ValueError(
                f"no parameter of the copy ({', '.join(theirs[:3])}, ...) has the name of a prunable tensor, such as "
                f"{min(ours)!r}: pass the copy of the very module whose named_parameters() the optimizer was made with"
            )
        self._modules.add(copy)

    def mask(self, slots: Iterable[Slot]) -> None:
        """Zero the masked weights of every copy."""
        slots = list(slots)
        for copy in self._modules:
            _zero_by_name(copy.named_parameters(), slots)


def mask_once(copy: torch.nn.Module | Iterable[tuple[str, Tensor]], slots: Iterable[Slot]) -> None:
    """Zero the masked weights of a copy.

    Raises:
        ValueError: there are masks, and no name matches.
    """
    named = copy.named_parameters() if isinstance(copy, torch.nn.Module) else copy
    slots = list(slots)
    masked = [slot.name for slot in slots if slot.mask is not None]
    if not _zero_by_name(named, slots) and masked:
        raise ValueError(f"no parameter of the copy has the name of a masked tensor, such as {masked[0]!r}")


def _pairs(ours: Collection[str], theirs: Iterable[str]) -> dict[str, str]:
    """Which of our names each of a copy's names stands for.

    Wrappers (DataParallel, EMA, compile) put parts in, and a network may have a part of such a name itself. So names
    are compared as they are, then without one part in front, as long as not all of ours are found; at last without any.
    """
    theirs = list(theirs)
    for way in (lambda name: name, _unwrapped):
        found = {name: way(name) for name in theirs if way(name) in ours}
        if found and set(ours) <= set(found.values()):
            return found
    bare = {_bare(name): name for name in ours}
    return {name: bare[_bare(name)] for name in theirs if _bare(name) in bare}


def _unwrapped(name: str) -> str:
    """A parameter's name as it is inside one wrapper."""
    first, _, rest = name.partition(".")
    return rest if first in _WRAPPERS else name


def _bare(name: str) -> str:
    """A parameter's name without the parts that wrappers put in, wherever they are."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@torch.no_grad()
def _zero_by_name(named: Iterable[tuple[str, Tensor]], slots: Sequence[Slot]) -> bool:
    """Zero the masked entries of tensors; whether any has a mask."""
    masks, tensors = {slot.name: slot.mask for slot in slots}, dict(named)
    matched = False
    for name, ours in _pairs(masks, tensors).items():
        mask, tensor = masks[ours], tensors[name]
        if mask is not None:
            if local(tensor).numel() != mask.numel:
                raise ValueError(
                    f"{name} of the copy has {local(tensor).numel()} weights here, and the model's {mask.numel}: "
                    "shard the copy over ranks as the model is"
                )
            kernels.zero_masked(tensor, mask.to(tensor.device))
            matched = True
    return matched
