# SPDX-License-Identifier: MIT
"""Resumed equals never stopped, bit for bit: before, on and after a mask update, for every kind of optimizer."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from lab import equal, mlp, prune, train, twin

from adamwprune import AdamWAdv, AdamWPrune, AdamWSPAM, Spam, attach, create_optimizer
from adamwprune.optim import OPTIMIZERS
from adamwprune.prune import SCORES

SPAM = Spam(interval=6, min_age=2, warmup=3, theta=4.0, zscore=1.0, history=10)


def on(make, **settings):
    """An attached optimizer."""

    def build(model):
        optimizer = make(model.named_parameters())
        attach(optimizer, prune(**settings))
        return optimizer

    return build


def own(settings=None, **options):
    return lambda model: AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**(settings or {})), **options)


MAKERS = {
    "compact": own(),
    "compact amsgrad": own(amsgrad=True),
    "coupled": own(base="adam", weight_decay=0.1),
    "regrow": own({"regrow": 0.3}),
    "movement": own({"score": "movement"}),
    "movement regrow": own({"score": "movement", "regrow": 0.3}),
    "global": own({"distribution": "global", "score": "hybrid"}),
    "2:4": own({"pattern": "2:4"}),
    "unmasked gradients": own({"mask_grads": False}),
    "spam": own(base="adamwspam", spam=SPAM),
    "advanced": own(base="adamwadv"),
    "sgd": on(lambda p: torch.optim.SGD(p, lr=0.1), score="magnitude"),
    "sgd momentum": on(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), score="magnitude"),
    "sgd movement": on(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), score="movement"),
    "attached adam": on(lambda p: torch.optim.Adam(p, lr=0.01)),
    "attached adamw": on(lambda p: torch.optim.AdamW(p, lr=0.01)),
    "attached fused": on(lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)),
    "attached regrow": on(lambda p: torch.optim.AdamW(p, lr=0.01), regrow=0.3),
    "attached spam": on(lambda p: AdamWSPAM(p, lr=0.01, spam=SPAM)),
    "attached advanced": on(lambda p: AdamWAdv(p, lr=0.01)),
    "attached rmsprop": on(lambda p: torch.optim.RMSprop(p, lr=0.01), score="taylor"),
}


def same_report(a, b):
    a, b = a.pruner.report(), b.pruner.report()
    assert {k: v for k, v in a.items() if "bytes" not in k} == {k: v for k, v in b.items() if "bytes" not in k}


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 10, 12])
@pytest.mark.parametrize("name", MAKERS)
def test_resumed_equals_never_stopped(name, stop):
    """Updates come at steps 2, 4, 6, 8 and 10."""
    model = mlp()
    optimizer = MAKERS[name](model)
    train(model, optimizer, 1, stop)
    other, resumed = twin(MAKERS[name], model, optimizer)
    if "spam" not in name:
        same_report(optimizer, resumed)
    for step in range(stop + 1, 15):
        train(model, optimizer, step, step)
        train(other, resumed, step, step)
        assert equal(model, other), f"step {step}"
    same_report(optimizer, resumed)
    assert resumed.pruner.at_target
    assert resumed.pruner.report()["bytes"] == optimizer.pruner.report()["bytes"]


@pytest.mark.parametrize("score", SCORES)
def test_every_score_resumes(score):
    model = mlp()
    optimizer = own({"score": score, "distribution": "global"})(model)
    train(model, optimizer, 1, 5)
    other, resumed = twin(own({"score": score, "distribution": "global"}), model, optimizer)
    train(model, optimizer, 6, 14)
    train(other, resumed, 6, 14)
    assert equal(model, other)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_factory_resumes(name, pruned):
    def make(model):
        settings = prune(score="magnitude") if pruned else None
        return create_optimizer(name, model, lr=0.01, weight_decay=0.1, prune=settings)

    model = mlp()
    optimizer = make(model)
    train(model, optimizer, 1, 5)
    other, resumed = twin(make, model, optimizer)
    train(model, optimizer, 6, 14)
    train(other, resumed, 6, 14)
    assert equal(model, other)


def test_a_frozen_tensor_is_still_left_out_after_resuming():
    def make(model):
        model[2].weight.requires_grad_(False)
        return own()(model)

    model = mlp()
    optimizer = make(model)
    train(model, optimizer, 1, 12)
    _, resumed = twin(make, model, optimizer)
    assert optimizer.pruner.at_target
    assert resumed.pruner.at_target
    same_report(optimizer, resumed)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["compact", "regrow", "movement", "spam", "advanced", "2:4"])
def test_copies_of_model_and_optimizer_continue_alike_and_apart(name, how):
    model = mlp()
    optimizer = MAKERS[name](model)
    train(model, optimizer, 1, 5)
    optimizer.zero_grad()
    pair = (model, optimizer)
    other, twin_optimizer = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    assert twin_optimizer.pruner.optimizer is twin_optimizer
    assert all(any(p is q for q in other.parameters()) for g in twin_optimizer.param_groups for p in g["params"])
    untouched = copy.deepcopy(other.state_dict())
    train(model, optimizer, 6, 14)
    assert all(torch.equal(x, untouched[k]) for k, x in other.state_dict().items())
    train(other, twin_optimizer, 6, 14)
    assert equal(model, other)
    assert twin_optimizer.pruner.at_target
    twin_optimizer.zero_grad()
    other(torch.randn(3, 8)).sum().backward()
    assert not other[0].weight.grad[other[0].weight == 0].count_nonzero()


@pytest.mark.parametrize("name", ["attached spam", "attached advanced"])
def test_copies_of_an_attached_optimizer_can_be_attached_to(name):
    """torch's copies keep no hooks; a pruner without hooks would train dense in silence."""
    model = mlp()
    optimizer = MAKERS[name](model)
    train(model, optimizer, 1, 5)
    other, bare = copy.deepcopy((model, optimizer))
    assert getattr(bare, "pruner", None) is None
    attach(bare, prune())
    bare.load_state_dict(through_state_dict(optimizer))
    train(model, optimizer, 6, 14)
    train(other, bare, 6, 14)
    assert equal(model, other)


def through_state_dict(optimizer):
    return copy.deepcopy(optimizer.state_dict())


def test_a_copy_of_the_model_alone_is_free_of_hooks():
    model = mlp()
    optimizer = own()(model)
    train(model, optimizer, 1, 12)
    free = copy.deepcopy(model)
    free(torch.randn(3, 8)).sum().backward()
    assert free[0].weight.grad[free[0].weight == 0].count_nonzero()
