# SPDX-License-Identifier: MIT
"""A failure is stored, repeated with the way to try again, and forgotten when it is to be tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_matrix import FakeMatrix, make_run

from adamwprune import report
from adamwprune.experiment import commands, on_ranks, session
from adamwprune.files import read_json, write_json
from adamwprune.training import RunConfig

HINT = "1 of 1 runs failed; the same command with --retry-failed (make: RETRY_FAILED=1) tries again"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data are fetched and no report is made."""
    for module in (session, on_ranks):
        monkeypatch.setattr(module, "fetch_data", lambda *_: None)
    monkeypatch.setattr(report, "build", lambda path: SimpleNamespace(page=tmp_path / "index.html"))
    monkeypatch.setattr(report, "table", lambda path: "")


def test_a_matrix_tries_again_when_it_is_told_to(fake_matrix: FakeMatrix, capsys: pytest.CaptureFixture[str]) -> None:
    runs = fake_matrix.create([1], s1="raise").runs

    def run(retry_failed: bool) -> tuple[int, str]:
        code = session.run_matrix(fake_matrix.path, runs, jobs=1, engine="fake_engine", retry_failed=retry_failed)
        return code, capsys.readouterr().out

    assert run(False)[0] == session.SOME_FAILED
    fake_matrix.behave()  # what made it fail is gone
    code, printed = run(False)
    assert (code, fake_matrix.starts()[1]) == (session.SOME_FAILED, 1)
    assert HINT in printed.replace("\n", " ")
    assert run(True)[0] == session.OK
    assert fake_matrix.starts()[1] == 2


def test_a_run_on_ranks_tries_again_when_it_is_told_to(
    fake_matrix: FakeMatrix, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: RunConfig, directory: Path, **_: object) -> dict[str, Any]:
        """A stored result is the answer, as the engine's is."""
        path = directory / "result.json"
        if not path.is_file():
            write_json(path, {"run_id": run.run_id, "status": "finished"})
        return dict(read_json(path))

    monkeypatch.setattr(on_ranks, "train", train)
    run = make_run(1)
    folder = fake_matrix.create([1])
    folder.mark_failed(run, "the disk was full")
    assert on_ranks.run_on_ranks(folder.path, run) == session.SOME_FAILED
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "the disk was full" in printed
    assert HINT in printed
    assert on_ranks.run_on_ranks(folder.path, run, retry_failed=True) == session.OK
    assert on_ranks.run_on_ranks(folder.path, run, retry_failed=True) == session.OK


@pytest.mark.parametrize(
    ("ranks", "module", "name"), [("1", session, "run_matrix"), ("2", on_ranks, "run_on_ranks")], ids=["one", "two"]
)
@pytest.mark.parametrize("retry", [False, True])
def test_train_hands_the_wish_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: str, module: object, name: str, retry: bool
) -> None:
    seen: list[bool] = []
    taken: Callable[..., int] = lambda *_, retry_failed, **__: seen.append(retry_failed) or 0  # noqa: E731
    monkeypatch.setenv("WORLD_SIZE", ranks)
    monkeypatch.setattr(module, name, taken)
    assert commands.train("lenet5", {"data": "digits"}, tmp_path / "folder", retry_failed=retry) == 0
    assert seen == [retry]
