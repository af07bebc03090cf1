# SPDX-License-Identifier: MIT
"""Checkpoints: plain tensors and plain data, written atomically, never unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from adamwprune.files import write_atomic
from adamwprune.training.errors import DirectoryError

SCHEMA = 1


def save(path: Path, run_id: str, content: dict[str, Any]) -> None:
    """Write ``content``, marked as belonging to a run."""
    payload = {"schema": SCHEMA, "run_id": run_id, **content}
    write_atomic(path, lambda file: torch.save(payload, file))


def load(path: Path, run_id: str) -> dict[str, Any]:
    """Read a checkpoint of this run, to the CPU: generator states and step counts belong there on every device.

    Raises:
        DirectoryError: the file is damaged, of another version, or of another run or model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        # Not torch's own words: they advise to unpickle what cannot be read safely.
        raise DirectoryError(f"{path} is damaged ({type(error).__name__}): delete it to start over") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise DirectoryError(f"{path} has schema {schema!r}, this version reads {SCHEMA}: delete it to start over")
    if content.get("run_id") != run_id:
        raise DirectoryError(
            f"{path} is a checkpoint of run {content.get('run_id')}, not of run {run_id}: its model, recipe, data, "
            "seed, device or component versions differ; use another directory"
        )
    return content
