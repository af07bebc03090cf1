# SPDX-License-Identifier: MIT
"""What a recipe says, and what holds for every recipe.

The names of the fields are those of :class:`RunConfig`; None is a setting that does not apply.
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
    """How a model is trained on a data set; its length is in epochs or in iterations."""

    families: Mapping[str, Family]
    batch_size: int
    epochs: int | None = None
    iterations: int | None = None
    lr_schedule: str = "cosine"
    lr_warmup: float = 0.05
    lr_floor: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    precision: str = "fp32"
    val_fraction: float = 0.1
    eval_every: int | None = None
    eval_steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe(Recipe):
    """How a classifier of images is trained."""

    eval_every: int | None = 1
    augment: bool = True
    cutout: int = 0
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRecipe(Recipe):
    """How a language model is trained."""

    context: int | None = None
    dropout: float = 0.0
    eval_tokens: int = 0


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


def adam_family(
    *,
    learning_rate: float,
    weight_decay: float,
    coupled: float,
    beta2: float = 0.999,
    clip_norm: float = 0.0,
) -> dict[str, Family]:
    """One setting for all of Adam's kin; ``coupled`` is the decay of plain Adam, which adds it to the gradient."""
    shared = {"learning_rate": learning_rate, "beta1": 0.9, "beta2": beta2, "eps": 1e-8}
    return {
        "adam": Family(**shared, weight_decay=coupled, amsgrad=False, clip_norm=clip_norm),
        "adamw": Family(**shared, weight_decay=weight_decay, amsgrad=False, clip_norm=clip_norm),
        "adamwadv": Family(**shared, weight_decay=weight_decay, amsgrad=True, clip_norm=1.0),
        "adamwspam": Family(**shared, weight_decay=weight_decay, amsgrad=False, clip_norm=clip_norm),
    }


PRUNING = Pruning()
SPAM = SpamRecipe()
