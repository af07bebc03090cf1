# SPDX-License-Identifier: MIT
"""Packed masks: round trips, padding, and walking their chunks."""

from __future__ import annotations

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.prune import Mask
from adamwprune.prune.masks import pack, unpack, whole

BOOLS = st.lists(st.booleans(), max_size=70).map(lambda bits: torch.tensor(bits, dtype=torch.bool))


@brute.quick
@given(BOOLS)
def test_bits_are_little_endian_and_padded_with_zeros(keep):
    bits = pack(keep)
    assert bits.dtype == torch.uint8
    assert bits.numel() == (keep.numel() + 7) // 8
    number = int.from_bytes(bytes(bits.tolist()), "little")
    assert number == sum(1 << i for i, kept in enumerate(keep.tolist()) if kept)
    assert torch.equal(unpack(bits, keep.numel()), keep)


@brute.quick
@given(keep=BOOLS, size=st.integers(1, 5))
def test_chunks_cover_the_kept_weights_in_order(keep, size):
    mask = Mask.from_bool(keep)
    assert (mask.kept, mask.masked, mask.nbytes) == (int(keep.sum()), int((~keep).sum()), (keep.numel() + 7) // 8)
    chunks = list(mask.chunks(8 * size))
    positions = [c.low + i for c in chunks for i in c.index.tolist()]
    assert positions == keep.nonzero().flatten().tolist()
    assert [c.start for c in chunks] == [0, *(c.stop for c in chunks[:-1])][: len(chunks)]
    assert all(c.stop - c.start == c.index.numel() for c in chunks)


def test_whole_chunks_keep_everything():
    chunks = list(whole(21, torch.device("cpu"), 8))
    assert [(c.low, c.high, c.start, c.stop) for c in chunks] == [(0, 8, 0, 8), (8, 16, 8, 16), (16, 21, 16, 21)]
    assert chunks[2].index.tolist() == [0, 1, 2, 3, 4]
    assert list(whole(0, torch.device("cpu"))) == []


def test_a_mask_has_the_weights_row_major_order_whatever_the_strides():
    keep = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.equal(Mask.from_bool(keep.t()).to_bool((3, 2)), keep.t())
    assert torch.equal(Mask.from_bool(keep).to_bool(keep.shape), keep)
    assert Mask.full(11, torch.device("cpu")).masked == 0


def test_to_another_device_and_to_the_same():
    mask = Mask.from_bool(torch.tensor([True, False]))
    assert mask.to(torch.device("cpu")) is mask
    moved = mask.to(torch.device("meta"))
    assert (moved.bits.device.type, moved.kept) == ("meta", 1)


@pytest.mark.parametrize(
    "bits", [torch.zeros(1, dtype=torch.uint8), torch.zeros(2), torch.zeros(1, 2, dtype=torch.uint8)]
)
def test_bits_of_another_form_are_refused(bits):
    with pytest.raises(ValueError, match=r"a mask of 9 weights is uint8 \[2\]"):
        Mask.from_bits(bits, 9)


def test_from_bits_counts():
    mask = Mask.from_bits(torch.tensor([0b101, 1], dtype=torch.uint8), 9)
    assert mask.to_bool().nonzero().flatten().tolist() == [0, 2, 8]
    assert mask.kept == 3
