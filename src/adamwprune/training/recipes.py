# SPDX-License-Identifier: MIT
"""The default hyper-parameters of each model, data set and optimizer, tuned on validation accuracy.

Arms of a comparison share everything here but what their optimizer needs otherwise: the Adam family has one schedule,
one learning rate and one length. :func:`adamwprune.training.resolve.resolve` fills configs from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What an optimizer needs; for adamwprune, that of its base."""

    learning_rate: float
    weight_decay: float
    clip_norm: float = 0.0
    momentum: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    amsgrad: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a model is trained on a data set."""

    epochs: int
    batch_size: int
    families: Mapping[str, Family]
    lr_schedule: str = "cosine"
    lr_warmup: float = 0.05
    label_smoothing: float = 0.0
    augment: bool = True
    val_fraction: float = 0.1
    eval_every: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruning:
    """How any model is pruned unless its run says otherwise."""

    prune_start: float = 0.25
    prune_end: float = 0.75
    schedule: str = "cubic"
    distribution: str = "layer"
    pattern: str = ""
    regrow: float = 0.0
    min_density: float = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class SpamRecipe:
    """SPAM's settings (arXiv 2501.06842) for a run of many thousand steps; shorter runs scale the steps down."""

    spam_theta: float = 5000.0
    spam_zscore: float = 0.0
    interval: int = 500
    warmup: int = 150
    min_age: int = 20
    #: Resets that a run should see at least, and what scaling never goes below.
    resets: int = 8
    shortest_interval: int = 20
    youngest: int = 10


def adam_family(*, learning_rate: float, weight_decay: float, coupled: float) -> dict[str, Family]:
    """One setting for all of Adam's kin; ``coupled`` is the decay of plain Adam, which adds it to the gradient."""
    moments = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    decoupled = {"learning_rate": learning_rate, "weight_decay": weight_decay, **moments}
    return {
        "adam": Family(learning_rate=learning_rate, weight_decay=coupled, amsgrad=False, **moments),
        "adamw": Family(**decoupled, amsgrad=False),
        "adamwadv": Family(**decoupled, amsgrad=True, clip_norm=1.0),
        "adamwspam": Family(**decoupled, amsgrad=False),
    }


PRUNING = Pruning()
SPAM = SpamRecipe()

#: By the model's recipe name and the data set.
RECIPES: dict[tuple[str, str], Recipe] = {
    ("lenet5", "digits"): Recipe(
        epochs=25,
        batch_size=64,
        val_fraction=0.15,
        families={
            "sgd": Family(learning_rate=0.1, weight_decay=1e-3, momentum=0.9),
            **adam_family(learning_rate=4e-3, weight_decay=0.05, coupled=1e-3),
        },
    ),
    ("lenet5", "mnist"): Recipe(
        epochs=10,
        batch_size=128,
        val_fraction=0.1,
        families={
            "sgd": Family(learning_rate=0.05, weight_decay=5e-4, momentum=0.9),
            **adam_family(learning_rate=4e-3, weight_decay=0.05, coupled=1e-4),
        },
    ),
}
