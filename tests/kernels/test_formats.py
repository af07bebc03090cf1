# SPDX-License-Identifier: MIT
"""The 8-bit codes and the correction: what they keep, how they round, and that they come back as they were."""

from __future__ import annotations

import pytest
import torch

from adamwprune.kernels import formats

N = 1000
INDEX = torch.arange(N)
GROUP = INDEX // formats.GROUP
GROUPS = -(-N // formats.GROUP)

#: Name, encoder, its codes for given units, decoder.
MOMENTS = {
    "first": (formats.encode_first, formats.code_first, formats.decode_first),
    "second": (formats.encode_second, formats.code_second, formats.decode_second),
}
by_moment = pytest.mark.parametrize("kind", MOMENTS)


def moments(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, generator=generator) * torch.rand(N, generator=generator) ** 4
    return x if kind == "first" else x.square()


@by_moment
@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1.0, 1e6])
def test_every_code_comes_back_from_its_value(kind, scale):
    """What a checkpoint relies on: the nearest code to a decoded value is the code."""
    _, code, decode = MOMENTS[kind]
    codes = torch.arange(-127, 128, dtype=torch.int8) if kind == "first" else torch.arange(256, dtype=torch.uint8)
    units = torch.tensor([scale * 0.7310585])
    group = torch.zeros(len(codes), dtype=torch.int64)
    assert torch.equal(code(decode(codes, units, group), units, group, None), codes)


@by_moment
def test_the_nearest_value_is_chosen(kind):
    """Against a search over all values that a group can hold."""
    encode, _, decode = MOMENTS[kind]
    x = moments(kind)
    codes, units = encode(x, GROUP, GROUPS, None)
    every = torch.arange(-127, 128) if kind == "first" else torch.arange(256)
    values = every * every.abs() if kind == "first" else every**4
    best = (x[:, None] - values * units[GROUP][:, None]).abs().min(1).values
    error = (x - decode(codes, units, GROUP)).abs()
    lifted = (codes == 1) & (error > best) if kind == "second" else torch.zeros(N, dtype=torch.bool)
    torch.testing.assert_close(error[~lifted], best[~lifted], rtol=1e-3, atol=1e-6)
    assert (error[lifted] <= units[GROUP][lifted]).all()
    largest = torch.stack([part.abs().max() for part in x.split(formats.GROUP)])
    torch.testing.assert_close(decode(codes, units, GROUP).abs().split(formats.GROUP)[0].max(), largest[0])


@by_moment
def test_rounding_is_unbiased_in_the_value(kind):
    """Over four hundred steps the mean of the decoded values is the value: to four standard errors."""
    encode, _, decode = MOMENTS[kind]
    x = moments(kind)
    words = [formats.noise(INDEX, step)[1 if kind == "first" else 0] for step in range(1, 401)]
    seen = torch.stack([decode(*encode(x, GROUP, GROUPS, word), GROUP) for word in words]).double()
    error = (seen.mean(0) - x.double()) / (seen.std(0) / 20).clamp_min(1e-12 * x.abs().max())
    usual = (seen.min(0).values > 0) if kind == "second" else torch.ones(N, dtype=torch.bool)
    above_first_code = seen.std(0) > 0
    assert error[usual & above_first_code].abs().quantile(0.99) < 4
    assert abs(float(error[usual & above_first_code].mean())) < 0.2


def test_a_second_moment_above_zero_never_reads_as_zero():
    x = moments("second")
    x[::7] = 0
    codes, _ = formats.encode_second(x, GROUP, GROUPS, formats.noise(INDEX, 3)[0])
    assert torch.equal(codes > 0, x > 0)


@by_moment
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_group_with_a_wild_entry_is_lost_and_the_others_are_not(kind, bad):
    encode, _, decode = MOMENTS[kind]
    x = moments(kind)
    expected = decode(*encode(x, GROUP, GROUPS, None), GROUP)
    x[300] = bad
    read = decode(*encode(x, GROUP, GROUPS, None), GROUP)
    assert not read[GROUP == 1].isfinite().any()
    assert torch.equal(read[GROUP != 1], expected[GROUP != 1])


def test_the_upper_bits_and_the_correction_are_24_bits_of_the_value():
    value = torch.randn(N) * torch.rand(N) ** 6
    weight, correction = formats.split(value, torch.zeros(N, dtype=torch.int64))
    exact = (value.view(torch.int32) & ~0xFF).view(torch.float32)
    assert torch.equal(formats.join(weight, correction), exact)
    torch.testing.assert_close(weight.float(), value, rtol=2.0**-8, atol=0)
    again = formats.split(exact, formats.noise(INDEX, 9)[2])
    assert torch.equal(again[0], weight)
    assert torch.equal(again[1], correction)


def test_wild_weights_stay_wild():
    value = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0])
    weight, correction = formats.split(value, torch.full((5,), 0xFFFFFFFF))
    assert torch.equal(weight.float().nan_to_num(7.0, posinf=8.0, neginf=9.0)[:3], torch.tensor([8.0, 9.0, 7.0]))
    assert not correction[:3].count_nonzero()


def test_splitting_rounds_without_bias():
    value = torch.randn(N)
    words = [formats.noise(INDEX, step)[2] for step in range(1, 257)]
    seen = torch.stack([formats.join(*formats.split(value, word)) for word in words]).double()
    step = 2.0 ** (value.double().abs().log2().floor() - 15)
    assert ((seen.mean(0) - value.double()) / step).abs().max() < 0.15
    assert abs(float(((seen.mean(0) - value.double()) / step).mean())) < 0.01


def test_noise_differs_by_place_step_and_word():
    words = torch.stack([word for step in (1, 2, 3) for word in formats.noise(INDEX, step)])
    shares = formats.uniform(words.flatten())
    assert shares.min() >= 0
    assert shares.max() < 1
    assert abs(float(shares.mean()) - 0.5) < 0.01
    correlation = torch.corrcoef(formats.uniform(words)) - torch.eye(len(words))
    assert correlation.abs().max() < 0.12
