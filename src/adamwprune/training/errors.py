# SPDX-License-Identifier: MIT
"""What can go wrong around a run, apart from the training itself."""

from __future__ import annotations


class ConfigError(ValueError):
    """A config that cannot be run as it is; the message says which field, what was expected, and what to do."""


class DirectoryError(ValueError):
    """A run directory that is not this run's, or whose checkpoint does not fit."""


class TrainingError(Exception):
    """The run cannot go on; the message says where and why."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was asked to stop; its last checkpoint is written, and the same call goes on from there."""
