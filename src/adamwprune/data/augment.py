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
