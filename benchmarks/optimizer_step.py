# SPDX-License-Identifier: MIT
"""Time of one optimizer step against torch's fused AdamW on the same tensors.

    python benchmarks/optimizer_step.py [--model resnet50|gpt2] [--threads 1 2] [--rounds 15] [--json FILE]

Every candidate is timed between two fused steps, and what counts is its time over their mean: other load on the
machine meets both. The table shows the median ratio and its quartiles. Rows with "gradients masked" include what the
default `mask_grads=True` does after `backward`. All tensors are prunable; the mask is random.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import adamwprune as ap
from adamwprune import kernels


def resnet50_shapes() -> list[tuple[int, ...]]:
    """Weights of ResNet-50's convolutions and classifier (25.5 M)."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                shapes.append((4 * width, inputs, 1, 1))
            inputs = 4 * width
    return [*shapes, (1000, 2048)]


def gpt2_shapes() -> list[tuple[int, ...]]:
    """Matrices of GPT-2 small, embeddings among them (124 M)."""
    width = 768
    block = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    return [(50257, width), (1024, width), *block * 12]


SHAPES = {"resnet50": resnet50_shapes, "gpt2": gpt2_shapes}


def parameters(shapes: list[tuple[int, ...]]) -> list[tuple[str, torch.nn.Parameter]]:
    """Random weights with random gradients."""
    named = []
    for i, shape in enumerate(shapes):
        p = torch.nn.Parameter(torch.randn(shape) * 0.02)
        p.grad = torch.randn(shape) * 1e-3
        named.append((f"layer{i}.weight", p))
    return named


def pruned(shapes: list[tuple[int, ...]], sparsity: float, **options: Any) -> torch.optim.Optimizer:
    """An AdamWPrune that has reached its target, by random masks."""
    prune = ap.Prune(sparsity=sparsity, total_steps=2, start=0, end=1, every=1, score="random", **options)
    optimizer = ap.AdamWPrune(parameters(shapes), prune=prune)
    optimizer.step()
    assert optimizer.pruner is not None
    assert optimizer.pruner.at_target
    return optimizer


def mask_gradients(optimizer: torch.optim.Optimizer) -> None:
    """What the hooks do after `backward`."""
    for slot in optimizer.pruner.slots.values():  # type: ignore[attr-defined]
        kernels.zero_masked(slot.weight.grad, slot.mask)


def candidates(shapes: list[tuple[int, ...]]) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Name to a function that makes what is timed; made one at a time, so that memory is one candidate's."""

    def step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        return optimizer.step

    def masked_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        return lambda: (mask_gradients(optimizer), optimizer.step())

    def clipped_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        return lambda: (ap.clip_grad_norm_(optimizer, 1.0), optimizer.step())

    made: dict[str, Callable[[], Callable[[], Any]]] = {
        "torch AdamW, for-loop": lambda: step(torch.optim.AdamW(parameters(shapes), foreach=False)),
        "torch AdamW, foreach": lambda: step(torch.optim.AdamW(parameters(shapes), foreach=True)),
        "AdamWPrune, prune=None, fused": lambda: step(ap.AdamWPrune(parameters(shapes), fused=True)),
    }
    for sparsity in (0.3, 0.5, 0.7, 0.9):
        label = f"AdamWPrune {sparsity:.0%}"
        made[f"{label}, mask_grads=False"] = lambda s=sparsity: step(pruned(shapes, s, mask_grads=False))
        made[f"{label}, gradients masked"] = lambda s=sparsity: masked_step(pruned(shapes, s))
    made["AdamWPrune 50%, mask_grads=False, clipped"] = lambda: clipped_step(pruned(shapes, 0.5, mask_grads=False))
    return made


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(shapes: list[tuple[int, ...]], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table, each with its ratios to the fused step."""
    torch.set_num_threads(threads)
    fused = torch.optim.AdamW(parameters(shapes), fused=True).step
    rows = []
    for name, make in candidates(shapes).items():
        run = make()
        for _ in range(2):
            seconds(fused), seconds(run)
        ratios, times = [], []
        for _ in range(rounds):
            before, ours, after = seconds(fused), seconds(run), seconds(fused)
            ratios.append(2 * ours / (before + after))
            times.append((before + after) / 2)
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "candidate": name,
                "threads": threads,
                "ratio": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "fused_ms": round(1e3 * statistics.median(times), 2),
            }
        )
        print(f"{threads} thread(s)  {middle:6.3f}  [{low:.3f}, {high:.3f}]  {name}", flush=True)
    return rows


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="resnet50")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    shapes = SHAPES[options.model]()
    weights = sum(torch.Size(shape).numel() for shape in shapes)
    print(
        f"{options.model}: {weights / 1e6:.1f} M weights, backend {kernels.backend('cpu')}, ratio to torch fused AdamW"
    )
    rows = [row for threads in options.threads for row in measure(shapes, threads, options.rounds)]
    if options.json:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        content = {"schema": 1, "model": options.model, "weights": weights, **machine, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
