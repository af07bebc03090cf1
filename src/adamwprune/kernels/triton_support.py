# SPDX-License-Identifier: MIT
"""Whether Triton's kernels can run here; asks without importing them."""

from __future__ import annotations

import os
from functools import cache

import torch

#: Triton's own variable: interpret kernels on the CPU, for tests. It counts when the kernels are first imported.
INTERPRET_VARIABLE = "TRITON_INTERPRET"

#: Oldest NVIDIA architecture that Triton compiles for.
LEAST_CAPABILITY = (7, 0)


@cache
def missing() -> str | None:
    """Why GPUs here cannot use the kernels; None where they can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA or ROCm device"
    problem = _import_problem()
    if problem is None and torch.version.hip is None:
        lowest = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
        if lowest < LEAST_CAPABILITY:
            problem = f"Triton needs compute capability 7.0, and a device has {lowest[0]}.{lowest[1]}"
    return problem


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on CPU tensors."""
    return os.environ.get(INTERPRET_VARIABLE) == "1" and _import_problem() is None


@cache
def _import_problem() -> str | None:
    try:
        import triton  # noqa: F401
    except Exception as error:  # a broken install of a vendor's library raises what it likes
        return f"Triton cannot be imported ({error}): install it, or use the reference"
    return None
