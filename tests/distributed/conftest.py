# SPDX-License-Identifier: MIT
"""Ranks that live for the whole session: importing torch takes longer than any test here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from workers import Workers

# The oracles of tests/optim and tests/prune serve here too; the ranks take this path over.
sys.path[:0] = [str(Path(__file__).parent.parent / room) for room in ("optim", "prune")]


@pytest.fixture(scope="session")
def ranks() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.stop()
