# SPDX-License-Identifier: MIT
"""Which weights go together: single weights (no pattern), or ``n:m``: n of every m consecutive inputs stay.

Groups of ``n:m`` run along the inputs, as sparse matrix units expect: dimension 1 of a Linear or convolution,
dimension 0 of transposed weights.
During the ramp whole groups change over, the ones first whose removed weights score lowest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from adamwprune.prune.masks import Mask
from adamwprune.prune.ranks import Ranks, lowest_here
from adamwprune.prune.thresholds import require_finite


@dataclass(frozen=True, slots=True)
class NofM:
    """Keep ``n`` of every ``m`` consecutive weights along the inputs."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """Fraction removed once every group follows the pattern."""
        return 1.0 - self.n / self.m

    def reachable(self, masked: int) -> int:
        """The number of weights in as many whole groups as ``masked`` weights allow."""
        return masked - masked % (self.m - self.n)

    def refusal(self, shape: tuple[int, ...], inputs: int = 1) -> str | None:
        """Why a tensor of this shape cannot follow the pattern; None where it can."""
        if shape[inputs] % self.m:
            return f"its {shape[inputs]} inputs are not a multiple of {self.m} (pattern {self})"
        return None

    def groups(self, keep: Tensor, inputs: int = 1) -> Tensor:
        """Any tensor of a weight's shape as ``[groups, m]``."""
        return keep.movedim(inputs, -1).reshape(-1, self.m)

    def select(
        self,
        scores: Tensor,
        mask: Mask,
        shape: tuple[int, ...],
        masked: int,
        ranks: Ranks | None = None,
        inputs: int = 1,
    ) -> Mask:
        """Change over as many groups as ``masked`` weights allow.

        Args:
            scores: dense float32 scores of the tensor's shape; entries of masked weights are not read.
            mask: the mask so far; its groups are either whole or already follow the pattern.
            shape: the weight's shape.
            masked: how many weights may be masked in all, on all ranks; rounded down to whole groups.
            ranks: who holds the tensor's other rows.
            inputs: the dimension that counts them.

        The scores of one tensor, and two arrays of its size to rank them in their groups, are held at once.
        """
        require_finite(scores, ranks)
        removed = self.m - self.n
        keep = self.groups(mask.to_bool(shape), inputs)
        whole = keep.all(dim=1).nonzero().squeeze(1)
        ranked, order = self.groups(scores.view(shape), inputs)[whole].sort(dim=1, descending=True, stable=True)
        count = masked // removed - (mask.masked + mask.elsewhere) // removed
        cost = ranked[:, self.n :].sum(dim=1)
        stays = lowest_here(cost, max(count, 0), ranks).splitter()(cost)
        changed = whole[~stays]
        keep[changed] = keep[changed].scatter(1, order[~stays][:, self.n :], False)
        moved = torch.Size((*shape[:inputs], *shape[inputs + 1 :], shape[inputs]))
        return Mask.from_bool(keep.view(moved).movedim(-1, inputs))


Pattern = NofM | None


def parse_pattern(pattern: str | None) -> Pattern:
    """``None``, or ``"n:m"`` with 0 < n < m."""
    if pattern is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    if match is None or not 0 < int(match[1]) < int(match[2]):
        raise ValueError(f'unknown pattern {pattern!r}: expected None or "n:m" with 0 < n < m, such as "2:4"')
    return NofM(int(match[1]), int(match[2]))
