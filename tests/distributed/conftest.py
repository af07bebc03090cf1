# SPDX-License-Identifier: MIT
"""Ranks that live for the whole session: importing torch takes longer than any test here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from workers import Workers


@pytest.fixture(scope="session")
def ranks() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.stop()
