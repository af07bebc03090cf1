# SPDX-License-Identifier: MIT
"""A data set's files on disk: found where tools leave them, verified, read."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adamwprune.data.dataset import DataError, DataFile, SourceInfo


def checksum(files: Sequence[DataFile]) -> str:
    """What identifies the content of ``files``, packed or not."""
    return hashlib.sha256("\n".join(file.sha256_unpacked or file.sha256 for file in files).encode()).hexdigest()


def candidates(file: DataFile) -> list[tuple[str, str, bool]]:
    """Where a file may lie: path under the data folder, expected checksum, and whether it is the unpacked form."""
    paths = (file.path, *file.also)
    found = [(path, file.sha256, False) for path in paths]
    if file.sha256_unpacked is not None:
        found += [(path.removesuffix(".gz"), file.sha256_unpacked, True) for path in paths]
    return found


def read(info: SourceInfo, data_dir: Path) -> list[bytes]:
    """The unpacked content of each file, checksums verified; DataError lists every file that is missing or wrong."""
    contents: list[bytes] = []
    problems: list[str] = []
    for file in info.files:
        content = _read_one(file, data_dir)
        if isinstance(content, bytes):
            contents.append(content)
        else:
            problems.append(content.reason)
    if problems:
        raise DataError(explain(info, data_dir, problems))
    return contents


def problems(info: SourceInfo, data_dir: Path) -> dict[str, str]:
    """What is wrong, by path, with each file that cannot be used as it is."""
    if info.check is not None:
        return info.check(info, data_dir)
    results = {file.path: _read_one(file, data_dir) for file in info.files}
    return {path: result.reason for path, result in results.items() if isinstance(result, _Unusable)}


def explain(info: SourceInfo, data_dir: Path, reasons: Sequence[str]) -> str:
    """One message with everything a person needs to get the files there."""
    listing = "\n".join(
        f"  {data_dir / file.path}\n    {file.size} bytes, sha256 {file.sha256}\n    from {' or '.join(file.urls)}"
        for file in info.files
    )
    return (
        f"the files of data set {info.name!r} cannot be used:\n  "
        + "\n  ".join(reasons)
        + f"\nRun `adamwprune data fetch {info.name} --data-dir {data_dir}`, or put these files there:\n{listing}"
    )


@dataclass(frozen=True, slots=True)
class _Unusable:
    reason: str


def _read_one(file: DataFile, data_dir: Path) -> bytes | _Unusable:
    for path, expected, unpacked in candidates(file):
        full = data_dir / path
        if not full.is_file():
            continue
        try:
            content = full.read_bytes()
        except OSError as error:
            return _Unusable(f"{full} cannot be read: {error}")
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            return _Unusable(f"{full} is corrupt: sha256 {found}, expected {expected}")
        return content if unpacked or not path.endswith(".gz") else gzip.decompress(content)
    return _Unusable(f"{data_dir / file.path} is missing (expected sha256 {file.sha256})")
