# SPDX-License-Identifier: MIT
"""A run that goes on in another way than it began: on another number of ranks, spread or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from test_engine_resume import flat, stop_after
from workers import Workers

from adamwprune.experiment import commands, session
from adamwprune.experiment.plan import begun_otherwise, plan
from adamwprune.training import ConfigError, DirectoryError, Interrupted, RunConfig
from adamwprune.training.engine import train

#: A pruned network with an average beside it, one whose masks are attached to SGD, and a language model.
RUNS = {
    "average": tiny.config(
        optimizer="adamwprune", pruning_method="state", target_sparsity=0.7, ema=0.9, clip_norm=1.0, epochs=2
    ),
    "attached": tiny.config(optimizer="sgd", pruning_method="magnitude", target_sparsity=0.5, epochs=2),
    "text": tiny_text.config(
        optimizer="adamwprune", pruning_method="state", target_sparsity=0.7, iterations=14, accumulate=2
    ),
}
WAYS = ("ddp", "fsdp")
#: The steps of all three runs, and the one before which they stop: inside the ramp.
STEPS, STOP = 14, 8


def begin(config: RunConfig, folder: Path) -> None:
    with pytest.raises(Interrupted):
        train(config, folder, should_stop=stop_after(STOP))


def on_two_ranks(rank: int, folder: Path) -> None:
    """Begin every run in both ways, and go on with those of one process, and of the other way."""
    tiny.register()
    tiny_text.register(pytest.MonkeyPatch())
    for name, config in RUNS.items():
        for way in WAYS:
            begin(config.replace(parallel=way), folder / f"{name}-{way}")
            train(
                config.replace(parallel=way, resume_from=str(folder / f"{name}-one")), folder / f"{name}-one-to-{way}"
            )
        train(config.replace(parallel="ddp", resume_from=str(folder / f"{name}-fsdp")), folder / f"{name}-fsdp-to-ddp")


@pytest.fixture(scope="module")
def folder(ranks: Workers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run from beginning to end on one process, then in two parts in every way."""
    path = tmp_path_factory.mktemp("runs")
    for name, config in RUNS.items():
        train(config, path / name)
        begin(config, path / f"{name}-one")
    ranks(2, on_two_ranks, path)
    for name, config in RUNS.items():
        for way in WAYS:
            train(config.replace(resume_from=str(path / f"{name}-{way}")), path / f"{name}-{way}-to-one")
    return path


@pytest.mark.parametrize("turn", ["ddp-to-one", "fsdp-to-one", "one-to-ddp", "one-to-fsdp", "fsdp-to-ddp"])
@pytest.mark.parametrize("name", RUNS)
def test_it_ends_where_one_that_never_changed_ends(folder: Path, name: str, turn: str) -> None:
    """No run here draws noise while it trains, so that all ways agree up to rounding."""
    paths = (folder / name, folder / f"{name}-{turn}")
    ours, other = (json.loads((path / "result.json").read_text()) for path in paths)
    assert other["status"] == "finished"
    for key in ("steps", "kept", "parameters", "prunable"):
        assert other[key] == ours[key]
    assert other["final"]["test_loss"] == pytest.approx(ours["final"]["test_loss"], rel=1e-3)
    curves = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in paths]
    for mine, theirs in zip(*curves, strict=True):
        assert theirs["step"] == mine["step"]
        assert theirs["val_loss"] == pytest.approx(mine["val_loss"], rel=1e-3)
    a, b = (torch.load(path / "checkpoints/last.pt")["run"]["model"] for path in paths)
    for key in a:
        torch.testing.assert_close(b[key], a[key], rtol=0.0, atol=2e-3)
    log = (paths[1] / "log.txt").read_text()
    assert "goes on with run" in log
    assert f"resumed at step {STOP} of {STEPS}" in log


def test_nothing_that_the_checkpoint_holds_is_changed_on_the_way(folder: Path, tmp_path: Path) -> None:
    """Stopped at once, the run has what the other one had, but for the generators and whose it is."""
    source = folder / "average-fsdp"
    with pytest.raises(Interrupted):
        train(RUNS["average"].replace(resume_from=str(source)), tmp_path / "run", should_stop=stop_after(0))
    before, after = (flat(torch.load(path / "checkpoints/last.pt")) for path in (source, tmp_path / "run"))
    compared = [key for key in before if "random" not in key and key != "/run_id" and not key.endswith("_size")]
    assert len(compared) > 50
    for key in compared:
        if isinstance(before[key], torch.Tensor):
            assert torch.equal(after[key], before[key]), key
        else:
            assert after[key] == before[key], key


def test_it_can_be_stopped_again(folder: Path, tmp_path: Path) -> None:
    """And then it needs nothing of the run that it came from but its name."""
    config = RUNS["average"].replace(resume_from=str(folder / "average-ddp"))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", should_stop=stop_after(3))
    train(config, tmp_path / "run")
    log = (tmp_path / "run/log.txt").read_text()
    assert log.count("goes on with run") == 1
    assert f"resumed at step {STOP + 3} of {STEPS}" in log
    whole, parts = (folder / "average-ddp-to-one", tmp_path / "run")
    a, b = (flat(torch.load(path / "checkpoints/last.pt")["run"]) for path in (whole, parts))
    for key in a:
        assert torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key], key


def test_another_number_of_ranks_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(
        DirectoryError, match=r"ranks is 2 there and 1 here; choose another .* resume_from='.*average-ddp'"
    ):
        train(RUNS["average"], folder / "average-ddp")


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("nowhere", {}, "resume_from='.*nowhere' is not the directory of a run"),
        ("average-ddp", {"learning_rate": 0.5}, "learning_rate is 0.00. there and 0.5 here; only ranks, parallel"),
        ("average-ddp", {"batch_size": 8, "seed": 3}, "seed is 0 there and 3 here, batch_size is 16 there and 8 here"),
        ("average-one", {}, "it began in the same way, on as many ranks: leave resume_from out"),
        ("average-one-to-ddp", {}, r"that run has ended; its weights serve as init='.*best\.pt'"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, source: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(RUNS["average"].replace(resume_from=str(folder / source), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_command_refuses_another_run_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    fields = {"data": "tiny", "width": 0.5, "threads": 1, "resume_from": str(folder / "attached-ddp")}
    with pytest.raises(ConfigError, match="pruning_method is 'magnitude' there and 'none' here"):
        commands.train("lenet5", fields, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_run_that_has_no_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text((folder / "average-ddp/config.json").read_text())
    with pytest.raises(ConfigError, match="it has no checkpoint yet"):
        train(RUNS["average"].replace(resume_from=str(source)), tmp_path / "run")


def test_a_command_that_begins_anew_says_what_could_be_gone_on_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of these wait in another way; one began in this way, one has ended, and one is of another seed."""
    config = RUNS["average"]
    run, other = plan([config, config.replace(seed=1)])
    runs = tmp_path / "runs"
    sources = ("average-ddp", "average-fsdp", "average-one", "average-one-to-ddp", "average")
    for source in sources:
        shutil.copytree(folder / source, runs / f"{run.name}-{source}")
    (runs / f"{run.name}-empty").mkdir()
    monkeypatch.setattr(session, "run_matrix", lambda *args, **kwargs: 0)
    fields = {name: value for name, value in config.as_dict().items() if value is not None}
    commands.train(None, fields, tmp_path)
    told = sorted(capsys.readouterr().out.splitlines())
    assert [line.split()[1] for line in told] == [str(runs / f"{run.name}-{source}") for source in sources[:2]]
    assert "ranks is 2 there and 1 here. This one begins anew; --resume-from" in told[0]
    assert "parallel is 'fsdp' there and 'ddp' here" in told[1]
    assert not list(begun_otherwise(other, tmp_path))
    shutil.copytree(folder / "average-one", runs / run.folder)
    commands.train(None, fields, tmp_path)
    assert not capsys.readouterr().out
