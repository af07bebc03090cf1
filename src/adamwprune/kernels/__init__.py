# SPDX-License-Identifier: MIT
"""The one update, several ways: plain tensor code (the oracle) and native code for CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from adamwprune.kernels import native, reference
from adamwprune.kernels.job import Hyper, Job
from adamwprune.kernels.native_view import NativeView
from adamwprune.prune.masks import Mask
from adamwprune.prune.slices import View

#: Raised whenever a kernel's arithmetic changes.
VERSION = 1

BACKENDS = ("reference", "native")

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
    available = device_type == "cpu" and native.library() is not None
    if wanted == "native" and device_type == "cpu" and not available:
        raise ValueError(
            "the native kernel is not built: install a C compiler and adamwprune again, or use 'reference'"
        )
    return "native" if available and wanted != "reference" else "reference"


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


def step(jobs: Sequence[Job]) -> None:
    """Update the kept weights of each job's tensor: natively where that is possible, else by the reference."""
    there = {kind: backend(kind) == "native" for kind in {job.weight.device.type for job in jobs}}
    fast = [job for job in jobs if there[job.weight.device.type] and native.supports(job)]
    if fast:
        native.step(fast)
    taken = {id(job) for job in fast}
    for job in jobs:
        if id(job) not in taken:
            reference.step(job)


def view_type(weight: Tensor) -> type[View]:
    """How a tensor's mask update runs."""
    return NativeView if backend(weight.device.type) == "native" else View


def compact(entries: Tensor, old: Mask | None, new: Mask) -> Tensor:
    """The entries of ``new``'s kept weights, out of those of ``old``'s (None: of all); ``entries`` are used up."""
    if entries.is_contiguous() and backend(entries.device.type) == "native":
        return native.compact(entries, old, new)
    return reference.compact(entries, old, new)


def zero_masked(tensor: Tensor, mask: Mask) -> None:
    """Set the masked entries of a tensor of the parameter's shape to zero, in place."""
    if tensor.is_contiguous() and backend(tensor.device.type) == "native":
        native.zero_masked(tensor, mask)
    else:
        reference.zero_masked(tensor, mask)


__all__ = [
    "BACKENDS",
    "BACKEND_VARIABLE",
    "VERSION",
    "Hyper",
    "Job",
    "backend",
    "compact",
    "reference",
    "step",
    "use",
    "view_type",
    "zero_masked",
]
