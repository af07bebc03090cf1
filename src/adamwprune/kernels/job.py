# SPDX-License-Identifier: MIT
"""What a kernel is asked to do: one tensor's update."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adamwprune.prune.masks import Mask


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


@dataclass(frozen=True, slots=True)
class Job:
    """One Adam(W) update of one tensor's kept weights."""

    weight: Tensor
    """The parameter, any shape and strides; changed in place. Masked weights are zero, and stay so."""

    grad: Tensor
    """Its gradient, same shape; masked entries are not used."""

    state: MutableMapping[str, Any]
    """``exp_avg``, ``exp_avg_sq`` and with AMSGrad ``max_exp_avg_sq``: compact vectors of ``mask.kept`` entries in
    row-major order of the weight, or tensors of its shape where ``mask`` is None. They may be wider than the weight
    (float32 under bfloat16); the update is then computed in their dtype."""

    step: Tensor
    """The count that bias correction uses, before this update; not changed."""

    mask: Mask | None
    """What is kept; None keeps everything."""

    hyper: Hyper
    """The group's settings."""

    theta: float | None = None
    """SPAM's clipping threshold; None does not clip."""
