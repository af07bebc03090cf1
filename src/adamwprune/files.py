# SPDX-License-Identifier: MIT
"""Files that survive a crash: whole files replaced in one step, and JSON lines that only grow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses in the block names ``path``, also where torch hides it behind an error of its own."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None or cause.errno is None or cause.filename is not None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place: readers see the old or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path), open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name must be on disk too; elsewhere a directory cannot be opened
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_text(path: Path, content: str | bytes) -> Path:
    """Write a text (UTF-8) or bytes atomically, making its folder where it is missing; returns the path."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: file.write(data))
    return path


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError naming the file where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def plain(content: Any) -> Any:
    """``content`` with NaN and infinity as null: JSON has no word for them."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content


class JsonLines:
    """A file of one JSON object a line. ``size`` goes into checkpoints; a resumed run cuts the file back to it."""

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 (closed by close)
        present = self._file.seek(0, os.SEEK_END)
        if present < size:
            self._file.close()
            raise ValueError(f"{path} has {present} bytes, but its checkpoint was written after {size}: it was cut")
        self._file.truncate(size)
        self._file.seek(size)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def append(self, record: dict[str, Any]) -> None:
        """Add one line; it is in the system's hands when this returns."""
        with writing(self._path):
            self._file.write(json.dumps(plain(record), allow_nan=False).encode() + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """Wait until all lines are on disk; a checkpoint that counts on them must be written after this."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
