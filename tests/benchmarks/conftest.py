# SPDX-License-Identifier: MIT
"""The benchmarks are scripts in a folder, not a package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]
