# SPDX-License-Identifier: MIT
"""Prune neural networks while they train, steered by the optimizer's own state."""

from adamwprune.optim import (
    AdamWAdv,
    AdamWPrune,
    AdamWSPAM,
    Pruner,
    Spam,
    attach,
    clip_grad_norm_,
    create_optimizer,
    param_groups,
)
from adamwprune.prune import NonFiniteScoreError, Prune

__version__ = "0.1.0"

__all__ = [
    "AdamWAdv",
    "AdamWPrune",
    "AdamWSPAM",
    "NonFiniteScoreError",
    "Prune",
    "Pruner",
    "Spam",
    "__version__",
    "attach",
    "clip_grad_norm_",
    "create_optimizer",
    "param_groups",
]
