# SPDX-License-Identifier: MIT
"""The index of images in folders and in shards, against the files it was made of."""

from __future__ import annotations

import io
import itertools
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pictures
import pytest

from adamwprune import data
from adamwprune.data import DATASETS, DataError, fetch, image_index


def contents(index: image_index.Index) -> list[tuple[bytes, int]]:
    return [(index.read(number), int(index.label[number])) for number in range(len(index))]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A shard of ``files``, in their order."""
    with tarfile.open(path, "w") as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    return path


def test_folders(tmp_path: Path) -> None:
    root = pictures.folders(tmp_path / "train")
    (root / "n01/notes.txt").write_text("no image")
    (root / "list.txt").write_text("no class")
    index = image_index.from_folders(root)
    by_class = sorted(range(12), key=lambda number: (number % 3, number))
    assert contents(index) == [(pictures.picture(number), number % 3) for number in by_class]
    assert index.name(0) == str(root / "n01/000.JPEG")
    before = index.checksum
    (root / "n01/000.JPEG").rename(root / "n02/000.JPEG")
    assert image_index.from_folders(root).checksum != before
    with pytest.raises(DataError, match="no images in"):
        image_index.from_folders(tmp_path)


def test_what_tools_hide_is_no_class_and_no_image(tmp_path: Path) -> None:
    root = pictures.folders(tmp_path / "train")
    before = contents(image_index.from_folders(root))
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints/000.JPEG").write_bytes(b"")
    (root / "n01/._000.JPEG").write_bytes(b"")
    assert contents(image_index.from_folders(root)) == before


@pytest.mark.parametrize("labels", [".cls", ".json"])
def test_shards(tmp_path: Path, labels: str) -> None:
    paths = [pictures.shard(tmp_path / f"{at}.tar", [at, at + 1, at + 2], labels=labels) for at in (0, 3)]
    index = image_index.from_shards(paths)
    assert contents(index) == [(pictures.picture(number), number % 3) for number in range(6)]
    assert f"{paths[1]} at byte " in index.name(4)


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache = pictures.shards(tmp_path), tmp_path / "index.npz"
    first = image_index.from_shards(paths, cache)
    opened: list[object] = []
    original = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or original(*a, **k))  # type: ignore[func-returns-value]
    second = image_index.from_shards(paths, cache)
    assert not opened
    assert contents(second) == contents(first)
    assert second.checksum == first.checksum
    pictures.shard(paths[1], [20, 21, 22, 23])
    third = image_index.from_shards(paths, cache)
    assert opened, "a shard that changed is read again"
    assert contents(third)[4] == (pictures.picture(20), 2)
    assert third.checksum != first.checksum
    whole = cache.read_bytes()
    for damaged in (b"PK broken", b"", whole[: len(whole) // 2], whole[:200] + bytes(100) + whole[300:]):
        cache.write_bytes(damaged)
        assert image_index.from_shards(paths, cache).checksum == third.checksum
        assert cache.read_bytes() == whole
    no_folder = paths[0] / "index.npz"
    assert image_index.from_shards(paths, no_folder).checksum == third.checksum, "it need not be kept"


@pytest.mark.parametrize("order", list(itertools.permutations([".json", ".cls", ".jpg"])))
def test_a_class_goes_before_what_else_is_said(tmp_path: Path, order: tuple[str, ...]) -> None:
    content = {".json": b'{"width": 40}', ".cls": b"2", ".jpg": pictures.picture(0)}
    path = pack(tmp_path / "a.tar", {**{f"0{suffix}": content[suffix] for suffix in order}, "readme.json": b"{}"})
    assert contents(image_index.from_shards([path])) == [(pictures.picture(0), 2)]


def test_shards_that_are_none(tmp_path: Path) -> None:
    [path] = pictures.shards(tmp_path, count=4)
    whole = path.read_bytes()
    for size in (700, len(pictures.picture(0)) // 2 + 600):
        os.truncate(path, size)
        with pytest.raises(DataError, match=r"train-0000\.tar is no webdataset shard, or a truncated one"):
            image_index.from_shards([path])
        path.write_bytes(whole)
    path.write_bytes(b"not a tar file" * 100)
    with pytest.raises(DataError, match="no webdataset shard"):
        image_index.from_shards([path])
    with tarfile.open(path, "w") as members:
        member = tarfile.TarInfo("a.jpg")
        members.addfile(member)
    with pytest.raises(DataError, match=r"1 images have no class beside them \(\.cls or \.json\): a"):
        image_index.from_shards([path])
    with tarfile.open(path, "w"):
        pass
    with pytest.raises(DataError, match="no images in 1 shards"):
        image_index.from_shards([path])
    pictures.shard(path, [1], labels=".json")
    path.write_bytes(path.read_bytes().replace(b'{"label": 1}', b'{"lapel": 1}'))
    with pytest.raises(DataError, match=r"no webdataset shard.*label"):
        image_index.from_shards([path])


@pytest.mark.parametrize("form", ["folders", "shards"])
def test_imagenet(tmp_path: Path, form: str) -> None:
    assert set(fetch.verify("imagenet", tmp_path)) == {"imagenet/train", "imagenet/val"}
    with pytest.raises(DataError, match="put a folder of classes or webdataset shards there"):
        data.open_stream("imagenet", tmp_path)
    root = tmp_path / "imagenet"
    if form == "folders":
        pictures.folders(root / "train")
        pictures.folders(root / "val", 6)
    else:
        pictures.shards(root)
        pictures.shards(root, 6, word="val")
    opened = data.open_stream("imagenet", tmp_path)
    assert (len(opened.train), len(opened.test)) == (12, 6)
    assert fetch.verify("imagenet", tmp_path) == {}
    before = data.checksum("imagenet", tmp_path)
    assert before == data.checksum("imagenet", tmp_path)
    if form == "folders":
        pictures.folders(root / "val", 7)
    else:
        pictures.shards(root, 7, word="val")
    assert data.checksum("imagenet", tmp_path) != before


@pytest.mark.parametrize("label", [-1, 1000])
def test_a_number_that_is_no_class(tmp_path: Path, label: int) -> None:
    pictures.shards(tmp_path / "imagenet", word="val")
    pack(tmp_path / "imagenet/train.tar", {"0.jpg": b"", "0.cls": b"0", "1.jpg": b"", "1.cls": str(label).encode()})
    [(folder, reason)] = fetch.verify("imagenet", tmp_path).items()
    assert folder == "imagenet/train"
    assert f"has class {label}, expected 0 to 999" in reason


def test_both_splits_have_the_same_classes(tmp_path: Path) -> None:
    """Otherwise a number would be one class in training and another in testing."""
    train, val = (pictures.folders(tmp_path / f"imagenet/{word}", 3) for word in ("train", "val"))
    (val / "n01/000.JPEG").unlink()
    (train / ".hidden").mkdir()
    assert data.open_stream("imagenet", tmp_path).test.label.tolist() == [1, 2], "a folder without images is a class"
    (val / "n01").rmdir()
    refused = r"val must have the folders of .*train, one a class: it lacks n01, and adds "
    with pytest.raises(DataError, match=refused + "none"):
        data.open_stream("imagenet", tmp_path)
    for name in range(12):
        (val / f"x{name:02}").mkdir()
    [(folder, reason)] = fetch.verify("imagenet", tmp_path).items()
    assert folder == "imagenet/val"
    assert re.search(refused + "x00, x01, x02, .*, x09 and 2 more$", reason)


def test_a_class_too_many(tmp_path: Path) -> None:
    info = data.stream("imagenet")
    assert DATASETS["imagenet"] is info
    for word in ("train", "val"):
        for name in range(info.classes + (word == "val")):
            (tmp_path / f"imagenet/{word}/{name:04}").mkdir(parents=True)
        (tmp_path / f"imagenet/{word}/{name:04}/a.png").write_bytes(b"")
    assert list(fetch.verify("imagenet", tmp_path)) == ["imagenet/val"]
    assert np.array_equal(image_index.from_folders(tmp_path / "imagenet/train").label, [999])
