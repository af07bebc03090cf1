# SPDX-License-Identifier: MIT
"""Prune neural networks while they train, steered by the optimizer's own state."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamwprune.optim import (
        AdamWAdv,
        AdamWPrune,
        AdamWSPAM,
        Pruner,
        Spam,
        attach,
        check_replicas,
        clip_grad_norm_,
        create_optimizer,
        param_groups,
        reduce_kept_gradients,
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
    "check_replicas",
    "clip_grad_norm_",
    "create_optimizer",
    "param_groups",
    "reduce_kept_gradients",
]


_LIBRARY = ("prune", "optim", "kernels")


def __getattr__(name: str) -> Any:
    """Import the library when it is first asked for: torch takes seconds, and a command line's help must not wait."""
    if name in _LIBRARY:
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        for room in _LIBRARY[:2]:
            module = importlib.import_module(f"{__name__}.{room}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
