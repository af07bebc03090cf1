# SPDX-License-Identifier: MIT
"""A data set small enough to train on in every test."""

from __future__ import annotations

import pytest
import tiny
import tiny_text


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    """The tiny data sets are there in these tests, and in no others."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        tiny_text.register(patch)
        yield
