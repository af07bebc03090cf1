# SPDX-License-Identifier: MIT
"""Copies of a network that are masked as it is: averages of its weights (EMA, SWA), frozen teachers."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from adamwprune import kernels
from adamwprune.optim.slots import Slot
from adamwprune.prune.masks import Mask
from adamwprune.prune.shards import local


class Copies:
    """The copies that follow a pruner's masks; one that nobody else holds is forgotten."""

    def __init__(self) -> None:
        self._modules: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()

    def add(self, copy: torch.nn.Module, slots: Iterable[Slot]) -> None:
        """Take a copy in.

        Raises:
            ValueError: no parameter of the copy has the name of a prunable tensor.
        """
        ours = {_bare(slot.name) for slot in slots}
        theirs = [name for name, _ in copy.named_parameters()]
        if ours and ours.isdisjoint(map(_bare, theirs)):
            raise ValueError(
                f"no parameter of the copy ({', '.join(theirs[:3])}, ...) has the name of a prunable tensor, such as "
                f"{min(ours)!r}: pass the copy of the very module whose named_parameters() the optimizer was made with"
            )
        self._modules.add(copy)

    def mask(self, slots: Iterable[Slot]) -> None:
        """Zero the masked weights of every copy."""
        masks = _by_bare_name(slots) if self._modules else {}
        for copy in self._modules:
            _zero_by_name(copy.named_parameters(), masks)


def mask_once(copy: torch.nn.Module | Iterable[tuple[str, Tensor]], slots: Iterable[Slot]) -> None:
    """Zero the masked weights of a copy.

    Raises:
        ValueError: there are masks, and no name matches.
    """
    named = copy.named_parameters() if isinstance(copy, torch.nn.Module) else copy
    masks = _by_bare_name(slots)
    if masks and not _zero_by_name(named, masks):
        raise ValueError(f"no parameter of the copy has the name of a masked tensor, such as {next(iter(masks))!r}")


def _by_bare_name(slots: Iterable[Slot]) -> dict[str, Mask]:
    return {_bare(slot.name): slot.mask for slot in slots if slot.mask is not None}


def _bare(name: str) -> str:
    """A parameter's name without the parts that wrappers (DataParallel, EMA, compile) put in."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


@torch.no_grad()
def _zero_by_name(named: Iterable[tuple[str, Tensor]], masks: Mapping[str, Mask]) -> bool:
    """Zero the masked entries of tensors; whether any name matched."""
    matched = False
    for name, tensor in named:
        mask = masks.get(_bare(name))
        if mask is not None:
            if local(tensor).numel() != mask.numel:
                raise ValueError(
                    f"{name} of the copy has {local(tensor).numel()} weights here, and the model's {mask.numel}: "
                    "shard the copy over ranks as the model is"
                )
            kernels.zero_masked(tensor, mask.to(tensor.device))
            matched = True
    return matched
