# SPDX-License-Identifier: MIT
"""One engine for every model: recipes, the loop, evaluation, checkpoints, resume, precision, devices.

Only what needs no torch is exported here: a command line's help must not wait for it. The rest is in
``training.engine`` (``train``), ``training.resolve`` and ``training.identity``.
"""

from adamwprune.training.config import RunConfig
from adamwprune.training.errors import ConfigError, DirectoryError, Interrupted

__all__ = ["ConfigError", "DirectoryError", "Interrupted", "RunConfig"]
