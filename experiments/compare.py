# SPDX-License-Identifier: MIT
"""Tables of `when_state_pays.py`: losses by arm, and differences to the best magnitude arm seed by seed.

    python experiments/compare.py

prints them and writes them into docs/method.md, between `<!-- experiment: NAME -->` and `<!-- /experiment -->`.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "experiments"
PAGE = ROOT / "docs" / "method.md"
BLOCK = re.compile(r"(<!-- experiment: (\S+) -->\n).*?(<!-- /experiment -->)", re.DOTALL)

#: Two-sided 95 % quantiles of Student's t, by degrees of freedom.
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}

Losses = dict[tuple[str, float], dict[int, float]]


def losses(name: str) -> Losses:
    """Validation loss by (arm, sparsity) and seed."""
    found: Losses = {}
    for line in (RESULTS / f"{name}.jsonl").read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        found.setdefault((row["arm"], row["sparsity"]), {})[row["seed"]] = row["loss"]
    return found


def mean_and_spread(values: list[float]) -> str:
    """Mean ± sample standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def paired(ours: dict[int, float], theirs: dict[int, float]) -> str:
    """Mean difference over the seeds that both have, with its 95 % interval."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if len(differences) < 2:
        return "–"
    half = T95[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.fmean(differences):+.4f} ± {half:.4f}"


def table(name: str) -> str:
    """Arms by window and loss; a difference is to the best magnitude arm of the same window and sparsity."""
    found = losses(name)
    lines = [
        "| arm | sparsity | seeds | nats per byte | − best magnitude arm (95 %) |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for (arm, sparsity), ours in sorted(
        found.items(), key=lambda item: (item[0][1], item[0][0].split("/")[0], _mean(item[1]))
    ):
        rivals = {
            other: their
            for (other, s), their in found.items()
            if s == sparsity and _rival(other) and other.split("/")[0] == arm.split("/")[0]
        }
        best = min(rivals, key=lambda other: _mean(rivals[other]), default=None)
        difference = "–" if best is None or best == arm or not sparsity else paired(ours, rivals[best])
        cells = [arm, f"{sparsity:.0%}", str(len(ours)), mean_and_spread(list(ours.values())), difference]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("-0.", "−0.")


def _mean(values: dict[int, float]) -> float:
    return statistics.fmean(values.values())


def _rival(arm: str) -> bool:
    """Whether an arm ranks by magnitude alone."""
    return arm.split("/")[-1] in ("magnitude-layer", "magnitude-global", "magnitude-erk", "lamp")


def fill(text: str) -> str:
    """The page with its tables as they were measured."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{table(block[2])}\n\n{block[3]}", text)


def main() -> None:
    """Print every table and write the page."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        print(f"{path.stem}\n{table(path.stem)}\n")
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
