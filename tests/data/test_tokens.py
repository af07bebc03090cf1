# SPDX-License-Identifier: MIT
"""Windows on a row of tokens: each batch against slicing one window at a time, each epoch as a partition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.data import Tokens, Windows


def row(values: np.ndarray, bits: int) -> Tokens:
    kind = {8: np.uint8, 16: np.uint16}[bits]
    ids = torch.from_numpy(values.astype(kind).view({8: np.uint8, 16: np.int16}[bits]))
    return Tokens(ids)


@given(
    length=st.integers(2, 200),
    block=st.integers(1, 40),
    bits=st.sampled_from([8, 16]),
    seed=st.integers(0, 50),
    shuffled=st.booleans(),
)
def test_batches_against_slicing(length: int, block: int, bits: int, seed: int, shuffled: bool) -> None:
    values = np.random.RandomState(seed).randint(0, 2**bits, length)
    tokens = row(values, bits)
    if length < block + 1:
        with pytest.raises(ValueError, match=f"{length} tokens are too few for a block of {block}"):
            Windows.shuffled(tokens, block, seed)
        return
    windows = Windows.shuffled(tokens, block, seed) if shuffled else Windows.consecutive(tokens, block)
    starts = windows.starts.tolist()
    for first in range(0, len(windows), 3):
        inputs, targets = windows.batch(first, 3)
        expected = starts[first : first + 3]
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.tolist() == [values[start : start + block].tolist() for start in expected]
        assert targets.tolist() == [values[start + 1 : start + block + 1].tolist() for start in expected]


@given(length=st.integers(2, 300), block=st.integers(1, 40), seed=st.integers(0, 50))
def test_an_epoch_sees_every_token_once(length: int, block: int, seed: int) -> None:
    if length < block + 1:
        return
    tokens = row(np.arange(length), 16)
    starts = Windows.shuffled(tokens, block, seed).starts
    ordered = starts.sort().values
    assert 0 <= ordered[0] < block
    assert torch.equal(ordered.diff(), torch.full((len(ordered) - 1,), block))
    assert length - block <= ordered[-1] + block < length
    assert torch.equal(starts, Windows.shuffled(tokens, block, seed).starts), "a function of the seed"
    plain = Windows.consecutive(tokens, block).starts
    assert torch.equal(plain, torch.arange(0, length - block, block))


def test_epochs_differ() -> None:
    tokens = row(np.arange(1000), 16)
    epochs = [Windows.shuffled(tokens, 10, seed).starts for seed in range(20)]
    assert len({tuple(starts.tolist()) for starts in epochs}) == 20
    assert len({int(starts.min()) for starts in epochs}) > 5, "windows do not begin at the same places"


@given(length=st.integers(1, 100), fraction=st.floats(0, 0.99))
def test_what_is_held_out_is_the_end(length: int, fraction: float) -> None:
    tokens = row(np.arange(length), 8)
    kept, held = tokens.hold_out(fraction)
    assert torch.equal(torch.cat([kept.ids, held.ids]), tokens.ids)
    assert len(held) == int(fraction * length)


def test_what_no_row_can_be() -> None:
    with pytest.raises(AssertionError):
        Tokens(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(AssertionError):
        Tokens(torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="too few for a block of 0"):
        Windows.consecutive(Tokens(torch.zeros(4, dtype=torch.uint8)), 0)
