# SPDX-License-Identifier: MIT
"""Learning-rate schedules: plain functions of the step, so that there is nothing to save."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(progress: float) -> float:
    """The peak throughout."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine, to zero (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def linear(progress: float) -> float:
    """A straight line to zero."""
    return 1.0 - progress


LR_SCHEDULES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine, "linear": linear}


def lr_factor(name: str, step: int, steps: int, warmup: float, floor: float = 0.0) -> float:
    """What the peak learning rate is multiplied by at ``step`` (0 to steps - 1).

    It rises in a straight line over the share ``warmup`` of the run, then follows the schedule down to ``floor``.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return floor + (1.0 - floor) * LR_SCHEDULES[name]((step - rising) / (steps - rising))
