# SPDX-License-Identifier: MIT
"""ImageNet (ILSVRC 2012): folders of classes or webdataset shards under ``imagenet/``, read while training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from adamwprune.data import image_index
from adamwprune.data.dataset import DataError, ImageFolders, StreamInfo
from adamwprune.data.image_index import Index

#: What split names begin with; the validation images, whose labels are public, are the test split.
SPLITS = {"train": "train", "test": "val"}
#: Folders that are named where the splits' classes differ.
NAMED = 10


def open_splits(info: StreamInfo, data_dir: Path) -> ImageFolders:
    """The index of each split."""
    return ImageFolders(name=info.name, **{split: _open(info, data_dir, word) for split, word in SPLITS.items()})


def identify(info: StreamInfo, data_dir: Path) -> str:
    """Names and classes of every image of both splits."""
    splits = open_splits(info, data_dir)
    return hashlib.sha256(f"{splits.train.checksum} {splits.test.checksum}".encode()).hexdigest()


def check(info: StreamInfo, data_dir: Path) -> dict[str, str]:
    """What is wrong, by folder."""
    problems = {}
    for word in SPLITS.values():
        try:
            _open(info, data_dir, word)
        except DataError as error:
            problems[f"{info.name}/{word}"] = str(error)
    return problems


def _open(info: StreamInfo, data_dir: Path, word: str) -> Index:
    root = data_dir / info.name
    shards = sorted(path for path in root.glob("*.tar") if word in path.name)
    if shards:
        index = image_index.from_shards(shards, root / f".index-{word}.npz")
    elif (root / word).is_dir():
        index = image_index.from_folders(root / word)
        _check_classes(root / SPLITS["train"], root / word)
    else:
        raise DataError(
            f"{root / word} is missing, and there are no {root / f'*{word}*.tar'}: put a folder of classes or "
            "webdataset shards there; ImageNet's terms do not allow it to be fetched without an account"
        )
    for label in (int(index.label.min()), int(index.label.max())):
        if not 0 <= label < info.classes:
            raise DataError(f"{root / word} has class {label}, expected 0 to {info.classes - 1}")
    return index


def _check_classes(train: Path, other: Path) -> None:
    """DataError where two splits have other folders: the same number would be another class in each."""
    if not train.is_dir():
        return
    wanted, found = set(image_index.classes(train)), set(image_index.classes(other))
    if wanted != found:
        lacks, more = (_named(names) for names in (wanted - found, found - wanted))
        raise DataError(f"{other} must have the folders of {train}, one a class: it lacks {lacks}, and adds {more}")


def _named(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:NAMED]) or "none"
    return f"{first} and {len(names) - NAMED} more" if len(names) > NAMED else first


INFO = StreamInfo(
    name="imagenet",
    summary="ImageNet, 1.28 million photographs in 1,000 classes, streamed",
    classes=1000,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    open=open_splits,
    identify=identify,
    check=check,
)
