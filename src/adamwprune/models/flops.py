# SPDX-License-Identifier: MIT
"""Floating-point operations that a network needs, by the usual convention: the backward pass costs twice the forward.

What pruning saves is not taken off: utilisation compares with the dense network, and zeros are multiplied all the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from adamwprune.models.gpt2 import GPT2


def training_flops(model: nn.Module, example: Tensor) -> int:
    """Operations to train on one example: an image, or a sequence of tokens (given without the batch dimension)."""
    if isinstance(model, GPT2):
        return len(example) * gpt2_flops_per_token(model, len(example))
    return 3 * _forward_flops(model, example)


def gpt2_flops_per_token(model: GPT2, length: int) -> int:
    """6 for each weight but those of the positions, and 12·blocks·width·length for attention (Chowdhery et al. 2022).

    Attention is counted without its causal mask.
    """
    weights = sum(p.numel() for p in model.parameters()) - model.wpe.weight.numel()
    return 6 * weights + 12 * model.shape.blocks * model.shape.width * length


@torch.no_grad()
def _forward_flops(model: nn.Module, example: Tensor) -> int:
    """Two operations for each multiplication in the convolutions and linear layers; the rest is not counted."""
    counted = 0

    def count(module: Any, inputs: Any, output: Tensor) -> None:
        nonlocal counted
        counted += 2 * output.numel() * math.prod(module.weight.shape[1:])

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = model.training
    try:
        model.eval()(example.unsqueeze(0))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return counted
