# SPDX-License-Identifier: MIT
"""What the GPU scripts share: options, a file of rows that grows over several runs, and times on the device."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from adamwprune import kernels
from adamwprune.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

#: Where finished results lie; a run goes on from the rows that it finds there.
RESULTS = ROOT / "results" / "gpu"

#: Raised when the files' form changes.
SCHEMA = 1


def options(description: str | None) -> argparse.Namespace:
    """The command line of every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder that the JSON file is written to, and read")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row is begun after so many minutes")
    parser.add_argument("--dry-run", action="store_true", help="small tensors on any device; nothing is kept")
    chosen = parser.parse_args()
    if not chosen.dry_run and kernels.backend("cuda") != "triton":
        raise SystemExit("this measures the Triton kernels on a GPU: run it where torch and Triton see one")
    return chosen


class Rows:
    """One JSON file of rows, each under a key. Rows of this device and these kernels are not measured again."""

    def __init__(self, name: str, chosen: argparse.Namespace) -> None:
        self.device = torch.device("cpu" if chosen.dry_run and not torch.cuda.is_available() else "cuda")
        self.dry_run = chosen.dry_run
        self._name, self._out = name, chosen.out / f"{name}.json"
        self._deadline = time.monotonic() + 60 * chosen.minutes
        self._where = self._here()
        self._rows: dict[str, dict[str, Any]] = {}
        for before in (RESULTS / f"{name}.json", self._out):
            if before.is_file() and not chosen.dry_run:
                content = read_json(before)
                if content["schema"] == SCHEMA and content["where"] == self._where:
                    self._rows |= content["rows"]

    def measure(self, key: str, run: Callable[[], dict[str, Any]]) -> None:
        """Add the row that ``run`` returns, unless it is there or time is up. What fails is told in its row."""
        if key in self._rows and not _is_wrong(self._rows[key]):
            print(f"{key}: there already", flush=True)
            return
        if self.seconds_left < 0:
            print(f"{key}: no time left; run this again to go on", flush=True)
            return
        try:
            self._rows[key] = run()
        except Exception as error:
            self._rows[key] = {"error": f"{type(error).__name__}: {error}"}
        print(key, self._rows[key], flush=True)
        if not self.dry_run:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            content = {"schema": SCHEMA, "benchmark": self._name, "where": self._where, "rows": self._rows}
            write_json(self._out, content)

    @property
    def failed(self) -> bool:
        """Whether a row ended in an error, or says that something is wrong."""
        return any(map(_is_wrong, self._rows.values()))

    @property
    def seconds_left(self) -> float:
        """Until no row is begun any more."""
        return self._deadline - time.monotonic()

    def _here(self) -> dict[str, Any]:
        on_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": metadata.version("triton") if on_gpu else None,
            "kernels": kernels.VERSION,
        }


def _is_wrong(row: Mapping[str, Any]) -> bool:
    return "error" in row or row.get("ok") is False


def milliseconds(run: Callable[[], Any], device: torch.device) -> float:
    """Time of one call from an idle device to an idle device, the host's part included."""
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last))


def paired(run: Callable[[], Any], unit: Callable[[], Any], device: torch.device, rounds: int = 30) -> dict[str, Any]:
    """Median time of ``run``, and its ratio to ``unit``'s calls before and after it, with quartiles."""
    for _ in range(3):
        unit()
        run()
    times, ratios, units = [], [], []
    for _ in range(rounds):
        before, ours, after = milliseconds(unit, device), milliseconds(run, device), milliseconds(unit, device)
        times.append(ours)
        units.append((before + after) / 2)
        ratios.append(ours / units[-1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "ms": round(statistics.median(times), 4),
        "unit_ms": round(statistics.median(units), 4),
        "rounds": rounds,
    }
