# SPDX-License-Identifier: MIT
"""A tensor at a mask update, scored, cut and marked by the native kernel.

The threshold is found by sampling: a few blocks tell between which two scores it lies, one pass counts what is below
and collects what is between, and the exact rank is looked up there. Should the sample mislead, the radix selection of
:mod:`adamwprune.prune.thresholds` does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamwprune.kernels import native
from adamwprune.kernels.formats import Units
from adamwprune.prune.masks import BLOCK, Mask
from adamwprune.prune.scores import EPS, SCORES, Score
from adamwprune.prune.slices import View
from adamwprune.prune.thresholds import Cut, key_value, non_finite, order_key

#: Scores that the library knows, in the order of csrc/adamw.h.
SCORE_NAMES = ("magnitude", "hybrid", "scale-aware", "state", "fisher", "taylor", "movement")

#: Scores up to which everything is collected at once, and about as many as a sample holds.
SAMPLE = 1 << 16

#: Blocks whose scores are made at once where all are wanted.
_TOGETHER = 64

_ADDRESSES = ("weight", "grad", "exp_avg", "exp_avg_sq", "exp_avg_unit", "exp_avg_sq_unit", "movement", "bits", "base")
_TYPES = {"weight": "weight_type", "grad": "grad_type", "exp_avg": "first_type", "exp_avg_sq": "second_type"}

#: `adamw_scored` of csrc/adamw.h.
_SCORED = np.dtype(
    [
        *((name, np.uint64) for name in _ADDRESSES),
        ("numel", np.int64),
        *((name, np.int32) for name in (*_TYPES.values(), "dense_state", "score")),
        *((name, np.float32) for name in ("bias1", "bias2", "eps")),
    ],
    align=True,
)


class NativeView(View):
    """A :class:`View` whose passes run natively, for the scores that the library knows."""

    __slots__ = ()

    def scores(self, score: Score) -> Iterator[Tensor]:
        """As :meth:`View.scores`."""
        row = self._row(score)
        if row is None:
            yield from super().scores(score)
            return
        for first in range(0, self._blocks, _TOGETHER):
            out = torch.empty(_TOGETHER * BLOCK)
            last = min(first + _TOGETHER, self._blocks)
            yield out[: native.call("adamw_scores", row.ctypes.data, first, last, out.data_ptr())]

    def cut(self, score: Score, count: int) -> Cut:
        """As :meth:`View.cut`."""
        row = self._row(score)
        if row is None:
            return super().cut(score, count)
        low, high = self._bracket(row, count)
        candidates, below = self._between(row, low, high, self._kept // 8 + SAMPLE)
        if candidates is None or not below < count <= below + len(candidates):
            return super().cut(score, count)
        threshold = float(np.partition(candidates, count - below - 1)[count - below - 1])
        below += int((candidates < threshold).sum())
        key = int(order_key(torch.tensor([threshold], dtype=torch.float32)))
        return Cut(key=key, below=below, at_key=int((candidates == threshold).sum()), ties=count - below)

    def keep_above(self, cut: Cut, score: Score) -> Mask:
        """As :meth:`View.keep_above`."""
        row = self._row(score)
        if row is None:
            return super().keep_above(cut, score)
        marks = torch.zeros(-(-self.weight.numel() // 8), dtype=torch.uint8)
        threshold = key_value(cut.key) if cut.count else -math.inf
        spare = cut.at_key - cut.ties
        kept = native.call("adamw_mark", row.ctypes.data, threshold, spare, marks.data_ptr())
        return Mask(marks, self.weight.numel(), kept)

    @property
    def _blocks(self) -> int:
        return -(-self.weight.numel() // BLOCK)

    @property
    def _kept(self) -> int:
        return self.weight.numel() if self.mask is None else self.mask.kept

    def _bracket(self, row: NDArray[np.void], count: int) -> tuple[float, float]:
        """Two scores between which the ``count``-th lowest lies, most likely; infinities where there is no need."""
        if self._kept <= SAMPLE:
            return -math.inf, math.inf
        stride = max(1, self._kept // SAMPLE)
        sample, _ = self._between(row, -math.inf, math.inf, 4 * SAMPLE, stride)
        if sample is None or not np.isfinite(sample).all():
            return -math.inf, math.inf
        sample.sort()
        share = count / self._kept
        # Neighbouring weights are alike, so that a sample of blocks says less than its size: twice the usual margin.
        margin = 12 * math.sqrt(len(sample) * share * (1 - share)) + 16
        low, high = math.floor(len(sample) * share - margin), math.ceil(len(sample) * share + margin)
        return (
            float(sample[low]) if low >= 0 else -math.inf,
            float(sample[high]) if high < len(sample) else math.inf,
        )

    def _between(
        self, row: NDArray[np.void], low: float, high: float, capacity: int, stride: int = 1
    ) -> tuple[NDArray[np.float32] | None, int]:
        """Scores of every ``stride``-th block from ``low`` to ``high``, None where they are too many; and how many
        lie below. A whole pass refuses scores that are not finite."""
        out = np.empty(min(capacity, self._kept), np.float32)
        below, bad = np.zeros(1, np.int64), np.zeros(1, np.int64)
        found = native.call(
            "adamw_between", row.ctypes.data, 0, self._blocks, stride, low, high, out.ctypes.data, len(out),
            below.ctypes.data, bad.ctypes.data,
        )  # fmt: skip
        if stride == 1 and bad[0]:
            raise non_finite(int(bad[0]), self._kept)
        return (out[:found] if found <= len(out) else None), int(below[0])

    def _units(self, score: Score) -> Units | None:
        """The units of moments in codes that the score needs."""
        needed = not {"m", "v"}.isdisjoint(score.needs)
        return self.decode if needed and isinstance(self.decode, Units) else None

    def _row(self, score: Score) -> NDArray[np.void] | None:
        """The tensor's description for a score; None where the library cannot make it."""
        if score.name not in SCORE_NAMES or SCORES[score.name] is not score:
            return None
        if "g" in score.needs and self.grad_factor is not None:
            return None
        wanted = {"grad": "g", "exp_avg": "m", "exp_avg_sq": "v", "movement": "movement"}
        tensors = {"weight": self.weight, **{f: getattr(self, f) for f, need in wanted.items() if need in score.needs}}
        units = self._units(score)
        types = native.FLOATS if units is None else (*native.FLOATS, torch.int8, torch.uint8)
        if not all(isinstance(x, Tensor) and x.is_contiguous() and x.dtype in types for x in tensors.values()):
            return None
        if "movement" in tensors and self.movement is not None and self.movement.dtype != torch.float32:
            return None
        row = np.zeros((), _SCORED)
        for name, x in tensors.items():
            row[name] = x.data_ptr()
            if name in _TYPES:
                row[_TYPES[name]] = native.TYPES[x.dtype]
        for name, x in () if units is None else (("exp_avg", units.first), ("exp_avg_sq", units.second)):
            row[f"{name}_unit"] = x.data_ptr() if name in tensors else 0
        row["numel"] = self.weight.numel()
        if self.mask is not None:
            row["bits"] = self.mask.bits.data_ptr()
            row["base"] = native.starts(self.mask).data_ptr() if self.compact else 0
        row["dense_state"], row["score"] = not self.compact, SCORE_NAMES.index(score.name)
        # The reference divides by a float32 rounding of these, too.
        row["bias1"], row["bias2"], row["eps"] = 1 - self.betas[0] ** self.age, 1 - self.betas[1] ** self.age, EPS
        return row
