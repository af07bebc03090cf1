# SPDX-License-Identifier: MIT
"""Time and memory to find which half of GPT-2's 124 M weights scores lowest, on one thread.

    python benchmarks/threshold.py [--rounds 3]

Ours against what the original AdamWPrune did: all scores in one tensor, and `kthvalue`. All rank by the score `state`.
Memory is the growth of the process's peak, measured in a process of its own. The rows go to
results/benchmarks/threshold.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import record
import tables
import torch
from process_memory import growth, in_fresh_process
from shapes import count, gpt2, matrices
from timing import seconds
from torch import Tensor

from adamwprune import kernels
from adamwprune.prune.scores import SCORES
from adamwprune.prune.slices import View

SCORE = SCORES["state"]
AGE = 100


def views() -> list[View]:
    """GPT-2's matrices with second moments, as a mask update sees them."""
    torch.manual_seed(0)
    made = []
    for name, shape in matrices(gpt2()).items():
        weight, exp_avg_sq = torch.randn(shape) * 0.02, torch.rand(shape) * 1e-6
        made.append(kernels.view_type(weight)(name, weight, None, compact=True, exp_avg_sq=exp_avg_sq, age=AGE))
    return made


def one_for_all(found: list[View]) -> float:
    """One threshold over all tensors."""
    half = sum(view.weight.numel() for view in found) // 2
    return kernels.cut_through(found, SCORE, half).threshold


def one_each(found: list[View]) -> list[float]:
    """A threshold for every tensor."""
    return [view.cut(SCORE, view.weight.numel() // 2).threshold for view in found]


def concatenated(found: list[View]) -> float:
    """As the original: every score in one tensor, and torch's selection on it."""
    correction = 1.0 - found[0].betas[1] ** AGE
    scores = torch.cat([SCORE(w=view.weight, v=_second(view) / correction).reshape(-1) for view in found])
    return float(scores.kthvalue(len(scores) // 2).values)


def _second(view: View) -> Tensor:
    assert view.exp_avg_sq is not None
    return view.exp_avg_sq


WAYS: dict[str, Callable[[list[View]], object]] = {
    "one threshold over all tensors": one_for_all,
    "a threshold for each tensor": one_each,
    "the original: cat and kthvalue": concatenated,
}


def memory(way: str) -> int:
    """Bytes by which the process grows."""
    torch.set_num_threads(1)
    found = views()
    return growth(lambda: WAYS[way](found))


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = views()
    ours, theirs = one_for_all(found), concatenated(found)
    if ours != theirs:
        raise RuntimeError(f"the thresholds differ: {ours!r} and {theirs!r}")
    rows = []
    for name, way in WAYS.items():
        taken = statistics.median(seconds(lambda way=way: way(found)) for _ in range(options.rounds))
        extra = in_fresh_process("threshold", "memory", way=name)
        rows.append({"way": name, "seconds": round(taken, 3), "extra_bytes": extra})
    settings = {"weights": count(matrices(gpt2())), "score": "state", "threads": 1, "rounds": options.rounds}
    record.write("threshold", settings, rows)
    print(tables.render("threshold"))


if __name__ == "__main__":
    main()
