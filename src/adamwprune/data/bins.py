# SPDX-License-Identifier: MIT
"""Texts prepared once: little-endian uint16 ids in ``train.bin`` and ``val.bin`` (nanoGPT's form), and a manifest.

The manifest says what the files hold and is written last: a folder without one is not prepared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adamwprune.data.dataset import DataError, TokenData, TokenInfo
from adamwprune.data.tokens import Tokens
from adamwprune.files import read_json, write_json

SCHEMA = 1
SPLITS = {"train": "train.bin", "test": "val.bin"}
CHUNK = 1 << 22


def read(info: TokenInfo, data_dir: Path) -> TokenData:
    """The prepared text as mapped files, which are read where they are needed; sizes are checked, checksums are not."""
    folder = data_dir / info.name
    manifest = load(info.name, folder)
    parts = {}
    for split, name in SPLITS.items():
        reason = _misfit(folder / name, manifest["splits"][split], manifest["vocabulary"])
        if reason:
            raise DataError(f"{reason}\n{_how(info.name)}")
        parts[split] = _map(folder / name)
    return TokenData(name=info.name, train=parts["train"], test=parts["test"], vocabulary=manifest["vocabulary"])


def identify(info: TokenInfo, data_dir: Path) -> str:
    """The checksums of both files and the vocabulary, as the manifest has them."""
    manifest = load(info.name, data_dir / info.name)
    content = [manifest["vocabulary"], *(manifest["splits"][split]["sha256"] for split in SPLITS)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def check(info: TokenInfo, data_dir: Path, *, every_byte: bool = False) -> dict[str, str]:
    """What is wrong, by path; checksums are only looked at if ``every_byte`` is to be read."""
    folder = data_dir / info.name
    try:
        manifest = load(info.name, folder)
    except DataError as error:
        return {f"{info.name}/manifest.json": str(error)}
    problems = {}
    for split, name in SPLITS.items():
        said = manifest["splits"][split]
        reason = _misfit(folder / name, said, manifest["vocabulary"])
        if not reason and every_byte and (found := describe(folder / name)["sha256"]) != said["sha256"]:
            reason = f"{folder / name} is corrupt: sha256 {found}, expected {said['sha256']}"
        if reason:
            problems[f"{info.name}/{name}"] = reason
    return problems


def check_bytes(info: TokenInfo, data_dir: Path) -> dict[str, str]:
    """What is wrong, by path, every byte read."""
    return check(info, data_dir, every_byte=True)


def load(name: str, folder: Path) -> dict[str, Any]:
    """The manifest of a prepared text."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(f"the text {name!r} is not prepared: there is no {path}\n{_how(name)}")
    content = read_json(path)
    try:
        known = content["schema"] == SCHEMA and isinstance(content["vocabulary"], int)
        whole = all({"tokens", "largest", "sha256"} <= content["splits"][split].keys() for split in SPLITS)
    except (KeyError, TypeError, AttributeError):
        known = whole = False
    if not known or not whole:
        raise DataError(f"{path} is no manifest of schema {SCHEMA}\n{_how(name)}")
    manifest: dict[str, Any] = content
    return manifest


def survey(folder: Path, vocabulary: int) -> dict[str, dict[str, Any]]:
    """What the file of each split holds; DataError where they are no text of such a vocabulary."""
    for file in SPLITS.values():
        if not (folder / file).is_file():
            raise DataError(f"{folder / file} is missing")
    splits = {}
    for split, file in SPLITS.items():
        splits[split] = {"file": file, **describe(folder / file)}
        if reason := _misfit(folder / file, splits[split], vocabulary):
            raise DataError(reason)
    return splits


def save(
    name: str, folder: Path, vocabulary: int, source: dict[str, Any], splits: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write the manifest, which makes ``folder`` a prepared text, of what :func:`survey` found."""
    manifest = {"schema": SCHEMA, "name": name, "vocabulary": vocabulary, "source": source, "splits": splits}
    write_json(folder / "manifest.json", manifest)
    return manifest


def describe(path: Path) -> dict[str, Any]:
    """Tokens, largest id and sha256 of a file, read piece by piece."""
    if path.stat().st_size % 2:
        raise DataError(f"{path} has {path.stat().st_size} bytes, which is no number of 16-bit ids")
    digest, tokens, largest = hashlib.sha256(), 0, -1
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            ids = np.frombuffer(piece, "<u2")
            tokens += len(ids)
            largest = max(largest, int(ids.max()))
    return {"tokens": tokens, "largest": largest, "sha256": digest.hexdigest()}


def _map(path: Path) -> Tokens:
    return Tokens(torch.from_file(str(path), shared=False, size=path.stat().st_size // 2, dtype=torch.int16))


def _misfit(path: Path, said: dict[str, Any], vocabulary: int) -> str | None:
    """Why a file cannot be what the manifest says of it; None where it can."""
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != 2 * said["tokens"]:
        return f"{path} has {size} bytes, expected {2 * said['tokens']}, two for each of {said['tokens']} tokens"
    if not said["tokens"]:
        return f"{path} is empty"
    if said["largest"] >= vocabulary:
        return f"{path} holds the id {said['largest']}, beyond its vocabulary of {vocabulary}"
    return None


def _how(name: str) -> str:
    return f"Run `adamwprune data prepare {name}`; its --help says from what."
