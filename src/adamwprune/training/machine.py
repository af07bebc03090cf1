# SPDX-License-Identifier: MIT
"""What the machine leaves to a process: main memory and processors. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

#: Files in which a container's limit and what it uses stand, by the version of control groups.
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> int:
    """Bytes of main memory that this process may still take, as one of the ranks on its machine."""
    free = int(psutil.virtual_memory().available)
    for limit, used in LIMITS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such file, or no limit ("max")
            continue
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
