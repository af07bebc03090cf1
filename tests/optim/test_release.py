# SPDX-License-Identifier: MIT
"""Stepping during backward: the bits of the plain order, one gradient at a time, and what cannot go with it."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import equal, mlp, prune, train, twin

from adamwprune import AdamWPrune, Prune, Spam, attach, clip_grad_norm_

OPTIONS = {
    "dense": {"prune": None},
    "pruned": {"prune": prune(sparsity=0.6, schedule="linear")},
    "movement": {"prune": prune(score="movement", mask_grads=False)},
    "amsgrad": {"prune": prune(distribution="global"), "amsgrad": True},
    "8bit": {"prune": prune(), "state": "8bit"},
    "spam": {"prune": prune(), "base": "adamwspam", "spam": Spam(interval=5, min_age=1, warmup=2, theta=2.0)},
}


def make(name, model, *, release, **options):
    return AdamWPrune(model.named_parameters(), lr=0.01, release_gradients=release, **OPTIONS[name], **options)


def run(name, *, release, steps=14):
    model = mlp()
    optimizer = make(name, model, release=release)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    train(model, optimizer, 1, steps, after=lambda _: scheduler.step())
    return model, optimizer


@pytest.mark.parametrize("name", OPTIONS)
def test_the_bits_are_those_of_the_plain_order(name):
    (model, released), (expected, plain) = (run(name, release=release) for release in (True, False))
    assert equal(model, expected)
    state, other = released.state_dict()["state"], plain.state_dict()["state"]
    for key, entry in state.items():
        assert all(torch.equal(value, other[key][field]) for field, value in entry.items())
    if released.pruner is not None:
        assert released.pruner.at_target
        assert released.pruner.step == plain.pruner.step == 14


def test_gradients_are_never_all_alive():
    model = mlp()
    alive = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(q.grad is not None for q in model.parameters()))
        )
    optimizer = make("pruned", model, release=True)
    train(model, optimizer, 1, 3)
    assert len(alive) == 3 * 6
    assert max(alive) == 1
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.pruner.report()["bytes"]["gradients"] == 0


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_copies_and_resumed_runs_release_too(stop):
    model, optimizer = run("pruned", release=True, steps=stop)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    resumed_model, resumed = twin(lambda m: make("pruned", m, release=True), model, optimizer)
    copied_model, copied = copy.deepcopy((model, optimizer))
    for other_model, other in ((model, optimizer), (resumed_model, resumed), (copied_model, copied)):
        train(other_model, other, stop + 1, 12)
        assert all(p.grad is None for p in other_model.parameters())
    assert equal(model, resumed_model)
    assert equal(model, copied_model)


def test_gradients_that_were_set_by_hand_are_used_by_step():
    (model, released), (expected, plain) = (run("pruned", release=release, steps=5) for release in (True, False))
    for m, optimizer in ((model, released), (expected, plain)):
        optimizer.zero_grad()
        for p in m.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert equal(model, expected)
    assert released.pruner.step == 6


def test_parameters_that_join_late_and_dropped_optimizers():
    model, extra = mlp(), torch.nn.Linear(4, 4)
    optimizer = AdamWPrune(model.named_parameters(), lr=0.01, release_gradients=True)
    optimizer.add_param_group({"params": [(f"late.{name}", p) for name, p in extra.named_parameters()]})
    before = extra.weight.detach().clone()
    extra(model(torch.ones(2, 8))).sum().backward()
    assert extra.weight.grad is None
    assert not torch.equal(extra.weight, before)
    del optimizer
    extra(model(torch.ones(2, 8))).sum().backward()
    assert extra.weight.grad is not None


def test_a_second_backward_is_refused():
    model, optimizer = run("pruned", release=True, steps=2)
    model(torch.ones(2, 8)).sum().backward()
    with pytest.raises(ValueError, match="one step to a backward"):
        model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    model(torch.ones(2, 8)).sum().backward()


def test_later_requests_for_gradients_are_refused():
    model, optimizer = run("pruned", release=True, steps=2)
    with pytest.raises(ValueError, match="nothing to clip"):
        clip_grad_norm_(optimizer, 1.0)
    with pytest.raises(ValueError, match="without a closure"):
        optimizer.step(lambda: None)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.ones(2, 8)).sum()).backward()
    with pytest.raises(ValueError, match="GradScaler"):
        scaler.step(optimizer)
    with pytest.raises(ValueError, match="no gradients for an attached pruner"):
        attach(AdamWPrune(mlp().named_parameters(), release_gradients=True), prune())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 1.0}, "clip_norm=1.0 needs the norm"),
        ({"base": "adamwadv"}, "clip_norm=1.0 needs the norm"),
        ({"base": "adamwspam", "spam": Spam(zscore=2.0)}, "zscore"),
        ({"prune": prune(regrow=0.3)}, "regrow"),
        ({"prune": prune(score="taylor")}, "the score ranks by the gradients"),
        ({"prune": prune(distribution="taylor")}, "the score ranks by the gradients"),
        ({"prune": Prune(sparsity=0.5, total_steps=9, score=lambda w, m, v, g: w.abs())}, "the score ranks"),
        ({"differentiable": True}, "differentiable"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_options_that_need_gradients_later_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdamWPrune(mlp().named_parameters(), release_gradients=True, **options)


def test_other_ranks_are_refused(monkeypatch):
    model = mlp()
    optimizer = make("pruned", model, release=True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="before they are reduced"):
        model(torch.ones(2, 8)).sum().backward()
    assert not optimizer.state


def test_a_checkpoint_loaded_after_backward_begins_the_round_anew():
    """A run that rolls back between backward and step goes on as if the backward had not been."""
    model, other = mlp(), mlp()
    optimizer, plain = make("pruned", model, release=True), make("pruned", other, release=False)
    train(model, optimizer, 1, 7)
    saved = copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    model(torch.randn(6, 8)).sum().backward()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train(model, optimizer, 8, 14)
    train(other, plain, 1, 14)
    assert equal(model, other)
