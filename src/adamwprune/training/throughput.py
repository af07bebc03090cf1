# SPDX-License-Identifier: MIT
"""How fast a run trains, and which share of the device's arithmetic it uses."""

from __future__ import annotations

from typing import Any

from adamwprune.training import device
from adamwprune.training.config import known
from adamwprune.training.run import Run

#: Dense bfloat16 operations a second by a part of the device's name, as their makers state them; first match counts.
PEAKS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("MI300X", 1307e12),
    ("MI250X", 383e12),
)


def peak(name: str, precision: str) -> float | None:
    """Operations a second of a device at a precision; None where no figure is known, as for CPUs and for float32."""
    if precision == "fp32":
        return None
    return next((figure for part, figure in PEAKS if part in name), None)


def measured(run: Run, steps: int, seconds: float) -> dict[str, Any]:
    """``steps`` trained in ``seconds``, as plain data; utilisation counts the operations of the dense network."""
    config = run.config
    speed = steps * run.task.units_per_step / seconds if seconds > 0 else 0.0
    flops = speed * run.flops_per_unit
    most = peak(device.describe(config.device), known(config.precision))
    return {
        "unit": run.task.unit,
        "per_second": speed,
        "flops_per_second": flops,
        "utilization": None if most is None else flops / most,
    }
