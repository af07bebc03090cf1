# SPDX-License-Identifier: MIT
"""How weights move: AdamWPrune, AdamWSPAM, AdamWAdv, attach, parameter groups, the factory."""

from adamwprune.optim.attachment import attach
from adamwprune.optim.clip import clip_grad_norm_
from adamwprune.optim.factory import OPTIMIZERS, create_optimizer
from adamwprune.optim.groups import param_groups
from adamwprune.optim.pruner import Pruner
from adamwprune.optim.replicas import check_replicas, reduce_kept_gradients
from adamwprune.optim.spam import Spam
from adamwprune.optim.variants import AdamWAdv, AdamWPrune, AdamWSPAM

#: Raised whenever the meaning of an optimizer or of a checkpoint changes: runs are identified by it.
VERSION = 2

__all__ = [
    "OPTIMIZERS",
    "VERSION",
    "AdamWAdv",
    "AdamWPrune",
    "AdamWSPAM",
    "Pruner",
    "Spam",
    "attach",
    "check_replicas",
    "clip_grad_norm_",
    "create_optimizer",
    "param_groups",
    "reduce_kept_gradients",
]
