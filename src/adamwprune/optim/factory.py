# SPDX-License-Identifier: MIT
"""One optimizer by its name, with the model's parameter groups, pruned or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adamwprune.optim.attachment import attach
from adamwprune.optim.groups import param_groups
from adamwprune.optim.spam import Spam
from adamwprune.optim.variants import AdamWAdv, AdamWPrune, AdamWSPAM
from adamwprune.prune.config import Prune


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """What the family's member is, and what it keeps."""

    description: str
    keeps_moments: bool
    #: Arguments of :func:`create_optimizer`, beyond those of all, that this member takes.
    takes: frozenset[str]


_ADAM = frozenset({"betas", "eps", "amsgrad"})
_OWN = _ADAM | {"state", "correction", "release_gradients"}

OPTIMIZERS: dict[str, OptimizerInfo] = {
    "sgd": OptimizerInfo("stochastic gradient descent with momentum", False, frozenset({"momentum"})),
    "adam": OptimizerInfo("Adam with coupled weight decay", True, _ADAM),
    "adamw": OptimizerInfo("Adam with decoupled weight decay", True, _ADAM),
    "adamwadv": OptimizerInfo("AdamW with AMSGrad and clipping", True, _OWN | {"clip_norm"}),
    "adamwspam": OptimizerInfo("spike-aware AdamW with momentum reset", True, _OWN | {"spam"}),
    "adamwprune": OptimizerInfo(
        "AdamW that prunes by its own state and stores it compactly", True, _OWN | {"base", "spam", "clip_norm"}
    ),
}


def create_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
    amsgrad: bool | None = None,
    base: str = "adamw",
    prune: Prune | None = None,
    spam: Spam | None = None,
    clip_norm: float | None = None,
    state: str | None = None,
    correction: bool = False,
    release_gradients: bool = False,
) -> torch.optim.Optimizer:
    """Make an optimizer over :func:`param_groups` of a model.

    Args:
        name: ``sgd``, ``adam``, ``adamw``, ``adamwadv``, ``adamwspam`` or ``adamwprune``.
        model: the model to train.
        prune: pruning; ``adamwprune`` does it in its own step on compact state, the others through :func:`attach`.
        momentum: of ``sgd``.
        base, spam, clip_norm, amsgrad, state, correction, release_gradients: as in :class:`AdamWPrune`.

    Returns:
        The optimizer; its ``pruner`` is None where ``prune`` is.

    Raises:
        ValueError: unknown name, an argument the optimizer cannot use, or a score that needs moments with ``sgd``.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}")
    given = {
        "base": base != "adamw",
        "spam": spam is not None,
        "clip_norm": clip_norm is not None,
        "amsgrad": bool(amsgrad),
        "state": state is not None,
        "correction": correction,
        "release_gradients": release_gradients,
    }
    for argument, is_given in given.items():
        if is_given and argument not in OPTIMIZERS[name].takes:
            raise ValueError(f"{argument} has no effect on optimizer {name!r}: leave it out")
    groups = param_groups(model, weight_decay=weight_decay)
    own = {"state": state, "correction": correction, "release_gradients": release_gradients}
    optimizer = _build(name, groups, lr, betas, eps, momentum, amsgrad, base, prune, spam, clip_norm, own)
    if prune is not None and name != "adamwprune":
        attach(optimizer, prune)
    elif prune is None:
        optimizer.pruner = None  # type: ignore[attr-defined]
    return optimizer


def _build(
    name: str,
    groups: list[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    momentum: float,
    amsgrad: bool | None,
    base: str,
    prune: Prune | None,
    spam: Spam | None,
    clip_norm: float | None,
    own: dict[str, Any],
) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": lr, "betas": betas, "eps": eps}
    match name:
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=momentum)
        case "adam":
            return torch.optim.Adam(groups, **shared, amsgrad=bool(amsgrad))
        case "adamw":
            return torch.optim.AdamW(groups, **shared, amsgrad=bool(amsgrad))
        case "adamwadv":
            return AdamWAdv(groups, **shared, amsgrad=amsgrad, clip_norm=clip_norm, **own)
        case "adamwspam":
            return AdamWSPAM(groups, **shared, amsgrad=amsgrad, spam=spam, **own)
        case _:
            options = {"amsgrad": amsgrad, "base": base, "prune": prune, "spam": spam, "clip_norm": clip_norm, **own}
            return AdamWPrune(groups, **shared, **options)
