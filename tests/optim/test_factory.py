# SPDX-License-Identifier: MIT
"""create_optimizer: six names, which of them prune by which method, and what is refused."""

from __future__ import annotations

import pytest
import torch
from lab import mlp, prune, train
from torch import nn

from adamwprune import AdamWAdv, AdamWPrune, AdamWSPAM, Prune, Spam, attach, create_optimizer
from adamwprune.optim import OPTIMIZERS
from adamwprune.prune import SCORES, STATE_FAMILY

CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamwadv": AdamWAdv,
    "adamwspam": AdamWSPAM,
    "adamwprune": AdamWPrune,
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_name_is_its_class_with_its_settings(name):
    optimizer = create_optimizer(name, mlp(), lr=0.02, weight_decay=0.3)
    assert type(optimizer) is CLASSES[name]
    assert optimizer.pruner is None
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    assert sorted({group["weight_decay"] for group in optimizer.param_groups}) == [0.0, 0.3]
    assert set(CLASSES) == set(OPTIMIZERS)


def test_settings_reach_the_optimizer():
    sgd = create_optimizer("sgd", mlp(), lr=0.1, momentum=0.5)
    assert sgd.defaults["momentum"] == 0.5
    assert create_optimizer("sgd", mlp(), lr=0.1).defaults["momentum"] == 0.9
    adam = create_optimizer("adam", mlp(), lr=0.1, betas=(0.8, 0.9), eps=1e-3, amsgrad=True)
    assert (adam.defaults["betas"], adam.defaults["eps"], adam.defaults["amsgrad"]) == ((0.8, 0.9), 1e-3, True)
    spam = create_optimizer("adamwspam", mlp(), lr=0.1, spam=Spam(interval=77))
    assert spam.spam_clock.settings.interval == 77
    adv = create_optimizer("adamwadv", mlp(), lr=0.1, clip_norm=3.0)
    assert (adv.clip_norm, adv.defaults["amsgrad"]) == (3.0, True)
    both = create_optimizer("adamwprune", mlp(), lr=0.1, base="adamwspam", spam=Spam(interval=66), prune=prune())
    assert (both.spam_clock.settings.interval, both.base) == (66, "adamwspam")


@pytest.mark.parametrize("name", ["adamwspam", "adamwprune"])
def test_smaller_state_and_release_reach_our_own_and_are_refused_elsewhere(name):
    small = create_optimizer(
        name, mlp().to(torch.bfloat16), lr=0.1, state="8bit", correction=True, release_gradients=True
    )
    assert (small.form.state, small.form.correction, small.release is not None) == ("8bit", True, True)
    for argument in ({"state": "8bit"}, {"correction": True}, {"release_gradients": True}):
        with pytest.raises(ValueError, match=f"{next(iter(argument))} has no effect on optimizer 'adamw'"):
            create_optimizer("adamw", mlp(), lr=0.1, **argument)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", CLASSES)
def test_which_optimizer_prunes_by_which_score(name, score):
    """Magnitude and movement for all six; the moments' scores wherever moments are kept."""
    model = mlp()
    if name == "sgd" and SCORES[score].needs_moments:
        with pytest.raises(ValueError, match=r"ranks by Adam's moments, and SGD keeps none: use score magnitude"):
            create_optimizer(name, model, lr=0.01, prune=prune(score=score))
        return
    optimizer = create_optimizer(name, model, lr=0.01, prune=prune(score=score))
    train(model, optimizer, 1, 12)
    assert optimizer.pruner.at_target
    assert optimizer.pruner.report()["sparsity"] == 0.5


def test_the_state_family_is_what_state_may_rank_by():
    assert "state" in STATE_FAMILY
    assert "magnitude" not in STATE_FAMILY


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("adamax", {}, "unknown optimizer 'adamax': expected one of sgd, adam, adamw, adamwadv, adamwspam, adamwprune"),
        ("adamw", {"base": "adam"}, "base has no effect on optimizer 'adamw'"),
        ("adam", {"spam": Spam()}, "spam has no effect on optimizer 'adam'"),
        ("adamwspam", {"clip_norm": 1.0}, "clip_norm has no effect"),
        ("sgd", {"amsgrad": True}, "amsgrad has no effect"),
        ("sgd", {"betas": (0.9, 0.99)}, "betas has no effect on optimizer 'sgd'"),
        ("adamw", {"momentum": 0.9}, "momentum has no effect on optimizer 'adamw'"),
        ("adamwprune", {"base": "rmsprop"}, "unknown base 'rmsprop'"),
        ("sgd", {"prune": prune(distribution="fisher", score="magnitude")}, "distribution 'fisher'"),
    ],
)
def test_refusals(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_optimizer(name, mlp(), lr=0.1, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: AdamWPrune(m.parameters(), prune=prune()), r"named_parameters\(\), or adamwprune.param_groups"),
        (
            lambda m: attach(torch.optim.AdamW(m.parameters()), prune()),
            r"named_parameters\(\), or adamwprune.param_groups",
        ),
        (lambda m: AdamWPrune(m.named_parameters(), prune=prune(include=("conv*",))), "include='conv.*' matches no"),
        (lambda m: AdamWPrune(m.named_parameters(), prune=prune(exclude=("x",))), "exclude='x' matches no"),
        (lambda m: AdamWPrune(m.named_parameters(), prune=prune(exclude=("*.weight",))), "nothing is prunable"),
        (
            lambda m: AdamWPrune(m.named_parameters(), prune=prune(sparsity=0.7, distribution="erk", min_density=0.3)),
            "the network .* short of min_density",
        ),
        (lambda m: attach(AdamWPrune(m.named_parameters(), prune=prune()), prune()), "has a pruner already"),
        (
            lambda m: attach(torch.optim.AdamW(m.named_parameters(), differentiable=True), prune()),
            "differentiable=True does not go",
        ),
        (
            lambda m: AdamWPrune([("w", nn.Parameter(torch.zeros(4, 4, dtype=torch.complex64)))], prune=prune()),
            "w is complex: only dense real weights",
        ),
    ],
)
def test_refusals_of_what_cannot_be_pruned(make, message):
    with pytest.raises(ValueError, match=message):
        make(mlp())


@pytest.mark.parametrize("make", [AdamWPrune, torch.optim.AdamW])
def test_missing_total_steps_are_refused_at_the_first_step_and_can_come_late(make):
    model = mlp()
    if make is AdamWPrune:
        optimizer = make(model.named_parameters(), prune=Prune(sparsity=0.5))
    else:
        optimizer = make(model.named_parameters())
        attach(optimizer, Prune(sparsity=0.5))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=r"needs total_steps.*set_total_steps\(N\) before the first step"):
        train(model, optimizer, 1, 1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    optimizer.pruner.set_total_steps(20)
    train(model, optimizer, 1, 16)
    assert optimizer.pruner.at_target
    assert optimizer.pruner.last_update == 15
    with pytest.raises(ValueError, match="cannot change at step 16"):
        optimizer.pruner.set_total_steps(40)


def test_set_total_steps_checks_the_window():
    optimizer = AdamWPrune(mlp().named_parameters(), prune=Prune(sparsity=0.5, start=30, end=60))
    with pytest.raises(ValueError, match="after the run's 50 steps"):
        optimizer.pruner.set_total_steps(50)
    optimizer.pruner.set_total_steps(100)
    assert optimizer.pruner.end == 60
    optimizer.pruner.set_total_steps(80)
    assert AdamWPrune(mlp().named_parameters(), prune=Prune(sparsity=0.0)).pruner.end is None


def test_an_optimizer_without_moments_is_noticed_at_the_latest_when_it_ranks():
    """RMSprop with a `betas` default of its own would pass the first check."""
    model = mlp()
    optimizer = torch.optim.RMSprop(model.named_parameters(), lr=0.01)
    optimizer.defaults["betas"] = (0.9, 0.99)
    attach(optimizer, prune())
    with pytest.raises(ValueError, match=r"needs exp_avg and exp_avg_sq, and RMSprop keeps"):
        train(model, optimizer, 1, 3)


@pytest.mark.parametrize("make", ["ours", "sgd"])
def test_sparse_gradients_are_refused(make):
    table = nn.Embedding(9, 4, sparse=True)
    settings = prune(score="magnitude", include=("weight",))
    if make == "ours":
        optimizer = AdamWPrune(table.named_parameters(), prune=settings)
    else:
        optimizer = torch.optim.SGD(table.named_parameters(), lr=0.1)
        attach(optimizer, settings)

    def five_steps():
        for _ in range(5):
            optimizer.zero_grad()
            table(torch.tensor([1, 2])).sum().backward()
            optimizer.step()

    with pytest.raises((ValueError, RuntimeError), match="sparse gradient"):
        five_steps()


def test_sparsity_zero_attaches_to_anything():
    attach(torch.optim.SGD(mlp().named_parameters(), lr=0.1), Prune(sparsity=0.0))
