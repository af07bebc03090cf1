# SPDX-License-Identifier: MIT
"""The pruner: keeps the masks of an optimizer's prunable tensors and updates them on schedule.

It works beside any optimizer. Where masked weights are gone for good and the step is ours
(:class:`adamwprune.AdamWPrune`), their state is zero, and below a density not stored (:mod:`adamwprune.optim.layout`).
Beside another optimizer (:func:`adamwprune.attach`), or with regrowth, everything keeps its shape, and masked entries
are zeroed after every step.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from adamwprune import kernels
from adamwprune.optim import account, gradients, places
from adamwprune.optim.copies import Copies, mask_once
from adamwprune.optim.groups import parameters
from adamwprune.optim.layout import PER_WEIGHT, next_to_pack, pack, take_mask
from adamwprune.optim.mask_update import new_masks
from adamwprune.optim.owed import OwedFactors
from adamwprune.optim.record import Loaded
from adamwprune.optim.slots import Slot, check_masked_weights, check_reachable, classify, target_count
from adamwprune.optim.views import obstacle, view
from adamwprune.prune.config import Prune
from adamwprune.prune.masks import Mask
from adamwprune.prune.shards import like, local


class Pruner:
    """Masks, their schedule and their account. Made by ``AdamWPrune(prune=...)`` and :func:`adamwprune.attach`."""

    def __init__(self, optimizer: torch.optim.Optimizer, prune: Prune, *, compact: bool) -> None:
        # Weak: an optimizer that is dropped takes its pruner along at once, and the model's gradients are whole again.
        self._optimizer = weakref.ref(optimizer)
        self.prune = prune
        # Beside another optimizer its state stays whole, and its own.
        self.owns_step = compact
        # Weights that may come back keep their place: with regrowth, state stays dense.
        self.compact = compact and not prune.regrow
        self.step = 0
        self.last_update: int | None = None
        self.left_out: dict[str, str] = {}
        self.slots: dict[Tensor, Slot] = {}
        self._needs = _needs(prune)
        self._ramp = prune.ramp() if prune.sparsity and prune.total_steps is not None else None
        self._waiting: dict[str, str] = {}
        self._seen_params = 0
        self._unverified = False
        self._hooks: list[Any] = []
        self._copies = Copies()
        self.refresh()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer whose weights are pruned."""
        optimizer = self._optimizer()
        if optimizer is None:
            raise ReferenceError("the optimizer of this pruner is gone: keep a reference to it")
        return optimizer

    def refresh(self) -> None:
        """Take up parameters that were added to the optimizer since the last look.

        Raises:
            ValueError: names are missing, a glob matches nothing, nothing is prunable, or the target cannot be reached.
        """
        groups = self.optimizer.param_groups
        left_out = dict(self.left_out)
        fresh = classify(groups, self.prune, self.slots, left_out)
        check_reachable([*self.slots.values(), *fresh], self.prune, left_out)
        self.left_out = left_out
        for slot in fresh:
            slot.may_compact = self.compact
            self.slots[slot.weight] = slot
            self._hooks.append(gradients.register_hook(self, slot))
        for group in groups:
            # torch.distributed.checkpoint restores only group keys that the live optimizer has.
            group.setdefault("prune", {})
        self._seen_params = sum(len(group["params"]) for group in groups)

    def set_total_steps(self, total_steps: int) -> None:
        """Tell the number of optimizer steps of the run; before the first step.

        Raises:
            ValueError: the run has begun, or the window does not fit.
        """
        if self.step and self._ramp is not None:
            raise ValueError(f"total_steps cannot change at step {self.step}: set it before the first step")
        self.prune = dataclasses.replace(self.prune, total_steps=total_steps)
        self._needs = _needs(self.prune)  # `auto` may choose another score now
        self._ramp = self.prune.ramp() if self.prune.sparsity else None

    # ---- what the optimizer calls ----------------------------------------------------------------------------------

    @property
    def end(self) -> int | None:
        """Step of the last mask update; None where nothing will be pruned."""
        return None if self._ramp is None else self._ramp.end

    # An attached optimizer's own step may be compiled; around it nothing is. (torch.compiler.disable, imported late.)
    @_disable_dynamo
    def before_step(self, grad_scale: float = 1.0) -> None:
        """Called with the step's gradients before they are used; ``grad_scale`` is what they are multiplied by."""
        self.prepare_step()
        for slot in self.slots.values():
            self.use_gradient(slot, grad_scale)

    def prepare_step(self) -> None:
        """Take up new parameters, and check what can be checked without gradients."""
        if self.prune.sparsity and self._ramp is None:
            self.prune.ramp()
        if sum(len(group["params"]) for group in self.optimizer.param_groups) != self._seen_params:
            self.refresh()
        if self._unverified:
            check_masked_weights(self.slots.values())
            self._copies.mask(self.slots.values())
            self._unverified = False

    def use_gradient(self, slot: Slot, grad_scale: float = 1.0) -> None:
        """Look at a tensor's gradient before the step uses it."""
        grad = slot.weight.grad
        if grad is None:
            return
        if grad.is_sparse:
            raise ValueError(f"{slot.name} has a sparse gradient: pruning needs dense ones (sparse=False)")
        if not self.compact and slot.mask is not None:
            kernels.zero_masked(grad, slot.mask)
        if self.uses_movement and self.prune.sparsity:
            uphill = self.optimizer.param_groups[slot.group].get("maximize", False)
            gradients.accumulate_movement(slot, grad, -grad_scale if uphill else grad_scale, self.owed_factor(slot))

    def owed_factor(self, slot: Slot) -> Tensor | None:
        """What the tensor's gradient is still to be multiplied by; the gradient itself does not show it."""
        owed: OwedFactors | None = getattr(self.optimizer, "owed", None)
        return None if owed is None else owed.of(slot.weight)

    @_disable_dynamo
    def after_step(self, *, counted: bool = True) -> None:
        """Called once the weights have moved. ``counted`` is False for a step that was skipped or only a probe."""
        if not self.compact:
            for slot in self.slots.values():
                self._enforce_zeros(slot)
        if not self.owns_step or self.uses_movement:
            self._hold_places(p for p in self.slots if p.grad is not None or self.optimizer.state.get(p))
        if counted:
            self.step += 1
            if self.due(self.step):
                self.update()
            for slot in self.slots.values():
                slot.exchange = None

    def _hold_places(self, tensors: Iterable[Tensor]) -> None:
        if self.prune.sparsity:
            for p in tensors:
                places.hold(self.optimizer.state[p], self.slots[p], marked=self.owns_step)

    def due(self, step: int) -> bool:
        """Whether the masks are to be updated at the end of a step."""
        if self._ramp is None or not self._ramp.pending(step, self.last_update):
            return False
        return not self.uses_moments or getattr(self.optimizer, "moments_ready", True)

    @property
    def uses_moments(self) -> bool:
        """Whether mask updates rank by Adam's moments."""
        return not self._needs.isdisjoint({"m", "v"})

    @property
    def uses_gradients(self) -> bool:
        """Whether mask updates rank by the gradients of their step."""
        return "g" in self._needs

    @property
    def uses_movement(self) -> bool:
        """Whether mask updates rank by what steps accumulate of ``-w * g``."""
        return "movement" in self._needs

    def _enforce_zeros(self, slot: Slot) -> None:
        if slot.mask is None:
            return
        kernels.zero_masked(slot.weight, slot.mask)
        for value in self.optimizer.state.get(slot.weight, {}).values():
            if isinstance(value, Tensor) and value.is_floating_point() and value.shape == slot.weight.shape:
                kernels.zero_masked(value, slot.mask)

    # ---- the mask update -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def update(self) -> None:
        """Bring the masks to the schedule's sparsity of this step.

        Raises:
            NonFiniteScoreError: a score is NaN or infinite; nothing was changed.
            ValueError: the optimizer keeps no moments and the score needs them; nothing was changed.
        """
        assert self._ramp is not None
        slots = self._eligible()
        # RigL anneals its exchange by a cosine; here it ends with the ramp.
        progress = min(1.0, (self.step - self._ramp.start) / (self._ramp.end - self._ramp.start))
        exchange = self.prune.regrow * 0.5 * (1.0 + math.cos(math.pi * progress))
        sparsity = self.prune.sparsity * self._ramp.fraction(self.step)
        for slot, mask in new_masks(slots, [view(self, slot) for slot in slots], self.prune, sparsity, exchange):
            self._apply(slot, mask)
        for slot in next_to_pack(slots, last=self.step >= self._ramp.end):
            pack(slot, self.optimizer.state[slot.weight])
        self.last_update = self.step
        self._copies.mask(self.slots.values())

    def _eligible(self) -> list[Slot]:
        """Slots that can be ranked now; the others wait, and the report says why."""
        self._waiting = {}
        for slot in self.slots.values():
            reason = obstacle(self, slot)
            if reason is not None:
                self._waiting[slot.name] = reason
        return [slot for slot in self.slots.values() if slot.name not in self._waiting]

    def _apply(self, slot: Slot, new: Mask) -> None:
        """Make ``new`` the tensor's mask: zero what goes, and keep of the optimizer's state what stays."""
        take_mask(slot, self.optimizer.state[slot.weight] if self.owns_step else {}, new)
        kernels.zero_masked(slot.weight, new)
        if slot.weight.grad is not None:
            kernels.zero_masked(slot.weight.grad, new)
        if not self.compact:
            self._enforce_zeros(slot)

    # ---- checkpoints and copies ------------------------------------------------------------------------------------

    def record(self, group: int) -> dict[str, Any]:
        """What a checkpoint keeps of one parameter group, as plain data."""
        slots = [slot for slot in self.slots.values() if slot.group == group]
        return {
            "version": 1,
            "step": self.step,
            "last_update": self.last_update,
            "sparsity": float(self.prune.sparsity),  # numpy's own would not load with weights_only
            "pattern": self.prune.pattern,
            "masked": sum(slot.masked for slot in slots),
            "movement": sum(slot.movement is not None for slot in slots),
            "waiting": {slot.name: self._waiting[slot.name] for slot in slots if slot.name in self._waiting},
        }

    def restore(self, loaded: Loaded) -> None:
        """Take up a checkpoint whose state was already loaded, dense, into the optimizer."""
        self.step, self.last_update, self._waiting = loaded.step, loaded.last_update, loaded.waiting
        for p, slot in self.slots.items():
            slot.mask, slot.compact, slot.exchange = None, False, None
            slot.movement = loaded.movement.get(p)
            if p not in loaded.masks:
                continue
            state = self.optimizer.state[p] if self.owns_step else {}
            # torch's state may still be the checkpoint's own tensors, which are not ours to change: take copies.
            state.update({name: state[name].clone() for name in PER_WEIGHT if name in state})
            take_mask(slot, state, loaded.masks[p].to(p.device))
            if slot.packable:
                pack(slot, state)
        self._hold_places(p for p in self.slots if self.optimizer.state.get(p))
        self._unverified = bool(loaded.masks)
        self._copies.mask(self.slots.values())

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_hooks", "_copies")}
        return {**kept, "_optimizer": self.optimizer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._optimizer = weakref.ref(state["_optimizer"])
        self._copies = Copies()
        self._hooks = [gradients.register_hook(self, slot) for slot in self.slots.values()]

    # ---- what a user asks ------------------------------------------------------------------------------------------

    def named_masks(self) -> dict[str, Tensor]:
        """Name to bool tensor of the weight's shape (True: kept), for tensors that have a mask."""
        masked = [(slot.name, slot.weight, slot.mask) for slot in self.slots.values() if slot.mask is not None]
        return {name: like(mask.to_bool(local(weight).shape), weight) for name, weight, mask in masked}

    def apply_masks(self, copy: torch.nn.Module | Iterable[tuple[str, Tensor]]) -> None:
        """Zero the masked weights of a copy of the model, once; :meth:`follow` does so from now on.

        Parameters match by name; the prefixes that wrappers add (``module.``, ``_orig_mod.``) do not count.

        Raises:
            ValueError: there are masks, and no name matches.
        """
        mask_once(copy, self.slots.values())

    def follow(self, copy: torch.nn.Module) -> None:
        """Keep a copy of the model masked: an average of its weights (EMA, SWA), or a frozen teacher.

        The copy is masked now, at every mask update, when a checkpoint is loaded, and at the first step after that. In
        between averages stay sparse by themselves, as masked weights are zero in the model and in the copy. Names match
        as in :meth:`apply_masks`. Copies of the optimizer (``copy.deepcopy``, pickle) follow nothing.

        Raises:
            ValueError: no parameter of the copy has the name of a prunable tensor.
        """
        self._copies.add(copy, self.slots.values())
        self._copies.mask(self.slots.values())

    @property
    def at_target(self) -> bool:
        """Whether exactly the final number of weights is masked: ``floor(sparsity * n + 1/2)`` of every scope."""
        in_scope = [slot for slot in self.slots.values() if slot.name not in self._waiting]
        return sum(slot.masked for slot in in_scope) == target_count(in_scope, self.prune)

    @property
    def sparsity(self) -> float:
        """Measured: masked over prunable weights."""
        weights = sum(slot.weight.numel() for slot in self.slots.values())
        return sum(slot.masked for slot in self.slots.values()) / weights if weights else 0.0

    def report(self) -> dict[str, Any]:
        """Where pruning stands, as plain data.

        Returns:
            ``step``; ``target`` and measured ``sparsity``; ``score``, the name of the one that ranks; ``last_update``
            (a step, or None); ``backend`` (the kernels of the prunable tensors, all that are in use); ``tensors``
            {name: {weights, masked, sparsity}}; ``left_out`` {name: reason}; ``bytes`` {weights, gradients, state,
            mask, workspace} of the prunable tensors and ``bytes_model`` of all. Bytes count tensors that exist now.
        """
        slots = list(self.slots.values())
        return {
            "step": self.step,
            "target": self.prune.sparsity,
            "score": self.prune.ranking().name,
            "sparsity": self.sparsity,
            "last_update": self.last_update,
            "backend": ", ".join(sorted({kernels.backend_of(slot.weight) for slot in slots})) or kernels.backend("cpu"),
            "tensors": {
                slot.name: {
                    "weights": slot.weight.numel(),
                    "masked": slot.masked,
                    "sparsity": slot.masked / slot.weight.numel(),
                }
                for slot in slots
            },
            "left_out": {**self.left_out, **self._waiting},
            "bytes": account.pruned(self.optimizer, slots, self.slots),
            "bytes_model": account.pruned(self.optimizer, slots, parameters(self.optimizer.param_groups)),
        }


def _needs(prune: Prune) -> frozenset[str]:
    """What mask updates rank by, and set budgets by."""
    budget = prune.budget_score()
    return prune.ranking().needs | (budget.needs if budget else frozenset())
