# SPDX-License-Identifier: MIT
"""An exponential average of the weights: the pruner follows it, so that it is as sparse as the model."""

import torch
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import adamwprune as ap

chosen = options()
model = network()
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
optimizer = ap.AdamWPrune(
    model.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps)
)
optimizer.pruner.follow(average)

if chosen.resume:
    state = torch.load(chosen.half, weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])

for step in range(optimizer.pruner.step, chosen.steps):
    images, labels = batch(step)
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    optimizer.step()
    average.update_parameters(model)
    if step + 1 == chosen.steps // 2:
        parts = {"model": model, "average": average, "optimizer": optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()}, chosen.half)

show(model, optimizer.pruner)
print("and its average: ", end="")
show(average, optimizer.pruner)
