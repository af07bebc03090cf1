# SPDX-License-Identifier: MIT
"""Every data set by name."""

from __future__ import annotations

from pathlib import Path

from adamwprune.data import digits, mnist
from adamwprune.data.dataset import Dataset, DatasetInfo

#: Raised when a reader, a split or the augmentation changes its meaning, so that runs before and after are told apart.
VERSION = 1

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in (digits.INFO, mnist.INFO)}


def find(name: str) -> DatasetInfo:
    """The entry of ``name``; ValueError with the valid names where there is none."""
    try:
        return DATASETS[name]
    except KeyError:
        raise ValueError(f"unknown data set {name!r}: expected one of {', '.join(DATASETS)}") from None


def load(name: str, data_dir: str | Path) -> Dataset:
    """Read a data set from ``data_dir``, checksums verified; DataError says what is missing and what to do."""
    info = find(name)
    dataset = info.read(info, Path(data_dir))
    assert len(dataset.train) == info.examples, (name, len(dataset.train), info.examples)
    assert tuple(dataset.train.images.shape[1:]) == info.shape, (name, dataset.train.images.shape)
    return dataset
