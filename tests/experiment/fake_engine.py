# SPDX-License-Identifier: MIT
"""An engine without torch: it keeps the contract's files, counts its starts, and dies or fails where it is told to."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adamwprune.training.config import RunConfig
from adamwprune.training.errors import Interrupted


@dataclass(frozen=True)
class Progress:
    epoch: int
    epochs: int
    step: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    phase: str = "train"


def train(
    config: RunConfig,
    directory: Path,
    *,
    resume: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    log(f"start {config.seed}")
    behaviour = json.loads(os.environ.get("FAKE_BEHAVIOUR", "{}")).get(str(config.seed), "")
    checkpoint = directory / "checkpoint.json"
    value = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "value": config.seed}
    while value["step"] < 10:
        value = {"step": value["step"] + 1, "value": (value["value"] * 31 + 7) % 1009}
        checkpoint.write_text(json.dumps(value))
        log(f"step {config.seed} {value['step']}")
        if value["step"] == 5 and behaviour == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if value["step"] == 5 and behaviour == "raise":
            raise RuntimeError("no memory left")
        if behaviour == "slow":
            time.sleep(0.1)
        if on_progress:
            on_progress(Progress(1, 1, value["step"], 10, {"val_accuracy": 0.5, "sparsity": 0.0}))
        if should_stop and should_stop():
            raise Interrupted
    if behaviour == "die again":
        os.kill(os.getpid(), signal.SIGKILL)
    status = "failed" if behaviour == "nan" else "finished"
    result = {
        "schema": 1,
        "run_id": f"{config.seed:012}",
        "name": f"run-{config.seed}",
        "status": status,
        "reason": "the loss is NaN" if behaviour == "nan" else None,
        "final": {"val_accuracy": value["value"] / 1009, "sparsity": 0.0},
        "seconds": {"total": 0.1},
    }
    (directory / "result.json").write_text(json.dumps(result))
    return result


def log(text: str) -> None:
    with Path(os.environ["FAKE_LOG"]).open("a") as file:
        file.write(text + "\n")
