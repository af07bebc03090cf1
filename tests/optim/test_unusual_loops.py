# SPDX-License-Identifier: MIT
"""Things that training loops do to a model or an optimizer between two steps, and that torch's optimizers live with."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from lab import mlp, prune, through_a_file, train
from torch import nn

import adamwprune as ap
from adamwprune import kernels

BACKENDS = ("native", "reference")
if kernels.backend("cpu") != "native":
    BACKENDS = ("reference",)


@pytest.fixture
def tensors_are_exchanged():
    """Conversions of modules exchange whole tensors, as those of sharded modules always do."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def zeros(model):
    return {name: (p == 0) for name, p in model.named_parameters() if p.dim() == 2}


def stays_masked(optimizer, model):
    return all(torch.equal(~keep, zeros(model)[name]) for name, keep in optimizer.pruner.named_masks().items())


@pytest.mark.parametrize("kind", ["own", "attached", "released", "clipped"])
def test_a_model_can_be_converted_where_tensors_are_exchanged(tensors_are_exchanged, kind):
    model = mlp()
    if kind == "attached":
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
        ap.attach(optimizer, prune(mask_grads=True))
    else:
        optimizer = ap.AdamWPrune(
            model.named_parameters(), lr=0.01, prune=prune(), release_gradients=kind == "released",
            clip_norm=0.1 if kind == "clipped" else None,
        )  # fmt: skip
    train(model, optimizer, 1, 12)
    optimizer.zero_grad()
    model.double()
    model.float()
    train(model, optimizer, 13, 14)
    assert optimizer.pruner.at_target
    assert stays_masked(optimizer, model)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_before_are_masked_by_the_next_step(backend, dtype):
    model = mlp().to(dtype)
    before = copy.deepcopy(model.state_dict())
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=0.01, prune=prune())
    batch = torch.ones(4, 8, dtype=dtype)

    def go(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

    with kernels.use(backend):
        go(12)
        model.load_state_dict(before)
        go(1)
    assert optimizer.pruner.sparsity > 0.4
    assert stays_masked(optimizer, model)


def test_filters_turned_to_bfloat16_whose_state_lies_otherwise():
    """torch made the state in the filters' own order; once it is wider than they are, the step is ours."""

    def trained(backend, memory_format):
        torch.manual_seed(0)
        model = nn.Conv2d(8, 16, 3).to(memory_format=memory_format)
        optimizer = ap.AdamWPrune(model.named_parameters(), lr=0.01)
        with kernels.use(backend):
            for step in range(8):
                if step == 5:
                    model.to(torch.bfloat16)
                generator = torch.Generator().manual_seed(step)
                model.weight.grad = torch.randn(model.weight.shape, generator=generator).to(model.weight)
                optimizer.step()
        return model.weight

    expected = trained("reference", torch.contiguous_format)
    for backend in BACKENDS:
        assert torch.equal(trained(backend, torch.channels_last), expected)


@pytest.mark.parametrize("state", [None, "8bit"])
@pytest.mark.parametrize("sparsity", [0.2, 0.6])
def test_a_cleared_state_begins_again_under_the_masks(state, sparsity):
    """As in an optimizer that was made anew with the same masks; the layout is compact at 60 %."""
    model = mlp()
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=0.01, state=state, prune=prune(sparsity=sparsity))
    train(model, optimizer, 1, 12)
    keeps = optimizer.pruner.named_masks()
    other = copy.deepcopy(model)
    fresh = ap.AdamWPrune(other.named_parameters(), lr=0.01, state=state)
    optimizer.state.clear()
    train(model, optimizer, 13, 14)
    for step in (13, 14):
        train(other, fresh, step, step)
        with torch.no_grad():
            for name, keep in keeps.items():
                other.get_parameter(name).mul_(keep)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        # Codes of masked entries, which only the other one has, may set the unit of a group.
        torch.testing.assert_close(p, q, rtol=0, atol=0 if state is None else 2e-3)


def test_numbers_of_numpy_are_numbers():
    model = mlp()
    settings = prune(sparsity=np.linspace(0.5, 0.9, 5)[0])
    optimizer = ap.AdamWPrune(model.named_parameters(), prune=settings)
    train(model, optimizer, 1, 12)
    saved = through_a_file(optimizer.state_dict())
    assert saved["param_groups"][0]["prune"]["sparsity"] == 0.5


def test_the_score_is_chosen_anew_when_the_length_is_told():
    """Eight steps are early in 1,000, and late in 10."""
    model = mlp()
    settings = ap.Prune(sparsity=0.5, total_steps=1000, start=8, end=9, score="auto")
    optimizer = ap.AdamWPrune(model.named_parameters(), prune=settings)
    assert optimizer.pruner.report()["score"] == "magnitude"
    optimizer.pruner.set_total_steps(10)
    train(model, optimizer, 1, 10)
    assert optimizer.pruner.report()["score"] == "state"
    assert optimizer.pruner.at_target


def test_sparse_gradients_out_of_scope_beside_a_learning_rate_of_zero():
    model = nn.ModuleDict({"words": nn.Embedding(10, 8, sparse=True), "out": nn.Linear(8, 8)})
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.0)
    pruner = ap.attach(optimizer, prune(score="magnitude", exclude=("words.*",)))
    for _ in range(3):
        optimizer.zero_grad()
        model["out"](model["words"](torch.tensor([1, 1, 2]))).square().mean().backward()
        optimizer.step()
    assert pruner.step == 3


def test_frozen_integers_beside_released_gradients():
    model = mlp()
    model.register_parameter("codes", nn.Parameter(torch.ones(4, dtype=torch.int8), requires_grad=False))
    optimizer = ap.AdamWPrune(model.named_parameters(), prune=prune(), release_gradients=True)
    train(model, optimizer, 1, 12)
    assert optimizer.pruner.at_target
    assert all(p.grad is None for p in model.parameters())


def test_complex_parameters_out_of_scope_go_through_checkpoints():
    def made():
        model = mlp()
        model.register_parameter("phase", nn.Parameter(torch.ones(3, dtype=torch.cfloat)))
        return model, ap.AdamWPrune(model.named_parameters(), prune=prune())

    (model, optimizer), (other, loaded) = made(), made()
    for step in range(12):
        optimizer.zero_grad()
        (model(torch.ones(2, 8)).square().mean() + model.phase.abs().sum() * (step + 1)).backward()
        optimizer.step()
    loaded.load_state_dict(optimizer.state_dict())
    other.load_state_dict(model.state_dict())
    assert loaded.pruner.report()["tensors"] == optimizer.pruner.report()["tensors"]
    assert torch.equal(loaded.state[other.phase]["exp_avg_sq"], optimizer.state[model.phase]["exp_avg_sq"])


class LowRank(torch.optim.Optimizer):
    """Keeps moments of a projection, which are of another shape than the weight (GaLore, arXiv 2403.03507)."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.01, "betas": (0.9, 0.999)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros(2, *p.shape[1:]), exp_avg_sq=torch.zeros(2, *p.shape[1:]))
                state["step"] += 1
                state["exp_avg_sq"] += 1.0
                p.add_(p.grad, alpha=-group["lr"])


def low_rank(**settings):
    model = mlp()
    optimizer = LowRank(model.named_parameters())
    ap.attach(optimizer, prune(**settings))
    return model, optimizer


def test_moments_of_another_shape_are_no_obstacle_to_magnitude():
    model, optimizer = low_rank(score="magnitude")
    train(model, optimizer, 1, 8)
    saved, weights = through_a_file(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    other, loaded = low_rank(score="magnitude")
    other.load_state_dict(weights)
    loaded.load_state_dict(saved)
    train(model, optimizer, 9, 14)
    train(other, loaded, 9, 14)
    assert loaded.pruner.at_target
    assert stays_masked(loaded, other)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_moments_of_another_shape_cannot_rank(backend):
    model, optimizer = low_rank()
    with kernels.use(backend), pytest.raises(ValueError, match=r"LowRank keeps exp_avg of shape \[2, 8\] for 0.weight"):
        train(model, optimizer, 1, 14)
    assert not optimizer.pruner.named_masks()


class Wrapper(nn.Module):
    """A network with a part that is called as wrappers call theirs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.module = nn.Linear(8, 4, bias=False)
        self.scale = nn.Linear(8, 8, bias=False)

    def forward(self, x):
        return self.module(self.scale(x) @ self.weight)


@pytest.mark.parametrize("wrap", [lambda m: m, torch.optim.swa_utils.AveragedModel, torch.compile])
def test_copies_of_a_network_with_a_part_called_module(wrap):
    torch.manual_seed(0)
    model = Wrapper()
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=0.01, prune=prune())
    train(model, optimizer, 1, 12)
    other = wrap(copy.deepcopy(model))
    with torch.no_grad():
        for p in other.parameters():
            p.fill_(1.0)
    optimizer.pruner.apply_masks(other)
    found = [p for p in other.parameters() if p.dim() == 2]
    for p, keep in zip(found, optimizer.pruner.named_masks().values(), strict=True):
        assert torch.equal(p != 0, keep)
