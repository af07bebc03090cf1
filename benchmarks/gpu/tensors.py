# SPDX-License-Identifier: MIT
"""The tensors that are timed: GPT-2 small's matrices (124 M weights), all prunable."""

from __future__ import annotations

from typing import Any

import gpu_rows  # noqa: F401  (finds the benchmarks beside this folder)
import torch
from shapes import gpt2, matrices

import adamwprune as ap

Named = list[tuple[str, torch.nn.Parameter]]


def named(device: torch.device, dtype: torch.dtype, small: bool) -> Named:
    """Random weights with random gradients, on the device."""
    shapes = {"layer0.weight": (96, 64), "layer1.weight": (80, 64)} if small else matrices(gpt2())
    out = []
    for name, shape in shapes.items():
        p = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype).normal_(0, 0.02))
        p.grad = torch.empty_like(p).normal_(0, 1e-3)
        out.append((name, p))
    return out


def count(tensors: Named) -> int:
    """Number of weights."""
    return sum(p.numel() for _, p in tensors)


def pruned(tensors: Named, sparsity: float, *, mask_grads: bool = False, **options: Any) -> ap.AdamWPrune:
    """An optimizer that has reached its target and will not update its masks again."""
    prune = ap.Prune(
        sparsity=sparsity, total_steps=2, start=0, end=1, every=1, score="magnitude", mask_grads=mask_grads
    )
    optimizer = ap.AdamWPrune(tensors, lr=1e-4, prune=prune, **options)
    optimizer.step()
    optimizer.step()
    assert optimizer.pruner is not None
    assert optimizer.pruner.at_target
    return optimizer
