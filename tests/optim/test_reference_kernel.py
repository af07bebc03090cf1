# SPDX-License-Identifier: MIT
"""The reference kernel on tensors of more than one chunk, and its parts against plain indexing."""

from __future__ import annotations

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import ours, prune
from oracle import MaskedAdam

from adamwprune import kernels
from adamwprune.kernels import reference
from adamwprune.prune.masks import CHUNK, Mask


def test_tensors_of_several_chunks_equal_the_dense_computation():
    shape = (5, CHUNK // 4 + 3)
    generator = torch.Generator().manual_seed(0)
    named = [("w.weight", torch.nn.Parameter(torch.randn(shape, generator=generator)))]
    optimizer = ours(named, prune(start=1, end=3, every=2, schedule="linear", score="magnitude"))
    oracle = MaskedAdam(named)
    t = oracle.tensors[0]
    for step in range(1, 5):
        g = torch.randn(shape, generator=generator)
        named[0][1].grad = g.clone()
        optimizer.step()
        t.g = torch.where(t.keep, g, 0.0)
        oracle.adam(t, t.g)
        for x in (t.w, t.m, t.v):
            x[~t.keep] = 0
        if step == 3:
            cut = t.w.abs().flatten().kthvalue(brute.rounded(0.5, t.w.numel())).values
            t.keep = t.w.abs() > cut
            for x in (t.w, t.m, t.v):
                x[~t.keep] = 0
        assert torch.equal(named[0][1].detach(), t.w), step
    saved = optimizer.state_dict()["state"][0]
    assert torch.equal(saved["exp_avg"], t.m)
    assert torch.equal(saved["exp_avg_sq"], t.v)
    assert optimizer.pruner.at_target


MASKED = st.integers(0, 10_000).flatmap(
    lambda seed: st.integers(0, 60).map(
        lambda n: torch.rand(n, generator=torch.Generator().manual_seed(seed)) < (seed % 11) / 10
    )
)


@brute.quick
@given(keep=MASKED, seed=st.integers(0, 99))
def test_compact_and_expand_are_indexing(keep, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(keep.shape, generator=generator)
    old = Mask.from_bool(keep)
    shorter = reference.compact(dense.clone(), None, old)
    assert torch.equal(shorter, dense[keep])
    restored = reference.expand(shorter, old, keep.shape, fill=-0.0)
    assert torch.equal(restored, torch.where(keep, dense, 0.0))
    assert restored[~keep].signbit().all()
    fewer = keep & (torch.rand(keep.shape, generator=generator) < 0.5)
    assert torch.equal(reference.compact(shorter, old, Mask.from_bool(fewer)), dense[fewer])


def test_compaction_frees_the_old_storage():
    keep = torch.arange(1000) % 10 == 0
    compacted = reference.compact(torch.randn(1000), None, Mask.from_bool(keep))
    assert compacted.untyped_storage().nbytes() == 400


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_compact_follows_row_major_order_whatever_the_strides(layout):
    dense = torch.randn(6, 5) if layout == "contiguous" else torch.randn(5, 6).t()
    keep = torch.rand(6, 5) < 0.5
    expected = dense[keep]
    assert torch.equal(reference.compact(dense, None, Mask.from_bool(keep)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clip_spikes(dtype):
    grad = torch.tensor([3.0, -3.0, 0.5, 2.0, torch.nan], dtype=dtype)
    v = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0], dtype=dtype)
    reference.clip_spikes(grad, v, 4.0)
    assert grad[:4].tolist() == [2.0, -2.0, 0.5, 2.0]
    assert grad[4].isnan()


@pytest.mark.parametrize("compact", [True, False])
def test_movement_accumulates_minus_w_g(compact):
    w, g = torch.randn(2, 7, 5)
    mask = Mask.from_bool(torch.rand(7, 5) < 0.6)
    keep = mask.to_bool((7, 5))
    movement = torch.zeros(mask.kept if compact else 35)
    for scale in (1.0, 0.25):
        reference.accumulate_movement(movement, w, g, mask, compact, scale)
    expected = torch.where(keep, -w * g * 1.25, 0.0)
    torch.testing.assert_close(movement, expected[keep] if compact else expected.flatten())
    fresh = torch.zeros(35)
    reference.accumulate_movement(fresh, w, g, None, True)
    torch.testing.assert_close(fresh, (-w * g).flatten())


def test_the_backend_is_named():
    assert kernels.backend("cpu") == "reference"
    assert isinstance(kernels.VERSION, int)
