# SPDX-License-Identifier: MIT
"""Epochs as a run comes to them: one at a time, made anew where a run goes on in the middle of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

T = TypeVar("T")


class Epochwise(ABC, Generic[T]):
    """A task whose batches are drawn from one epoch at a time."""

    steps_per_epoch: int
    _now: tuple[int, T] | None = None

    @abstractmethod
    def _begin(self, epoch: int) -> T:
        """What the batches of an epoch are drawn from."""

    def _epoch_of(self, step: int) -> tuple[T, int]:
        """The epoch of a step, and the number of the step in it."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._now is None or self._now[0] != epoch:
            self.close()
            self._now = (epoch, self._begin(epoch))
        return self._now[1], number

    def close(self) -> None:
        """Let go of the epoch that is under way."""
        self._now = None
