# SPDX-License-Identifier: MIT
"""Training loops as people write them. Each trains AdamWPrune and, beside it, torch's AdamW that is masked by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import lr_scheduler
from workbench import STEPS, Twin, accuracy, attached, loss_of, network, ours, same, train, weights

import adamwprune as ap
from adamwprune import kernels


@pytest.fixture(autouse=True)
def _reference_backend():
    """It repeats torch's operations, so bits can be compared."""
    with kernels.use("reference"):
        yield


Loop = Callable[[int, Callable[[], None]], None]


def plain(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        optimizer.zero_grad()
        loss_of(model, number).backward()
        masked()
        optimizer.step()

    return step


def accumulating(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        optimizer.zero_grad(set_to_none=False)
        for part in range(3):
            (loss_of(model, 3 * number + part) / 3).backward()
        masked()
        optimizer.step()

    return step


def accumulating_after_none(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        model.zero_grad(set_to_none=True)
        for part in range(2):
            (loss_of(model, 2 * number + part) / 2).backward()
        masked()
        optimizer.step()

    return step


def clipped_by_torch(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        optimizer.zero_grad()
        loss_of(model, number).backward()
        masked()
        clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()

    return step


def autocast(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, number)
        loss.backward()
        masked()
        optimizer.step()

    return step


def closure(model: nn.Module, optimizer: Any) -> Loop:
    def step(number, masked):
        def evaluate():
            optimizer.zero_grad()
            loss = loss_of(model, number)
            loss.backward()
            masked()
            return loss

        assert optimizer.step(evaluate).requires_grad

    return step


def with_schedule(make: Callable[[Any], Any]) -> Callable[[nn.Module, Any], Loop]:
    def loop(model, optimizer):
        schedule, step = make(optimizer), plain(model, optimizer)

        def then_schedule(number, masked):
            step(number, masked)
            schedule.step()

        return then_schedule

    return loop


def one_cycle(optimizer: Any) -> Any:
    """Moves betas against the learning rate."""
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=STEPS + 1, base_momentum=0.8)


def warmup_from_zero(optimizer: Any) -> Any:
    """The first step has learning rate zero, and is a step all the same."""
    return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))


def with_scaler(clip: bool) -> Callable[[nn.Module, Any], Loop]:
    """GradScaler in float32, whose powers of two are exact; every seventh step overflows and is skipped."""

    def loop(model, optimizer):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)

        def step(number, masked):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, number)).backward()
            masked()
            if number % 7 == 3:
                next(model.parameters()).grad[0, 0] = torch.inf
            if clip:
                scaler.unscale_(optimizer)
                clip_grad_norm_(model.parameters(), 0.2)
            scaler.step(optimizer)
            scaler.update()

        return step

    return loop


LOOPS = {
    "plain": plain,
    "accumulation": accumulating,
    "accumulation, gradients None": accumulating_after_none,
    "clipping": clipped_by_torch,
    "autocast": autocast,
    "closure": closure,
    "one cycle": with_schedule(one_cycle),
    "warm-up from zero": with_schedule(warmup_from_zero),
    "scaler": with_scaler(clip=False),
    "scaler, unscale, clip": with_scaler(clip=True),
}


def steps_taken(name: str) -> int:
    return STEPS - len(range(3, STEPS, 7)) if "scaler" in name else STEPS


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["", "tensor lr"])
@pytest.mark.parametrize("name", LOOPS)
def test_it_is_masked_adamw_bit_for_bit(name, tensor_lr):
    model = network()
    taken = steps_taken(name)
    settings = ap.Prune(sparsity=0.5, total_steps=taken, every=3)
    lr = torch.tensor(0.01) if tensor_lr else 0.01
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=lr, weight_decay=0.1, prune=settings)
    twin = Twin(model, optimizer)
    ours_step, twin_step = LOOPS[name](model, optimizer), LOOPS[name](twin.model, twin.optimizer)
    for number in range(STEPS):
        ours_step(number, lambda: None)
        twin_step(number, twin.mask_gradients)
        twin.take_masks(optimizer.pruner.named_masks())
        assert same(weights(model), weights(twin.model)), f"step {number}"
    assert optimizer.pruner.step == taken
    assert optimizer.pruner.last_update == round(0.75 * taken)
    assert optimizer.pruner.at_target
    assert accuracy(model) > 0.8


@pytest.mark.parametrize("mask_grads", [True, False])
def test_our_clipping_is_torchs_on_masked_gradients(mask_grads):
    model = network()
    optimizer = ours(model, mask_grads=mask_grads)
    twin = Twin(model, optimizer)
    for number in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, number).backward()
        norm = ap.clip_grad_norm_(optimizer, 0.2)
        optimizer.step()
        twin.optimizer.zero_grad()
        loss_of(twin.model, number).backward()
        twin.mask_gradients()
        expected = clip_grad_norm_(twin.model.parameters(), 0.2)
        twin.optimizer.step()
        torch.testing.assert_close(norm, expected, rtol=1e-5, atol=0)
        twin.take_masks(optimizer.pruner.named_masks())
        # The factor may be folded into the step, which rounds once less.
        torch.testing.assert_close(weights(model), weights(twin.model), rtol=1e-4, atol=1e-5)
        twin.model.load_state_dict(model.state_dict())
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("zero", [True, False], ids=["optimizer.zero_grad", "model.zero_grad"])
def test_our_clipping_under_a_scaler_that_skips(zero):
    """A factor found for a step that does not happen must not slip into the next one."""
    scaled, left_out = network(), network()
    optimizer, reference = ours(scaled), ours(left_out)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    for number in range(STEPS):
        (optimizer if zero else scaled).zero_grad()
        scaler.scale(loss_of(scaled, number)).backward()
        if number % 7 == 3:
            scaled[0].weight.grad[0, 0] = torch.inf
        scaler.unscale_(optimizer)
        ap.clip_grad_norm_(optimizer, 0.2)
        scaler.step(optimizer)
        scaler.update()
        if number % 7 != 3:
            reference.zero_grad()
            loss_of(left_out, number).backward()
            ap.clip_grad_norm_(reference, 0.2)
            reference.step()
        assert same(scaled.parameters(), left_out.parameters()), f"step {number}"
        # The norm saw the skipped batch too.
        left_out.load_state_dict(scaled.state_dict())


@pytest.mark.parametrize("flags", [{"foreach": True}, {"fused": True}], ids=str)
def test_torchs_faster_paths_prune_alike(flags):
    """They differ from the plain path by roundings, so the target and the result are compared, not bits."""
    model = network()
    settings = ap.Prune(sparsity=0.5, total_steps=STEPS, every=3)
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=0.01, weight_decay=0.1, prune=settings, **flags)
    train(model, optimizer)
    assert optimizer.pruner.at_target
    assert accuracy(model) > 0.85


def test_capturable_is_refused_on_cpu_as_torch_refuses_it():
    def step(make):
        model = network()
        optimizer = make(model.named_parameters(), capturable=True)
        with pytest.raises(Exception, match="capturable") as caught:
            train(model, optimizer, range(1))
        return type(caught.value)

    assert step(ap.AdamWPrune) is step(torch.optim.AdamW)


@pytest.mark.parametrize("kind", [ours, attached])
def test_hooks_of_the_optimizer_fire_once_a_step(kind):
    model = network()
    optimizer = kind(model)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(model, optimizer)
    assert calls == ["before", "after"] * STEPS
