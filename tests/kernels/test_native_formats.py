# SPDX-License-Identifier: MIT
"""Native steps on small or dense masked state, bit for bit against float32 steps between decoding and encoding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jobs import SETS, hyper
from stored import LAYOUTS, Problem, in_every_form

from adamwprune.kernels import native
from adamwprune.prune.masks import Mask

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")

SIZES = (1, 255, 257, 1024, 1300, 5000)


@pytest.mark.parametrize("instruction_set", SETS)
@in_every_form
def test_a_step_is_decode_float32_step_encode(instruction_set, form, dtype, correction, grad_dtype, layout):
    for size in SIZES:
        problem = Problem(size, 0.0 if layout == "whole" else 0.4, dtype, form, correction, grad_dtype, seed=size)
        job = problem.job(layout, hyper())
        assert native.supports(job)
        native.step([job], instruction_set)
        problem.check(job, layout, problem.expected(hyper()))


@given(
    st.integers(1, 4000),
    st.floats(0, 1),
    st.sampled_from(["float32", "bfloat16", "8bit"]),
    st.sampled_from(LAYOUTS[1:]),
    st.booleans(),
    st.sampled_from([None, 0.25, torch.tensor(0.3)]),
    st.sampled_from([None, 0.5]),
    st.integers(0, 2**31),
)
def test_every_layout_and_option_together(size, sparsity, form, layout, correction, scale, theta, seed):
    problem = Problem(size, sparsity, torch.bfloat16, form, correction, seed=seed)
    settings = hyper(maximize=bool(seed % 2), decoupled_weight_decay=seed % 3 > 0)
    expected = problem.expected(settings, scale, theta)
    for name in SETS:
        job = problem.job(layout, settings, scale, theta)
        native.step([job], name)
        problem.check(job, layout, expected)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_dense_masked_state_is_zero_where_masked_whatever_the_gradient_says(amsgrad, value):
    problem = Problem(3000, 0.5, torch.float32, "float32")
    problem.state["max_exp_avg_sq"] = problem.state["exp_avg_sq"] * 2
    problem.grad[~problem.keep] = value
    for name in SETS:
        masked, compact = (problem.job(layout, hyper(amsgrad=amsgrad)) for layout in LAYOUTS[1:])
        native.step([masked, compact], name)
        assert torch.equal(masked.weight, compact.weight)
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]:
            assert torch.equal(masked.state[key][problem.keep], compact.state[key])
            assert not masked.state[key][~problem.keep].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_group_with_a_wild_gradient_is_lost_and_no_other(value):
    problem = Problem(2000, 0.3, torch.float32, "8bit")
    problem.grad[problem.keep.nonzero()[-1]] = value
    expected = problem.expected(hyper())
    for name in SETS:
        job = problem.job("compact", hyper())
        native.step([job], name)
        problem.check(job, "compact", expected)
        assert job.state["exp_avg_unit"].isfinite().tolist() == [True] * 7 + [False]


def test_threads_do_not_change_the_noise():
    problem = Problem(300_000, 0.5, torch.bfloat16, "8bit", correction=True)
    jobs, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            jobs.append(problem.job("compact", hyper()))
            native.step(jobs[-1:])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(jobs[0].state[name], jobs[1].state[name]) for name in jobs[0].state)
    assert torch.equal(jobs[0].weight, jobs[1].weight)


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 2**31))
def test_the_kept_square_sum_is_a_float64_sum_whatever_the_instruction_set(size, sparsity, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(size, generator=generator).to(dtype)
    keep = torch.rand(size, generator=generator) >= sparsity
    grad[~keep] = torch.nan
    sums = {native.kept_square_sum(grad, Mask.from_bool(keep), name) for name in SETS}
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(float(grad[keep].double().square().sum()), rel=1e-13)
    dense = grad.nan_to_num()
    assert native.kept_square_sum(dense, None) == pytest.approx(float(dense.double().square().sum()), rel=1e-13)


def test_the_kept_square_sum_does_not_depend_on_threads():
    grad = torch.randn(400_000)
    mask = Mask.from_bool(torch.rand(400_000) < 0.5)
    before, sums = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sums.add(native.kept_square_sum(grad, mask))
    finally:
        torch.set_num_threads(before)
    assert len(sums) == 1


def test_combinations_of_types_that_nothing_makes_are_left_to_the_reference():
    problem = Problem(100, 0.5, torch.float32, "float32")
    job = problem.job("compact", hyper())
    assert native.supports(job)
    job.state["exp_avg_sq"] = job.state["exp_avg_sq"].to(torch.bfloat16)
    assert not native.supports(job)
