# SPDX-License-Identifier: MIT
"""Batches, learning rates, evaluation and files, each against a plain computation."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from adamwprune import data, files
from adamwprune.data.augment import flip, shift
from adamwprune.training import checkpoint, device
from adamwprune.training.batches import Epoch, Normalizer
from adamwprune.training.directory import RunDirectory
from adamwprune.training.evaluate import evaluate
from adamwprune.training.schedule import LR_SCHEDULES, lr_factor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.load("tiny", "unused").train


def draw(split: data.Split, *, augment: bool = False, seed: int = 0, epoch: int = 0, flips: bool = False) -> Epoch:
    info = dataclasses.replace(tiny.INFO, flip=flips)
    return Epoch.draw(split, info, batch_size=16, augment=augment, seed=seed, epoch=epoch)


def test_an_epoch_shows_each_example_at_most_once(split: data.Split) -> None:
    tagged = data.Split(images=split.images, labels=torch.arange(len(split)))
    epoch = draw(tagged)
    seen = torch.cat([epoch.batch(number)[1] for number in range(len(split) // 16)])
    assert len(seen.unique()) == len(seen) == len(split) // 16 * 16
    for number in (0, 5):
        images, labels = epoch.batch(number)
        assert torch.equal(images, split.images[labels])


def test_order_depends_on_seed_and_epoch_alone(split: data.Split) -> None:
    def order(**changes: int) -> list[int]:
        return draw(split, **changes).order.tolist()

    first = order()
    torch.manual_seed(5)
    assert order() == first
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_augmentation_is_the_drawn_shift_then_the_drawn_flip(split: data.Split) -> None:
    epoch = draw(split, augment=True, flips=True)
    assert epoch.offsets is not None
    assert epoch.mirrored is not None
    assert sorted(epoch.offsets.unique().tolist()) == [-1, 0, 1]
    part = slice(32, 48)
    images, labels = epoch.batch(2)
    plain = split.take(epoch.order[part])
    assert torch.equal(labels, plain.labels)
    assert torch.equal(images, flip(shift(plain.images, epoch.offsets[part], 1), epoch.mirrored[part]))


def test_flips_need_the_data_sets_leave(split: data.Split) -> None:
    assert draw(split, augment=True).mirrored is None
    assert draw(split).offsets is None
    assert not any(data.DATASETS[name].flip for name in ("digits", "mnist"))


def test_one_mean_and_deviation_for_every_image() -> None:
    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    expected = (images.double() / 255 - tiny.INFO.mean[0]) / tiny.INFO.std[0]
    assert torch.allclose(Normalizer.of(tiny.INFO, CPU)(images).double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", LR_SCHEDULES)
@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_learning_rates(name: str, steps: int, warmup: float) -> None:
    factors = [lr_factor(name, step, steps, warmup) for step in range(steps)]
    rising = round(warmup * steps)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:rising] == sorted(set(factors[:rising]))
    assert factors[rising:] == sorted(factors[rising:], reverse=True)
    if rising < steps:
        assert factors[rising] == 1.0


def test_learning_rates_at_known_places() -> None:
    assert lr_factor("cosine", 60, 100, 0.2) == pytest.approx(0.5)
    assert lr_factor("linear", 60, 100, 0.2) == pytest.approx(0.5)
    assert lr_factor("constant", 99, 100, 0.2) == 1.0
    assert lr_factor("cosine", 9, 100, 0.2) == pytest.approx(10 / 21)
    assert lr_factor("cosine", 60, 100, 0.2, 0.1) == pytest.approx(0.55)
    assert lr_factor("linear", 100, 101, 0.0, 0.1) == pytest.approx(0.1 + 0.9 / 101)


def test_evaluation_against_example_by_example(split: data.Split) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 4))
    normalize = Normalizer.of(tiny.INFO, CPU)
    model(normalize(split.images))
    model.train()
    batches = [(normalize(split.images[part]), split.labels[part]) for part in (slice(0, 64), slice(64, None))]
    scores = evaluate(model, batches, CPU)
    assert model.training
    model.eval()
    losses, right = [], 0
    for image, label in zip(split.images, split.labels, strict=True):
        logits = model(normalize(image[None]))
        losses.append(functional.cross_entropy(logits, label[None]).item())
        right += int(logits.argmax() == label)
    assert scores.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert scores.accuracy == right / len(split)


def test_auto_takes_the_first_device_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"cpu"}
    monkeypatch.setattr(device, "available", lambda name: name in present)
    assert device.find("auto") == "cpu"
    present.add("mps")
    assert device.find("auto") == "mps"
    present.add("cuda")
    assert device.find("auto") == "cuda"
    assert device.find("cpu") == "cpu"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [1.5, math.nan, math.inf, ("b", None)]})
    assert json.loads(path.read_text()) == {"a": [1.5, None, None, ["b", None]]}

    def fail(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_atomic(path, fail)
    assert files.read_json(path) == {"a": [1.5, None, None, ["b", None]]}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"x.json cannot be read"):
        files.read_json(path)


@contextmanager
def full_disk() -> Iterator[None]:
    """Files end at 500 bytes: the nearest to a full disk that needs no disk of its own."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    for values in (10, 100_000):
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}/x.pt'"), full_disk():
            checkpoint.save(tmp_path / "x.pt", "run", {"a": torch.zeros(values)})
    lines = files.JsonLines(tmp_path / "x.jsonl")
    with pytest.raises(OSError, match=f"File too large: '{tmp_path}/x.jsonl'"), full_disk():
        lines.append({"text": "x" * 1000})
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]
    with pytest.raises(OSError, match=f"File too large: '{tmp_path}/log.txt'"), full_disk():
        RunDirectory(tmp_path, "run").log("x" * 1000)


def test_a_full_disk_that_torch_hides_is_said_too(tmp_path: Path) -> None:
    def hide(file: BinaryIO) -> None:
        """As torch's writer does where it still ends the archive."""
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos") from None

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/x.pt'"):
        files.write_atomic(tmp_path / "x.pt", hide)


def test_a_mistake_of_the_writer_stays_what_it_is(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        files.write_atomic(tmp_path / "x", fail)


def test_json_lines_are_cut_back_and_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = files.JsonLines(path)
    lines.append({"n": 1})
    size = lines.size
    lines.append({"n": math.nan})
    lines.close()
    lines = files.JsonLines(path, size)
    lines.append({"n": 3})
    lines.close()
    assert path.read_text() == '{"n": 1}\n{"n": 3}\n'
