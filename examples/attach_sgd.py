# SPDX-License-Identifier: MIT
"""Any torch optimizer, pruned from beside: SGD keeps its own step, and magnitudes rank the weights."""

import torch
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy

import adamwprune as ap

chosen = options()
model = network()
optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1, momentum=0.9, nesterov=True)
pruner = ap.attach(optimizer, ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps, score="magnitude"))

if chosen.resume:
    state = torch.load(chosen.half, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])  # the pruner adds its masks to SGD's state

for step in range(pruner.step, chosen.steps):
    images, labels = batch(step)
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    optimizer.step()
    if step + 1 == chosen.steps // 2:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, chosen.half)

show(model, pruner)
