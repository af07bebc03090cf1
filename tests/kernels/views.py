# SPDX-License-Identifier: MIT
"""Tensors at a mask update, and what a sort says of them."""

from __future__ import annotations

import torch

from adamwprune.kernels import reference
from adamwprune.prune import SCORES, Mask


def made(kind, shape, sparsity=0.5, dtype=torch.float32, state_dtype=None, compact=True, seed=0, grid=None):
    """A view of random tensors; ``grid`` rounds weights and state to few values, so that scores tie."""
    generator = torch.Generator().manual_seed(seed)
    numel = torch.Size(shape).numel()

    def draw(scale):
        x = torch.randn(numel, generator=generator) * scale
        return (x * grid).round() / grid if grid else x

    keep = torch.rand(numel, generator=generator) >= sparsity
    mask = Mask.from_bool(keep) if sparsity else None
    weight = draw(1.0).to(dtype).mul(keep).view(shape)
    state = {"exp_avg": draw(0.1), "exp_avg_sq": draw(0.1).square(), "movement": draw(1.0)}
    state = {name: x if name == "movement" else x.to(state_dtype or dtype) for name, x in state.items()}
    if mask is not None and compact:
        state = {name: reference.compact(x, None, mask) for name, x in state.items()}
    return kind("layer", weight, mask, compact, draw(1e-2).to(dtype).view(shape), **state, age=7)


def scores_of(view, name):
    return torch.cat(list(view.scores(SCORES[name])))


def sorted_out(scores, kept, count):
    """The positions that stay when the ``count`` lowest go; of equal ones the later go first."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], -i))
    return torch.tensor(sorted(kept[i] for i in order[count:]), dtype=torch.long)
