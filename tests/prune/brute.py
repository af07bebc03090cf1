# SPDX-License-Identifier: MIT
"""Oracles of the selection rules: slow, obvious code that shares nothing with the library."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import settings
from torch import Tensor

#: The same examples in every run. They were also run once with 1200 random ones each. No deadline: machines are busy.
quick = settings(deadline=None, max_examples=50, derandomize=True)
thorough = settings(deadline=None, max_examples=120, derandomize=True)


def rounded(sparsity: float, numel: int) -> int:
    return math.floor(sparsity * numel + 0.5)


def lowest_positions(scores: list[list[float]], count: int, limits: list[int] | None = None) -> list[set[int]]:
    """Positions of the ``count`` lowest scores; of equal ones the later (tensor order, then index) go first.

    ``limits`` caps how many positions of each tensor may be taken; the next lowest of others take their place.
    """
    order = sorted(
        ((score, -tensor, -index) for tensor, row in enumerate(scores) for index, score in enumerate(row)),
    )
    taken: list[set[int]] = [set() for _ in scores]
    for _, tensor, index in order:
        if count == 0:
            break
        if limits is None or len(taken[-tensor]) < limits[-tensor]:
            taken[-tensor].add(-index)
            count -= 1
    assert count == 0
    return taken


def share(schedule: str, progress: float) -> float:
    """Share of the target at a progress in [0, 1], from the formulas' definitions."""
    match schedule:
        case "cubic":
            return 1 - (1 - progress) ** 3
        case "linear":
            return progress
        case "cosine":
            return (1 - math.cos(math.pi * progress)) / 2
        case "constant":
            return 1.0
    raise AssertionError(schedule)


def events(start: int, end: int, every: int) -> list[int]:
    """Steps at which a mask update is scheduled."""
    return sorted({*range(start, end, every), end})


def erk_ideal(shapes: list[tuple[int, ...]], sparsity: float) -> list[Fraction]:
    """Masked weights of each tensor before rounding: density = min(1, scale * sum(dims) / prod(dims)).

    They sum to the whole count that the sparsity masks. The scale is found exactly: try each number of dense tensors,
    in order of their ratio.
    """
    sizes = [math.prod(shape) for shape in shapes]
    ratios = [Fraction(sum(shape), math.prod(shape)) for shape in shapes]
    kept = sum(sizes) - rounded(sparsity, sum(sizes))
    by_ratio = sorted(range(len(shapes)), key=lambda i: -ratios[i])
    for dense in range(len(shapes)):
        full, rest = by_ratio[:dense], by_ratio[dense:]
        scale = (kept - sum(sizes[i] for i in full)) / sum(ratios[i] * sizes[i] for i in rest)
        if all(ratios[i] * scale <= 1 for i in rest):
            return [Fraction(0) if i in full else (1 - ratios[i] * scale) * sizes[i] for i in range(len(shapes))]
    raise AssertionError("unreachable: sparsity is at least 0")


def largest_remainders(ideal: list[Fraction], total: int) -> list[int]:
    """Whole numbers that sum to ``total``: round down, then up in order of the remainders."""
    counts = [math.floor(x) for x in ideal]
    order = sorted(range(len(ideal)), key=lambda i: (counts[i] - ideal[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def lamp(weights: Tensor) -> list[float]:
    """w² over the sum of squares not smaller; of equal squares the earlier counts as larger. O(n²)."""
    squares = [float(w) ** 2 for w in weights]
    scores = []
    for i, own in enumerate(squares):
        rest = sum(other for j, other in enumerate(squares) if other > own or (other == own and j <= i))
        scores.append(own / rest if own else 0.0)
    return scores


def n_of_m(scores: Tensor, keep: Tensor, n: int, m: int, changed: int) -> Tensor:
    """Keep n of m along dimension 1 in the ``changed`` whole groups whose removed scores are lowest in sum."""
    rows = scores.movedim(1, -1).reshape(-1, m)
    kept = keep.movedim(1, -1).reshape(-1, m).clone()
    candidates = []
    for g in range(len(rows)):
        if kept[g].all():
            best_first = sorted(range(m), key=lambda i: (-float(rows[g, i]), i))
            removed = best_first[n:]
            candidates.append((sum(float(rows[g, i]) for i in removed), -g, removed))
    candidates.sort(key=lambda c: c[:2])
    for _, g, removed in candidates[:changed]:
        kept[-g, removed] = False
    moved = (scores.shape[0], *scores.shape[2:], scores.shape[1])
    return kept.view(moved).movedim(-1, 1)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in dtype, shape and every value; NaNs equal each other."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))
