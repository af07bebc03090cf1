# SPDX-License-Identifier: MIT
"""Triton's masking and compaction against plain indexing, and when the backend is taken."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from jobs import problem

from adamwprune import kernels
from adamwprune.kernels import triton_support
from adamwprune.prune.masks import Mask

pytest.importorskip("triton")

from adamwprune.kernels import triton_move

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.uint8]


def mask_of(keep):
    return Mask.from_bool(keep.to(DEVICE))


@pytest.mark.parametrize("size", [1, 9, 1024, 2500])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_entries_become_zero_and_no_others(size, dtype):
    values = torch.randint(1, 100, (size,)).to(dtype)
    keep = problem(size, 0.6)[-1]
    ours = values.to(DEVICE, copy=True).view(1, size)
    before = ours._version
    triton_move.zero_masked(ours, mask_of(keep))
    assert torch.equal(ours.cpu().view(-1), values.masked_fill(~keep, 0))
    assert ours._version == before + 1


@pytest.mark.parametrize("size", [1, 9, 1024, 2500])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_compaction_moves_what_stays(size, dtype, sparsity):
    dense = torch.randint(-100, 100, (size,)).to(dtype)
    old = problem(size, 0.4, seed=1)[-1]
    new = old & problem(size, sparsity, seed=2)[-1]
    before, after = mask_of(old), mask_of(new)
    assert torch.equal(triton_move.compact(dense.to(DEVICE), None, after).cpu(), dense[new])
    assert torch.equal(triton_move.compact(dense[old].to(DEVICE), before, after).cpu(), dense[new])


@pytest.mark.skipif(torch.cuda.is_available(), reason="what a machine without a GPU does")
def test_on_cpus_triton_runs_only_in_its_interpreter(monkeypatch):
    with kernels.use("triton"):
        assert kernels.backend("cpu") == "triton"
        with pytest.raises(ValueError, match="Triton kernels do not run here: torch sees no CUDA"):
            kernels.backend("cuda")
        monkeypatch.delenv(triton_support.INTERPRET_VARIABLE)
        with pytest.raises(ValueError, match="set TRITON_INTERPRET=1"):
            kernels.backend("cpu")
    assert kernels.backend("cpu") != "triton"
    assert kernels.backend("cuda") == "reference"


def test_a_device_too_old_or_a_broken_triton_leaves_the_reference(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: ((9, 0), (6, 1))[i])
    monkeypatch.setattr(torch.version, "hip", None)
    assert triton_support.missing.__wrapped__() == "Triton needs compute capability 7.0, and a device has 6.1"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (7, 0))
    assert triton_support.missing.__wrapped__() is None
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "Triton cannot be imported" in triton_support._import_problem.__wrapped__()


def test_nothing_imports_triton_before_it_is_used():
    code = (
        "import sys, torch; seen = 'triton' in sys.modules; import adamwprune; assert seen == ('triton' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", [1, 1024, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kept_square_sum_is_a_float64_sum(size, dtype):
    keep = problem(size, 0.6)[-1]
    grad = torch.randn(size).to(dtype)
    expected = float(grad[keep].double().square().sum())
    grad[~keep] = torch.nan
    ours = triton_move.kept_square_sum(grad.to(DEVICE), mask_of(keep))
    assert ours.dtype == torch.float64
    assert float(ours) == pytest.approx(expected, rel=1e-13)
