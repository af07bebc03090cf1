# SPDX-License-Identifier: MIT
"""A mask update refuses NaN and infinite scores before it changes anything; ordinary steps treat NaN as torch does."""

from __future__ import annotations

import copy

import brute
import pytest
import torch
from lab import attached, backward, gradients, mlp, ours, plain_step, prune, train, weights

from adamwprune import NonFiniteScoreError

KINDS = {"ours": ours, "attached": attached}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", ["layer", "global", "erk", "magnitude"])
@pytest.mark.parametrize("score", ["state", "taylor", "magnitude", "lamp"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("event", [1, 8])
def test_nothing_is_changed(kind, distribution, score, bad, event):
    """The last tensor's scores are bad: the first must not have been pruned by then. Updates: steps 1, 4, 8, 10."""
    named = weights([(6, 5), (5, 4)])
    optimizer = KINDS[kind](named, prune(distribution=distribution, score=score, start=0, every=4))
    for step in range(1, event):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
    kept = optimizer.pruner.named_masks()
    live = kept.get("layer1.weight", torch.ones(5, 4, dtype=torch.bool)).nonzero()[0]
    named[1][1].data[tuple(live)] = bad
    optimizer.zero_grad()
    backward(named, gradients(named, event))
    moved, states = plain_step(optimizer, named)
    with pytest.raises(NonFiniteScoreError, match="changed nothing"):
        optimizer.step()
    saved = optimizer.state_dict()["state"]
    for number, ((name, p), w, state) in enumerate(zip(named, moved, states, strict=True)):
        keep = kept.get(name, torch.ones_like(p, dtype=torch.bool))
        assert brute.same(p.detach(), w.masked_fill(~keep, 0))
        for key in ("exp_avg", "exp_avg_sq"):
            assert brute.same(saved[number][key], state[key].masked_fill(~keep, 0))
    after = optimizer.pruner.named_masks()
    assert after.keys() == kept.keys()
    assert all(torch.equal(after[name], kept[name]) for name in kept)
    assert optimizer.pruner.last_update == (4 if event == 8 else None)


@pytest.mark.parametrize("kind", KINDS)
def test_pattern_scores_too(kind):
    named = weights([(6, 8), (4, 4)])
    optimizer = KINDS[kind](named, prune(pattern="2:4", schedule="constant"))
    backward(named, gradients(named, 1))
    optimizer.step()
    before = [p.detach().clone() for _, p in named]
    named[1][1].data[0, 0] = torch.nan
    optimizer.zero_grad()
    backward(named, [torch.zeros_like(p) for _, p in named])
    with pytest.raises(NonFiniteScoreError):
        optimizer.step()
    assert named[0][1].count_nonzero() == before[0].count_nonzero()
    assert not optimizer.pruner.named_masks()


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_cause_is_gone_the_update_is_made_up(kind):
    named = weights([(6, 5)])
    optimizer = KINDS[kind](named, prune(score="taylor", every=50, schedule="constant"))
    for step in (1, 2, 3):
        optimizer.zero_grad()
        grads = gradients(named, step)
        if step == 2:
            grads[0][0, 0] = torch.inf
        weight = named[0][1].detach().clone()
        backward(named, grads)
        if step == 2:
            with pytest.raises(NonFiniteScoreError):
                optimizer.step()
            named[0][1].data.copy_(weight)
            for state in optimizer.state.values():
                for value in state.values():
                    value.nan_to_num_(0.0, 0.0, 0.0)
        else:
            optimizer.step()
    assert optimizer.pruner.last_update == 3
    assert optimizer.pruner.report()["sparsity"] > 0


def test_between_updates_nan_goes_where_torch_lets_it_go():
    model, dense = mlp(), mlp()
    optimizer = ours(model.named_parameters(), prune(end=4))
    train(model, optimizer, 1, 4)
    reference = torch.optim.AdamW(dense.named_parameters())
    dense.load_state_dict(model.state_dict())
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    masks = optimizer.pruner.named_masks()
    for m, o in ((model, optimizer), (dense, reference)):
        o.zero_grad()
        m(torch.ones(2, 8)).sum().backward()
        m[0].weight.grad[:, 2] = torch.nan
        o.step()
    keep = masks["0.weight"]
    assert torch.equal(model[0].weight[keep].isnan(), dense[0].weight[keep].isnan())
    assert not model[0].weight[~keep].count_nonzero()
