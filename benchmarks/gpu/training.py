# SPDX-License-Identifier: MIT
"""What the training scripts share: a list of runs, gone through in slices, and one small file of results.

A slice ends before its time is up with a checkpoint of the run at hand, and the next call goes on from it. Needs torch,
numpy and psutil: neither the package's installation nor its command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402  (after the path)

from adamwprune import data  # noqa: E402
from adamwprune.files import read_json, write_json  # noqa: E402
from adamwprune.training import Interrupted, RunConfig, device  # noqa: E402
from adamwprune.training.engine import Progress, train  # noqa: E402
from adamwprune.training.identity import identity, run_id, run_name  # noqa: E402
from adamwprune.training.resolve import resolve, total_steps  # noqa: E402
from adamwprune.training.run import Run  # noqa: E402

#: Where finished results lie; a matrix goes on from the rows that it finds there.
RESULTS = ROOT / "results" / "gpu"

#: Raised when the files' form changes.
SCHEMA = 1

#: Operations a second of an H100 in bfloat16 without sparsity, as its maker states them; what an estimate assumes.
PEAK = 989e12

#: A slice ends so long before its limit: one more evaluation and a checkpoint fit in.
SPARE = 45.0

#: What is kept of a run's result.
KEPT = ("status", "reason", "final", "best", "target_sparsity", "sparsity", "parameters", "prunable", "kept", "seconds")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """The runs of a script, in the order of their worth."""

    name: str
    runs: tuple[RunConfig, ...]
    #: The share of the card's arithmetic that the estimate of minutes assumes.
    share: float


def arms(common: RunConfig, seeds: Sequence[int], *settings: dict[str, Any]) -> tuple[RunConfig, ...]:
    """Each setting with the first seed, then each with the second, and so on."""
    return tuple(common.replace(seed=seed, **setting) for seed in seeds for setting in settings)


def pruned(sparsities: Sequence[float], *distributions: str) -> list[dict[str, Any]]:
    """Settings: state beside magnitude, at each sparsity and under each distribution."""
    return [
        {"optimizer": "adamwprune", "pruning_method": method, "target_sparsity": sparsity, "distribution": distribution}
        for sparsity in sparsities
        for distribution in distributions
        for method in ("state", "magnitude")
    ]


def main(matrix: Matrix, about: str | None, arguments: Sequence[str] | None = None) -> int:
    """Go on with the matrix for a slice; the exit code is 3 where another call has to go on, 1 where runs failed."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that holds the data sets")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu", help="folder of runs and checkpoints")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="length of a slice")
    parser.add_argument("--tiny", action="store_true", help="two steps of narrow networks on any device; no results")
    parser.add_argument("--estimate", action="store_true", help="only say how long it might take on an H100")
    chosen = parser.parse_args(arguments)
    runs = [config.replace(data_dir=str(chosen.data)) for config in matrix.runs]
    if chosen.tiny:
        runs = [_tiny(config) for config in runs]
    if chosen.estimate:
        return estimate(matrix, runs)
    if not chosen.tiny and not device.available("cuda"):
        raise SystemExit("this is for a GPU, and torch sees none; --tiny tries the script on any device")
    deadline = time.monotonic() + 60 * chosen.minutes - (0 if chosen.tiny else SPARE)
    results = Results(chosen.out / f"{matrix.name}.json", keep=not chosen.tiny)
    for config in map(resolve, runs):
        decides = identity(config, data.checksum(config.data or "", config.data_dir))
        key = f"{run_name(config)}-{run_id(decides)[:8]}"
        if results.holds(key):
            print(f"{key}: there already", flush=True)
            continue
        try:
            result = train(config, chosen.work / key, should_stop=lambda: time.monotonic() > deadline, on_progress=say)
        except Interrupted as interrupted:
            print(f"{interrupted}; run this again to go on", flush=True)
            return 3
        results.add(key, {**{name: result[name] for name in KEPT}, "throughput": result["throughput"]})
        print(key, result["status"], result["reason"] or result["final"], flush=True)
    return int(results.failed)


class Results:
    """One JSON file of rows, which grows by a row for each run that has ended."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path, self.keep = path, keep
        self.rows: dict[str, dict[str, Any]] = {}
        for before in (RESULTS / path.name, path):
            if keep and before.is_file() and (content := read_json(before))["schema"] == SCHEMA:
                self.rows |= content["rows"]

    def holds(self, key: str) -> bool:
        """Whether the run of this key has ended."""
        return key in self.rows

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Add the row of a run, and where it was measured."""
        card = torch.cuda.get_device_name() if device.available("cuda") else platform.machine()
        self.rows[key] = {**row, "where": {"device": card, "torch": torch.__version__}}
        if self.keep:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"schema": SCHEMA, "benchmark": self.path.stem, "rows": self.rows})

    @property
    def failed(self) -> bool:
        """Whether a run failed."""
        return any(row["status"] != "finished" for row in self.rows.values())


def say(progress: Progress) -> None:
    """A line for each evaluation."""
    if progress.news:
        print(f"  {progress.news}", flush=True)


def estimate(matrix: Matrix, runs: Sequence[RunConfig]) -> int:
    """Print minutes from operations: the network's, over an assumed share of an H100's."""
    for config in {(run.optimizer, run.pruning_method): run for run in reversed(runs)}.values():
        resolved = resolve(config.replace(device="cpu"))
        run = Run(resolved)
        operations = total_steps(resolved) * run.task.units_per_step * run.flops_per_unit
        minutes = operations / (matrix.share * PEAK) / 60
        print(
            f"{run_name(resolved)}: {operations:.2e} operations, at an assumed {matrix.share:.0%} of an H100's "
            f"arithmetic {minutes:.1f} minutes (an estimate, not measured)"
        )
    print(f"{len(runs)} runs")
    return 0


def _tiny(config: RunConfig) -> RunConfig:
    """Two steps of a narrow network, pruned to a lower target if at all."""
    length = {"epochs": None, "iterations": 2, "eval_every": None, "eval_steps": 2}
    if config.context is not None:
        length |= {"context": 16, "eval_tokens": 64}
    return config.replace(width=0.125, batch_size=4, compile=False, prune_start=None, prune_end=None, **length)
