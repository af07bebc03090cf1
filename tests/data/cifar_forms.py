# SPDX-License-Identifier: MIT
"""Tiny CIFAR files in every form: the binary version's records, and pickles as numpy wrote them in 2009."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from adamwprune.data import DatasetInfo, cifar
from adamwprune.data.cifar_files import Layout

IMAGES = {"data_batch_1": 3, "data_batch_2": 3, "train": 6, "test_batch": 4, "test": 4}


def parts(layout: Layout) -> dict[str, np.ndarray]:
    """Random records, the same at each call."""
    random = np.random.RandomState(0)
    return {name: random.randint(0, 10, (IMAGES[name], layout.record)).astype(np.uint8) for name in layout.parts}


def make(classes: int) -> tuple[DatasetInfo, Layout]:
    """A data set like CIFAR-10 or CIFAR-100 with a handful of images."""
    layout = {10: cifar.CIFAR10, 100: cifar.CIFAR100}[classes]
    layout = dataclasses.replace(layout, train={name: "" for name in layout.train if name in IMAGES})
    digests = {name: hashlib.sha256(table.tobytes()).hexdigest() for name, table in parts(layout).items()}
    layout = dataclasses.replace(
        layout,
        train={name: digests[name] for name in layout.train},
        test={name: digests[name] for name in layout.test},
    )
    info = {10: cifar.INFO10, 100: cifar.INFO100}[classes]
    reader = cifar.Reader(layout)
    return (
        dataclasses.replace(info, examples=6, read=reader.read, check=reader.check, digests=reader.digests),
        layout,
    )


def python_batch(table: np.ndarray, layout: Layout, *, dtype: str = "u1", order: str = "C") -> bytes:
    """A batch as Python 2 and the numpy of its time pickled it (protocol 2, byte strings)."""
    count = len(layout.labels)
    data = np.asarray(table[:, count:], order=order)
    out = io.BytesIO()

    def text(value: bytes) -> None:
        out.write(b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + len(value).to_bytes(4, "little"))
        if len(value) >= 256:
            out.write(value)

    def number(value: int) -> None:
        out.write(b"J" + value.to_bytes(4, "little", signed=True))

    out.write(b"\x80\x02}(")
    for column, name in enumerate(layout.labels):
        text(name.encode())
        out.write(b"](")
        for value in table[:, column].tolist():
            number(value)
        out.write(b"e")
    text(b"data")
    out.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n")
    number(0)
    out.write(b"\x85")
    text(b"b")
    out.write(b"tR(")
    number(1)
    number(data.shape[0])
    number(data.shape[1])
    out.write(b"\x86cnumpy\ndtype\n(")
    text(dtype.encode())
    number(0)
    number(1)
    out.write(b"tR(")
    number(3)
    text(b"|")
    out.write(b"NNN")
    number(-1)
    number(-1)
    number(0)
    out.write(b"tb" + (b"\x88" if order == "F" else b"\x89"))
    text(data.tobytes(order="A"))
    out.write(b"tbu.")
    return out.getvalue()


def modern_batch(table: np.ndarray, layout: Layout) -> bytes:
    """A batch as today's Python and numpy pickle it."""
    count = len(layout.labels)
    labels = {name.encode(): table[:, column].tolist() for column, name in enumerate(layout.labels)}
    return pickle.dumps({**labels, b"data": table[:, count:].copy()}, protocol=3)


def write(layout: Layout, data_dir: Path, form: str) -> Path:
    """Lay the files out in one of the four forms; the folder or archive they are in."""
    python, packed = "python" in form, "archive" in form
    folder = layout.python_folder if python else layout.folder
    files = {
        f"{folder}/{name}" + ("" if python else ".bin"): python_batch(table, layout) if python else table.tobytes()
        for name, table in parts(layout).items()
    }
    files[f"{folder}/readme.html"] = b"<html>"
    if not packed:
        for name, content in files.items():
            (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (data_dir / name).write_bytes(content)
        return data_dir / folder
    archive = data_dir / (layout.python_archive if python else layout.archive)
    with tarfile.open(archive, "w:gz") as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    return archive
