# SPDX-License-Identifier: MIT
"""How much larger a batch becomes when state has become smaller: the largest one within the same memory.

    python benchmarks/head_room.py [--batch 16]

A GPT of 19 M weights and 64 tokens takes training steps in a process of its own. The budget is the peak of a step with
torch's AdamW at the given batch. Every row then finds the largest batch whose step stays within it, before the ramp and
after, by taking steps and reading the process's peak. How much is won depends on the network: on the state's size
against the activations of one example. The rows go to results/benchmarks/head_room.json.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import Any

import record
import tables
import torch
from process_memory import in_fresh_process, peak, reset_peak, resident
from torch import nn

import adamwprune as ap
from adamwprune.models.gpt2 import GPT2, Shape

SHAPE = Shape(blocks=6, heads=8, width=512, context=64, vocabulary=256)
#: The ramp; a search takes fewer steps than there are before it.
START, END = 30, 33

#: Options of the optimizer and the sparsity; None is torch's AdamW.
ROWS: dict[str, dict[str, Any] | None] = {
    "torch AdamW": None,
    "AdamWPrune, 50%": {"sparsity": 0.5},
    "AdamWPrune, 90%": {"sparsity": 0.9},
    "8-bit state, 50%": {"sparsity": 0.5, "state": "8bit"},
    "8-bit state, 90%": {"sparsity": 0.9, "state": "8bit"},
}


def training(options: dict[str, Any] | None) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and its optimizer."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = GPT2(SHAPE)
    if options is None:
        return model, torch.optim.AdamW(model.parameters(), fused=True)
    rest = dict(options)
    prune = ap.Prune(sparsity=rest.pop("sparsity"), total_steps=10**6, start=START, end=END, every=1)
    return model, ap.AdamWPrune(model.named_parameters(), fused=True, prune=prune, **rest)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> None:
    """One training step on random tokens."""
    tokens = torch.randint(SHAPE.vocabulary, (batch, SHAPE.context + 1))
    logits = model(tokens[:, :-1])
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()


def peak_of(run: Callable[[], None], start: int) -> int:
    """The most that the process held beyond ``start`` while ``run`` ran."""
    gc.collect()
    reset_peak()
    run()
    return peak() - start


def peaks(options: dict[str, Any] | None, batches: list[int]) -> list[int]:
    """Peaks of a dense step at each batch; for the budget and the size of an example's activations."""
    start = resident()
    model, optimizer = training(options)
    step(model, optimizer, 2)
    return [peak_of(lambda batch=batch: step(model, optimizer, batch), start) for batch in batches]


def largest(options: dict[str, Any] | None, budget: int, limit: int) -> dict[str, int]:
    """The largest batch within the budget before the ramp, and after it (the same where there is none)."""
    start = resident()
    model, optimizer = training(options)
    step(model, optimizer, 2)

    def fits(batch: int) -> bool:
        return peak_of(lambda: step(model, optimizer, batch), start) <= budget

    def search() -> int:
        low, high = 1, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low

    before = search()
    if isinstance(optimizer, ap.AdamWPrune):
        assert optimizer.pruner.step < START
        while optimizer.pruner.step < END:
            step(model, optimizer, 2)
    return {"before": before, "after": search()}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    small, budget = in_fresh_process("head_room", "peaks", options=None, batches=[options.batch // 2, options.batch])
    rows = []
    for name, row in ROWS.items():
        found = in_fresh_process("head_room", "largest", options=row, budget=budget, limit=5 * options.batch // 2)
        rows.append({"candidate": name, **found})
        print(f"before {found['before']:4d}  after {found['after']:4d}  {name}", flush=True)
    settings = {
        "model": f"GPT of {SHAPE.blocks} blocks, width {SHAPE.width}, {SHAPE.context} tokens",
        "weights": sum(p.numel() for p in GPT2(SHAPE).parameters()),
        "batch": options.batch,
        "budget_bytes": budget,
        "example_bytes": (budget - small) // (options.batch - options.batch // 2),
    }
    record.write("head_room", settings, rows)
    print(tables.render("head_room"))


if __name__ == "__main__":
    main()
