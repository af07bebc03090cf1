# SPDX-License-Identifier: MIT
"""What a kernel is asked to do: one tensor's update."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from adamwprune.prune.masks import Mask


class StepNumbers(NamedTuple):
    """One step's constants, as the fast kernels' tables hold them, in this order."""

    decay: Any
    """What decoupled weight decay multiplies the weight by."""
    coupled: Any
    """Share of the weight that coupled weight decay adds to the gradient."""
    grad_weight: Any
    """1 - beta1."""
    beta2: Any
    square_weight: Any
    """1 - beta2."""
    bias2_sqrt: Any
    """Root of what bias correction divides the second moment by."""
    eps: Any
    neg_step: Any
    """Minus the learning rate, with the first moment's bias correction."""
    theta: float
    """SPAM's clipping threshold; 0 does not clip."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """One parameter group's settings for one step, as :func:`torch.optim.adam.adam` takes them."""

    lr: float | Tensor
    beta1: float | Tensor
    beta2: float | Tensor
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool
    decoupled_weight_decay: bool
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool

    def torch_options(self) -> dict[str, Any]:
        """Keyword arguments of torch's function."""
        return {name: getattr(self, name) for name in self.__slots__}

    def numbers(self, updates: float | Tensor, theta: float | None) -> StepNumbers:
        """The constants of update number ``updates`` (from 1), in double precision; kernels round them once.

        A tensor of counts gives tensors, computed where the counts are, without waiting for that device.
        """
        on_device = isinstance(updates, Tensor)
        lr, beta1, beta2 = (
            x.double() if on_device and isinstance(x, Tensor) and x.device.type != "cpu" else float(x)
            for x in (self.lr, self.beta1, self.beta2)
        )
        bias2 = 1.0 - beta2**updates
        return StepNumbers(
            decay=1.0 - lr * self.weight_decay if self.decoupled_weight_decay else 1.0,
            coupled=0.0 if self.decoupled_weight_decay else self.weight_decay,
            grad_weight=1.0 - beta1,
            beta2=beta2,
            square_weight=1.0 - beta2,
            bias2_sqrt=bias2.sqrt() if isinstance(bias2, Tensor) else math.sqrt(bias2),
            eps=self.eps,
            neg_step=-(lr / (1.0 - beta1**updates)),
            theta=theta or 0.0,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One Adam(W) update of one tensor's kept weights."""

    weight: Tensor
    """The parameter, any shape and strides; changed in place. Masked weights are zero, and stay so."""

    grad: Tensor
    """Its gradient, same shape; masked entries are not used."""

    state: MutableMapping[str, Any]
    """``exp_avg``, ``exp_avg_sq`` and with AMSGrad ``max_exp_avg_sq``: compact vectors of ``mask.kept`` entries in
    row-major order of the weight, or tensors of its shape where ``mask`` is None or ``dense_state`` is set. They may be
    wider than the weight (float32 under bfloat16); the update is then computed in their dtype.

    Smaller forms, computed in float32 (:mod:`adamwprune.kernels.formats`): ``exp_avg`` bfloat16 beside ``exp_avg_sq``
    float32; or int8 ``exp_avg`` and uint8 ``exp_avg_sq`` codes with ``exp_avg_unit`` and ``exp_avg_sq_unit``. An int8
    ``correction`` of the same layout holds what bfloat16 weights lack."""

    step: Tensor
    """The count that bias correction uses, before this update; not changed."""

    mask: Mask | None
    """What is kept; None keeps everything."""

    hyper: Hyper
    """The group's settings."""

    theta: float | None = None
    """SPAM's clipping threshold; None does not clip."""

    dense_state: bool = False
    """With a mask: state has the weight's shape all the same, zero at masked weights. While most of a tensor is kept,
    compacting it costs more time than it saves."""

    scale: float | Tensor | None = None
    """Factor that the gradient is multiplied by first, in the dtype of the update (clipping); a 0-dim float32 tensor on
    the weight's device, or a number. The gradient itself is not changed. None: no multiplication."""

    first: int = 0
    """Place of the first weight in the whole tensor, where other ranks hold rows before these; for rounding noise."""
