# SPDX-License-Identifier: MIT
"""From arms, sparsities and seeds to the list of runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import field_types, parse, relevant, suggestion
from adamwprune.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: it runs once for every sparsity (where it prunes) and seed."""

    optimizer: str
    base: str = "adamw"
    method: str = "none"
    score: str | None = None


def expand(
    common: RunConfig,
    arms: Iterable[Arm],
    *,
    sparsities: Sequence[float],
    distributions: Sequence[str | None] = (None,),
    small_widths: Sequence[float] = (),
    seeds: Sequence[int],
) -> list[RunConfig]:
    """Every run of the matrix, seed by seed, so that a matrix cut short still compares all its arms.

    Arms that do not prune run at the ``small_widths`` too: the dense networks that a sparse one has to beat.
    """
    configs = []
    for seed, arm in itertools.product(seeds, tuple(arms)):
        config = common.replace(
            seed=seed, optimizer=arm.optimizer, base=arm.base, pruning_method=arm.method, score=arm.score
        )
        if arm.method == "none":
            dense = relevant(config)
            configs += [dense, *(dense.replace(width=width) for width in small_widths)]
            continue
        for distribution, sparsity in itertools.product(distributions, sparsities):
            configs.append(relevant(config.replace(target_sparsity=sparsity, distribution=distribution)))
    require_used(common, configs)
    return list(dict.fromkeys(configs))


def require_used(common: RunConfig, configs: Sequence[RunConfig]) -> None:
    """Refuses a common setting that was given and reaches no run."""
    for name, (_, optional) in field_types().items():
        if optional and getattr(common, name) is not None and all(getattr(c, name) is None for c in configs):
            raise ExperimentError(f"{name}={getattr(common, name)!r} has no effect: no run of this matrix uses it")


def parse_arm(text: str, common: RunConfig) -> list[RunConfig]:
    """The runs of one ``--arm``: ``field=value,value`` words; fields with several values are combined.

    >>> len(parse_arm("optimizer=adamw pruning-method=magnitude,movement target-sparsity=0.5,0.9", RunConfig()))
    4
    """
    names: list[str] = []
    choices: list[list[object]] = []
    for word in text.split():
        name, equals, values = word.partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise ExperimentError(f"--arm {text!r}: {word!r} is not field=value")
        if name not in field_types():
            raise ExperimentError(f"--arm {text!r}: no field {name!r}; {suggestion(name, field_types())}")
        try:
            choices.append([parse(name, value) for value in values.split(",")])
        except ExperimentError as error:
            raise ExperimentError(f"--arm {text!r}: {name}: {error}") from None
        names.append(name)
    combinations = [dict(zip(names, values, strict=True)) for values in itertools.product(*choices)]
    return [relevant(common.replace(**given)).replace(**given) for given in combinations]
