# SPDX-License-Identifier: MIT
"""Training on a part of the images: which ones, for whom, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_engine_resume import assert_same_run, in_pieces

from adamwprune.data import Split
from adamwprune.training import ConfigError, RunConfig
from adamwprune.training.engine import train
from adamwprune.training.identity import identity, run_id
from adamwprune.training.image_task import Images
from adamwprune.training.resolve import resolve, total_steps

#: Of 150 examples in four classes the tiny recipe holds out a fifth.
TRAINING = 120
PART = 41


def images_of(**changes: Any) -> Images:
    return Images(resolve(tiny.config(**changes)), torch.device("cpu"))


def pictures(split: Split) -> list[tuple[bytes, int]]:
    """Every image as bytes, with its class: no two images of the tiny set are alike."""
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)]


def test_a_part_is_so_many_of_the_training_images_in_equal_shares() -> None:
    everything, part = pictures(images_of().train), pictures(images_of(train_examples=PART).train)
    assert (len(everything), len(part)) == (TRAINING, PART)
    assert len(set(part)) == PART
    assert set(part) < set(everything)
    assert sorted(Counter(label for _, label in part).values()) == [10, 10, 10, 11]


def test_validation_and_test_stay_whole_and_apart() -> None:
    whole, part = images_of(), images_of(train_examples=PART)
    for name in ("val", "test"):
        assert pictures(part.held[name]) == pictures(whole.held[name])
        assert set(pictures(part.train)).isdisjoint(pictures(part.held[name]))


def test_every_seed_and_arm_trains_on_the_same_images() -> None:
    part = pictures(images_of(train_examples=PART).train)
    for changes in ({"seed": 7}, {"optimizer": "sgd"}, {"batch_size": 8}, {"iterations": 5}):
        assert pictures(images_of(train_examples=PART, **changes).train) == part


def test_an_epoch_shows_the_part_and_nothing_else() -> None:
    task = images_of(train_examples=64, augment=False)
    assert task.steps_per_epoch == 4
    for epoch in range(2):
        shown = [task.batch(4 * epoch + step)[0] for step in range(4)]
        expected = task.normalize(task.train.images)
        assert {image.numpy().tobytes() for image in torch.cat(shown)} == {x.numpy().tobytes() for x in expected}


def test_a_run_says_what_it_trains_on_and_goes_on_exactly(tmp_path: Path) -> None:
    config = tiny.config(train_examples=PART, pruning_method="state", target_sparsity=0.5)
    steps = tiny.EPOCHS * (PART // 16)
    assert total_steps(resolve(config)) == steps
    result = train(config, tmp_path / "whole")
    assert (result["status"], result["steps"], result["config"]["train_examples"]) == ("finished", steps, PART)
    first = (tmp_path / "whole/log.txt").read_text().splitlines()[0]
    assert "lenet5_w0.5-tiny_41-adamw-state-50-s0" in first
    assert f"{steps} steps on 41 training images" in first
    in_pieces(config, tmp_path / "pieces", [0, 3, 5])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_a_part_is_a_run_of_its_own_and_the_whole_is_what_it_was() -> None:
    whole, part, other = (resolve(tiny.config(train_examples=count)) for count in (None, PART, PART + 1))
    assert "train_examples" not in identity(whole, "data")["config"]
    assert identity(part, "data")["config"]["train_examples"] == PART
    assert len({run_id(identity(config, "data")) for config in (whole, part, other)}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_examples": 0}, "train_examples=0: expected at least 1"),
        ({"train_examples": -4}, "train_examples=-4: expected at least 1"),
        ({"train_examples": 3}, "train_examples=3: expected between 4, one for each class of 'tiny', and 120, all"),
        ({"train_examples": 121}, "train_examples=121: expected between 4, .* leave it out to train on all of"),
        ({"train_examples": 15}, "batch_size=16 is more than the 15 training examples of 'tiny'"),
        ({"train_examples": 15, "iterations": 3}, "batch_size=16 is more than the 15 training examples"),
        ({"train_examples": 121, "iterations": 3}, "train_examples=121: expected between 4,"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny.config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_of_them_can_be_named(tmp_path: Path) -> None:
    train(tiny.config(epochs=1), tmp_path / "unnamed")
    train(tiny.config(epochs=1, train_examples=TRAINING), tmp_path / "named")
    losses = [json.loads((tmp_path / name / "result.json").read_text())["final"] for name in ("unnamed", "named")]
    assert losses[0] == losses[1]


def test_text_has_no_images() -> None:
    with pytest.raises(ConfigError, match="train_examples=500 has no effect: gpt2-tiny has no such setting; leave it"):
        resolve(RunConfig(model="gpt2-tiny", train_examples=500))
