# SPDX-License-Identifier: MIT
"""What a process may take of its machine: no more than its container and its neighbours leave it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from adamwprune.training import machine


@pytest.mark.parametrize(
    ("limit", "used", "ranks", "free"),
    [
        (None, None, 1, 1000),
        ("max\n", "700\n", 1, 1000),
        ("900\n", "700\n", 1, 200),
        ("5000\n", "700\n", 4, 250),
        ("600\n", "700\n", 1, 0),
    ],
)
def test_free_memory(
    limit: str | None, used: str | None, ranks: int, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "limit", tmp_path / "used"
    for file, text in zip(files, (limit, used), strict=True):
        if text is not None:
            file.write_text(text)
    monkeypatch.setattr(machine, "LIMITS", (files,))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert machine.free_memory() == free


def test_cores_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert machine.cores() == 3
