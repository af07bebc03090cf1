# SPDX-License-Identifier: MIT
"""Fixed, stratified splits: the same examples are held out in every run, whatever its seed, so that runs compare."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def held_out(examples: int, fraction: float) -> int:
    """How many of ``examples`` a split holds out: ``fraction`` of them, rounded half up."""
    return int(fraction * examples + 0.5)


def stratified(labels: Tensor, fraction: float, salt: int) -> tuple[Tensor, Tensor]:
    """Indices of the examples that stay and of those held out, each in ascending order.

    Every class gives its share, by largest remainders. ``salt`` tells the splits of one data set apart.
    The order comes from numpy's RandomState, whose stream is frozen for good.
    """
    values = labels.numpy()
    shares = np.bincount(values) * fraction
    counts = np.floor(shares).astype(int)
    missing = held_out(len(values), fraction) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    random = np.random.RandomState(salt)
    held = [random.permutation(np.flatnonzero(values == label))[:count] for label, count in enumerate(counts)]
    is_held = np.zeros(len(values), dtype=bool)
    is_held[np.concatenate(held)] = True
    return torch.from_numpy(np.flatnonzero(~is_held)), torch.from_numpy(np.flatnonzero(is_held))


def sample(labels: Tensor, count: int, salt: int) -> Tensor:
    """Indices of ``count`` of the examples, in ascending order; every class gives its share of them."""
    return stratified(labels, count / len(labels), salt)[1]
