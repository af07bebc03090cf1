# SPDX-License-Identifier: MIT
"""``adamwprune train gpt2`` from this folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from forward import forward

if __name__ == "__main__":
    forward("gpt2")
