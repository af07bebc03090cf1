# SPDX-License-Identifier: MIT
"""Triton's step against the native kernel (bit for bit), the reference, and its own dense form.

On a GPU where there is one, else in Triton's interpreter: small tensors.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from jobs import MOMENTS, compact_job, hyper, problem, results

from adamwprune.kernels import Job, layout, native, reference
from adamwprune.prune.masks import Mask

pytest.importorskip("triton")

from adamwprune.kernels import triton_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

TYPES = [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)]


def moved(job, **changes):
    """A copy of a job on the device that Triton uses."""
    mask = None if job.mask is None else Mask(job.mask.bits.to(DEVICE, copy=True), job.mask.numel, job.mask.kept)
    state = {name: x.to(DEVICE, copy=True) for name, x in job.state.items()}
    return dataclasses.replace(
        job, weight=job.weight.to(DEVICE, copy=True), grad=job.grad.to(DEVICE), state=state, mask=mask, **changes
    )


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.cpu(), b.cpu())


def stepped(job, **changes):
    job = moved(job, **changes)
    triton_step.step([job])
    return job


@pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")
@pytest.mark.parametrize(("dtype", "state_dtype"), TYPES)
@pytest.mark.parametrize(("size", "sparsity"), [(1, 0.0), (1000, 0.5), (1025, 0.95), (2048, 0.3), (3000, 0.9)])
def test_a_step_gives_the_native_kernels_bits(size, sparsity, dtype, state_dtype):
    weight, grad, state, mask, _ = problem(size, sparsity, dtype, state_dtype)
    for changes, theta in (
        ({}, None),
        ({"amsgrad": True, "maximize": True}, 0.5),
        ({"beta1": 0.3, "decoupled_weight_decay": False}, None),
    ):
        theirs = compact_job(weight, grad, state, mask, hyper(**changes), theta)
        ours = stepped(theirs)
        native.step([theirs])
        assert_same(results(ours), results(theirs))


@pytest.mark.parametrize("changes", [{}, {"amsgrad": True}, {"decoupled_weight_decay": False}], ids=str)
def test_a_step_is_the_references_up_to_rounding(changes):
    weight, grad, state, mask, _ = problem(1500, 0.5)
    theirs = compact_job(weight, grad, state, mask, hyper(**changes))
    ours = stepped(theirs)
    reference.step(theirs)
    for a, b in zip(results(ours), results(theirs), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(("dtype", "state_dtype"), TYPES)
def test_compact_dense_and_whole_state_give_the_same_bits(dtype, state_dtype):
    weight, grad, state, mask, keep = problem(2500, 0.6, dtype, state_dtype)
    settings = hyper(amsgrad=True, decoupled_weight_decay=False)
    compact = moved(compact_job(weight, grad, state, mask, settings, theta=2.0))
    dense = moved(Job(weight, grad, state, torch.tensor(4.0), mask, settings, 2.0, dense_state=True))
    whole = moved(Job(weight, grad.masked_fill(~keep, 0), state, torch.tensor(4.0), None, settings, 2.0))
    dense.grad[~keep.to(DEVICE)] = torch.nan  # masked entries are not used
    for _ in range(2):
        triton_step.step([compact, dense, whole])
    assert_same([compact.weight, whole.weight], [dense.weight, dense.weight])
    assert not dense.weight.cpu()[~keep].any()
    for name in MOMENTS:
        assert_same([dense.state[name]], [whole.state[name]])
        assert_same([compact.state[name]], [dense.state[name].cpu()[keep]])
        assert not dense.state[name].cpu()[~keep].any()


def test_many_tensors_take_one_launch_each_its_own_numbers():
    sizes = (7, 1024, 1, 1500, 2049)
    problems = [problem(size, 0.5, seed=size) for size in sizes]
    alone = [stepped(compact_job(w, g, s, m, hyper(), steps=i)) for i, (w, g, s, m, _) in enumerate(problems)]
    settings = hyper()
    together = [moved(compact_job(w, g, s, m, settings, steps=i)) for i, (w, g, s, m, _) in enumerate(problems)]
    triton_step.step(together)
    for one, other in zip(alone, together, strict=True):
        assert_same(results(one), results(other))
    assert len(next(reversed(triton_step._plans.values())).launches) == 1


def test_tables_are_kept_until_something_moves():
    weight, grad, state, mask, _ = problem(1100, 0.5)
    job, again = (moved(compact_job(weight, grad, state, mask, hyper())) for _ in range(2))
    triton_step.step([job])
    plans = list(triton_step._plans.values())
    triton_step.step([job])
    assert list(triton_step._plans.values()) == plans
    elsewhere = dataclasses.replace(job, grad=2 * job.grad)
    triton_step.step([elsewhere])
    assert len(set(triton_step._plans.values()) - set(plans)) == 1
    for _ in range(2):
        triton_step.step([again])
    triton_step.step([dataclasses.replace(again, grad=2 * again.grad)])
    assert_same(results(job), results(again))


@pytest.mark.parametrize("dense_state", [False, True])
def test_the_gradients_factor(dense_state):
    weight, grad, state, mask, _ = problem(1100, 0.5)
    job = Job(weight, grad, state, torch.tensor(4.0), mask, hyper(), dense_state=True)
    if not dense_state:
        job = compact_job(weight, grad, state, mask, hyper())
    expected = stepped(dataclasses.replace(job, grad=grad * torch.tensor(0.3)))
    for scale in (0.3, torch.tensor(0.3, device=DEVICE)):
        ours = stepped(job, scale=scale)
        assert_same(results(ours), results(expected))
        assert torch.equal(ours.grad.cpu(), grad)


def test_tensors_that_start_anywhere_and_in_any_order():
    weight, grad, state, mask, _ = problem(540, 0.5)
    expected = stepped(compact_job(weight, grad, state, mask, hyper()))
    for offset in (1, 3):
        job = moved(compact_job(weight, grad, state, mask, hyper()))
        shifted = torch.zeros(540 + offset, device=DEVICE)[offset:].copy_(job.grad)
        job = dataclasses.replace(job, grad=shifted)
        triton_step.step([job])
        assert_same(results(job), results(expected))
    job = moved(compact_job(weight, grad, state, mask, hyper()))
    strided = dataclasses.replace(
        job,
        weight=job.weight.view(6, 10, 3, 3).to(memory_format=torch.channels_last),
        grad=job.grad.view(6, 10, 3, 3).to(memory_format=torch.channels_last),
    )
    triton_step.step([strided])
    assert strided.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same([strided.weight.contiguous().view(-1)], [expected.weight])


def test_writes_raise_the_weights_version():
    weight, grad, state, mask, _ = problem(10, 0.5)
    job = moved(compact_job(weight, grad, state, mask, hyper()))
    before = job.weight._version
    triton_step.step([job])
    assert job.weight._version == before + 1


def test_numbers_computed_on_the_device_are_the_hosts():
    settings, counts = hyper(lr=torch.tensor(1e-2, dtype=torch.float64)), [0.0, 3.0, 5000.0]
    jobs = [
        compact_job(*problem(10, 0.5)[:4], dataclasses.replace(settings, lr=1e-2), theta=7.0, steps=n) for n in counts
    ]
    jobs = [dataclasses.replace(job, first=first) for job, first in zip(jobs, (0, 256, 2**37 + 5), strict=True)]
    host = triton_step._numbers(jobs, torch.device("cpu"))
    seeds = triton_step._seeds(tuple(job.first for job in jobs), torch.device("cpu"))
    there = triton_step._numbers_on_device(torch.tensor(counts), seeds, settings, 7.0)
    torch.testing.assert_close(there[:, :-1], host[:, :-1], rtol=1e-7, atol=0)
    assert torch.equal(there.view(torch.int32)[:, -1], host.view(torch.int32)[:, -1])


@pytest.mark.parametrize("size", [1, 8, 1023, 1024, 1025, 5000])
def test_block_starts_count_what_is_kept_before(size):
    *_, mask, keep = problem(size, 0.7)
    expected = [int(keep[:low].sum()) for low in range(0, size, 1024)]
    assert layout.starts(mask).tolist() == expected
    assert layout.starts(mask) is mask.starts


def test_what_the_kernel_cannot_take():
    weight, grad, state, mask, _ = problem(10, 0.5, torch.float64)
    assert not triton_step.supports(compact_job(weight, grad, state, mask, hyper()))
    weight, grad, state, mask, _ = problem(10, 0.5, torch.float32, torch.bfloat16)
    assert not triton_step.supports(compact_job(weight, grad, state, mask, hyper()))
    weight, grad, state, mask, _ = problem(10, 0.5)
    assert not triton_step.supports(compact_job(weight, grad, state, mask, hyper(differentiable=True)))
    assert triton_step.supports(compact_job(weight, grad, state, mask, hyper()))
