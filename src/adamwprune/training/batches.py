# SPDX-License-Identifier: MIT
"""The order of an epoch: which examples in which batch, and how each is augmented.

Everything is drawn at once from a generator seeded by run seed and epoch, on the CPU: the same on every device,
and a run that resumes in the middle of an epoch draws it again instead of storing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adamwprune.data import DatasetInfo, Split, StreamInfo
from adamwprune.data.augment import cutout, flip, shift


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Full batches in an epoch; what is left over sits this epoch out."""
    return examples // batch_size


def divisors(share: int) -> Iterator[int]:
    """Into how many equal parts a rank's share can be cut, the fewest first."""
    return (parts for parts in range(1, share + 1) if share % parts == 0)


def parts_of(share: int, most: int) -> int:
    """The fewest equal parts of a share that hold at most so many examples.

    >>> parts_of(96, 40)
    3
    """
    return next(parts for parts in divisors(share) if share // parts <= most)


def seed_of(purpose: str, seed: int, epoch: int = 0) -> int:
    """A seed of its own for each purpose and epoch of a run."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Pixels in [0, 255] to numbers of mean 0 and variance 1, with one mean and deviation for every split."""

    offset: Tensor
    scale: Tensor

    @classmethod
    def of(cls, info: DatasetInfo | StreamInfo, device: torch.device) -> Normalizer:
        """The normaliser of a data set."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (info.mean, info.std))
        return cls(255.0 * mean, 1.0 / (255.0 * std))

    def __call__(self, images: Tensor) -> Tensor:
        """Float images, ready for a network."""
        # Bytes minus floats, in one step, would take torch's slow path for mixed types.
        return images.to(torch.float32, copy=True).sub_(self.offset).mul_(self.scale)


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch's batches."""

    split: Split
    batch_size: int
    order: Tensor
    limit: int
    offsets: Tensor | None
    mirrored: Tensor | None
    #: Side of the squares that are cut out, their centers, and their colour.
    square: int
    centers: Tensor | None
    fill: Tensor

    @classmethod
    def draw(
        cls,
        split: Split,
        info: DatasetInfo,
        *,
        batch_size: int,
        augment: bool,
        seed: int,
        epoch: int,
        square: int = 0,
    ) -> Epoch:
        """Draw the epoch's order and augmentation."""
        generator = torch.Generator().manual_seed(seed_of("epoch", seed, epoch))
        device, examples = split.labels.device, len(split)
        order = torch.randperm(examples, generator=generator).to(device)
        offsets = mirrored = centers = None
        if augment and info.shift:
            offsets = torch.randint(-info.shift, info.shift + 1, (examples, 2), generator=generator).to(device)
        if augment and info.flip:
            mirrored = torch.randint(0, 2, (examples,), generator=generator).bool().to(device)
        if augment and square:
            sides = [torch.randint(side, (examples,), generator=generator) for side in info.shape[1:]]
            centers = torch.stack(sides, 1).to(device)
        mean = (255 * torch.tensor(info.mean)).round().to(device)
        return cls(split, batch_size, order, info.shift, offsets, mirrored, square, centers, mean)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Images (uint8) and labels of a batch."""
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        chosen = self.split.take(self.order[part])
        images = chosen.images
        if self.offsets is not None:
            images = shift(images, self.offsets[part], self.limit)
        if self.mirrored is not None:
            images = flip(images, self.mirrored[part])
        if self.centers is not None:
            images = cutout(images, self.centers[part], self.square, self.fill)
        return images, chosen.labels
