# SPDX-License-Identifier: MIT
"""State is dense while most of a tensor is kept and compact below: the same bits on both sides of the crossing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import (
    mlp,
    ours,
    prune,
    step_beside,
    train,
    twin,
    weights,
    zeros_where_masked,
)
from oracle import MaskedAdam

from adamwprune import AdamWPrune, Spam, clip_grad_norm_
from adamwprune.kernels import Hyper, Job, reference
from adamwprune.optim import layout
from adamwprune.optim.slots import COMPACT_BELOW, Slot
from adamwprune.prune.masks import Mask

#: A linear ramp to 60 %: 15, 30, 45 and 60 % masked after steps 4, 6, 8, 10; only the first stays above 70 % kept.
RAMP = {"sparsity": 0.6, "schedule": "linear", "start": 2, "end": 10, "every": 2}


def layouts(optimizer):
    """Of every masked tensor: (kept share, whether its first moment has the weight's shape)."""
    return [
        (slot.mask.kept / slot.mask.numel, optimizer.state[p]["exp_avg"].shape == p.shape)
        for p, slot in optimizer.pruner.slots.items()
        if slot.mask is not None
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "weight_decay": 0.1},
        {"base": "adam", "weight_decay": 0.2},
        {"score": "movement"},
        {"score": "hybrid", "distribution": "global"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dense_masked_oracle_is_met_across_the_crossing(options, dtype):
    options = dict(options)
    pruning = {k: options.pop(k) for k in ("score", "distribution") if k in options}
    named = weights(dtype=dtype)
    base = options.get("base", "adamw")
    plain = {k: v for k, v in options.items() if k != "base"}
    oracle = MaskedAdam(named, lr=0.01, decoupled=base == "adamw", **plain, **RAMP, **pruning)
    optimizer = ours(named, prune(**RAMP, **pruning), lr=0.01, **options)
    seen = set()
    for step in range(14):
        step_beside(optimizer, named, oracle, step)
        zeros_where_masked(optimizer)
        for kept, dense in layouts(optimizer):
            assert dense == (kept > COMPACT_BELOW)
            seen.add(dense)
        for slot in optimizer.pruner.slots.values():
            if slot.movement is not None:
                assert slot.movement.numel() == (slot.mask.kept if slot.compact else slot.weight.numel())
    assert seen == {True, False}


def test_spam_resets_and_clipping_do_not_depend_on_the_layout(monkeypatch):
    """The same run with state that is compact from the first mask on."""
    spam = Spam(interval=5, min_age=1, warmup=2, theta=2.0, zscore=1.0, history=10)
    runs = []
    for limit in (COMPACT_BELOW, 1.0):
        monkeypatch.setattr("adamwprune.optim.slots.COMPACT_BELOW", limit)
        model = mlp()
        optimizer = AdamWPrune(model.named_parameters(), lr=0.01, base="adamwspam", spam=spam, prune=prune(**RAMP))
        seen = []
        train(model, optimizer, 1, 14, after=lambda step, o=optimizer, s=seen: s.extend(layouts(o)))
        runs.append(([p.detach() for p in model.parameters()], optimizer.state_dict()["state"], seen))
    (first, state, seen), (second, other, always) = runs
    assert any(dense for _, dense in seen)
    assert not any(dense for _, dense in always)
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))
    for key, entry in state.items():
        assert all(torch.equal(value, other[key][name]) for name, value in entry.items())


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_copies_and_resumed_runs_take_up_the_layout(stop):
    """At step 4 state is masked and dense, at step 6 compact."""

    def make(model):
        return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**RAMP, score="movement"))

    model = mlp()
    optimizer = make(model)
    train(model, optimizer, 1, stop)
    resumed_model, resumed = twin(make, model, optimizer)
    copied_model, copied = copy.deepcopy((model, optimizer))
    assert layouts(resumed) == layouts(copied) == layouts(optimizer)
    for other_model, other in ((resumed_model, resumed), (copied_model, copied)):
        train(other_model, other, stop + 1, 12)
    train(model, optimizer, stop + 1, 12)
    for other in (resumed_model, copied_model):
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("pruning", [{}, {"score": "movement"}, {"score": "hybrid"}], ids=str)
def test_a_large_network_turns_compact_over_several_updates(pruning, monkeypatch):
    """One tensor an update fits below the limit here; nothing that is computed tells when each turned compact."""

    def make(model):
        return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**RAMP, **pruning))

    def run(seen):
        model = mlp()
        optimizer = make(model)
        slots = optimizer.pruner.slots.values()
        train(model, optimizer, 1, 14, after=lambda step: seen.append(sum(slot.compact for slot in slots)))
        return list(model.parameters()), optimizer.state_dict()["state"]

    at_once, in_turn = [], []
    expected, expected_state = run(at_once)
    monkeypatch.setattr(layout, "PACKED_ANYWAY", 0)
    params, state = run(in_turn)
    assert at_once[:6] == [*in_turn[:5], 3] == [0, 0, 0, 0, 0, 3]
    assert in_turn[5:] == [1, 1, 2, 2, *[3] * 5]
    assert all(torch.equal(p, q) for p, q in zip(params, expected, strict=True))
    for key, entry in expected_state.items():
        assert all(torch.equal(value, state[key][name]) for name, value in entry.items())

    model = mlp()
    optimizer = make(model)
    train(model, optimizer, 1, 7)
    resumed_model, resumed = twin(make, model, optimizer)
    assert all(slot.compact for slot in resumed.pruner.slots.values())  # a checkpoint's state is new memory anyway
    train(resumed_model, resumed, 8, 14)
    assert all(torch.equal(p, q) for p, q in zip(resumed_model.parameters(), expected, strict=True))


@given(
    tensors=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=8),
    share=st.floats(0.0, 1.0),
    anyway=st.integers(0, 80),
)
def test_what_turns_compact_together_fits_below_the_limit_or_is_one_tensor(tensors, share, anyway):
    slots = []
    for size, waits in tensors:
        slot = Slot("", torch.zeros(size), 0, Mask.from_bool(torch.zeros(size, dtype=torch.bool)), may_compact=waits)
        slots.append(slot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "PACKED_SHARE", share)
        patch.setattr(layout, "PACKED_ANYWAY", anyway)
        chosen = list(layout.next_to_pack(slots))
    limit = max(anyway, int(share * sum(size for size, _ in tensors)))
    sizes = [slot.weight.numel() for slot in chosen]
    left = [slot.weight.numel() for slot in slots if slot.may_compact and slot not in chosen]
    assert all(slot.may_compact for slot in chosen)
    assert bool(chosen) == any(waits for _, waits in tensors)
    assert len(chosen) <= 1 or sum(sizes) <= limit
    assert all(sum(sizes) + size > limit for size in left)  # nobody waits who would have fitted


def test_loading_leaves_the_checkpoints_tensors_alone():
    """Marks of masked weights are zeroed in our own copy only."""
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), prune=prune(**RAMP))
    train(model, optimizer, 1, 4)
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved["state"])
    AdamWPrune(model.named_parameters(), prune=prune(**RAMP)).load_state_dict(saved)
    for key, entry in before.items():
        for name, value in entry.items():
            assert torch.equal(value, saved["state"][key][name])
            assert torch.equal(value.signbit(), saved["state"][key][name].signbit())


@pytest.mark.parametrize("scale", [None, 0.25, torch.tensor(0.3)])
@pytest.mark.parametrize("decoupled", [True, False])
def test_a_dense_masked_job_is_torchs_adam_with_zeros(scale, decoupled):
    """Scaling is a multiplication of the gradient, before decay; the gradient itself is not written."""
    torch.manual_seed(3)
    hyper = Hyper(1e-2, 0.9, 0.99, 1e-8, 0.1, True, False, decoupled, None, None, False, False)
    keep = torch.rand(7, 9) < 0.8
    weight, grad = torch.randn(7, 9) * keep, torch.randn(7, 9)
    state = {name: torch.rand(7, 9) * keep for name in reference.MOMENTS}
    given = grad.clone()
    expected = torch.nn.Parameter(weight.clone())
    expected.grad = (grad if scale is None else grad * scale) * keep
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    plain = kind([expected], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, amsgrad=True)
    plain.state[expected] = {"step": torch.tensor(4.0), **{k: v.clone() for k, v in state.items()}}
    plain.step()
    job = Job(weight, grad, state, torch.tensor(4.0), Mask.from_bool(keep), hyper, dense_state=True, scale=scale)
    reference.step(job)
    assert torch.equal(weight, expected.detach())
    assert torch.equal(grad, given)
    assert all(torch.equal(state[name], plain.state[expected][name]) for name in reference.MOMENTS)


@pytest.mark.parametrize("mask_grads", [True, False])
def test_filters_in_channels_last_train_as_row_major_ones(mask_grads):
    """Steps, masks and clipping: the order in memory changes no bit and stays as it is, also if it changes midway."""
    runs = []
    for change in (None, 0, 5):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.Conv2d(40, 24, 3))
        settings = prune(**RAMP, score="magnitude", mask_grads=mask_grads)
        optimizer = AdamWPrune(model.named_parameters(), lr=0.01, weight_decay=0.1, prune=settings)
        generator, norms = torch.Generator().manual_seed(1), []
        for step in range(14):
            if step == change:
                model.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            for p in model.parameters():
                (p * torch.randn(p.shape, generator=generator)).sum().backward()
            if optimizer.pruner.sparsity and not mask_grads:  # else the norm is torch's own, in memory's order
                norms.append(clip_grad_norm_(optimizer, 1.0))
            optimizer.step()
        assert model[1].weight.is_contiguous() == (change is None)
        assert optimizer.pruner.at_target
        runs.append([*(p.detach() for p in model.parameters()), *norms])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))
