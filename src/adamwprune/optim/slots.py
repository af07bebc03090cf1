# SPDX-License-Identifier: MIT
"""The scope: which of an optimizer's tensors are prunable, and how far each may go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adamwprune.prune.config import Prune
from adamwprune.prune.distributions import Bounds, rounded
from adamwprune.prune.masks import Mask
from adamwprune.prune.scope import check_globs, glob_refusal, matches, name_refusal
from adamwprune.prune.shards import local, ranks_of, shard

#: Share of a tensor's weights from which down its state is to be stored for the kept ones only.
COMPACT_BELOW = 0.7


@dataclass(slots=True, eq=False)
class Slot:
    """One prunable tensor and what the pruner keeps of it."""

    name: str
    weight: Tensor
    group: int
    mask: Mask | None = None

    inputs: int = 1
    """The dimension that counts its inputs, along which patterns run."""

    may_compact: bool = False
    """Whether masked weights are gone for good, so that their state need not be stored."""

    compact: bool = False
    """Whether state and movement are stored for kept weights only."""

    movement: Tensor | None = None
    """Accumulated -w g, float32: one entry per kept weight where compact, else flat of the weight's size."""

    exchange: Tensor | None = None
    """Gradients of masked weights, recorded before masking on exchange steps; float32 of the weight's shape."""

    recorded: tuple[int, int] = (0, 0)
    """Address and version of the gradient tensor that ``exchange`` was last recorded from, after masking."""

    @property
    def packable(self) -> bool:
        """Whether its state is dense, and would better be compact."""
        if self.compact or not self.may_compact or self.mask is None:
            return False
        return self.mask.kept <= COMPACT_BELOW * self.mask.numel

    @property
    def masked(self) -> int:
        """Weights removed so far, on all ranks that hold some."""
        return 0 if self.mask is None else self.mask.masked + self.mask.elsewhere


def classify(
    groups: Sequence[dict[str, Any]], prune: Prune, known: dict[Tensor, Slot], left_out: dict[str, str]
) -> list[Slot]:
    """Sort an optimizer's parameters: new slots are returned, the reasons of the others go into ``left_out``.

    Raises:
        ValueError: names are missing or not unique, a glob matches nothing, or a prunable tensor is complex or sparse.
    """
    if prune.sparsity and any("param_names" not in group for group in groups):
        raise ValueError(
            "pruning needs parameter names, and bare parameters() have none (embeddings would be pruned silently): "
            "pass model.named_parameters(), or adamwprune.param_groups(model, ...)"
        )
    names = [name for group in groups for name in group.get("param_names", ())]
    if prune.sparsity:
        _check_unique(groups)
    if names:
        check_globs(names, prune.include, prune.exclude)
    found: list[Slot] = []
    for index, group in enumerate(groups):
        # Without names (sparsity 0) there is nothing to pair: the scope stays empty.
        for name, p in zip(group.get("param_names", ()), group["params"], strict=False):
            if p in known or name in left_out:
                continue
            reason = _refusal(name, p, group, prune)
            if reason is not None:
                left_out[name] = reason
            elif p.is_complex() or p.is_sparse:
                kind = "complex" if p.is_complex() else "sparse"
                raise ValueError(f"{name} is {kind}: only dense real weights are pruned; leave it out with exclude")
            else:
                found.append(Slot(name, p, index, inputs=_inputs(name, group)))
    return found


def _check_unique(groups: Sequence[dict[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for index, group in enumerate(groups):
        for name in group["param_names"]:
            if name in seen:
                raise ValueError(
                    f"two parameters are called {name!r} (groups {seen[name]} and {index}), and masks go by name: give "
                    "each module's names a prefix, as [(f'critic.{n}', p) for n, p in critic.named_parameters()]"
                )
            seen[name] = index


def _refusal(name: str, p: Tensor, group: dict[str, Any], prune: Prune) -> str | None:
    """Why a tensor is out of scope: by globs, by its group's mark or its name, by its shape, by the pattern."""
    refusal = glob_refusal(name, prune.include, prune.exclude)
    if refusal is not None:
        return refusal
    if prune.include is None or not matches(name, prune.include):
        if group.get("prunable") is None:
            refusal = name_refusal(name, p.shape)
        elif not group["prunable"]:
            refusal = group.get("left_out", {}).get(name, "its group is marked as not prunable")
    if refusal is not None:
        return refusal
    if p.dim() < 2:
        return "fewer than two dimensions"
    if p.numel() == 0:
        return "it has no weights"
    if not (p.is_floating_point() or p.is_complex()):
        return f"its weights are {p.dtype}"
    pattern = prune.parsed_pattern()
    if pattern is None:
        return None
    inputs = _inputs(name, group)
    if inputs == 0 and shard(p) is not None:
        return f"its inputs are spread over ranks (pattern {pattern})"
    return pattern.refusal(tuple(p.shape), inputs)


def _inputs(name: str, group: dict[str, Any]) -> int:
    """The dimension of a weight's inputs; :func:`adamwprune.param_groups` knows the modules that transpose it."""
    return 0 if name in group.get("inputs_first", ()) else 1


def bounds(slot: Slot, prune: Prune) -> Bounds:
    """How many weights of a tensor are masked, and how many may be."""
    numel = slot.weight.numel()
    pattern = prune.parsed_pattern()
    if pattern is not None:
        limit = numel // pattern.m * (pattern.m - pattern.n)
    else:
        limit = numel - math.ceil(prune.min_density * numel - 1e-9)
    return Bounds(tuple(slot.weight.shape), slot.masked, max(limit, slot.masked))


def target_count(slots: Sequence[Slot], prune: Prune) -> int:
    """How many weights shall be masked at the end: exactly ``floor(sparsity * n + 1/2)`` of every scope."""
    if not prune.sparsity:
        return 0
    if prune.pattern is not None:
        return sum(bounds(slot, prune).limit for slot in slots)
    if prune.distribution == "layer":
        return sum(rounded(prune.sparsity, slot.weight.numel()) for slot in slots)
    return rounded(prune.sparsity, sum(slot.weight.numel() for slot in slots))


def check_reachable(slots: Sequence[Slot], prune: Prune, left_out: dict[str, str]) -> None:
    """ValueError where nothing is prunable, ``min_density`` forbids the target, or ranks hold tensors unevenly."""
    if not prune.sparsity:
        return
    if ranks_of(slot.weight for slot in slots) is not None:
        for score in (prune.ranking(), prune.budget_score()):
            if score is not None and score.whole:
                raise ValueError(
                    f"score {score.name!r} must see whole tensors, and here ranks hold a part each: use another"
                )
    if not slots:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:4])
        raise ValueError(f"nothing is prunable ({reasons}): name tensors with Prune(include=...)")
    if prune.distribution == "layer" and prune.pattern is None:
        scopes = [(slot.name, [slot]) for slot in slots]
    else:
        scopes = [("the network", list(slots))]
    for name, scope in scopes:
        short = target_count(scope, prune) - sum(bounds(slot, prune).limit for slot in scope)
        if short > 0:
            raise ValueError(
                f"sparsity={prune.sparsity!r} would leave {name} {short} weights short of min_density="
                f"{prune.min_density!r}: lower the sparsity or min_density, or exclude small tensors"
            )


def check_masked_weights(slots: Iterable[Slot]) -> None:
    """ValueError where masked weights are not zero: after a load they are of another checkpoint than the masks."""
    for slot in slots:
        if slot.mask is None:
            continue
        weight = local(slot.weight)
        alive = int(weight[~slot.mask.to_bool(weight.shape)].count_nonzero())
        if alive:
            raise ValueError(
                f"{alive} weights of {slot.name} are not zero though the loaded optimizer state masks them: load "
                "the model's weights from the same checkpoint"
            )
