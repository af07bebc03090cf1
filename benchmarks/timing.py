# SPDX-License-Identifier: MIT
"""Paired timing: every run between two runs of what it is compared with, so that other load meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Paired:
    """Times of a run and of its unit."""

    runs: tuple[float, ...]
    """Seconds of each run."""

    units: tuple[float, ...]
    """For each run, the mean seconds of the unit before and after it."""

    @property
    def ratios(self) -> list[float]:
        """Each run in units."""
        return [run / unit for run, unit in zip(self.runs, self.units, strict=True)]

    @property
    def extras(self) -> list[float]:
        """Seconds by which each run took longer than the unit beside it."""
        return [run - unit for run, unit in zip(self.runs, self.units, strict=True)]

    def row(self) -> dict[str, Any]:
        """Median ratio, its quartiles, and both median times in milliseconds."""
        low, middle, high = statistics.quantiles(self.ratios, n=4)
        return {
            "ratio": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "ms": round(1e3 * statistics.median(self.runs), 2),
            "unit_ms": round(1e3 * statistics.median(self.units), 2),
            "rounds": len(self.runs),
        }


def seconds(run: Run) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def paired(run: Run, unit: Run, rounds: int, warm_up: int = 2) -> Paired:
    """Time ``run`` between two calls of ``unit``, ``rounds`` times, after ``warm_up`` untimed calls of each."""
    for _ in range(warm_up):
        unit()
        run()
    runs, units = [], []
    for _ in range(rounds):
        before, ours, after = seconds(unit), seconds(run), seconds(unit)
        runs.append(ours)
        units.append((before + after) / 2)
    return Paired(tuple(runs), tuple(units))
