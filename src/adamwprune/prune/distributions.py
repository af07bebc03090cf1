# SPDX-License-Identifier: MIT
"""Who gives how much: from one sparsity for the network to the number of masked weights of each tensor.

``layer`` and ``erk`` look at shapes alone. ``global`` and budgets by a score's name look at the scores of all tensors
together; :func:`by_cut` does that part for any score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adamwprune.prune.ranks import Ranks, lowest_among
from adamwprune.prune.thresholds import Cut, lowest, order_key


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a distribution may ask of one tensor: at least ``masked`` (already removed), at most ``limit`` weights."""

    shape: tuple[int, ...]
    masked: int
    limit: int

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def rounded(sparsity: float, numel: int) -> int:
    """``floor(sparsity * numel + 1/2)``: how many of ``numel`` weights a sparsity masks."""
    return math.floor(sparsity * numel + 0.5)


def layer(tensors: Sequence[Bounds], sparsity: float) -> list[int]:
    """The same sparsity in each tensor."""
    return [min(max(rounded(sparsity, t.numel), t.masked), t.limit) for t in tensors]


def erk(tensors: Sequence[Bounds], sparsity: float) -> list[int]:
    """Erdős-Rényi-Kernel: density proportional to (sum of dimensions) / (product of dimensions).

    (Mocanu et al. 2018, arXiv 1707.04780; Evci et al. 2020, arXiv 1911.11134.) Tensors that would have to be more than
    dense are dense, and the others share what remains.
    """
    total = sum(t.numel for t in tensors)
    kept = float(total - rounded(sparsity, total))
    ratio = [sum(t.shape) / t.numel for t in tensors]
    dense: set[int] = set()
    while True:
        sparse = [i for i in range(len(tensors)) if i not in dense]
        weight = sum(ratio[i] * tensors[i].numel for i in sparse)
        scale = (kept - sum(tensors[i].numel for i in dense)) / weight if weight else 0.0
        crowded = {i for i in sparse if ratio[i] * scale > 1.0}
        if not crowded:
            break
        dense |= crowded
    ideal = [0.0 if i in dense else (1.0 - ratio[i] * scale) * t.numel for i, t in enumerate(tensors)]
    return apportion(ideal, rounded(sparsity, total), tensors)


def apportion(ideal: Sequence[float], total: int, tensors: Sequence[Bounds]) -> list[int]:
    """Whole numbers near ``ideal`` that sum to ``total`` (largest remainders) and respect each tensor's bounds.

    Where bounds move a tensor off its ideal, the difference is shared out in proportion to the room that others have.
    """
    low, high = sum(t.masked for t in tensors), sum(t.limit for t in tensors)
    total = min(max(total, low), high)
    share = [min(max(x, float(t.masked)), float(t.limit)) for x, t in zip(ideal, tensors, strict=True)]
    gap = total - sum(share)
    room = [t.limit - x if gap > 0 else x - t.masked for x, t in zip(share, tensors, strict=True)]
    if sum(room) > 0:
        share = [x + gap * r / sum(room) for x, r in zip(share, room, strict=True)]
    counts = [math.floor(x + 1e-9) for x in share]
    by_remainder = sorted(range(len(share)), key=lambda i: (counts[i] - share[i], i))
    while (missing := total - sum(counts)) > 0:
        takers = [i for i in by_remainder if counts[i] < tensors[i].limit]
        for i in takers[:missing]:
            counts[i] += 1
    return counts


ScoreChunks = Callable[[], Iterable[Tensor]]

#: One cut through the scores of the tensors of these numbers, below which so many lie.
CutThrough = Callable[[Sequence[int], int], Cut]


def by_cut(
    tensors: Sequence[Bounds],
    scores: Sequence[ScoreChunks],
    sparsity: float,
    ranks: Ranks | None = None,
    cut_through: CutThrough | None = None,
) -> list[int]:
    """What one threshold on the scores of all tensors would leave each of them.

    ``scores[i]`` yields the score chunks of the kept weights of ``tensors[i]``. A tensor that would be left with less
    than its bound allows is held there, and the threshold of the others moves until the total is exact. With ``ranks``,
    the scores are this rank's and the bounds are of whole tensors; else ``cut_through`` may find the cut.
    """
    total = min(max(rounded(sparsity, sum(t.numel for t in tensors)), sum(t.masked for t in tensors)),
                sum(t.limit for t in tensors))  # fmt: skip
    held: set[int] = set()
    while True:
        free = [i for i in range(len(tensors)) if i not in held]
        count = total - sum(tensors[i].limit for i in held) - sum(tensors[i].masked for i in free)
        own = [scores[i] for i in free]
        ours = cut_through if ranks is None else None
        cut = ours(free, count) if ours is not None else _cut_through(own, count, ranks)
        masked = [t.limit for t in tensors]
        for i, removed in zip(free, _removed(cut, own, ranks), strict=True):
            masked[i] = tensors[i].masked + removed
        over = {i for i in free if masked[i] > tensors[i].limit}
        if not over:
            return masked
        held |= over


def _cut_through(scores: Sequence[ScoreChunks], count: int, ranks: Ranks | None) -> Cut:
    """One cut through the scores of all tensors."""

    def chunks() -> Iterable[Tensor]:
        return (chunk for each in scores for chunk in each())

    return lowest(chunks, count) if ranks is None else lowest_among([chunks], [count], ranks)[0].whole


def _removed(cut: Cut, scores: Sequence[ScoreChunks], ranks: Ranks | None) -> list[int]:
    """How many scores of each tensor lie below the cut; of equal ones those of later tensors go first."""
    counts = _counts(cut, scores) if cut.parts is None else torch.tensor(cut.parts)
    spare, removed = cut.spare, []
    for below, at_key in (counts if ranks is None else ranks.sum(counts)).tolist():
        stay = min(at_key, spare)
        spare -= stay
        removed.append(below + at_key - stay)
    return removed


def _counts(cut: Cut, scores: Sequence[ScoreChunks]) -> Tensor:
    """How many scores of each tensor lie below the cut's key, and at it: int64 ``[tensors, 2]``."""
    counts = torch.zeros(len(scores), 2, dtype=torch.int64)
    for row, chunks in zip(counts, scores, strict=True):
        for keys in map(order_key, chunks()):
            row += torch.stack([(keys < cut.key).sum(), (keys == cut.key).sum()]).cpu()
    return counts


#: Distributions that need shapes alone. The others are ``global`` and the names of scores.
BY_SHAPE: dict[str, Callable[[Sequence[Bounds], float], list[int]]] = {"layer": layer, "erk": erk}
