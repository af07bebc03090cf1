# SPDX-License-Identifier: MIT
"""What the process holds, as the kernel counts it."""

from __future__ import annotations

import sys

import pytest
from process_memory import MIB, growth, in_fresh_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

SIZE = 64 * MIB


def test_growth_is_the_peak_of_what_was_alive_at_once():
    kept: list[bytearray] = []
    alone = growth(lambda: bytearray(b"x") * SIZE)
    again = growth(lambda: kept.append(bytearray(b"x") * SIZE))
    beside = growth(lambda: bytearray(b"x") * (SIZE // 2))
    for found, expected in ((alone, SIZE), (again, SIZE), (beside, SIZE // 2)):
        assert expected - MIB < found < expected + 4 * MIB  # the kernel counts in batches


def test_a_fresh_process_returns_json():
    assert in_fresh_process("json", "loads", s='{"a": [1, 2.5]}') == {"a": [1, 2.5]}
