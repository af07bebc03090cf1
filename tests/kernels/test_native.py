# SPDX-License-Identifier: MIT
"""The native kernel against torch's fused AdamW, the reference, its own dense form and its other instruction sets."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jobs import MOMENTS, SETS, compact_job, hyper, problem, results, ulps
from torch.optim.adam import adam

from adamwprune import AdamWPrune, Prune, kernels
from adamwprune.kernels import Job, native, reference
from adamwprune.prune.masks import Mask

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernel is not built")

SIZES = (1, 15, 16, 17, 1000, 1024, 1025, 70_001)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_all_instruction_sets_give_the_same_bits(size, sparsity, dtype, state_dtype):
    weight, grad, state, mask, _ = problem(size, sparsity, dtype, state_dtype)
    for changes, theta in itertools.product(({}, {"amsgrad": True, "maximize": True}, {"beta1": 0.3}), (None, 0.5)):
        jobs = [compact_job(weight, grad, state, mask, hyper(**changes), theta) for _ in SETS]
        for job, name in zip(jobs, SETS, strict=True):
            native.step([job], name)
        for job in jobs[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results(jobs[0]), results(job), strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"amsgrad": True}, {"maximize": True}, {"beta1": 0.2}], ids=str)
def test_a_step_is_within_one_ulp_of_torchs_fused(size, dtype, changes):
    weight, grad, state, mask, keep = problem(size, 0.4, dtype)
    job = compact_job(weight, grad, state, mask, hyper(**changes))
    native.step([job])
    dense = {name: x.clone() for name, x in state.items()}
    largest = [dense["max_exp_avg_sq"]] if changes.get("amsgrad") else []
    options = hyper(**changes, fused=True).torch_options()
    torchs = weight.clone()
    steps = [torch.tensor(4.0)]
    adam([torchs], [grad.masked_fill(~keep, 0)], [dense["exp_avg"]], [dense["exp_avg_sq"]], largest, steps, **options)
    assert ulps(job.weight[keep], torchs[keep]) <= 1
    for name in MOMENTS[: 3 if largest else 2]:
        assert ulps(job.state[name], dense[name][keep]) <= 1
    assert not job.weight[~keep].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("coupled", [False, True])
def test_compact_state_equals_dense_masked_state_bit_for_bit(dtype, coupled):
    weight, grad, state, mask, keep = problem(70_001, 0.6, dtype)
    chosen = hyper(decoupled_weight_decay=not coupled, amsgrad=True)
    job = compact_job(weight, grad, state, mask, chosen, theta=2.0)
    dense = Job(weight.clone(), grad.masked_fill(~keep, 0), dict(state), torch.tensor(4.0), None, chosen, 2.0)
    for _ in range(3):
        native.step([job])
        native.step([dense])
    assert torch.equal(job.weight, dense.weight)
    for name in MOMENTS:
        assert torch.equal(job.state[name], dense.state[name][keep])
        assert not dense.state[name][~keep].any()


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.floats(0, 0.99), st.booleans(), st.integers(0, 2**31))
def test_many_tensors_at_once_are_the_reference_up_to_rounding(sizes, sparsity, amsgrad, seed):
    chosen = hyper(amsgrad=amsgrad)
    problems = [problem(size, sparsity, seed=seed + i) for i, size in enumerate(sizes)]
    ours = [compact_job(w, g, s, mask, chosen) for w, g, s, mask, _ in problems]
    native.step(ours)
    for job, (w, g, s, mask, _) in zip(ours, problems, strict=True):
        expected = compact_job(w, g, s, mask, chosen)
        reference.step(expected)
        for a, b in zip(results(job), results(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7)


def test_threads_do_not_change_a_bit():
    weight, grad, state, mask, _ = problem(400_000, 0.5)
    jobs = [compact_job(weight, grad, state, mask, hyper()) for _ in range(2)]
    before = torch.get_num_threads()
    try:
        for job, threads in zip(jobs, (1, 3), strict=True):
            torch.set_num_threads(threads)
            native.step([job])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(results(jobs[0]), results(jobs[1]), strict=True))


#: As convolutions make them in one, two and three dimensions; small, with more than a block to a filter, and odd.
FILTERS = ((6, 10, 3, 3), (2, 200, 3, 3), (1, 1100, 2), (37, 3, 5, 7), (3, 5, 2, 3, 4), (1500, 2, 1, 2))


def channels_last(x):
    """The same values, with channels next to each other in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", FILTERS)
@pytest.mark.parametrize("strided", [("weight", "grad"), ("weight",), ("grad",)], ids=" ".join)
def test_filters_in_channels_last_step_as_row_major_ones(shape, dtype, name, strided):
    weight, grad, state, mask, _ = problem(math.prod(shape), 0.5, dtype)
    tensors = {"weight": weight.view(shape), "grad": grad.view(shape)}
    plain = compact_job(*(x.clone() for x in tensors.values()), state, mask, hyper())
    tensors |= {key: channels_last(tensors[key]) for key in strided}
    moved = Job(**tensors, state={key: x.clone() for key, x in plain.state.items()}, **shared(plain))
    strides = {key: x.stride() for key, x in tensors.items()}
    for _ in range(2):
        native.step([plain], name)
        native.step([moved], name)
    assert {key: getattr(moved, key).stride() for key in tensors} == strides
    assert torch.equal(plain.weight, moved.weight)
    assert torch.equal(plain.grad, moved.grad)
    assert all(torch.equal(x, moved.state[key]) for key, x in plain.state.items())


def shared(job):
    """What a job on the same values in another order has in common."""
    return {key: getattr(job, key) for key in ("step", "mask", "hyper", "theta")}


def test_weights_in_any_other_order_are_copied():
    weight, grad, state, mask, _ = problem(540, 0.5)
    plain = compact_job(weight.view(6, 90), grad.view(6, 90), state, mask, hyper())
    moved = Job(
        weight.view(6, 90).t().contiguous().t(), grad.view(6, 90).t().contiguous().t(),
        {key: x.clone() for key, x in plain.state.items()}, **shared(plain),
    )  # fmt: skip
    native.step([plain])
    native.step([moved])
    assert moved.weight.stride() == (1, 6)
    assert torch.equal(plain.weight, moved.weight)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", FILTERS)
def test_filters_in_channels_last_are_masked_and_measured_as_row_major_ones(shape, dtype, name):
    _, grad, _, mask, keep = problem(math.prod(shape), 0.7, dtype)
    plain, moved = grad.view(shape).clone(), channels_last(grad.view(shape))
    strides = moved.stride()
    assert native.kept_square_sum(moved, mask, name) == native.kept_square_sum(plain, mask, name)
    native.zero_masked(moved, mask, name)
    assert moved.stride() == strides
    assert torch.equal(moved, plain.masked_fill(~keep.view(shape), 0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_masked_entries_become_zero_and_no_others(size, dtype):
    values = torch.randint(1, 100, (size,)).to(dtype)
    *_, mask, keep = problem(size, 0.6)
    for name in SETS:
        ours = values.clone()
        native.zero_masked(ours, mask, name)
        assert torch.equal(ours, values.masked_fill(~keep, 0))
        assert ours._version == values.clone()._version + 1


def test_nan_gradients_go_where_torch_lets_them():
    weight, grad, state, mask, keep = problem(100, 0.5)
    grad[keep.nonzero()[3]] = torch.nan
    job = compact_job(weight, grad, state, mask, hyper())
    native.step([job])
    assert job.weight.isnan().sum() == job.state["exp_avg"].isnan().sum() == job.state["exp_avg_sq"].isnan().sum() == 1


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_weight_that_is_not_finite_leaves_the_moments_finite_as_in_torch(value):
    weight, grad, state, mask, keep = problem(100, 0.5)
    weight[keep.nonzero()[3]] = value
    for name in SETS:
        job = compact_job(weight, grad, state, mask, hyper())
        expected = compact_job(weight, grad, state, mask, hyper())
        native.step([job], name)
        reference.step(expected)
        for a, b in zip(results(job), results(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7, equal_nan=True)


def test_what_the_kernel_cannot_take_goes_to_the_reference():
    weight, grad, state, mask, _ = problem(100, 0.5, torch.float64)
    assert not native.supports(compact_job(weight, grad, state, mask, hyper()))
    half, expected = (compact_job(weight, grad, state, mask, hyper()) for _ in range(2))
    with kernels.use("native"):
        kernels.step([half])
    reference.step(expected)
    assert all(torch.equal(a, b) for a, b in zip(results(half), results(expected), strict=True))


@pytest.mark.parametrize("name", ["reference", "native"])
def test_training_on_either_backend_prunes_and_learns(name):
    torch.manual_seed(0)
    x = torch.randn(128, 16)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    optimizer = AdamWPrune(model.named_parameters(), lr=1e-2, prune=Prune(sparsity=0.7, total_steps=200))
    with kernels.use(name):
        for _ in range(200):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        assert optimizer.pruner.report()["backend"] == name
    assert optimizer.pruner.at_target
    assert loss < 0.1


def test_the_backend_can_be_named(monkeypatch):
    assert kernels.backend("cpu") == "native"
    assert kernels.backend("cuda") == "reference"
    monkeypatch.setenv(kernels.BACKEND_VARIABLE, "reference")
    assert kernels.backend("cpu") == "reference"
    monkeypatch.setenv(kernels.BACKEND_VARIABLE, "fast")
    with pytest.raises(ValueError, match="ADAMWPRUNE_BACKEND='fast': expected one of reference, native"):
        kernels.backend("cpu")
    with pytest.raises(ValueError, match="unknown backend 'fast'"), kernels.use("fast"):
        pass


def test_without_a_library_the_reference_runs(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    assert kernels.backend("cpu") == "reference"
    monkeypatch.setenv(kernels.BACKEND_VARIABLE, "native")
    with pytest.raises(ValueError, match="not built"):
        kernels.backend("cpu")


def test_an_empty_shard_compacts_to_nothing():
    empty = Mask.full(0, torch.device("cpu"))
    assert native.compact(torch.zeros(0), None, empty).shape == (0,)
    assert native.compact(torch.zeros(0, dtype=torch.int8), empty, empty).shape == (0,)
