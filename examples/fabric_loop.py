# SPDX-License-Identifier: MIT
"""Lightning Fabric: the optimizer goes through ``setup`` like any other. (pip install adamwprune[lightning])"""

from digits import batch, network, options, show
from lightning.fabric import Fabric
from torch.nn.functional import cross_entropy

import adamwprune as ap

chosen = options()
fabric = Fabric(accelerator="cpu", devices=1)
model = network()
optimizer = ap.AdamWPrune(
    model.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps)
)
pruner = optimizer.pruner
model, optimizer = fabric.setup(model, optimizer)
state = {"model": model, "optimizer": optimizer}

if chosen.resume:
    fabric.load(chosen.half, state)

for step in range(pruner.step, chosen.steps):
    images, labels = batch(step)
    optimizer.zero_grad()
    fabric.backward(cross_entropy(model(images), labels))
    fabric.clip_gradients(model, optimizer, max_norm=1.0)
    optimizer.step()
    if step + 1 == chosen.steps // 2:
        fabric.save(chosen.half, state)

show(model.module, pruner)
