# SPDX-License-Identifier: MIT
"""How much larger a batch becomes when state has become smaller: the largest one within the same memory.

    python benchmarks/head_room.py [--batch 8]

A GPT of 10.7 M weights and 64 tokens takes training steps. The budget is the peak of a step with torch's AdamW at the
given batch. Every row then finds the largest batch whose step stays within it, before the ramp and after, by taking
steps and reading the process's peak. *After* is also what a run has that is resumed after its ramp. How much is won
depends on the network: on the state's size against the activations of one example.

All rows share a process that has trained a network already, so that what torch loads and keeps for itself is there
before anything is measured. What the peak exceeds the budget by less than half of an example's activations counts as
within it: the smallest batches differ by less than the reading does, because their peak is that of the gradients.
The rows go to results/benchmarks/head_room.json.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import record
import tables
import torch
from process_memory import in_fresh_process, peak, reset_peak, resident
from torch import nn

import adamwprune as ap
from adamwprune.models.gpt2 import GPT2, Shape

SHAPE = Shape(blocks=6, heads=6, width=384, context=64, vocabulary=256)

#: The ramp. A search takes one or two steps a probe, and ends before it.
START, END = 16, 17

_BF16: dict[str, Any] = {"dtype": "bfloat16", "state": "8bit", "correction": True}

#: Options of the optimizer, the sparsity, and the weights' type; without a sparsity it is torch's AdamW.
ROWS: dict[str, dict[str, Any]] = {
    "torch AdamW": {},
    "AdamWPrune, 50%": {"sparsity": 0.5},
    "AdamWPrune, 90%": {"sparsity": 0.9},
    "AdamWPrune, 90%, gradients released": {"sparsity": 0.9, "release_gradients": True},
    "8-bit state, 50%": {"sparsity": 0.5, "state": "8bit"},
    "8-bit state, 90%": {"sparsity": 0.9, "state": "8bit"},
    "8-bit state, 90%, gradients released": {"sparsity": 0.9, "state": "8bit", "release_gradients": True},
    "torch AdamW, bf16 weights and state": {"dtype": "bfloat16"},
    "8-bit state, bf16 weights with correction, 50%": {"sparsity": 0.5, **_BF16},
    "8-bit state, bf16 weights with correction, 90%": {"sparsity": 0.9, **_BF16},
    "8-bit, bf16, correction, 90%, gradients released": {"sparsity": 0.9, "release_gradients": True, **_BF16},
}


def training(
    sparsity: float | None = None, dtype: str = "float32", **options: Any
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and its optimizer."""
    model = GPT2(SHAPE).to(getattr(torch, dtype))
    if sparsity is None:
        return model, torch.optim.AdamW(model.parameters(), fused=True)
    prune = ap.Prune(sparsity=sparsity, total_steps=10**6, start=START, end=END, every=1)
    return model, ap.AdamWPrune(model.named_parameters(), fused=True, prune=prune, **options)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> None:
    """One training step on random tokens."""
    tokens = torch.randint(SHAPE.vocabulary, (batch, SHAPE.context + 1))
    logits = model(tokens[:, :-1])
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()


class Trained:
    """A row's network and optimizer after a first small step, and what the process held without them."""

    #: Types and batches of which the libraries keep compiled kernels by now, in bfloat16 ten MiB a batch.
    _met: ClassVar[set[tuple[torch.dtype, int]]] = set()

    def __init__(self, row: dict[str, Any]) -> None:
        gc.collect()
        self.others = resident()
        self.model, self.optimizer = training(**row)
        step(self.model, self.optimizer, 1)

    def peak_at(self, batch: int) -> int:
        """The most that network, optimizer and a step of the batch held."""
        self._meet(batch)
        gc.collect()
        reset_peak()
        step(self.model, self.optimizer, batch)
        return peak() - self.others

    def _meet(self, batch: int) -> None:
        """What the first step of a batch leaves behind is the libraries', whatever the optimizer is."""
        key = next(self.model.parameters()).dtype, batch
        if key not in self._met:
            gc.collect()
            held = resident()
            step(self.model, self.optimizer, batch)
            self.others += resident() - held
            self._met.add(key)

    def finish_ramp(self) -> bool:
        """Go beyond the ramp in small steps, where there is one."""
        if not isinstance(self.optimizer, ap.AdamWPrune):
            return False
        assert self.optimizer.pruner.step < START, "the search before the ramp took too many steps"
        while not self.optimizer.pruner.at_target:
            step(self.model, self.optimizer, 1)
        return True


def largest(peak_at: Callable[[int], int], within: int, example: int, first: int) -> int:
    """The largest batch whose peak is at most ``within``; 0 where none is.

    Args:
        peak_at: peak of a batch, which does not fall with the batch.
        within: the bound.
        example: about what one more example adds to the peak; a good guess saves steps and changes no result.
        first: the batch to begin with.
    """
    fits, too_large, batch, slope = 0, None, first, float(example)
    last: tuple[int, int] | None = None
    while too_large is None or too_large - fits > 1:
        found = peak_at(batch)
        if found <= within:
            fits = batch
        else:
            too_large = batch
        if last is not None:
            slope = max((found - last[1]) / (batch - last[0]), example / 4)
        last = batch, found
        batch = max(batch + int((within - found) // slope), fits + 1)
        batch = batch if too_large is None else min(batch, max(too_large - 1, 1))
    return fits


def measure(batch: int) -> dict[str, Any]:
    """The budget, what an example adds to it, and the rows."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for row in ({}, ROWS["8-bit, bf16, correction, 90%, gradients released"]):
        Trained(row).peak_at(1)
    unit = Trained({})
    half, budget = unit.peak_at(batch // 2), unit.peak_at(batch)
    del unit
    example = (budget - half) // (batch - batch // 2)
    return {"budget": budget, "example": example, "rows": list(rows(budget + example // 2, example, batch))}


def rows(within: int, example: int, batch: int) -> Iterator[dict[str, Any]]:
    """The largest batches of every row, before and after its ramp (the same where there is none)."""
    for name, row in ROWS.items():
        trained = Trained(row)
        before = largest(trained.peak_at, within, example, batch)
        after = largest(trained.peak_at, within, example, before) if trained.finish_ramp() else before
        del trained
        print(f"before {before:4d}  after {after:4d}  {name}", flush=True)
        yield {"candidate": name, "before": before, "after": after}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    found = in_fresh_process("head_room", "measure", batch=options.batch)
    settings = {
        "model": f"GPT of {SHAPE.blocks} blocks, width {SHAPE.width}, {SHAPE.context} tokens",
        "weights": sum(p.numel() for p in GPT2(SHAPE).parameters()),
        "batch": options.batch,
        "budget_bytes": found["budget"],
        "example_bytes": found["example"],
    }
    record.write("head_room", settings, found["rows"])
    print(tables.render("head_room"))


if __name__ == "__main__":
    main()
