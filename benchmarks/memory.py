# SPDX-License-Identifier: MIT
"""What an optimizer holds: in steady state after the ramp, and at the peak of a run that starts dense.

    python benchmarks/memory.py [--scope prunable|whole] [--only NAME ...]

Each row trains GPT-2 small's tensors for a few steps in a process of its own, on random gradients that arrive one after
the other as backward makes them. The account counts the tensors that exist; the process is measured from before the
first weight, with an allocator that hands freed memory back. `prunable` are the matrices of the blocks, all in the
scope; `whole` are all parameters with the default scope. A GPU's allocator is read by benchmarks/gpu/memory.py.
The rows go to results/benchmarks/memory-SCOPE.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import record
import rivals
import tables
import torch
from process_memory import in_fresh_process, peak, reset_peak, resident
from shapes import Shapes, count, gpt2

import adamwprune as ap
from adamwprune.optim import account

#: First and last step of the ramp, and steps after it.
START, END, AFTER = 1, 3, 1

_BF16: dict[str, Any] = {"dtype": "bfloat16", "state": "8bit", "correction": True}

#: What the rows of a table are: the optimizer's options, the sparsity, and the weights' type.
ROWS: dict[str, dict[str, Any]] = {
    "torch AdamW": {"kind": "torch"},
    "the original's masks (AMSGrad), 50%": {"kind": "original", "sparsity": 0.5},
    "AdamWPrune, 50%": {"sparsity": 0.5},
    "AdamWPrune, 90%": {"sparsity": 0.9},
    "8-bit state, prune=None": {"state": "8bit"},
    "8-bit state, 50%": {"sparsity": 0.5, "state": "8bit"},
    "8-bit state, 90%": {"sparsity": 0.9, "state": "8bit"},
    "8-bit state, bf16 weights with correction, prune=None": _BF16,
    "8-bit state, bf16 weights with correction, 50%": {"sparsity": 0.5, **_BF16},
    "8-bit state, bf16 weights with correction, 90%": {"sparsity": 0.9, **_BF16},
    "AdamWPrune, 50%, gradients released": {"sparsity": 0.5, "release_gradients": True},
    "8-bit, bf16, correction, 50%, gradients released": {"sparsity": 0.5, "release_gradients": True, **_BF16},
    "8-bit, bf16, correction, 90%, gradients released": {"sparsity": 0.9, "release_gradients": True, **_BF16},
}


def tensors(scope: str) -> Shapes:
    """The blocks' matrices, or everything."""
    shapes = gpt2()
    return shapes if scope == "whole" else {n: s for n, s in shapes.items() if n.startswith("h.") and len(s) > 1}


def make(
    named: list[tuple[str, torch.nn.Parameter]], kind: str, sparsity: float, options: dict[str, Any]
) -> torch.optim.Optimizer | rivals.BoolMasks:
    """A row's optimizer."""
    params = [p for _, p in named]
    if kind == "torch":
        return torch.optim.AdamW(params, fused=True)
    if kind == "original":
        return rivals.original_masks(params, sparsity)
    prune = ap.Prune(sparsity=sparsity, total_steps=END + AFTER, start=START, end=END, every=1)
    return ap.AdamWPrune(named, fused=True, prune=prune if sparsity else None, **options)


def run(
    scope: str, kind: str = "ours", sparsity: float = 0.0, dtype: str = "float32", **options: Any
) -> dict[str, Any]:
    """Train for a few steps; bytes by kind at the end, and of the process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # torch imports some of itself at an optimizer's first step.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).step()
    reset_peak()
    before = resident()
    named = [
        (name, torch.nn.Parameter((torch.randn(shape) * 0.02).to(getattr(torch, dtype))))
        for name, shape in tensors(scope).items()
    ]
    params = [p for _, p in named]
    optimizer = make(named, kind, sparsity, options)
    for _ in range(END + AFTER):
        for p in params:
            p.backward(torch.randn_like(p) * 1e-3)
        with_gradients = sum(account.nbytes(p.grad) for p in params)
        optimizer.step()
        for p in params:
            p.grad = None
    held = {**weigh(optimizer, params), "gradients": with_gradients}
    return {"account": held, "process_steady": resident() - before, "process_peak": peak() - before}


def weigh(optimizer: torch.optim.Optimizer | rivals.BoolMasks, params: Iterable[torch.Tensor]) -> dict[str, int]:
    """Bytes of weights, state and masks that exist now."""
    if isinstance(optimizer, rivals.BoolMasks):
        inner, masks = optimizer.optimizer, sum(mask.nbytes for mask in optimizer.masks.values())
    else:
        inner, masks = optimizer, 0
    if isinstance(inner, ap.AdamWPrune) and inner.pruner is not None:
        found = inner.pruner.report()["bytes_model"]
        return {kind: found[kind] for kind in ("weights", "state", "mask")}
    found = account.count(inner, params)
    return {"weights": found["weights"], "state": found["state"], "mask": masks}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scope", choices=("prunable", "whole"), default="prunable")
    parser.add_argument("--only", choices=ROWS, nargs="+", default=list(ROWS))
    options = parser.parse_args()
    weights = count(tensors(options.scope))
    settings = {"model": "gpt2", "scope": options.scope, "weights": weights, "steps": END + AFTER}
    rows = []
    for name in options.only:
        found = in_fresh_process("memory", "run", scope=options.scope, **ROWS[name])
        rows.append({"candidate": name, **found})
        print(f"{sum(found['account'].values()) / weights:6.2f} bytes a weight all in  {name}", flush=True)
    record.write(f"memory-{options.scope}", settings, rows)
    print(tables.render(f"memory/{options.scope}"))


if __name__ == "__main__":
    main()
