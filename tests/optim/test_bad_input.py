# SPDX-License-Identifier: MIT
"""What cannot be stepped, ranked or loaded is refused by name, and everything is as it was before."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import backward, gradients, mlp, prune, train, weights
from torch import nn

from adamwprune import AdamWPrune, AdamWSPAM, NonFiniteScoreError, attach
from adamwprune.prune.masks import Mask

LARGE = [(67, 76), (70, 64), (9,)]


def everything(named, optimizer):
    """Weights, live state in its own form, masks, movement, counters and options, copied."""
    slots = optimizer.pruner.slots if optimizer.pruner is not None else {}
    return copy.deepcopy(
        {
            "weights": [p.detach() for _, p in named],
            "state": [dict(optimizer.state.get(p, {})) for _, p in named],
            "masks": [slot.mask and slot.mask.bits for slot in slots.values()],
            "movement": [slot.movement for slot in slots.values()],
            "groups": [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
            "counters": (optimizer.pruner.step, optimizer.pruner.last_update) if slots else None,
        }
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def refused(named, optimizer, call, message, error=ValueError):
    before = everything(named, optimizer)
    with pytest.raises(error, match=message):
        call()
    assert same(before, everything(named, optimizer))


def pruned(steps=5, **options):
    named = weights(LARGE)
    optimizer = AdamWPrune(named, lr=0.01, prune=prune(**options.pop("pruning", {})), **options)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
    optimizer.zero_grad()
    backward(named, gradients(named, steps + 1))
    return named, optimizer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"state": "8bit"}, {"pruning": {"score": "movement"}}], ids=str)
def test_a_mask_update_on_scores_that_are_not_finite_changes_nothing(value, options):
    named, optimizer = pruned(**options)
    slots = list(optimizer.pruner.slots.values())
    assert all(slot.mask is not None for slot in slots)
    keep = slots[1].mask.to_bool(named[1][1].shape)
    with torch.no_grad():
        named[1][1][tuple(keep.nonzero()[0])] = value
        if slots[1].movement is not None:
            slots[1].movement[0] = value
    optimizer.pruner.step = 6
    refused(named, optimizer, optimizer.pruner.update, "finite", NonFiniteScoreError)


@pytest.mark.parametrize("options", [{}, {"state": "8bit"}], ids=str)
@pytest.mark.parametrize("which", [0, 2])
def test_a_sparse_gradient_is_refused_before_anything_moves(options, which):
    named, optimizer = pruned(**options)
    p = named[which][1]
    p.grad = p.grad.to_sparse()
    refused(named, optimizer, optimizer.step, r"sparse gradient: use dense ones")


def test_without_pruning_smaller_state_refuses_sparse_gradients_too():
    table = nn.Embedding(100, 64, sparse=True)
    optimizer = AdamWPrune(table.named_parameters(), state="8bit")
    table(torch.tensor([1, 2])).sum().backward()
    refused([("w", table.weight)], optimizer, optimizer.step, "sparse gradient")
    assert not optimizer.state


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_are_refused_by_name(dtype):
    named = [*weights(LARGE), ("spectrum.weight", nn.Parameter(torch.zeros(4, 4, dtype=dtype)))]
    with pytest.raises(ValueError, match=r"spectrum\.weight is complex"):
        AdamWPrune(named, prune=prune())


def test_a_mask_or_state_on_another_device_is_refused():
    """The meta device stands for a second one."""
    named, optimizer = pruned()
    slot = next(iter(optimizer.pruner.slots.values()))
    bits = slot.mask.bits
    slot.mask = Mask(bits.to("meta"), slot.mask.numel, slot.mask.kept)
    with pytest.raises(ValueError, match=r"shape \[67, 76\] is on cpu, and its mask on meta: move the model first"):
        optimizer.step()
    slot.mask = Mask(bits, slot.mask.numel, slot.mask.kept)
    state = optimizer.state[named[1][1]]
    moment, state["exp_avg"] = state["exp_avg"], state["exp_avg"].to("meta")
    with pytest.raises(ValueError, match=r"shape \[70, 64\] is on cpu, and its optimizer state on meta"):
        optimizer.step()
    state["exp_avg"] = moment
    optimizer.step()
    assert optimizer.pruner.step == 6


@pytest.mark.parametrize("options", [{}, {"state": "8bit"}, {"prune": None}], ids=str)
def test_a_checkpoint_of_other_shapes_is_refused(options):
    """torch loads moments of any shape, and fails or goes wrong at the next step."""
    model = mlp()
    source = AdamWPrune(model.named_parameters(), prune=prune())
    train(model, source, 1, 5)
    other = nn.Sequential(nn.Linear(8, 11), nn.ReLU(), nn.Linear(11, 8), nn.ReLU(), nn.Linear(8, 4))
    named = list(other.named_parameters())
    optimizer = AdamWPrune(named, **{"prune": prune(), **options})
    message = r"exp_avg of 0\.weight has shape \[12, 8\], and the weight \[11, 8\]: it is of another model"
    refused(named, optimizer, lambda: optimizer.load_state_dict(source.state_dict()), message)


@pytest.mark.parametrize("options", [{"pattern": "2:4"}, {"exclude": ("layer0.*",)}], ids=str)
@pytest.mark.parametrize("state", [None, "8bit"])
def test_a_checkpoint_of_another_scope_or_pattern_changes_nothing(options, state):
    named, optimizer = pruned(steps=4, state=state, pruning={"pattern": None, **options})
    _, source = pruned(steps=11, pruning={"sparsity": 0.5} if "exclude" in options else {})
    saved = source.state_dict()
    message = "masks layer0.weight, which this optimizer does not prune" if "exclude" in options else "pattern=None"
    refused(named, optimizer, lambda: optimizer.load_state_dict(saved), message)
    optimizer.step()


def test_two_parameters_of_one_name_are_refused_with_both_groups():
    groups = [{"params": list(mlp(seed).named_parameters())} for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"two parameters are called '0.weight' \(groups 0 and 1\)"):
        AdamWPrune(groups, prune=prune())
    AdamWPrune(groups)


@pytest.mark.parametrize("own", [True, False])
def test_a_regrowth_on_gradients_that_are_not_finite_changes_no_mask(own):
    """The masked weight's gradient alone is infinite, and it is in the second tensor."""
    named = weights([(16, 16), (16, 16)])
    settings = prune(regrow=0.3, score="magnitude", end=12)
    if own:
        optimizer = AdamWPrune(named, prune=settings)
    else:
        attach(optimizer := torch.optim.AdamW(named), settings)
    for step in range(1, 6):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
    optimizer.zero_grad()
    grads = gradients(named, 6)
    grads[1] = grads[1].masked_fill(~optimizer.pruner.named_masks()[named[1][0]], torch.inf)
    backward(named, grads)
    before = [slot.mask.bits.clone() for slot in optimizer.pruner.slots.values()]
    with pytest.raises(NonFiniteScoreError):
        optimizer.step()
    assert all(
        torch.equal(slot.mask.bits, bits) for slot, bits in zip(optimizer.pruner.slots.values(), before, strict=True)
    )


def test_a_higher_sparsity_than_a_finished_schedule_can_reach_is_refused():
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), prune=prune())
    train(model, optimizer, 1, 12)
    saved = optimizer.state_dict()
    higher = AdamWPrune(mlp().named_parameters(), prune=prune(sparsity=0.9))
    with pytest.raises(
        ValueError, match=r"sparsity=0.5 at step 10, and this schedule ends at step 10, so that sparsity=0.9"
    ):
        higher.load_state_dict(saved)
    assert not higher.state
    assert higher.pruner.step == 0
    later = AdamWPrune(model.named_parameters(), prune=prune(sparsity=0.9, total_steps=24, end=20))
    later.load_state_dict(saved)
    train(model, later, 13, 24)
    assert later.pruner.at_target


def test_spam_refuses_complex_parameters_by_name():
    named = [("phase", nn.Parameter(torch.ones(3, dtype=torch.cfloat)))]
    with pytest.raises(ValueError, match="phase is complex, and SPAM clips real gradients"):
        AdamWSPAM(named)
