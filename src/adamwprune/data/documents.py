# SPDX-License-Identifier: MIT
"""Documents one after another, from folders of text, Parquet files or the Hugging Face hub, in bounded memory.

A text file comes in pieces, so that one of any size can be a document. They are cut where GPT-2 would cut words anyway:
the tokens are those of the whole. Only text without any space stays in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adamwprune.data.dataset import DataError

#: A document's pieces, in order.
Document = Iterable[str]

TEXT = (".txt", ".md", ".rst", ".text")
TABLES = (".parquet",)
#: Arrow's types of text, as values or as a dictionary of them.
STRINGS = re.compile(r"^(dictionary<values=)?(large_)?string(_view)?\b")
PIECE = 1 << 20
#: Up to the last place where GPT-2 begins a word whatever comes before: at a space that something else follows. A word
#: of something else has ended there; one of spaces leaves the last of them to what follows (``\s+(?!\S)``), and takes
#: as many where the text ends. Python alone calls the four characters from 1c on spaces.
CUT = re.compile(r".*(?=[^\S\x1c-\x1f]\S)", re.DOTALL)


def files(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """Those of ``paths`` that are files, and what the folders among them hold with one of ``suffixes``, sorted."""
    found = [path for path in paths if path.is_file()]
    for path in paths:
        found += [file for file in sorted(path.rglob("*")) if file.suffix in suffixes and file.is_file()]
    return found


def folder(paths: Sequence[Path]) -> Iterator[Document]:
    """Each text file under ``paths``, in the order of their names, as a document."""
    found = files(paths, TEXT)
    if not found:
        raise DataError(f"no text in {', '.join(map(str, paths))}: expected files that end in {' '.join(TEXT)}")
    for path in found:
        yield pieces(path)


def pieces(path: Path, size: int = PIECE) -> Iterator[str]:
    """A text file (UTF-8) in pieces of about ``size`` characters."""
    begun: list[str] = []  # text in which there is no cut, but for its last character: what comes decides that
    last = ""
    with open(path, encoding="utf-8", newline="") as file:
        try:
            while new := file.read(size):
                text = last + new
                if cut := CUT.match(text):
                    if piece := "".join([*begun, cut[0]]):
                        yield piece
                    begun, text = [], text[cut.end() :]
                begun.append(text[:-1])
                last = text[-1]
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error}; convert it, or leave it out") from error
    if rest := "".join([*begun, last]):
        yield rest


def parquet(paths: Sequence[Path], column: str = "text") -> Iterator[Document]:
    """Each row of Parquet files, in the order of their names, as a document."""
    found = files(paths, TABLES)
    if not found:
        raise DataError(f"no Parquet files in {', '.join(map(str, paths))}")
    return _rows(((str(path), path) for path in found), column)


def hub(repository: str, pattern: str, column: str = "text") -> Iterator[Document]:
    """Each row of the hub's Parquet files whose path in ``repository`` matches ``pattern``, streamed."""
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise DataError("streaming from the hub needs huggingface_hub: pip install 'adamwprune[lm]'") from error

    system = HfFileSystem()
    try:
        names = sorted(map(str, system.glob(f"datasets/{repository}/{pattern}")))
    except Exception as error:  # whatever the client meets on the way
        raise DataError(f"the hub cannot be asked for {repository}: {error}") from error
    if not names:
        raise DataError(f"the hub has no {pattern} in {repository}")
    return _rows(((name, system.open(name)) for name in names), column)


def _rows(files: Iterable[tuple[str, Any]], column: str) -> Iterator[Document]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError("Parquet files need pyarrow: pip install 'adamwprune[lm]'") from error

    for name, file in files:
        try:
            table = parquet.ParquetFile(file)
            if column not in table.schema_arrow.names:
                raise DataError(f"{name} has columns {', '.join(table.schema_arrow.names)}, and none named {column!r}")
            kind = str(table.schema_arrow.field(column).type)
            if not STRINGS.search(kind):
                raise DataError(f"{name}: its column {column!r} holds {kind}, expected string")
            for batch in table.iter_batches(batch_size=1000, columns=[column]):
                yield from ([text] for text in batch.column(0).to_pylist() if text)
        except (ArrowException, OSError) as error:
            raise DataError(f"{name} cannot be read as Parquet: {error}") from error


def shuffled(documents: Iterable[Document], size: int, seed: int) -> Iterator[Document]:
    """The documents in an order that is random as far as a buffer of ``size`` of them reaches."""
    random = np.random.RandomState(seed)
    buffer: list[Document] = []
    for document in documents:
        if len(buffer) < size:
            buffer.append(document)
            continue
        place = random.randint(size)
        buffer[place], document = document, buffer[place]
        yield document
    random.shuffle(buffer)  # type: ignore[arg-type]
    yield from buffer
