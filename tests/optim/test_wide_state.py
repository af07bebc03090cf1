# SPDX-License-Identifier: MIT
"""State that is wider than its weight, and weights that cannot be pruned at all."""

from __future__ import annotations

import pytest
import torch

from adamwprune import AdamWPrune, Prune


def linear(dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Linear(6, 4).to(dtype)


def step(model, optimizer):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.parametrize("prune", [None, Prune(sparsity=0.5, total_steps=4)])
def test_float32_state_under_bfloat16_weights_is_kept_and_used(prune):
    source = linear()
    optimizer = AdamWPrune(source.named_parameters(), fused=True)
    step(source, optimizer)
    model = linear(torch.bfloat16)
    loaded = AdamWPrune(model.named_parameters(), fused=True, prune=prune)
    loaded.load_state_dict(optimizer.state_dict())
    for _ in range(4):
        step(model, loaded)
    assert all(s["exp_avg"].dtype == s["exp_avg_sq"].dtype == torch.float32 for s in loaded.state.values())
    expected = torch.tensor([1 - 0.9**5] * 4)
    torch.testing.assert_close(loaded.state[model.bias]["exp_avg"], expected)
    # torch's fused kernel would unscale in its own step, and these tensors do not go through it
    assert not loaded._step_supports_amp_scaling


def test_only_floating_weights_are_prunable():
    table = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    named = [*linear().named_parameters(), ("codes", table)]
    optimizer = AdamWPrune(named, prune=Prune(sparsity=0.5, total_steps=4))
    assert optimizer.pruner.report()["left_out"]["codes"] == "its weights are torch.int8"
