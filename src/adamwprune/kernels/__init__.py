# SPDX-License-Identifier: MIT
"""The one update, several ways: plain tensor code (the oracle), native code for CPUs, and Triton for GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from adamwprune.kernels import native, reference, triton_support
from adamwprune.kernels.job import Hyper, Job
from adamwprune.kernels.known import FLOATS
from adamwprune.kernels.native_view import NativeView
from adamwprune.prune.masks import Mask
from adamwprune.prune.scores import Score
from adamwprune.prune.shards import local
from adamwprune.prune.slices import View
from adamwprune.prune.thresholds import Cut

#: Raised whenever a kernel's arithmetic changes.
VERSION = 2

BACKENDS = ("reference", "native", "triton")

#: Names the backend for everything; without it the fastest that is there is taken.
BACKEND_VARIABLE = "ADAMWPRUNE_BACKEND"

_forced: str | None = None


def backend(device_type: str) -> str:
    """Name of the kernels that run on a device type; part of a run's identity.

    Raises:
        ValueError: the environment or :func:`use` names a backend that is unknown or not there.
    """
    wanted = _forced or os.environ.get(BACKEND_VARIABLE) or None
    if wanted is not None and wanted not in BACKENDS:
        raise ValueError(f"{BACKEND_VARIABLE}={wanted!r}: expected one of {', '.join(BACKENDS)}")
    if device_type == "cuda" or wanted == "triton":
        return _backend_of_gpu(device_type, wanted)
    available = device_type == "cpu" and native.library() is not None
    if wanted == "native" and device_type == "cpu" and not available:
        raise ValueError(
            "the native kernel is not built: install a C compiler and adamwprune again, or use 'reference'"
        )
    return "native" if available and wanted != "reference" else "reference"


def _backend_of_gpu(device_type: str, wanted: str | None) -> str:
    """Triton where it runs: on CUDA and ROCm devices, and on CPUs in its interpreter when it is asked for."""
    if device_type == "cuda" and wanted in (None, "triton"):
        problem = triton_support.missing()
    elif wanted == "triton" and not triton_support.interpreted():
        problem = (
            f"on {device_type} tensors Triton only interprets, for tests: set {triton_support.INTERPRET_VARIABLE}=1 "
            "before the first step, or take another backend"
        )
    else:
        return wanted if wanted == "triton" else "reference"
    if problem is not None and wanted == "triton":
        raise ValueError(f"the Triton kernels do not run here: {problem}")
    return "triton" if problem is None else "reference"


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run with one backend, for comparisons and tests."""
    global _forced
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: expected one of {', '.join(BACKENDS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def _fast(device_type: str) -> ModuleType | None:
    """A device type's kernels that are not the reference's: ``supports``, ``step``, ``compact``, ``zero_masked``..."""
    name = backend(device_type)
    if name == "triton":
        # Imported on demand: Triton is optional, and slow to import.
        from adamwprune.kernels import triton_backend

        return triton_backend
    return native if name == "native" else None


def _reads(fast: ModuleType, tensor: Tensor) -> bool:
    """Whether a device's kernels take a tensor in the order in which it lies in memory."""
    in_place = fast is native and native.filters(tensor) is not None and tensor.dtype in FLOATS
    return tensor.is_contiguous() or in_place


def backend_of(weight: Tensor) -> str:
    """Name of the kernels that step a tensor's kept weights; types that fast ones do not know are the reference's."""
    fast = _fast(weight.device.type)
    return backend(weight.device.type) if fast is not None and weight.dtype in FLOATS else "reference"


def step(jobs: Sequence[Job]) -> None:
    """Update the kept weights of each job's tensor: by the device's own kernels where they can, else the reference."""
    modules = {kind: _fast(kind) for kind in {job.weight.device.type for job in jobs}}
    fast: dict[ModuleType, list[Job]] = {}
    for job in jobs:
        module = modules[job.weight.device.type]
        if module is not None and module.supports(job):
            fast.setdefault(module, []).append(job)
        else:
            reference.step(job)
    for module, members in fast.items():
        module.step(members)


def view_type(weight: Tensor) -> type[View]:
    """How a tensor's mask update runs."""
    name = backend(weight.device.type)
    if name == "triton":
        from adamwprune.kernels.triton_view import TritonView

        return TritonView
    return NativeView if name == "native" else View


def cuts(views: Sequence[View], score: Score, counts: Sequence[int]) -> list[Cut]:
    """:meth:`View.cut` of many tensors, together where that is faster.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    found: dict[int, Cut] = {}
    for kind in {type(view) for view in views}:
        members = [i for i, view in enumerate(views) if type(view) is kind]
        found |= zip(members, kind.cuts([views[i] for i in members], score, [counts[i] for i in members]), strict=True)
    return [found[i] for i in range(len(views))]


def cut_through(views: Sequence[View], score: Score, count: int) -> Cut:
    """One cut through the scores of many tensors: below it lie exactly ``count`` of them.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite.
    """
    kinds = {type(view) for view in views}
    return (kinds.pop() if len(kinds) == 1 else View).cut_through(views, score, count)


def compact(entries: Tensor, old: Mask | None, new: Mask) -> Tensor:
    """The entries of ``new``'s kept weights, out of those of ``old``'s (None: of all); ``entries`` are used up."""
    entries = local(entries)
    fast = _fast(entries.device.type)
    if fast is not None:
        compacted: Tensor = fast.compact(entries.contiguous(), old, new)
        return compacted
    return reference.compact(entries, old, new)


def zero_masked(tensor: Tensor, mask: Mask) -> None:
    """Set the masked entries of a tensor of the parameter's shape to zero, in place."""
    tensor = local(tensor)
    fast = _fast(tensor.device.type)
    if fast is not None and _reads(fast, tensor):
        fast.zero_masked(tensor, mask)
    else:
        reference.zero_masked(tensor, mask)


def kept_square_sum(grad: Tensor, mask: Mask) -> Tensor:
    """Sum of the squares of a gradient's kept entries, a float64 scalar."""
    fast = _fast(grad.device.type)
    if fast is not None and _reads(fast, grad) and grad.dtype in FLOATS:
        return torch.as_tensor(fast.kept_square_sum(grad, mask), dtype=torch.float64)
    return reference.kept_square_sum(grad, mask)


__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "VERSION",
    "Hyper",
    "Job",
    "backend",
    "backend_of",
    "compact",
    "cut_through",
    "cuts",
    "kept_square_sum",
    "reference",
    "step",
    "use",
    "view_type",
    "zero_masked",
]
