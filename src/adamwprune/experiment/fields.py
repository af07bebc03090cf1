# SPDX-License-Identifier: MIT
"""What every front end needs to know about :class:`RunConfig`: its fields' types, and how text becomes a value."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

from adamwprune.experiment.errors import ExperimentError
from adamwprune.training.config import PRUNE_FIELDS, SPAM_FIELDS, RunConfig

AXES = ("optimizer", "base", "pruning_method", "score", "target_sparsity", "distribution", "seed")
"""The fields in which the runs of a matrix differ; the others are common to all of them."""

RANKS = ("parallel", "resume_from")
"""The fields of a run on several ranks: a matrix takes one process."""

GROUPS = (
    ("model", "What is trained"),
    ("optimizer", "How it is trained"),
    ("pruning_method", "What is pruned, and when"),
    ("spam_theta", "SPAM (adamwspam, and adamwprune on that base)"),
    ("device", "Where and how it runs"),
)
"""First field of each group, and the group's title, in the order of the dataclass."""

ADAM_FIELDS = ("beta1", "beta2", "eps", "amsgrad")


@cache
def field_types() -> dict[str, tuple[type, bool]]:
    """Each field's plain type, and whether it may be None (the recipe decides)."""
    kinds = {}
    for name, hint in typing.get_type_hints(RunConfig).items():
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = next(member for member in members if member is not type(None))
        kinds[name] = (plain, type(None) in members)
    return kinds


def common_fields() -> tuple[str, ...]:
    """The fields that all runs of a matrix share, in order."""
    return tuple(name for name in field_types() if name not in (*AXES, *RANKS))


def parse(name: str, text: str) -> Any:
    """The value of field ``name`` that ``text`` spells; empty text means None where the recipe may decide."""
    kind, optional = field_types()[name]
    text = text.strip()
    if not text and optional:
        return None
    if kind is bool:
        words = {
            "on": True,
            "y": True,
            "yes": True,
            "true": True,
            "off": False,
            "n": False,
            "no": False,
            "false": False,
        }
        if text.lower() not in words:
            raise ExperimentError(f"{text!r} is neither on nor off")
        return words[text.lower()]
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ExperimentError(f"{text!r} is not {wanted}") from None


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Ends an error about an unknown name: the closest valid one, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else "valid names: " + " ".join(names)


def group_of(name: str) -> str:
    """The title of the group that field ``name`` belongs to."""
    title = GROUPS[0][1]
    starts = dict(GROUPS)
    for field in field_types():
        title = starts.get(field, title)
        if field == name:
            return title
    raise KeyError(name)


def relevant(config: RunConfig) -> RunConfig:
    """``config`` without the settings that its optimizer and method do not use.

    Settings are common to a matrix; what an arm does not use must not tell its runs apart.
    """
    unused: tuple[str, ...] = ADAM_FIELDS if config.optimizer == "sgd" else ("momentum",)
    unused += () if config.family == "adamwspam" else SPAM_FIELDS
    unused += PRUNE_FIELDS if config.pruning_method == "none" else ()
    return config.replace(**dict.fromkeys(unused))
