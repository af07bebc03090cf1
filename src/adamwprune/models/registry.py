# SPDX-License-Identifier: MIT
"""Every network by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from adamwprune.models.lenet5 import LeNet5

#: Raised when a network's meaning changes, so that runs before and after are told apart.
VERSION = 1


class DataShape(Protocol):
    """What a network must know of a data set."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one example."""

    @property
    def classes(self) -> int:
        """Number of classes."""


class Wanted(Protocol):
    """What a network must know of a run's config."""

    @property
    def model(self) -> str:
        """Name of the network."""

    @property
    def width(self) -> float:
        """Multiplier of channel and neuron counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A network's entry in the registry."""

    name: str
    summary: str
    #: What one example is, in words.
    input: str
    loss: str
    data: tuple[str, ...]
    recipe: str
    build: Callable[[float, DataShape], nn.Module]

    @property
    def default_data(self) -> str:
        """The data set of a run that names none."""
        return self.data[0]


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            name="lenet5",
            summary="LeNet-5 with batch normalisation and ReLU, 61,750 parameters",
            input="image",
            loss="cross_entropy",
            data=("digits", "mnist"),
            recipe="lenet5",
            build=lambda width, data: LeNet5(data.shape, data.classes, width),
        ),
    )
}


def find(name: str) -> ModelInfo:
    """The entry of ``name``; ValueError with the valid names where there is none."""
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}") from None


def build(config: Wanted, data: DataShape) -> nn.Module:
    """The network that ``config`` names, for ``data``, with weights drawn from torch's global generator."""
    return find(config.model).build(config.width, data)
