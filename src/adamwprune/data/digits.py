# SPDX-License-Identifier: MIT
"""Scikit-learn's bundled handwritten digits: 1,797 real 8x8 scans (Alpaydin and Kaynak 1998), no download."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adamwprune.data.dataset import DataError, Dataset, DatasetInfo, Split
from adamwprune.data.splits import stratified

SIZE = 28
TEST_FRACTION = 0.2
TEST_SALT = 20


def read(info: DatasetInfo, data_dir: Path) -> Dataset:
    """All scans, enlarged to 28x28; a fixed fifth of every class is the test split."""
    table = _table()
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != info.checksum:
        raise DataError(
            f"scikit-learn's digits have changed: sha256 {found}, expected {info.checksum}. "
            "Install a version that bundles the known 1,797 scans, e.g. pip install scikit-learn==1.6.1"
        )
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    everything = Split(images=enlarge(torch.from_numpy(table[:, :64]).view(-1, 1, 8, 8)), labels=labels)
    train, test = stratified(labels, TEST_FRACTION, TEST_SALT)
    return Dataset(name=info.name, train=everything.take(train), test=everything.take(test))


def enlarge(scans: Tensor) -> Tensor:
    """8x8 scans of 0 to 16 as 28x28 images of 0 to 255, bilinear."""
    images = functional.interpolate(
        scans.double() * (255 / 16), size=(SIZE, SIZE), mode="bilinear", align_corners=False
    )
    return images.round().to(torch.uint8)


def _table() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """1,797 rows of 64 pixels and a label. The file is read directly: importing scikit-learn takes seconds."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "the data set 'digits' comes with scikit-learn, which is not installed: pip install 'adamwprune[digits]'"
        )
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        with gzip.open(path, "rt") as lines:
            return np.loadtxt(lines, delimiter=",").astype(np.uint8)
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return np.column_stack([bundle.data, bundle.target]).astype(np.uint8)


INFO = DatasetInfo(
    name="digits",
    summary="scikit-learn's bundled handwritten digits, 1,797 scans, enlarged to 28x28",
    shape=(1, SIZE, SIZE),
    classes=10,
    examples=1438,
    mean=(0.3056,),
    std=(0.3250,),
    shift=2,
    flip=False,
    checksum="68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2",
    read=read,
)
