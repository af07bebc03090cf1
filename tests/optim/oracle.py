# SPDX-License-Identifier: MIT
"""The oracle: AdamW on dense tensors with bool masks, step by step in torch's own order, and pruning by sorting.

It shares nothing with the library but torch. Its rules are methods, so that mutants can override them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import brute
import torch
from torch import Tensor


@dataclass(eq=False)
class Dense:
    """One tensor and its dense state."""

    name: str
    w: Tensor
    keep: Tensor
    m: Tensor
    v: Tensor
    largest: Tensor
    movement: Tensor
    g: Tensor | None = None
    steps: int = 0
    prunable: bool = True


@dataclass
class MaskedAdam:
    """Dense masked Adam(W). ``start``, ``end``, ``every`` are steps."""

    named: list[tuple[str, Tensor]]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False
    maximize: bool = False
    decoupled: bool = True
    sparsity: float = 0.5
    start: int = 2
    end: int = 10
    every: int = 2
    schedule: str = "cubic"
    score: str = "state"
    distribution: str = "layer"
    min_density: float = 0.01
    count: int = 0
    last_update: int = -1
    tensors: list[Dense] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, w in self.named:
            self.add(name, w)

    def add(self, name: str, w: Tensor) -> None:
        """Take a tensor's values; matrices and filters are prunable."""
        w = w.detach().clone(memory_format=torch.contiguous_format)
        zeros = [torch.zeros_like(w) for _ in range(3)]
        keep = torch.ones(w.shape, dtype=torch.bool)
        prunable = w.dim() >= 2 and w.numel() > 0
        self.tensors.append(Dense(name, w, keep, *zeros, torch.zeros(w.shape), prunable=prunable))

    # ---- the step --------------------------------------------------------------------------------------------------

    def step(self, grads: list[Tensor | None]) -> None:
        """One step; None: the tensor has no gradient, and does not move."""
        for t, g in zip(self.tensors, grads, strict=True):
            t.g = None if g is None else torch.where(t.keep, g, torch.zeros_like(g))
            if t.g is not None:
                moved = t.w.float() * t.g.float()
                t.movement += moved if self.maximize else -moved
                self.adam(t, t.g)
                for x in (t.w, t.m, t.v, t.largest, t.movement):
                    x[~t.keep] = 0
        self.count += 1
        due = [event for event in self.events() if self.last_update < event <= self.count]
        if due:
            self.update(self.progress(self.count))
            self.last_update = self.count

    def adam(self, t: Dense, g: Tensor) -> None:
        """torch's for-loop, operation by operation."""
        b1, b2 = self.betas
        t.steps += 1
        if self.maximize:
            g = -g
        if self.weight_decay and self.decoupled:
            t.w.mul_(1 - self.lr * self.weight_decay)
        elif self.weight_decay:
            g = g.add(t.w, alpha=self.weight_decay)
        t.m.lerp_(g, 1 - b1)
        t.v.mul_(b2).addcmul_(g, g, value=1 - b2)
        second = t.v
        if self.amsgrad:
            second = t.largest = torch.maximum(t.largest, t.v)
        root = (1 - b2**t.steps) ** 0.5
        t.w.addcdiv_(t.m, (second.sqrt() / root).add_(self.eps), value=-(self.lr / (1 - b1**t.steps)))

    # ---- pruning ---------------------------------------------------------------------------------------------------

    def events(self) -> list[int]:
        return brute.events(self.start, self.end, self.every)

    def progress(self, step: int) -> float:
        if step >= self.end:
            return 1.0
        return brute.share(self.schedule, (step - self.start) / (self.end - self.start))

    def live(self, t: Dense, score: str) -> list[float]:
        """Scores of the kept weights, in row-major order."""
        return self.scores(t, score)[t.keep].tolist()

    def scores(self, t: Dense, score: str) -> Tensor:
        w = t.w.float()
        m = t.m.float() / (1 - self.betas[0] ** t.steps)
        v = t.v.float() / (1 - self.betas[1] ** t.steps)
        match score:
            case "magnitude":
                return w.abs()
            case "hybrid":
                return w * w * m.abs() / (v.sqrt() + 1e-8)
            case "scale-aware":
                return w.abs() * v.sqrt() / (m.abs() + 1e-8)
            case "state":
                return w.abs() * v.sqrt().sqrt()
            case "fisher":
                return w.abs() * v.sqrt()
            case "taylor":
                return (w * t.g.float()).abs()
            case "movement":
                return t.movement
            case "lamp":
                out = torch.zeros(w.shape)
                out[t.keep] = torch.tensor(brute.lamp(w[t.keep]))
                return out
        raise AssertionError(score)

    def update(self, share: float) -> None:
        """Sort, and mask the lowest."""
        needs_gradient = "taylor" in (self.score, self.distribution)
        tensors = [t for t in self.tensors if t.prunable and t.steps > 0 and not (needs_gradient and t.g is None)]
        masked = [int((~t.keep).sum()) for t in tensors]
        counts = self.counts(tensors, masked, self.sparsity * share)
        chosen = [
            brute.lowest_positions([self.live(t, self.score)], max(count - before, 0))[0]
            for t, before, count in zip(tensors, masked, counts, strict=True)
        ]
        for t, positions in zip(tensors, chosen, strict=True):
            where = t.keep.nonzero()[sorted(positions)]
            t.keep[tuple(where.T)] = False
            for x in (t.w, t.m, t.v, t.largest, t.movement):
                x[~t.keep] = 0

    def counts(self, tensors: list[Dense], masked: list[int], sparsity: float) -> list[int]:
        """Masked weights of each tensor."""
        sizes = [t.w.numel() for t in tensors]
        limits = [n - math.ceil(self.min_density * n) for n in sizes]
        total = brute.rounded(sparsity, sum(sizes))
        if self.distribution == "layer":
            return [min(brute.rounded(sparsity, n), limit) for n, limit in zip(sizes, limits, strict=True)]
        if self.distribution == "erk":
            return brute.largest_remainders(brute.erk_ideal([tuple(t.w.shape) for t in tensors], sparsity), total)
        score = self.score if self.distribution == "global" else self.distribution
        taken = brute.lowest_positions(
            [self.live(t, score) for t in tensors],
            max(total - sum(masked), 0),
            [limit - before for limit, before in zip(limits, masked, strict=True)],
        )
        return [before + len(positions) for before, positions in zip(masked, taken, strict=True)]
