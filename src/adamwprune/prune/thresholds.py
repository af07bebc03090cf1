# SPDX-License-Identifier: MIT
"""Exact selection of the lowest scores without sorting them and without holding them all.

Scores become integers that order alike, and two counting passes of 16 bits each find the key at a given rank (radix
selection). A pass sees one chunk of scores at a time and keeps 65,536 counters, so the transient is a chunk's, never
that of all tensors together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from adamwprune.prune.ranks import Ranks

Chunks = Callable[[], Iterable[Tensor]]

_BINS = 1 << 16


class NonFiniteScoreError(ArithmeticError):
    """A mask update met NaN or infinite scores. Nothing was changed."""


def order_key(scores: Tensor) -> Tensor:
    """Map float32 scores to int32 keys that order the same way; -0.0 and +0.0 share a key."""
    bits = (scores + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def key_value(key: int) -> float:
    """The inverse of :func:`order_key`, of one key."""
    bits = torch.tensor(key, dtype=torch.int32)
    return float((bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32))


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the lowest scores end: keys under ``key`` are below it, and so are the last of the ``at_key`` equal ones.

    Of equal scores the first ``spare`` (tensor by tensor, in row-major order) stay, the last ``ties`` go:
    the same choice on every rank and in every run.
    """

    key: int
    below: int
    at_key: int
    ties: int
    parts: tuple[tuple[int, int], ...] | None = field(default=None, compare=False)
    """Below and at the key, tensor by tensor, where the pass that found the cut through several counted that."""

    @property
    def count(self) -> int:
        """How many scores lie below the cut."""
        return self.below + self.ties

    @property
    def spare(self) -> int:
        """How many of the scores at the cut stay, the first ones."""
        return self.at_key - self.ties

    @property
    def threshold(self) -> float:
        """The score at the cut: all above it stays."""
        return key_value(self.key) if self.count else -math.inf

    def splitter(self) -> Callable[[Tensor], Tensor]:
        """A function of successive score chunks, in order, to bool: True where the weight is kept."""
        spare = self.spare

        def keeps(scores: Tensor) -> Tensor:
            nonlocal spare
            keys = order_key(scores)
            equal = keys == self.key
            kept_ties = equal & (equal.cumsum(0) <= spare)
            spare -= int(kept_ties.sum())
            return (keys > self.key) | kept_ties

        return keeps


#: The cut that nothing lies below: its key is no score's.
NOTHING_BELOW = Cut(key=-(1 << 31), below=0, at_key=0, ties=0)


def lowest(chunks: Chunks, count: int) -> Cut:
    """Find the cut below which exactly ``count`` scores lie.

    Args:
        chunks: called once per pass; yields one-dimensional float32 score chunks, the same ones each time.
        count: how many scores shall lie below, at most as many as there are.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    upper = _histogram((keys >> 16).add_(_BINS // 2) for keys in _finite_keys(chunks()))
    if not 0 <= count <= int(upper.sum()):
        raise AssertionError(f"cannot take {count} of {int(upper.sum())} scores")
    if count == 0:
        return NOTHING_BELOW
    bin_, below = _bin_of_rank(upper, count)
    prefix = bin_ - _BINS // 2
    lower = _histogram((keys & (_BINS - 1))[keys >> 16 == prefix] for keys in map(order_key, chunks()))
    low, below_in_bin = _bin_of_rank(lower, count - below)
    below += below_in_bin
    return Cut(key=(prefix << 16) + low, below=below, at_key=int(lower[low]), ties=count - below)


def _finite_keys(chunks: Iterable[Tensor]) -> Iterable[Tensor]:
    for scores in chunks:
        require_finite(scores)
        yield order_key(scores)


def require_finite(scores: Tensor, ranks: Ranks | None = None) -> None:
    """Raise :class:`NonFiniteScoreError` unless every score is finite, on every rank that has some."""
    counts = torch.stack([(~scores.isfinite()).sum().cpu(), torch.tensor(scores.numel())])
    bad, total = (counts if ranks is None else ranks.sum(counts)).tolist()
    if bad:
        raise non_finite(bad, total)


def non_finite(bad: int, total: int) -> NonFiniteScoreError:
    """The error of a mask update that met ``bad`` scores among ``total``."""
    return NonFiniteScoreError(
        f"{bad} of {total} scores are NaN or infinite: the mask update was refused and changed nothing; "
        "the loss has probably diverged (lower the learning rate, clip gradients)"
    )


def _histogram(keys: Iterable[Tensor]) -> Tensor:
    counts = torch.zeros(_BINS, dtype=torch.int64)
    for chunk in keys:
        counts += torch.bincount(chunk, minlength=_BINS).cpu()
    return counts


def _bin_of_rank(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the ``rank``-th lowest (counted from 1), and how many lie in bins before it."""
    running = counts.cumsum(0)
    bin_ = int(torch.searchsorted(running, rank))
    return bin_, int(running[bin_] - counts[bin_])
