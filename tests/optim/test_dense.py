# SPDX-License-Identifier: MIT
"""Without pruning, every bit is torch's: prune=None and sparsity=0, for-loop, foreach and fused, over 50 steps."""

from __future__ import annotations

import pytest
import torch
from lab import backward, gradients, weights

from adamwprune import AdamWAdv, AdamWPrune, AdamWSPAM, Prune, Spam, attach

PATHS = [{}, {"foreach": False}, {"foreach": True}, {"fused": True}]
FLAGS = [
    {},
    {"lr": 0.02},
    {"weight_decay": 0.3},
    {"weight_decay": 0.0},
    {"amsgrad": True},
    {"maximize": True, "amsgrad": True, "weight_decay": 0.1},
    {"betas": (0.5, 0.9), "eps": 1e-3},
]
NOTHING = {
    "none": None,
    "zero": Prune(sparsity=0.0),
    "zero with total_steps": Prune(sparsity=0.0, total_steps=50, score="movement", regrow=0.1),
}


def fifty(make, dtype=torch.float32, steps=50):
    """Weights, and state by parameter number, after training."""
    named = weights(dtype=dtype)
    optimizer = make(named)
    for step in range(steps):
        optimizer.zero_grad()
        grads = gradients(named, step)
        if step % 7 == 3:
            grads[2] = None
        backward(named, grads)
        optimizer.step()
    return [p.detach() for _, p in named], optimizer.state_dict()["state"]


def same(a, b):
    assert all(torch.equal(p, q) for p, q in zip(a[0], b[0], strict=True))
    assert a[1].keys() == b[1].keys()
    for key, state in a[1].items():
        assert state.keys() == b[1][key].keys()
        for name, value in state.items():
            assert torch.equal(value, b[1][key][name])
            assert value.dtype == b[1][key][name].dtype


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("nothing", NOTHING)
def test_ours_is_torchs_adamw(path, flags, nothing):
    mine = fifty(lambda named: AdamWPrune(named, prune=NOTHING[nothing], **path, **flags))
    same(mine, fifty(lambda named: torch.optim.AdamW(named, **path, **flags)))


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(path, dtype):
    mine = fifty(lambda named: AdamWPrune(named, **path, eps=1e-4), dtype, 20)
    same(mine, fifty(lambda named: torch.optim.AdamW(named, **path, eps=1e-4), dtype, 20))


@pytest.mark.parametrize("path", [{}, {"foreach": False}, {"fused": True}], ids=str)
def test_a_tensor_learning_rate(path):
    mine = fifty(lambda named: AdamWPrune(named, lr=torch.tensor(0.01), **path))
    same(mine, fifty(lambda named: torch.optim.AdamW(named, lr=torch.tensor(0.01), **path)))


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_the_adam_base_is_torchs_adam(flags):
    mine = fifty(lambda named: AdamWPrune(named, base="adam", **{"weight_decay": 0.1, **flags}))
    same(mine, fifty(lambda named: torch.optim.Adam(named, **{"weight_decay": 0.1, **flags})))


@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda named, **k: torch.optim.SGD(named, lr=0.1, momentum=0.9, weight_decay=0.1, **k),
        lambda named, **k: torch.optim.SGD(named, lr=0.1, **k),
        lambda named, **k: torch.optim.Adam(named, weight_decay=0.1, **k),
        lambda named, **k: torch.optim.AdamW(named, **k),
    ],
    ids=["sgd-momentum", "sgd", "adam", "adamw"],
)
def test_attached_with_sparsity_zero_changes_nothing(path, make):
    def attached(named):
        optimizer = make(named, **path)
        attach(optimizer, Prune(sparsity=0.0))
        return optimizer

    same(fifty(attached), fifty(lambda named: make(named, **path)))


def test_bare_parameters_and_plain_groups_do_without_names():
    named = weights()
    for prune in NOTHING.values():
        optimizer = AdamWPrune([p for _, p in named], prune=prune)
        backward(named, gradients(named, 0))
        optimizer.step()
    assert AdamWPrune([{"params": [named[0][1]], "lr": 0.5}]).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_amsgrad_and_clipping_can_be_turned_off_in_the_advanced_one(path):
    """What is left is AdamW. (The original's AMSGrad could not be turned off.)"""
    mine = fifty(lambda named: AdamWAdv(named, amsgrad=False, clip_norm=0, **path))
    same(mine, fifty(lambda named: torch.optim.AdamW(named, **path)))


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_spam_without_clipping_and_resets_is_adamw(path):
    mine = fifty(lambda named: AdamWSPAM(named, spam=Spam(theta=None, interval=0), **path))
    same(mine, fifty(lambda named: torch.optim.AdamW(named, **path)))


def test_until_the_first_mask_the_step_is_torchs_own():
    mine = fifty(lambda named: AdamWPrune(named, prune=Prune(sparsity=0.5, total_steps=100, start=51)))
    same(mine, fifty(torch.optim.AdamW))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate"),
        ({"eps": -1.0}, "Invalid epsilon"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0"),
        ({"weight_decay": -1.0}, "Invalid weight_decay"),
        ({"lr": torch.tensor([0.1, 0.2])}, "Tensor lr must be 1-element"),
        ({"lr": torch.tensor(0.1), "foreach": True}, "lr as a Tensor is not supported"),
    ],
)
def test_constructor_errors_are_torchs(arguments, message):
    for cls in (torch.optim.AdamW, AdamWPrune):
        with pytest.raises(ValueError, match=message):
            cls([torch.nn.Parameter(torch.zeros(2))], **arguments)
    for cls in (torch.optim.AdamW, AdamWPrune):
        with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
            cls([torch.nn.Parameter(torch.zeros(2))], fused=True, foreach=True)


def test_defaults_are_torchs_adamws():
    ours, theirs = AdamWPrune(mlp_parameters()).defaults, torch.optim.AdamW(mlp_parameters()).defaults
    assert ours == theirs


def mlp_parameters():
    return [torch.nn.Parameter(torch.zeros(2, 2))]
