# SPDX-License-Identifier: MIT
"""Compact state equals the dense masked computation, bit for bit: every score, schedule, distribution, option."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import (
    SHAPES,
    against_oracle,
    attached,
    backward,
    gradients,
    ours,
    prune,
    step_beside,
    weights,
    zeros_where_masked,
)
from oracle import MaskedAdam

from adamwprune.prune import DISTRIBUTIONS, SCHEDULES, SCORES

KINDS = {"ours": ours, "attached": attached}
PRUNING = ("score", "schedule", "distribution", "sparsity", "min_density")
ORACLE_SCORES = [name for name in SCORES if name != "random"]
ORACLE_DISTRIBUTIONS = [name for name in DISTRIBUTIONS if name != "random"]


def run(kind, *, shapes=SHAPES, dtype=torch.float32, steps=14, micro=1, set_to_none=True, **options):
    """Train by the library and by the oracle; compare after every step."""
    pruning = {
        k: options.pop(k) for k in ("score", "schedule", "distribution", "sparsity", "min_density") if k in options
    }
    named = weights(shapes, dtype)
    oracle_options = dict(options)
    oracle = MaskedAdam(named, decoupled=oracle_options.pop("base", "adamw") == "adamw", **oracle_options, **pruning)
    optimizer = KINDS[kind](named, prune(**pruning), **options)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=set_to_none)
        parts = [gradients(named, step * micro + k) for k in range(micro)]
        total = [sum(g[1:], start=g[0]) for g in zip(*parts, strict=True)]
        for part in parts:
            backward(named, part)
        optimizer.step()
        oracle.step(total)
        against_oracle(optimizer, named, oracle)
        zeros_where_masked(optimizer)
    assert optimizer.pruner.at_target
    return optimizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ORACLE_SCORES)
def test_every_score(kind, score):
    run(kind, score=score, sparsity=0.7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", ORACLE_DISTRIBUTIONS)
def test_every_distribution(kind, distribution):
    run(kind, distribution=distribution, sparsity=0.6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sparsity", [0.01, 0.33, 0.97])
def test_every_schedule(schedule, sparsity):
    run("ours", schedule=schedule, sparsity=sparsity, distribution="global")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("score", ["state", "movement", "hybrid"])
def test_every_dtype(kind, dtype, score):
    run(kind, dtype=dtype, score=score, lr=0.02, eps=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.3},
        {"weight_decay": 0.0},
        {"amsgrad": True, "weight_decay": 0.1},
        {"maximize": True, "weight_decay": 0.1},
        {"base": "adam", "weight_decay": 0.2},
        {"base": "adam", "weight_decay": 0.2, "amsgrad": True, "maximize": True},
        {"betas": (0.5, 0.8), "eps": 1e-3},
        {"betas": (0.0, 0.99), "lr": 0.1},
    ],
    ids=str,
)
def test_every_option(kind, options):
    run(kind, **{"lr": 0.01, "sparsity": 0.8, **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("score", ["state", "taylor", "movement"])
def test_accumulation_and_set_to_none(kind, micro, set_to_none, score):
    run(kind, micro=micro, set_to_none=set_to_none, score=score)


@pytest.mark.parametrize("kind", KINDS)
def test_min_density_holds_a_tensor_and_the_others_take_its_share(kind):
    optimizer = run(kind, distribution="global", score="magnitude", sparsity=0.75, min_density=0.2)
    for tensor in optimizer.pruner.report()["tensors"].values():
        assert tensor["weights"] - tensor["masked"] >= 0.2 * tensor["weights"]


def layouts():
    torch.manual_seed(5)
    yield torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    yield torch.randn(7, 5).t()
    yield torch.randn(9, 8)[:, ::2]
    yield torch.randn(4, 3, 5).permute(2, 0, 1)
    yield torch.randn(20, 6)[3:11]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amsgrad", [True, False])
def test_weights_that_are_not_contiguous(kind, amsgrad):
    named = [(f"l{i}.weight", torch.nn.Parameter(w)) for i, w in enumerate(layouts())]
    assert not all(p.is_contiguous() for _, p in named)
    strides = [p.stride() for _, p in named]
    oracle = MaskedAdam(named, amsgrad=amsgrad, score="hybrid", distribution="global")
    optimizer = KINDS[kind](named, prune(score="hybrid", distribution="global"), amsgrad=amsgrad)
    for step in range(14):
        step_beside(optimizer, named, oracle, step)
    assert [p.stride() for _, p in named] == strides


def test_weights_that_change_their_layout_in_the_middle():
    named = [("conv.weight", torch.nn.Parameter(torch.randn(6, 4, 3, 3)))]
    oracle = MaskedAdam(named)
    optimizer = ours(named, prune())
    for step in range(14):
        if step == 3:
            named[0][1].data = named[0][1].data.to(memory_format=torch.channels_last)
        if step == 7:
            named[0][1].data = named[0][1].data.clone(memory_format=torch.contiguous_format)
        step_beside(optimizer, named, oracle, step)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("distribution", ["layer", "erk", "global", "random"])
def test_ours_equals_attached(score, distribution):
    """The same settings on torch's AdamW are a second oracle, and cover the random score."""
    mine, theirs = weights(), copy.deepcopy(weights())
    a = ours(mine, prune(score=score, distribution=distribution, sparsity=0.8), lr=0.01)
    b = attached(theirs, prune(score=score, distribution=distribution, sparsity=0.8), lr=0.01)
    for step in range(14):
        for optimizer, named in ((a, mine), (b, theirs)):
            optimizer.zero_grad()
            backward(named, gradients(named, step))
            optimizer.step()
        assert all(torch.equal(p, q) for (_, p), (_, q) in zip(mine, theirs, strict=True))
        masks, others = a.pruner.named_masks(), b.pruner.named_masks()
        assert masks.keys() == others.keys()
        assert all(torch.equal(masks[name], others[name]) for name in masks)


def test_fused_and_foreach_agree_to_the_last_place():
    """Against fused the contract is one unit in the last place a step; foreach on CPU is the for-loop's bits."""
    runs = {}
    for option in ({}, {"foreach": True}, {"fused": True}):
        named = weights()
        optimizer = ours(named, prune(score="magnitude"), **option)
        for step in range(14):
            optimizer.zero_grad()
            backward(named, gradients(named, step))
            optimizer.step()
        runs[str(option)] = [p.detach() for _, p in named]
    assert all(torch.equal(p, q) for p, q in zip(runs["{}"], runs["{'foreach': True}"], strict=True))
    for p, q in zip(runs["{}"], runs["{'fused': True}"], strict=True):
        torch.testing.assert_close(p, q, rtol=14 * 1.2e-7, atol=1e-7)
