# SPDX-License-Identifier: MIT
"""What the user asks of pruning: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from torch import Tensor

from adamwprune.prune.distributions import BY_SHAPE
from adamwprune.prune.patterns import Pattern, parse_pattern
from adamwprune.prune.schedules import SCHEDULES, Ramp, Schedule
from adamwprune.prune.scores import ALIASES, AUTO_SCORE, LATE, SCORES, Score, canonical_score, find_score

DISTRIBUTIONS = (*BY_SHAPE, "global", *SCORES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prune:
    """How, what and when to prune.

    >>> Prune(sparsity=0.5, total_steps=1000).ramp()
    Ramp(start=250, end=750, every=25, schedule=<function cubic at ...>)

    Raises:
        ValueError: a value is out of range or a name unknown; the message names the value and what is valid.
    """

    sparsity: float
    """Fraction of the prunable weights removed at the end of the ramp, in [0, 1)."""

    total_steps: int | None = None
    """Optimizer steps of the run. Where it is known late, call ``pruner.set_total_steps`` before the first step."""

    start: float | int = 0.25
    """First step of the ramp: a share of ``total_steps`` (float) or a step (int)."""

    end: float | int = 0.75
    """Last step of the ramp, where the target is exact; a share (float) or a step (int). The mask then stays."""

    every: int | None = None
    """Optimizer steps between mask updates. None: 50, fewer on short runs so that the ramp has at least 20 updates."""

    schedule: str | Schedule = "cubic"
    """``cubic``, ``linear``, ``cosine``, ``constant``, or a function of progress in [0, 1] with value 1 at 1."""

    score: str | Callable[..., Tensor] = "state"
    """Ranks weights, the lowest go first: a name of ``SCORES``, an elementwise ``f(w, m, v, g)``, or ``"auto"``:
    ``state`` where the ramp starts in the last quarter of the run, else ``magnitude``."""

    distribution: str = "layer"
    """Who gives how much: ``layer`` (each tensor the same sparsity), ``global`` (one threshold on ``score``), ``erk``,
    or a score's name: budgets as one global threshold on that score would leave them, ranks by ``score``."""

    pattern: str | None = None
    """None, or ``"n:m"``: n of every m consecutive inputs stay. Inputs are dimension 1 of a weight; of transposed
    convolutions and Hugging Face's ``Conv1D`` they are dimension 0, which :func:`adamwprune.param_groups` sees."""

    regrow: float = 0.0
    """Share of the kept weights exchanged at an update for the masked ones with the largest gradient, annealed to 0 at
    the end of the ramp (Evci et al. 2020, arXiv 1911.11134). 0: pruned for good, and the state is stored compactly."""

    min_density: float = 0.01
    """No tensor is left with a smaller share of its weights."""

    mask_grads: bool = True
    """Gradients of masked weights are zero after ``backward``, so that clipping and logging see the sparse network."""

    include: tuple[str, ...] | None = None
    """Globs over parameter names that make up the scope, instead of the default rule."""

    exclude: tuple[str, ...] = ()
    """Globs over parameter names that are left out."""

    def __post_init__(self) -> None:
        for name in ("sparsity", "start", "end", "regrow", "min_density", "total_steps", "every"):
            value = getattr(self, name)
            none = value is None and name in ("total_steps", "every")
            _require(none or isinstance(value, Real), name, value, "a number")
        _require(0.0 <= self.sparsity < 1.0, "sparsity", self.sparsity, "in [0, 1): the fraction removed")
        _require(self.total_steps is None or self.total_steps >= 1, "total_steps", self.total_steps, "at least 1")
        for name, edge in (("start", self.start), ("end", self.end)):
            high = 1.0 if isinstance(edge, float) else float("inf")
            _require(0 <= edge <= high, name, edge, "a share in [0.0, 1.0] or a step >= 0")
        if type(self.start) is type(self.end) and self.start >= self.end:
            raise ValueError(f"start={self.start!r} must lie before end={self.end!r}")
        _require(self.every is None or self.every >= 1, "every", self.every, "at least 1, or None")
        _require(0.0 <= self.regrow < 1.0, "regrow", self.regrow, "in [0, 1)")
        _require(0.0 <= self.min_density <= 1.0, "min_density", self.min_density, "in [0, 1]")
        for name in ("include", "exclude"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}={getattr(self, name)!r} is a string: expected a tuple of globs")
        self._check_choices()
        if self.total_steps is not None:
            self.ramp()

    def _check_choices(self) -> None:
        if self.score != AUTO_SCORE:
            find_score(self.score)
        elif self.total_steps is None and not isinstance(self.start, float):
            raise ValueError(
                f"score='auto' asks how late the ramp starts, and start={self.start!r} is a step of a run of unknown "
                "length: pass total_steps, or start as a share of it"
            )
        if ALIASES.get(self.distribution, self.distribution) not in DISTRIBUTIONS:
            raise ValueError(f"unknown distribution {self.distribution!r}: expected one of {', '.join(DISTRIBUTIONS)}")
        self.ramp_function()
        pattern = self.parsed_pattern()
        if pattern is not None:
            if self.sparsity and abs(self.sparsity - pattern.sparsity) > 1e-9:
                raise ValueError(
                    f"pattern {self.pattern!r} removes {pattern.sparsity:g} of the weights, so "
                    f"sparsity={self.sparsity!r} cannot be reached: set sparsity={pattern.sparsity:g}"
                )
            if self.regrow:
                raise ValueError(f"regrow={self.regrow!r} exchanges single weights: it does not go with a pattern")
        if 1.0 - self.sparsity < self.min_density - 1e-12:
            raise ValueError(
                f"sparsity={self.sparsity!r} leaves a density of {1 - self.sparsity:g}, below min_density="
                f"{self.min_density!r}: lower one of them"
            )

    def ramp_function(self) -> Schedule:
        """The schedule as a function of progress."""
        if callable(self.schedule):
            if abs(self.schedule(1.0) - 1.0) > 1e-9:
                raise ValueError(
                    f"schedule({1.0}) is {self.schedule(1.0)!r}: a schedule must end at 1, the whole target"
                )
            return self.schedule
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"unknown schedule {self.schedule!r}: expected one of {', '.join(SCHEDULES)} or a function"
            )
        return SCHEDULES[self.schedule]

    def ramp(self) -> Ramp:
        """The window in steps.

        Raises:
            ValueError: ``total_steps`` is not known, or the window is empty.
        """
        if self.total_steps is None:
            raise ValueError(
                f"sparsity={self.sparsity!r} needs total_steps, the number of optimizer steps of the run: pass "
                "Prune(..., total_steps=N), or call optimizer.pruner.set_total_steps(N) before the first step"
            )
        return Ramp.resolve(self.start, self.end, self.every, self.ramp_function(), self.total_steps)

    def ranking(self) -> Score:
        """The score that ranks weights; of ``"auto"``, the one that it stands for."""
        if self.score != AUTO_SCORE:
            return find_score(self.score)
        # A share is compared as it was given: it would be rounded to a step of the run.
        share = self.start if isinstance(self.start, float) else self.start / (self.total_steps or 1)
        return SCORES["state" if share >= LATE else "magnitude"]

    def budget_score(self) -> Score | None:
        """The score whose global threshold sets the budgets; None where shapes alone do."""
        if self.distribution in BY_SHAPE:
            return None
        return self.ranking() if self.distribution == "global" else SCORES[canonical_score(self.distribution)]

    def parsed_pattern(self) -> Pattern:
        """The pattern's own type; None for single weights."""
        return parse_pattern(self.pattern)


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value!r}: expected {expected}")
