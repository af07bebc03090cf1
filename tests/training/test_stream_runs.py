# SPDX-License-Identifier: MIT
"""Training on images that are read from files while the network trains."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_engine_resume import assert_same_run, in_pieces

from adamwprune.data import DATASETS
from adamwprune.data.imagenet import INFO
from adamwprune.training import ConfigError, RunConfig, image_task
from adamwprune.training.engine import train
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

pytest.importorskip("PIL")
sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))
import pictures

COUNT = 60


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of small pictures under ImageNet's name, of which the network sees 80 x 80 pixels."""
    monkeypatch.setattr(image_task, "SIZE", 80)
    monkeypatch.setitem(DATASETS, "imagenet", dataclasses.replace(INFO, classes=3))  # type: ignore[arg-type]
    pictures.folders(tmp_path / "data/imagenet/train", COUNT)
    pictures.folders(tmp_path / "data/imagenet/val", 12)
    return tmp_path / "data"


def config(data_dir: Path, **changes: Any) -> RunConfig:
    given = {"batch_size": 8, "iterations": 9, "eval_steps": 3, "val_fraction": 0.2, "threads": 1, "precision": "fp32"}
    wanted = {**given, "width": 0.0625, **changes}
    return RunConfig(model="resnet18", data="imagenet", data_dir=str(data_dir), **wanted)


def test_a_run_in_pieces_equals_one_that_never_stopped(tmp_path: Path, data_dir: Path) -> None:
    """48 training images are 6 batches: the second epoch is reached too."""
    wanted = config(data_dir)
    result = train(wanted, tmp_path / "whole")
    assert (result["status"], result["final"]["epoch"]) == ("finished", 1.5)
    in_pieces(wanted, tmp_path / "pieces", [2, 5])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_splits_are_apart_and_complete(data_dir: Path) -> None:
    run = Run(resolve(config(data_dir)))
    shown = [torch.cat([labels for _, labels in run.task.split(name)]) for name in ("val", "test")]
    assert [torch.bincount(labels).tolist() for labels in shown] == [[4, 4, 4], [4, 4, 4]]
    index = run.task.train
    assert len(index) == 48
    held = {run.task.held["val"].name(number) for number in range(12)}
    assert held.isdisjoint({index.name(number) for number in range(48)})
    inputs, _ = run.task.batch(0)
    assert inputs.shape == (8, 3, 80, 80)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    run.task.close()


def test_a_part_of_the_training_images_leaves_the_other_splits_whole(tmp_path: Path, data_dir: Path) -> None:
    part, whole = (Run(resolve(config(data_dir, train_examples=count))).task for count in (10, None))
    names = [[task.train.name(number) for number in range(len(task.train))] for task in (part, whole)]
    assert set(names[0]) < set(names[1])
    assert sorted(torch.bincount(torch.from_numpy(part.train.label)).tolist()) == [3, 3, 4]
    assert [len(part.held[name]) for name in ("val", "test")] == [12, 12]
    assert train(config(data_dir, train_examples=10), tmp_path / "run")["final"]["epoch"] == 9


def test_images_that_do_not_decode_are_counted_in_the_log(tmp_path: Path, data_dir: Path) -> None:
    broken = sorted((data_dir / "imagenet/train/n01").iterdir())[:2]
    for path in broken:
        path.write_bytes(b"no picture")
    result = train(config(data_dir), tmp_path / "run")
    assert result["status"] == "finished"
    log = (tmp_path / "run/log.txt").read_text()
    assert "2 examples could not be read, the first being" in log
    assert "UnidentifiedImageError" in log


def test_each_split_may_have_a_few_images_that_do_not_decode(data_dir: Path) -> None:
    """Ten of them are tolerated, or 1 % of a split: the splits are counted apart, and reported together."""
    task = Run(resolve(config(data_dir))).task
    broken = {index.name(number) for index in (task.train, task.held["test"]) for number in range(6)}
    for name in broken:
        Path(name).write_bytes(b"no picture")
    for step in range(task.steps_per_epoch):
        task.batch(step)
    assert sum(len(labels) for _, labels in task.split("test")) == 12
    assert task.broken.keys() == broken
    task.close()


def test_what_does_not_work_on_streamed_images_is_refused(data_dir: Path) -> None:
    for changes, message in (
        ({"val_fraction": 0.001}, "val_fraction=0.001 of the images of 'imagenet' is none"),
        ({"batch_size": 50}, "batch_size=50 is more than the 48 training examples of 'imagenet'"),
        ({"train_examples": 49}, "train_examples=49: expected between 3, .* and 48, all that are not held out"),
        ({"train_examples": 2}, "train_examples=2: expected between 3, one for each class of 'imagenet'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Run(resolve(config(data_dir, **changes)))
