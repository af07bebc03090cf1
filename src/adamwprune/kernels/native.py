# SPDX-License-Identifier: MIT
"""The native CPU kernel: the same update as the reference in one pass, through a plain C interface.

The library holds no torch symbol, so one build serves every torch. Python hands it addresses, which are read anew at
every step, and splits the work over as many threads as torch would use (the calls release the GIL).
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamwprune.kernels.job import Job
from adamwprune.prune.masks import BLOCK, Mask

#: Instruction sets, by the library's number. All give the same bits.
INSTRUCTION_SETS = ("scalar", "avx2", "avx512")

#: Blocks below which a thread of its own costs more than it saves.
_LEAST_BLOCKS = 64

#: Types of weights and state that the library takes, by its numbers.
TYPES = {torch.float32: 0, torch.bfloat16: 1}

#: `adamw_tensor` of csrc/adamw.h.
_TENSOR = np.dtype(
    [(name, np.uint64) for name in ("weight", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "bits", "base")]
    + [("numel", np.int64)]
    + [(name, np.int32) for name in ("weight_type", "state_type", "maximize")]
    + [
        (name, np.float32)
        for name in (
            "decay",
            "coupled",
            "grad_weight",
            "beta2",
            "square_weight",
            "bias2_sqrt",
            "eps",
            "neg_step",
            "theta",
        )
    ],
    align=True,
)


_P, _I32, _I64, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "adamw_best_isa": (_I32, []),
    "adamw_step": (None, [_P, _I64, _I64, _I64, _I32]),
    "adamw_zero_masked": (None, [_P, _I32, _P, _I64, _I64, _I32]),
    "adamw_scores": (_I64, [_P, _I64, _I64, _P, _I32]),
    "adamw_between": (_I64, [_P, _I64, _I64, _I64, _F, _F, _P, _I64, _P, _P, _I32]),
    "adamw_mark": (_I64, [_P, _F, _I64, _P, _I32]),
    "adamw_block_starts": (None, [_P, _I64, _P]),
    "adamw_compact": (_I64, [_P, _I32, _P, _P, _I64, _I32]),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where the install had no compiler."""
    for path in sorted(Path(__file__).parent.glob("_adamw*.so")):
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        return loaded
    return None


def _loaded() -> ctypes.CDLL:
    """The library, where the caller knows that it is there."""
    loaded = library()
    assert loaded is not None
    return loaded


def call(name: str, *arguments: Any, instruction_set: str | None = None) -> int:
    """Call a function of the library that takes the instruction set (None: the best) as its last argument."""
    isa = INSTRUCTION_SETS.index(instruction_set or best_instruction_set())
    return int(getattr(_loaded(), name)(*arguments, isa) or 0)


@cache
def best_instruction_set() -> str:
    """The widest instruction set of this processor."""
    return INSTRUCTION_SETS[_loaded().adamw_best_isa()]


def supports(job: Job) -> bool:
    """Whether the kernel can take a tensor: on a CPU, float32 or bfloat16, with state no narrower than the weight."""
    weight, state = job.weight.dtype, job.state["exp_avg"].dtype
    types = weight in TYPES and (state == weight or (weight == torch.bfloat16 and state == torch.float32))
    return job.weight.device.type == "cpu" and types and not job.hyper.differentiable


def step(jobs: Sequence[Job], instruction_set: str | None = None) -> None:
    """Update the kept weights of the jobs' tensors and their compact state, in place."""
    weights = [job.weight if job.weight.is_contiguous() else job.weight.detach().contiguous() for job in jobs]
    grads = [job.grad.contiguous() for job in jobs]
    table = np.array([_describe(*row) for row in zip(jobs, weights, grads, strict=True)], _TENSOR)
    blocks = sum(-(-job.weight.numel() // BLOCK) for job in jobs)

    def run(first: int, last: int) -> None:
        call("adamw_step", table.ctypes.data, len(jobs), first, last, instruction_set=instruction_set)

    _in_threads(blocks, run)
    for job, weight in zip(jobs, weights, strict=True):
        if weight is not job.weight:
            job.weight.detach().copy_(weight)
        # Autograd notices writes by a tensor's version.
        torch.autograd.graph.increment_version(job.weight)


def zero_masked(tensor: Tensor, mask: Mask, instruction_set: str | None = None) -> None:
    """Set the masked entries of a row-major CPU tensor of the parameter's shape to zero, in place."""
    address, size, bits, numel = tensor.data_ptr(), tensor.element_size(), mask.bits.data_ptr(), tensor.numel()

    def run(first: int, last: int) -> None:
        low, high = first * BLOCK, min(last * BLOCK, numel)
        call("adamw_zero_masked", address, size, bits, low, high, instruction_set=instruction_set)

    _in_threads(-(-numel // BLOCK), run)
    torch.autograd.graph.increment_version(tensor)


def compact(entries: Tensor, old: Mask | None, new: Mask) -> Tensor:
    """As :func:`adamwprune.kernels.reference.compact`, for row-major CPU tensors."""
    before = None if old is None else old.bits.data_ptr()
    kept = call("adamw_compact", entries.data_ptr(), entries.element_size(), before, new.bits.data_ptr(), new.numel)
    assert kept == new.kept
    return entries.reshape(-1)[:kept].clone()


def starts(mask: Mask) -> Tensor:
    """Compact slot of each block's first kept weight, counted the first time and kept with the mask."""
    if mask.starts is None:
        mask.starts = torch.empty(-(-mask.numel // BLOCK), dtype=torch.int64)
        _loaded().adamw_block_starts(mask.bits.data_ptr(), mask.numel, mask.starts.data_ptr())
    return mask.starts


def _in_threads(blocks: int, run: Callable[[int, int], None]) -> None:
    """Share blocks out over as many threads as torch uses; each takes a stretch from ``first`` to ``last``."""
    threads = max(1, min(torch.get_num_threads(), blocks // _LEAST_BLOCKS))
    edges = [blocks * i // threads for i in range(threads + 1)]
    others = [_pool().submit(run, *share) for share in pairwise(edges[1:])]
    run(edges[0], edges[1])
    for other in others:
        other.result()


def _describe(job: Job, weight: Tensor, grad: Tensor) -> tuple[float | int, ...]:
    """A row of the table, of a row-major weight and gradient."""
    hyper, state, step = job.hyper, job.state, float(job.step) + 1.0
    lr, beta1, beta2 = float(hyper.lr), float(hyper.beta1), float(hyper.beta2)
    decay, coupled = (1.0 - lr * hyper.weight_decay, 0.0) if hyper.decoupled_weight_decay else (1.0, hyper.weight_decay)
    return (
        weight.data_ptr(),
        grad.data_ptr(),
        state["exp_avg"].data_ptr(),
        state["exp_avg_sq"].data_ptr(),
        state["max_exp_avg_sq"].data_ptr() if hyper.amsgrad else 0,
        0 if job.mask is None else job.mask.bits.data_ptr(),
        0 if job.mask is None else starts(job.mask).data_ptr(),
        weight.numel(),
        TYPES[weight.dtype],
        TYPES[state["exp_avg"].dtype],
        hyper.maximize,
        decay,
        coupled,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        math.sqrt(1.0 - beta2**step),
        hyper.eps,
        -(lr / (1.0 - beta1**step)),
        job.theta or 0.0,
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="adamwprune")


# A forked child has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
