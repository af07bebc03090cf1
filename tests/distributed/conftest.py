# SPDX-License-Identifier: MIT
"""The oracles of tests/optim and tests/prune serve here too; the ranks take this path over."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / room) for room in ("optim", "prune")]
