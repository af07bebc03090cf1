# SPDX-License-Identifier: MIT
"""What holds of every registered network, and LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from adamwprune import data, models
from adamwprune.models.lenet5 import LeNet5
from adamwprune.optim import create_optimizer
from adamwprune.prune import Prune
from adamwprune.training.image_task import Shape
from adamwprune.training.recipes import RECIPES


@dataclass(frozen=True)
class Wanted:
    model: str
    width: float = 1.0
    context: int | None = None
    dropout: float | None = None
    activation_checkpointing: bool = False


@dataclass(frozen=True)
class Text:
    vocabulary: int


def _imagenet() -> Shape:
    return Shape((3, 80, 80), data.stream("imagenet").classes)  # the same stem as at 224, and faster


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains_a_step_on_each_of_its_data_sets(name: str) -> None:
    info = models.find(name)
    assert info.default_data in info.data
    for data_name in info.data:
        assert (info.recipe, data_name) in RECIPES
        if info.input == "image":
            images = _imagenet() if data_name == "imagenet" else data.images(data_name)
            model = models.build(Wanted(name, 0.125), images)
            inputs, outputs = torch.randn(2, *images.shape), (2, images.classes)
        else:
            data.text(data_name)
            model = models.build(Wanted(name, 0.05, context=8), Text(65))
            inputs, outputs = torch.arange(16).view(2, 8), (2, 8, 65)
        logits = model(inputs)
        assert logits.shape == outputs
        functional.cross_entropy(
            logits.flatten(0, -2), torch.zeros(logits[..., 0].numel(), dtype=torch.int64)
        ).backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


def test_what_a_run_asks_of_a_language_model_is_built() -> None:
    wanted = Wanted("gpt2-tiny", 0.5, context=64, dropout=0.2, activation_checkpointing=True)
    shape = models.build(wanted, Text(5000)).shape
    assert (shape.blocks, shape.heads, shape.width, shape.context) == (4, 4, 48, 64)
    assert (shape.vocabulary, shape.dropout, shape.checkpointing) == (5056, 0.2, True)
    plain = models.build(Wanted("gpt2-tiny"), Text(65)).shape
    assert (plain.vocabulary, plain.context, plain.dropout, plain.checkpointing) == (65, 128, 0.0, False)


def test_lenet5_has_the_parameters_that_its_docstring_says() -> None:
    model = LeNet5((1, 28, 28), 10)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.dim() > 1}
    assert shapes == {
        "conv1.weight": (6, 1, 5, 5),
        "conv2.weight": (16, 6, 5, 5),
        "fc1.weight": (120, 400),
        "fc2.weight": (84, 120),
        "head.weight": (10, 84),
    }
    assert sum(p.numel() for p in model.parameters()) == 61750


def test_lenet5_equals_the_textbook_order_of_its_layers() -> None:
    torch.manual_seed(0)
    model = LeNet5((1, 28, 28), 10)
    x = torch.randn(4, 1, 28, 28)

    def textbook(x: torch.Tensor) -> torch.Tensor:
        for convolution, norm in ((model.conv1, model.norm1), (model.conv2, model.norm2)):
            x = functional.max_pool2d(functional.relu(norm(convolution(x))), 2)
        x = functional.relu(model.fc2(functional.relu(model.fc1(x.flatten(1)))))
        return model.head(x)

    gradients = []
    for forward in (textbook, model):
        model.zero_grad()
        forward(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(textbook(x), model(x))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_width_scales_channels_and_neurons() -> None:
    small = LeNet5((1, 28, 28), 10, width=0.5)
    assert (small.conv1.out_channels, small.conv2.out_channels) == (3, 8)
    assert (small.fc1.out_features, small.fc2.out_features) == (60, 42)
    assert LeNet5((1, 28, 28), 10, width=0.01).conv1.out_channels == 1


def test_the_classifier_is_out_of_the_pruning_scope() -> None:
    model = LeNet5((1, 28, 28), 10)
    optimizer = create_optimizer("adamwprune", model, lr=1e-3, prune=Prune(sparsity=0.5, total_steps=100))
    report = optimizer.pruner.report()
    assert set(report["tensors"]) == {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"}
    assert "head.weight" in report["left_out"]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'lenet6': expected one of lenet5"):
        models.build(Wanted("lenet6"), data.find("digits"))
    with pytest.raises(ValueError, match="at least 12x12"):
        LeNet5((1, 8, 8), 10)
