# SPDX-License-Identifier: MIT
"""Settings of the whole suite."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from workers import Workers

# Triton's kernels are interpreted where there is no GPU. Triton reads the variable once, when anything imports it, and
# other libraries do: so it is set before the first test module is collected.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# No test is timed: the machine may be busy. The same examples are tried everywhere.
settings.register_profile("adamwprune", deadline=None, derandomize=True)
settings.load_profile("adamwprune")


@pytest.fixture(scope="session")
def ranks() -> Iterator[Workers]:
    """Processes that are ranks of each other, for the whole session: importing torch takes longer than any test."""
    workers = Workers()
    yield workers
    workers.stop()
