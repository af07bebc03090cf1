# SPDX-License-Identifier: MIT
"""Tables of the experiments: what each arm reached, and differences to the best magnitude arm seed by seed.

    python experiments/compare.py

prints them and writes them into docs/method.md, between `<!-- experiment: NAME -->` and `<!-- /experiment -->`.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "experiments"
PAGE = ROOT / "docs" / "method.md"
BLOCK = re.compile(r"(<!-- experiment: (\S+) -->\n).*?(<!-- /experiment -->)", re.DOTALL)

#: Two-sided 95 % quantiles of Student's t, by degrees of freedom.
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}

#: What was reached, by (arm, sparsity) and seed.
Reached = dict[tuple[str, float], dict[int, float]]


@dataclass(frozen=True)
class Experiment:
    """The rows of one file: what was measured, and in what."""

    reached: Reached
    #: The highest sparsity of a tensor with any seed: near 1, the arm has emptied a part of the network.
    sparsest: dict[tuple[str, float], float]
    unit: str
    #: 1 where less is better, -1 where more is.
    sign: int
    digits: int

    @classmethod
    def read(cls, name: str) -> Experiment:
        """Accuracy where rows have it, else the loss."""
        rows: list[dict[str, Any]] = [*map(json.loads, (RESULTS / f"{name}.jsonl").read_text().splitlines())]
        classifies = "accuracy" in rows[0]
        reached: Reached = {}
        sparsest: dict[tuple[str, float], float] = {}
        for row in rows:
            arm = f"{row['arm']}, {row['weights']:,} weights" if "weights" in row else row["arm"]
            key = arm, row["sparsity"]
            reached.setdefault(key, {})[row["seed"]] = row["accuracy" if classifies else "loss"]
            sparsest[key] = max(sparsest.get(key, 0.0), *row.get("tensors", {}).values(), 0.0)
        return cls(reached, sparsest, *(("% correct", -1, 2) if classifies else ("nats per byte", 1, 4)))

    def rank(self, key: tuple[str, float]) -> float:
        """The better an arm's mean, the lower."""
        return self.sign * statistics.fmean(self.reached[key].values())

    def order(self, key: tuple[str, float]) -> tuple[float, str, float]:
        """Where a row stands: by sparsity, then by window (dense networks have none), the best first."""
        return key[1], key[0].split("/")[0] if key[1] else "", self.rank(key)

    def best_magnitude(self, arm: str, sparsity: float) -> tuple[str, float] | None:
        """The best arm that ranks by magnitude alone, at the same sparsity and in the same window."""
        window = arm.split("/")[0] + "/"
        rivals = [key for key in self.reached if key[1] == sparsity and _rival(key[0]) and key[0].startswith(window)]
        return min(rivals, key=self.rank, default=None)

    def plain(self, arm: str, sparsity: float) -> tuple[str, float] | None:
        """The arm that differs in nothing but ranking by magnitude: same distribution, window and sparsity."""
        key = f"{arm.split('/')[0]}/magnitude-{arm.split('-')[-1]}", sparsity
        return key if key in self.reached else None

    def usual(self, arm: str, sparsity: float) -> tuple[str, float] | None:
        """`state` under one threshold, in the same window: what every other way of using the state has to beat.

        A window may have the name of something else that was changed behind it: ``75-90-distilled``.
        """
        window = "-".join(arm.split("/")[0].split("-")[:2])
        key = f"{window}/state-global", sparsity
        return key if key in self.reached and not _rival(arm) else None

    def minus(self, key: tuple[str, float], other: tuple[str, float] | None) -> str:
        """What an arm has more than another, seed by seed; a dash for what is not there, or itself."""
        if other is None or other == key:
            return "–"
        return paired(self.reached[key], self.reached[other], self.digits)


def mean_and_spread(values: list[float], digits: int) -> str:
    """Mean ± sample standard deviation."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def paired(ours: dict[int, float], theirs: dict[int, float], digits: int = 4) -> str:
    """Mean difference over the seeds that both have, with its 95 % interval; of one seed there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return "–"
    if len(differences) == 1:
        return f"{differences[0]:+.{digits}f}"
    half = T95[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.fmean(differences):+.{digits}f} ± {half:.{digits}f}"


def table(name: str) -> str:
    """Arms by sparsity, window and what they reached, beside the best magnitude arm of the same window and sparsity."""
    experiment = Experiment.read(name)
    headings = ["arm", "sparsity", "sparsest tensor", "seeds", experiment.unit]
    headings += ["− best magnitude arm (95 %)", "− same by magnitude (95 %)", "− state-global (95 %)"]
    lines = ["| " + " | ".join(headings) + " |", "| :--- |" + " ---: |" * (len(headings) - 1)]
    for key in sorted(experiment.reached, key=experiment.order):
        values = [*experiment.reached[key].values()]
        cells = [
            key[0],
            f"{key[1]:.0%}",
            f"{experiment.sparsest[key]:.1%}",
            str(len(values)),
            mean_and_spread(values, experiment.digits),
            experiment.minus(key, experiment.best_magnitude(*key)),
            experiment.minus(key, experiment.plain(*key)),
            experiment.minus(key, experiment.usual(*key)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return re.sub(r"\| -(?=\d)", "| −", "\n".join(lines))


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
