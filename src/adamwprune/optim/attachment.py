# SPDX-License-Identifier: MIT
"""Pruning beside any torch optimizer: it keeps its own step, and hooks keep the masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamwprune.optim import checkpoint
from adamwprune.optim.adam import AdamFamily, is_probe
from adamwprune.optim.places import keeps_state
from adamwprune.optim.pruner import Pruner
from adamwprune.optim.record import Loaded
from adamwprune.prune.config import Prune


def attach(optimizer: torch.optim.Optimizer, prune: Prune) -> Pruner:
    """Prune the weights of an optimizer that was made with ``named_parameters()`` or :func:`adamwprune.param_groups`.

    Weights, their gradients and every floating state tensor of a weight's shape are exactly zero where masked, after
    every step. State keeps its shape: only :class:`adamwprune.AdamWPrune` stores it compactly. The pruner becomes
    ``optimizer.pruner``. Masks and the schedule's step travel in ``optimizer.state_dict()``; ``copy.deepcopy`` of a
    torch optimizer keeps neither hooks nor attributes, so a copy has to be attached again.

    Raises:
        ValueError: the optimizer is pruned already, its parameters have no names, or it keeps no moments and the score
            needs them.
    """
    if getattr(optimizer, "pruner", None) is not None:
        raise ValueError(f"this {type(optimizer).__name__} has a pruner already")
    if getattr(optimizer, "defaults", {}).get("differentiable") and prune.sparsity:
        raise ValueError("differentiable=True does not go with pruning: a mask update is not differentiable")
    if isinstance(optimizer, AdamFamily) and optimizer.release is not None:
        raise ValueError(
            "release_gradients=True leaves no gradients for an attached pruner: use AdamWPrune(..., prune=Prune(...))"
        )
    if isinstance(optimizer, AdamFamily) and not optimizer.form.is_torchs:
        raise ValueError(
            f"state={optimizer.form.state!r} keeps moments in a form that only its own step can prune: use "
            "AdamWPrune(..., prune=Prune(...)) instead of attach"
        )
    pruner = Pruner(optimizer, prune, compact=False)
    if prune.sparsity and pruner.uses_moments and "betas" not in optimizer.defaults and not keeps_state(optimizer):
        raise ValueError(
            f"score {prune.score!r} (distribution {prune.distribution!r}) ranks by Adam's moments, and "
            f"{type(optimizer).__name__} keeps none: use score magnitude, movement, taylor, lamp or random, or an "
            "optimizer of the Adam family"
        )
    optimizer.pruner = pruner  # type: ignore[attr-defined]
    _register_hooks(optimizer, pruner)
    return pruner


def _register_hooks(optimizer: torch.optim.Optimizer, pruner: Pruner) -> None:
    counted, skipped = True, False
    loaded = Loaded()

    def gradients_are_there(opt: torch.optim.Optimizer) -> None:
        nonlocal counted, skipped
        # A fused optimizer under GradScaler is handed scaled gradients, and skips the step itself.
        found_inf: Tensor | None = getattr(opt, "found_inf", None)
        grad_scale: Tensor | None = getattr(opt, "grad_scale", None)
        skipped = found_inf is not None and bool(found_inf)
        counted = not is_probe(opt) and not skipped
        if not skipped:
            pruner.before_step(1.0 if grad_scale is None else float(grad_scale))

    def before_step(opt: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            gradients_are_there(opt)
            return None

        def closure_then_mask() -> Any:
            loss = closure()
            with torch.no_grad():
                gradients_are_there(opt)
            return loss

        return args[:1], {**kwargs, "closure": closure_then_mask}

    def after_step(opt: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not skipped:
            pruner.after_step(counted=counted)

    def after_state_dict(opt: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        checkpoint.export(state_dict, opt, pruner)

    def before_load(opt: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        nonlocal loaded
        loaded = checkpoint.read(state_dict, opt, pruner)
        return checkpoint.without_ours(state_dict)

    def after_load(opt: torch.optim.Optimizer) -> None:
        pruner.restore(loaded)

    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)
    optimizer.register_state_dict_post_hook(after_state_dict)
    optimizer.register_load_state_dict_pre_hook(before_load)
    optimizer.register_load_state_dict_post_hook(after_load)
