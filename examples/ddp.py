# SPDX-License-Identifier: MIT
"""DistributedDataParallel that exchanges the gradients of kept weights only.

torchrun --nproc-per-node 2 examples/ddp.py
"""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # imported later, as DDP does, it keeps gloo's threads beyond the end
from digits import batch, network, options, show
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import adamwprune as ap

chosen = options()
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
model = DistributedDataParallel(network())
optimizer = ap.AdamWPrune(
    model.module.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=chosen.sparsity, total_steps=chosen.steps)
)

if chosen.resume:
    state = torch.load(chosen.half, weights_only=True)
    model.module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
ap.reduce_kept_gradients(model, optimizer)  # and from now on the ranks compare their masks at every update

for step in range(optimizer.pruner.step, chosen.steps):
    images, labels = batch(world * step + rank, size=64 // world)
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    ap.clip_grad_norm_(optimizer, 1.0)
    optimizer.step()
    if step + 1 == chosen.steps // 2 and rank == 0:
        torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}, chosen.half)

if rank == 0:
    show(model.module, optimizer.pruner)
dist.barrier()
dist.destroy_process_group()
