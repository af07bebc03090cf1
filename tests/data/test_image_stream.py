# SPDX-License-Identifier: MIT
"""Streams of images: which image comes when, what is cut out of it, and what becomes of damaged ones."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pictures
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adamwprune.data import DataError, image_stream
from adamwprune.data.image_index import Index, from_folders, from_shards
from adamwprune.data.image_stream import ImageStream, crop, decode

CPU = torch.device("cpu")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return from_folders(pictures.folders(tmp_path / "train"))


def stream(index: Index, seed: int | None = 0, **changes: object) -> ImageStream:
    options = {"size": 16, "batch_size": 5, "workers": 2, **changes}
    return ImageStream(index, seed=seed, device=CPU, **options)  # type: ignore[arg-type]


def numbers(images: torch.Tensor) -> list[int]:
    return [pictures.number_of(image.numpy()) for image in images]


@pytest.mark.parametrize("form", ["folders", "shards"])
def test_an_epoch_has_every_image_once(tmp_path: Path, form: str) -> None:
    if form == "folders":
        index = from_folders(pictures.folders(tmp_path, 20))
    else:
        index = from_shards(pictures.shards(tmp_path, 20))
    with stream(index) as epoch:
        assert len(epoch) == 4
        batches = [epoch.batch(number) for number in range(4)]
    seen = [number for images, _ in batches for number in numbers(images)]
    assert sorted(seen) == list(range(20))
    assert seen != sorted(seen)
    for images, labels in batches:
        assert images.shape == (5, 3, 16, 16)
        assert images.dtype == torch.uint8
        assert labels.tolist() == [number % 3 for number in numbers(images)]


def test_a_batch_is_the_same_whenever_it_is_asked_for(index: Index) -> None:
    with stream(index, batch_size=4) as epoch:
        expected = [epoch.batch(number) for number in range(3)]
    for sequence in ((2,), (1, 2), (2, 0, 1), (1, 1)):
        with stream(index, batch_size=4, workers=3, ahead=1) as epoch:
            for number in sequence:
                assert all(map(torch.equal, epoch.batch(number), expected[number]))
    with stream(index, seed=1, batch_size=4) as other:
        assert any(numbers(other.batch(n)[0]) != numbers(expected[n][0]) for n in range(3))


def test_evaluation_takes_the_middle_in_order(index: Index) -> None:
    with stream(index, seed=None) as epoch:
        batches = [epoch.batch(number) for number in range(len(epoch))]
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == index.label.tolist()


def test_batches_are_made_ahead(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, lock = [], threading.Lock()

    def count(*arguments: object) -> np.ndarray:
        with lock:
            loaded.append(arguments)
        return np.zeros((3, 16, 16), np.uint8)

    monkeypatch.setattr(image_stream, "decode", count)
    with stream(index, batch_size=2, ahead=3, workers=1) as epoch:
        epoch.batch(0)
        assert sorted(epoch._pending) == [1, 2, 3]
        epoch.batch(4)
        assert sorted(epoch._pending) == [5]
    assert 4 <= len(loaded) <= 12
    assert not epoch._pending


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_read_the_batches_of_one_process_and_none_of_the_others(
    index: Index, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    """Each asks for every so many-th batch, and reads ahead in the same stride."""
    with stream(index, batch_size=2) as epoch:
        count = len(epoch)
        expected = [epoch.batch(number) for number in range(count)]
    loaded: list[int] = []
    load = ImageStream._load

    def noted(self: ImageStream, place: int) -> object:
        loaded.append(place)
        return load(self, place)

    monkeypatch.setattr(ImageStream, "_load", noted)
    everything = []
    for rank in range(ranks):
        loaded.clear()
        with stream(index, batch_size=2, stride=ranks) as epoch:
            for number in range(rank, count, ranks):
                images, labels = epoch.batch(number)
                assert torch.equal(images, expected[number][0])
                assert torch.equal(labels, expected[number][1])
        own = [2 * number + place for number in range(rank, count, ranks) for place in range(2)]
        assert sorted(loaded) == own
        everything += own
    assert sorted(everything) == list(range(2 * count))


def test_shards_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_stream, "MIX", 2)
    index = from_shards(pictures.shards(tmp_path, 24, each=3))
    order = image_stream.order(index, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(24))
    groups = [set(index.file[part].tolist()) for part in order.view(4, 6).numpy()]
    assert [len(group) for group in groups] == [2] * 4
    assert not groups[0] & groups[1]


def test_damaged_images_are_skipped_and_counted(index: Index) -> None:
    order = image_stream.order(index, torch.Generator().manual_seed(0)).tolist()
    for place, content in ((2, b"not an image"), (3, b""), (11, None)):
        path = index.files[order[place]]
        path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with stream(index, batch_size=4) as epoch:
        images = torch.cat([epoch.batch(number)[0] for number in range(3)])
    expected = [order[{2: 4, 3: 4, 11: 0}.get(place, place)] for place in range(12)]
    assert numbers(images) == [int(index.files[number].stem) for number in expected]
    assert set(epoch.broken) == {str(index.files[order[place]]) for place in (2, 3, 11)}
    assert all(reason for reason in epoch.broken.values())


def test_too_many_damaged_images_end_the_run(tmp_path: Path) -> None:
    index = from_folders(pictures.folders(tmp_path, 30))
    for path in index.files[:12]:
        path.write_bytes(b"damaged")
    # Threads decode ahead, so that a twelfth may be seen before the eleventh is reported.
    with stream(index, seed=None) as epoch, pytest.raises(DataError, match=r"1\d of 30 images do not decode"):
        [epoch.batch(number) for number in range(3)]
    few = from_folders(pictures.folders(tmp_path / "few", 3))
    for path in few.files:
        path.write_bytes(b"damaged")
    with stream(few, batch_size=1) as epoch, pytest.raises(DataError, match="none of the 3 images decodes"):
        epoch.batch(0)


@pytest.mark.parametrize("size", [0, 13])
def test_batches_that_cannot_be(index: Index, size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={size} must be between 1 and the 12 images"):
        stream(index, batch_size=size)
    with stream(index) as epoch, pytest.raises(IndexError, match="batch 2 of 2"):
        epoch.batch(2)


@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    draw=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4),
)
def test_crops_lie_in_the_image(width: int, height: int, draw: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = crop(width, height, draw)
    assert -1e-9 <= left < right <= width + 1e-9
    assert -1e-9 <= top < bottom <= height + 1e-9
    area = (right - left) * (bottom - top) / (width * height)
    assert area <= 1 + 1e-9
    if right - left < width - 1e-6 and bottom - top < height - 1e-6:
        assert area == pytest.approx(0.08 + 0.92 * draw[0])
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_against_a_plain_crop_and_resize(kind: str) -> None:
    ramp = np.linspace(0, 255, 240 * 320).reshape(240, 320).astype(np.uint8)
    image = Image.fromarray(np.stack([ramp, ramp.T.reshape(240, 320), ramp[::-1]], axis=2))
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}))
    middle = image.crop((55, 15, 265, 225)).resize((48, 48), Image.Resampling.BILINEAR)
    found = decode(out.getvalue(), 48, None).transpose(1, 2, 0)
    assert np.abs(found.astype(int)[..., ::2] - np.asarray(middle).astype(int)[..., ::2]).mean() < 2
    part = decode(out.getvalue(), 48, (0.5, 0.5, 0.0, 0.0)).transpose(1, 2, 0)
    side = (0.54 * 320 * 240) ** 0.5
    plain = image.resize((48, 48), Image.Resampling.BILINEAR, box=(0, 0, side, side))
    assert np.abs(part.astype(int)[..., ::2] - np.asarray(plain).astype(int)[..., ::2]).mean() < 2


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_kind_of_image_becomes_rgb(mode: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 30)).convert(mode).save(out, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(out.getvalue(), 8, None).shape == (3, 8, 8)


def test_flips_are_drawn_for_each_image(tmp_path: Path) -> None:
    folder = tmp_path / "n01"
    folder.mkdir()
    half = np.zeros((20, 20, 3), np.uint8)
    half[:, :10] = 255
    for number in range(32):
        Image.fromarray(half).save(folder / f"{number}.png")
    with stream(from_folders(tmp_path), batch_size=32) as epoch:
        images, _ = epoch.batch(0)
    bright_left = sum(bool(image[:, :, 0].float().mean() > image[:, :, -1].float().mean()) for image in images)
    assert 6 < bright_left < 26
