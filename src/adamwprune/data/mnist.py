# SPDX-License-Identifier: MIT
"""MNIST (LeCun, Cortes and Burges) from its four canonical idx files."""

from __future__ import annotations

from pathlib import Path

import torch

from adamwprune.data import files, idx
from adamwprune.data.dataset import DataFile, Dataset, DatasetInfo, Split

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")


def read(info: DatasetInfo, data_dir: Path) -> Dataset:
    """Training and test images from ``info.files``: training images, training labels, test images, test labels."""
    contents = files.read(info, data_dir)
    parts = [idx.parse(content, file.path) for content, file in zip(contents, info.files, strict=True)]
    train, test = (
        Split(images=images.unsqueeze(1), labels=labels.to(torch.int64)) for images, labels in (parts[:2], parts[2:])
    )
    return Dataset(name=info.name, train=train, test=test)


def _file(name: str, sha256: str, size: int, sha256_unpacked: str) -> DataFile:
    return DataFile(
        path=f"mnist/{name}.gz",
        urls=tuple(f"{mirror}{name}.gz" for mirror in MIRRORS),
        sha256=sha256,
        size=size,
        also=(f"MNIST/raw/{name}.gz",),
        sha256_unpacked=sha256_unpacked,
    )


FILES = (
    _file(
        "train-images-idx3-ubyte",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        9912422,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    _file(
        "train-labels-idx1-ubyte",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        28881,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    _file(
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        1648877,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    _file(
        "t10k-labels-idx1-ubyte",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        4542,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)

INFO = DatasetInfo(
    name="mnist",
    summary="MNIST, 60,000 and 10,000 handwritten digits of 28x28",
    shape=(1, 28, 28),
    classes=10,
    examples=60000,
    mean=(0.1307,),
    std=(0.3081,),
    shift=2,
    flip=False,
    checksum=files.checksum(FILES),
    read=read,
    files=FILES,
)
