# SPDX-License-Identifier: MIT
"""Runs every benchmark of this folder, each in a process of its own, and writes the tables into the documents.

python benchmarks/all.py

Nothing else should run on the machine meanwhile. A benchmark that fails is named at the end; the others still run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shapes import MODELS

HERE = Path(__file__).resolve().parent

COMMANDS = [
    *(["optimizer_step.py", "--model", model] for model in MODELS),
    *(["backward_step.py", "--model", model] for model in MODELS),
    *(["mask_update.py", "--model", model] for model in MODELS),
    ["threshold.py"],
    *(["memory.py", "--scope", scope] for scope in ("prunable", "whole")),
    ["head_room.py"],
    ["state_convergence.py"],
    ["data_path.py"],
    ["throughput.py"],
    ["ddp_bytes.py"],
]


def main() -> None:
    """Run them one after the other."""
    failed = [command for command in COMMANDS if not run(HERE / command[0], *command[1:])]
    published = run(HERE.parent / "scripts" / "publish_benchmarks.py")
    if failed or not published:
        sys.exit("failed: " + "; ".join(" ".join(command) for command in failed or [["publish_benchmarks.py"]]))


def run(script: Path, *arguments: str) -> bool:
    """Whether the script succeeded."""
    print(f"\n{' '.join((script.name, *arguments))}", flush=True)
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode == 0


if __name__ == "__main__":
    main()
