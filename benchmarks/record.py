# SPDX-License-Identifier: MIT
"""What a benchmark leaves behind: one JSON file with its rows, its settings, and where they were measured."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

from adamwprune import kernels
from adamwprune.files import read_json, write_json
from adamwprune.kernels import native

#: Raised when the files' form changes.
SCHEMA = 1

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks"

#: What decides a benchmark's numbers; documents and results do not.
_SOURCES = ("src", "benchmarks", "setup.py")


def write(name: str, settings: dict[str, Any], rows: list[dict[str, Any]], folder: Path = RESULTS) -> Path:
    """Store a benchmark's rows as ``NAME.json`` in ``folder``; returns the path."""
    path = folder / f"{name}.json"
    content = {"schema": SCHEMA, "benchmark": name, **where(), "settings": settings, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)
    print(f"wrote {os.path.relpath(path)}", flush=True)
    return path


def read(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The content of a benchmark's file.

    Raises:
        ValueError: it is not there, is not JSON, or has another schema.
    """
    content: dict[str, Any] = read_json(folder / f"{name}.json")
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{name}.json has schema {content.get('schema')!r}, expected {SCHEMA}: run the benchmark again"
        )
    return content


def begun(name: str, settings: dict[str, Any], folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The rows that a run with these settings left behind at this commit on this machine; none where it was another."""
    if not (folder / f"{name}.json").is_file():
        return []
    content = read(name, folder)
    same = content["settings"] == settings and all(content[key] == value for key, value in where().items())
    return list(content["rows"]) if same else []


def where() -> dict[str, Any]:
    """Machine, versions and commit."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "system": platform.system(),
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
        "backend": kernels.backend("cpu"),
        "instruction_set": native.best_instruction_set() if native.library() is not None else None,
        "commit": _commit(),
    }


def _processor() -> str:
    """The processor's own name; platform.processor() knows it on few systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is measured, marked ``+`` where its sources were changed."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if _git("status", "--porcelain", "--", *_SOURCES) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
