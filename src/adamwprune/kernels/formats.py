# SPDX-License-Identifier: MIT
"""How state is stored in fewer bits than float32: 8-bit moments, and a bfloat16 weight's missing bits.

Weights are grouped by their place in the tensor, :data:`GROUP` consecutive ones together, whether they are kept or not.
A group's codes share one unit. Because groups do not depend on what is kept, compacting moves codes and never
requantises: compact state gives the bits of a dense masked run here, too.

Codes are companded, so that entries far below their group's largest keep a digit: a first moment is
``unit * c * |c|`` with ``c`` in [-127, 127], a second moment ``unit * c**4`` with ``c`` in [0, 255]. Rounding is
stochastic and unbiased in the value: a moment that changes by a thousandth a step would never leave its code otherwise,
and a stuck first moment over a fading second one makes steps without bound. For the same reason no second moment above
zero gets code 0.
The noise is a hash of the weight's place and the step, so that a run repeats bit for bit.

A group whose largest entry is NaN or infinite is lost as a whole: its unit says so, and every entry reads as NaN.

Prior art: 8-bit optimizers (Dettmers et al., arXiv 2110.02861), FlashOptim (arXiv 2602.23349).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Consecutive weights of a tensor that share a unit; four groups make a block of the native layout.
GROUP = 256

#: Names of the units beside the codes, float32 ``[ceil(n / GROUP)]`` of a tensor of n weights.
UNITS = {"exp_avg": "exp_avg_unit", "exp_avg_sq": "exp_avg_sq_unit"}

#: Types of the codes.
CODES = {"exp_avg": torch.int8, "exp_avg_sq": torch.uint8}

#: int8, one per kept weight: what a bfloat16 weight lacks of its 24-bit value (:func:`split`).
CORRECTION = "correction"

#: Groups whose largest moment lies below are stored as zeros: their units would leave float32's normal range.
LEAST_FIRST, LEAST_SECOND = 1e-30, 1e-28

#: What the largest code stands for, in units.
MOST_FIRST, MOST_SECOND = 127.0**2, 255.0**4

_WORD = 0xFFFFFFFF

#: Odd factors of the noise: a place's, which makes the second word of the first, too; the seed's, which makes the third
#: of the second; and two that mix.
NOISE_PLACE, NOISE_SEED = 0x9E3779B1, 0x85EBCA77
NOISE_MIX, NOISE_REMIX = 0x7FEB352D, 0x846CA68B

#: Steps after which the noise of a place is that of the next one now: the quotient of the two factors (modulo 2³²).
_PLACES_IN_STEPS = NOISE_PLACE * pow(NOISE_SEED, -1, _WORD + 1) & _WORD

_NAN_BITS, _INF_BITS = 0x7FC00000, 0x7F800000


def noise(index: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three 32-bit random words (as int64) of each weight: for the second moment, the first, the weight.

    Args:
        index: places in the flat tensor, int64.
        seed: number of the update, from 1, or what :func:`seed` makes of it.

    ``lowbias32`` of a linear combination of the two; the second and third word are multiples of the first, of which
    only upper bits are used.
    """
    x = (index * NOISE_PLACE + seed * NOISE_SEED) & _WORD
    x = ((x ^ (x >> 16)) * NOISE_MIX) & _WORD
    x = ((x ^ (x >> 15)) * NOISE_REMIX) & _WORD
    second = x ^ (x >> 16)
    first = (second * NOISE_PLACE) & _WORD
    return second, first, (first * NOISE_SEED) & _WORD


def seed(step: int, first: int) -> int:
    """The number that stands for ``step`` in :func:`noise` where places count from weight ``first`` of a tensor.

    So rows of a tensor that lie on several ranks get the noise that the whole tensor has.
    """
    return (step + first * _PLACES_IN_STEPS) & _WORD


def uniform(word: Tensor) -> Tensor:
    """A 32-bit word as float32 in [0, 1): its upper 24 bits."""
    return (word >> 8).to(torch.float32) * 2.0**-24


def decode_first(codes: Tensor, units: Tensor, group: Tensor) -> Tensor:
    """First moments, float32: ``codes`` int8, ``units`` of the groups, ``group`` the number of each code's."""
    c = codes.to(torch.float32)
    return (c * c.abs()) * units[group]


def decode_second(codes: Tensor, units: Tensor, group: Tensor) -> Tensor:
    """Second moments, float32: ``codes`` uint8, the rest as in :func:`decode_first`."""
    square = codes.to(torch.float32).square()
    return (square * square) * units[group]


def encode_first(moment: Tensor, group: Tensor, groups: int, word: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes (int8) and units of float32 first moments; ``word`` None rounds to the nearest value."""
    units = _units(moment.abs(), group, groups, LEAST_FIRST, MOST_FIRST)
    return code_first(moment, units, group, word), units


def encode_second(moment: Tensor, group: Tensor, groups: int, word: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes (uint8) and units of float32 second moments; ``word`` None rounds to the nearest value."""
    units = _units(moment, group, groups, LEAST_SECOND, MOST_SECOND)
    return code_second(moment, units, group, word), units


def code_first(moment: Tensor, units: Tensor, group: Tensor, word: Tensor | None) -> Tensor:
    """Codes of first moments for given units."""
    ratio = _times(moment.abs(), units.reciprocal(), units, group)
    low = ratio.sqrt().floor().clamp_(max=127)
    gap = (low + 1).square() - low.square()
    c = low + _rounds_up(ratio - low.square(), gap, word)
    return c.clamp_(max=127).copysign(moment).to(torch.int8)


def code_second(moment: Tensor, units: Tensor, group: Tensor, word: Tensor | None) -> Tensor:
    """Codes of second moments for given units, by way of their roots: the update has just taken those."""
    root = _times(moment.sqrt(), units.sqrt().reciprocal(), units, group)
    ratio = root.square()
    low = root.sqrt().floor().clamp_(max=255)
    fourth = low.square().square()
    gap = (low + 1).square().square() - fourth
    c = (low + _rounds_up(ratio - fourth, gap, word)).clamp_(max=255)
    return torch.where((c == 0) & (root > 0), 1.0, c).to(torch.uint8)


def _units(size: Tensor, group: Tensor, groups: int, least: float, most: float) -> Tensor:
    """A group's largest entry over ``most``, the largest code's value; 0 where all are (nearly) zero."""
    # As integers, because there NaN compares: above infinity.
    bits = torch.zeros(groups, dtype=torch.int32, device=size.device)
    bits.scatter_reduce_(0, group, size.abs().view(torch.int32), "amax")
    bits.masked_fill_(bits > _INF_BITS, _NAN_BITS)
    largest = bits.view(torch.float32)
    return torch.where(largest < least, 0.0, largest / most)


def _times(size: Tensor, factor: Tensor, units: Tensor, group: Tensor) -> Tensor:
    """Entries times their groups' factors; 0 where the unit is 0, NaN or infinite."""
    usable = units.isfinite() & (units > 0)
    return torch.where(usable[group], size * factor[group], 0.0)


def _rounds_up(rest: Tensor, gap: Tensor, word: Tensor | None) -> Tensor:
    """Whether the value ``rest`` above a code goes up to the next, ``gap`` above it."""
    share = 0.5 if word is None else uniform(word)
    return (share * gap < rest).to(torch.float32)


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a tensor's codes. Called, it decodes."""

    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Units | None:
        """Those of a tensor's state; None where it is not in codes."""
        coded = "exp_avg" in state and state["exp_avg"].dtype == CODES["exp_avg"]
        return cls(*(state[name] for name in UNITS.values())) if coded else None

    def __call__(self, name: str, codes: Tensor, index: Tensor) -> Tensor:
        """Moments ``name`` (``exp_avg`` or ``exp_avg_sq``), float32, from the codes of the weights at ``index``."""
        group = index // GROUP
        if name == "exp_avg":
            return decode_first(codes, self.first, group)
        return decode_second(codes, self.second, group)

    def chunk(self, low: int, high: int) -> Units:
        """The units of weights ``low`` to ``high``, a view; ``low`` is a multiple of :data:`GROUP`."""
        groups = slice(low // GROUP, -(-high // GROUP))
        return Units(self.first[groups], self.second[groups])


def encode(name: str, moment: Tensor, index: Tensor, units: Tensor, word: Tensor | None) -> Tensor:
    """Codes of moments of the weights at ``index``; their units are written into ``units``."""
    encoder = encode_first if name == "exp_avg" else encode_second
    codes, fresh = encoder(moment, index // GROUP, units.numel(), word)
    units.copy_(fresh)
    return codes


def join(weight: Tensor, correction: Tensor) -> Tensor:
    """The 24-bit values (as float32) that bfloat16 weights and their corrections stand for."""
    bits = weight.view(torch.int16).to(torch.int32) * 65536 + correction.to(torch.int32) * 256
    return bits.view(torch.float32)


def split(value: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """bfloat16 weights and int8 corrections of float32 values, rounded stochastically to 24 bits.

    Of the 24 bits the weight holds the upper 16, rounded half up, and the correction is what that changed:
    :func:`join` gives the 24 bits back exactly. Infinite values and NaN are kept, with correction 0.
    """
    bits = value.view(torch.int32).to(torch.int64) & _WORD
    wild = ~value.isfinite()
    upper = (bits + (word >> 24)) >> 8
    high = (upper + 0x80) >> 8
    low = torch.where(wild, 0, upper - high * 256)
    kept = torch.where(value.isnan(), _NAN_BITS >> 16, torch.where(wild, bits >> 16, high))
    signed = torch.where(kept >= 0x8000, kept - 0x10000, kept)
    return signed.to(torch.int16).view(torch.bfloat16), low.to(torch.int8)
