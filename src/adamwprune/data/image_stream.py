# SPDX-License-Identifier: MIT
"""Batches of a data set that does not fit into memory: read, decoded and cropped ahead of the training, by threads.

The order of an epoch and every crop are functions of seed and epoch. Batch ``n`` is the same batch however often, and
whenever, it is asked for: a run that goes on asks for the next one, and there is no state to store.
"""

from __future__ import annotations

import io
import math
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adamwprune.data.augment import flip
from adamwprune.data.dataset import DataError
from adamwprune.data.image_index import Index

#: Shards that are mixed with each other; those of the next group are read after them.
MIX = 16
#: Crops as He et al. draw them: share of the image, and ratio of width to height.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
#: Evaluation takes this share of the shorter side, from the middle.
CENTER = 0.875
#: More images than this share that do not decode end the run; a few are tolerated in any case.
BROKEN, FEW = 0.01, 10

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Box = tuple[float, float, float, float]
#: Four numbers in [0, 1) that decide a crop.
Draw = tuple[float, float, float, float]


def order(index: Index, generator: torch.Generator) -> Tensor:
    """Images in random order; of shards, so few at a time that reading stays local."""
    images = torch.randperm(len(index), generator=generator)
    if len(index.files) == len(index):
        return images
    group = torch.randperm(len(index.files), generator=generator) // MIX
    return images[torch.argsort(group[torch.from_numpy(index.file)[images]], stable=True)]


def crop(width: int, height: int, draw: Draw) -> Box:
    """A random part of an image from four numbers in [0, 1): area, ratio (log-uniform), and place."""
    area = (AREA[0] + draw[0] * (AREA[1] - AREA[0])) * width * height
    ratio = math.exp(math.log(RATIO[0]) + draw[1] * (math.log(RATIO[1]) - math.log(RATIO[0])))
    wide, high = min(math.sqrt(area * ratio), width), min(math.sqrt(area / ratio), height)
    left, top = draw[2] * (width - wide), draw[3] * (height - high)
    return left, top, left + wide, top + high


def center(width: int, height: int) -> Box:
    """The square in the middle of an image."""
    side = CENTER * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def decode(content: bytes, size: int, draw: Draw | None) -> Pixels:
    """An image as ``size`` by ``size`` pixels (channels first): of a random part, or of the middle."""
    with Image.open(io.BytesIO(content)) as image:

        def box() -> Box:
            return center(*image.size) if draw is None else crop(*image.size, draw)

        left, top, right, bottom = box()
        scale = size / min(right - left, bottom - top)
        if scale < 1:  # JPEG decodes at a half, quarter or eighth many times faster
            image.draft("RGB", (math.ceil(scale * image.width), math.ceil(scale * image.height)))
        part = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box())
        return np.array(part).transpose(2, 0, 1)


class ImageStream:
    """One pass over an index. Close it, or use it in a ``with`` statement: its threads end then.

    Args:
        size: Rows and columns of the images that come out.
        seed: Of order, crops and flips. None: in the index's order, the middle of each image, the last batch perhaps
            smaller.
        workers: Threads that read and decode.
        ahead: Batches that are decoded before they are asked for.
    """

    def __init__(
        self,
        index: Index,
        *,
        size: int,
        batch_size: int,
        seed: int | None,
        device: torch.device,
        workers: int = 4,
        ahead: int = 2,
        stride: int = 1,
    ) -> None:
        if batch_size < 1 or (seed is not None and batch_size > len(index)):
            raise ValueError(f"batch_size={batch_size} must be between 1 and the {len(index)} images")
        self.index, self.size, self.batch_size, self.device = index, size, batch_size, device
        #: Why each image that did not decode did not; the next one of the pass stood in for it.
        self.broken: dict[str, str] = {}
        self._draws: list[Draw] | None = None
        self._mirrored: Tensor | None = None
        if seed is None:
            self._order = list(range(len(index)))
        else:
            generator = torch.Generator().manual_seed(seed)
            self._order = order(index, generator).tolist()
            self._draws = torch.rand(len(index), 4, generator=generator).tolist()
            self._mirrored = torch.randint(0, 2, (len(index),), generator=generator).bool()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._ahead, self._stride = ahead, stride
        self._pending: dict[int, list[Future[tuple[Pixels, int]]]] = {}

    def __enter__(self) -> ImageStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what they were asked for ahead is dropped."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def __len__(self) -> int:
        """Batches of the pass."""
        whole = len(self.index) / self.batch_size
        return math.ceil(whole) if self._draws is None else int(whole)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Images (uint8; images, 3, rows, columns) and classes of a batch, on the device."""
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        wanted = range(number, min(number + 1 + self._ahead * self._stride, len(self)), self._stride)
        for other in self._pending.keys() - set(wanted):
            for future in self._pending.pop(other):
                future.cancel()
        for other in wanted:
            if other not in self._pending:
                self._pending[other] = [self._pool.submit(self._load, place) for place in self._places(other)]
        loaded = [future.result() for future in self._pending.pop(number)]
        pinned = self.device.type == "cuda"
        images = torch.empty(len(loaded), 3, self.size, self.size, dtype=torch.uint8, pin_memory=pinned)
        for image, (pixels, _) in zip(images, loaded, strict=True):
            image.copy_(torch.from_numpy(pixels))
        labels = torch.tensor([label for _, label in loaded])
        images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
        if self._mirrored is not None:
            places = self._places(number)
            images = flip(images, self._mirrored[places.start : places.stop].to(self.device, non_blocking=True))
        return images, labels

    def _places(self, number: int) -> range:
        return range(self.batch_size * number, min(self.batch_size * (number + 1), len(self._order)))

    def _load(self, place: int) -> tuple[Pixels, int]:
        """The image at a place of the pass, or the next one that decodes."""
        draw = None if self._draws is None else self._draws[place]
        for step in range(len(self._order)):
            number = self._order[(place + step) % len(self._order)]
            try:
                return decode(self.index.read(number), self.size, draw), int(self.index.label[number])
            except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
                self._skip(number, error)
        raise DataError(f"none of the {len(self._order)} images decodes")

    def _skip(self, number: int, error: Exception) -> None:
        self.broken[self.index.name(number)] = f"{type(error).__name__}: {error}"
        if len(self.broken) > max(FEW, BROKEN * len(self.index)):
            name, reason = next(iter(self.broken.items()))
            raise DataError(
                f"{len(self.broken)} of {len(self.index)} images do not decode, the first being {name} ({reason}); "
                "restore them from their source"
            )
