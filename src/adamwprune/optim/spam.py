# SPDX-License-Identifier: MIT
"""SPAM: Spike-Aware Adam with Momentum Reset (Huang et al., ICLR 2025, arXiv 2501.06842), as settings and a clock.

The clock says when, and resets the moments; spikes in gradients are clipped by the kernels.

Differences from the published code, each on purpose: bias correction counts from the last reset (there it keeps
counting, so the first update after a reset is three times too large); elements whose second moment is zero are not
clipped (there they never move again); the learning rate of the group is never written (the warm-up multiplies a copy).
The z-score rule is not in the paper; the seeds of this project ask for it, and it is off unless asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor

from adamwprune.kernels import formats, reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Spam:
    """Settings of the SPAM base.

    Raises:
        ValueError: a value is out of range; the message names the value and what is valid.
    """

    theta: float | None = 5000.0
    """Clip a gradient whose square exceeds ``theta`` times its second moment (not bias-corrected). None: never."""

    interval: int = 500
    """Steps between momentum resets. 0: never."""

    warmup: int = 150
    """Steps of cosine learning-rate warm-up after a reset."""

    min_age: int = 20
    """Steps that moments must have seen since the start or a reset before gradients are clipped, and since a reset
    before masks are updated."""

    zscore: float | None = None
    """Soften the momentum where the gradient norm's z-score over the last ``history`` steps exceeds this. None: off."""

    history: int = 100
    """Gradient norms that the z-score looks back on."""

    soft_reset: tuple[float, float] = (0.5, 0.9)
    """What a soft reset multiplies the first and the second moment by."""

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("theta", self.theta is None or self.theta > 0, "greater than 0, or None"),
            ("interval", self.interval >= 0, "at least 0 (0: never reset)"),
            ("warmup", self.warmup >= 0, "at least 0"),
            ("min_age", self.min_age >= 0, "at least 0"),
            ("zscore", self.zscore is None or self.zscore > 0, "greater than 0, or None"),
            ("history", self.history >= 10, "at least 10"),
            ("soft_reset", all(0 <= x <= 1 for x in self.soft_reset), "two factors in [0, 1]"),
        ):
            if not valid:
                raise ValueError(f"Spam: {name}={getattr(self, name)!r}: expected {expected}")
        if self.interval and self.min_age >= self.interval:
            raise ValueError(
                f"Spam: min_age={self.min_age} must be less than interval={self.interval}, "
                "or the moments are never old enough to clip or prune by"
            )


#: Norms needed before a z-score means anything.
_MIN_NORMS = 10


@dataclass(slots=True)
class SpamClock:
    """Where a run stands between resets. Counts optimizer steps; saved in the checkpoint as plain data."""

    settings: Spam
    step: int = 0
    last_reset: int = 0
    norms: list[float] = field(default_factory=list)

    offsets: dict[Tensor, int] = field(default_factory=dict)
    """The count of each parameter at its last reset."""

    # ---- when ------------------------------------------------------------------------------------------------------

    @property
    def age(self) -> int:
        """Updates that the moments have seen since the start or the last reset."""
        return self.step - self.last_reset

    @property
    def moments_ready(self) -> bool:
        """Whether a mask update may rank by the moments: they were never reset, or are old enough again."""
        return self.last_reset == 0 or self.age >= self.settings.min_age

    @property
    def theta(self) -> float | None:
        """The clipping threshold of the next update; None while the second moment is young."""
        return self.settings.theta if self.age >= self.settings.min_age else None

    def reset_due(self, last_update: int | None) -> bool:
        """Whether the next step starts with a reset.

        Not where it would delay the pruner's last mask update, at step ``last_update``, past that step.
        """
        coming = self.step + 1
        if not self.settings.interval or coming % self.settings.interval:
            return False
        delays = last_update is not None and coming <= last_update < coming + self.settings.min_age - 1
        return not delays

    @property
    def lr_scale(self) -> float:
        """Cosine warm-up of the next step: rises to 1 over ``warmup`` steps after a reset; 1 until the first reset."""
        warmup, done = self.settings.warmup, self.age + 1
        if self.last_reset == 0 or done > warmup:
            return 1.0
        return 0.5 * (1.0 - math.cos(math.pi * done / (warmup + 1)))

    def is_spike(self, norm: float) -> bool:
        """Judge this step's gradient norm by those before it, then remember it; non-finite norms are not remembered."""
        if self.settings.zscore is None or not math.isfinite(norm):
            return False
        past = self.norms[-self.settings.history :]
        spread = pstdev(past) if len(past) >= _MIN_NORMS else 0.0
        self.norms = [*past, norm][-self.settings.history :]
        return spread > 0 and (norm - fmean(past)) / spread > self.settings.zscore

    # ---- what ------------------------------------------------------------------------------------------------------

    def tend(
        self, states: Mapping[Tensor, MutableMapping[str, Any]], norm: Callable[[], Tensor], last_update: int | None
    ) -> None:
        """Soften all moments where the gradient spikes, zero them where a reset is due; before the update.

        Args:
            states: the optimizer's state by parameter.
            norm: makes the norm of all gradients, which only the z-score asks for.
            last_update: step of the pruner's last mask update.
        """
        if self.settings.zscore is not None and self.is_spike(float(norm())):
            first, second = self.settings.soft_reset
            for state in states.values():
                for name, factor in (("exp_avg", first), ("exp_avg_sq", second)):
                    state[formats.UNITS[name] if formats.Units.of(state) else name] *= factor
        if self.reset_due(last_update):
            self.last_reset = self.step
            for p, state in states.items():
                for name in (*reference.MOMENTS, *formats.UNITS.values()):
                    if name in state:
                        state[name].zero_()
                self.offsets[p] = int(state["step"])

    def since_reset(self, step: Tensor, p: Tensor) -> Tensor:
        """The count that bias correction uses: ``step`` itself until a reset, then the updates since the last one."""
        offset = self.offsets.get(p, 0)
        return step - offset if offset else step

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def record(self, params: Iterable[Tensor]) -> dict[str, Any]:
        """Plain data for a checkpoint of one parameter group."""
        return {
            "version": 1,
            "step": self.step,
            "last_reset": self.last_reset,
            "norms": list(self.norms),
            "offsets": [self.offsets.get(p, 0) for p in params],
        }

    def restored(self, groups: Iterable[tuple[Iterable[Tensor], Mapping[str, Any]]]) -> SpamClock:
        """A clock that goes on from records: of each group the parameters, and :meth:`record` or nothing.

        Raises:
            ValueError: a record is of another version, or of a group with another number of parameters.
        """
        clock = SpamClock(self.settings)
        for params, record in groups:
            if not record:
                continue
            # Tools that flatten lose what is empty.
            params, offsets, norms = list(params), record.get("offsets", []), record.get("norms", [])
            if record.get("version") != 1 or len(offsets) != len(params):
                raise ValueError(
                    f"the checkpoint's spam record has version {record.get('version')!r} and counts of {len(offsets)} "
                    f"tensors: this release reads version 1, and its group has {len(params)}"
                )
            clock.step, clock.last_reset, clock.norms = record["step"], record["last_reset"], list(norms)
            clock.offsets |= {p: offset for p, offset in zip(params, offsets, strict=True) if offset}
        return clock


def check_real(group: Mapping[str, Any]) -> None:
    """ValueError where a parameter is complex: clipping bounds entries, and torch has no such clamp."""
    names = group.get("param_names", [f"a parameter of shape {list(p.shape)}" for p in group["params"]])
    for name, p in zip(names, group["params"], strict=True):
        if p.is_complex():
            raise ValueError(f"{name} is complex, and SPAM clips real gradients: give it to another optimizer")
