# SPDX-License-Identifier: MIT
"""Texts that are prepared before they are trained on, and where each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamwprune.data import bins, bpe, documents, writing
from adamwprune.data.dataset import DataError, TokenInfo
from adamwprune.data.writing import OnProgress

GPT2_VOCABULARY = 50257
#: Documents are mixed as far as a buffer of so many reaches: a part of a corpus is then not one of its shards.
BUFFER, SEED = 10_000, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A text on the Hugging Face hub: Parquet files with a column ``text``."""

    repository: str
    pattern: str


#: Where a text comes from, if no source is given.
HUB = {
    "openwebtext": Corpus(repository="Skylion007/openwebtext", pattern="plain_text/*.parquet"),
    "fineweb-edu": Corpus(repository="HuggingFaceFW/fineweb-edu", pattern="sample/10BT/*.parquet"),
}


def _info(name: str, summary: str) -> TokenInfo:
    return TokenInfo(
        name=name,
        summary=summary,
        read=bins.read,
        identify=bins.identify,
        check=bins.check,
        check_bytes=bins.check_bytes,
    )


INFOS = (
    _info("text", "any folder of text, Parquet files or nanoGPT's .bin files, once it is prepared"),
    _info("openwebtext", "OpenWebText (Gokaslan and Cohen 2019), GPT-2 tokens, once it is prepared"),
    _info("fineweb-edu", "FineWeb-Edu (Penedo et al. 2024), the 10 billion token sample, once it is prepared"),
)


def prepare(
    name: str,
    data_dir: Path,
    sources: Sequence[Path] = (),
    *,
    tokenizer: str = "gpt2",
    test_share: float = 0.005,
    max_tokens: int | None = None,
    vocabulary: int = GPT2_VOCABULARY,
    progress: OnProgress = lambda documents, tokens: None,
) -> dict[str, Any]:
    """Prepare a text from ``sources`` (text, Parquet or ``.bin`` files, or folders of them), or from the hub.

    ``.bin`` files are taken as they are, as ids below ``vocabulary``; everything else is encoded by ``tokenizer``.
    The manifest is returned.
    """
    if name not in {info.name for info in INFOS}:
        raise ValueError(f"data set {name!r} is not prepared: that is for {', '.join(info.name for info in INFOS)}")
    missing = [str(path) for path in sources if not path.exists()]
    if missing:
        raise DataError(f"{', '.join(missing)}: no such file or folder")
    if len(sources) == 1 and (sources[0] / "train.bin").is_file():
        return writing.adopt(name, data_dir, sources[0], vocabulary)
    found = _documents(name, sources)
    encoder = _encoder(tokenizer, data_dir)
    return writing.prepare(
        name,
        data_dir,
        documents.shuffled(found, BUFFER, SEED),
        encoder,
        test_share=test_share,
        max_tokens=max_tokens,
        source={"from": [str(path) for path in sources] or dataclasses.asdict(HUB[name]), "max_tokens": max_tokens},
        progress=progress,
    )


def _documents(name: str, sources: Sequence[Path]) -> Iterator[documents.Document]:
    if not sources:
        if name not in HUB:
            raise DataError(f"say from what {name!r} is prepared: a folder of text, Parquet files or .bin files")
        return documents.hub(HUB[name].repository, HUB[name].pattern)
    tables = [path for path in documents.files(sources, documents.TABLES) if path.suffix in documents.TABLES]
    texts = [path for path in documents.files(sources, documents.TEXT) if path.suffix not in documents.TABLES]
    texts = [path for path in texts if path.stem != "README"] if tables else texts  # a hub repository has one
    if tables and texts:
        raise DataError(f"{tables[0]} is Parquet and {texts[0]} is text: name the files or folders of one of them")
    return documents.parquet(tables) if tables else documents.folder(sources)


def _encoder(tokenizer: str, data_dir: Path) -> bpe.Encoder:
    if tokenizer == "bytes":
        return bpe.BYTES
    if tokenizer == "gpt2":
        return bpe.gpt2(data_dir)
    raise ValueError(f"unknown tokenizer {tokenizer!r}: expected gpt2 or bytes")
