# SPDX-License-Identifier: MIT
"""Texts from documents to mapped files: what is written, what is refused, and what a crash leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune import data
from adamwprune.data import DATASETS, DataError, bins, bpe, corpora, documents, fetch, writing

INFO = DATASETS["text"]


def ids(path: Path) -> list[int]:
    return np.fromfile(path, "<u2").tolist()


def joined(texts: list[str]) -> list[int]:
    return [number for text in texts for number in (*text.encode(), 256)]


def prepare(tmp_path: Path, texts: list[str], **options: object) -> dict[str, object]:
    return writing.prepare("text", tmp_path, [[text] for text in texts], bpe.BYTES, **options)  # type: ignore[arg-type]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    texts = [f"document {number} with some words" for number in range(25)]
    seen = []
    manifest = prepare(tmp_path, texts, test_share=0.1, progress=lambda *counts: seen.append(counts))
    held = [text for number, text in enumerate(texts) if number % 10 == 9]
    kept = [text for text in texts if text not in held]
    loaded = data.load_text("text", tmp_path)
    assert loaded.vocabulary == 257
    for tokens, expected, name in ((loaded.train, kept, "train"), (loaded.test, held, "val")):
        assert (tokens.take(torch.arange(len(tokens)))).tolist() == joined(expected)
        assert ids(tmp_path / f"text/{name}.bin") == joined(expected)
    content = (tmp_path / "text/train.bin").read_bytes()
    assert manifest == json.loads((tmp_path / "text/manifest.json").read_text())
    assert manifest["splits"]["train"] == {  # type: ignore[index]
        "file": "train.bin",
        "tokens": len(content) // 2,
        "largest": 256,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert seen[-1] == (25, len(loaded.train) + len(loaded.test))
    assert sorted(path.name for path in (tmp_path / "text").iterdir()) == ["manifest.json", "train.bin", "val.bin"]
    assert fetch.verify("text", tmp_path) == {}
    fetch.ensure("text", tmp_path)


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [["one ", "two ", "three"], [], ["four"], ["five ", "six"], ["seven"] * 9]
    for size in (1, 7, 10**6):
        monkeypatch.setattr(writing, "BATCH", size)
        writing.prepare("text", tmp_path, parts, bpe.BYTES, test_share=0.5)
        assert ids(tmp_path / "text/train.bin") == joined(["one two three", "four", "seven" * 9])
        assert ids(tmp_path / "text/val.bin") == joined(["five six"])


@given(share=st.floats(0.001, 0.999), count=st.integers(2, 300))
def test_the_share_for_testing_is_kept(tmp_path_factory: pytest.TempPathFactory, share: float, count: int) -> None:
    folder = tmp_path_factory.mktemp("share")
    prepare(folder, ["x"] * count, test_share=share)
    kept, held = (len(ids(folder / f"text/{name}.bin")) / 2 for name in ("train", "val"))
    assert kept + held == count
    assert abs(held - share * count) <= 1


@pytest.mark.parametrize("every", [2, 3, 10, 100, 200])
def test_of_a_share_of_one_in_so_many_each_so_many_th_is_for_testing(tmp_path: Path, every: int) -> None:
    texts = [str(number) for number in range(1000)]
    prepare(tmp_path, texts, test_share=1 / every)
    assert ids(tmp_path / "text/val.bin") == joined(texts[every - 1 :: every])


def test_one_document_is_cut_for_testing(tmp_path: Path) -> None:
    text = "x" * 500 + "y" * 499
    prepare(tmp_path, [text], test_share=0.1)
    assert ids(tmp_path / "text/train.bin") == joined([text])[:900]
    assert ids(tmp_path / "text/val.bin") == joined([text])[900:]


@given(limit=st.integers(1, 120))
def test_a_limit_ends_with_a_document(tmp_path_factory: pytest.TempPathFactory, limit: int) -> None:
    folder = tmp_path_factory.mktemp("limit")
    prepare(folder, ["abcdefghi"] * 10, test_share=0.5, max_tokens=limit)
    total = sum(len(ids(folder / f"text/{name}.bin")) for name in ("train", "val"))
    assert total == min(100, 10 * -(-limit // 10))


def test_a_crash_leaves_what_was_there(tmp_path: Path) -> None:
    prepare(tmp_path, ["old text"] * 4, test_share=0.5)
    before = data.checksum("text", tmp_path)

    def broken() -> object:
        yield ["new text"]
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        writing.prepare("text", tmp_path, broken(), bpe.BYTES)  # type: ignore[arg-type]
    assert data.checksum("text", tmp_path) == before
    assert fetch.verify("text", tmp_path) == {}
    assert not list((tmp_path / "text").glob(".*"))
    prepare(tmp_path, ["new text"] * 4, test_share=0.5)
    assert data.checksum("text", tmp_path) != before


@pytest.mark.parametrize("texts", [[], [""]])
def test_nothing_is_no_text(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(DataError, match="too little text"):
        prepare(tmp_path, texts)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_for_testing_is_a_share(tmp_path: Path, share: float) -> None:
    with pytest.raises(ValueError, match=f"test_share={share} must lie between 0 and 1"):
        prepare(tmp_path, ["text"], test_share=share)


def refused(tmp_path: Path, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        data.load_text("text", tmp_path)
    assert any(fetch.verify("text", tmp_path).values())
    with pytest.raises(DataError, match=expected):
        fetch.ensure("text", tmp_path)


def test_files_that_are_not_what_the_manifest_says(tmp_path: Path) -> None:
    refused(tmp_path, "'text' is not prepared: there is no .*manifest.json\nRun `adamwprune data prepare text`")
    prepare(tmp_path, ["some text"] * 4, test_share=0.5)
    folder = tmp_path / "text"
    whole, manifest = (folder / "val.bin").read_bytes(), (folder / "manifest.json").read_text()
    (folder / "val.bin").write_bytes(whole[:-1])
    refused(tmp_path, r"val\.bin has 39 bytes, expected 40, two for each of 20 tokens")
    (folder / "val.bin").unlink()
    refused(tmp_path, r"val\.bin is missing")
    (folder / "val.bin").write_bytes(whole)
    (folder / "manifest.json").write_text(manifest.replace('"vocabulary": 257', '"vocabulary": 256'))
    refused(tmp_path, "holds the id 256, beyond its vocabulary of 256")
    for text in (manifest.replace('"schema": 1', '"schema": 9'), "[]", '{"schema": 1, "vocabulary": 257}'):
        (folder / "manifest.json").write_text(text)
        refused(tmp_path, "is no manifest of schema 1")
    (folder / "manifest.json").write_text(manifest)
    (folder / "val.bin").write_bytes(whole[:-2] + b"\0\0")
    [reason] = fetch.verify("text", tmp_path).values()
    assert "val.bin is corrupt: sha256" in reason


def write_bins(folder: Path, train: list[int], val: list[int], extra: bytes = b"") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "train.bin").write_bytes(np.array(train, "<u2").tobytes() + extra)
    (folder / "val.bin").write_bytes(np.array(val, "<u2").tobytes())


def test_files_of_another_tool_are_adopted(tmp_path: Path) -> None:
    write_bins(tmp_path / "nano", [1, 50256, 65], [2, 3])
    corpora.prepare("text", tmp_path / "data", [tmp_path / "nano"])
    loaded = data.load_text("text", tmp_path / "data")
    assert loaded.train.take(torch.arange(3)).tolist() == [1, 50256, 65]
    assert (len(loaded.test), loaded.vocabulary) == (2, 50257)
    corpora.prepare("text", tmp_path / "data", [tmp_path / "data/text"])
    assert fetch.verify("text", tmp_path / "data") == {}
    write_bins(tmp_path / "nano", [1, 60000], [2, 3])
    with pytest.raises(DataError, match="holds the id 60000, beyond its vocabulary of 50257"):
        corpora.prepare("text", tmp_path / "other", [tmp_path / "nano"])
    write_bins(tmp_path / "nano", [1], [2, 3], extra=b"\0")
    with pytest.raises(DataError, match="has 3 bytes, which is no number of 16-bit ids"):
        corpora.prepare("text", tmp_path / "other", [tmp_path / "nano"])
    write_bins(tmp_path / "nano", [1], [])
    with pytest.raises(DataError, match=r"val\.bin is empty"):
        corpora.prepare("text", tmp_path / "other", [tmp_path / "nano"])
    (tmp_path / "nano/val.bin").unlink()
    with pytest.raises(DataError, match=r"val\.bin is missing"):
        corpora.prepare("text", tmp_path / "other", [tmp_path / "nano"])


@pytest.mark.parametrize("damage", ["id", "bytes", "empty", "missing"])
def test_files_that_are_not_adopted_leave_what_was_there(tmp_path: Path, damage: str) -> None:
    prepare(tmp_path, ["old text"] * 4, test_share=0.5)
    held = {path.name: path.read_bytes() for path in (tmp_path / "text").iterdir()}
    nano = tmp_path / "nano"
    write_bins(nano, [1], [60000] if damage == "id" else [] if damage == "empty" else [2], extra=b"")
    if damage == "bytes":
        (nano / "val.bin").write_bytes(b"abc")
    if damage == "missing":
        (nano / "val.bin").unlink()
    with pytest.raises(DataError, match=r"val\.bin"):
        corpora.prepare("text", tmp_path, [nano])
    assert {path.name: path.read_bytes() for path in (tmp_path / "text").iterdir()} == held
    write_bins(nano, [1], [2])
    corpora.prepare("text", tmp_path, [nano])
    assert fetch.verify("text", tmp_path) == {}
    assert ids(tmp_path / "text/val.bin") == [2]
    assert len(list((tmp_path / "text").iterdir())) == 3


def test_a_folder_of_text(tmp_path: Path) -> None:
    source = tmp_path / "notes"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("first")
    (source / "deep/b.md").write_text("second é")
    (source / "c.png").write_bytes(b"\x89PNG")
    manifest = corpora.prepare("text", tmp_path, [source], tokenizer="bytes", test_share=0.5)
    found = ids(tmp_path / "text/train.bin") + ids(tmp_path / "text/val.bin")
    assert sorted(found) == sorted(joined(["first", "second é"]))
    assert manifest["source"]["documents"] == 2
    (source / "d.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"d\.txt is not UTF-8"):
        corpora.prepare("text", tmp_path, [source], tokenizer="bytes")


def test_text_beside_parquet_files_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.parquet").write_bytes(b"")
    (tmp_path / "deep/README.md").write_text("what it is")
    for sources in ([tmp_path], [tmp_path / "a.txt", tmp_path / "deep"], [tmp_path / "deep/b.parquet", tmp_path]):
        with pytest.raises(DataError, match=r"b\.parquet is Parquet and .*a\.txt is text: name the files or folders"):
            corpora.prepare("text", tmp_path, sources, tokenizer="bytes")
    corpora.prepare("text", tmp_path, [tmp_path / "a.txt"], tokenizer="bytes")
    # The README is passed over, and the table is empty, or there is nothing to read it with.
    with pytest.raises(DataError, match=r"b\.parquet|Parquet files need pyarrow"):
        corpora.prepare("text", tmp_path, [tmp_path / "deep"], tokenizer="bytes")


def test_what_is_no_source(tmp_path: Path) -> None:
    for arguments, expected in (
        (("text", tmp_path, [tmp_path / "none"]), "none: no such file or folder"),
        (("text", tmp_path, [tmp_path]), "no text in"),
        (("text", tmp_path, []), "say from what 'text' is prepared"),
        (("stdlib", tmp_path, []), "data set 'stdlib' is not prepared: that is for text, openwebtext, fineweb-edu"),
    ):
        with pytest.raises(ValueError, match=expected):
            corpora.prepare(*arguments, tokenizer="bytes")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="unknown tokenizer 'words': expected gpt2 or bytes"):
        corpora.prepare("text", tmp_path, [tmp_path], tokenizer="words")


#: Every kind of character that the words of GPT-2 and the spaces of Python tell apart.
KINDS = "as1.'é字\n\r \t\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u200b\u2028\u3000"
SPACED = st.text(st.sampled_from(KINDS), max_size=80)


@given(text=SPACED, size=st.integers(1, 20))
def test_pieces_are_cut_at_the_last_space_before_something_else(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "piece.txt"
    path.write_bytes(text.encode())
    found = list(documents.pieces(path, size))
    assert "".join(found) == text
    assert all(found)
    for after in found[1:]:
        assert after[0].isspace()
        assert not after[1].isspace()


@pytest.mark.parametrize("package", ["tiktoken", "tokenizers"])
def test_pieces_encode_like_the_whole(tmp_path_factory: pytest.TempPathFactory, package: str) -> None:
    """Any two bytes in one word become a token, so that a cut inside a word shows."""
    pytest.importorskip(package)
    symbols = {byte: symbol for symbol, byte in bpe.alphabet().items()}
    used = [symbols[byte] for byte in sorted(set(KINDS.encode()))]
    pairs = list(itertools.product(used, used))
    names = [*bpe.alphabet(), *(first + second for first, second in pairs), bpe.END]
    merges = "".join(f"{first} {second}\n" for first, second in pairs)
    encode = getattr(bpe, f"_{package}")({name: number for number, name in enumerate(names)}, merges)
    path = tmp_path_factory.getbasetemp() / "text.txt"

    @given(text=SPACED, size=st.integers(1, 30))
    def check(text: str, size: int) -> None:
        path.write_bytes(text.encode())
        found = encode(list(documents.pieces(path, size)))
        assert [number for part in found for number in part.tolist()] == encode([text])[0].tolist()

    check()


@pytest.mark.parametrize("line", ["some words\r\n", "paragraph\n\n", "\u3000字字\n", "a  b\t\tc", "word "])
def test_pieces_stay_small(tmp_path: Path, line: str) -> None:
    (tmp_path / "text.txt").write_bytes((line * 500).encode())
    found = [len(piece) for piece in documents.pieces(tmp_path / "text.txt", 100)]
    assert max(found) < 100 + len(line)


def test_text_without_a_space_is_one_piece(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x" * 1000)
    assert list(documents.pieces(tmp_path / "text.txt", 10)) == ["x" * 1000]


@given(count=st.integers(0, 60), size=st.integers(1, 20), seed=st.integers(0, 5))
def test_a_buffer_mixes_what_it_holds(count: int, size: int, seed: int) -> None:
    plain = [[str(number)] for number in range(count)]
    mixed = list(documents.shuffled(plain, size, seed))
    assert sorted(mixed) == sorted(plain)
    assert mixed == list(documents.shuffled(plain, size, seed))
    for place, [text] in enumerate(mixed):
        assert place >= int(text) - size, "a document comes early only as far as the buffer reaches"
    if count == 60 and size > 5:
        assert mixed != plain


ROWS = [f"shard {number} row {row}" for number in range(2) for row in range(5)]


class TestParquet:
    """Shards with a column of text, on the disk and behind the hub's file system."""

    @pytest.fixture
    def shards(self, tmp_path: Path) -> Path:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        folder = tmp_path / "shards"
        folder.mkdir()
        for number in range(2):
            texts = [f"shard {number} row {row}" for row in range(5)] + [None, ""]
            table = pyarrow.table({"text": texts, "url": ["x"] * 7})
            parquet.write_table(table, folder / f"{number}.parquet", row_group_size=2)
        return folder

    def test_local(self, shards: Path, tmp_path: Path) -> None:
        assert ["".join(document) for document in documents.parquet([shards])] == ROWS
        corpora.prepare("fineweb-edu", tmp_path, [shards], tokenizer="bytes", test_share=0.2)
        loaded = data.load_text("fineweb-edu", tmp_path)
        assert len(loaded.train) + len(loaded.test) == len(joined(ROWS))

    def test_hub(self, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = pytest.importorskip("huggingface_hub")
        asked = []

        class Local:
            def glob(self, pattern: str) -> list[str]:
                asked.append(pattern)
                return [str(path) for path in shards.glob("*.parquet")]

            def open(self, name: str) -> object:
                return open(name, "rb")

        monkeypatch.setattr(hub, "HfFileSystem", Local)
        found = documents.hub("owner/name", "sample/*.parquet")
        assert ["".join(document) for document in found] == ROWS
        assert asked == ["datasets/owner/name/sample/*.parquet"]
        monkeypatch.setattr(Local, "glob", lambda self, pattern: [])
        with pytest.raises(DataError, match=r"the hub has no \*\.parquet in owner/name"):
            documents.hub("owner/name", "*.parquet")

        def fail(self: Local, pattern: str) -> list[str]:
            raise ConnectionError("no network")

        monkeypatch.setattr(Local, "glob", fail)
        with pytest.raises(DataError, match="the hub cannot be asked for owner/name: no network"):
            documents.hub("owner/name", "*.parquet")

    def test_other_columns_and_other_files(self, shards: Path) -> None:
        with pytest.raises(DataError, match="has columns text, url, and none named 'body'"):
            list(documents.parquet([shards], "body"))
        (shards / "0.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"0\.parquet cannot be read as Parquet"):
            list(documents.parquet([shards]))
        with pytest.raises(DataError, match="no Parquet files in"):
            documents.parquet([shards.parent / "empty"])


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary", "binary", "int64", "list"])
def test_a_column_of_parquet_must_be_text(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    values = {"int64": [1, 2], "binary": [b"a", b"b"], "list": [["a"], ["b"]]}.get(kind, ["a", "b"])
    types = {
        "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "list": pyarrow.list_(pyarrow.string()),
    }
    column = pyarrow.array(values, types.get(kind) or getattr(pyarrow, kind)())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    if kind in ("binary", "int64", "list"):
        with pytest.raises(DataError, match=rf"a\.parquet: its column 'text' holds {kind}.*, expected string"):
            list(documents.parquet([tmp_path]))
    else:
        assert list(documents.parquet([tmp_path])) == [["a"], ["b"]]


def test_an_entry_says_where_it_comes_from() -> None:
    assert {info.name for info in corpora.INFOS} - corpora.HUB.keys() == {"text"}
    for info in corpora.INFOS:
        assert DATASETS[info.name] is info
        assert not info.built_in
    assert dataclasses.replace(corpora.INFOS[0], check=None).built_in
    assert bins.SPLITS == {"train": "train.bin", "test": "val.bin"}
