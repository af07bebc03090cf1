# SPDX-License-Identifier: MIT
"""One-bit masks: what is kept of a tensor, eight weights to the byte.

Bit ``i % 8`` of byte ``i // 8`` is 1 where weight ``i`` is kept, in row-major order of the parameter's shape, whatever
its strides. Read little-endian the same bytes serve as 16-, 32- or 64-bit words, which is how native kernels take them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

#: Weights handled at once wherever a tensor is walked. It bounds every transient of a step or a mask update to about
#: 13 float32 per weight of a chunk (3.4 MB), and is a multiple of 8 so that a chunk starts on a byte of the mask.
CHUNK = 1 << 16

#: Weights to a block of the native layout.
BLOCK = 1024

_BIT_VALUES = (1, 2, 4, 8, 16, 32, 64, 128)


def pack(keep: Tensor) -> Tensor:
    """Pack a bool tensor (any shape) into uint8 ``[ceil(n / 8)]``; the padding bits are zero."""
    flat = keep.reshape(-1)
    padded = torch.zeros((flat.numel() + 7) // 8 * 8, dtype=torch.uint8, device=flat.device)
    padded[: flat.numel()] = flat
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=flat.device)
    return (padded.view(-1, 8) * values).sum(dim=1, dtype=torch.uint8)


def unpack(bits: Tensor, numel: int) -> Tensor:
    """The inverse of :func:`pack`: bool ``[numel]``."""
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=bits.device)
    return (bits.unsqueeze(1) & values).ne(0).view(-1)[:numel]


@dataclass(slots=True)
class Mask:
    """Packed mask of one tensor. ``bits`` is uint8 ``[ceil(numel / 8)]``, ``kept`` the number of ones."""

    bits: Tensor
    numel: int
    kept: int
    starts: Tensor | None = None
    """Compact slot of the first kept weight of each :data:`BLOCK`, int64; made by the kernels that use it."""
    elsewhere: int = 0
    """Weights removed of the same tensor's rows that other ranks hold; 0 where all rows are here."""

    @classmethod
    def full(cls, numel: int, device: torch.device) -> Mask:
        """A mask that keeps everything."""
        return cls.from_bool(torch.ones(numel, dtype=torch.bool, device=device))

    @classmethod
    def from_bool(cls, keep: Tensor) -> Mask:
        """Pack a bool tensor of any shape."""
        return cls(pack(keep), keep.numel(), int(keep.sum()))

    @classmethod
    def from_bits(cls, bits: Tensor, numel: int) -> Mask:
        """Take packed bits as they are, after checking their length and padding."""
        if bits.dtype != torch.uint8 or bits.dim() != 1 or bits.numel() != (numel + 7) // 8:
            raise ValueError(
                f"a mask of {numel} weights is uint8 [{(numel + 7) // 8}], not {bits.dtype} {list(bits.shape)}"
            )
        return cls(bits, numel, int(unpack(bits, numel).sum()))

    @property
    def masked(self) -> int:
        """Number of weights removed here."""
        return self.numel - self.kept

    @property
    def nbytes(self) -> int:
        """Bytes the mask takes, with its block starts where a kernel asked for them."""
        return self.bits.numel() + (0 if self.starts is None else self.starts.numel() * 8)

    def to(self, device: torch.device) -> Mask:
        """The mask on another device (itself where it already is there)."""
        return self if self.bits.device == device else replace(self, bits=self.bits.to(device), starts=None)

    def to_bool(self, shape: torch.Size | tuple[int, ...] | None = None) -> Tensor:
        """Unpacked: bool of ``shape`` (one-dimensional when None)."""
        keep = unpack(self.bits, self.numel)
        return keep if shape is None else keep.view(shape)

    def slice(self, low: int, high: int) -> Tensor:
        """Unpacked bits of weights ``low`` to ``high``; ``low`` is a multiple of 8."""
        return unpack(self.bits[low // 8 : (high + 7) // 8], high - low)

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """Walk the kept weights in order, at most ``size`` weights of the tensor at a time."""
        start = 0
        for low in range(0, self.numel, size):
            high = min(low + size, self.numel)
            index = self.slice(low, high).nonzero().squeeze(1)
            yield Chunk(low, high, index, start, start + index.numel())
            start += index.numel()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch ``low:high`` of a flat tensor: kept weights sit at ``low + index``, compactly at ``start:stop``."""

    low: int
    high: int
    index: Tensor
    start: int
    stop: int


def whole(numel: int, device: torch.device, size: int = CHUNK) -> Iterator[Chunk]:
    """The chunks of a tensor that has no mask: everything is kept."""
    for low in range(0, numel, size):
        high = min(low + size, numel)
        yield Chunk(low, high, torch.arange(high - low, device=device), low, high)
