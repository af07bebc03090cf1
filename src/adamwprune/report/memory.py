# SPDX-License-Identifier: MIT
"""Bytes of a run, from its stored account and samples. Nothing is derived from a formula.

Steady state is the account after the last update; peak is the largest sample. Compact state lowers the first, and
does not lower the peak of a run that starts dense.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adamwprune.report.read import MemorySample, Run

KINDS = ("weights", "gradients", "state", "mask", "workspace")


def byte_unit(number: float) -> tuple[int, str]:
    """The largest binary unit of which the number has at least one, and its name."""
    exponent = next((power for power in (3, 2, 1) if number >= 1024**power), 0)
    return 1024**exponent, ("B", "KiB", "MiB", "GiB")[exponent]


def steady_account(run: Run) -> Mapping[str, int]:
    """Bytes by kind of the prunable weights at the end; empty if the run stored none."""
    return _steady(run, "bytes")


def state_bytes(run: Run) -> float | None:
    """State and mask bytes per prunable weight at the end."""
    return _per_weight(_steady(run, "bytes"), run.result.get("prunable"))


def state_bytes_model(run: Run) -> float | None:
    """State and mask bytes per parameter of the whole network at the end."""
    return _per_weight(_steady(run, "bytes_model"), run.result.get("parameters"))


def peak_account(run: Run) -> float | None:
    """The largest sum over all kinds of the whole network."""
    return _peak(run, lambda sample: sum(sample.account_model.values()) or None)


def peak_rss(run: Run) -> float | None:
    """The largest resident memory of the process."""
    return _peak(run, lambda sample: sample.rss)


def peak_allocated(run: Run) -> float | None:
    """The largest memory of the accelerator's allocator."""
    return _peak(run, lambda sample: sample.allocated)


def _steady(run: Run, scope: str) -> Mapping[str, int]:
    account = (run.result.get("account") or {}).get(scope)
    if account:
        return dict(account)
    if not run.memory:
        return {}
    last = run.memory[-1]
    return last.account if scope == "bytes" else last.account_model


def _per_weight(account: Mapping[str, int], weights: int | None) -> float | None:
    if not account or not weights:
        return None
    return (account.get("state", 0) + account.get("mask", 0)) / weights


def _peak(run: Run, value: Callable[[MemorySample], int | None]) -> float | None:
    found = [number for number in map(value, run.memory) if number is not None]
    return max(found, default=None)
