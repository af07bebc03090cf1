# SPDX-License-Identifier: MIT
"""The Triton kernels as the other backends show theirs; imported only where Triton is there."""

from __future__ import annotations

from adamwprune.kernels.triton_move import compact, kept_square_sum, zero_masked
from adamwprune.kernels.triton_step import step, supports

__all__ = ["compact", "kept_square_sum", "step", "supports", "zero_masked"]
