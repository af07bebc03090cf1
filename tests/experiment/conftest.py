# SPDX-License-Identifier: MIT
"""A matrix whose runs a stand-in engine makes in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_matrix import FakeMatrix


@pytest.fixture
def fake_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMatrix:
    return FakeMatrix(tmp_path, monkeypatch)
