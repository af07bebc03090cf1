# SPDX-License-Identifier: MIT
"""Time and transient memory of whole mask updates, against torch's fused AdamW step on the same tensors.

    python benchmarks/mask_update.py [--model resnet50|gpt2] [--threads 1 2] [--rounds 5] [--score state]
                                     [--distribution layer]

Prunes all tensors to 90 % in ten updates, by the cubic schedule, with plain steps between. An update's time is that of
the step that ends with it minus that of the plain step before. A first round stands apart: there compaction writes to
memory that the process never touched, which is a page fault each 4 KiB, and in a virtual machine one that reaches the
host. A training process has touched its memory many times over (activations) before it prunes. Transient memory is the
growth of the process's peak over the step, measured in a process of its own. The rows go to
results/benchmarks/mask_update-MODEL.json.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import record
import tables
import torch
from process_memory import growth, in_fresh_process
from shapes import MODELS, count, matrices, parameters
from timing import seconds

import adamwprune as ap

UPDATES = 10
EVERY = 3


def ramp(model: str, score: str, distribution: str) -> ap.AdamWPrune:
    """An optimizer that stands at the start of its ramp."""
    end = 1 + UPDATES * EVERY
    prune = ap.Prune(
        sparsity=0.9, total_steps=end, start=1, end=end, every=EVERY, score=score, distribution=distribution
    )
    optimizer = ap.AdamWPrune(parameters(matrices(MODELS[model]())), fused=True, prune=prune)
    optimizer.step()
    return optimizer


def times(model: str, threads: int, rounds: int, choice: dict[str, str]) -> list[dict[str, Any]]:
    """A row per update: medians over rounds, and the round before these."""
    torch.set_num_threads(threads)
    unit = torch.optim.AdamW(parameters(matrices(MODELS[model]())), fused=True).step
    unit()
    fused: list[float] = []
    found: list[list[float]] = [[] for _ in range(UPDATES)]
    reached: list[float] = []
    for _ in range(1 + rounds):
        optimizer, reached = ramp(model, **choice), []
        for taken in found:
            for _ in range(EVERY - 2):
                optimizer.step()
            fused.append(seconds(unit))
            plain = seconds(optimizer.step)
            taken.append(seconds(optimizer.step) - plain)
            reached.append(optimizer.pruner.sparsity)
    middle = statistics.median(fused)
    return [
        {
            "update": number,
            "sparsity": round(sparsity, 4),
            "threads": threads,
            "ms": round(1e3 * statistics.median(taken), 1),
            "unit_ms": round(1e3 * middle, 2),
            "fused_steps": round(statistics.median(taken) / middle, 2),
            "first_round_fused_steps": round(first / middle, 2),
        }
        for number, (sparsity, (first, *taken)) in enumerate(zip(reached, found, strict=True), start=1)
    ]


def transient(model: str, choice: dict[str, str]) -> list[int]:
    """Bytes by which the process grows at most during each update's step."""
    torch.set_num_threads(1)
    optimizer = ramp(model, **choice)
    grown = []
    for _ in range(UPDATES):
        for _ in range(EVERY - 1):
            optimizer.step()
        grown.append(growth(optimizer.step))
    return grown


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--score", default="state")
    parser.add_argument("--distribution", default="layer")
    options = parser.parse_args()
    choice = {"score": options.score, "distribution": options.distribution}
    rows = [row for threads in options.threads for row in times(options.model, threads, options.rounds, choice)]
    grown = in_fresh_process("mask_update", "transient", model=options.model, choice=choice)
    for row in rows:
        row["transient_bytes"] = grown[row["update"] - 1]
    shapes = matrices(MODELS[options.model]())
    settings = {
        "model": options.model,
        "weights": count(shapes),
        "largest_tensor_bytes": max(4 * torch.Size(shape).numel() for shape in shapes.values()),
        "unit": "fused step of torch",
        "rounds": options.rounds,
        **choice,
    }
    record.write(f"mask_update-{options.model}", settings, rows)
    print(tables.render("mask_update"))


if __name__ == "__main__":
    main()
