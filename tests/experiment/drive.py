# SPDX-License-Identifier: MIT
"""Runs a stored matrix with the fake engine, as its own process: ``python drive.py FOLDER JOBS``."""

from __future__ import annotations

import sys
from pathlib import Path

from adamwprune.experiment import display, index
from adamwprune.experiment.lease import lease
from adamwprune.experiment.runner import Runner
from adamwprune.experiment.store import LOCK, ResultsFolder

if __name__ == "__main__":
    path = Path(sys.argv[1])
    with lease(path / LOCK, str(path)):
        folder = ResultsFolder.open(path)
        index.rebuild(folder)
        outcome = Runner(folder, folder.runs, display.create(), jobs=int(sys.argv[2]), engine="fake_engine").run()
    print(outcome)
    sys.exit(130 if outcome.interrupted else 0)
