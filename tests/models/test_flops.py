# SPDX-License-Identifier: MIT
"""Operations of a network, against published numbers and torch's counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adamwprune.models.flops import gpt2_flops_per_token, training_flops
from adamwprune.models.gpt2 import GPT2, Shape
from adamwprune.models.lenet5 import LeNet5
from adamwprune.models.resnet import RESNET18, RESNET50, Plan, ResNet


@pytest.mark.parametrize(
    ("plan", "shape", "multiplications"),
    [
        (RESNET18, (3, 32, 32), 555_422_720),
        (RESNET50, (3, 32, 32), 1_297_829_888),
        (RESNET50, (3, 224, 224), 4_089_184_256),
    ],
)
def test_the_published_multiplications_of_resnets(
    plan: Plan, shape: tuple[int, int, int], multiplications: int
) -> None:
    classes = 1000 if shape[1] == 224 else 10
    assert training_flops(ResNet(plan, shape, classes), torch.zeros(shape)) == 3 * 2 * multiplications


def test_they_are_those_that_torch_counts() -> None:
    model = LeNet5((1, 28, 28), 10)
    example = torch.randn(1, 28, 28)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(example.unsqueeze(0))
    model.train()
    assert training_flops(model, example) == 3 * counter.get_total_flops()
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_those_of_gpt2_are_torchs_and_six_for_each_bias_and_norm() -> None:
    model = GPT2(Shape(blocks=3, heads=2, width=32, context=64, vocabulary=100))
    tokens = torch.zeros(48, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(tokens.unsqueeze(0))  # bfloat16 takes the plain attention, whose products torch counts on a CPU
    vectors = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    assert training_flops(model, tokens) == 3 * counter.get_total_flops() + 48 * 6 * vectors
    assert training_flops(model, tokens) == 48 * gpt2_flops_per_token(model, 48)
