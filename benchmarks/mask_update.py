# SPDX-License-Identifier: MIT
"""Time and transient memory of whole mask updates, against torch's fused AdamW step on the same tensors.

    python benchmarks/mask_update.py [--model resnet50|gpt2] [--threads 1 2] [--score state] [--distribution layer]

Prunes to 90 % in five updates, with a plain step between any two. A row's ratio is the update's time (the step that
ends with it, minus the plain step after it) over the fused step's. The last column is the growth of the process's peak
memory over that update.
"""

from __future__ import annotations

import argparse
import resource
import statistics

import torch
from optimizer_step import SHAPES, parameters, seconds

import adamwprune as ap
from adamwprune import kernels

STEPS = 12


def main() -> None:
    """Measure and print, for the native and the reference backend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="resnet50")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--score", default="state")
    parser.add_argument("--distribution", default="layer")
    options = parser.parse_args()
    shapes = SHAPES[options.model]()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for backend in ("native", "reference"):
            with kernels.use(backend):
                measure(shapes, options.score, options.distribution, f"{backend:9} {threads} thread(s)")


def measure(shapes: list[tuple[int, ...]], score: str, distribution: str, label: str) -> None:
    """Print a row per update."""
    torch.manual_seed(0)
    fused = torch.optim.AdamW(parameters(shapes), fused=True).step
    prune = ap.Prune(
        sparsity=0.9, total_steps=STEPS, start=1, end=STEPS - 1, every=2, score=score, distribution=distribution
    )
    optimizer = ap.AdamWPrune(parameters(shapes), fused=True, prune=prune)
    assert optimizer.pruner is not None
    optimizer.step()
    optimizer.step()
    unit = statistics.median(seconds(fused) for _ in range(9))
    while optimizer.pruner.step < STEPS:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        update = seconds(optimizer.step)
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        sparsity = optimizer.pruner.sparsity
        if optimizer.pruner.step < STEPS:
            update -= seconds(optimizer.step)
        print(
            f"{label}  to {sparsity:6.1%}  {1e3 * update:7.1f} ms  {update / unit:6.1f} fused steps  "
            f"{growth / 1024:6.1f} MiB more",
            flush=True,
        )


if __name__ == "__main__":
    main()
