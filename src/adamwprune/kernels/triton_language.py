# SPDX-License-Identifier: MIT
# mypy: ignore-errors
# (Triton's language looks like Python and is not: mypy has nothing to say about it.)
"""What all Triton kernels share: a block of weights, its mask, its slots in compact state, loads and stores.

A program handles one block (1024 weights): a tile of 128 bytes of mask by 8 bits, so that a row's weights lie together
in memory. Addresses come out of tables in device memory as int64, because one launch serves many tensors. bfloat16 is
loaded and stored as its 16 bits, which makes the rounding explicit.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)
BYTES = tl.constexpr(128)

#: How a tensor's entries are stored.
FLOAT32 = tl.constexpr(0)
BFLOAT16 = tl.constexpr(1)
CODES = tl.constexpr(2)

#: Where state lies: one entry per weight, nothing masked; the same beside a mask; one entry per kept weight.
WHOLE = tl.constexpr(0)
DENSE = tl.constexpr(1)
COMPACT = tl.constexpr(2)


@triton.jit
def ones(byte):
    """How many of a byte's bits are set (int32)."""
    pairs = byte - ((byte >> 1) & 0x55)
    nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (nibbles + (nibbles >> 4)) & 0x0F


@triton.jit
def places():
    """Places of a block's weights within the block: int32 [BYTES, 8]."""
    return tl.arange(0, BYTES)[:, None] * 8 + tl.arange(0, 8)[None, :]


@triton.jit
def mask_bytes(bits, block, numel):
    """A block's bytes of a mask (its address), int32 [BYTES]; zero behind the tensor's end."""
    number = block * BYTES + tl.arange(0, BYTES)
    return tl.load(bits.to(tl.pointer_type(tl.uint8)) + number, mask=number * 8 < numel, other=0).to(tl.int32)


@triton.jit
def spread(byte):
    """Bytes as bool [BYTES, 8]."""
    return ((byte[:, None] >> tl.arange(0, 8)[None, :]) & 1) != 0


@triton.jit
def ranks(byte):
    """How many kept weights of the block come before each place: int32 [BYTES, 8]."""
    count = ones(byte)
    before = tl.cumsum(count, 0) - count
    below = (1 << tl.arange(0, 8)) - 1
    return before[:, None] + ones(byte[:, None] & below[None, :])


@triton.jit
def start(starts, block):
    """Compact slot of a block's first kept weight."""
    return tl.load(starts.to(tl.pointer_type(tl.int64)) + block)


@triton.jit
def to_float(bits):
    """bfloat16's 16 bits (int16) as float32."""
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def to_bfloat16(value):
    """float32 as bfloat16's 16 bits (int16), rounded to nearest even."""
    bits = value.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(value != value, 0x7FC0, rounded).to(tl.uint16).to(tl.int16, bitcast=True)


@triton.jit
def pointer(address, origin, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Where entry ``origin`` (a scalar) of a tensor lies. ALIGNED: the tensor's address is a multiple of 16."""
    first = address.to(tl.pointer_type(TYPE))
    if ALIGNED:
        first = tl.multiple_of(first, 16)
    return first + origin


@triton.jit
def load_raw(address, origin, place, keep, whole, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Entries at ``origin + place`` where ``keep`` is set, else 0. ``whole`` says that all of them exist: they are read
    unmasked, whatever ``keep`` says, so that loads are wide."""
    first = pointer(address, origin, TYPE, ALIGNED)
    if whole:  # noqa: SIM108 (Triton turns a conditional expression into a select of both)
        value = tl.load(first + place)
    else:
        value = tl.load(first + place, mask=keep, other=0)
    return value


@triton.jit
def store_raw(address, origin, place, value, keep, whole, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The counterpart of :func:`load_raw`."""
    first = pointer(address, origin, TYPE, ALIGNED)
    if whole:
        tl.store(first + place, value)
    else:
        tl.store(first + place, value, mask=keep)


@triton.jit
def load(address, origin, place, keep, whole, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """As :func:`load_raw`, of float32 or bfloat16 entries, as float32."""
    if KIND == FLOAT32:
        value = load_raw(address, origin, place, keep, whole, tl.float32, ALIGNED)
    else:
        value = to_float(load_raw(address, origin, place, keep, whole, tl.int16, ALIGNED))
    return value


@triton.jit
def store(address, origin, place, value, keep, whole, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """As :func:`store_raw`, of float32 values as float32 or bfloat16 entries."""
    if KIND == FLOAT32:
        store_raw(address, origin, place, value, keep, whole, tl.float32, ALIGNED)
    else:
        store_raw(address, origin, place, to_bfloat16(value), keep, whole, tl.int16, ALIGNED)
