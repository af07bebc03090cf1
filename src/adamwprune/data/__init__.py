# SPDX-License-Identifier: MIT
"""Data sets as tensors: where their files come from, how they are read, split and augmented.

A new data set is one file with a reader and one line in ``registry.py``.
"""

from adamwprune.data.dataset import DataError, DataFile, Dataset, DatasetInfo, Split, StreamInfo, TokenData, TokenInfo
from adamwprune.data.registry import (
    DATASETS,
    VERSION,
    checksum,
    find,
    images,
    load,
    load_text,
    open_stream,
    stream,
    text,
)
from adamwprune.data.tokens import Tokens, Windows

__all__ = [
    "DATASETS",
    "VERSION",
    "DataError",
    "DataFile",
    "Dataset",
    "DatasetInfo",
    "Split",
    "StreamInfo",
    "TokenData",
    "TokenInfo",
    "Tokens",
    "Windows",
    "checksum",
    "find",
    "images",
    "load",
    "load_text",
    "open_stream",
    "stream",
    "text",
]
