# SPDX-License-Identifier: MIT
"""Every data set by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NoReturn

from adamwprune.data import accepted, cifar, corpora, digits, imagenet, mnist, shakespeare, stdlib
from adamwprune.data.dataset import Dataset, DatasetInfo, ImageFolders, Info, StreamInfo, TokenData, TokenInfo

#: Raised when a reader, a split or the augmentation changes its meaning, so that runs before and after are told apart.
VERSION = 1

DATASETS: dict[str, Info] = {
    info.name: info
    for info in (
        digits.INFO,
        mnist.INFO,
        cifar.INFO10,
        cifar.INFO100,
        stdlib.INFO,
        shakespeare.INFO,
        shakespeare.INFO_BPE,
        *corpora.INFOS,
        imagenet.INFO,
    )
}

#: What entries of each kind hold, in words.
KINDS: dict[type[Info], str] = {
    DatasetInfo: "images in memory",
    TokenInfo: "text",
    StreamInfo: "images that are streamed",
}


def find(name: str) -> Info:
    """The entry of ``name``; ValueError with the valid names where there is none."""
    try:
        return DATASETS[name]
    except KeyError:
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}") from None


def images(name: str) -> DatasetInfo:
    """The entry of ``name``; ValueError where it holds no images in memory."""
    info = find(name)
    return info if isinstance(info, DatasetInfo) else _refuse(info, DatasetInfo)


def text(name: str) -> TokenInfo:
    """The entry of ``name``; ValueError where it holds no text."""
    info = find(name)
    return info if isinstance(info, TokenInfo) else _refuse(info, TokenInfo)


def stream(name: str) -> StreamInfo:
    """The entry of ``name``; ValueError where it holds no images that are streamed."""
    info = find(name)
    return info if isinstance(info, StreamInfo) else _refuse(info, StreamInfo)


def _refuse(info: Info, wanted: type[Info]) -> NoReturn:
    names = ", ".join(name for name, other in DATASETS.items() if isinstance(other, wanted))
    raise ValueError(f"data set {info.name!r} holds {KINDS[type(info)]}: expected {KINDS[wanted]}, one of {names}")


def checksum(name: str, data_dir: str | Path) -> str:
    """Identifies the content that runs on a data set see: the canonical one, and what was accepted in its place."""
    info = find(name)
    if isinstance(info, TokenInfo):
        return info.identify(info, Path(data_dir))
    if isinstance(info, StreamInfo):
        return info.identify(info, Path(data_dir))
    also = accepted.read(name, Path(data_dir))
    if not also:
        return info.checksum
    return hashlib.sha256(json.dumps([info.checksum, also], sort_keys=True).encode()).hexdigest()


def load(name: str, data_dir: str | Path) -> Dataset:
    """Read images from ``data_dir``, checksums verified; DataError says what is missing and what to do."""
    info = images(name)
    dataset = info.read(info, Path(data_dir))
    assert len(dataset.train) == info.examples, (name, len(dataset.train), info.examples)
    assert tuple(dataset.train.images.shape[1:]) == info.shape, (name, dataset.train.images.shape)
    return dataset


def load_text(name: str, data_dir: str | Path) -> TokenData:
    """Read a text from ``data_dir``; DataError says what is missing and what to do."""
    info = text(name)
    return info.read(info, Path(data_dir))


def open_stream(name: str, data_dir: str | Path) -> ImageFolders:
    """Look up where the images of each split lie; DataError says what is missing and what to do."""
    info = stream(name)
    return info.open(info, Path(data_dir))
