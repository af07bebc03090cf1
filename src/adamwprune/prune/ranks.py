# SPDX-License-Identifier: MIT
"""Selection over tensors whose rows are spread over ranks: counts pass between them, never scores or weights.

The masks are those that one process with all rows would make. All scopes (the tensors of a layerwise update, or the one
scope of a global one) go through the digits of the score's key together, so that an update takes four messages of 257
counts a scope, whatever its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from adamwprune.prune.thresholds import NOTHING_BELOW, Chunks, Cut, lowest, non_finite, order_key

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

#: Bits of a key that one message settles, and where they start.
_DIGIT = 8
_SHIFTS = range(32 - _DIGIT, -1, -_DIGIT)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Processes that hold consecutive rows of the same tensors; a later rank holds later rows."""

    group: ProcessGroup
    device: torch.device

    def sum(self, counts: Tensor) -> Tensor:
        """int64 counts, added up over the ranks; on the CPU."""
        total = counts.to(self.device, torch.int64, copy=True)
        dist.all_reduce(total, group=self.group)
        return total.cpu()

    def before(self, counts: Tensor) -> Tensor:
        """int64 counts, added up over the ranks before this one; on the CPU."""
        mine = counts.to(self.device, torch.int64)
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(everyone, mine, group=self.group)
        earlier = everyone[: dist.get_rank(self.group)]
        return torch.stack([torch.zeros_like(mine), *earlier]).sum(dim=0).cpu()


@dataclass(frozen=True, slots=True)
class SharedCut:
    """A cut through the scores of all ranks, and how many of this rank's lie below it and at it."""

    whole: Cut
    below: int
    at_key: int


def lowest_among(scopes: Sequence[Chunks], counts: Sequence[int], ranks: Ranks) -> list[SharedCut]:
    """For each scope, the cut below which exactly ``counts[i]`` of all ranks' scores lie.

    Args:
        scopes: this rank's scores, as for :func:`adamwprune.prune.thresholds.lowest`.
        counts: how many scores shall lie below, at most as many as all ranks have; the same on every rank.
        ranks: who holds the other scores.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite, on whatever rank; raised on all of them.
    """
    rank = torch.tensor(counts).unsqueeze(1)
    key = torch.zeros_like(rank)
    below_here = torch.zeros_like(rank)
    for shift in _SHIFTS:
        here = torch.stack([_digits(scope, shift, int(k), ranks.device) for scope, k in zip(scopes, key, strict=True)])
        everywhere = ranks.sum(here)
        bad = int(everywhere[:, -1].sum())
        if bad:
            raise non_finite(bad, int(everywhere[:, :-1].sum()))
        here, everywhere = here[:, :-1].cpu(), everywhere[:, :-1].contiguous()
        running = everywhere.cumsum(1)
        assert bool((rank <= running[:, -1:]).all()), "cannot take more scores than there are"
        digit = torch.searchsorted(running, rank)
        rank -= (running - everywhere).gather(1, digit)
        below_here += (here.cumsum(1) - here).gather(1, digit)
        key = (key << _DIGIT) + digit
    at_key, at_key_here = everywhere.gather(1, digit), here.gather(1, digit)
    rows = torch.cat([key - (1 << 31), rank, at_key, below_here, at_key_here], dim=1).tolist()
    return [
        SharedCut(Cut(key, count - ties, at_key, ties), below, at_here) if count else SharedCut(NOTHING_BELOW, 0, 0)
        for count, (key, ties, at_key, below, at_here) in zip(counts, rows, strict=True)
    ]


def _digits(scope: Chunks, shift: int, prefix: int, device: torch.device) -> Tensor:
    """How often each digit comes next among the keys that begin with ``prefix``, and how many scores are not finite."""
    counts = torch.zeros((1 << _DIGIT) + 1, dtype=torch.int64, device=device)
    for scores in scope():
        keys = order_key(scores).long() + (1 << 31)
        digits = (keys[keys >> (shift + _DIGIT) == prefix] >> shift) & ((1 << _DIGIT) - 1)
        counts[:-1] += torch.bincount(digits, minlength=1 << _DIGIT)
        counts[-1] += (~scores.isfinite()).sum()
    return counts


def own_parts(cuts: Sequence[SharedCut], ranks: Ranks) -> list[Cut]:
    """What each cut takes of this rank's scores. Of equal ones those of later ranks go first: their rows are later."""
    before = torch.zeros(len(cuts), dtype=torch.int64)
    if any(0 < cut.whole.ties < cut.whole.at_key for cut in cuts):
        before = ranks.before(torch.tensor([cut.at_key for cut in cuts]))
    parts = []
    for cut, earlier in zip(cuts, before.tolist(), strict=True):
        stay = min(max(cut.whole.spare - earlier, 0), cut.at_key)
        parts.append(Cut(key=cut.whole.key, below=cut.below, at_key=cut.at_key, ties=cut.at_key - stay))
    return parts


def lowest_here(scores: Tensor, count: int, ranks: Ranks | None) -> Cut:
    """This rank's part of the cut below which exactly ``count`` of all ranks' scores lie."""

    def chunks() -> tuple[Tensor]:
        return (scores,)

    if ranks is None:
        return lowest(chunks, count)
    return own_parts(lowest_among([chunks], [count], ranks), ranks)[0]
