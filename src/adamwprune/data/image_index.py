# SPDX-License-Identifier: MIT
"""Where each image of a large data set lies: in a folder of its class, or in a tar shard of the webdataset form.

Shards are indexed once by their headers. With the index every image can be read on its own, so that the order of an
epoch is free and a run goes on at any image without reading what came before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamwprune.data.dataset import DataError
from adamwprune.files import write_atomic

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".ppm")
#: Files of a sample that say its class, the first of them before the second: a number, or JSON with a field ``label``.
LABELS = (".cls", ".json")

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """Images in the order of their names."""

    #: Files as they are opened; in folders, one an image.
    files: list[Path]
    #: For each image: its file, where it begins there, its bytes (-1: all), and its class.
    file: Numbers
    offset: Numbers
    size: Numbers
    label: Numbers
    #: Identifies names and classes.
    checksum: str

    def __len__(self) -> int:
        return len(self.label)

    def read(self, number: int) -> bytes:
        """The packed content of an image."""
        with open(self.files[self.file[number]], "rb") as file:
            file.seek(int(self.offset[number]))
            return file.read(int(self.size[number]))

    def name(self, number: int) -> str:
        """An image in words."""
        path = self.files[self.file[number]]
        return str(path) if self.size[number] < 0 else f"{path} at byte {self.offset[number]}"


def classes(root: Path) -> list[str]:
    """A folder's classes: the folders in it, hidden ones aside, in the order of their names."""
    return sorted(entry.name for entry in _shown(root) if entry.is_dir())


def from_folders(root: Path) -> Index:
    """An image a file, in a folder named for its class; classes are numbered as :func:`classes` has them."""
    files, labels = [], []
    for label, name in enumerate(classes(root)):
        found = sorted(entry.name for entry in _shown(root / name) if entry.name.lower().endswith(IMAGES))
        files += [root / name / image for image in found]
        labels += [label] * len(found)
    if not files:
        raise DataError(f"no images in {root}: expected a folder for each class, with files that end in {IMAGES}")
    names = "\n".join(f"{path.parent.name}/{path.name}" for path in files)
    count = len(files)
    return Index(
        files=files,
        file=np.arange(count),
        offset=np.zeros(count, np.int64),
        size=np.full(count, -1, np.int64),
        label=np.array(labels, np.int64),
        checksum=hashlib.sha256(names.encode()).hexdigest(),
    )


def _shown(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, without what tools hide there (``.ipynb_checkpoints``, ``._photo.jpg``)."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def from_shards(shards: Sequence[Path], cache: Path | None = None) -> Index:
    """Images in tar shards, each beside its class; what was read of the headers is kept in ``cache``."""
    state = json.dumps([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in shards])
    table, checksum = _cached(cache, state) or (None, "")
    if table is None:
        rows, names = [], hashlib.sha256()
        for number, path in enumerate(shards):
            for key, offset, size, label in _members(path):
                rows.append((number, offset, size, label))
                names.update(f"{path.name}/{key} {label}\n".encode())
        if not rows:
            raise DataError(f"no images in {len(shards)} shards, of which the first is {shards[0]}")
        table, checksum = np.array(rows, np.int64).T.copy(), names.hexdigest()
        if cache is not None:
            content = {"state": np.array(state), "table": table, "checksum": np.array(checksum)}
            with contextlib.suppress(OSError):  # shards may lie where nothing can be written
                write_atomic(cache, lambda file: np.savez(file, **content))  # type: ignore[arg-type]
    file, offset, size, label = table
    return Index(files=list(shards), file=file, offset=offset, size=size, label=label, checksum=checksum)


def _cached(cache: Path | None, state: str) -> tuple[Numbers, str] | None:
    """Table and checksum, if they are of these very shards."""
    if cache is None or not cache.is_file():
        return None
    try:
        with np.load(cache, allow_pickle=False) as content:
            return (content["table"], str(content["checksum"])) if str(content["state"]) == state else None
    except Exception:  # whatever numpy meets in a damaged file: it is made again
        return None


def _members(shard: Path) -> list[tuple[str, int, int, int]]:
    """Key, offset, size and class of each image in a shard."""
    places: dict[str, tuple[int, int]] = {}
    said: dict[str, tuple[str, bytes]] = {}
    try:
        with tarfile.open(shard, "r:") as members:
            for member in members:
                key, suffix = os.path.splitext(member.name)
                if suffix.lower() in IMAGES:
                    places[key] = (member.offset_data, member.size)
                elif suffix.lower() in LABELS and (key not in said or suffix.lower() == LABELS[0]):
                    stream = members.extractfile(member)
                    said[key] = suffix.lower(), stream.read() if stream else b""
        labels = {key: _label(content, suffix) for key, (suffix, content) in said.items() if key in places}
        size = shard.stat().st_size
        if any(offset + length > size for offset, length in places.values()):
            raise tarfile.ReadError("it ends inside an image")
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shard} is no webdataset shard, or a truncated one: {error}") from error
    if lost := places.keys() - labels.keys():
        raise DataError(f"{shard}: {len(lost)} images have no class beside them ({' or '.join(LABELS)}): {min(lost)}")
    return [(key, *place, labels[key]) for key, place in places.items()]


def _label(content: bytes, suffix: str) -> int:
    return int(json.loads(content)["label"] if suffix == ".json" else content)
