# SPDX-License-Identifier: MIT
"""Clipping that leaves its factor to the step gives the run in which gradients are clipped in place."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import mlp, prune
from torch.nn.utils import clip_grad_norm_ as torch_clip

from adamwprune import AdamWPrune, Spam, clip_grad_norm_, kernels
from adamwprune.kernels import native, reference
from adamwprune.prune.masks import Mask

MAX_NORM = 0.05


def backward(model, step):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(6, 8, generator=generator).to(next(model.parameters()).dtype)
    (model(inputs) - 1.0).square().mean().backward()


def train(model, optimizer, clip, first=1, last=12):
    norms = []
    for step in range(first, last + 1):
        optimizer.zero_grad()
        backward(model, step)
        norms.append(clip())
        optimizer.step()
    return norms


def pruned(steps=12, **options):
    """A model and its optimizer past the ramp, with fresh gradients."""
    model = mlp()
    optimizer = AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(), **options)
    train(model, optimizer, lambda: None, last=steps)
    optimizer.zero_grad()
    backward(model, 99)
    return model, optimizer


def stepped(optimizer, p, grad):
    """The weight that torch's AdamW makes of a (masked) gradient, from the optimizer's present state."""
    group, key = optimizer.param_groups[0], next(i for i, q in enumerate(optimizer.param_groups[0]["params"]) if q is p)
    twin = torch.nn.Parameter(p.detach().clone())
    plain = torch.optim.AdamW([twin], lr=group["lr"], weight_decay=group["weight_decay"])
    plain.state[twin] = {name: value.clone() for name, value in optimizer.state_dict()["state"][key].items()}
    twin.grad = grad.clone()
    plain.step()
    keep = optimizer.pruner.slots[p].mask.to_bool(p.shape)
    return twin.detach() * keep


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "maximize": True},
        {"base": "adam", "weight_decay": 0.2},
        {"score": "movement"},
        {"score": "taylor", "distribution": "global"},
        {"regrow": 0.3},
        {"base": "adamwspam", "spam": Spam(interval=5, min_age=1, warmup=2, theta=2.0, zscore=1.0, history=10)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_run_equals_one_clipped_in_place(options):
    pruning = {k: options[k] for k in ("score", "distribution", "regrow") if k in options}
    rest = {k: v for k, v in options.items() if k not in pruning}
    runs = []
    for ours in (True, False):
        model = mlp()
        optimizer = AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**pruning), **rest)

        def clip(model=model, optimizer=optimizer, ours=ours):
            if ours:
                return clip_grad_norm_(optimizer, MAX_NORM)
            return torch_clip(model.parameters(), MAX_NORM)

        norms = train(model, optimizer, clip)
        assert all(norm > MAX_NORM for norm in norms)
        runs.append((norms, [p.detach() for p in model.parameters()], optimizer.pruner.named_masks()))
    for mine, theirs in zip(*runs, strict=True):
        pairs = zip(mine.values(), theirs.values()) if isinstance(mine, dict) else zip(mine, theirs)  # noqa: B905
        assert all(torch.equal(a, b) for a, b in pairs)


def test_gradients_of_masked_tensors_are_not_written_and_the_step_uses_the_factor_up():
    model, optimizer = pruned()
    weight, before = model[0].weight, model[0].weight.grad.clone()
    norm = clip_grad_norm_(optimizer, MAX_NORM)
    assert torch.equal(weight.grad, before)
    expected = stepped(optimizer, weight, before * (MAX_NORM / (norm + 1e-6)))
    optimizer.step()
    assert torch.equal(weight.detach(), expected)
    assert torch.equal(weight.grad, before)
    expected = stepped(optimizer, weight, before)
    optimizer.step()
    assert torch.equal(weight.detach(), expected)


def test_the_internal_clip_takes_the_same_path():
    model, optimizer = pruned(base="adamwadv", amsgrad=False)
    weight, before = model[0].weight, model[0].weight.grad.clone()
    optimizer.clip_norm = MAX_NORM
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    expected = stepped(optimizer, weight, before * (MAX_NORM / (norm + 1e-6)))
    optimizer.step()
    assert torch.equal(weight.detach(), expected)
    assert torch.equal(weight.grad, before)


def test_clipping_twice_composes():
    model, optimizer = pruned()
    first = clip_grad_norm_(optimizer, 2 * MAX_NORM)
    assert first > 2 * MAX_NORM
    torch.testing.assert_close(clip_grad_norm_(optimizer, MAX_NORM), torch.tensor(2 * MAX_NORM), rtol=1e-4, atol=0)
    torch.testing.assert_close(clip_grad_norm_(optimizer, 1.0), torch.tensor(MAX_NORM), rtol=1e-4, atol=0)
    torch.testing.assert_close(optimizer.owed.of(model[0].weight), MAX_NORM / first, rtol=1e-4, atol=0)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("whose", ["optimizer", "model"])
def test_zero_grad_drops_the_factor(whose, set_to_none):
    model, optimizer = pruned()
    clip_grad_norm_(optimizer, MAX_NORM)
    (optimizer if whose == "optimizer" else model).zero_grad(set_to_none=set_to_none)
    backward(model, 5)
    assert all(optimizer.owed.of(p) is None for p in model.parameters())
    expected = stepped(optimizer, model[2].weight, model[2].weight.grad)
    optimizer.step()
    assert torch.equal(model[2].weight.detach(), expected)


def test_a_backward_after_clipping_adds_to_the_clipped_gradient():
    """As where gradients are clipped in place; masked entries of both parts are zero."""
    model, optimizer = pruned()
    weight, before = model[0].weight, model[0].weight.grad.clone()
    norm = clip_grad_norm_(optimizer, MAX_NORM)
    backward(model, 7)
    other_model, other = pruned()
    other.zero_grad()
    backward(other_model, 7)
    expected = before * (MAX_NORM / (norm + 1e-6)) + other_model[0].weight.grad
    assert torch.equal(weight.grad, expected)
    assert optimizer.owed.of(weight) is None


def test_a_gradient_that_was_replaced_is_not_scaled():
    model, optimizer = pruned()
    weight = model[0].weight
    clip_grad_norm_(optimizer, MAX_NORM)
    weight.grad = weight.grad.clone()
    expected = stepped(optimizer, weight, weight.grad)
    optimizer.step()
    assert torch.equal(weight.detach(), expected)


def test_a_gradient_that_was_changed_by_hand_is_refused():
    model, optimizer = pruned()
    clip_grad_norm_(optimizer, MAX_NORM)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
    model[2].weight.grad.mul_(2.0)
    with pytest.raises(ValueError, match=r"shape \[8, 12\] was changed between clip_grad_norm_ and step"):
        optimizer.step()
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    for key, entry in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[1][key][name]) for name, value in entry.items())


def test_a_step_that_the_scaler_skips_leaves_nothing_behind():
    model, optimizer = pruned()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.tensor(1.0))
    model[4].bias.grad[0] = torch.inf
    scaler.unscale_(optimizer)
    clip_grad_norm_(optimizer, MAX_NORM)
    scaler.step(optimizer)
    scaler.update()
    model.zero_grad()
    backward(model, 3)
    expected = stepped(optimizer, model[0].weight, model[0].weight.grad)
    optimizer.step()
    assert torch.equal(model[0].weight.detach(), expected)


def test_copies_owe_nothing():
    model, optimizer = pruned()
    clip_grad_norm_(optimizer, MAX_NORM)
    other_model, other = copy.deepcopy((model, optimizer))
    backward(other_model, 3)
    assert all(other.owed.of(p) is None for p in other_model.parameters())
    other.step()


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_kept_square_sum(density):
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(300, 401, generator=generator)
    keep = torch.rand(300, 401, generator=generator) < density
    grad[~keep] = torch.nan
    expected = grad[keep].double().square().sum()
    torch.testing.assert_close(reference.kept_square_sum(grad, Mask.from_bool(keep)), expected, rtol=1e-12, atol=0)


def test_loading_a_checkpoint_leaves_the_clipped_gradients_clipped():
    """Gradients survive `load_state_dict`, and so does what they are owed."""
    model, optimizer = pruned()
    saved, before = copy.deepcopy(optimizer.state_dict()), model[0].weight.grad.clone()
    norm = clip_grad_norm_(optimizer, MAX_NORM)
    optimizer.load_state_dict(saved)
    expected = stepped(optimizer, model[0].weight, before * (MAX_NORM / (norm + 1e-6)))
    optimizer.step()
    assert torch.equal(model[0].weight.detach(), expected)


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("score", ["taylor", "movement"])
def test_scores_of_gradients_see_the_clipped_ones(backend, score):
    """Also beside a tensor that joined late: it has no mask yet, so its gradient is clipped in place."""
    if backend == "native" and native.library() is None:
        pytest.skip("the native kernel is not built")
    masks = []
    for ours in (True, False):
        named, late = [list(mlp(seed).named_parameters())[2:3] for seed in (1, 2)]
        late = [(f"late.{name}", p) for name, p in late]
        optimizer = AdamWPrune(named, lr=0.01, prune=prune(score=score, distribution="global"))
        with kernels.use(backend):
            for step in range(1, 13):
                if step == 7:
                    optimizer.add_param_group({"params": late})
                    named = [*named, *late]
                for place, (_, p) in enumerate(named):
                    p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + place))
                bound = 10.0 ** -(step % 3)
                clip_grad_norm_(optimizer, bound) if ours else torch_clip([p for _, p in named], bound)
                optimizer.step()
        masks.append(optimizer.pruner.named_masks())
    assert all(masks[0][name].float().mean() < 1 for name in ("2.weight", "late.2.weight"))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
