# SPDX-License-Identifier: MIT
"""The error that a user of the front end can act on."""

from __future__ import annotations


class ExperimentError(ValueError):
    """A configuration, folder or command that cannot be used: says the value, what was expected and the fix."""
