# SPDX-License-Identifier: MIT
"""The tensors of ResNet-50 and GPT-2 small, by name, and random weights and gradients of their shapes."""

from __future__ import annotations

import torch

Shapes = dict[str, tuple[int, ...]]


def resnet50() -> Shapes:
    """All parameters of ResNet-50 with the ImageNet stem (25.6 M), under torchvision's names."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            kernels = ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for number, kernel in enumerate(kernels, start=1):
                shapes |= {f"{at}.conv{number}.weight": kernel, **_norm(f"{at}.bn{number}", kernel[0])}
            if block == 0:
                shapes |= {f"{at}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                shapes |= _norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    return {**shapes, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


def gpt2() -> Shapes:
    """All parameters of GPT-2 small with its tied head (124.4 M)."""
    width = 768
    shapes: Shapes = {"wte.weight": (50257, width), "wpe.weight": (1024, width)}
    for layer in range(12):
        at = f"h.{layer}"
        shapes |= _norm(f"{at}.ln_1", width)
        shapes |= _linear(f"{at}.attn.c_attn", 3 * width, width) | _linear(f"{at}.attn.c_proj", width, width)
        shapes |= _norm(f"{at}.ln_2", width)
        shapes |= _linear(f"{at}.mlp.c_fc", 4 * width, width) | _linear(f"{at}.mlp.c_proj", width, 4 * width)
    return shapes | _norm("ln_f", width)


MODELS = {"resnet50": resnet50, "gpt2": gpt2}


def matrices(shapes: Shapes) -> Shapes:
    """The tensors of two dimensions and more, under names that nothing leaves out: all are prunable."""
    return {f"tensor{i}.weight": s for i, s in enumerate(shape for shape in shapes.values() if len(shape) > 1)}


def count(shapes: Shapes) -> int:
    """Number of weights."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def parameters(
    shapes: Shapes, dtype: torch.dtype = torch.float32, memory_format: torch.memory_format = torch.preserve_format
) -> list[tuple[str, torch.nn.Parameter]]:
    """Random weights with random gradients; tensors of four dimensions lie in memory as asked."""
    named = []
    for name, shape in shapes.items():
        lies = memory_format if len(shape) == 4 else torch.preserve_format
        p = torch.nn.Parameter((torch.randn(shape) * 0.02).to(dtype, memory_format=lies))
        p.grad = (torch.randn(shape) * 1e-3).to(dtype, memory_format=lies)
        named.append((name, p))
    return named


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
