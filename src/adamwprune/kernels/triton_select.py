# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""A mask update's passes over tensors: score on the fly, count digits of the scores' keys, pick, mark.

Scores see the operations of csrc/select.h in the same order, so that masks are the native kernel's.
"""

from __future__ import annotations

import triton
import triton.language as tl

from adamwprune.kernels import triton_formats as formats
from adamwprune.kernels.triton_language import (
    BLOCK,
    BYTES,
    CODES,
    COMPACT,
    FLOAT32,
    WHOLE,
    load,
    mask_bytes,
    places,
    ranks,
    spread,
    start,
)
from adamwprune.kernels.triton_update import load_moment

#: Scores by number, in the order of :data:`adamwprune.kernels.known.SCORE_NAMES`.
MAGNITUDE = tl.constexpr(0)
HYBRID = tl.constexpr(1)
SCALE_AWARE = tl.constexpr(2)
STATE = tl.constexpr(3)
FISHER = tl.constexpr(4)
TAYLOR = tl.constexpr(5)
MOVEMENT = tl.constexpr(6)

#: Columns of the table of tensors (int64).
ADDRESSES = (
    "weight", "grad", "exp_avg", "exp_avg_sq", "exp_avg_unit", "exp_avg_sq_unit", "movement", "bits", "starts",
    "grad_factor",
)  # fmt: skip
COLUMNS = tl.constexpr(12)
_NUMEL = tl.constexpr(10)
_FIRST_PROGRAM = tl.constexpr(11)

#: Columns of the table of numbers (float32): 1 - beta1^t, 1 - beta2^t, epsilon.
NUMBERS = tl.constexpr(3)

#: Columns of the table of selections (int32): digits found so far, the rank among the scores that have them, how many
#: scores lie below those, how many have the last digit too, and how many are not finite.
SELECTION = tl.constexpr(5)


@triton.jit
def block_scores(
    row,
    numbers,
    block,
    SCORE: tl.constexpr,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """Scores of a block's weights (float32 [BYTES, 8], 0 where masked), and which are kept."""
    numel = tl.load(row + _NUMEL)
    low = block * BLOCK
    place = places()
    live = low + place < numel
    origin, slot = low, place
    if LAYOUT != WHOLE:
        byte = mask_bytes(tl.load(row + 7), block, numel)
        live = spread(byte)
        if LAYOUT == COMPACT:
            origin, slot = start(tl.load(row + 8), block), ranks(byte)
    if SCORE == MOVEMENT:
        score = load(tl.load(row + 6), origin, slot, live, False, FLOAT32, False)
    else:
        w = load(tl.load(row), low, place, live, False, WEIGHT, False)
        score = tl.abs(w)
    if SCORE == TAYLOR:
        g = load(tl.load(row + 1), low, place, live, False, WEIGHT, False)
        factor = tl.load(row + 9).to(tl.pointer_type(tl.float32))
        # Without a factor nothing is read, and 1 stands for it.
        g = g * tl.load(factor, mask=tl.load(row + 9) != 0, other=1.0)
        score = tl.abs(w * g)
    if SCORE == HYBRID or SCORE == SCALE_AWARE:  # noqa: SIM109
        unit = 0.0
        if FIRST == CODES:
            unit = formats.load_units(tl.load(row + 4), block, numel)
        m = load_moment(tl.load(row + 2), origin, slot, live, False, unit, False, FIRST, False)
        m = tl.abs(tl.div_rn(m, tl.broadcast_to(tl.load(numbers), m.shape)))
    if SCORE != MOVEMENT and SCORE != TAYLOR and SCORE != MAGNITUDE:
        unit = 0.0
        if SECOND == CODES:
            unit = formats.load_units(tl.load(row + 5), block, numel)
        v = load_moment(tl.load(row + 3), origin, slot, live, False, unit, True, SECOND, False)
        v = tl.sqrt_rn(tl.div_rn(v, tl.broadcast_to(tl.load(numbers + 1), v.shape)))
    if SCORE == HYBRID:
        score = tl.div_rn(w * w * m, v + tl.load(numbers + 2))
    elif SCORE == SCALE_AWARE:
        score = tl.div_rn(score * v, m + tl.load(numbers + 2))
    elif SCORE == STATE:
        score = score * tl.sqrt_rn(v)
    elif SCORE == FISHER:
        score = score * v
    return tl.where(live, score, 0.0), live


@triton.jit
def unsigned_key(score):
    """Scores as uint32 that order alike; both zeros share one."""
    bits = (score + 0.0).to(tl.int32, bitcast=True)
    signed = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return signed.to(tl.uint32, bitcast=True) ^ 0x80000000


@triton.jit
def histogram_kernel(
    owner,
    table,
    numbers,
    selection,
    counts,
    blocks_each,
    SHIFT: tl.constexpr,
    BINS: tl.constexpr,
    FINITE: tl.constexpr,
    SCORE: tl.constexpr,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """Count one digit of the keys whose higher digits are the ones found; ``blocks_each`` blocks to a program.

    FINITE: the first pass, which counts the scores that are not finite, too.
    """
    program = tl.program_id(0)
    number = tl.load(owner + program).to(tl.int64)
    row = table + number * COLUMNS
    found = selection + number * SELECTION
    first = (program - tl.load(row + _FIRST_PROGRAM)) * blocks_each
    blocks = (tl.load(row + _NUMEL) + BLOCK - 1) // BLOCK
    prefix = tl.load(found).to(tl.uint32, bitcast=True)
    histogram = tl.zeros((BINS,), tl.int32)
    bad = 0
    for block in range(first, min(first + blocks_each, blocks)):
        score, live = block_scores(row, numbers + number * NUMBERS, block, SCORE, LAYOUT, WEIGHT, FIRST, SECOND)
        key = unsigned_key(score)
        if FINITE:
            bad += tl.sum(tl.sum((live & ~(tl.abs(score) < float("inf"))).to(tl.int32), 1), 0)
            counted = live
        else:
            counted = live & ((key >> SHIFT) // BINS == prefix)
        digit = ((key >> SHIFT) % BINS).to(tl.int32)
        histogram += tl.histogram(tl.reshape(digit, (BLOCK,)), BINS, mask=tl.reshape(counted, (BLOCK,)))
    bins = tl.arange(0, BINS)
    tl.atomic_add(counts + number * BINS + bins, histogram, mask=histogram > 0)
    if FINITE:
        tl.atomic_add(found + 4, bad, mask=bad > 0)


@triton.jit
def pick_kernel(selection, counts, BINS: tl.constexpr):
    """Of each tensor: the digit under which its rank falls."""
    number = tl.program_id(0).to(tl.int64)
    found = selection + number * SELECTION
    bins = tl.arange(0, BINS)
    count = tl.load(counts + number * BINS + bins)
    rank = tl.load(found + 1)
    digit = tl.sum((tl.cumsum(count, 0) < rank).to(tl.int32), 0)
    below = tl.sum(tl.where(bins < digit, count, 0), 0)
    tl.store(found, tl.load(found) * BINS + digit)
    tl.store(found + 1, rank - below)
    tl.store(found + 2, tl.load(found + 2) + below)
    tl.store(found + 3, tl.sum(tl.where(bins == digit, count, 0), 0))


@triton.jit
def scores_kernel(
    table,
    numbers,
    out,
    PACKED: tl.constexpr,
    SCORE: tl.constexpr,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """Write one tensor's scores: of the kept weights one after the other (PACKED), or of all, 0 where masked."""
    block = tl.program_id(0).to(tl.int64)
    score, live = block_scores(table, numbers, block, SCORE, LAYOUT, WEIGHT, FIRST, SECOND)
    if PACKED and LAYOUT != WHOLE:
        slot = ranks(mask_bytes(tl.load(table + 7), block, tl.load(table + _NUMEL)))
        tl.store(out + start(tl.load(table + 8), block) + slot, score, mask=live)
    else:
        tl.store(out + block * BLOCK + places(), score, mask=block * BLOCK + places() < tl.load(table + _NUMEL))


@triton.jit
def pack(keep):
    """bool [BYTES, 8] as bytes, int32 [BYTES]."""
    return tl.sum(keep.to(tl.int32) << tl.arange(0, 8)[None, :], axis=1)


@triton.jit
def count_kernel(
    table,
    numbers,
    above,
    equal,
    threshold,
    SCORE: tl.constexpr,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """Of each block: how many scores lie above the threshold, and how many on it."""
    block = tl.program_id(0).to(tl.int64)
    score, live = block_scores(table, numbers, block, SCORE, LAYOUT, WEIGHT, FIRST, SECOND)
    tl.store(above + block, tl.sum(tl.sum((live & (score > threshold)).to(tl.int32), 1), 0))
    tl.store(equal + block, tl.sum(tl.sum((live & (score == threshold)).to(tl.int32), 1), 0))


@triton.jit
def mark_kernel(
    table,
    numbers,
    equal_before,
    marks,
    threshold,
    spare,
    SCORE: tl.constexpr,
    LAYOUT: tl.constexpr,
    WEIGHT: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
):
    """Mark the weights whose scores lie above the threshold, and the first ``spare`` that lie on it."""
    block = tl.program_id(0).to(tl.int64)
    score, live = block_scores(table, numbers, block, SCORE, LAYOUT, WEIGHT, FIRST, SECOND)
    tie = live & (score == threshold)
    keep = (live & (score > threshold)) | (tie & (tl.load(equal_before + block) + ranks(pack(tie)) < spare))
    number = block * BYTES + tl.arange(0, BYTES)
    tl.store(marks + number, pack(keep).to(tl.uint8), mask=number * 8 < tl.load(table + _NUMEL))
