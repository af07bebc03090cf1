# SPDX-License-Identifier: MIT
"""A tensor at a mask update, scored, cut and marked by the native kernel.

One pass over a tensor finds its threshold and marks what stays (csrc/cut.c), led by a sample. Should that mislead,
the radix selection of :mod:`adamwprune.prune.thresholds` does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamwprune.kernels import native
from adamwprune.kernels.formats import Units
from adamwprune.kernels.known import FLOATS, SCORE_NAMES, knows_score
from adamwprune.prune.masks import BLOCK, Mask
from adamwprune.prune.scores import EPS, Score
from adamwprune.prune.slices import View
from adamwprune.prune.thresholds import NOTHING_BELOW, Cut, non_finite, order_key

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

#: `adamw_found` of csrc/adamw.h.
_FOUND = np.dtype(
    [("threshold", np.float32), *((name, np.int64) for name in ("below", "at", "bad", "kept"))], align=True
)


@dataclass(frozen=True, slots=True)
class MarkedCut(Cut):
    """A cut with the mask that it leaves: the pass that finds the one makes the other."""

    mask: Mask = field(kw_only=True)


class _Room:
    """What a cut needs for itself; memory that is not used is not taken from the system."""

    def __init__(self, view: NativeView) -> None:
        self.scores = np.empty(native.cut_room(view.kept), np.float32)
        self.open = np.empty(-(-view.weight.numel() // 8), np.uint8)

    def fits(self, view: NativeView) -> bool:
        """Whether another tensor finds room."""
        return len(self.scores) >= native.cut_room(view.kept) and len(self.open) * 8 >= view.weight.numel()


class NativeView(View):
    """A :class:`View` whose passes run natively, for the scores that the library knows."""

    __slots__ = ()

    def scores(self, score: Score) -> Iterator[Tensor]:
        """As :meth:`View.scores`."""
        row = self._row(score)
        if row is None:
            yield from super().scores(score)
            return
        for first in range(0, self.blocks, _TOGETHER):
            out = torch.empty(_TOGETHER * BLOCK)
            last = min(first + _TOGETHER, self.blocks)
            yield out[: native.call("adamw_scores", row.ctypes.data, first, last, out.data_ptr())]

    def cut(self, score: Score, count: int) -> Cut:
        """As :meth:`View.cut`."""
        row = self._row(score)
        return super().cut(score, count) if row is None else self._cut(row, score, count, _Room(self))

    @staticmethod
    def cuts(views: Sequence[View], score: Score, counts: Sequence[int]) -> list[Cut]:
        """As :meth:`View.cuts`, tensor by tensor on several threads; the pass that finds a cut marks what stays."""
        ours = [(i, view) for i, view in enumerate(views) if isinstance(view, NativeView)]
        ours.sort(key=lambda each: -each[1].weight.numel())
        found: dict[int, Cut] = {}
        rooms: list[_Room] = []

        def find(i: int, view: NativeView) -> None:
            view = view._row_major(score)
            row = view._row(score)
            if row is None:
                found[i] = view.cut(score, counts[i])
                return
            # A thread meets its largest tensor first, and goes on with that one's room.
            room = rooms.pop() if rooms else None
            if room is None or not room.fits(view):
                room = _Room(view)
            marks = torch.empty(-(-view.weight.numel() // 8), dtype=torch.uint8)
            found[i] = view._cut(row, score, counts[i], room, marks)
            rooms.append(room)

        native.each_in_threads([partial(find, *each) for each in ours])
        return [found[i] for i in range(len(views))]

    @staticmethod
    def cut_through(views: Sequence[View], score: Score, count: int) -> Cut:
        """One cut below which ``count`` scores of all tensors lie."""
        ours = [view for view in views if isinstance(view, NativeView)]
        rows = [view._row(score) for view in ours]
        known = [row for row in rows if row is not None]
        kept = sum(view.kept for view in ours)
        if len(known) < len(views):
            return View.cut_through(views, score, count)
        cut = _cut(known, kept, count, np.empty(native.cut_room(kept), np.float32))
        return cut or View.cut_through(views, score, count)

    def _cut(self, row: NDArray[np.void], score: Score, count: int, room: _Room, marks: Tensor | None = None) -> Cut:
        """The cut, with the mask where there are bytes for its ``marks``."""
        cut = _cut([row], self.kept, count, room.scores, room.open, marks, self.weight.numel())
        return cut or super().cut(score, count)

    def keep_above(self, cut: Cut, score: Score) -> Mask:
        """As :meth:`View.keep_above`."""
        if isinstance(cut, MarkedCut):
            return cut.mask
        row = self._row(score)
        if row is None:
            return super().keep_above(cut, score)
        marks = torch.zeros(-(-self.weight.numel() // 8), dtype=torch.uint8)
        kept = native.call("adamw_mark", row.ctypes.data, cut.threshold, cut.spare, marks.data_ptr())
        return Mask(marks, self.weight.numel(), kept)

    def _row_major(self, score: Score) -> NativeView:
        """With copies of what the score needs and lies otherwise in memory, as in ``torch.channels_last``."""

        def copied(x: Tensor | None, need: str) -> Tensor | None:
            return x.detach().contiguous() if x is not None and need in score.needs else x

        return replace(
            self,
            weight=self.weight.detach().contiguous(),
            grad=copied(self.grad, "g"),
            exp_avg=copied(self.exp_avg, "m"),
            exp_avg_sq=copied(self.exp_avg_sq, "v"),
        )

    def _units(self, score: Score) -> Units | None:
        """The units of moments in codes that the score needs."""
        needed = not {"m", "v"}.isdisjoint(score.needs)
        return self.decode if needed and isinstance(self.decode, Units) else None

    def _row(self, score: Score) -> NDArray[np.void] | None:
        """The tensor's description for a score; None where the library cannot make it."""
        if not knows_score(score):
            return None
        if "g" in score.needs and self.grad_factor is not None:
            return None
        wanted = {"grad": "g", "exp_avg": "m", "exp_avg_sq": "v", "movement": "movement"}
        tensors = {"weight": self.weight, **{f: getattr(self, f) for f, need in wanted.items() if need in score.needs}}
        units = self._units(score)
        types = FLOATS if units is None else (*FLOATS, torch.int8, torch.uint8)
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


def _cut(
    rows: Sequence[NDArray[np.void]],
    kept: int,
    count: int,
    scores: NDArray[np.float32],
    opened: NDArray[np.uint8] | None = None,
    marks: Tensor | None = None,
    numel: int = 0,
) -> Cut | None:
    """The cut through the tensors that ``rows`` describe; None where the sample misled.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    table, found = np.array(rows, _SCORED), np.zeros(len(rows), _FOUND)
    misled = native.call(
        "adamw_cut", table.ctypes.data, len(rows), kept, count, scores.ctypes.data, found.ctypes.data,
        0 if opened is None else opened.ctypes.data, 0 if marks is None else marks.data_ptr(),
    )  # fmt: skip
    bad, below, at = (int(found[name].sum()) for name in ("bad", "below", "at"))
    if bad:
        raise non_finite(bad, kept)
    if misled:
        return None
    key = int(order_key(torch.tensor([float(found[0]["threshold"])]))) if count else NOTHING_BELOW.key
    if marks is None:
        parts = zip(found["below"].tolist(), found["at"].tolist(), strict=True)
        return Cut(key, below, at, count - below, tuple(parts))
    return MarkedCut(key, below, at, count - below, mask=Mask(marks, numel, int(found[0]["kept"])))
