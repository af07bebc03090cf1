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
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamwprune.kernels.formats import CORRECTION, UNITS, seed
from adamwprune.kernels.job import Job, StepNumbers
from adamwprune.kernels.known import knows_types
from adamwprune.prune.masks import BLOCK, Mask

#: Instruction sets, by the library's number. All give the same bits.
INSTRUCTION_SETS = ("scalar", "avx2", "avx512")

#: The interface that this module speaks, `ADAMW_INTERFACE` of csrc/adamw.h.
_INTERFACE = 5

#: Blocks below which a thread of its own costs more than it saves.
_LEAST_BLOCKS = 64

#: Types of weights, gradients and state that the library takes, by its numbers.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2, torch.uint8: 3}

_ADDRESSES = ("weight", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_avg_unit", "exp_avg_sq_unit")

#: `adamw_tensor` of csrc/adamw.h.
_TENSOR = np.dtype(
    [(name, np.uint64) for name in (*_ADDRESSES, "correction", "bits", "base")]
    + [("numel", np.int64)]
    + [(name, np.int32) for name in ("weight_channels", "grad_channels", "taps")]
    + [(f"{name}_type", np.int32) for name in ("weight", "grad", "first", "second")]
    + [("dense_state", np.int32), ("maximize", np.int32), ("seed", np.uint32)]
    + [(name, np.float32) for name in ("scale", *StepNumbers._fields)],
    align=True,
)

_P, _I32, _I64, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "adamw_best_isa": (_I32, []),
    "adamw_step": (None, [_P, _I64, _I64, _I64, _I32]),
    "adamw_zero_masked": (None, [_P, _I32, _P, _I64, _I64, _I32, _I32, _I32]),
    "adamw_scores": (_I64, [_P, _I64, _I64, _P, _I32]),
    "adamw_cut_room": (_I64, [_I64]),
    "adamw_cut": (_I32, [_P, _I64, _I64, _I64, _P, _P, _P, _P, _I32]),
    "adamw_mark": (_I64, [_P, _F, _I64, _P, _I32]),
    "adamw_block_starts": (None, [_P, _I64, _P]),
    "adamw_compact": (None, [_P, _I32, _P, _P, _P, _P, _I64, _I64, _I64, _I64, _P, _I32]),
    "adamw_square_sums": (None, [_P, _I32, _P, _I64, _I64, _I64, _I32, _I32, _P, _I32]),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None where the install had no compiler, or was built from other sources."""
    for path in sorted(Path(__file__).parent.glob("_adamw*.so")):
        try:
            loaded = ctypes.CDLL(str(path))
            if loaded.adamw_interface() != _INTERFACE:
                continue
        except (OSError, AttributeError):
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
    """Whether the kernel can take a tensor: on a CPU, in one of the combinations of types that it knows."""
    return job.weight.device.type == "cpu" and knows_types(job) and not job.hyper.differentiable


def filters(tensor: Tensor) -> tuple[int, int] | None:
    """How a tensor lies in memory: (0, 1) row-major; (channels, places of a filter) with channels next to each other,
    as in ``torch.channels_last``; None in another order, which the library does not read."""
    if tensor.is_contiguous():
        return 0, 1
    if tensor.dim() > 2 and tensor.movedim(1, -1).is_contiguous():
        return tensor.shape[1], math.prod(tensor.shape[2:])
    return None


def _known_order(tensor: Tensor) -> tuple[int, int]:
    """:func:`filters` of a tensor that the caller has made sure of."""
    order = filters(tensor)
    assert order is not None
    return order


def _readable(tensor: Tensor) -> Tensor:
    """The tensor, or a row-major copy of one in an order that the library does not read."""
    return tensor.detach().contiguous() if filters(tensor) is None else tensor


def step(jobs: Sequence[Job], instruction_set: str | None = None) -> None:
    """Update the kept weights of the jobs' tensors and their compact state, in place."""
    weights, grads = [_readable(job.weight) for job in jobs], [_readable(job.grad) for job in jobs]
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
    """Set the masked entries of a CPU tensor in an order that :func:`filters` knows to zero, in place."""
    address, size, bits, numel = tensor.data_ptr(), tensor.element_size(), mask.bits.data_ptr(), tensor.numel()
    order = _known_order(tensor)

    def run(first: int, last: int) -> None:
        low, high = first * BLOCK, min(last * BLOCK, numel)
        call("adamw_zero_masked", address, size, bits, low, high, *order, instruction_set=instruction_set)

    _in_threads(-(-numel // BLOCK), run)
    torch.autograd.graph.increment_version(tensor)


def kept_square_sum(grad: Tensor, mask: Mask | None, instruction_set: str | None = None) -> float:
    """Sum of squares of a CPU gradient's kept entries in float64, row-major; the order depends on nothing else."""
    blocks = -(-grad.numel() // BLOCK)
    sums = np.empty(blocks)
    bits = 0 if mask is None else mask.bits.data_ptr()
    what = grad.data_ptr(), TYPES[grad.dtype], bits, grad.numel()
    order = _known_order(grad)

    def run(first: int, last: int) -> None:
        call("adamw_square_sums", *what, first, last, *order, sums.ctypes.data, instruction_set=instruction_set)

    _in_threads(blocks, run)
    return float(sums.sum())


def compact(entries: Tensor, old: Mask | None, new: Mask, instruction_set: str | None = None) -> Tensor:
    """As :func:`adamwprune.kernels.reference.compact`, for row-major CPU tensors; but the entries are left alone."""
    out = torch.empty(new.kept, dtype=entries.dtype)
    before, origins = (None, None) if old is None else (old.bits.data_ptr(), starts(old).data_ptr())
    what = entries.data_ptr(), entries.element_size(), before, origins
    to = new.bits.data_ptr(), starts(new).data_ptr(), new.numel, new.kept

    def run(first: int, last: int) -> None:
        call("adamw_compact", *what, *to, first, last, out.data_ptr(), instruction_set=instruction_set)

    _in_threads(-(-new.numel // BLOCK), run)
    return out


def cut_room(kept: int) -> int:
    """Scores for which a cut through ``kept`` of them needs room."""
    return int(_loaded().adamw_cut_room(kept))


def starts(mask: Mask) -> Tensor:
    """Compact slot of each block's first kept weight, counted the first time and kept with the mask."""
    if mask.starts is None:
        mask.starts = torch.empty(-(-mask.numel // BLOCK), dtype=torch.int64)
        _loaded().adamw_block_starts(mask.bits.data_ptr(), mask.numel, mask.starts.data_ptr())
    return mask.starts


def each_in_threads(tasks: Sequence[Callable[[], Any]]) -> None:
    """Run tasks that release the GIL, in this order, on as many threads as torch uses."""
    remaining = iter(tasks)

    def work() -> None:
        for task in remaining:  # one iterator for all; taking from it is atomic
            task()

    others = [_pool().submit(work) for _ in range(min(torch.get_num_threads(), len(tasks)) - 1)]
    try:
        work()
    finally:
        wait(others)
    for other in others:
        other.result()


def _in_threads(blocks: int, run: Callable[[int, int], None]) -> None:
    """Share blocks out over as many threads as torch uses; each takes a stretch from ``first`` to ``last``."""
    if not blocks:  # an empty shard: there is nothing to read, not even a first slot
        return
    threads = max(1, min(torch.get_num_threads(), blocks // _LEAST_BLOCKS))
    edges = [blocks * i // threads for i in range(threads + 1)]
    others = [_pool().submit(run, *share) for share in pairwise(edges[1:])]
    run(edges[0], edges[1])
    for other in others:
        other.result()


def _describe(job: Job, weight: Tensor, grad: Tensor) -> tuple[float | int, ...]:
    """A row of the table, of a weight and a gradient whose order in memory :func:`filters` knows."""
    (weight_channels, _), (grad_channels, _) = map(_known_order, (weight, grad))
    hyper, state, mask = job.hyper, job.state, job.mask
    first, second, updates = state["exp_avg"], state["exp_avg_sq"], int(job.step) + 1
    coded, correction = first.dtype == torch.int8, state.get(CORRECTION)
    return (
        weight.data_ptr(),
        grad.data_ptr(),
        first.data_ptr(),
        second.data_ptr(),
        state["max_exp_avg_sq"].data_ptr() if hyper.amsgrad else 0,
        state[UNITS["exp_avg"]].data_ptr() if coded else 0,
        state[UNITS["exp_avg_sq"]].data_ptr() if coded else 0,
        0 if correction is None else correction.data_ptr(),
        0 if mask is None else mask.bits.data_ptr(),
        0 if mask is None or job.dense_state else starts(mask).data_ptr(),
        weight.numel(),
        weight_channels,
        grad_channels,
        math.prod(weight.shape[2:]),
        TYPES[weight.dtype],
        TYPES[grad.dtype],
        TYPES[first.dtype],
        TYPES[second.dtype],
        job.dense_state,
        hyper.maximize,
        seed(updates, job.first),
        1.0 if job.scale is None else float(job.scale),
        *hyper.numbers(updates, job.theta),
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="adamwprune")


# A forked child has none of its parent's threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
