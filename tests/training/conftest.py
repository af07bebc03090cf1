# SPDX-License-Identifier: MIT
from __future__ import annotations

import pytest
import tiny


@pytest.fixture(autouse=True, scope="module")
def _tiny():
    """The tiny data set is there in these tests, and in no others."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        yield
