# SPDX-License-Identifier: MIT
"""Forms in which our optimizers keep state, from the first step on: smaller ones lower the peak of a run, too.

``float32`` under weights of any type; ``bfloat16``, the first moment only, because the second one changes by less than
bfloat16 can tell; ``8bit`` codes (:mod:`adamwprune.kernels.formats`). A correction gives bfloat16 weights the bits that
small updates need. Vectors and small tensors keep float32 moments, as in other 8-bit optimizers: norms and biases are
sensitive, and there is nothing to save.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adamwprune.kernels import formats, reference
from adamwprune.prune.masks import whole
from adamwprune.prune.shards import local

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
            if local(p) is not p:
                raise ValueError(f"{self} is for tensors that are whole on their rank, not for {type(p).__name__}")

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
        """A covered tensor's state before its first step."""
        first, second = self._types(p)
        state = {"step": torch.zeros((), device=p.device if group["capturable"] or group["fused"] else "cpu")}
        for name, dtype in (("exp_avg", first), ("exp_avg_sq", second), ("max_exp_avg_sq", second)):
            if name != "max_exp_avg_sq" or group["amsgrad"]:
                state[name] = torch.zeros(p.shape, dtype=dtype, device=p.device)
        if first == torch.int8:
            for name in formats.UNITS.values():
                state[name] = torch.zeros(-(-p.numel() // formats.GROUP), device=p.device)
        if self._corrects(p):
            state[formats.CORRECTION] = torch.zeros(p.shape, dtype=torch.int8, device=p.device)
        return state

    def load(self, saved: Mapping[str, Any], p: Tensor) -> dict[str, Tensor]:
        """A covered tensor's state out of a checkpoint's dense float moments, whatever form they were saved from."""
        first, second = self._types(p)
        state = {}
        for name in reference.MOMENTS:
            if name not in saved:
                continue
            moment = saved[name].to(p.device)
            if first == torch.int8:
                state[name], state[formats.UNITS[name]] = _coded(name, moment, saved.get(formats.UNITS[name]))
            else:
                dtype = first if name == "exp_avg" else second
                state[name] = moment.to(dtype, copy=True).contiguous()
        if self._corrects(p):
            correction = saved.get(formats.CORRECTION, torch.zeros(p.shape, dtype=torch.int8))
            state[formats.CORRECTION] = correction.to(p.device, copy=True).contiguous()
        return state


def _coded(name: str, moment: Tensor, units: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes and units of a dense moment.

    Those it was saved from, where the saved ``units`` give exactly the same values; so saving and loading drift by
    nothing. Else (it comes from float32, or was trained on elsewhere) everything is rounded to the nearest.
    """
    flat = moment.reshape(-1).float()
    codes = torch.empty(flat.shape, dtype=formats.CODES[name], device=flat.device)
    groups = -(-flat.numel() // formats.GROUP)
    fresh = torch.empty(groups, device=flat.device)
    saved = units.to(flat.device, torch.float32) if units is not None and units.shape == (groups,) else None
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
