# SPDX-License-Identifier: MIT
"""One optimizer by its name, with the model's parameter groups, pruned or not."""

from __future__ import annotations

from collections.abc import Callable
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
class Member:
    """One of the optimizers: its class, and its arguments of :func:`create_optimizer` beyond those that all take."""

    make: Callable[..., torch.optim.Optimizer]
    takes: frozenset[str]


_ADAM = frozenset({"betas", "eps", "amsgrad"})
_OWN = _ADAM | {"state", "correction", "release_gradients"}

OPTIMIZERS: dict[str, Member] = {
    "sgd": Member(torch.optim.SGD, frozenset({"momentum"})),
    "adam": Member(torch.optim.Adam, _ADAM),
    "adamw": Member(torch.optim.AdamW, _ADAM),
    "adamwadv": Member(AdamWAdv, _OWN | {"clip_norm"}),
    "adamwspam": Member(AdamWSPAM, _OWN | {"spam"}),
    "adamwprune": Member(AdamWPrune, _OWN | {"base", "spam", "clip_norm"}),
}

MOMENTUM = 0.9


def create_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] | None = None,
    eps: float | None = None,
    momentum: float | None = None,
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
        betas, eps: of the Adam family; None: torch's own.
        momentum: of ``sgd``; None: 0.9.
        base, spam, clip_norm, amsgrad, state, correction, release_gradients: as in :class:`AdamWPrune`.

    Returns:
        The optimizer; its ``pruner`` is None where ``prune`` is.

    Raises:
        ValueError: unknown name, an argument the optimizer cannot use, or a score that needs moments with ``sgd``.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}")
    settings = {
        "betas": betas,
        "eps": eps,
        "momentum": momentum,
        "amsgrad": amsgrad,
        "base": base if base != "adamw" else None,
        "spam": spam,
        "clip_norm": clip_norm,
        "state": state,
        "correction": correction or None,
        "release_gradients": release_gradients or None,
    }
    given: dict[str, Any] = {argument: value for argument, value in settings.items() if value is not None}
    for argument in given:
        if argument not in OPTIMIZERS[name].takes:
            raise ValueError(f"{argument} has no effect on optimizer {name!r}: leave it out")
    if name == "sgd":
        given.setdefault("momentum", MOMENTUM)
    if name == "adamwprune":
        given["prune"] = prune
    optimizer = OPTIMIZERS[name].make(param_groups(model, weight_decay=weight_decay), lr=lr, **given)
    if prune is not None and name != "adamwprune":
        attach(optimizer, prune)
    elif prune is None:
        optimizer.pruner = None  # type: ignore[attr-defined]
    return optimizer
