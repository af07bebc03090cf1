# SPDX-License-Identifier: MIT
"""What the tests train: tensors with given gradients, small models, and the checks that hold after every step."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from oracle import MaskedAdam
from torch import Tensor, nn

from adamwprune import AdamWPrune, Prune, attach

#: A net's worth of shapes: odd sizes, a filter bank, a vector, a scalar, an empty one.
SHAPES = ((5, 7), (3, 4, 3, 3), (7,), (), (0, 4), (1, 9))


def weights(shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float32, seed: int = 0) -> list:
    """Named parameters."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [(f"layer{i}.weight", nn.Parameter(t)) for i, t in enumerate(tensors)]


def gradients(named: Sequence[tuple[str, Tensor]], step: int) -> list[Tensor]:
    """Gradients of one step: heavy-tailed, a few exactly zero."""
    generator = torch.Generator().manual_seed(1000 + step)
    out = []
    for _, p in named:
        g = torch.randn(p.shape, generator=generator) * torch.rand(p.shape, generator=generator) ** 3
        out.append(torch.where(torch.rand(p.shape, generator=generator) < 0.05, 0.0, g).to(p.dtype))
    return out


def backward(named: Sequence[tuple[str, Tensor]], grads: Sequence[Tensor | None]) -> None:
    """Accumulate ``grads`` through autograd, so that hooks run."""
    parts = [(p * g).sum() for (_, p), g in zip(named, grads, strict=True) if g is not None and p.requires_grad]
    torch.stack([part.float() for part in parts]).sum().backward()


def prune(**settings: Any) -> Prune:
    """A short ramp: updates at steps 2, 4, 6, 8, 10 of 14."""
    return Prune(**{"sparsity": 0.5, "total_steps": 14, "start": 2, "end": 10, "every": 2, **settings})


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    first: int,
    last: int,
    after: Callable[[int], None] | None = None,
) -> None:
    """Steps ``first`` to ``last``, each on a batch that its number decides."""
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        loss = (model(torch.randn(6, 8, generator=generator)) - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        if after is not None:
            after(step)


def through_a_file(state: Any) -> Any:
    """What ``torch.save`` and a ``weights_only`` load make of it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def twin(
    make: Callable[[nn.Module], torch.optim.Optimizer], model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple:
    """A new model and optimizer that resume from a checkpoint of the given ones."""
    other = copy.deepcopy(model)
    for p in other.parameters():
        p.data.normal_()
    resumed = make(other)
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    return other, resumed


def equal(a: nn.Module, b: nn.Module) -> bool:
    """Same parameters, bit for bit (-0.0 equals 0.0)."""
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def dense_state(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    """State of ``p`` as a checkpoint shows it."""
    saved = optimizer.state_dict()
    flat = [q for group in optimizer.param_groups for q in group["params"]]
    return saved["state"].get(next(i for i, q in enumerate(flat) if q is p), {})


def against_oracle(optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, Tensor]], oracle: MaskedAdam) -> None:
    """Weights, moments and masks equal the oracle's, bit for bit."""
    masks = optimizer.pruner.named_masks()
    saved = optimizer.state_dict()["state"]
    for number, ((name, p), t) in enumerate(zip(named, oracle.tensors, strict=True)):
        assert torch.equal(p.detach(), t.w), f"{name} at step {oracle.count}"
        assert torch.equal(masks.get(name, torch.ones_like(t.keep)), t.keep), f"mask of {name} at step {oracle.count}"
        state = saved.get(number, {})
        for key, expected in (("exp_avg", t.m), ("exp_avg_sq", t.v), ("max_exp_avg_sq", t.largest)):
            if key in state:
                assert torch.equal(state[key], expected), f"{key} of {name} at step {oracle.count}"


def step_beside(
    optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, Tensor]], oracle: MaskedAdam, step: int
) -> None:
    """One step of an optimizer and of its oracle with the same gradients; it leaves them equal."""
    optimizer.zero_grad()
    grads = gradients(named, step)
    backward(named, grads)
    optimizer.step()
    oracle.step(grads)
    against_oracle(optimizer, named, oracle)


def zeros_where_masked(optimizer: torch.optim.Optimizer) -> None:
    """Pruned weights, their gradients and their state are exactly zero; compact state has no entry for them."""
    for slot_name, keep in optimizer.pruner.named_masks().items():
        p = next(
            p
            for g in optimizer.param_groups
            for n, p in zip(g["param_names"], g["params"], strict=True)
            if n == slot_name
        )
        assert not p.detach()[~keep].count_nonzero()
        assert p.grad is None or not p.grad[~keep].count_nonzero()
        for key, value in optimizer.state[p].items():
            if isinstance(value, Tensor) and value.shape == p.shape:
                assert not value[~keep].count_nonzero(), key
            elif key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                assert value.shape == (int(keep.sum()),), key


def ours(named: Any, settings: Prune, **options: Any) -> torch.optim.Optimizer:
    return AdamWPrune(named, prune=settings, **options)


def attached(named: Any, settings: Prune, **options: Any) -> torch.optim.Optimizer:
    base = options.pop("base", "adamw")
    optimizer = (torch.optim.Adam if base == "adam" else torch.optim.AdamW)(named, **options)
    attach(optimizer, settings)
    return optimizer


def plain_step(optimizer: torch.optim.Optimizer, named: Sequence[tuple[str, Tensor]]) -> tuple[list, list]:
    """Weights and state that torch's AdamW makes of an optimizer's next step, masked, without a mask update."""
    masks, saved, group = optimizer.pruner.named_masks(), optimizer.state_dict()["state"], optimizer.param_groups[0]
    copies = [nn.Parameter(p.detach().clone()) for _, p in named]
    plain = torch.optim.AdamW(copies, lr=group["lr"], weight_decay=group["weight_decay"])
    for number, (copied, (name, p)) in enumerate(zip(copies, named, strict=True)):
        copied.grad = p.grad.masked_fill(~masks.get(name, torch.ones_like(p, dtype=torch.bool)), 0)
        plain.state[copied] = {key: value.clone() for key, value in saved.get(number, {}).items() if key in MOMENTS}
    plain.step()
    return [copied.detach() for copied in copies], [plain.state[copied] for copied in copies]


MOMENTS = ("step", "exp_avg", "exp_avg_sq")
