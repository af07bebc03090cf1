# SPDX-License-Identifier: MIT
"""Time of steps and mask updates against torch's fused AdamW, at GPT-2's 124 M weights.

    PYTHONPATH=src python3 benchmarks/gpu/step_time.py [--out FOLDER] [--minutes 8]

Every step is timed between two fused steps on tensors of the same shapes and type. Goals: at most 1.02 unpruned, 0.80
at 50 %, 0.58 at 90 %; a mask update at most 4 fused steps.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gpu_rows import Rows, milliseconds, options, paired
from tensors import count, named, pruned

import adamwprune as ap
from adamwprune import kernels

SPARSITIES = (0.3, 0.5, 0.7, 0.9, 0.95)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: Other forms of state, by what they are called: their types of weights and options.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "8bit": ("float32", {"state": "8bit"}),
    "8bit-correction": ("bfloat16", {"state": "8bit", "correction": True}),
    "float32-moments": ("bfloat16", {"state": "float32"}),
}


def main() -> None:
    """Time every row that is not there yet."""
    rows = Rows("step_time", options(__doc__))
    small, device = rows.dry_run, rows.device

    def fused(dtype: str) -> Callable[[], Any]:
        return torch.optim.AdamW(named(device, DTYPES[dtype], small), lr=1e-4, fused=True).step

    def row(make: Callable[[], Callable[[], Any]], dtype: str) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            ours = make()
            found = paired(ours, fused(dtype), device)
            del ours
            gc.collect()
            torch.cuda.empty_cache()
            return found

        return run

    for dtype in DTYPES:
        rows.measure(f"{dtype}, unpruned", row(partial(unpruned, device, DTYPES[dtype], small), dtype))
        for sparsity in SPARSITIES:
            make = partial(masked, device, DTYPES[dtype], sparsity, small)
            rows.measure(f"{dtype}, {sparsity:.0%}", row(make, dtype))
    for sparsity in (0.5, 0.9):
        for name, (dtype, extra) in FORMS.items():
            make = partial(masked, device, DTYPES[dtype], sparsity, small, **extra)
            rows.measure(f"{dtype}, {sparsity:.0%}, {name}", row(make, dtype))
        for name, made in {"gradients masked": masking, "clipped": clipping, "graph": replaying}.items():
            rows.measure(f"float32, {sparsity:.0%}, {name}", row(partial(made, device, sparsity, small), "float32"))
        rows.measure(f"float32, {sparsity:.0%}, ten in a row", partial(in_a_row, device, sparsity, small))
    rows.measure("mask updates", lambda: mask_updates(device, small, fused("float32")))


def unpruned(device: torch.device, dtype: torch.dtype, small: bool) -> Callable[[], Any]:
    """A step before anything is pruned."""
    return ap.AdamWPrune(named(device, dtype, small), lr=1e-4, fused=True, prune=None).step


def masked(device: torch.device, dtype: torch.dtype, sparsity: float, small: bool, **extra: Any) -> Callable[[], Any]:
    """A step on the state of kept weights."""
    return pruned(named(device, dtype, small), sparsity, **extra).step


def masking(device: torch.device, sparsity: float, small: bool) -> Callable[[], Any]:
    """A step after the gradients were masked, as the hooks do after `backward`."""
    optimizer = pruned(named(device, torch.float32, small), sparsity, mask_grads=True)

    def run() -> None:
        for slot in optimizer.pruner.slots.values():
            kernels.zero_masked(slot.weight.grad, slot.mask)
        optimizer.step()

    return run


def clipping(device: torch.device, sparsity: float, small: bool) -> Callable[[], Any]:
    """A step after the norm over kept weights was taken; its factor is folded into the step."""
    optimizer = pruned(named(device, torch.float32, small), sparsity)

    def run() -> None:
        ap.clip_grad_norm_(optimizer, 1.0)
        optimizer.step()

    return run


def replaying(device: torch.device, sparsity: float, small: bool) -> Callable[[], Any]:
    """A step that a CUDA graph replays."""
    optimizer = pruned(named(device, torch.float32, small), sparsity, capturable=device.type == "cuda")
    if device.type != "cuda":
        return optimizer.step
    optimizer.step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph.replay


def in_a_row(device: torch.device, sparsity: float, small: bool) -> dict[str, Any]:
    """Ten steps that nobody waits for in between, beside ten fused ones: the host's part is hidden where it can be."""
    ours = masked(device, torch.float32, sparsity, small)
    fused = torch.optim.AdamW(named(device, torch.float32, small), lr=1e-4, fused=True).step
    return paired(lambda: [ours() for _ in range(10)], lambda: [fused() for _ in range(10)], device, rounds=10)


def mask_updates(device: torch.device, small: bool, fused: Callable[[], Any]) -> dict[str, Any]:
    """Time of each of ten mask updates to 90 %, less a plain step's, in fused steps. The first run warms up."""
    for _ in range(2):
        prune = ap.Prune(sparsity=0.9, total_steps=31, start=1, end=31, every=3, mask_grads=False)
        optimizer = ap.AdamWPrune(named(device, torch.float32, small), lr=1e-4, fused=True, prune=prune)
        optimizer.step()
        updates = []
        for _ in range(10):
            optimizer.step()
            plain = milliseconds(optimizer.step, device)
            updates.append(milliseconds(optimizer.step, device) - plain)
    unit = min(milliseconds(fused, device) for _ in range(10))
    return {
        "weights": count(named(device, torch.float32, small)),
        "ms": [round(x, 3) for x in updates],
        "fused_steps": [round(x / unit, 2) for x in updates],
        "unit_ms": round(unit, 4),
        "sparsity": optimizer.pruner.sparsity,
    }


if __name__ == "__main__":
    main()
