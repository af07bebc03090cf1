# SPDX-License-Identifier: MIT
"""Gives every configured run its identity: the resolved config, the id and the name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamwprune.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a matrix. ``config`` is resolved: it means the same whatever recipes become later."""

    run_id: str
    name: str
    config: RunConfig

    @property
    def folder(self) -> str:
        """Name of its directory under ``runs/``."""
        return f"{self.name}-{self.run_id[:8]}"

    def as_dict(self) -> dict[str, Any]:
        """As ``matrix.json`` stores it."""
        return {"run_id": self.run_id, "name": self.name, "config": self.config.as_dict()}


def plan(configs: Iterable[RunConfig]) -> list[Run]:
    """Resolves and validates all configs before anything is written; two that resolve to the same run are one."""
    from adamwprune.training import takeover
    from adamwprune.training.identity import run_id, run_name
    from adamwprune.training.resolve import resolve

    runs: dict[str, Run] = {}
    for config in configs:
        resolved = resolve(config)
        decides = _identity(resolved)
        if resolved.resume_from:
            takeover.check_same(resolved.resume_from, decides)
        key = run_id(decides)
        runs.setdefault(key, Run(run_id=key, name=run_name(resolved), config=resolved))
    return list(runs.values())


def begun_otherwise(run: Run, folder: Path) -> Iterator[str]:
    """What to tell one who begins ``run`` while the same run waits in ``folder``, begun on other ranks, say.

    Nothing, once it has begun itself.
    """
    from adamwprune.training import takeover

    others = [path for path in (folder / "runs").glob(f"{run.name}-*") if path.name != run.folder]
    if not others or run.config.resume_from or (folder / "runs" / run.folder / "config.json").is_file():
        return
    for other, differing in takeover.begun_otherwise(others, _identity(run.config)):
        yield (
            f"note: {other} is unfinished and the same run, but {', '.join(differing)}. This one begins anew; "
            f"--resume-from {other} goes on with that one"
        )


def _identity(resolved: RunConfig) -> dict[str, Any]:
    from adamwprune import data
    from adamwprune.training.identity import identity

    assert resolved.data is not None
    return identity(resolved, data.checksum(resolved.data, resolved.data_dir))


def fetch_data(runs: Iterable[Run], progress: Callable[[str, int, int], None] | None = None) -> None:
    """Makes sure that the files of every data set the runs need are there and intact."""
    from adamwprune.data import fetch

    for name, data_dir in dict.fromkeys((run.config.data, run.config.data_dir) for run in runs):
        assert name is not None
        fetch.ensure(name, data_dir, progress)
