# SPDX-License-Identifier: MIT
"""An SQLite index beside the runs, for questions that a table does not answer.

Only the runner writes it, and it can be rebuilt from the run directories at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.plan import Run
from adamwprune.experiment.store import ResultsFolder, State

#: Columns that are fields of a run's config, with their types.
CONFIG = {
    "model": "TEXT",
    "data": "TEXT",
    "optimizer": "TEXT",
    "base": "TEXT",
    "pruning_method": "TEXT",
    "score": "TEXT",
    "distribution": "TEXT",
    "target_sparsity": "REAL",
    "seed": "INTEGER",
}
COLUMNS = {
    "run_id": "TEXT PRIMARY KEY",
    "name": "TEXT",
    "directory": "TEXT",
    "status": "TEXT",
    "reason": "TEXT",
    **CONFIG,
    "sparsity": "REAL",
    "val_accuracy": "REAL",
    "test_accuracy": "REAL",
    "seconds": "REAL",
}


def rebuild(folder: ResultsFolder) -> None:
    """Writes the whole index from the run directories."""
    with _connect(folder) as database:
        database.execute("DROP TABLE IF EXISTS runs")
        database.execute(f"CREATE TABLE runs ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
        for run in folder.runs:
            _put(database, folder, run, folder.state(run))


def update(folder: ResultsFolder, run: Run) -> None:
    """Brings one row up to date."""
    with _connect(folder) as database:
        _put(database, folder, run, folder.state(run))


@contextmanager
def _connect(folder: ResultsFolder) -> Iterator[sqlite3.Connection]:
    path = folder.path / "index.sqlite"
    try:
        with closing(sqlite3.connect(path)) as database, database:
            yield database
    except sqlite3.OperationalError as error:
        raise ExperimentError(
            f"{path} cannot be written: {error}; make room for it, and give the same command again"
        ) from error


def _put(database: sqlite3.Connection, folder: ResultsFolder, run: Run, state: State) -> None:
    result = state.result or {}
    final = result.get("final") or {}
    row: dict[str, Any] = {name: getattr(run.config, name) for name in CONFIG}
    row |= {
        "run_id": run.run_id,
        "name": run.name,
        "directory": str(folder.directory(run).relative_to(folder.path)),
        "status": state.status,
        "reason": state.reason,
        "sparsity": result.get("sparsity"),
        "val_accuracy": final.get("val_accuracy"),
        "test_accuracy": final.get("test_accuracy"),
        "seconds": (result.get("seconds") or {}).get("total"),
    }
    places = ", ".join(f":{name}" for name in COLUMNS)
    database.execute(f"INSERT OR REPLACE INTO runs ({', '.join(COLUMNS)}) VALUES ({places})", row)
