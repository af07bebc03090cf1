# SPDX-License-Identifier: MIT
"""Optimizers inside those that frameworks put around them."""

from __future__ import annotations

from typing import Any

import torch


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside accelerate's, Fabric's or Lightning's own, which keep it as ``.optimizer``."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    found: torch.optim.Optimizer = optimizer
    return found
