# SPDX-License-Identifier: MIT
"""Residual networks (He et al. 2015, arXiv 1512.03385) for small images and for ImageNet.

Modules carry torchvision's names, so that its weights load and ours load there. As there, the stride of a bottleneck
sits on its 3x3 convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

#: Images up to this size get the small stem: a 3x3 convolution that keeps their resolution, and no pooling.
SMALL = 64


class ConvNorm(nn.Sequential):
    """A 1x1 convolution and its norm: the shortcut where a block changes the resolution or the channels."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = ConvNorm(channels, width, stride) if stride != 1 or channels != width else None

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output is added to the shortcut."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a four times wider 1x1 convolution around a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = ConvNorm(channels, out, stride) if stride != 1 or channels != out else None

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose output is added to the shortcut."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What tells one residual network from another."""

    block: type[BasicBlock] | type[Bottleneck]
    #: Blocks in each stage; every stage after the first halves the resolution and doubles the channels.
    blocks: tuple[int, ...]
    #: Channels of the first stage.
    channels: int


RESNET18 = Plan(BasicBlock, (2, 2, 2, 2), 64)
RESNET50 = Plan(Bottleneck, (3, 4, 6, 3), 64)
#: The network of the CIFAR section of the paper, with projections as shortcuts.
RESNET20 = Plan(BasicBlock, (3, 3, 3), 16)


class ResNet(nn.Module):
    """A residual network; ``fc`` is the classifier.

    Args:
        plan: blocks, stages and channels.
        shape: channels, height and width of an image, which decide the stem. Any size runs afterwards.
        classes: number of classes.
        width: multiplier of all channel counts.
        zero_init: let every block begin as its shortcut, by a zero scale in its last norm (Goyal et al. 2017).
    """

    def __init__(
        self, plan: Plan, shape: tuple[int, int, int], classes: int, width: float = 1.0, *, zero_init: bool = False
    ) -> None:
        super().__init__()
        counts = [max(1, round(plan.channels * width)) << stage for stage in range(len(plan.blocks))]
        small = max(shape[1:]) <= SMALL
        size, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(shape[0], counts[0], size, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(counts[0])
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        inputs = [counts[0], *(count * plan.block.expansion for count in counts)]
        self.stages = [f"layer{number}" for number in range(1, len(counts) + 1)]
        for number, name in enumerate(self.stages):
            stage = _stage(plan.block, inputs[number], counts[number], plan.blocks[number], 1 if number == 0 else 2)
            self.add_module(name, stage)
        self.fc = nn.Linear(inputs[-1], classes)
        self._initialize(zero_init)

    def _initialize(self, zero_init: bool) -> None:
        """He's normal weights for convolutions; norms and the classifier begin as torch leaves them."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(functional.relu(self.bn1(self.conv1(images)), inplace=True))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, width: int, count: int, stride: int
) -> nn.Sequential:
    """``count`` blocks, of which the first takes ``channels`` and the stride."""
    out = width * block.expansion
    return nn.Sequential(block(channels, width, stride), *(block(out, width, 1) for _ in range(count - 1)))
