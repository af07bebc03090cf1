# SPDX-License-Identifier: MIT
"""accelerate: the optimizer goes through ``prepare`` like any other. (pip install adamwprune[hf])"""

import torch
from accelerate import Accelerator
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy

import adamwprune as ap

chosen = options()
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = network()
optimizer = ap.AdamWPrune(
    model.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps)
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=chosen.steps)
pruner = optimizer.pruner
model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)

if chosen.resume:
    accelerator.load_state(chosen.folder / "half")

for step in range(pruner.step, chosen.steps):
    for part in range(accelerator.gradient_accumulation_steps):
        images, labels = batch(2 * step + part, size=32)
        with accelerator.accumulate(model):
            accelerator.backward(cross_entropy(model(images), labels))
            if accelerator.sync_gradients:
                ap.clip_grad_norm_(optimizer, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    if step + 1 == chosen.steps // 2:
        accelerator.save_state(chosen.folder / "half")

show(accelerator.unwrap_model(model), pruner)
