# SPDX-License-Identifier: MIT
"""What a run learns: batches to train on, splits to be judged by.

The order of everything is a function of the seed and the step, so that a run can go on at any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from adamwprune import data, models
from adamwprune.data import StreamInfo
from adamwprune.training.config import RunConfig, known
from adamwprune.training.image_task import Images, Stream
from adamwprune.training.text_task import Text


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
        """Inputs as the network takes them, and targets, of a step: this rank's share."""

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """The same of the split ``val`` or ``test``, in order: every so many-th batch where there are several ranks."""

    def rank(self, record: Mapping[str, Any]) -> tuple[float, float]:
        """Orders evaluations: the better one is greater."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Examples that could not be read, and why; others stood in for them."""

    def close(self) -> None:
        """Let go of threads and files."""


def create(config: RunConfig) -> Task:
    """The task of a resolved config, its data read."""
    device = torch.device(config.device)
    if models.find(config.model).input == "tokens":
        return Text(config, device)
    if isinstance(data.find(known(config.data)), StreamInfo):
        return Stream(config, device)
    return Images(config, device)
