# SPDX-License-Identifier: MIT
"""What a run weighs: bytes of the process and the accelerator, and the optimizer's account by kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from adamwprune.optim import account
from adamwprune.optim.groups import parameters
from adamwprune.training import device

#: Files in which a container's limit and what it uses stand, by the version of control groups.
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available() -> int:
    """Bytes of main memory that this process may still take, as one of the ranks on its machine."""
    free = int(psutil.virtual_memory().available)
    for limit, used in LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or no limit ("max")
            continue
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def prunable(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The weights that are, or would be, in the scope of pruning."""
    pruner = getattr(optimizer, "pruner", None)
    if pruner is not None:
        return list(pruner.slots)
    return [p for group in optimizer.param_groups if group["prunable"] for p in group["params"]]


def bytes_by_kind(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, int]]:
    """``bytes`` of the prunable weights and ``bytes_model`` of all, counted alike for pruned and dense runs."""
    pruner = getattr(optimizer, "pruner", None)
    if pruner is not None:
        report = pruner.report()
        return {"bytes": report["bytes"], "bytes_model": report["bytes_model"]}
    return {
        "bytes": account.count(optimizer, prunable(optimizer)),
        "bytes_model": account.count(optimizer, parameters(optimizer.param_groups)),
    }


def sample(optimizer: torch.optim.Optimizer, device_type: str) -> dict[str, Any]:
    """What is held right now."""
    return {
        "rss": int(psutil.Process().memory_info().rss),
        "allocated": device.allocated(device_type),
        **bytes_by_kind(optimizer),
    }
