# SPDX-License-Identifier: MIT
"""What the process holds, as the kernel counts it."""

from __future__ import annotations

import sys

import pytest
from process_memory import MIB, growth, in_fresh_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

SIZE = 64 * MIB


def growths() -> list[int]:
    """Of a block for a moment, of one that stays, and of half a block beside that."""
    kept: list[bytearray] = []
    return [
        growth(lambda: bytearray(b"x") * SIZE),
        growth(lambda: kept.append(bytearray(b"x") * SIZE)),
        growth(lambda: bytearray(b"x") * (SIZE // 2)),
    ]


def test_growth_is_the_peak_of_what_was_alive_at_once():
    # In a process where nothing else is allocated or given back meanwhile.
    for found, expected in zip(in_fresh_process(__name__, "growths"), (SIZE, SIZE, SIZE // 2), strict=True):
        assert expected - MIB < found < expected + 4 * MIB  # the kernel counts in batches


def test_a_fresh_process_returns_json():
    assert in_fresh_process("json", "loads", s='{"a": [1, 2.5]}') == {"a": [1, 2.5]}
