# SPDX-License-Identifier: MIT
"""LeNet-5 (LeCun et al. 1998) with batch normalisation, ReLU and max-pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaled(count: int, width: float) -> int:
    """A channel or neuron count at a width multiplier: at least one."""
    return max(1, round(count * width))


class LeNet5(nn.Module):
    """Two convolutions and three linear layers; 61,750 parameters at width 1 for 28x28 grey images and ten classes.

    Padding 2 in the first convolution stands for the original's 32x32 input. ``head`` is the classifier.
    Pooling comes before ReLU: the two commute (values and gradients alike), and ReLU then runs on a quarter of
    the activations.

    The convolutions' biases stay zero: batch normalisation takes any constant out again, so their gradient is rounding
    noise, which Adam would blow up to full steps. In a channel that pruning has emptied, the running mean lags behind
    such steps, and evaluation is thrown off.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels, height, breadth = shape
        rows, columns = ((side // 2 - 4) // 2 for side in (height, breadth))
        if rows < 1 or columns < 1:
            raise ValueError(f"lenet5 takes images of at least 12x12 pixels, got {height}x{breadth}")
        first, second, third, fourth = (scaled(count, width) for count in (6, 16, 120, 84))
        self.conv1 = nn.Conv2d(channels, first, 5, padding=2)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.norm2 = nn.BatchNorm2d(second)
        for convolution in (self.conv1, self.conv2):
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias).requires_grad_(False)
        self.fc1 = nn.Linear(second * rows * columns, third)
        self.fc2 = nn.Linear(third, fourth)
        self.head = nn.Linear(fourth, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm1(self.conv1(images))
        x = x.contiguous(memory_format=torch.channels_last)  # pooling on a CPU is several times faster that way
        x = functional.relu(functional.max_pool2d(x, 2))
        x = functional.relu(functional.max_pool2d(self.norm2(self.conv2(x)), 2))
        x = functional.relu(self.fc1(x.flatten(1)))
        x = functional.relu(self.fc2(x))
        logits: Tensor = self.head(x)
        return logits
