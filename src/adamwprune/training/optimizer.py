# SPDX-License-Identifier: MIT
"""From a resolved config to the optimizer library's own settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adamwprune.optim import Spam, create_optimizer
from adamwprune.prune import Prune
from adamwprune.training.config import RunConfig, known


def prune_settings(config: RunConfig, steps: int) -> Prune | None:
    """What the run prunes, and when; None where its method is ``none``."""
    if config.pruning_method == "none":
        return None
    return Prune(
        sparsity=known(config.target_sparsity),
        total_steps=steps,
        start=float(known(config.prune_start)),
        end=float(known(config.prune_end)),
        every=config.prune_every or None,
        schedule=known(config.schedule),
        score=known(config.score),
        distribution=known(config.distribution),
        pattern=config.pattern or None,
        regrow=known(config.regrow),
        min_density=known(config.min_density),
    )


def spam_settings(config: RunConfig) -> Spam | None:
    """SPAM's settings; None where the optimizer is not of that kind."""
    if config.family != "adamwspam":
        return None
    return Spam(
        theta=known(config.spam_theta),
        interval=known(config.spam_interval),
        warmup=known(config.spam_warmup),
        min_age=known(config.spam_min_age),
        zscore=config.spam_zscore or None,
    )


def build(config: RunConfig, model: nn.Module, steps: int) -> torch.optim.Optimizer:
    """The run's optimizer; ValueError where its pruning cannot work on this model."""
    adam: dict[str, Any] = (
        {} if config.beta1 is None else {"betas": (config.beta1, known(config.beta2)), "eps": known(config.eps)}
    )
    sgd: dict[str, Any] = {} if config.momentum is None else {"momentum": config.momentum}
    return create_optimizer(
        config.optimizer,
        model,
        lr=known(config.learning_rate),
        weight_decay=known(config.weight_decay),
        amsgrad=config.amsgrad,
        base=config.base,
        prune=prune_settings(config, steps),
        spam=spam_settings(config),
        clip_norm=config.clip_norm if clips_inside(config) else None,
        **adam,
        **sgd,
    )


def clips_inside(config: RunConfig) -> bool:
    """Whether the optimizer clips gradients in its own step, so that the engine must not."""
    return config.family == "adamwadv"
