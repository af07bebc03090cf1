# SPDX-License-Identifier: MIT
"""Ranges of a config's numbers: one table."""

from __future__ import annotations

import math
from collections.abc import Callable

from adamwprune.training.config import RunConfig, known
from adamwprune.training.errors import ConfigError
from adamwprune.training.schedule import LR_SCHEDULES

#: The value of ``micro_batch`` that leaves it to the run.
AUTO = "auto"

Test = Callable[[float], bool]

POSITIVE: tuple[Test, str] = (lambda x: 0 < x < math.inf, "a number greater than 0")
NOT_NEGATIVE: tuple[Test, str] = (lambda x: 0 <= x < math.inf, "a number that is not negative")
SHARE: tuple[Test, str] = (lambda x: 0 <= x < 1, "a number in [0, 1)")
COUNT: tuple[Test, str] = (lambda x: x >= 1, "at least 1")
COUNT_OR_ZERO: tuple[Test, str] = (lambda x: x >= 0, "at least 0")

RANGES: dict[str, tuple[Test, str]] = {
    "width": POSITIVE,
    "seed": COUNT_OR_ZERO,
    "context": COUNT,
    "dropout": SHARE,
    "epochs": COUNT,
    "iterations": COUNT,
    "batch_size": COUNT,
    "accumulate": COUNT,
    "learning_rate": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "momentum": SHARE,
    "beta1": SHARE,
    "beta2": SHARE,
    "eps": POSITIVE,
    "lr_warmup": SHARE,
    "lr_floor": SHARE,
    "clip_norm": NOT_NEGATIVE,
    "label_smoothing": SHARE,
    "cutout": COUNT_OR_ZERO,
    "ema": SHARE,
    "target_sparsity": (lambda x: 0 <= x < 1, "the fraction of weights removed, in [0, 1)"),
    "prune_start": SHARE,
    "prune_end": (lambda x: 0 < x <= 1, "a share of the run, in (0, 1]"),
    "prune_every": COUNT_OR_ZERO,
    "regrow": SHARE,
    "min_density": SHARE,
    "spam_theta": POSITIVE,
    "spam_interval": COUNT_OR_ZERO,
    "spam_warmup": COUNT_OR_ZERO,
    "spam_min_age": COUNT_OR_ZERO,
    "spam_zscore": NOT_NEGATIVE,
    "threads": COUNT_OR_ZERO,
    "val_fraction": (lambda x: 0 < x < 1, "a share of the training examples, in (0, 1)"),
    "train_examples": COUNT,
    "checkpoint_every": COUNT_OR_ZERO,
    "eval_every": COUNT,
    "eval_steps": COUNT,
    "eval_tokens": COUNT_OR_ZERO,
    "target_accuracy": (lambda x: 0 < x <= 1, "a share of the targets, in (0, 1]"),
    "target_loss": POSITIVE,
}


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) >= 1


def check_values(config: RunConfig) -> None:
    """ConfigError naming the first field whose value is out of range; fields that are ``None`` are not looked at."""
    for name, (test, expected) in RANGES.items():
        value = getattr(config, name)
        if value is not None and not test(value):
            raise ConfigError(f"{name}={value!r}: expected {expected}")
    if config.batch_size is not None and config.batch_size % config.accumulate:
        raise ConfigError(
            f"accumulate={config.accumulate!r} must divide batch_size={config.batch_size!r} into equal parts"
        )
    if config.micro_batch is not None and config.micro_batch != AUTO and not _is_count(config.micro_batch):
        raise ConfigError(f"micro_batch={config.micro_batch!r}: expected {AUTO}, or a whole number from 1 on")
    if config.micro_batch is not None and config.accumulate != 1:
        raise ConfigError(
            f"micro_batch={config.micro_batch!r} and accumulate={config.accumulate!r} exclude each other: leave one out"
        )
    if config.lr_schedule is not None and config.lr_schedule not in LR_SCHEDULES:
        raise ConfigError(f"unknown lr_schedule {config.lr_schedule!r}: expected one of {', '.join(LR_SCHEDULES)}")
    if config.prune_start is not None and config.prune_end is not None and config.prune_start >= config.prune_end:
        raise ConfigError(
            f"prune_start={config.prune_start!r} must lie before prune_end={config.prune_end!r}, both shares of the run"
        )


def check_evaluation(config: RunConfig) -> None:
    """ConfigError where an evaluation would end before its first window."""
    if config.eval_tokens and config.eval_tokens < known(config.context):
        raise ConfigError(
            f"eval_tokens={config.eval_tokens!r} is less than a window of context={config.context!r} tokens: raise it, "
            "lower context, or give 0 for the whole split"
        )


def check_window(config: RunConfig, split: str, tokens: int) -> None:
    """ConfigError where a split has too few ``tokens`` to evaluate on."""
    if tokens <= known(config.context):
        fix = f"raise val_fraction={config.val_fraction!r}" if split == "val" else "prepare the text with a larger one"
        raise ConfigError(
            f"the {split} split of {config.data!r} has {tokens} tokens, and a window of context={config.context!r} "
            f"takes one more than that: lower context, or {fix}"
        )


def check_held_out(config: RunConfig, examples: int) -> None:
    """ConfigError where no examples are left for validation."""
    if examples < 1:
        raise ConfigError(f"val_fraction={config.val_fraction!r} of the images of {config.data!r} is none: raise it")


def check_train_examples(config: RunConfig, examples: int, classes: int) -> None:
    """ConfigError where there are not as many ``examples`` for training as the config asks, or too few for a batch."""
    wanted = examples if config.train_examples is None else config.train_examples
    if wanted > examples or (wanted < classes and config.train_examples is not None):
        raise ConfigError(
            f"train_examples={wanted!r}: expected between {classes}, one for each class of {config.data!r}, and "
            f"{examples}, all that are not held out for validation; leave it out to train on all of them"
        )
    if known(config.batch_size) > wanted:
        raise ConfigError(
            f"batch_size={config.batch_size} is more than the {wanted} training examples of {config.data!r}"
        )
