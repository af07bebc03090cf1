# SPDX-License-Identifier: MIT
"""Every network by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import nn

from adamwprune.models import gpt2, resnet
from adamwprune.models.gpt2 import GPT2
from adamwprune.models.lenet5 import LeNet5
from adamwprune.models.resnet import ResNet

#: Raised when a network's meaning changes, so that runs before and after are told apart.
VERSION = 1


#: What large networks are stacked from: the parts in which their weights are gathered where ranks share them.
BLOCKS = (gpt2.Block, resnet.BasicBlock, resnet.Bottleneck)


class ImageShape(Protocol):
    """What a network must know of a data set of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one example."""

    @property
    def classes(self) -> int:
        """Number of classes."""


class TextShape(Protocol):
    """What a network must know of a text."""

    @property
    def vocabulary(self) -> int:
        """Every token is below this."""


class Wanted(Protocol):
    """What a network must know of a run's config."""

    @property
    def model(self) -> str:
        """Name of the network."""

    @property
    def width(self) -> float:
        """Multiplier of channel and neuron counts."""

    @property
    def context(self) -> int | None:
        """Tokens in a sequence, where the network reads text."""

    @property
    def dropout(self) -> float | None:
        """Dropout, where the network reads text."""

    @property
    def activation_checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass, where the network reads text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A network's entry in the registry."""

    name: str
    summary: str
    #: What one example is.
    input: Literal["image", "tokens"]
    #: Data sets that there are recipes for, the default first.
    data: tuple[str, ...]
    recipe: str
    #: Takes the run's config, and the shape of its data.
    build: Callable[[Wanted, Any], nn.Module]
    #: Tokens in a sequence unless a run says otherwise.
    context: int | None = None

    @property
    def default_data(self) -> str:
        """The data set of a run that names none."""
        return self.data[0]


CIFAR = ("cifar10", "cifar100")
TEXTS = ("stdlib", "shakespeare", "shakespeare-bpe", "text")
CORPORA = ("openwebtext", "fineweb-edu")


def _lenet5(config: Wanted, data: ImageShape) -> nn.Module:
    return LeNet5(data.shape, data.classes, config.width)


def _resnet(name: str, plan: resnet.Plan, summary: str, *data: str) -> ModelInfo:
    def build(config: Wanted, images: ImageShape) -> nn.Module:
        return ResNet(plan, images.shape, images.classes, config.width)

    return ModelInfo(name=name, summary=summary, input="image", data=data, recipe=name, build=build)


def _gpt2(name: str, recipe: str, summary: str, *, data: tuple[str, ...] = TEXTS) -> ModelInfo:
    shape = gpt2.SHAPES[name]

    def build(config: Wanted, text: TextShape) -> nn.Module:
        wanted = dataclasses.replace(
            shape.scaled(config.width),
            vocabulary=gpt2.padded(text.vocabulary),
            context=config.context or shape.context,
            dropout=config.dropout or 0.0,
            checkpointing=config.activation_checkpointing,
        )
        return GPT2(wanted)

    return ModelInfo(
        name=name,
        summary=summary,
        input="tokens",
        data=data,
        recipe=recipe,
        build=build,
        context=shape.context,
    )


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo(
            name="lenet5",
            summary="LeNet-5 with batch normalisation and ReLU, 61,750 parameters",
            input="image",
            data=("digits", "mnist"),
            recipe="lenet5",
            build=_lenet5,
        ),
        _resnet(
            "resnet18", resnet.RESNET18, "ResNet-18, 11.2 million parameters with the small stem", *CIFAR, "imagenet"
        ),
        _resnet("resnet20", resnet.RESNET20, "ResNet-20, 0.27 million parameters, for a CPU", *CIFAR),
        _resnet(
            "resnet50", resnet.RESNET50, "ResNet-50, 23.7 million parameters with the small stem", *CIFAR, "imagenet"
        ),
        _gpt2("gpt2-tiny", "gpt2-tiny", "a GPT-2 of 4 blocks of width 96, for a CPU"),
        _gpt2("gpt2-mini", "gpt2-mini", "a GPT-2 of 4 blocks of width 192, for a CPU"),
        _gpt2("gpt2-30m", "gpt2-30m", "a GPT-2 of 30 million parameters, for minutes of a GPU"),
        _gpt2("gpt2", "gpt2", "GPT-2, 124 million parameters with its own vocabulary", data=TEXTS + CORPORA),
        _gpt2("gpt2-medium", "gpt2", "GPT-2 medium, 355 million parameters", data=TEXTS + CORPORA),
        _gpt2("gpt2-large", "gpt2", "GPT-2 large, 774 million parameters", data=TEXTS + CORPORA),
        _gpt2("gpt2-xl", "gpt2", "GPT-2 XL, 1.56 billion parameters", data=TEXTS + CORPORA),
    )
}


def find(name: str) -> ModelInfo:
    """The entry of ``name``; ValueError with the valid names where there is none."""
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"unknown model {name!r}: expected one of {', '.join(MODELS)}") from None


def build(config: Wanted, data: ImageShape | TextShape) -> nn.Module:
    """The network that ``config`` names, for ``data``, with weights drawn from torch's global generator."""
    return find(config.model).build(config, data)
