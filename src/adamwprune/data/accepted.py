# SPDX-License-Identifier: MIT
"""Files that a person has accepted although they differ from the canonical ones.

Such a data set is another one: the checksums that were accepted go into the identity of every run on it.
"""

from __future__ import annotations

from pathlib import Path

from adamwprune.files import read_json, write_json


def path(name: str, data_dir: Path) -> Path:
    """Where the accepted checksums of a data set are kept."""
    return data_dir / f"{name}.accepted.json"


def read(name: str, data_dir: Path) -> dict[str, str]:
    """Accepted checksums by part; empty where nothing was accepted."""
    file = path(name, data_dir)
    if not file.is_file():
        return {}
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f"{file} must hold one checksum for each part; delete it and accept the files again")
    return content


def write(name: str, data_dir: Path, digests: dict[str, str]) -> None:
    """Accept parts by their checksums, in place of what was accepted before."""
    write_json(path(name, data_dir), digests)
