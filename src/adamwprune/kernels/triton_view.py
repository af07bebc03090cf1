# SPDX-License-Identifier: MIT
"""Tensors at a mask update on a GPU: ranked together by radix selection, with one synchronisation, and marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamwprune.kernels import triton_language as language
from adamwprune.kernels import triton_select
from adamwprune.kernels.formats import UNITS, Units
from adamwprune.kernels.known import FLOATS, SCORE_NAMES, knows_score
from adamwprune.kernels.layout import starts
from adamwprune.kernels.triton_step import KINDS, on, upload
from adamwprune.prune.masks import Mask
from adamwprune.prune.scores import EPS, Score
from adamwprune.prune.slices import View
from adamwprune.prune.thresholds import NOTHING_BELOW, Cut, non_finite

#: Bits of a score's key that each pass counts, the highest first.
DIGITS = (11, 11, 10)

#: Blocks to a program of a counting pass: its histogram is added to the others' once.
BLOCKS_EACH = 16

_SLICES = {"w": "weight", "g": "grad", "m": "exp_avg", "v": "exp_avg_sq", "movement": "movement"}

#: Compile-time constants of one specialisation.
Constants = dict[str, int]


class TritonView(View):
    """A :class:`View` whose passes are Triton's, for the scores that they know."""

    __slots__ = ()

    def scores(self, score: Score) -> Iterator[Tensor]:
        """As :meth:`View.scores`, a whole tensor at once."""
        if self._constants(score) is None:
            yield from super().scores(score)
        else:
            yield self._written(score, packed=True)

    def dense_scores(self, score: Score) -> Tensor:
        """As :meth:`View.dense_scores`."""
        if self._constants(score) is None:
            return super().dense_scores(score)
        return self._written(score, packed=False).view(self.weight.shape)

    def cut(self, score: Score, count: int) -> Cut:
        """As :meth:`View.cut`."""
        return self.cuts([self], score, [count])[0]

    @staticmethod
    def cuts(views: Sequence[View], score: Score, counts: Sequence[int]) -> list[Cut]:
        """As :meth:`View.cuts`, with one synchronisation for all tensors that one specialisation scores."""
        result: dict[int, Cut] = {}
        alike: dict[tuple[Any, ...], list[int]] = {}
        for i, view in enumerate(views):
            constants = view._constants(score) if isinstance(view, TritonView) else None
            if constants is None or not view.weight.numel():
                result[i] = View.cut(view, score, counts[i])
            else:
                alike.setdefault((view.weight.device, *constants.items()), []).append(i)
        for (device, *kind), members in alike.items():
            with on(device):
                found = _select([views[i] for i in members], [counts[i] for i in members], dict(kind))
            result |= zip(members, found, strict=True)
        return [result[i] for i in range(len(views))]

    def keep_above(self, cut: Cut, score: Score) -> Mask:
        """As :meth:`View.keep_above`."""
        constants = self._constants(score)
        if constants is None:
            return super().keep_above(cut, score)
        numel, device = self.weight.numel(), self.weight.device
        marks = torch.empty(-(-numel // 8), dtype=torch.uint8, device=device)
        if not numel:
            return Mask(marks, 0, 0)
        with on(device):
            table, numbers = self._tables()
            above, equal = torch.empty(2, self.blocks, dtype=torch.int32, device=device)
            grid = (self.blocks,)
            options: Any = {**constants, "enable_fp_fusion": False}
            triton_select.count_kernel[grid](table, numbers, above, equal, cut.threshold, **options)
            before = equal.cumsum(0) - equal
            kept = above + torch.minimum((cut.spare - before).clamp_(min=0), equal)
            triton_select.mark_kernel[grid](table, numbers, before, marks, cut.threshold, cut.spare, **options)
        return Mask(marks, numel, self.kept - cut.count, kept.cumsum(0) - kept)

    def _written(self, score: Score, *, packed: bool) -> Tensor:
        """Scores of the kept weights (``packed``), or of all, as a flat tensor."""
        constants = self._constants(score)
        assert constants is not None
        size = self.kept if packed else self.weight.numel()
        out = torch.empty(size, dtype=torch.float32, device=self.weight.device)
        if size:
            with on(self.weight.device):
                triton_select.scores_kernel[(self.blocks,)](
                    *self._tables(), out, PACKED=packed, **constants, enable_fp_fusion=False
                )
        return out

    def _tables(self) -> tuple[Tensor, Tensor]:
        return tables([self], [0])

    def _constants(self, score: Score) -> Constants | None:
        """Which specialisation makes the tensor's scores; None where none can."""
        if not knows_score(score):
            return None
        needed = [getattr(self, _SLICES[name]) for name in sorted(score.needs | {"w"})]
        types = FLOATS if self.decode is None else KINDS
        if not all(isinstance(x, Tensor) and x.is_contiguous() and x.dtype in types for x in needed):
            return None
        if not (self.decode is None or isinstance(self.decode, Units)):
            return None
        if "g" in score.needs and self.grad is not None and self.grad.dtype != self.weight.dtype:
            return None
        if "g" in score.needs and self.grad_factor is not None and self.grad_factor.dtype != torch.float32:
            return None
        if "movement" in score.needs and self.movement is not None and self.movement.dtype != torch.float32:
            return None
        layout = language.COMPACT if self.compact else language.DENSE
        if self.mask is None:
            layout = language.WHOLE
        return {
            "SCORE": SCORE_NAMES.index(score.name),
            "LAYOUT": layout.value,
            "WEIGHT": KINDS[self.weight.dtype],
            "FIRST": KINDS[self.exp_avg.dtype] if "m" in score.needs and self.exp_avg is not None else 0,
            "SECOND": KINDS[self.exp_avg_sq.dtype] if "v" in score.needs and self.exp_avg_sq is not None else 0,
        }

    def row(self) -> list[int]:
        """The tensor's addresses, in the order of the kernels' columns, and its size."""
        there = {name: x.data_ptr() for name in _SLICES.values() if (x := getattr(self, name)) is not None}
        if self.grad_factor is not None:
            there["grad_factor"] = self.grad_factor.data_ptr()
        if isinstance(self.decode, Units):
            units = (self.decode.first, self.decode.second)
            there |= {name: x.data_ptr() for name, x in zip(UNITS.values(), units, strict=True)}
        if self.mask is not None:
            there |= {"bits": self.mask.bits.data_ptr(), "starts": starts(self.mask).data_ptr()}
        return [*(there.get(name, 0) for name in triton_select.ADDRESSES), self.weight.numel()]

    def numbers(self) -> list[float]:
        """The tensor's row of the table of numbers."""
        # The reference divides by a float32 rounding of these, too.
        return [1 - self.betas[0] ** self.age, 1 - self.betas[1] ** self.age, EPS]


def tables(views: Sequence[TritonView], first_programs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The kernels' tables of these tensors, on their device."""
    device = views[0].weight.device
    addresses = np.array([[*view.row(), first] for view, first in zip(views, first_programs, strict=True)], np.int64)
    numbers = np.array([view.numbers() for view in views], np.float32)
    return upload(addresses, device), upload(numbers, device)


def _select(views: Sequence[Any], counts: Sequence[int], constants: Constants) -> list[Cut]:
    """The cuts of tensors that one specialisation scores."""
    device = views[0].weight.device
    programs = np.array([-(-view.blocks // BLOCKS_EACH) for view in views])
    owner = upload(np.repeat(np.arange(len(views), dtype=np.int32), programs), device)
    table, numbers = tables(views, (np.cumsum(programs) - programs).tolist())
    start = np.zeros((len(views), triton_select.SELECTION.value), np.int32)
    start[:, 1] = counts
    selection = upload(start, device)
    shift = sum(DIGITS)
    for digit, bits in enumerate(DIGITS):
        shift -= bits
        bins = 1 << bits
        histogram = torch.zeros(len(views), bins, dtype=torch.int32, device=device)
        triton_select.histogram_kernel[(len(owner),)](
            owner, table, numbers, selection, histogram, BLOCKS_EACH,
            SHIFT=shift, BINS=bins, FINITE=digit == 0, **constants, enable_fp_fusion=False,
        )  # fmt: skip
        triton_select.pick_kernel[(len(views),)](selection, histogram, BINS=bins)
    found = selection.cpu().tolist()
    return [_cut(view, count, *row) for view, count, row in zip(views, counts, found, strict=True)]


def _cut(view: TritonView, count: int, key: int, ties: int, below: int, at_key: int, bad: int) -> Cut:
    """A row of the table of selections as a cut."""
    if bad:
        raise non_finite(bad, view.kept)
    if not 0 <= count <= view.kept:
        raise AssertionError(f"cannot take {count} of {view.kept} scores")
    if count == 0:
        return NOTHING_BELOW
    return Cut(key=(key & 0xFFFFFFFF) - (1 << 31), below=below, at_key=at_key, ties=ties)
