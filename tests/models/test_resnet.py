# SPDX-License-Identifier: MIT
"""ResNets against a plain restatement, torchvision's names and published sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from adamwprune.models.resnet import RESNET18, RESNET20, RESNET50, Plan, ResNet
from adamwprune.optim import param_groups

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)


def torchvision_shapes(blocks: list[int], bottleneck: bool, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNets, written down from its documentation's models."""

    def norm(name: str, n: int) -> dict[str, tuple[int, ...]]:
        vectors = ("weight", "bias", "running_mean", "running_var")
        return {**{f"{name}.{v}": (n,) for v in vectors}, f"{name}.num_batches_tracked": ()}

    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        for block in range(count):
            here = f"layer{stage + 1}.{block}"
            convs = [(width, inputs, 1), (width, width, 3), (out, width, 1)]
            if not bottleneck:
                convs = [(width, inputs, 3), (width, width, 3)]
            for i, (o, c, k) in enumerate(convs, start=1):
                shapes |= {f"{here}.conv{i}.weight": (o, c, k, k), **norm(f"{here}.bn{i}", o)}
            if block == 0 and inputs != out:
                shapes |= {f"{here}.downsample.0.weight": (out, inputs, 1, 1), **norm(f"{here}.downsample.1", out)}
            inputs = out
    return {**shapes, "fc.weight": (classes, inputs), "fc.bias": (classes,)}


@pytest.mark.parametrize(
    ("plan", "blocks", "bottleneck"), [(RESNET18, [2, 2, 2, 2], False), (RESNET50, [3, 4, 6, 3], True)]
)
def test_names_and_shapes_are_torchvisions(plan: Plan, blocks: list[int], bottleneck: bool) -> None:
    expected = torchvision_shapes(blocks, bottleneck, 1000)
    model = ResNet(plan, IMAGENET, 1000)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


def test_names_of_the_downsampling_blocks_are_as_published() -> None:
    """A few keys of torchvision's resnet18-f37072fd.pth and resnet50-0676ba61.pth, with their shapes."""
    small, large = (ResNet(plan, IMAGENET, 1000).state_dict() for plan in (RESNET18, RESNET50))
    assert small["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert "layer1.0.downsample.0.weight" not in small
    assert large["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert large["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)


@pytest.mark.parametrize(
    ("plan", "shape", "classes", "parameters"),
    [
        (RESNET18, CIFAR, 10, 11_173_962),
        (RESNET50, CIFAR, 100, 23_705_252),
        (RESNET18, IMAGENET, 1000, 11_689_512),
        (RESNET50, IMAGENET, 1000, 25_557_032),
        (RESNET20, CIFAR, 10, 272_474),
    ],
)
def test_parameter_counts(plan: Plan, shape: tuple[int, int, int], classes: int, parameters: int) -> None:
    model = ResNet(plan, shape, classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def restated(state: dict[str, torch.Tensor], images: torch.Tensor, blocks: list[int], small: bool) -> torch.Tensor:
    """The network from its weights alone, evaluation mode, written without modules."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        w, b, mean, var = (state[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
        scale = w / (var + 1e-5).sqrt()
        return x * scale.view(-1, 1, 1) + (b - mean * scale).view(-1, 1, 1)

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = state[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = norm(conv(images, "conv1", 1 if small else 2), "bn1").clamp_min(0)
    if not small:
        x = functional.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for block in range(count):
            here = f"layer{stage + 1}.{block}"
            stride = 2 if stage and not block else 1
            last = 3 if f"{here}.conv3.weight" in state else 2
            strided = 2 if last == 3 else 1
            y = x
            for i in range(1, last + 1):
                y = norm(conv(y, f"{here}.conv{i}", stride if i == strided else 1), f"{here}.bn{i}")
                y = y.clamp_min(0) if i < last else y
            if f"{here}.downsample.0.weight" in state:
                x = norm(conv(x, f"{here}.downsample.0", stride), f"{here}.downsample.1")
            x = (x + y).clamp_min(0)
    return x.flatten(2).mean(2) @ state["fc.weight"].t() + state["fc.bias"]


@pytest.mark.parametrize("plan", [RESNET18, RESNET20, RESNET50])
@pytest.mark.parametrize("small", [True, False])
def test_the_numbers_are_those_of_a_plain_restatement(plan: Plan, small: bool) -> None:
    torch.manual_seed(0)
    model = ResNet(plan, CIFAR if small else (3, 96, 96), 7, width=0.25).eval()
    for name, value in model.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            _ = value.uniform_(0.5, 1.5) if value.dim() else value
    images = torch.randn(2, 3, 32, 48) if small else torch.randn(2, 3, 96, 72)
    with torch.no_grad():
        expected = restated(model.state_dict(), images, list(plan.blocks), small)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def test_channels_last_stays_so_and_gives_the_same_numbers() -> None:
    torch.manual_seed(0)
    plain = ResNet(RESNET20, CIFAR, 10, width=0.5)
    turned = ResNet(RESNET20, CIFAR, 10, width=0.5)
    turned.load_state_dict(plain.state_dict())
    turned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    strides: list[bool] = []

    def look(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        strides.append(output.is_contiguous(memory_format=torch.channels_last))

    for module in turned.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            module.register_forward_hook(look)
    images = torch.randn(4, *CIFAR)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(turned(last), plain(images), rtol=1e-4, atol=1e-4)
    assert len(strides) == 2 * 21
    assert all(strides)


@pytest.mark.parametrize("plan", [RESNET18, RESNET50])
def test_with_zero_scales_every_block_begins_as_its_shortcut(plan: Plan) -> None:
    model = ResNet(plan, CIFAR, 10, width=0.125, zero_init=True).eval()
    block = model.get_submodule("layer1.1")
    x = torch.rand(1, block.conv1.in_channels, 8, 8)  # type: ignore[union-attr]
    torch.testing.assert_close(block(x), x)
    other = ResNet(plan, CIFAR, 10, width=0.125).eval()
    assert not torch.equal(other.get_submodule("layer1.1")(x), x)


def test_initial_weights_are_hes() -> None:
    torch.manual_seed(0)
    weight = ResNet(RESNET18, CIFAR, 10).layer2[1].conv2.weight  # type: ignore[union-attr,index]
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.01)


def test_the_scope_of_pruning_is_every_convolution_and_not_the_classifier() -> None:
    model = ResNet(RESNET50, CIFAR, 100, width=0.125)
    groups = param_groups(model, weight_decay=0.1)
    taken = {name for group in groups if group["prunable"] for name, _ in group["params"]}
    assert taken == {name for name, p in model.named_parameters() if p.dim() == 4}
    decayed = {name for group in groups if group["weight_decay"] for name, _ in group["params"]}
    assert decayed == taken | {"fc.weight"}
