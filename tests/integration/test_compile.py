# SPDX-License-Identifier: MIT
"""torch.compile, of the model and of the step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.utils import counters
from workbench import KINDS, STEPS, accuracy, loss_of, network, ours, same, train, weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def train_compiled(model, optimizer, backend):
    step = torch.compile(optimizer.step, backend=backend)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, number).backward()
        step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_trains_without_recompiling_as_masks_change(kind):
    model = network()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = KINDS[kind](model)
    train(compiled, optimizer)
    assert optimizer.pruner.at_target
    assert accuracy(model) > 0.85
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiled_step_of_ours_runs_as_it_is():
    """One call that dynamo does not look into: the same bits, nothing compiled."""
    model, plain = network(), network()
    optimizer = ours(model)
    train_compiled(model, optimizer, "aot_eager")
    train(plain, ours(plain))
    assert same(weights(model), weights(plain))
    assert counters["stats"]["unique_graphs"] == 0


def test_a_compiled_step_of_an_attached_optimizer_is_torchs_own_graph():
    model = network()
    optimizer = KINDS["attached"](model)
    train_compiled(model, optimizer, "aot_eager")
    assert optimizer.pruner.step == STEPS
    assert optimizer.pruner.at_target
    for name, keep in optimizer.pruner.named_masks().items():
        p = model.get_parameter(name)
        assert not p.detach()[~keep].count_nonzero()
        assert not optimizer.state[p]["exp_avg_sq"][~keep].count_nonzero()
    assert accuracy(model) > 0.85
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiled_optimizer_goes_on_from_a_checkpoint_of_a_plain_one():
    model = network()
    optimizer = ours(model)
    train(model, optimizer, range(40))
    other = network(seed=1)
    resumed = ours(other)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step = torch.compile(resumed.step, backend="aot_eager")
    for number in range(40, STEPS):
        resumed.zero_grad()
        loss_of(other, number).backward()
        step()
    train(model, optimizer, range(40, STEPS))
    assert same(weights(model), weights(other))
