# SPDX-License-Identifier: MIT
"""One runner per results folder, and one worker per run directory.

The kernel drops the lock when its holder dies, however it dies, so that no stale file has to be cleaned up.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adamwprune.experiment.errors import ExperimentError


class BusyError(ExperimentError):
    """Somebody else holds the lease."""


@contextmanager
def lease(path: Path, what: str, *, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock file ``path`` for the duration of the block; waits up to ``wait`` seconds for another holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    with path.open("a+", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise BusyError(f"{what} is in use by process {holder}; wait for it, or stop it") from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
