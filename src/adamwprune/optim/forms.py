# SPDX-License-Identifier: MIT
"""Forms in which our optimizers keep state, from the first step on: smaller ones lower the peak of a run, too.

``float32`` under weights of any type; ``bfloat16``, the first moment only, because the second one changes by less than
bfloat16 can tell; ``8bit`` codes (:mod:`adamwprune.kernels.formats`). A correction gives bfloat16 weights the bits that
small updates need. Vectors and small tensors keep float32 moments, as in other 8-bit optimizers: norms and biases are
sensitive, and there is nothing to save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adamwprune.kernels import formats, reference
from adamwprune.prune.masks import whole
from adamwprune.prune.shards import like, local, shard

FORMS = ("float32", "bfloat16", "8bit")

#: Tensors of fewer weights keep float32 moments.
SMALL = 4096


@dataclass(frozen=True, slots=True)
class Form:
    """What ``state=`` and ``correction=`` ask for."""

    state: str | None = None
    correction: bool = False

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in FORMS:
            raise ValueError(f"state={self.state!r}: expected None (as torch) or one of {', '.join(FORMS)}")

    @property
    def is_torchs(self) -> bool:
        """Whether state is all as torch makes it."""
        return self.state is None and not self.correction

    def check_group(self, group: Mapping[str, Any]) -> None:
        """ValueError where a parameter group cannot have state in this form."""
        if self.is_torchs:
            return
        if group["differentiable"]:
            raise ValueError(f"{self}: differentiable=True needs torch's own state (state=None, correction=False)")
        if self.state == "8bit" and group["amsgrad"]:
            raise ValueError(
                "state='8bit' does not go with amsgrad=True: a running maximum of rounded values only grows; use "
                "state='bfloat16' or 'float32'"
            )
        for p in group["params"]:
            if p.is_complex() or (p.dtype == torch.float64 and self.state in ("bfloat16", "8bit")):
                raise ValueError(
                    f"{self} is for real weights of at most 32 bits, and one of shape {list(p.shape)} is {p.dtype}: "
                    "use state=None and correction=False"
                )
            if self.covers(p):
                shard(p)  # refuses what is spread in another way than by rows

    def check_weights(self, params: Iterable[Tensor]) -> None:
        """ValueError where ``correction`` has nothing to correct."""
        if self.correction and not any(map(self._corrects, params)):
            raise ValueError("correction=True is for bfloat16 weights, and there are none: leave it out")

    def _corrects(self, p: Tensor) -> bool:
        return self.correction and p.dtype == torch.bfloat16

    def covers(self, p: Tensor) -> bool:
        """Whether the tensor's state differs from what torch would make."""
        if self.is_torchs or not p.is_floating_point():
            return False
        return self._corrects(p) or (self.state is not None and self._types(p) != (p.dtype, p.dtype))

    def _types(self, p: Tensor) -> tuple[torch.dtype, torch.dtype]:
        """Types of the tensor's first and second moments."""
        if self.state is None and not self._corrects(p):
            return p.dtype, p.dtype
        wide = torch.promote_types(p.dtype, torch.float32)
        if self.state in (None, "float32") or p.dim() < 2 or p.numel() < SMALL:
            return wide, wide
        return (torch.int8, torch.uint8) if self.state == "8bit" else (torch.bfloat16, torch.float32)

    def create(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """A covered tensor's state before its first step, spread over ranks as the tensor is.

        Groups of codes are counted from the first weight that is here, and their units are this rank's own.
        """
        here, (first, second) = local(p), self._types(p)
        state = {"step": torch.zeros((), device=p.device if group["capturable"] or group["fused"] else "cpu")}
        for name, dtype in (("exp_avg", first), ("exp_avg_sq", second), ("max_exp_avg_sq", second)):
            if name != "max_exp_avg_sq" or group["amsgrad"]:
                state[name] = like(torch.zeros(here.shape, dtype=dtype, device=p.device), p)
        if first == torch.int8:
            for name in formats.UNITS.values():
                state[name] = torch.zeros(-(-here.numel() // formats.GROUP), device=p.device)
        if self._corrects(p):
            state[formats.CORRECTION] = like(torch.zeros(here.shape, dtype=torch.int8, device=p.device), p)
        return state

    def load(self, saved: Mapping[str, Any], p: Tensor) -> dict[str, Tensor]:
        """A covered tensor's state out of a checkpoint's dense float moments, whatever form they were saved from."""
        first, second = self._types(p)
        state = {}
        for name in reference.MOMENTS:
            if name not in saved:
                continue
            moment = local(saved[name]).to(p.device)
            if first == torch.int8:
                moment, state[formats.UNITS[name]] = _coded(name, moment, _units(saved, name))
            else:
                dtype = first if name == "exp_avg" else second
                moment = moment.to(dtype, copy=True).contiguous()
            state[name] = like(moment, p)
        if self._corrects(p):
            correction = saved.get(formats.CORRECTION)
            zeros = torch.zeros(local(p).shape, dtype=torch.int8)
            here = zeros if correction is None else local(correction)
            state[formats.CORRECTION] = like(here.to(p.device, copy=True).contiguous(), p)
        return state


def spread_units(units: Tensor, p: Tensor) -> Tensor:
    """A tensor's units as a checkpoint holds them: some to a row, so that they can be spread over ranks as it is.

    Rows of a whole number of groups hold their own. Others hold the units of all groups here in order, filled up with
    zeros: they are of use where rows are spread as they were, and elsewhere recognised as not fitting.
    """
    here = local(p)
    rows = here.shape[0]
    table = torch.zeros(rows * _units_to_a_row(p), device=units.device)
    table[: units.numel()] = units
    return like(table.view(rows, _units_to_a_row(p)), p, (p.shape[0], _units_to_a_row(p)))


def _units_to_a_row(p: Tensor) -> int:
    return -(-math.prod(p.shape[1:]) // formats.GROUP)


def _units(saved: Mapping[str, Any], name: str) -> Tensor | None:
    """What a checkpoint has of a moment's units on this rank, in order."""
    units = saved.get(formats.UNITS[name])
    return None if units is None else local(units).reshape(-1)


def _coded(name: str, moment: Tensor, units: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes and units of a dense moment.

    Those it was saved from, where the saved ``units`` give exactly the same values; so saving and loading drift by
    nothing. Else (it comes from float32, or was trained on elsewhere) everything is rounded to the nearest.
    """
    flat = moment.reshape(-1).float()
    codes = torch.empty(flat.shape, dtype=formats.CODES[name], device=flat.device)
    groups = -(-flat.numel() // formats.GROUP)
    fresh = torch.empty(groups, device=flat.device)
    enough = units is not None and units.numel() >= groups
    saved = units[:groups].to(flat.device, torch.float32) if units is not None and enough else None
    coder, decoder = (
        (formats.code_first, formats.decode_first)
        if name == "exp_avg"
        else (formats.code_second, formats.decode_second)
    )
    for chunk in whole(flat.numel(), flat.device):
        values, group = flat[chunk.low : chunk.high], chunk.index // formats.GROUP
        own = slice(chunk.low // formats.GROUP, -(-chunk.high // formats.GROUP))
        if saved is not None:
            found = coder(values, saved[own], group, None)
            if torch.equal(decoder(found, saved[own], group), values):
                codes[chunk.low : chunk.high], fresh[own] = found, saved[own]
                continue
        codes[chunk.low : chunk.high] = formats.encode(name, values, chunk.index, fresh[own], None)
    return codes.view(moment.shape), fresh
