# SPDX-License-Identifier: MIT
"""Time of forward, backward and step, with gradients masked where it really happens: right after backward made them.

    python benchmarks/backward_step.py [--model resnet50|gpt2] [--threads 1 2] [--rounds 9] [--rows 64] [--resume]

The network is a row of independent linear layers with the shapes of a model's matrices (filters flattened), each on a
batch of 64 rows. The unit is the same with torch's fused AdamW. The batch is small: the larger it is, the less any
optimizer weighs. So a row also says how many fused steps more it took than its unit.
`torch.nn.utils.prune` multiplies a mask into the weights in every forward pass, and into their gradients in every
backward pass. The rows go to results/benchmarks/backward_step-MODEL.json, one by one; --resume keeps those of the same
commit and settings that are there, and measures the others.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Collection, Iterator
from typing import Any

import record
import tables
import torch
from optimizer_step import at_target
from shapes import MODELS, count, matrices
from timing import Run, paired, seconds
from torch import nn
from torch.nn.utils import prune

import adamwprune as ap


class Layers(nn.ModuleList):
    """Linear layers that know nothing of each other."""

    def __init__(self, model: str, rows: int) -> None:
        shapes = [(shape[0], math.prod(shape[1:])) for shape in matrices(MODELS[model]()).values()]
        super().__init__(nn.Linear(inputs, outputs, bias=False) for outputs, inputs in shapes)
        self.inputs = [torch.randn(rows, layer.in_features, requires_grad=True) for layer in self]
        self.gradients = [torch.randn(rows, layer.out_features) for layer in self]

    def forward_and_backward(self) -> None:
        """One pass through every layer and back, with fresh gradients."""
        for layer, x, gradient in zip(self, self.inputs, self.gradients, strict=True):
            x.grad = None
            layer(x).backward(gradient)


def training_step(layers: Layers, optimizer: torch.optim.Optimizer) -> Run:
    """What is timed."""

    def run() -> None:
        optimizer.zero_grad()
        layers.forward_and_backward()
        optimizer.step()

    return run


def candidates(model: str, rows: int) -> Iterator[tuple[str, Callable[[], Run]]]:
    """A row's name, and a function that makes what is timed."""

    def fused() -> Run:
        layers = Layers(model, rows)
        return training_step(layers, torch.optim.AdamW(layers.parameters(), fused=True))

    def ours(sparsity: float, mask_grads: bool) -> Run:
        layers = Layers(model, rows)
        layers.forward_and_backward()
        return training_step(layers, at_target(list(layers.named_parameters()), sparsity, mask_grads=mask_grads))

    def waiting() -> Run:
        layers = Layers(model, rows)
        settings = ap.Prune(sparsity=0.5, total_steps=10**6)
        return training_step(layers, ap.AdamWPrune(layers.named_parameters(), fused=True, prune=settings))

    def reparametrized(sparsity: float) -> Run:
        layers = Layers(model, rows)
        for layer in layers:
            prune.random_unstructured(layer, "weight", sparsity)
        return training_step(layers, torch.optim.AdamW(layers.parameters(), fused=True))

    yield "torch AdamW, fused (against itself)", fused
    yield "AdamWPrune, before the ramp", waiting
    for sparsity in (0.5, 0.9):
        yield f"AdamWPrune, {sparsity:.0%}", lambda s=sparsity: ours(s, True)
        yield f"AdamWPrune, {sparsity:.0%}, mask_grads=False", lambda s=sparsity: ours(s, False)
    yield "torch.nn.utils.prune, 50%", lambda: reparametrized(0.5)


def measure(
    model: str, threads: int, rounds: int, rows: int, there: Collection[tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """Rows of the table but for those that are ``there``, by candidate and threads."""
    torch.set_num_threads(threads)
    layers = Layers(model, rows)
    optimizer = torch.optim.AdamW(layers.parameters(), fused=True)
    unit = training_step(layers, optimizer)
    unit()
    fused = statistics.median(seconds(optimizer.step) for _ in range(9))
    for name, make in candidates(model, rows):
        if (name, threads) in there:
            continue
        run = make()
        found = paired(run, unit, rounds)
        del run
        extra = round(statistics.median(found.extras) / fused, 3)
        row = {"candidate": name, "threads": threads, **found.row(), "fused_ms": round(1e3 * fused, 2)}
        print(f"{threads} thread(s)  {row['ratio']:7.3f}  {extra:+.2f} fused steps  {name}", flush=True)
        yield {**row, "extra_steps": extra}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--resume", action="store_true", help="go on with what an earlier call measured")
    options = parser.parse_args()
    torch.manual_seed(0)
    name = f"backward_step-{options.model}"
    settings = {
        "model": options.model,
        "weights": count(matrices(MODELS[options.model]())),
        "batch_rows": options.rows,
        "unit": "forward, backward and fused step of torch",
        "rounds": options.rounds,
    }
    rows = record.begun(name, settings) if options.resume else []
    there = {(row["candidate"], row["threads"]) for row in rows}
    for threads in options.threads:
        for row in measure(options.model, threads, options.rounds, options.rows, there):
            rows.append(row)
            record.write(name, settings, rows)
    print(tables.render("backward_step"))


if __name__ == "__main__":
    main()
