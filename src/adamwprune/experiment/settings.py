# SPDX-License-Identifier: MIT
"""The typed, validated form of a ``.config``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import common_fields, parse
from adamwprune.experiment.kconfig import Kconfig
from adamwprune.experiment.matrix import Arm, expand
from adamwprune.training.config import BASES, METHODS, OPTIMIZERS, RunConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One experiment: what is common to its runs, the arms it compares, and how the runner runs them."""

    experiment: str
    common: RunConfig
    arms: tuple[Arm, ...]
    sparsities: tuple[float, ...]
    distributions: tuple[str | None, ...]
    small_widths: tuple[float, ...]
    seeds: tuple[int, ...]
    jobs: int
    results_dir: Path

    def replace(self, **changes: Any) -> Settings:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def runs(self) -> list[RunConfig]:
        """The matrix."""
        return expand(
            self.common,
            self.arms,
            sparsities=self.sparsities,
            distributions=self.distributions,
            small_widths=self.small_widths,
            seeds=self.seeds,
        )


def load(root: Path, config: Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Settings of the file ``config`` (None: the defaults of the Kconfig files), changed by ``NAME=VALUE`` words."""
    kconfig = Kconfig(root)
    if config is not None:
        kconfig.load(config)
    kconfig.override(overrides)
    return read(kconfig)


def read(kconfig: Kconfig) -> Settings:
    """Asks for every symbol there is and builds the settings from them."""
    settings = Settings(
        experiment=_name(kconfig),
        common=RunConfig(**{name: _field(kconfig, name) for name in common_fields()}),
        arms=tuple(_arms(kconfig)),
        sparsities=tuple(_list(kconfig, "SPARSITIES", _sparsity)),
        distributions=tuple(_list(kconfig, "DISTRIBUTIONS", str)) or (None,),
        small_widths=tuple(_list(kconfig, "SMALL_WIDTHS", _small_width)),
        seeds=_seeds(kconfig),
        jobs=_whole(kconfig, "JOBS", least=0),
        results_dir=Path(_present(kconfig, "RESULTS_DIR")),
    )
    kconfig.require_all_read()
    if not settings.arms:
        raise ExperimentError("no optimizer is chosen: set CONFIG_OPTIMIZER_… and one of its methods")
    if not settings.sparsities and any(arm.method != "none" for arm in settings.arms):
        raise ExperimentError(
            f'{kconfig.origin("SPARSITIES")}: arms that prune need CONFIG_SPARSITIES, as in "0.5 0.9"'
        )
    if settings.small_widths and all(arm.method != "none" for arm in settings.arms):
        raise ExperimentError(
            f"{kconfig.origin('SMALL_WIDTHS')}: CONFIG_SMALL_WIDTHS has no effect: no optimizer trains dense, "
            "as with CONFIG_ADAMW_NONE=y"
        )
    return settings


def _field(kconfig: Kconfig, name: str) -> Any:
    symbol = name.upper()
    if kconfig.is_choice(symbol):
        text = kconfig.choice(symbol)
    else:
        text = "on" if (raw := kconfig.text(symbol)) == "y" else raw
    try:
        return parse(name, text)
    except ExperimentError as error:
        raise ExperimentError(f"{kconfig.origin(symbol)}: CONFIG_{symbol}: {error}") from None


def _arms(kconfig: Kconfig) -> Iterable[Arm]:
    scores = {
        "state": tuple(_list(kconfig, "STATE_SCORES", str)) or (None,),
        "magnitude": tuple(_list(kconfig, "MAGNITUDE_SCORES", str)) or (None,),
    }
    bases = [base for base in BASES if kconfig.flag(f"ADAMWPRUNE_BASE_{base.upper()}")]
    for optimizer in OPTIMIZERS:
        symbol = optimizer.upper()
        chosen = kconfig.flag(f"OPTIMIZER_{symbol}")
        methods = [m for m in METHODS if kconfig.has(f"{symbol}_{m.upper()}") and kconfig.flag(f"{symbol}_{m.upper()}")]
        if chosen and not methods:
            place = kconfig.origin(f"OPTIMIZER_{symbol}")
            raise ExperimentError(f"{place}: CONFIG_OPTIMIZER_{symbol}=y without a method: set CONFIG_{symbol}_NONE=y")
        if chosen and optimizer == "adamwprune" and not bases:
            raise ExperimentError(
                f"{kconfig.origin(f'OPTIMIZER_{symbol}')}: set a base, as CONFIG_ADAMWPRUNE_BASE_ADAMW=y"
            )
        for base in bases if optimizer == "adamwprune" else ["adamw"]:
            for method in methods:
                for score in scores.get(method, (None,)):
                    yield Arm(optimizer=optimizer, base=base, method=method, score=score)


def _list(kconfig: Kconfig, symbol: str, convert: Any) -> Iterable[Any]:
    for word in kconfig.text(symbol).replace(",", " ").split():
        try:
            yield convert(word)
        except ValueError as error:
            raise ExperimentError(f"{kconfig.origin(symbol)}: CONFIG_{symbol}: {error}") from None


def _sparsity(word: str) -> float:
    return _number(word, lambda x: 0.0 <= x < 1.0, "a sparsity in [0, 1): write 70 % as 0.7")


def _small_width(word: str) -> float:
    return _number(word, lambda x: 0.0 < x < 1.0, "a width in (0, 1): half as wide is 0.5")


def _number(word: str, fits: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan  # which lies in no range
    if not fits(value):
        raise ExperimentError(f"{word!r} is not {expected}")
    return value


def _whole(kconfig: Kconfig, symbol: str, *, least: int) -> int:
    text = kconfig.text(symbol)
    if not text.isdecimal() or int(text) < least:
        raise ExperimentError(
            f"{kconfig.origin(symbol)}: CONFIG_{symbol}={text}: expected a whole number from {least} on"
        )
    return int(text)


def _seeds(kconfig: Kconfig) -> tuple[int, ...]:
    first = _whole(kconfig, "FIRST_SEED", least=0)
    return tuple(range(first, first + _whole(kconfig, "SEEDS", least=1)))


def _present(kconfig: Kconfig, symbol: str) -> str:
    text = kconfig.text(symbol).strip()
    if not text:
        raise ExperimentError(f"{kconfig.origin(symbol)}: CONFIG_{symbol} is empty")
    return text


def _name(kconfig: Kconfig) -> str:
    name = _present(kconfig, "EXPERIMENT")
    if not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        place = kconfig.origin("EXPERIMENT")
        raise ExperimentError(f"{place}: CONFIG_EXPERIMENT={name!r} names a folder: letters, digits, - _ and . only")
    return name
