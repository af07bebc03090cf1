# SPDX-License-Identifier: MIT
"""The Adam family's one step: torch's own where nothing is pruned, the same on compact state where something is.

It derives from :class:`torch.optim.Adam` for its checks, its state and its checkpoint form, but never calls its
``step``: torch wraps ``step`` of each class it instantiates, and calling up would fire every step hook twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT, _use_grad_for_differentiable

from adamwprune import kernels
from adamwprune.kernels import Hyper, Job, formats, reference
from adamwprune.optim import checkpoint
from adamwprune.optim.clip import clip_grad_norm_, kept_norm
from adamwprune.optim.forms import Form
from adamwprune.optim.groups import parameters
from adamwprune.optim.layout import fit
from adamwprune.optim.owed import OwedFactors
from adamwprune.optim.pruner import Pruner
from adamwprune.optim.release import GradientRelease, check_release
from adamwprune.optim.spam import Spam, SpamClock, check_real
from adamwprune.prune.config import Prune
from adamwprune.prune.shards import local, local_gradient, on_any_rank, shard

BASES = ("adam", "adamw", "adamwadv", "adamwspam")

#: Gradient norm to which the ``adamwadv`` base clips.
ADV_CLIP_NORM = 1.0

#: Attributes that copies and pickles of an optimizer keep; torch itself keeps only defaults, state and groups.
_KEPT = (
    "base",
    "clip_norm",
    "pruner",
    "_owns_pruner",
    "spam_clock",
    "form",
    "_step_supports_amp_scaling",
)


class AdamFamily(torch.optim.Adam):
    """Adam, AdamW, AMSGrad with clipping, or SPAM, with or without pruning. Use the public subclasses."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool | None = None,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        prune: Prune | None = None,
        base: str = "adamw",
        spam: Spam | None = None,
        clip_norm: float | None = None,
        state: str | None = None,
        correction: bool = False,
        release_gradients: bool = False,
    ) -> None:
        if base not in BASES:
            raise ValueError(f"unknown base {base!r}: expected one of {', '.join(BASES)}")
        if spam is not None and base != "adamwspam":
            raise ValueError(f"spam={spam!r} needs base='adamwspam', not base={base!r}")
        if clip_norm is not None and clip_norm < 0:
            raise ValueError(f"clip_norm={clip_norm!r}: expected at least 0 (0: no clipping)")
        if differentiable and prune is not None and prune.sparsity:
            raise ValueError("differentiable=True does not go with pruning: a mask update is not differentiable")
        self.base = base
        self.clip_norm = ADV_CLIP_NORM if clip_norm is None and base == "adamwadv" else clip_norm or None
        self.spam_clock = SpamClock(spam or Spam()) if base == "adamwspam" else None
        self.owed = OwedFactors()
        self.form = Form(state, correction)
        self.release: GradientRelease | None = None
        self.pruner: Pruner | None = None
        # An attached pruner is called by hooks; our own by `step`.
        self._owns_pruner = prune is not None
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            base == "adamwadv" if amsgrad is None else amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=base != "adam",
        )
        self.form.check_weights(parameters(self.param_groups))
        if prune is not None:
            self.pruner = Pruner(self, prune, compact=True)
        # A fused kernel can unscale inside itself, but clipping, spikes and pruning must see true gradients first.
        plain = (prune is None or not prune.sparsity) and self.clip_norm is None and self.spam_clock is None
        self._step_supports_amp_scaling = bool(fused) and plain and self.form.is_torchs
        if release_gradients:
            check_release(self)
        self._release_gradients(release_gradients)

    def _release_gradients(self, wanted: bool) -> None:
        if wanted:
            self.release = GradientRelease(self)
            # So a GradScaler calls `step`, which refuses it by name.
            self._step_supports_amp_scaling = True

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: self.__dict__[name] for name in _KEPT} | {"release": self.release is not None}
        # A copy has no hooks, so an attached pruner does not go along: attach to the copy again.
        return {**super().__getstate__(), **kept, "pruner": self.pruner if self._owns_pruner else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if "release" in state:  # a copy or a pickle; torch comes here with loaded state and groups, too
            self.owed = OwedFactors()  # its weights have no gradients yet
            self.release = None
            self._release_gradients(state["release"])
        for group in self.param_groups:
            # Checkpoints of releases that had no such key are of AdamW; torch's default is Adam's.
            group["decoupled_weight_decay"] = self.base != "adam"

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; the pruner takes the group up, or refuses it, at once."""
        super().add_param_group(param_group)
        try:
            self.form.check_group(self.param_groups[-1])
            if self.spam_clock is not None:
                check_real(self.param_groups[-1])
            if self.pruner is not None:
                self.pruner.refresh()
        except ValueError:
            self.param_groups.pop()
            raise
        if self.spam_clock is not None:
            # torch.distributed.checkpoint restores only group keys that the live optimizer has.
            self.param_groups[-1].setdefault("spam", {})
        if self.release is not None:
            self.release.watch()

    # ---- the step --------------------------------------------------------------------------------------------------

    # Our kernels leave nothing to fuse, so a compiled step runs as it is. (torch.compiler.disable, but imported late.)
    @_disable_dynamo
    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` reevaluates the model, with gradients enabled, and returns the loss."""
        loss = None
        released = self.release is not None and self.release.close(closure)
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_gradients()
        counted = released or (self.spam_clock is None and self.pruner is None) or not is_probe(self)
        if self.clip_norm is not None:
            clip_grad_norm_(self, self.clip_norm)
        if self.pruner is not None and self._owns_pruner:
            self.pruner.before_step()
        if self.spam_clock is not None and counted and not released:
            self.spam_clock.tend(self.state, lambda: kept_norm(self), self._last_update)
        for group in self.param_groups:
            self._step_group(group)
        if self.spam_clock is not None and counted:
            self.spam_clock.step += 1
        if self.pruner is not None and self._owns_pruner:
            self.pruner.after_step(counted=counted)
        self.owed.clear()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; a factor that clipping left for the step goes with the gradients."""
        super().zero_grad(set_to_none)
        self.owed.clear()

    def _check_gradients(self) -> None:
        """Refuse what would stop the step halfway, before anything has moved.

        Raises:
            ValueError: a gradient is sparse or was changed after clipping, or state or mask is on another device.
        """
        self.owed.check()
        if self.pruner is None and self.form.is_torchs:
            return
        for p in (p for p in parameters(self.param_groups) if p.grad is not None):
            if p.grad.is_sparse:
                raise ValueError(
                    f"a weight of shape {list(p.shape)} has a sparse gradient: use dense ones (sparse=False), or leave "
                    "it to an optimizer of its own"
                )
            self._check_device(p)

    def _check_device(self, p: Tensor) -> None:
        slot = self.pruner.slots.get(p) if self.pruner is not None else None
        for what, tensor in (
            ("optimizer state", self.state.get(p, {}).get("exp_avg")),
            ("mask", None if slot is None or slot.mask is None else slot.mask.bits),
        ):
            if tensor is not None and tensor.device != p.device:
                raise ValueError(
                    f"a weight of shape {list(p.shape)} is on {p.device}, and its {what} on {tensor.device}: move the "
                    "model first and make the optimizer then, or load its state_dict anew, which moves it"
                )

    def begin_released_step(self) -> None:
        """What a step does before it uses its first gradient."""
        if self.pruner is not None and self._owns_pruner:
            self.pruner.prepare_step()
        if self.spam_clock is not None:
            self.spam_clock.tend(self.state, lambda: kept_norm(self), self._last_update)

    def step_released(self, p: Tensor, group: dict[str, Any]) -> None:
        """Step one parameter of a group, during backward."""
        self._check_device(p)
        slot = self.pruner.slots.get(p) if self.pruner is not None and self._owns_pruner else None
        if self.pruner is not None and slot is not None:
            self.pruner.use_gradient(slot)
        self._step_group({**group, "params": [p]})

    def _step_group(self, group: dict[str, Any]) -> None:
        scale = 1.0 if self.spam_clock is None else self.spam_clock.lr_scale
        theta = None if self.spam_clock is None else self.spam_clock.theta
        hyper = Hyper(
            lr=group["lr"] if scale == 1.0 else group["lr"] * scale,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            **{name: group[name] for name in Hyper.__slots__ if name in group and name != "lr"},
        )
        for p in group["params"]:
            if p.grad is not None and not self.state.get(p):
                self._create_state(p, group)
        ours = {p for p in group["params"] if p.grad is not None and self.steps_itself(p)}
        self._step_whole({**group, "params": [p for p in group["params"] if p not in ours]}, hyper, theta)
        kernels.step([self._job(p, p.grad, hyper, theta) for p in group["params"] if p in ours])
        if ours:  # together: on a GPU each would be a launch of its own
            torch._foreach_add_([self.state[p]["step"] for p in ours], 1)

    def _create_state(self, p: Tensor, group: dict[str, Any]) -> None:
        """State of a tensor that torch would not make as it is to be: in another form, or of one with a mask.

        A tensor can have a mask and no state where ``state`` was cleared, to forget the momentum.
        """
        slot = self.pruner.slots.get(p) if self.pruner is not None and self.pruner.compact else None
        masked = slot is not None and slot.mask is not None
        if self.form.covers(p):
            self.state[p] = self.form.create(p, group)
        elif masked:
            self._init_group({**group, "params": [p]}, *([] for _ in range(6)))  # type: ignore[no-untyped-call]
        if masked and slot is not None:
            fit(slot, self.state[p])

    def steps_itself(self, p: Tensor) -> bool:
        """Whether our kernels step the tensor: it has a mask, or state wider than it, which torch cannot take."""
        slot = self.pruner.slots.get(p) if self.pruner is not None and self.pruner.compact else None
        return (slot is not None and slot.mask is not None) or self._is_wide(p)

    def takes_factor(self, p: Tensor) -> bool:
        """Whether clipping may leave its factor to the step: nobody else writes the gradient in between."""
        slot = self.pruner.slots.get(p) if self.pruner is not None else None
        return self.steps_itself(p) and (slot is None or slot.may_compact) and local(p) is p

    def _is_wide(self, p: Tensor) -> bool:
        """Whether the tensor's state has another type than torch's would have, the weight's."""
        state = self.state.get(p, {})
        types = {state[name].dtype for name in ("exp_avg", "exp_avg_sq") if name in state}
        return bool(types - {p.dtype}) or formats.CORRECTION in state

    def _job(self, p: Tensor, grad: Tensor, hyper: Hyper, theta: float | None) -> Job:
        state = self.state[p] if local(p) is p else {name: local(x) for name, x in self.state[p].items()}
        slot = self.pruner.slots.get(p) if self.pruner is not None else None
        mask = None if slot is None else slot.mask
        dense = mask is not None and slot is not None and not slot.compact
        step, owed = self._corrected(state["step"], p), self.owed.of(p)
        part = shard(p) if self.form.covers(p) else None  # only rounding asks for the place
        first = 0 if part is None else part.first
        return Job(local(p), local(grad), state, step, mask, hyper, theta, dense_state=dense, scale=owed, first=first)

    def _step_whole(self, group: dict[str, Any], hyper: Hyper, theta: float | None) -> None:
        """torch's own update of the tensors that keep their shape."""
        for p in group["params"]:
            self.owed.settle(p)
        params: list[Tensor] = []
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [])
        has_complex = self._init_group(group, params, *lists)  # type: ignore[no-untyped-call]
        grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps = lists
        if theta is not None:
            for grad, exp_avg_sq in zip(grads, exp_avg_sqs, strict=True):
                reference.clip_spikes(local(grad), local(exp_avg_sq), theta)
        ages = [self._corrected(step, p) for step, p in zip(steps, params, strict=True)]
        adam(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            max_exp_avg_sqs,
            ages,
            has_complex=has_complex,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            **hyper.torch_options(),
        )
        for step, age in zip(steps, ages, strict=True):
            if age is not step:
                step += 1

    # ---- the age of moments ----------------------------------------------------------------------------------------

    @property
    def _last_update(self) -> int | None:
        """Step of the last mask update; None where nothing will be pruned."""
        return None if self.pruner is None else self.pruner.end

    def _corrected(self, step: Tensor, p: Tensor) -> Tensor:
        """The count that bias correction uses."""
        return step if self.spam_clock is None else self.spam_clock.since_reset(step, p)

    @property
    def moments_ready(self) -> bool:
        """Whether a mask update may rank by the moments now (they are not young after a reset)."""
        return self.spam_clock is None or self.spam_clock.moments_ready

    def moment_age(self, p: Tensor) -> int:
        """Updates that the moments of ``p`` have seen since they were last zero."""
        return int(self._corrected(self.state[p]["step"], p))

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """AdamW's own state dict: dense moments, masks as -0.0 in ``exp_avg_sq``, plain records in the groups."""
        result = super().state_dict()
        checkpoint.export(result, self, self.pruner if self._owns_pruner else None)
        if self.spam_clock is not None:
            for group, saved in zip(self.param_groups, result["param_groups"], strict=True):
                saved["spam"] = self.spam_clock.record(group["params"])
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this family or of ``torch.optim.AdamW``.

        Raises:
            ValueError: its records and its masks disagree, or do not fit this optimizer; nothing was loaded.
        """
        checkpoint.check_shapes(state_dict, self)
        owns = self.pruner is not None and self._owns_pruner
        loaded = checkpoint.read(state_dict, self, self.pruner) if owns and self.pruner is not None else None
        pairs = list(zip(self.param_groups, state_dict["param_groups"], strict=False))
        for group, saved in pairs:
            self.form.check_group({**group, **saved, "params": group["params"]})
        clock = self.spam_clock
        if clock is not None:
            clock = clock.restored((group["params"], saved.get("spam") or {}) for group, saved in pairs)
        attached = self.pruner is not None and not owns
        super().load_state_dict(state_dict if attached else checkpoint.without_ours(state_dict))
        checkpoint.restore_forms(state_dict, self, self.form)
        if any(self._is_wide(p) for p in self.state):
            self._step_supports_amp_scaling = False
        if loaded is not None and self.pruner is not None:
            self.pruner.restore(loaded)
        self.spam_clock = clock
        if self.release is not None:
            self.release.forget()


def is_probe(optimizer: torch.optim.Optimizer) -> bool:
    """Whether this step moves nothing: learning rate 0 in every group and gradients that are all zero.

    torch.distributed.checkpoint takes such a step to make an optimizer create its state; the schedule must not see it.
    """
    for group in optimizer.param_groups:
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.device.type != "cpu":
            return False
        if float(lr) != 0.0:
            return False
    params = list(parameters(optimizer.param_groups))
    grads = (local_gradient(p) for p in params)
    values = (grad._values() if grad.is_sparse else grad for grad in grads if grad is not None)
    moves = any(bool(entries.count_nonzero()) for entries in values)
    return not on_any_rank(moves, params)
