# SPDX-License-Identifier: MIT
"""Gradient release: a parameter is stepped as soon as backward has made its gradient, and the gradient is let go.

Gradients are then never all alive. ``step()`` counts, updates the masks and moves on whatever has a gradient still;
learning rates are read during backward. There is one step to a backward: gradients cannot add up over several, nothing
can be asked of all gradients together (their norm), and nobody can change them (a scaler, an all-reduce of replicas;
``fully_shard`` reduces before it calls hooks).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamwprune.prune.shards import local

if TYPE_CHECKING:
    from adamwprune.optim.adam import AdamFamily


class GradientRelease:
    """The hooks that step an optimizer's parameters one by one, and which of them were stepped since ``step()``."""

    def __init__(self, optimizer: AdamFamily) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._hooks: dict[Tensor, Any] = {}
        self._groups: dict[Tensor, dict[str, Any]] = {}
        self._stepped: set[Tensor] = set()
        self.watch()

    def watch(self) -> None:
        """Step the parameters that joined the optimizer since the last look, too."""
        optimizer = self._optimizer()
        assert optimizer is not None
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p not in self._hooks and (p.is_floating_point() or p.is_complex()):
                    self._hooks[p] = self._register_hook(p)

    def close(self, closure: Callable[[], Any] | None) -> bool:
        """End the round, at ``step()``. Whether any parameter was stepped in it.

        Raises:
            ValueError: ``step`` was given a closure, or is called by a GradScaler.
        """
        optimizer = self._optimizer()
        if closure is not None:
            raise ValueError("release_gradients=True steps during backward: call backward and step() without a closure")
        if hasattr(optimizer, "found_inf"):
            raise ValueError(
                "release_gradients=True uses gradients before a GradScaler can unscale or skip them: train in "
                "bfloat16, which needs no scaler"
            )
        stepped = bool(self._stepped)
        self._stepped.clear()
        return stepped

    def forget(self) -> None:
        """Begin the round anew: a checkpoint took the place of what was stepped in it."""
        self._stepped.clear()

    def _register_hook(self, p: Tensor) -> Any:
        this = weakref.ref(self)

        def after_backward(weight: Tensor) -> None:
            release = this()
            if release is not None and weight.grad is not None:
                release._step(weight)

        # torch takes hooks of trainable tensors only; a frozen one may be thawed later.
        frozen = not p.requires_grad
        p.requires_grad_(True)
        handle = p.register_post_accumulate_grad_hook(after_backward)  # type: ignore[no-untyped-call]
        p.requires_grad_(not frozen)
        return handle

    @torch.no_grad()
    def _step(self, p: Tensor) -> None:
        optimizer = self._optimizer()
        if optimizer is None:
            return
        _check_reduced(p)
        if p in self._stepped:
            raise ValueError(
                "a second backward before step(): release_gradients=True takes one step to a backward, so gradients "
                "cannot be accumulated; make the batch larger, or leave release_gradients out"
            )
        if not self._stepped:
            optimizer.begin_released_step()
            # Loading a checkpoint makes new groups, so they are looked up afresh.
            self._groups = {q: group for group in optimizer.param_groups for q in group["params"]}
        self._stepped.add(p)
        optimizer.step_released(p, self._groups[p])
        p.grad = None


def check_release(optimizer: AdamFamily) -> None:
    """ValueError where an option needs all gradients together, or needs them later."""
    pruner, clock = optimizer.pruner, optimizer.spam_clock
    for there, what in (
        (optimizer.clip_norm is not None, f"clip_norm={optimizer.clip_norm!r} needs the norm of all gradients"),
        (clock is not None and clock.settings.zscore is not None, "Spam(zscore=...) needs the norm of all gradients"),
        (optimizer.defaults["differentiable"], "differentiable=True needs the gradients later"),
        (pruner is not None and pruner.prune.regrow > 0, "Prune(regrow=...) ranks by the gradients at the mask update"),
        (pruner is not None and pruner.uses_gradients, "the score ranks by the gradients at the mask update"),
    ):
        if there:
            raise ValueError(f"release_gradients=True lets go of each gradient during backward, and {what}")


def _check_reduced(p: Tensor) -> None:
    """ValueError where other ranks have a part of the gradient; ``fully_shard`` reduces it before it calls hooks."""
    distributed = torch.distributed
    if local(p) is not p or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_world_size() > 1:
        raise ValueError(
            "release_gradients=True would use gradients before they are reduced over the ranks: where "
            "torch.distributed runs more than one process, leave it out, or shard the model with fully_shard"
        )
