# SPDX-License-Identifier: MIT
"""From a configuration to finished runs: Kconfig or flags, the matrix, its runner, and the folder it is stored in."""

from adamwprune.experiment.errors import ExperimentError

__all__ = ["ExperimentError"]
