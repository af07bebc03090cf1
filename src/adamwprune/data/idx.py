# SPDX-License-Identifier: MIT
"""Reader of the idx format: two zero bytes, a type byte (8: unsigned byte), the rank, big-endian sizes, the data."""

from __future__ import annotations

import math
import struct

import numpy as np
import torch
from torch import Tensor

UNSIGNED_BYTE = 8


def parse(content: bytes, name: str) -> Tensor:
    """The uint8 tensor in ``content``; ValueError naming ``name`` where it is not an idx file of unsigned bytes."""
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(
            f"{name} is not an idx file: it starts with {content[:4].hex()!r}, expected 0000 08 and a rank"
        )
    if content[2] != UNSIGNED_BYTE:
        raise ValueError(f"{name} holds idx type {content[2]:#04x}, expected 0x08 (unsigned bytes)")
    rank = content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(f"{name} ends inside its header of {start} bytes")
    sizes = struct.unpack(f">{rank}I", content[4:start])
    expected = start + math.prod(sizes)
    if len(content) != expected:
        raise ValueError(f"{name} has {len(content)} bytes, expected {expected} for sizes {list(sizes)}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(sizes).copy())
