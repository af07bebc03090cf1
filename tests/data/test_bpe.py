# SPDX-License-Identifier: MIT
"""The encoder against merging by hand, with each package that may be installed."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bpe
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.data import DataError, bpe, shakespeare

PACKAGES = {"tiktoken": bpe._tiktoken, "tokenizers": bpe._tokenizers}
TEXT = st.text(st.sampled_from("the ring a\n\t é.'s12日Q_"), max_size=60)


@pytest.mark.parametrize("package", PACKAGES)
def test_against_merging_by_hand(package: str) -> None:
    pytest.importorskip(package)
    encode = PACKAGES[package](small_bpe.IDS, small_bpe.LIST)

    @given(texts=st.lists(TEXT, max_size=4))
    def check(texts: list[str]) -> None:
        found = encode(texts)
        assert [ids.tolist() for ids in found] == [small_bpe.encode(text) for text in texts]
        assert all(ids.dtype == np.uint16 for ids in found)

    check()


@given(text=st.text(max_size=50))
def test_bytes_are_tokens(text: str) -> None:
    [ids] = bpe.BYTES.encode([text])
    assert bytes(ids.tolist()) == text.encode()
    assert ids.dtype == np.uint16
    assert bpe.BYTES.end == bpe.BYTES.vocabulary - 1 == 256


def test_what_an_encoder_says_of_itself() -> None:
    pytest.importorskip("tiktoken")
    encoder = bpe.make("small", small_bpe.VOCABULARY, small_bpe.LIST)
    assert (encoder.name, encoder.vocabulary, encoder.end) == ("small", 267, 266)


def test_files_of_different_encodings() -> None:
    pytest.importorskip("tiktoken")
    ids = {**small_bpe.IDS, "th": 257, "the": 256}
    with pytest.raises(DataError, match="do not belong together"):
        bpe.make("small", json.dumps(ids), small_bpe.LIST)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_either_package_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    without(monkeypatch, "tiktoken")
    [ids] = bpe.make("small", small_bpe.VOCABULARY, small_bpe.LIST).encode(["the ring"])
    assert ids.tolist() == small_bpe.encode("the ring")
    without(monkeypatch, "tiktoken", "tokenizers")
    with pytest.raises(DataError, match=r"pip install 'adamwprune\[lm\]'"):
        bpe.make("small", small_bpe.VOCABULARY, small_bpe.LIST)


def test_a_play_in_gpt2_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tiktoken")
    play = "First Citizen:\nBefore we proceed any further, hear the thing.\n\nAll: the rest"
    small_bpe.write(tmp_path)
    monkeypatch.setattr(bpe, "SOURCE", dataclasses.replace(bpe.SOURCE, files=small_bpe.entries()))
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare/input.txt").write_text(play)
    file = dataclasses.replace(shakespeare.FILE, sha256=hashlib.sha256(play.encode()).hexdigest(), size=len(play))
    info = dataclasses.replace(shakespeare.INFO_BPE, files=(file, *small_bpe.entries()))
    loaded = info.read(info, tmp_path)
    cut = int(0.9 * len(play))
    assert loaded.train.ids.tolist() == small_bpe.encode(play[:cut])
    assert loaded.test.ids.tolist() == small_bpe.encode(play[cut:])
    assert loaded.vocabulary == 267
