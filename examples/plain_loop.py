# SPDX-License-Identifier: MIT
"""The plain loop: AdamWPrune where AdamW was. With --resume the second half runs again, and gives the same numbers."""

import torch
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy

import adamwprune as ap

chosen = options()
model = network()
optimizer = ap.AdamWPrune(
    model.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps)
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=chosen.steps)

if chosen.resume:
    state = torch.load(chosen.half, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])  # masks and their schedule are in it
    schedule.load_state_dict(state["schedule"])

for step in range(optimizer.pruner.step, chosen.steps):
    images, labels = batch(step)
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    ap.clip_grad_norm_(optimizer, 1.0)
    optimizer.step()
    schedule.step()
    if step + 1 == chosen.steps // 2:
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        torch.save({name: part.state_dict() for name, part in parts.items()}, chosen.half)

show(model, optimizer.pruner)
