# SPDX-License-Identifier: MIT
"""What the process holds, and the most it has held since a moment that the caller chooses (Linux).

The C library keeps freed memory for later, which hides what is really needed. :func:`in_fresh_process` runs a function
with an allocator that hands larger blocks back at once, so that resident memory follows what is alive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: glibc's: blocks of 64 KiB and more are mapped for themselves, and unmapped when freed; one arena for all threads.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}

MIB = 2**20


def resident() -> int:
    """Bytes of the process that are in memory now."""
    return _status("VmRSS")


def peak() -> int:
    """The largest :func:`resident` since the last :func:`reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Let :func:`peak` begin anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def growth(run: Callable[[], Any]) -> int:
    """Bytes by which the process grew at most while ``run`` ran."""
    reset_peak()
    before = resident()
    run()
    return max(0, peak() - before)


def in_fresh_process(module: str, function: str, **arguments: Any) -> Any:
    """The JSON value that ``module.function(**arguments)`` prints as its last line, from a process of its own."""
    code = f"import json, sys, {module}; print(json.dumps({module}.{function}(**json.loads(sys.argv[1]))))"
    environment = {**os.environ, **_ALLOCATOR, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
