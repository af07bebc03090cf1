# SPDX-License-Identifier: MIT
"""Less memory from the first step on: bfloat16 weights with an int8 correction, moments as 8-bit codes."""

import torch
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy

import adamwprune as ap

chosen = options()
model = network().bfloat16()
optimizer = ap.AdamWPrune(
    model.named_parameters(),
    lr=3e-3,
    state="8bit",
    correction=True,
    prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps),
)

if chosen.resume:
    state = torch.load(chosen.half, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])  # the codes as they were: nothing drifts

for step in range(optimizer.pruner.step, chosen.steps):
    images, labels = batch(step)
    optimizer.zero_grad()
    cross_entropy(model(images.bfloat16()), labels).backward()
    optimizer.step()
    if step + 1 == chosen.steps // 2:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, chosen.half)

show(model, optimizer.pruner)
