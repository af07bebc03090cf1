# SPDX-License-Identifier: MIT
"""What a run weighs: bytes of the process and the accelerator, and the optimizer's account by kind."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import Tensor

from adamwprune.optim import account
from adamwprune.optim.groups import parameters
from adamwprune.training import device


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
