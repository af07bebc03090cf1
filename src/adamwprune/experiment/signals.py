# SPDX-License-Identifier: MIT
"""Ctrl-C and SIGTERM as a request instead of an end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled(handle: Callable[[], None]) -> Iterator[None]:
    """Within the block, ``handle`` is called at either signal; afterwards they mean what they meant before."""
    before = {number: signal.signal(number, lambda *_: handle()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
