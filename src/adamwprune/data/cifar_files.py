# SPDX-License-Identifier: MIT
"""CIFAR's files in every form that people have them: packed or unpacked, the binary or the python version.

Each form is read as the binary version's records (labels, then the red, green and blue planes), so that one set of
checksums serves them all.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adamwprune.data import python_batches

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where a CIFAR data set's files lie, and what its records hold."""

    #: Parts as the python version names them, with the sha256 of their records.
    train: dict[str, str]
    test: dict[str, str]
    #: Labels before each image, as the python version names them; the last one is the class.
    labels: tuple[str, ...]
    archive: str
    folder: str
    python_archive: str
    python_folder: str

    @property
    def parts(self) -> dict[str, str]:
        """Every part, training first."""
        return self.train | self.test

    @property
    def record(self) -> int:
        """Bytes of an image with its labels."""
        return len(self.labels) + PIXELS


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a data set that is there: a folder or an archive of the binary or the python version."""

    layout: Layout
    place: Path
    python: bool

    def parts(self) -> dict[str, bytes]:
        """The records of each part; ValueError naming the place where a part is missing or is not what it should be."""
        folder = self.layout.python_folder if self.python else self.layout.folder
        suffix = "" if self.python else ".bin"
        names = {f"{folder}/{part}{suffix}": part for part in self.layout.parts}
        content = _packed(self.place, set(names)) if self.place.is_file() else _unpacked(self.place, set(names))
        if missing := names.keys() - content.keys():
            raise ValueError(f"{self.place} lacks {', '.join(sorted(missing))}")
        return {part: self._records(name, content[name]) for name, part in names.items()}

    def _records(self, name: str, content: bytes) -> bytes:
        try:
            if self.python:
                return python_batches.records(content, self.layout.labels, PIXELS)
            if not content or len(content) % self.layout.record:
                raise ValueError(
                    f"it has {len(content)} bytes, which is no number of {self.layout.record}-byte records"
                )
        except ValueError as error:
            raise ValueError(f"{self.place}: {name} is no CIFAR file, or a truncated one: {error}") from error
        return content


def forms(layout: Layout, data_dir: Path) -> Iterator[Form]:
    """Each form that is there, the one that is fastest to read first."""
    for name, python in (
        (layout.folder, False),
        (layout.archive, False),
        (layout.python_folder, True),
        (layout.python_archive, True),
    ):
        if (data_dir / name).exists():
            yield Form(layout, data_dir / name, python)


def _unpacked(folder: Path, names: set[str]) -> dict[str, bytes]:
    paths = {name: folder.parent / name for name in names}
    try:
        return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error


def _packed(archive: Path, names: set[str]) -> dict[str, bytes]:
    """Members of an archive, read in its order; nothing is unpacked to the disk."""
    found = {}
    try:
        with tarfile.open(archive, "r:*") as members:
            for member in members:
                name = member.name.removeprefix("./")
                stream = members.extractfile(member) if name in names else None
                if stream is not None:
                    found[name] = stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"{archive} is no archive, or a truncated one of {archive.stat().st_size} bytes: {error}"
        ) from error
    return found
