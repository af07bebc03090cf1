# SPDX-License-Identifier: MIT
"""A byte-pair encoding of 256 bytes, ten merges and an end, and the plain algorithm that it stands for."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

from adamwprune.data import bpe

MERGES = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("i", "n"),
    ("Ġ", "a"),
    ("e", "r"),
    ("in", "g"),
    ("Ċ", "Ċ"),
    ("Ġ", "Ġ"),
    ("Ã", "©"),
]

SYMBOLS = {byte: symbol for symbol, byte in bpe.alphabet().items()}
IDS = {symbol: number for number, symbol in enumerate(bpe.alphabet())}
IDS |= {first + second: 256 + place for place, (first, second) in enumerate(MERGES)}
IDS[bpe.END] = len(IDS)

VOCABULARY = json.dumps(IDS)
LIST = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in MERGES) + "\n"


def encode(text: str) -> list[int]:
    """Merge the pair of lowest rank until none is left, word by word."""
    words = re.findall(r"'(?:[sdmt]|ll|ve|re)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+", text)
    ids = []
    for word in words:
        symbols = [SYMBOLS[byte] for byte in word.encode()]
        while True:
            ranks = [MERGES.index(pair) if pair in MERGES else 99 for pair in itertools.pairwise(symbols)]
            if not ranks or min(ranks) == 99:
                break
            place = ranks.index(min(ranks))
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        ids += [IDS[symbol] for symbol in symbols]
    return ids


def files() -> dict[str, bytes]:
    """Both files' content by path."""
    return {"gpt2-bpe/encoder.json": VOCABULARY.encode(), "gpt2-bpe/vocab.bpe": LIST.encode()}


def entries() -> tuple[bpe.DataFile, ...]:
    """As :data:`bpe.FILES`, for these files."""
    return tuple(
        replace(file, sha256=hashlib.sha256(files()[file.path]).hexdigest(), size=len(files()[file.path]))
        for file in bpe.FILES
    )


def write(data_dir: Path) -> None:
    """Put both files where they are looked for."""
    for path, content in files().items():
        (data_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / path).write_bytes(content)
