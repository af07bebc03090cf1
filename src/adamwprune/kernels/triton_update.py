# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""The step kernel: one AdamW update of many tensors' kept weights in one launch.

Each weight sees the operations of csrc/block.h in the same order, correctly rounded, with the same two fused
multiply-adds; launches switch further fusion off. So the result is the native kernel's, bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamwprune.kernels import triton_formats as formats
from adamwprune.kernels.triton_language import (
    BLOCK,
    CODES,
    COMPACT,
    WHOLE,
    load,
    load_raw,
    mask_bytes,
    places,
    ranks,
    spread,
    start,
    store,
    store_raw,
)

#: Columns of the table of tensors (int64), a row per tensor.
ADDRESSES = (
    "weight", "grad", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_avg_unit", "exp_avg_sq_unit", "correction",
    "bits", "starts",
)  # fmt: skip
COLUMNS = tl.constexpr(12)
_NUMEL = tl.constexpr(10)
_FIRST_PROGRAM = tl.constexpr(11)

#: Columns of the table of numbers (float32), a row per tensor: :class:`adamwprune.kernels.job.StepNumbers`, the
#: gradient's sign, and the noise's seed as an int32's bits.
_NUMBERS = tl.constexpr(11)


@triton.jit
def load_moment(
    address, origin, place, keep, whole, unit, SECOND: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr
):
    """A block's moments as float32, decoded where they are codes; SECOND says of which moment."""
    if KIND != CODES:
        value = load(address, origin, place, keep, whole, KIND, ALIGNED)
    elif SECOND:
        value = formats.decode_second(load_raw(address, origin, place, keep, whole, tl.uint8, ALIGNED), unit)
    else:
        value = formats.decode_first(load_raw(address, origin, place, keep, whole, tl.int8, ALIGNED), unit)
    return value


@triton.jit
def update(w, g, m, v, x, row, AMSGRAD: tl.constexpr, THETA: tl.constexpr):
    """New weight and moments out of float32 ones and the gradient."""
    grad_weight = tl.load(row + 2)
    coupled = tl.load(row + 1)
    g = g * tl.load(row + 9)
    if THETA:
        limit = tl.sqrt_rn(tl.load(row + 8) * v)
        clipped = tl.where(g > limit, limit, tl.where(g < -limit, -limit, g))
        g = tl.where(v != 0.0, clipped, g)
    # 0 times an infinite weight would be NaN.
    g = tl.where(coupled != 0.0, g + w * coupled, g)
    w = w * tl.load(row)
    lerp = tl.where(grad_weight < 0.5, grad_weight, grad_weight - 1.0)
    m = tl.fma(tl.broadcast_to(lerp, g.shape), g - m, tl.where(grad_weight < 0.5, m, g))
    v = tl.fma(tl.load(row + 4) * g, g, v * tl.load(row + 3))
    square = v
    if AMSGRAD:
        x = tl.where(x > v, x, v)
        square = x
    denominator = tl.div_rn(tl.sqrt_rn(square), tl.broadcast_to(tl.load(row + 5), g.shape)) + tl.load(row + 6)
    w = w + tl.div_rn(tl.load(row + 7) * m, denominator)
    return w, m, v, x


@triton.jit
def step_kernel(
    owner,
    table,
    numbers,
    scale,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    GRAD: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    CORRECTION: tl.constexpr,
    AMSGRAD: tl.constexpr,
    THETA: tl.constexpr,
    SCALE: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Program p updates one block of tensor ``owner[p]``.

    LAYOUT says where state lies; WEIGHT, GRAD, FIRST and SECOND how weight, gradient and moments are stored. VECTOR
    reads weights and gradients whether they are kept or not, in wide loads: best while few 32-byte sectors are empty.
    """
    program = tl.program_id(0)
    number = tl.load(owner + program).to(tl.int64)
    row = table + number * COLUMNS
    numel = tl.load(row + _NUMEL)
    block = program - tl.load(row + _FIRST_PROGRAM)
    low = block * BLOCK
    place = places()
    inside = low + place < numel
    whole = low + BLOCK <= numel

    if LAYOUT == WHOLE:
        live = inside
    else:
        byte = mask_bytes(tl.load(row + 8), block, numel)
        live = spread(byte)
    if LAYOUT == COMPACT:
        origin = start(tl.load(row + 9), block)
        slot = ranks(byte)
        stored = live
    else:
        origin = low
        slot = place
        stored = inside

    weight = tl.load(row)
    if VECTOR:
        g = load(tl.load(row + 1), low, place, inside, whole, GRAD, ALIGNED)
    else:
        g = load(tl.load(row + 1), low, place, live, False, GRAD, ALIGNED)
    if SCALE:
        g = g * tl.load(scale).to(tl.float32)
    STATE_WHOLE: tl.constexpr = LAYOUT != COMPACT
    all_stored = whole & STATE_WHOLE

    unit_m = 0.0
    unit_v = 0.0
    if FIRST == CODES:
        unit_m = formats.load_units(tl.load(row + 5), block, numel)
        unit_v = formats.load_units(tl.load(row + 6), block, numel)
    m = load_moment(tl.load(row + 2), origin, slot, stored, all_stored, unit_m, False, FIRST, ALIGNED)
    v = load_moment(tl.load(row + 3), origin, slot, stored, all_stored, unit_v, True, SECOND, ALIGNED)
    x = v
    if AMSGRAD:
        x = load(tl.load(row + 4), origin, slot, stored, all_stored, SECOND, ALIGNED)
    if CORRECTION:
        short = load_raw(weight, low, place, inside, whole, tl.int16, ALIGNED)
        w = formats.join(short, load_raw(tl.load(row + 7), origin, slot, stored, all_stored, tl.int8, ALIGNED))
    elif VECTOR:
        w = load(weight, low, place, inside, whole, WEIGHT, ALIGNED)
    else:
        w = load(weight, low, place, live, False, WEIGHT, ALIGNED)

    w, m, v, x = update(w, g, m, v, x, numbers + number * _NUMBERS, AMSGRAD, THETA)
    # Masked weights and their dense state are zero, and are stored as zero again: nothing else can creep in.
    w = tl.where(live, w, 0.0)
    m = tl.where(live, m, 0.0)
    v = tl.where(live, v, 0.0)
    x = tl.where(live, x, 0.0)

    if FIRST == CODES or CORRECTION:
        seed = tl.load((numbers + number * _NUMBERS + 10).to(tl.pointer_type(tl.int32)))
        word_v, word_m, word_w = formats.noise(low + place, seed)
    if FIRST == CODES:
        units_m = formats.new_units(m, False)
        units_v = formats.new_units(v, True)
        formats.store_units(tl.load(row + 5), block, numel, units_m)
        formats.store_units(tl.load(row + 6), block, numel, units_v)
        code_m = formats.encode_first(m, formats.per_row(units_m), word_m)
        code_v = formats.encode_second(v, formats.per_row(units_v), word_v)
        store_raw(tl.load(row + 2), origin, slot, code_m, stored, all_stored, tl.int8, ALIGNED)
        store_raw(tl.load(row + 3), origin, slot, code_v, stored, all_stored, tl.uint8, ALIGNED)
    else:
        store(tl.load(row + 2), origin, slot, m, stored, all_stored, FIRST, ALIGNED)
        store(tl.load(row + 3), origin, slot, v, stored, all_stored, SECOND, ALIGNED)
    if AMSGRAD:
        store(tl.load(row + 4), origin, slot, x, stored, all_stored, SECOND, ALIGNED)
    if CORRECTION:
        upper, lower = formats.split(w, word_w)
        upper = tl.where(live, upper, 0)
        store_raw(tl.load(row + 7), origin, slot, tl.where(live, lower, 0), stored, all_stored, tl.int8, ALIGNED)
        store_raw(weight, low, place, upper, inside, whole, tl.int16, ALIGNED)
    elif VECTOR:
        store(weight, low, place, w, inside, whole, WEIGHT, ALIGNED)
    else:
        store(weight, low, place, w, live, False, WEIGHT, ALIGNED)
