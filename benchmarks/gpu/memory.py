# SPDX-License-Identifier: MIT
"""Memory that the allocator hands out over a ramp: steady state after it, and the peak of all of it.

    PYTHONPATH=src python3 benchmarks/gpu/memory.py [--out FOLDER] [--minutes 8]

At GPT-2's 124 M weights, all prunable. Steady state is what is allocated after the ramp with the gradients freed; goals
for float32: at most 2.05 times the weights at 50 % and 1.26 times at 90 % (AdamW: 3.00). The peak is over the whole
run, gradients included. It starts dense, so compact state does not lower it; smaller state and released gradients do.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from gpu_rows import Rows, options
from tensors import count, named

import adamwprune as ap

STEPS = 8

#: Name: type of the weights, options of the optimizer.
CASES: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "bfloat16 exp_avg": (torch.float32, {"state": "bfloat16"}),
    "8bit": (torch.float32, {"state": "8bit"}),
    "8bit, released": (torch.float32, {"state": "8bit", "release_gradients": True}),
    "bfloat16 weights": (torch.bfloat16, {}),
    "bfloat16 weights, 8bit, correction": (torch.bfloat16, {"state": "8bit", "correction": True}),
}


def main() -> None:
    """Measure every row that is not there yet."""
    rows = Rows("memory", options(__doc__))
    for name, (dtype, extra) in CASES.items():
        for sparsity in (0.0, 0.5, 0.9):
            key = f"{name}, {sparsity:.0%}"
            rows.measure(key, lambda d=dtype, s=sparsity, e=extra: ramp(rows.device, d, s, e, rows.dry_run))
    rows.measure("AdamW, fused", lambda: ramp(rows.device, torch.float32, None, {}, rows.dry_run))


def ramp(
    device: torch.device, dtype: torch.dtype, sparsity: float | None, extra: dict[str, Any], small: bool
) -> dict[str, Any]:
    """Train through a ramp; ``sparsity`` None takes torch's AdamW."""
    on_gpu = device.type == "cuda"
    gc.collect()  # the row before
    held = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    tensors = named(device, dtype, small)
    for _, p in tensors:
        p.grad = None
    weights = sum(p.numel() * p.element_size() for _, p in tensors)
    if sparsity is None:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(tensors, lr=1e-4, fused=True)
    else:
        prune = ap.Prune(sparsity=sparsity, total_steps=STEPS, start=1, end=5, every=1, mask_grads=False)
        optimizer = ap.AdamWPrune(tensors, lr=1e-4, prune=prune, **extra)
    for _ in range(STEPS):
        torch.stack([p.float().sum() for _, p in tensors]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = torch.cuda.max_memory_allocated() - held if on_gpu else 0
    steady = torch.cuda.memory_allocated() - held if on_gpu else 0
    number = count(tensors)
    return {
        "weights": number,
        "weight_bytes": weights,
        "steady_bytes": steady,
        "steady_over_weights": round(steady / weights, 4),
        "steady_per_weight": round(steady / number, 3),
        "peak_bytes": peak,
        "peak_over_weights": round(peak / weights, 4),
        "account": optimizer.pruner.report()["bytes"] if isinstance(optimizer, ap.AdamWPrune) else None,
    }


if __name__ == "__main__":
    main()
