# SPDX-License-Identifier: MIT
"""Augmentation of whole batches of images, by numbers that are drawn once an epoch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, offsets: Tensor, limit: int) -> Tensor:
    """Move each image by its ``offsets`` (rows, columns; between -limit and limit); what enters is zero (black).

    The padded batch is seen as all its windows at once, and one gather takes each image's window.
    """
    height, width = images.shape[-2:]
    padded = functional.pad(images, (limit,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = (limit - offsets).unbind(1)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror left and right those images whose entry in ``mirrored`` is true."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)


def cutout(images: Tensor, centers: Tensor, size: int, fill: Tensor) -> Tensor:
    """Paint a square of ``size`` pixels over each image (DeVries and Taylor 2017), in ``fill``, a colour per channel.

    ``centers`` are rows and columns anywhere in the image, so that squares at its border are cut off by it.
    """
    rows, columns = (
        (torch.arange(side, device=images.device) - center[:, None] + size // 2) // size == 0
        for side, center in zip(images.shape[-2:], centers.unbind(1), strict=True)
    )
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(square, fill.to(images.dtype).view(-1, 1, 1), images)
