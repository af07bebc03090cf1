# SPDX-License-Identifier: MIT
"""What a run learns: batches to train on, splits to be judged by. One class for images, one for text.

The order of everything is a function of the seed and the step, so that a run can go on at any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from adamwprune import data, models
from adamwprune.data.splits import stratified
from adamwprune.data.tokens import Tokens, Windows
from adamwprune.training.batches import Epoch, Normalizer, seed_of, steps_per_epoch
from adamwprune.training.config import RunConfig, known
from adamwprune.training.errors import ConfigError

#: Tells the validation split from the other splits of a data set.
VALIDATION_SALT = 10

#: Images, and tokens, in a batch of evaluation.
IMAGES, TOKENS = 500, 1 << 13

#: A text of up to so many bytes is kept on the device; longer ones stay where they are, and each batch is sent.
RESIDENT = 4 << 30


class Task(Protocol):
    """What the engine asks of a data set."""

    #: What is counted where speed is measured, and how many a step takes.
    unit: str
    units_per_step: int
    steps_per_epoch: int
    #: How many targets a network chooses from.
    classes: int

    @property
    def shape(self) -> models.ImageShape | models.TextShape:
        """What a network must know of the data."""

    @property
    def example(self) -> Tensor:
        """An input without the batch dimension, to count operations with."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs as the network takes them, and targets, of a step."""

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same of the split ``val`` or ``test``, in order."""

    def rank(self, record: dict[str, Any]) -> tuple[float, float]:
        """Orders evaluations: the better one is greater."""


def create(config: RunConfig) -> Task:
    """The task of a resolved config, its data read."""
    device = torch.device(config.device)
    return Images(config, device) if models.find(config.model).input == "image" else Text(config, device)


class Images:
    """Images and their classes, all of them on the device."""

    unit = "images"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config = config
        self.shape = data.images(known(config.data))
        self.classes = self.shape.classes
        dataset = data.load(self.shape.name, config.data_dir)
        kept, held = stratified(dataset.train.labels, known(config.val_fraction), VALIDATION_SALT)
        self.train = dataset.train.take(kept).to(device)
        self.held = {"val": dataset.train.take(held).to(device), "test": dataset.test.to(device)}
        self.normalize = Normalizer.of(self.shape, device)
        self.units_per_step = known(config.batch_size)
        self.steps_per_epoch = steps_per_epoch(len(self.train), self.units_per_step)
        self.example = torch.zeros(self.shape.shape, device=device)
        self._epoch: tuple[int, Epoch] | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            drawn = Epoch.draw(
                self.train,
                self.shape,
                batch_size=known(self.config.batch_size),
                augment=known(self.config.augment),
                square=known(self.config.cutout),
                seed=self.config.seed,
                epoch=epoch,
            )
            self._epoch = (epoch, drawn)
        images, labels = self._epoch[1].batch(number)
        return self._ready(images), labels

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are."""
        held = self.held[name]
        for start in range(0, len(held), IMAGES):
            yield self._ready(held.images[start : start + IMAGES]), held.labels[start : start + IMAGES]

    def rank(self, record: dict[str, Any]) -> tuple[float, float]:
        """More accurate, or as accurate at a lower loss."""
        return record["val_accuracy"], -record["val_loss"]

    def _ready(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x


class Text:
    """Windows on a text; a token's target is its successor."""

    unit = "tokens"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.context, self.batch_size = known(config.context), known(config.batch_size)
        self.shape = data.load_text(known(config.data), config.data_dir)
        self.classes = self.shape.vocabulary
        train, val = self.shape.train.hold_out(known(config.val_fraction))
        # A window's last target lies one past its end.
        limit = config.eval_tokens + 1 if config.eval_tokens else None
        self.train = self._placed(train)
        self.held = {"val": self._placed(val[:limit]), "test": self._placed(self.shape.test[:limit])}
        self.units_per_step = self.batch_size * self.context
        # An epoch begins at a random offset, so that its last window may be missing.
        self.steps_per_epoch = (len(self.train) - self.context) // self.context // self.batch_size
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"batch_size={self.batch_size} sequences of context={self.context} are more than the "
                f"{len(self.train)} training tokens of {config.data!r}: lower one of them"
            )
        self.example = torch.zeros(self.context, dtype=torch.int64, device=device)
        self._epoch: tuple[int, Windows] | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Windows in random order, every token once an epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            seed = seed_of("epoch", self.config.seed, epoch)
            self._epoch = (epoch, Windows.shuffled(self.train, self.context, seed))
        return self._sent(self._epoch[1].batch(number * self.batch_size, self.batch_size))

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows side by side from the start."""
        windows = Windows.consecutive(self.held[name], self.context)
        count = max(1, TOKENS // self.context)
        for first in range(0, len(windows), count):
            yield self._sent(windows.batch(first, count))

    def rank(self, record: dict[str, Any]) -> tuple[float, float]:
        """Of lower loss."""
        return -record["val_loss"], 0.0

    def _placed(self, tokens: Tokens) -> Tokens:
        return tokens.to(self.device) if tokens.ids.nbytes <= RESIDENT else tokens

    def _sent(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        return inputs.to(self.device), targets.to(self.device)
