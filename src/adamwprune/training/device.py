# SPDX-License-Identifier: MIT
"""Devices and number formats: what is there, and torch's global switches for the length of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from adamwprune.training.errors import ConfigError

#: In the order in which ``auto`` looks for them.
DEVICES = ("cuda", "xpu", "mps", "cpu")
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Read once: a worker that ran another config with fewer threads must resolve `threads=0` like everybody else.
_THREADS = torch.get_num_threads()


def available(name: str) -> bool:
    """Whether torch can use a device type here."""
    if name == "cpu":
        return True
    if name == "mps":
        return torch.backends.mps.is_available()
    backend: Any = getattr(torch, name)
    return bool(backend.is_available())


def find(name: str) -> str:
    """The device type that ``name`` stands for; ConfigError where it is unknown or not there."""
    if name == "auto":
        return next(device for device in DEVICES if available(device))
    if name not in DEVICES:
        raise ConfigError(f"device={name!r}: expected auto or one of {', '.join(DEVICES)}")
    if not available(name):
        usable = ", ".join(device for device in DEVICES if available(device))
        raise ConfigError(f"device={name!r} is not available to this torch: expected auto or one of {usable}")
    return name


def threads(wanted: int) -> int:
    """CPU threads of a run: ``wanted``, or what torch chose when the process began."""
    return wanted or _THREADS


def describe(name: str) -> str:
    """The device's own name where it has one."""
    return torch.cuda.get_device_name() if name == "cuda" else name


def allocated(name: str) -> int | None:
    """Bytes that torch holds on an accelerator; None on the CPU."""
    if name == "cpu":
        return None
    if name == "mps":
        return int(torch.mps.current_allocated_memory())
    backend: Any = getattr(torch, name)
    return int(backend.memory_allocated())


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get the memory it asked for."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def autocast(name: str, precision: str) -> AbstractContextManager[Any]:
    """The context of forward passes at a precision."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(name, dtype)


@contextmanager
def settings(name: str, thread_count: int, deterministic: bool) -> Iterator[None]:
    """Torch's global switches as a run wants them; restored at the end, because workers run many."""
    memory: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        memory.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    if deterministic and name == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.set_num_threads(thread_count)
    # Warn only: some operations have no deterministic form on accelerators, and that should not end a run.
    # `use_deterministic_algorithms` would do the same, and import torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    memory.fill_uninitialized_memory = False  # a debugging aid that costs time in every allocation
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        memory.fill_uninitialized_memory = before[2]
        torch.backends.cudnn.benchmark = before[3]


def random_state(name: str) -> dict[str, torch.Tensor]:
    """State of torch's generators that a run on this device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if name != "cpu":
        backend: Any = getattr(torch, name)
        states[name] = backend.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor]) -> None:
    """Undo everything drawn since :func:`random_state`."""
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        else:
            backend: Any = getattr(torch, name)
            backend.set_rng_state(state)
