# SPDX-License-Identifier: MIT
"""Means over seeds: pure functions of numbers."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample standard deviation of ``n`` numbers; one number has no deviation."""

    n: int
    mean: float
    sd: float | None

    @property
    def spread(self) -> float:
        """The deviation as the length of an error bar."""
        return self.sd or 0.0


def summarise(values: Iterable[float]) -> Summary | None:
    """Summary of the numbers; None where there are none."""
    numbers = list(values)
    if not numbers:
        return None
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Summary(len(numbers), statistics.fmean(numbers), sd)


def paired_differences(ours: Mapping[Key, float], theirs: Mapping[Key, float]) -> Summary | None:
    """Summary of ``ours - theirs`` over the keys (seeds) that both have."""
    return summarise(ours[key] - theirs[key] for key in ours if key in theirs)


def median(values: Iterable[float]) -> float | None:
    """Median of the numbers; None where there are none."""
    numbers = list(values)
    return statistics.median(numbers) if numbers else None


def curve(series: Sequence[Mapping[float, float]]) -> list[tuple[float, Summary]]:
    """Summaries over seeds at every position that all of the series have, in order."""
    if not series:
        return []
    shared = set(series[0]).intersection(*series[1:])
    summaries = ((x, summarise(values[x] for values in series)) for x in sorted(shared))
    return [(x, summary) for x, summary in summaries if summary is not None]
