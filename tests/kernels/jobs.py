# SPDX-License-Identifier: MIT
"""Problems that the kernels' tests solve."""

from __future__ import annotations

import torch

from adamwprune.kernels import Hyper, Job, native, reference
from adamwprune.prune.masks import Mask

MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

#: Instruction sets of this processor.
SETS = (
    native.INSTRUCTION_SETS[: native.INSTRUCTION_SETS.index(native.best_instruction_set()) + 1]
    if native.library()
    else ()
)


def hyper(**changes):
    defaults = {
        "lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "amsgrad": False,
        "maximize": False,
        "decoupled_weight_decay": True,
        "foreach": False,
        "fused": False,
        "capturable": False,
        "differentiable": False,
    }
    return Hyper(**{**defaults, **changes})


def problem(size, sparsity, dtype=torch.float32, state_dtype=None, seed=0):
    """Weight, gradient, dense moments and mask, with masked entries already zero (but for the gradient's)."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(size, generator=generator) >= sparsity
    weight, grad = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
    state = {
        "exp_avg": torch.randn(size, generator=generator) * 0.1,
        "exp_avg_sq": torch.rand(size, generator=generator) * 0.01,
        "max_exp_avg_sq": torch.rand(size, generator=generator) * 0.01,
    }
    state = {name: x.to(state_dtype or dtype).masked_fill(~keep, 0) for name, x in state.items()}
    return weight.masked_fill(~keep, 0), grad, state, Mask.from_bool(keep), keep


def compact_job(weight, grad, state, mask, settings, theta=None, steps=4):
    compacted = {name: reference.compact(x.clone(), None, mask) for name, x in state.items()}
    return Job(weight.clone(), grad, compacted, torch.tensor(float(steps)), mask, settings, theta)


def results(job):
    return [job.weight, *(job.state[name] for name in MOMENTS)]


def ulps(a, b):
    """Largest distance in units of the last place, of tensors whose signs agree."""
    integer = torch.int32 if a.dtype == torch.float32 else torch.int16
    return int((a.view(integer).long() - b.view(integer).long()).abs().max()) if a.numel() else 0
