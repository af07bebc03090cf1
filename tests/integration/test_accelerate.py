# SPDX-License-Identifier: MIT
"""accelerate: the optimizer goes through ``prepare``, checkpoints through ``save_state`` and ``load_state``."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from workbench import KINDS, STEPS, accuracy, batch, loss_of, network, ours, same, weights

from adamwprune import clip_grad_norm_

accelerate = pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, GradientState  # noqa: E402


@pytest.fixture(autouse=True)
def _fresh():
    """accelerate's settings are of the process: each test has its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Run:
    """A prepared model, optimizer and schedule."""

    def __init__(self, kind, accelerator, **settings):
        self.accelerator = accelerator
        model = network()
        optimizer = KINDS[kind](model, **settings)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=STEPS + 1)
        self.model, self.optimizer, self.schedule = accelerator.prepare(model, optimizer, schedule)
        self.pruner = optimizer.pruner

    def train(self, batches):
        for number in batches:
            images, labels = batch(number, 32)
            with self.accelerator.accumulate(self.model):
                with self.accelerator.autocast():
                    loss = functional.cross_entropy(self.model(images), labels)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.5)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(kind, precision, tmp_path):
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    whole = Run(kind, accelerator)
    whole.train(range(35))
    accelerator.save_state(tmp_path)
    whole.train(range(35, STEPS))
    assert whole.pruner.at_target
    assert accuracy(whole.model) > 0.85

    accelerator.free_memory()
    resumed = Run(kind, accelerator)
    accelerator.load_state(tmp_path)
    resumed.train(range(35, STEPS))
    assert resumed.pruner.report() == whole.pruner.report()
    assert same(weights(resumed.model), weights(whole.model))


def test_accumulation_counts_optimizer_steps():
    run = Run("ours", accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2))
    run.train(range(2 * STEPS))
    assert run.pruner.step == STEPS
    assert run.pruner.at_target


@pytest.mark.parametrize("mask_grads", [True, False])
def test_it_trains_as_the_plain_loop_does(mask_grads):
    """With our clipping, which looks through accelerate's wrapper."""
    accelerator = accelerate.Accelerator(cpu=True)
    plain, model = network(), network()
    clipped = ours(plain, mask_grads=mask_grads)
    for step in range(STEPS):
        clipped.zero_grad()
        loss_of(plain, step).backward()
        clip_grad_norm_(clipped, 0.2)
        clipped.step()
    model, optimizer = accelerator.prepare(model, ours(model, mask_grads=mask_grads))
    for step in range(STEPS):
        images, labels = batch(step)
        accelerator.backward(functional.cross_entropy(model(images), labels))
        clip_grad_norm_(optimizer, 0.2)
        optimizer.step()
        optimizer.zero_grad()
    assert same(weights(model), weights(plain))
