# SPDX-License-Identifier: MIT
"""Triton's steps on small state, bit for bit against float32 steps between decoding and encoding."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from jobs import hyper
from stored import LAYOUTS, Problem, in_every_form

from adamwprune.kernels import formats, native
from adamwprune.prune.masks import Mask

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")

from adamwprune.kernels import triton_step  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def stepped(problem, layout, settings, scale=None, theta=None):
    """The problem's job after Triton's step, back on the CPU."""
    job = problem.job(layout, settings, scale, theta)
    state = {name: x.to(DEVICE) for name, x in job.state.items()}
    mask = None if job.mask is None else Mask(job.mask.bits.to(DEVICE), job.mask.numel, job.mask.kept)
    moved = dataclasses.replace(job, weight=job.weight.to(DEVICE), grad=job.grad.to(DEVICE), state=state, mask=mask)
    assert triton_step.supports(moved)
    triton_step.step([moved])
    return dataclasses.replace(job, weight=moved.weight.cpu(), state={name: x.cpu() for name, x in state.items()})


@in_every_form
def test_a_step_is_decode_float32_step_encode(form, dtype, correction, grad_dtype, layout):
    for size in (1, 257, 1300, 2048):
        problem = Problem(size, 0.0 if layout == "whole" else 0.4, dtype, form, correction, grad_dtype, seed=size)
        job = stepped(problem, layout, hyper())
        problem.check(job, layout, problem.expected(hyper()))


@pytest.mark.parametrize("form", ["bfloat16", "8bit"])
@pytest.mark.parametrize("sparsity", [0.1, 0.9, 1.0])
@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_option_together(form, sparsity, layout):
    problem = Problem(1700, sparsity, torch.bfloat16, form, correction=True)
    settings = hyper(maximize=True, decoupled_weight_decay=False)
    job = stepped(problem, layout, settings, 0.25, 0.5)
    problem.check(job, layout, problem.expected(settings, 0.25, 0.5))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_group_with_a_wild_gradient_is_lost_and_no_other(value):
    problem = Problem(2000, 0.3, torch.float32, "8bit")
    problem.grad[problem.keep.nonzero()[-1]] = value
    job = stepped(problem, "compact", hyper())
    problem.check(job, "compact", problem.expected(hyper()))
    assert job.state["exp_avg_unit"].isfinite().tolist() == [True] * 7 + [False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3.4e38])
def test_corrected_weights_that_are_not_finite_or_nearly(value):
    problem = Problem(600, 0.3, torch.bfloat16, "8bit", correction=True)
    place = problem.keep.nonzero()[5]
    problem.weight[place], problem.correction[place] = value, 0
    job = stepped(problem, "compact", hyper())
    problem.check(job, "compact", problem.expected(hyper()))


def test_a_kind_of_state_that_nothing_makes_is_refused():
    problem = Problem(100, 0.5, torch.float32, "8bit")
    assert not triton_step.supports(problem.job("compact", hyper(amsgrad=True)))
    job = problem.job("compact", hyper())
    job.state[formats.CORRECTION] = torch.zeros_like(job.state["exp_avg"])
    assert not triton_step.supports(job)
