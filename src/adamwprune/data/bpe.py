# SPDX-License-Identifier: MIT
"""GPT-2's byte-pair encoding from its two published files, by whichever of tiktoken and tokenizers is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamwprune.data import files
from adamwprune.data.dataset import DataError, DataFile, SourceInfo

#: How GPT-2 cuts text into words before it merges bytes inside them.
WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
END = "<|endoftext|>"

OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
HUB = "https://huggingface.co/openai-community/gpt2/resolve/main/"

FILES = (
    DataFile(
        path="gpt2-bpe/encoder.json",
        urls=(OPENAI + "encoder.json", HUB + "vocab.json"),
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        size=1042301,
        also=("gpt2-bpe/vocab.json",),
    ),
    DataFile(
        path="gpt2-bpe/vocab.bpe",
        urls=(OPENAI + "vocab.bpe", HUB + "merges.txt"),
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        size=456318,
        also=("gpt2-bpe/merges.txt",),
    ),
)

#: The files as something that can be fetched.
SOURCE = SourceInfo(name="gpt2_bpe", summary="GPT-2's byte-pair encoding", files=FILES)

Ids = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Texts to token ids."""

    name: str
    vocabulary: int
    #: The token that ends a document.
    end: int
    encode: Callable[[Sequence[str]], list[Ids]]


#: A byte a token; documents end with a 257th.
BYTES = Encoder(
    "bytes", 257, 256, lambda texts: [np.frombuffer(text.encode(), np.uint8).astype(np.uint16) for text in texts]
)


def gpt2(data_dir: Path) -> Encoder:
    """GPT-2's encoder from the files under ``data_dir``; DataError where they or both packages are missing."""
    vocabulary, merges = files.read(SOURCE, data_dir)
    return make("gpt2", vocabulary.decode(), merges.decode())


def make(name: str, vocabulary: str, merges: str) -> Encoder:
    """An encoder from the content of a vocabulary (JSON) and a list of merges."""
    ids: dict[str, int] = json.loads(vocabulary)
    for build in (_tiktoken, _tokenizers):
        try:
            encode = build(ids, merges)
        except ImportError:
            continue
        return Encoder(name, max(ids.values()) + 1, ids[END], encode)
    raise DataError(
        "GPT-2's tokens need the package tiktoken or tokenizers, and neither is installed: pip install 'adamwprune[lm]'"
    )


def alphabet() -> dict[str, int]:
    """The character that stands for each byte in both files: printable ones for themselves, the others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _pairs(merges: str) -> list[tuple[str, str]]:
    """What each line merges; the first line may name the format's version."""
    lines = [line.split() for line in merges.splitlines() if line and not line.startswith("#version")]
    return [(first, second) for first, second in lines]


def _tiktoken(ids: dict[str, int], merges: str) -> Callable[[Sequence[str]], list[Ids]]:
    import tiktoken

    byte = alphabet()
    ranks = {bytes(byte[character] for character in token): number for token, number in ids.items() if token != END}
    pairs = _pairs(merges)
    if [ranks[bytes(byte[c] for c in first + second)] for first, second in pairs] != list(range(256, 256 + len(pairs))):
        raise DataError("the vocabulary and the list of merges do not belong together: fetch both again")
    encoding = tiktoken.Encoding("gpt2", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={END: ids[END]})
    return lambda texts: [
        np.array(text, np.uint16) for text in encoding.encode_ordinary_batch(list(texts), num_threads=2)
    ]


def _tokenizers(ids: dict[str, int], merges: str) -> Callable[[Sequence[str]], list[Ids]]:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=_pairs(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda texts: [np.array(text.ids, np.uint16) for text in tokenizer.encode_batch(list(texts))]
