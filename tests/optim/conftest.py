# SPDX-License-Identifier: MIT
"""The oracles of tests/prune serve here too."""

import sys
from pathlib import Path

import pytest

from adamwprune import kernels

sys.path.insert(0, str(Path(__file__).parent.parent / "prune"))


@pytest.fixture(autouse=True)
def _reference_backend():
    """The oracles repeat torch's operations, so the reference must match their bits. Others: tests/kernels."""
    with kernels.use("reference"):
        yield
