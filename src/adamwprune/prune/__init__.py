# SPDX-License-Identifier: MIT
"""What to prune and when: scores, schedules, distributions, patterns, thresholds, masks. No optimizer is known here."""

from adamwprune.prune.config import DISTRIBUTIONS, Prune
from adamwprune.prune.masks import Mask
from adamwprune.prune.schedules import SCHEDULES
from adamwprune.prune.scores import ALIASES, AUTO_SCORE, SCORES, STATE_FAMILY, canonical_score
from adamwprune.prune.thresholds import NonFiniteScoreError

#: Raised whenever a score, schedule, distribution, pattern or the selection changes meaning: it identifies runs.
VERSION = 1

__all__ = [
    "ALIASES",
    "AUTO_SCORE",
    "DISTRIBUTIONS",
    "SCHEDULES",
    "SCORES",
    "STATE_FAMILY",
    "VERSION",
    "Mask",
    "NonFiniteScoreError",
    "Prune",
    "canonical_score",
]
