# SPDX-License-Identifier: MIT
"""One engine for every model: recipes, the loop, evaluation, checkpoints, resume, precision, devices."""

from adamwprune.training.config import RunConfig
from adamwprune.training.engine import Progress, train
from adamwprune.training.errors import ConfigError, DirectoryError, Interrupted
from adamwprune.training.identity import run_id, run_name
from adamwprune.training.resolve import resolve

__all__ = [
    "ConfigError",
    "DirectoryError",
    "Interrupted",
    "Progress",
    "RunConfig",
    "resolve",
    "run_id",
    "run_name",
    "train",
]
