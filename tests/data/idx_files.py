# SPDX-License-Identifier: MIT
"""Tiny idx files and the data set that they make."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from adamwprune.data import DataFile, DatasetInfo, mnist

NAMES = ("train-images", "train-labels", "test-images", "test-labels")


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes in idx form."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays() -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [
        random.randint(0, 256, (30, 28, 28)).astype(np.uint8),
        np.arange(30, dtype=np.uint8) % 10,
        random.randint(0, 256, (10, 28, 28)).astype(np.uint8),
        np.arange(10, dtype=np.uint8),
    ]


def make(urls: tuple[str, ...] = ()) -> tuple[DatasetInfo, dict[str, bytes]]:
    """A data set like MNIST, and the packed content of its files by name."""
    contents, files = {}, []
    for name, array in zip(NAMES, arrays(), strict=True):
        plain = idx(array)
        packed = gzip.compress(plain, mtime=0)
        contents[f"{name}.gz"] = packed
        files.append(
            DataFile(
                path=f"mnist/{name}.gz",
                urls=tuple(f"{url}/{name}.gz" for url in urls),
                sha256=hashlib.sha256(packed).hexdigest(),
                size=len(packed),
                also=(f"MNIST/raw/{name}.gz",),
                sha256_unpacked=hashlib.sha256(plain).hexdigest(),
            )
        )
    return dataclasses.replace(mnist.INFO, files=tuple(files), examples=30), contents


def write(contents: dict[str, bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
