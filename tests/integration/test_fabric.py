# SPDX-License-Identifier: MIT
"""Lightning Fabric: the optimizer goes through ``setup``, checkpoints through ``save`` and ``load``."""

from __future__ import annotations

import pytest
from torch.nn import functional
from workbench import KINDS, STEPS, accuracy, batch, loss_of, network, same, weights

from adamwprune import clip_grad_norm_

fabrics = pytest.importorskip("lightning.fabric")


class Run:
    """A model and an optimizer that Fabric has set up."""

    def __init__(self, kind, fabric):
        self.fabric = fabric
        model = network()
        self.model, self.optimizer = fabric.setup(model, KINDS[kind](model))

    def train(self, steps):
        for step in steps:
            images, labels = batch(step)
            self.optimizer.zero_grad()
            self.fabric.backward(functional.cross_entropy(self.model(images), labels))
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=0.5)
            self.optimizer.step()

    @property
    def state(self):
        return {"model": self.model, "optimizer": self.optimizer}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(kind, precision, tmp_path):
    fabric = fabrics.Fabric(accelerator="cpu", devices=1, precision=precision)
    whole = Run(kind, fabric)
    whole.train(range(35))
    fabric.save(tmp_path / "state.ckpt", whole.state)
    whole.train(range(35, STEPS))
    assert whole.optimizer.pruner.at_target
    assert accuracy(whole.model) > 0.85

    resumed = Run(kind, fabric)
    fabric.load(tmp_path / "state.ckpt", resumed.state)
    resumed.train(range(35, STEPS))
    assert resumed.optimizer.pruner.report() == whole.optimizer.pruner.report()
    assert same(weights(resumed.model.module), weights(whole.model.module))


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_as_the_plain_loop_does(kind):
    """With our clipping, which looks through Fabric's wrapper."""
    fabric = fabrics.Fabric(accelerator="cpu", devices=1)
    plain = network()
    clipped = KINDS[kind](plain, mask_grads=False)
    for step in range(STEPS):
        clipped.zero_grad()
        loss_of(plain, step).backward()
        clip_grad_norm_(clipped, 0.2)
        clipped.step()
    run = network()
    model, optimizer = fabric.setup(run, KINDS[kind](run, mask_grads=False))
    for step in range(STEPS):
        images, labels = batch(step)
        optimizer.zero_grad()
        fabric.backward(functional.cross_entropy(model(images), labels))
        clip_grad_norm_(optimizer, 0.2)
        optimizer.step()
    assert same(weights(model.module), weights(plain))
