# SPDX-License-Identifier: MIT
"""Any shapes, settings and course of events: compact state still equals the dense masked computation, bit for bit."""

from __future__ import annotations

import brute
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import against_oracle, attached, backward, gradients, ours, prune, weights, zeros_where_masked
from oracle import MaskedAdam

from adamwprune.prune import DISTRIBUTIONS, SCHEDULES, SCORES

SCORED = st.sampled_from([name for name in SCORES if name != "random"])
MATRICES = st.lists(st.integers(1, 23), min_size=2, max_size=2).map(tuple)
FILTERS = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))
OTHERS = st.sampled_from([(), (0,), (5,), (0, 3), (2, 0, 4)])


@st.composite
def settings_of(draw):
    start = draw(st.integers(0, 5))
    end = draw(st.integers(start + 1, 10))
    return {
        "sparsity": draw(st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.9])),
        "start": start,
        "end": end,
        "every": draw(st.integers(1, 5)),
        "schedule": draw(st.sampled_from(list(SCHEDULES))),
        "score": draw(SCORED),
        "distribution": draw(st.sampled_from(["layer", "global", *(n for n in DISTRIBUTIONS if n in SCORES)])),
        "min_density": 0.0,
    }


@st.composite
def options_of(draw):
    return {
        "lr": draw(st.sampled_from([1e-3, 0.05])),
        "betas": draw(st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.0, 0.5)])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "amsgrad": draw(st.booleans()),
        "maximize": draw(st.booleans()),
    }


@st.composite
def course_of(draw):
    """What happens at each of ten steps: an ordinary one, one that is skipped, one where a tensor has no gradient."""
    return draw(st.lists(st.sampled_from(["step", "step", "step", "skip", "hole", "micro"]), min_size=10, max_size=10))


@brute.thorough
@given(
    shapes=st.lists(st.one_of(MATRICES, FILTERS, OTHERS), min_size=0, max_size=3),
    first=MATRICES,
    pruning=settings_of(),
    options=options_of(),
    course=course_of(),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
    decoupled=st.booleans(),
    compact=st.booleans(),
    set_to_none=st.booleans(),
)
def test_any_course_of_events(shapes, first, pruning, options, course, dtype, decoupled, compact, set_to_none):
    if pruning["distribution"] == "random" or (dtype == torch.float16 and options["lr"] > 0.01):
        pruning, options = {**pruning, "distribution": "layer"}, {**options, "lr": 1e-3}
    named = weights([first, *shapes], dtype)
    oracle = MaskedAdam(named, decoupled=decoupled, eps=1e-4, **options, **pruning)
    make = ours if compact else attached
    optimizer = make(named, prune(**pruning), base="adamw" if decoupled else "adam", eps=1e-4, **options)
    for step, event in enumerate(course):
        optimizer.zero_grad(set_to_none=set_to_none)
        grads = gradients(named, step)
        if event == "hole":
            # A tensor without a gradient; with set_to_none=False it keeps a zero one once it had any.
            hole = len(grads) - 1 if shapes else None
            zero = hole is not None and named[hole][1].grad is not None
            parts = [[None if i == hole else g for i, g in enumerate(grads)]]
            total = [torch.zeros_like(g) if i == hole and zero else parts[0][i] for i, g in enumerate(grads)]
        elif event == "micro":
            parts = [grads, gradients(named, step + 100)]
            total = [a + b for a, b in zip(*parts, strict=True)]
        else:
            parts, total = [grads], grads
        for part in parts:
            backward(named, part)
        if event == "skip":
            continue
        optimizer.step()
        oracle.step(total)
        against_oracle(optimizer, named, oracle)
        zeros_where_masked(optimizer)


@brute.quick
@given(
    pruning=settings_of(),
    shapes=st.lists(st.one_of(MATRICES, FILTERS), min_size=1, max_size=4),
    distribution=st.sampled_from(DISTRIBUTIONS),
    regrow=st.sampled_from([0.0, 0.3]),
    score=st.sampled_from(list(SCORES)),
)
def test_counts_are_exact_never_above_schedule_and_masks_only_shrink(pruning, shapes, distribution, regrow, score):
    pruning = {**pruning, "distribution": distribution, "score": score}
    named = weights(shapes)
    optimizer = ours(named, prune(**pruning, regrow=regrow))
    sizes = [p.numel() for _, p in named]
    before = {name: torch.ones_like(p, dtype=torch.bool) for name, p in named}
    for step in range(1, 13):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
        share = 0.0
        if step >= pruning["start"]:
            progress = min(1.0, (step - pruning["start"]) / (pruning["end"] - pruning["start"]))
            share = pruning["sparsity"] * brute.share(pruning["schedule"], progress)
        report = optimizer.pruner.report()
        masked = [tensor["masked"] for tensor in report["tensors"].values()]
        if distribution == "layer":
            allowed = [brute.rounded(share, n) for n in sizes]
            final = [brute.rounded(pruning["sparsity"], n) for n in sizes]
        else:
            masked = [sum(masked)]
            allowed, final = [brute.rounded(share, sum(sizes))], [brute.rounded(pruning["sparsity"], sum(sizes))]
        assert all(count <= limit for count, limit in zip(masked, allowed, strict=True))
        if optimizer.pruner.last_update == step:
            assert masked == allowed
        if step >= pruning["end"]:
            assert masked == final
            assert optimizer.pruner.at_target
        for name, keep in optimizer.pruner.named_masks().items():
            assert regrow or not (keep & ~before[name]).any()
            before[name] = keep
        assert report["sparsity"] == pytest.approx(sum(masked) / sum(sizes))
        zeros_where_masked(optimizer)
