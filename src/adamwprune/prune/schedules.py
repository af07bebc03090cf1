# SPDX-License-Identifier: MIT
"""How sparsity rises during the ramp: functions of progress (0 at its start, 1 at its end) to a share of the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


def cubic(progress: float) -> float:
    """Fast first, while the network still recovers easily (Zhu & Gupta 2017, arXiv 1710.01878)."""
    return 1.0 - (1.0 - progress) ** 3


def linear(progress: float) -> float:
    """The same share at every update."""
    return progress


def cosine(progress: float) -> float:
    """Slow at both ends."""
    return 0.5 * (1.0 - math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """All at once, at the start of the window."""
    return 1.0


SCHEDULES: dict[str, Schedule] = {"cubic": cubic, "linear": linear, "cosine": cosine, "constant": constant}

#: Optimizer steps between mask updates where the run is long enough, and the fewest updates a ramp should have.
EVERY = 50
MIN_UPDATES = 20


@dataclass(frozen=True, slots=True)
class Ramp:
    """The window in optimizer steps, and the updates in it: ``start``, then each ``every`` steps, and ``end``."""

    start: int
    end: int
    every: int
    schedule: Schedule

    @classmethod
    def resolve(
        cls, start: float | int, end: float | int, every: int | None, schedule: Schedule, total_steps: int
    ) -> Ramp:
        """Turn shares of ``total_steps`` (floats) into steps; ints are steps already."""
        first, last = (round(edge * total_steps) if isinstance(edge, float) else edge for edge in (start, end))
        if first >= last:
            raise ValueError(
                f"the ramp starts at step {first} (start={start!r}) and ends at step {last} (end={end!r}) of "
                f"{total_steps}: start must lie before end (a float is a share of total_steps, an int is a step)"
            )
        if last > total_steps:
            raise ValueError(f"the ramp ends at step {last} (end={end!r}), after the run's {total_steps} steps")
        return cls(first, last, every or max(1, min(EVERY, (last - first) // MIN_UPDATES)), schedule)

    def fraction(self, step: int) -> float:
        """Share of the target that is due at ``step``: 0 before the window, exactly 1 from its end."""
        if step < self.start:
            return 0.0
        if step >= self.end:
            return 1.0
        return min(1.0, max(0.0, self.schedule((step - self.start) / (self.end - self.start))))

    def latest(self, step: int) -> int | None:
        """The last update that lies at or before ``step``; None before the first."""
        if step < self.start:
            return None
        if step >= self.end:
            return self.end
        return step - (step - self.start) % self.every

    def pending(self, step: int, done: int | None) -> bool:
        """Whether an update is due by ``step`` that came after the one done at step ``done`` (None: none yet)."""
        latest = self.latest(step)
        return latest is not None and (done is None or done < latest)
