# SPDX-License-Identifier: MIT
"""The search for the largest batch within a budget."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

head_room = pytest.importorskip("head_room")


@given(
    floor=st.integers(0, 400),
    fixed=st.integers(0, 400),
    each=st.integers(1, 30),
    within=st.integers(0, 1000),
    guess=st.integers(1, 40),
    first=st.integers(1, 60),
)
def test_it_finds_what_a_scan_finds(floor, fixed, each, within, guess, first):
    """A peak is flat while gradients outweigh activations, and then rises with the batch."""

    def peak_at(batch):
        assert batch >= 1
        return max(floor, fixed + each * batch)

    if floor > within:  # no batch fits
        assert head_room.largest(peak_at, within, guess, first) == 0
        return
    scan = max(b for b in range(1002) if b == 0 or peak_at(b) <= within)
    assert head_room.largest(peak_at, within, guess, first) == scan


def test_a_good_guess_of_the_slope_saves_steps():
    asked = []

    def peak_at(batch):
        asked.append(batch)
        return 500 + 10 * batch

    assert head_room.largest(peak_at, within=905, example=10, first=8) == 40
    assert asked == [8, 40, 41]
