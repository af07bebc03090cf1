# SPDX-License-Identifier: MIT
"""The texts that are registered, each against its source."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import sysconfig
from pathlib import Path

import pytest

from adamwprune import data
from adamwprune.data import (
    DATASETS,
    DataError,
    DatasetInfo,
    StreamInfo,
    TokenInfo,
    Tokens,
    cifar,
    fetch,
    shakespeare,
    stdlib,
)


def text(tokens: Tokens) -> bytes:
    return bytes(tokens.ids.tolist())


def test_the_library_is_itself() -> None:
    loaded = data.load_text("stdlib", "unused")
    train, test = (text(tokens).split(b"\0") for tokens in (loaded.train, loaded.test))
    assert train.pop() == test.pop() == b"", "each source ends with the byte that none holds"
    root = Path(sysconfig.get_path("stdlib"))
    for name in ("dataclasses.py", "json/decoder.py", "asyncio/events.py", "typing.py", "textwrap.py"):
        source = (root / name).read_bytes()
        assert train.count(source) + test.count(source) == 1, name
    assert 0.03 < sum(map(len, test)) / sum(map(len, train)) < 0.25
    assert len(train) > 300
    for source in test[:5]:
        ast.parse(source)
    assert loaded.vocabulary == 256
    digest = hashlib.sha256(hashlib.sha256(text(loaded.train)).digest() + hashlib.sha256(text(loaded.test)).digest())
    assert data.checksum("stdlib", "unused") == digest.hexdigest()
    assert fetch.verify("stdlib", "unused") == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dataclasses.py", True),
        ("json/decoder.py", True),
        ("test/test_json.py", False),
        ("unittest/test/test_case.py", False),
        ("site-packages/torch/nn/functional.py", False),
        ("_sysconfigdata__linux_x86_64-linux-gnu.py", False),
        ("idlelib/run.py", False),
    ],
)
def test_what_belongs_to_the_library(name: str, expected: bool) -> None:
    assert stdlib._is_source(name) == expected


def test_without_sources_nothing_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="needs Python's own sources"):
        stdlib._texts.__wrapped__()


def tiny_play(content: bytes) -> TokenInfo:
    file = dataclasses.replace(shakespeare.FILE, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return dataclasses.replace(shakespeare.INFO, files=(file,))


@pytest.mark.parametrize("folder", ["shakespeare", "shakespeare_char"])
def test_a_play_in_characters(tmp_path: Path, folder: str) -> None:
    content = b"First Citizen:\nBefore we proceed any further, hear me speak.\n"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "input.txt").write_bytes(content)
    info = tiny_play(content)
    loaded = info.read(info, tmp_path)
    characters = sorted(set(content.decode()))
    whole = [*loaded.train.ids.tolist(), *loaded.test.ids.tolist()]
    assert "".join(characters[number] for number in whole) == content.decode()
    assert loaded.vocabulary == len(characters)
    assert len(loaded.train) == int(0.9 * len(content))
    (tmp_path / folder / "input.txt").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"input\.txt is corrupt"):
        info.read(info, tmp_path)


def test_images_and_text_are_told_apart() -> None:
    kinds = {name: type(info) for name, info in DATASETS.items()}
    assert set(kinds.values()) == {DatasetInfo, TokenInfo, StreamInfo}
    lookups = {DatasetInfo: data.images, TokenInfo: data.text, StreamInfo: data.stream}
    for name, kind in kinds.items():
        assert lookups[kind](name) is DATASETS[name]
        wrong = lookups[TokenInfo if kind is DatasetInfo else DatasetInfo]
        with pytest.raises(ValueError, match=f"'{name}' holds .*: expected .*, one of"):
            wrong(name)
    ready = [name for name, info in DATASETS.items() if info.check in (None, cifar.INFO10.check, cifar.INFO100.check)]
    assert len({data.checksum(name, "unused") for name in ready}) == len(ready)
