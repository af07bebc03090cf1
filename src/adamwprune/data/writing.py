# SPDX-License-Identifier: MIT
"""Documents to prepared texts: encoded in batches, written as they come, in place only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from adamwprune.data import bins
from adamwprune.data.bpe import Encoder
from adamwprune.data.dataset import DataError
from adamwprune.data.documents import Document

#: Called with the documents and the tokens that are written.
OnProgress = Callable[[int, int], None]

#: Characters that are encoded at a time.
BATCH = 1 << 22


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a document, to be encoded."""

    text: str
    document: int
    last: bool


def prepare(
    name: str,
    data_dir: Path,
    documents: Iterable[Document],
    encoder: Encoder,
    *,
    test_share: float = 0.005,
    max_tokens: int | None = None,
    source: dict[str, Any] | None = None,
    progress: OnProgress = lambda documents, tokens: None,
) -> dict[str, Any]:
    """Write ``documents`` as a prepared text; its manifest.

    About ``test_share`` of the documents, evenly spread, are for testing. Where that would be none, the last part of
    the tokens is. Once ``max_tokens`` are written, what follows is left out.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share} must lie between 0 and 1: it is the share of documents for testing")
    folder = data_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    partial = {split: folder / f".{file}.tmp" for split, file in bins.SPLITS.items()}
    try:
        with open(partial["train"], "wb") as train, open(partial["test"], "wb") as test:
            counts = _write(documents, encoder, train, test, test_share, max_tokens, progress)
            if train.tell() and not test.tell():
                _move_end(partial["train"], train, test, test_share)
            for file in (train, test):
                file.flush()
                os.fsync(file.fileno())
        if not partial["train"].stat().st_size or not partial["test"].stat().st_size:
            raise DataError(f"{sum(counts)} documents are too little text for a training and a test split")
        (folder / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not prepared
        for split, final in bins.SPLITS.items():
            os.replace(partial[split], folder / final)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
    facts = {"tokenizer": encoder.name, "end": encoder.end, "documents": sum(counts), "test_share": test_share}
    splits = bins.survey(folder, encoder.vocabulary)
    return bins.save(name, folder, encoder.vocabulary, {**facts, **(source or {})}, splits)


def adopt(name: str, data_dir: Path, folder: Path, vocabulary: int) -> dict[str, Any]:
    """Make a prepared text of ``train.bin`` and ``val.bin`` that another tool wrote; links lead to them.

    Where they are no such text, what was prepared before stays.
    """
    splits = bins.survey(folder, vocabulary)
    target = data_dir / name
    target.mkdir(parents=True, exist_ok=True)
    for file in bins.SPLITS.values():
        if (target / file).exists() and (target / file).samefile(folder / file):
            continue
        link = target / f".{file}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to((folder / file).resolve())
        (target / "manifest.json").unlink(missing_ok=True)  # from here on the folder is not prepared
        os.replace(link, target / file)
    return bins.save(name, target, vocabulary, {"tokenizer": "unknown"}, splits)


def _write(
    documents: Iterable[Document],
    encoder: Encoder,
    train: BinaryIO,
    test: BinaryIO,
    test_share: float,
    max_tokens: int | None,
    progress: OnProgress,
) -> tuple[int, int]:
    """Encode and write; how many documents each file holds."""
    counts, tokens = [0, 0], 0
    for batch in _batches(documents):
        for piece, ids in zip(batch, encoder.encode([piece.text for piece in batch]), strict=True):
            held = int((piece.document + 1) * test_share) > int(piece.document * test_share)
            (test if held else train).write(ids.astype("<u2").tobytes())
            tokens += len(ids)
            if piece.last:
                (test if held else train).write(np.array(encoder.end, "<u2").tobytes())
                tokens += 1
                counts[held] += 1
                if max_tokens is not None and tokens >= max_tokens:
                    progress(sum(counts), tokens)
                    return counts[0], counts[1]
        progress(sum(counts), tokens)
    return counts[0], counts[1]


def _batches(documents: Iterable[Document]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for number, document in enumerate(documents):
        held: str | None = None
        for text in document:
            if held is not None:
                batch.append(Piece(held, number, last=False))
            held = text
            size += len(text)
            if size >= BATCH:
                yield batch
                batch, size = [], 0
        if held is not None:
            batch.append(Piece(held, number, last=True))
    if batch:
        yield batch


def _move_end(path: Path, train: BinaryIO, test: BinaryIO, share: float) -> None:
    """Move the last part of the training tokens to the test split."""
    train.flush()
    cut = 2 * (train.tell() // 2 - max(1, int(share * (train.tell() // 2))))
    with open(path, "rb") as file:
        file.seek(cut)
        while piece := file.read(bins.CHUNK):
            test.write(piece)
    train.truncate(cut)
