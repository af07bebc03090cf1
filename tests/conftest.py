# SPDX-License-Identifier: MIT
"""Settings of the whole suite."""

from hypothesis import settings

# No test is timed: the machine may be busy. The same examples are tried everywhere.
settings.register_profile("adamwprune", deadline=None, derandomize=True)
settings.load_profile("adamwprune")
