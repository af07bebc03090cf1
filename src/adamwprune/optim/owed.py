# SPDX-License-Identifier: MIT
"""Factors that gradients are owed: clipping found them, and the next step multiplies by them as it reads the gradient.

So clipping writes no gradient of a tensor that our kernels step. A factor belongs to the gradient as it was when it was
clipped. Whatever happens to that gradient before the step is settled first:

- another backward adds to it: it is multiplied before the new part arrives, as if it had been clipped in place;
- it is replaced, set to None or to zero: the factor goes with it;
- it is changed by hand: nobody can tell what was meant, and that is refused. (A change through ``.data`` leaves no
  trace, and is multiplied along.)
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(slots=True)
class _Debt:
    grad: Tensor
    version: int
    factor: Tensor


class OwedFactors:
    """One factor per parameter whose gradient was clipped without being written."""

    def __init__(self) -> None:
        self._debts: dict[Tensor, _Debt] = {}
        self._hooks: dict[Tensor, Any] = {}

    def add(self, params: Iterable[Tensor], factor: Tensor) -> None:
        """Owe ``factor`` to the gradients of ``params``, on top of what they are owed already."""
        # One tensor on a device: tensors that are owed the same are stepped together.
        owns: dict[torch.device, Tensor] = {}
        for p in params:
            assert p.grad is not None
            before, own = self.of(p), owns.setdefault(p.device, factor.to(p.device))
            self._debts[p] = _Debt(p.grad, p.grad._version, own if before is None else before * own)
            if p.requires_grad and p not in self._hooks:
                self._hooks[p] = self._settle_before_accumulation(p)

    def of(self, p: Tensor) -> Tensor | None:
        """What the parameter's present gradient is owed.

        Raises:
            ValueError: the gradient was changed in place since it was clipped.
        """
        debt = self._debts.get(p)
        if debt is None:
            return None
        if p.grad is debt.grad and debt.grad._version == debt.version:
            return debt.factor
        del self._debts[p]
        if p.grad is debt.grad and bool(debt.grad.count_nonzero()):
            raise ValueError(
                f"a gradient of shape {list(debt.grad.shape)} was changed between clip_grad_norm_ and step(): clip last"
            )
        return None

    def check(self) -> None:
        """ValueError where a gradient was changed in place since it was clipped."""
        for p in list(self._debts):
            self.of(p)

    def settle(self, p: Tensor) -> None:
        """Multiply the parameter's gradient by what it is owed, in place."""
        factor = self.of(p)
        if factor is not None and p.grad is not None:
            with torch.no_grad():
                p.grad.mul_(factor)
        self._debts.pop(p, None)

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._debts.clear()

    def _settle_before_accumulation(self, p: Tensor) -> Any:
        # Not even a weak reference to the tensor: torch exchanges tensors in place, and refuses where there is one.
        this, number = weakref.ref(self), id(p)

        def before_accumulation(_: Tensor) -> None:
            owed = this()
            if owed is not None:
                for weight in [q for q in owed._debts if id(q) == number]:
                    owed.settle(weight)

        return p.register_hook(before_accumulation)  # type: ignore[no-untyped-call]
