# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""The numeric formats of :mod:`adamwprune.kernels.formats` in Triton's language, operation for operation.

A block holds four groups. Values are tiles of [BYTES, 8], units are given per row ([BYTES], 32 rows to a group).
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamwprune.kernels import formats
from adamwprune.kernels.triton_language import BYTES

#: Groups of a block, and the rows of a tile that make one.
GROUPS = tl.constexpr(4)
ROWS = tl.constexpr(32)

LEAST_FIRST = tl.constexpr(formats.LEAST_FIRST)
LEAST_SECOND = tl.constexpr(formats.LEAST_SECOND)
MOST_FIRST = tl.constexpr(formats.MOST_FIRST)
MOST_SECOND = tl.constexpr(formats.MOST_SECOND)
NOISE_PLACE = tl.constexpr(formats.NOISE_PLACE)
NOISE_SEED = tl.constexpr(formats.NOISE_SEED)
NOISE_MIX = tl.constexpr(formats.NOISE_MIX)
NOISE_REMIX = tl.constexpr(formats.NOISE_REMIX)


@triton.jit
def noise(place, seed):
    """Three 32-bit random words (uint32) of each weight: for the second moment, the first, the weight."""
    x = place.to(tl.uint32) * NOISE_PLACE + seed.to(tl.uint32) * NOISE_SEED
    x = (x ^ (x >> 16)) * NOISE_MIX
    x = (x ^ (x >> 15)) * NOISE_REMIX
    second = x ^ (x >> 16)
    first = second * NOISE_PLACE
    return second, first, first * NOISE_SEED


@triton.jit
def uniform(word):
    """A random word as float32 in [0, 1)."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-8


@triton.jit
def load_units(units, block, numel):
    """Units of a block's groups, one per row: float32 [BYTES]."""
    row = block * BYTES + tl.arange(0, BYTES)
    return tl.load(units.to(tl.pointer_type(tl.float32)) + row // ROWS, mask=row * 8 < numel, other=0.0)


@triton.jit
def store_units(units, block, numel, per_group):
    """Write the units of a block's groups, float32 [GROUPS]."""
    group = block * GROUPS + tl.arange(0, GROUPS)
    tl.store(units.to(tl.pointer_type(tl.float32)) + group, per_group, mask=group * (ROWS * 8) < numel)


@triton.jit
def per_row(per_group):
    """Each group's unit, for each of its rows: [BYTES]."""
    return tl.reshape(tl.broadcast_to(per_group[:, None], (GROUPS, ROWS)), (BYTES,))


@triton.jit
def new_units(moment, SECOND: tl.constexpr):
    """Largest entry of each group over its largest code's value; SECOND says of which moment; 0 where masked."""
    least: tl.constexpr = LEAST_SECOND if SECOND else LEAST_FIRST
    most: tl.constexpr = MOST_SECOND if SECOND else MOST_FIRST
    # As integers, because there NaN compares: above infinity.
    bits = tl.max(moment.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    bits = tl.max(tl.reshape(bits, (GROUPS, ROWS)), axis=1)
    largest = tl.where(bits > 0x7F800000, 0x7FC00000, bits).to(tl.float32, bitcast=True)
    return tl.where(largest < least, 0.0, tl.div_rn(largest, tl.full((GROUPS,), most, tl.float32)))


@triton.jit
def times(size, divisor, unit):
    """Entries times one over their rows' divisor; 0 where the unit is 0, NaN or infinite."""
    usable = (unit > 0.0) & (unit < float("inf"))
    factor = tl.div_rn(tl.full((BYTES,), 1.0, tl.float32), tl.where(usable, divisor, 1.0))
    return tl.where(usable[:, None], size * factor[:, None], 0.0)


@triton.jit
def decode_first(code, unit):
    """First moments (float32) of codes, int8, and their rows' units."""
    c = code.to(tl.float32)
    return (c * tl.abs(c)) * unit[:, None]


@triton.jit
def decode_second(code, unit):
    """Second moments (float32) of codes, uint8, and their rows' units."""
    c = code.to(tl.float32)
    square = c * c
    return (square * square) * unit[:, None]


@triton.jit
def encode_first(moment, unit, word):
    """Codes (int8) of first moments for given units."""
    r = times(tl.abs(moment), unit, unit)
    low = tl.minimum(tl.floor(tl.sqrt_rn(r)), 127.0)
    below = low * low
    gap = (low + 1.0) * (low + 1.0) - below
    c = low + tl.where(uniform(word) * gap < r - below, 1.0, 0.0)
    c = tl.minimum(c, 127.0)
    return tl.where(moment < 0.0, -c, c).to(tl.int8)


@triton.jit
def encode_second(moment, unit, word):
    """Codes (uint8) of second moments for given units."""
    root = times(tl.sqrt_rn(moment), tl.sqrt_rn(unit), unit)
    r = root * root
    low = tl.minimum(tl.floor(tl.sqrt_rn(root)), 255.0)
    fourth = (low * low) * (low * low)
    above = ((low + 1.0) * (low + 1.0)) * ((low + 1.0) * (low + 1.0))
    c = tl.minimum(low + tl.where(uniform(word) * (above - fourth) < r - fourth, 1.0, 0.0), 255.0)
    return tl.where((c == 0.0) & (root > 0.0), 1.0, c).to(tl.uint8)


@triton.jit
def join(weight, correction):
    """The 24-bit values (float32) of bfloat16 weights' bits (int16) and their corrections (int8)."""
    return (weight.to(tl.int32) * 65536 + correction.to(tl.int32) * 256).to(tl.float32, bitcast=True)


@triton.jit
def split(value, word):
    """bfloat16 weights' bits (int16) and int8 corrections of float32 values, rounded stochastically to 24 bits."""
    bits = value.to(tl.uint32, bitcast=True)
    nan = value != value
    wild = (bits & 0x7F800000) == 0x7F800000
    upper = (bits + (word >> 24)) >> 8
    high = (upper + 0x80) >> 8
    low = tl.where(wild, 0, upper.to(tl.int32) - high.to(tl.int32) * 256)
    kept = tl.where(nan, 0x7FC0, tl.where(wild, bits >> 16, high))
    return kept.to(tl.uint16).to(tl.int16, bitcast=True), low.to(tl.int8)
