# SPDX-License-Identifier: MIT
"""Augmentation of batches, against moving, mirroring and painting image by image."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.data.augment import cutout, flip, shift


@given(
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    channels=st.integers(1, 3),
    limit=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_shifts_against_moving_pixel_by_pixel(height: int, width: int, channels: int, limit: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (4, channels, height, width), generator=generator).to(torch.uint8)
    offsets = torch.randint(-limit, limit + 1, (4, 2), generator=generator)
    expected = torch.zeros_like(images)
    for number, (down, right) in enumerate(offsets.tolist()):
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + right < width:
                    expected[number, :, row + down, column + right] = images[number, :, row, column]
    assert torch.equal(shift(images, offsets, limit), expected)


def test_flips_mirror_the_chosen_images_only() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    result = flip(images, torch.tensor([True, False]))
    assert torch.equal(result[1], images[1])
    assert [row.tolist() for row in result[0, 0]] == [row.tolist()[::-1] for row in images[0, 0]]


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    size=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_cutout_against_painting_pixel_by_pixel(height: int, width: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (3, 2, height, width), generator=generator).to(torch.uint8)
    centers = torch.stack([torch.randint(0, side, (3,), generator=generator) for side in (height, width)], 1)
    fill = torch.tensor([7, 200])
    expected = images.clone()
    for image, (middle, center) in zip(expected, centers.tolist(), strict=True):
        top, left = middle - size // 2, center - size // 2
        image[:, max(top, 0) : top + size, max(left, 0) : left + size] = fill.view(2, 1, 1)
    assert torch.equal(cutout(images, centers, size, fill), expected)
