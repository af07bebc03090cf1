# SPDX-License-Identifier: MIT
"""What happens to a training run: skipped steps, tied weights, frozen tensors, late groups. Exactness holds."""

from __future__ import annotations

import pytest
import torch
from lab import against_oracle, attached, backward, equal, gradients, mlp, ours, prune, step_beside, train, weights
from oracle import MaskedAdam
from torch import nn

from adamwprune import AdamWPrune, attach

KINDS = {"ours": ours, "attached": attached}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["state", "movement", "taylor"])
def test_steps_that_gradscaler_skips_are_not_steps(kind, score):
    named = weights()
    oracle = MaskedAdam(named, score=score)
    optimizer = KINDS[kind](named, prune(score=score))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    for step in range(24):
        optimizer.zero_grad()
        grads = gradients(named, step)
        overflows = step % 3 == 1
        if overflows:
            grads[2][3] = torch.inf
        scale = scaler.get_scale()
        backward(named, [g * scale for g in grads])
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update()
        if not overflows:
            oracle.step(grads)
        against_oracle(optimizer, named, oracle)
        assert optimizer.pruner.step == oracle.count
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("score", ["state", "movement"])
def test_attached_to_a_fused_optimizer_that_unscales_by_itself(score):
    """Under GradScaler a fused optimizer is handed scaled gradients, and is called for skipped steps too."""
    models = []
    for scaled in (False, True):
        model = mlp()
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01, fused=True)
        pruner = attach(optimizer, prune(score=score))
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=100, enabled=scaled)
        for step in range(18):
            overflows = scaled and step % 6 == 2
            batch = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            scaler.scale(model(batch).square().mean()).backward()
            if step % 6 == 2:
                if not scaled:
                    continue
                model[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update(256.0)
            assert not overflows or pruner.step == step - step // 6
        assert pruner.step == 15
        models.append(model)
    assert equal(*models)


def test_a_fused_step_unscales_before_it_prunes_and_clips():
    assert AdamWPrune(mlp().parameters(), fused=True)._step_supports_amp_scaling
    pruning = AdamWPrune(mlp().named_parameters(), fused=True, prune=prune())
    clipping = AdamWPrune(mlp().parameters(), fused=True, clip_norm=1.0)
    assert not pruning._step_supports_amp_scaling
    assert not clipping._step_supports_amp_scaling


@pytest.mark.parametrize("kind", KINDS)
def test_tied_weights_are_one_tensor(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    named = list(model.named_parameters())
    assert [name for name, _ in named] == ["0.weight", "0.bias", "2.bias"]
    oracle = MaskedAdam(named)
    optimizer = KINDS[kind](named, prune())
    for step in range(14):
        optimizer.zero_grad()
        model(torch.randn(4, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        grads = [p.grad.clone() for _, p in named]
        optimizer.step()
        oracle.step(grads)
        against_oracle(optimizer, named, oracle)
    assert list(optimizer.pruner.report()["tensors"]) == ["0.weight"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["state", "magnitude", "movement"])
def test_frozen_from_the_start(kind, score):
    model = mlp()
    model[2].weight.requires_grad_(False)
    before = model[2].weight.clone()
    optimizer = KINDS[kind](model.named_parameters(), prune(score=score))
    train(model, optimizer, 1, 14)
    assert torch.equal(model[2].weight, before)
    assert optimizer.pruner.report()["left_out"]["2.weight"] == "frozen"
    assert optimizer.pruner.at_target
    assert (model[0].weight == 0).sum() == 48


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["state", "magnitude"])
def test_unfrozen_later_it_is_pruned_and_its_gradients_are_masked(kind, score):
    model = mlp()
    model[2].weight.requires_grad_(False)
    optimizer = KINDS[kind](model.named_parameters(), prune(score=score))
    train(model, optimizer, 1, 5)
    model[2].weight.requires_grad_(True)
    train(model, optimizer, 6, 12)
    assert (model[2].weight == 0).sum() == 48
    optimizer.zero_grad()
    model(torch.randn(4, 8)).sum().backward()
    assert not model[2].weight.grad[model[2].weight == 0].count_nonzero()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["state", "magnitude"])
def test_frozen_in_the_middle_it_does_not_change(kind, score):
    model = mlp()
    optimizer = KINDS[kind](model.named_parameters(), prune(score=score))
    train(model, optimizer, 1, 5)
    model[2].weight.requires_grad_(False)
    model[2].weight.grad = None
    before = model[2].weight.clone()
    train(model, optimizer, 6, 14)
    assert torch.equal(model[2].weight, before)
    assert (model[0].weight == 0).sum() == 48


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["state", "movement"])
def test_a_late_group_joins_with_its_own_age(kind, score):
    """Bias correction per tensor lets the late group compare fairly under one global threshold."""
    named, late = weights([(5, 7), (6, 6)]), [("late.weight", weights([(9, 5)], seed=7)[0][1])]
    settings = {"score": score, "distribution": "global"}
    oracle = MaskedAdam(named, weight_decay=0.1, **settings)
    optimizer = KINDS[kind](named, prune(**settings), weight_decay=0.1)
    for step in range(14):
        if step == 5:
            optimizer.add_param_group({"params": late})
            oracle.add(*late[0])
            named = [*named, *late]
        step_beside(optimizer, named, oracle, step)
    assert optimizer.pruner.at_target
    assert "late.weight" in optimizer.pruner.named_masks()


@pytest.mark.parametrize("score", ["state", "movement", "taylor"])
def test_a_tensor_that_never_got_a_gradient_waits(score):
    model, idle = mlp(), nn.Parameter(torch.randn(5, 5))
    optimizer = AdamWPrune([*model.named_parameters(), ("idle.weight", idle)], prune=prune(score=score))
    train(model, optimizer, 1, 12)
    assert idle.count_nonzero() == 25
    assert "idle.weight" in optimizer.pruner.report()["left_out"]
    assert optimizer.pruner.at_target


def test_a_late_group_that_cannot_be_pruned_is_refused_at_once():
    """And the run goes on without it."""
    named = weights()
    optimizer = ours(named, prune())
    late = [("tiny.weight", nn.Parameter(torch.randn(1, 1))), ("tiny.bias", nn.Parameter(torch.randn(1)))]
    with pytest.raises(ValueError, match="min_density"):
        optimizer.add_param_group({"params": late})
    assert len(optimizer.param_groups) == 1
    assert not any("tiny" in name for name in optimizer.pruner.report()["left_out"])
    backward(named, gradients(named, 1))
    optimizer.step()
    assert optimizer.pruner.step == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"score": "movement"}], ids=["state", "movement"])
def test_going_uphill(kind, options):
    """With ``maximize`` a weight moves along its gradient; away from zero is the other way round."""
    named = weights()
    oracle = MaskedAdam(named, maximize=True, **options)
    optimizer = KINDS[kind](named, prune(**options), maximize=True)
    for step in range(14):
        step_beside(optimizer, named, oracle, step)


def test_a_module_of_its_own_dtype_beside_others():
    """bfloat16 and float32 tensors in one optimizer: each keeps its dtype and equals its oracle."""
    named = [*weights([(9, 7)]), ("half.weight", weights([(8, 6)], torch.bfloat16)[0][1])]
    oracle = MaskedAdam(named, distribution="global")
    optimizer = ours(named, prune(distribution="global"))
    for step in range(14):
        step_beside(optimizer, named, oracle, step)
    assert optimizer.state[named[1][1]]["exp_avg"].dtype == torch.bfloat16
