# SPDX-License-Identifier: MIT
"""The Python standard library's own sources as text, a byte a token: every installation has it.

It depends on Python's version; the checksum of what was read is part of a run's identity.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch

from adamwprune.data.dataset import DataError, TokenData, TokenInfo
from adamwprune.data.tokens import Tokens

#: No source holds this byte; it ends each of them.
END = 0
#: Whole packages of tests and of tables, and what differs from machine to machine.
LEFT_OUT = ("test", "idlelib", "pydoc_data", "encodings", "_sysconfigdata", "lib2to3", "ensurepip")
#: A file is for testing where the first byte of its path's sha256 is below this: a tenth of them.
TEST_BELOW = 26


def read(info: TokenInfo, data_dir: Path) -> TokenData:
    """Every source, in the order of its path's sha256, which mixes the subjects; a tenth of the files for testing."""
    train, test = _texts()
    return TokenData(name=info.name, train=_tokens(train), test=_tokens(test), vocabulary=256)


def identify(info: TokenInfo, data_dir: Path) -> str:
    """Checksum of both texts."""
    return hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in _texts())).hexdigest()


def _tokens(text: bytes) -> Tokens:
    return Tokens(torch.from_numpy(np.frombuffer(text, np.uint8).copy()))


@functools.cache
def _texts() -> tuple[bytes, bytes]:
    """Training and test text."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*.py")}
    order = sorted((hashlib.sha256(name.encode()).digest(), name) for name in paths if _is_source(name))
    if not order:
        raise DataError(f"the data set 'stdlib' needs Python's own sources, and there are none in {root}")
    train, test = bytearray(), bytearray()
    for digest, name in order:
        text = test if digest[0] < TEST_BELOW else train
        text += paths[name].read_bytes() + bytes([END])
    return bytes(train), bytes(test)


def _is_source(name: str) -> bool:
    """Whether a path under the library's folder is a module of the library: not an installed package, not a test."""
    parts = name.removesuffix(".py").split("/")
    tests = {"test", "tests"}.intersection(parts)
    return parts[0] in sys.stdlib_module_names and not tests and not parts[0].startswith(LEFT_OUT)


INFO = TokenInfo(
    name="stdlib",
    summary="the Python standard library's sources, bytes as tokens",
    read=read,
    identify=identify,
)
