# SPDX-License-Identifier: MIT
"""The training loop does not change: hooks, closures, schedulers, compiled models, copies, and what is in the state."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import equal, mlp, prune, train
from torch.optim import lr_scheduler

from adamwprune import AdamWAdv, AdamWPrune, AdamWSPAM, Spam, attach, create_optimizer
from adamwprune.optim import OPTIMIZERS


def own(model, **settings):
    return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**settings))


def theirs(model, **settings):
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    attach(optimizer, prune(**settings))
    return optimizer


KINDS = {"ours": own, "attached": theirs}


@pytest.mark.parametrize("others_first", [True, False])
@pytest.mark.parametrize("cls", [AdamWPrune, AdamWSPAM, AdamWAdv])
def test_step_hooks_fire_exactly_once(cls, others_first):
    """torch wraps ``step`` of each class it instantiates: a subclass that calls up would fire hooks twice."""
    plain = [torch.nn.Parameter(torch.zeros(1))]
    if others_first:
        torch.optim.AdamW(plain)
        torch.optim.Adam(plain)
    model = mlp()
    optimizer = cls(model.named_parameters())
    if not others_first:
        torch.optim.AdamW(plain)
        torch.optim.Adam(plain)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(model, optimizer, 1, 3)
    assert calls == ["before", "after"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_closures_run_once_under_enabled_gradients(kind):
    plain, closed = mlp(), mlp()
    reference, optimizer = KINDS[kind](plain, score="movement"), KINDS[kind](closed, score="movement")
    train(plain, reference, 1, 14)
    calls = []

    def closure():
        assert torch.is_grad_enabled()
        calls.append(len(calls) + 1)
        optimizer.zero_grad()
        batch = torch.randn(6, 8, generator=torch.Generator().manual_seed(calls[-1]))
        loss = (closed(batch) - 1.0).square().mean()
        loss.backward()
        return loss

    for step in range(1, 15):
        with torch.no_grad():
            loss = optimizer.step(closure) if step % 2 else optimizer.step(closure=closure)
        assert loss.requires_grad
    assert calls == list(range(1, 15))
    assert equal(plain, closed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=20),
        lambda o: lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 4)),
        lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20),
    ],
    ids=["onecycle", "lambda from zero", "cosine"],
)
def test_schedulers(kind, make):
    """They rewrite lr (and betas), also to zero at the first step, which is a step like any other."""
    model, reference = mlp(), mlp()
    optimizer, dense = KINDS[kind](model, start=13, end=14), torch.optim.AdamW(reference.named_parameters(), lr=0.01)
    schedules = make(optimizer), make(dense)
    for step in range(1, 13):
        for m, o, s in ((model, optimizer, schedules[0]), (reference, dense, schedules[1])):
            train(m, o, step, step)
            s.step()
        assert equal(model, reference)
        assert optimizer.pruner.step == step
    train(model, optimizer, 13, 14)
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(kind, backend):
    torch._dynamo.reset()
    model, plain = mlp(), mlp()
    compiled = torch.compile(model, backend=backend)
    optimizer, reference = KINDS[kind](compiled), KINDS[kind](plain)
    train(compiled, optimizer, 1, 14)
    train(plain, reference, 1, 14)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert list(optimizer.pruner.report()["tensors"]) == [
        "_orig_mod.0.weight",
        "_orig_mod.2.weight",
        "_orig_mod.4.weight",
    ]
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_holds_tensors_and_numbers_under_parameters(name):
    model = mlp()
    optimizer = create_optimizer(name, model, lr=0.01, prune=prune(score="movement"))
    train(model, optimizer, 1, 12)
    parameters = set(model.parameters())
    assert set(optimizer.state) <= parameters
    for state in optimizer.state.values():
        assert all(isinstance(value, (torch.Tensor, int, float)) for value in state.values() if value is not None)
    for state in optimizer.state_dict()["state"].values():
        assert all(isinstance(value, (torch.Tensor, int, float)) for value in state.values() if value is not None)


def test_foreign_keys_in_state_and_groups_survive():
    """A framework may keep its own notes there."""
    model = mlp()
    optimizer = own(model)
    train(model, optimizer, 1, 5)
    optimizer.state[model[0].weight]["note"] = torch.tensor([1.0, 2.0, 3.0])
    optimizer.param_groups[0]["initial_lr"] = 0.5
    resumed = own(mlp())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.param_groups[0]["initial_lr"] == 0.5
    assert resumed.state[resumed.param_groups[0]["params"][0]]["note"].tolist() == [1.0, 2.0, 3.0]


def test_a_discarded_optimizer_no_longer_masks_gradients():
    model = mlp()
    optimizer = own(model)
    train(model, optimizer, 1, 12)
    optimizer.zero_grad()
    del optimizer
    model(torch.randn(3, 8)).sum().backward()
    assert model[0].weight.grad[model[0].weight == 0].count_nonzero()


@pytest.mark.parametrize(
    "make", [own, lambda m: AdamWSPAM(m.parameters(), spam=Spam()), lambda m: AdamWAdv(m.parameters())]
)
def test_repr_and_zero_grad_and_no_gradients_at_all(make):
    model = mlp()
    optimizer = make(model)
    assert "lr: 0.0" in repr(optimizer)
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.zero_grad()
        optimizer.step()
    assert all(torch.equal(x, before[k]) for k, x in model.state_dict().items())


def test_mask_grads_off_leaves_gradients_and_trains_the_same():
    models = [mlp(), mlp()]
    optimizers = [own(models[0]), own(models[1], mask_grads=False)]
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 1, 14)
    assert equal(*models)
    optimizers[1].zero_grad()
    models[1](torch.randn(3, 8)).sum().backward()
    assert models[1][0].weight.grad[models[1][0].weight == 0].count_nonzero()
