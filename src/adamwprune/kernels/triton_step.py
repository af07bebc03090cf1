# SPDX-License-Identifier: MIT
"""The step on GPUs: which kernel each tensor takes, and the tables in device memory that one launch works through.

A table of addresses is kept as long as the tensors stay where they are, so a step uploads one small table of numbers
and waits for nothing. With ``capturable=True`` those numbers are computed on the device, from the step counts and the
learning rate there, and a CUDA graph may replay the step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adamwprune.kernels import triton_language as language
from adamwprune.kernels import triton_update
from adamwprune.kernels.formats import CORRECTION, seed
from adamwprune.kernels.job import Hyper, Job
from adamwprune.kernels.known import knows_types
from adamwprune.kernels.layout import starts
from adamwprune.prune.masks import BLOCK

#: Kept share below which weights and gradients are read one by one where they are kept: whole sectors hold none then.
SPARSE = 0.2

#: How entries are stored, by the kernel's numbers.
KINDS = {
    torch.float32: language.FLOAT32.value,
    torch.bfloat16: language.BFLOAT16.value,
    torch.int8: language.CODES.value,
    torch.uint8: language.CODES.value,
}

#: Warps to a program: two to four weights a thread, which leaves registers for several programs at once.
WARPS = 4 if torch.version.hip else 8

#: Plans kept: some more than an optimizer has parameter groups.
_PLANS = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """Which specialisation of the kernel a tensor takes: its compile-time constants."""

    LAYOUT: int
    WEIGHT: int
    GRAD: int
    FIRST: int
    SECOND: int
    CORRECTION: bool
    AMSGRAD: bool
    THETA: bool
    SCALE: bool
    VECTOR: bool
    ALIGNED: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch: its kernel, and the tensor that each program works on."""

    variant: Variant
    owner: Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """The launches of one list of jobs, and their table of addresses."""

    launches: tuple[Launch, ...]
    table: Tensor


_plans: OrderedDict[Any, Plan] = OrderedDict()

#: What captured graphs read whenever they are replayed; it is never dropped.
_captured: list[Plan] = []


def supports(job: Job) -> bool:
    """Whether the kernel can take a tensor; codes go without AMSGrad, and corrections with bfloat16 weights only."""
    codes = job.state["exp_avg"].dtype == torch.int8
    odd = (codes and job.hyper.amsgrad) or (CORRECTION in job.state and job.weight.dtype == torch.float32)
    return knows_types(job) and not job.hyper.differentiable and not odd


@torch.no_grad()
def step(jobs: Sequence[Job]) -> None:
    """Update the kept weights of the jobs' tensors and their state, in place, without waiting for the device."""
    alike: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        if job.weight.numel():
            alike.setdefault((job.weight.device, id(job.hyper), job.theta, id(job.scale)), []).append(job)
    for (device, *_), members in alike.items():
        with on(device):
            _step(members, device)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """The device that launches go to."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on the device; the copy is ordered with the stream's launches and nobody waits for it."""
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _step(jobs: Sequence[Job], device: torch.device) -> None:
    """One step of tensors on one device that share settings, threshold and scale."""
    weights = [job.weight if job.weight.is_contiguous() else job.weight.detach().contiguous() for job in jobs]
    grads = [job.grad.contiguous() for job in jobs]
    plan = _plan(jobs, weights, grads, device)
    numbers = _numbers(jobs, device)
    scale = _factor(jobs[0].scale, device)
    for launch in plan.launches:
        triton_update.step_kernel[(len(launch.owner),)](
            launch.owner,
            plan.table,
            numbers,
            numbers if scale is None else scale,
            **asdict(launch.variant),
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    for job, weight in zip(jobs, weights, strict=True):
        if weight is not job.weight:
            job.weight.detach().copy_(weight)
        # Autograd notices writes by a tensor's version.
        torch.autograd.graph.increment_version(job.weight)


def _factor(scale: float | Tensor | None, device: torch.device) -> Tensor | None:
    if scale is None or isinstance(scale, Tensor):
        return scale
    return torch.full((), scale, dtype=torch.float32, device=device)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _plan(jobs: Sequence[Job], weights: Sequence[Tensor], grads: Sequence[Tensor], device: torch.device) -> Plan:
    """The plan of these jobs, out of the last few where everything still is where it was."""
    addresses = [_addresses(*row) for row in zip(jobs, weights, grads, strict=True)]
    forms = [
        (
            job.weight.numel(),
            None if job.mask is None else job.mask.kept,
            *(x.dtype for x in (job.weight, job.grad, job.state["exp_avg"], job.state["exp_avg_sq"])),
            job.hyper.amsgrad,
            job.theta is None,
            job.scale is None,
            job.dense_state,
        )
        for job in jobs
    ]
    key = (device, tuple(addresses), tuple(forms))
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _new_plan(jobs, addresses, device)
        if len(_plans) > _PLANS:
            _plans.popitem(last=False)
    _plans.move_to_end(key)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured.append(plan)
    return plan


def _addresses(job: Job, weight: Tensor, grad: Tensor) -> tuple[int, ...]:
    """A tensor's row of the table: where everything lies, in the order of the kernel's columns."""
    state = job.state
    there = (state[name].data_ptr() if name in state else 0 for name in triton_update.ADDRESSES[2:-2])
    mask = (0, 0) if job.mask is None else (job.mask.bits.data_ptr(), starts(job.mask).data_ptr())
    return weight.data_ptr(), grad.data_ptr(), *there, *mask


def _new_plan(jobs: Sequence[Job], addresses: Sequence[tuple[int, ...]], device: torch.device) -> Plan:
    table = np.zeros((len(jobs), triton_update.COLUMNS.value), np.int64)
    members: dict[Variant, list[int]] = {}
    for i, (job, row) in enumerate(zip(jobs, addresses, strict=True)):
        members.setdefault(_variant(job, row), []).append(i)
        table[i, : len(row)], table[i, -2] = row, job.weight.numel()
    launches = []
    for variant, tensors in members.items():
        blocks = np.array([-(-jobs[i].weight.numel() // BLOCK) for i in tensors])
        table[tensors, -1] = np.cumsum(blocks) - blocks
        launches.append(Launch(variant, _owner(tuple(tensors), tuple(blocks.tolist()), device)))
    return Plan(tuple(launches), upload(table, device))


@lru_cache(maxsize=_PLANS)
def _owner(tensors: tuple[int, ...], blocks: tuple[int, ...], device: torch.device) -> Tensor:
    """Which tensor each program steps, int32; plans share it, as gradients may lie elsewhere at every step."""
    return upload(np.repeat(np.array(tensors, np.int32), blocks), device)


def _variant(job: Job, addresses: tuple[int, ...]) -> Variant:
    mask, state = job.mask, job.state
    layout = language.DENSE if job.dense_state else language.COMPACT
    if mask is None:
        layout = language.WHOLE
    return Variant(
        LAYOUT=layout.value,
        WEIGHT=KINDS[job.weight.dtype],
        GRAD=KINDS[job.grad.dtype],
        FIRST=KINDS[state["exp_avg"].dtype],
        SECOND=KINDS[state["exp_avg_sq"].dtype],
        CORRECTION=CORRECTION in state,
        AMSGRAD=job.hyper.amsgrad,
        THETA=job.theta is not None,
        SCALE=job.scale is not None,
        VECTOR=mask is None or job.dense_state or mask.kept >= SPARSE * mask.numel,
        ALIGNED=all(address % 16 == 0 for address in addresses),
    )


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(jobs: Sequence[Job], device: torch.device) -> Tensor:
    """What changes from step to step, float32, a row per tensor; the jobs share their settings."""
    hyper, theta = jobs[0].hyper, jobs[0].theta
    if any(isinstance(x, Tensor) and x.device.type != "cpu" for x in (jobs[0].step, hyper.lr)):
        seeds = _seeds(tuple(job.first for job in jobs), device)
        # Counts lie on the host beside a learning rate on the device, unless the optimizer is capturable.
        return _numbers_on_device(torch.stack([job.step for job in jobs]).to(device), seeds, hyper, theta)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a CUDA graph would repeat this step's learning rate and count: pass capturable=True")
    steps = [float(job.step) for job in jobs]
    rows = {step: _row(hyper, step + 1.0, theta) for step in set(steps)}
    table = np.stack([rows[step] for step in steps])
    table.view(np.uint32)[:, -1] = [seed(int(step) + 1, job.first) for step, job in zip(steps, jobs, strict=True)]
    return upload(table, device)


def _row(hyper: Hyper, step: float, theta: float | None) -> NDArray[np.float32]:
    """One tensor's numbers but the seed, computed in double precision and rounded once, as the native kernel's."""
    return np.array([*hyper.numbers(step, theta), _sign(hyper), 0.0], np.float32)


@cache
def _seeds(firsts: tuple[int, ...], device: torch.device) -> Tensor:
    """The seeds of step 0, made once: a graph can capture no upload."""
    return torch.tensor([seed(0, first) for first in firsts], device=device)


def _numbers_on_device(counts: Tensor, seeds: Tensor, hyper: Hyper, theta: float | None) -> Tensor:
    """The same from counts and a learning rate that live on the device."""
    steps = counts.to(torch.float64) + 1.0
    words = (steps.to(torch.int64) + seeds).to(torch.int32)  # wraps
    values = (*hyper.numbers(steps, theta), _sign(hyper), words.view(torch.float32))
    table = torch.empty(len(counts), len(values), device=counts.device)
    for column, value in enumerate(values):
        table[:, column] = value
    return table


def _sign(hyper: Hyper) -> float:
    """What the gradient is multiplied by: steps go uphill where the objective is maximized."""
    return -1.0 if hyper.maximize else 1.0
