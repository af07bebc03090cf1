# SPDX-License-Identifier: MIT
"""Other ways to keep pruned weights at zero, for comparison with ours on the same tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from adamwprune.optim.groups import parameters


class BoolMasks:
    """The masking of the original AdamWPrune, stated anew: one bool per weight, multiplied in at every step.

    Gradients before the step, weights and both moments after it. Its optimizer was torch's AdamW as torch chooses its
    implementation, with AMSGrad, which could not be turned off; here both are free.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, sparsity: float) -> None:
        self.optimizer = optimizer
        self.masks = {p: torch.rand_like(p) >= sparsity for p in parameters(optimizer.param_groups)}

    @torch.no_grad()
    def step(self) -> None:
        """Mask the gradients, step, mask what the optimizer holds."""
        for p, mask in self.masks.items():
            assert p.grad is not None
            p.grad.mul_(mask.to(p.dtype))
        self.optimizer.step()
        for p, mask in self.masks.items():
            state = self.optimizer.state[p]
            for tensor in (p, state["exp_avg"], state["exp_avg_sq"]):
                tensor.mul_(mask.to(tensor.dtype))


def original_masks(params: Iterable[Tensor], sparsity: float) -> BoolMasks:
    """The original's masking on its own optimizer's settings."""
    return BoolMasks(torch.optim.AdamW(params, amsgrad=True), sparsity)


def torchao_pruner(params: Iterable[Tensor], sparsity: float, *, healing: bool) -> torch.optim.Optimizer:
    """torchao's PruneOptimizer (a prototype there) around torch's fused AdamW, single weights by magnitude.

    Args:
        params: what is pruned.
        sparsity: fraction removed.
        healing: with the final mask, which every step finds again as the weights that are not zero; else in its pruning
            phase, in which every step ranks all weights anew and keeps a dense copy of them.
    """
    from torchao.prototype.pat.optim import PruneOptimizer

    group = {"prox_type": "MinSparsityConstraint", "group_type": "KElementGrouper", "k": 1, "min_sparsity": sparsity}
    base = torch.optim.AdamW([{"params": list(params), **group}], fused=True)
    return PruneOptimizer(base, warmup_steps=0, healing_start_step=1 if healing else 10**6)


def torchao_8bit(params: Iterable[Tensor]) -> torch.optim.Optimizer:
    """torchao's AdamW with 8-bit state; it compiles its step for every shape."""
    from torchao.optim import AdamW8bit

    return AdamW8bit(params)
