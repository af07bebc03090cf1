# SPDX-License-Identifier: MIT
"""Images as a task: all of them on the device, or read from files while the network trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from adamwprune import data
from adamwprune.data.splits import sample, stratified
from adamwprune.training import ranks
from adamwprune.training.batches import Epoch, Normalizer, seed_of, steps_per_epoch
from adamwprune.training.checks import check_held_out, check_train_examples
from adamwprune.training.config import RunConfig, known
from adamwprune.training.epochs import Epochwise

if TYPE_CHECKING:
    from adamwprune.data.image_index import Index
    from adamwprune.data.image_stream import ImageStream

#: Tells the validation split from the other splits of a data set.
VALIDATION_SALT = 10
#: Tells the part that is trained on from the splits.
TRAINING_SALT = 11

#: Images in a batch of evaluation.
IMAGES = 500

#: Rows and columns of images that are read while the network trains.
SIZE = 224


#: What an epoch's batches come from.
Batches = TypeVar("Batches", Epoch, "ImageStream")


class _Classified(Epochwise[Batches]):
    """What images have in common, wherever they come from."""

    unit = "images"
    config: RunConfig
    normalize: Normalizer

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's images of a step, as the epoch draws them."""
        epoch, number = self._epoch_of(step)
        images, labels = epoch.batch(number * ranks.size() + ranks.rank())
        return self._ready(images), labels

    def rank(self, record: Mapping[str, Any]) -> tuple[float, float]:
        """More accurate, or as accurate at a lower loss."""
        return record["val_accuracy"], -record["val_loss"]

    def _ready(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x


class Images(_Classified[Epoch]):
    """Images and their classes, all of them on the device."""

    #: Those of a data set in memory were all decoded when it was made.
    broken: Mapping[str, str] = {}

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config = config
        self.shape = data.images(known(config.data))
        self.classes = self.shape.classes
        dataset = data.load(self.shape.name, config.data_dir)
        kept, held = _split(config, dataset.train.labels, self.classes)
        self.train = dataset.train.take(kept).to(device)
        self.held = {"val": dataset.train.take(held).to(device), "test": dataset.test.to(device)}
        self.normalize = Normalizer.of(self.shape, device)
        self.units_per_step = known(config.batch_size)
        self.steps_per_epoch = steps_per_epoch(len(self.train), self.units_per_step)
        self.example = torch.zeros(self.shape.shape, device=device)

    def _begin(self, epoch: int) -> Epoch:
        """An epoch of augmented images."""
        return Epoch.draw(
            self.train,
            self.shape,
            batch_size=ranks.share(self.units_per_step),
            augment=known(self.config.augment),
            square=known(self.config.cutout),
            seed=self.config.seed,
            epoch=epoch,
        )

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are."""
        held = self.held[name]
        for start in ranks.mine(range(0, len(held), IMAGES)):
            yield self._ready(held.images[start : start + IMAGES]), held.labels[start : start + IMAGES]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network must know of images that are read while it trains."""

    shape: tuple[int, int, int]
    classes: int


class Stream(_Classified["ImageStream"]):
    """Images in files, read, decoded and cropped by threads ahead of the training."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        info = data.stream(known(config.data))
        self.shape = Shape((3, SIZE, SIZE), info.classes)
        self.classes = info.classes
        splits = data.open_stream(info.name, config.data_dir)
        kept, held = _split(config, torch.from_numpy(splits.train.label), self.classes)
        self.train = _part(splits.train, kept)
        self.held = {"val": _part(splits.train, held), "test": splits.test}
        self.normalize = Normalizer.of(info, device)
        self.units_per_step = known(config.batch_size)
        self.steps_per_epoch = steps_per_epoch(len(self.train), self.units_per_step)
        self.example = torch.zeros(self.shape.shape, device=device)
        #: By split: of how many a run ends depends on how many images the split has.
        self._broken: dict[str, dict[str, str]] = {name: {} for name in ("train", *self.held)}

    @property
    def broken(self) -> Mapping[str, str]:
        """Why each image that did not decode did not; another one stood in for it."""
        merged: dict[str, str] = {}
        for broken in self._broken.values():
            merged.update(broken)  # at once: threads that read ahead add to it
        return merged

    def _begin(self, epoch: int) -> ImageStream:
        """An epoch of random crops, read ahead by threads."""
        seed = seed_of("epoch", self.config.seed, epoch)
        return self._stream("train", self.train, ranks.share(self.units_per_step), seed)

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The middle of each image."""
        with self._stream(name, self.held[name], IMAGES, None) as stream:
            for number in ranks.mine(range(len(stream))):
                images, labels = stream.batch(number)
                yield self._ready(images), labels

    def close(self) -> None:
        """End the threads that read ahead."""
        if self._now is not None:
            self._now[1].close()
        super().close()

    def _stream(self, name: str, index: Index, batch_size: int, seed: int | None) -> ImageStream:
        from adamwprune.data.image_stream import ImageStream

        stream = ImageStream(
            index, size=SIZE, batch_size=batch_size, seed=seed, device=self.device, stride=ranks.size()
        )
        stream.broken = self._broken[name]
        return stream


def _split(config: RunConfig, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Which training examples are trained on and which are for validation, whatever the seed."""
    kept, held = stratified(labels, known(config.val_fraction), VALIDATION_SALT)
    check_held_out(config, len(held))
    check_train_examples(config, len(kept), classes)
    if config.train_examples is not None:
        kept = kept[sample(labels[kept], config.train_examples, TRAINING_SALT)]
    return kept, held


def _part(index: Index, numbers: Tensor) -> Index:
    """The images at ``numbers``."""
    at = numbers.numpy()
    return replace(index, file=index.file[at], offset=index.offset[at], size=index.size[at], label=index.label[at])
