# SPDX-License-Identifier: MIT
"""``cd MODEL && python train.py …`` is ``adamwprune train MODEL …``, with the project's data and results."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"


def forward(model: str) -> None:
    """Hands over to the command line, in the project's environment if this Python lacks the package."""
    try:
        from adamwprune.cli import main as command_line
    except ModuleNotFoundError as error:
        if ENVIRONMENT.exists() and Path(sys.prefix) != ENVIRONMENT.parent.parent:
            os.execv(ENVIRONMENT, [str(ENVIRONMENT), str(ROOT / model / "train.py"), *sys.argv[1:]])
        sys.exit(f"train.py: error: {error}; run `make environment` in {ROOT} first")
    where = ["--data-dir", str(ROOT / "data"), "--results-dir", str(ROOT / "results")]
    command_line(["train", model, *where, *sys.argv[1:]])
