# SPDX-License-Identifier: MIT
"""What each base adds, alone and under pruning."""

from __future__ import annotations

import pytest
import torch
from lab import against_oracle, backward, gradients, mlp, prune, step_beside, train, weights
from oracle import MaskedAdam
from torch.nn.utils import clip_grad_norm_

from adamwprune import AdamWAdv, AdamWPrune, AdamWSPAM, Spam


def test_the_advanced_base_turns_amsgrad_on():
    assert AdamWAdv(weights()).param_groups[0]["amsgrad"] is True
    assert AdamWPrune(weights(), base="adamwadv").param_groups[0]["amsgrad"] is True
    assert AdamWPrune(weights(), base="adamwadv", amsgrad=False).param_groups[0]["amsgrad"] is False
    assert AdamWPrune(weights(), base="adamwspam").param_groups[0]["amsgrad"] is False
    assert AdamWPrune(weights(), amsgrad=True).param_groups[0]["amsgrad"] is True


def test_amsgrad_acts():
    """After one large gradient the second moment stays at its maximum."""
    named = weights([(4, 4)])
    optimizer = AdamWAdv(named, betas=(0.9, 0.5))
    for step in range(12):
        optimizer.zero_grad()
        backward(named, [torch.full((4, 4), 0.25 if step == 0 else 1e-3)])
        optimizer.step()
    state = optimizer.state[named[0][1]]
    torch.testing.assert_close(state["max_exp_avg_sq"], torch.full((4, 4), 0.25**2 / 2))
    assert state["exp_avg_sq"].max() < 1e-4


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize(("base", "clip_norm"), [("adamwadv", None), ("adamwadv", 0.3), ("adamw", 0.2), ("adam", 5.0)])
def test_clipping_acts_as_torchs_before_the_step(pruned, base, clip_norm):
    named = weights()
    settings = prune() if pruned else None
    oracle = MaskedAdam(named, decoupled=base != "adam", amsgrad=base == "adamwadv", sparsity=0.5 if pruned else 0.0)
    optimizer = AdamWPrune(named, prune=settings, base=base, clip_norm=clip_norm)
    for step in range(14):
        optimizer.zero_grad()
        grads = gradients(named, step)
        backward(named, grads)
        norms = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
        for stand_in, g, t in zip(norms, grads, oracle.tensors, strict=True):
            stand_in.grad = torch.where(t.keep, g, 0.0)
        norm = clip_grad_norm_(norms, 1.0 if clip_norm is None else clip_norm)
        assert norm > 1.5
        optimizer.step()
        oracle.step([stand_in.grad for stand_in in norms])
        if pruned:
            against_oracle(optimizer, named, oracle)
        else:
            assert all(torch.equal(p, t.w) for (_, p), t in zip(named, oracle.tensors, strict=True))


def test_clip_norm_zero_never_clips():
    with_zero, plain = mlp(), mlp()
    train(with_zero, AdamWPrune(with_zero.parameters(), base="adamwadv", clip_norm=0, lr=0.1), 1, 5)
    train(plain, torch.optim.AdamW(plain.parameters(), amsgrad=True, lr=0.1), 1, 5)
    assert all(torch.equal(p, q) for p, q in zip(with_zero.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("score", ["state", "magnitude"])
def test_the_spam_base_prunes_like_adamw_where_nothing_is_reset_or_clipped(score):
    named = weights()
    oracle = MaskedAdam(named, score=score)
    optimizer = AdamWPrune(named, prune=prune(score=score), base="adamwspam", spam=Spam(interval=0, theta=1e30))
    for step in range(14):
        step_beside(optimizer, named, oracle, step)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdamWPrune(weights(), base="sgd"),
            "unknown base 'sgd': expected one of adam, adamw, adamwadv",
        ),
        (lambda: AdamWPrune(weights(), spam=Spam()), "needs base='adamwspam', not base='adamw'"),
        (lambda: AdamWPrune(weights(), clip_norm=-1.0), "clip_norm=-1.0: expected at least 0"),
        (lambda: AdamWPrune(weights(), prune=prune(), differentiable=True), "differentiable=True does not go"),
        (lambda: AdamWSPAM(weights(), spam=Spam(theta=0.0)), "theta=0.0: expected greater than 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_each_class_is_its_base():
    assert [cls(weights()).base for cls in (AdamWPrune, AdamWAdv, AdamWSPAM)] == ["adamw", "adamwadv", "adamwspam"]
    assert AdamWAdv(weights()).clip_norm == 1.0
    assert AdamWPrune(weights()).clip_norm is None
