# SPDX-License-Identifier: MIT
"""Scores: what ranks weights. The lowest are pruned.

A score is a function of one-dimensional float32 slices over the kept weights of one tensor. Its parameter names say
what it needs: ``w`` the weights, ``m`` and ``v`` Adam's bias-corrected smoothed gradient and smoothed squared gradient,
``g`` the gradient of the last step, ``movement`` the accumulated ``-w * g``, ``index`` the weights' positions (int64).
``docs/method.md`` derives each from the loss it estimates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-8

#: What a score may ask for.
INPUTS = ("w", "m", "v", "g", "movement", "index")


@dataclass(frozen=True, slots=True)
class Score:
    """A score's function, what it needs, and whether it must see a whole tensor at once (it is not elementwise)."""

    name: str
    function: Callable[..., Tensor]
    needs: frozenset[str]
    whole: bool = False

    @property
    def needs_moments(self) -> bool:
        """Whether the optimizer must keep ``exp_avg`` and ``exp_avg_sq``."""
        return not self.needs.isdisjoint({"m", "v"})

    def __call__(self, **inputs: Tensor) -> Tensor:
        """Score the slices: float32 of their length."""
        result = self.function(**{name: inputs[name] for name in self.needs})
        expected = next(iter(inputs.values())).shape
        if not isinstance(result, Tensor) or result.is_complex():
            kind = result.dtype if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(f"score {self.name!r} returned {kind}: expected a tensor of real numbers")
        if result.shape != expected:
            raise ValueError(f"score {self.name!r} returned shape {list(result.shape)} for slices of {list(expected)}")
        return result.float()


def magnitude(w: Tensor) -> Tensor:
    """|w| (Han et al. 2015, arXiv 1506.02626)."""
    return w.abs()


def hybrid(w: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """w² |m| / (√v + ε): first-order saliency |w m| times the weight in units of its gradient's scale."""
    return w.square() * m.abs() / (v.sqrt() + EPS)


def scale_aware(w: Tensor, m: Tensor, v: Tensor) -> Tensor:
    """|w| √v / (|m| + ε): magnitude, raised where the gradient is large but has no direction."""
    return w.abs() * v.sqrt() / (m.abs() + EPS)


def state(w: Tensor, v: Tensor) -> Tensor:
    """|w| v^¼: second-order saliency in Adam's own preconditioned geometry."""
    return w.abs() * v.sqrt().sqrt()


def fisher(w: Tensor, v: Tensor) -> Tensor:
    """|w| v^½: Optimal Brain Damage (LeCun et al. 1989) with Adam's v as diagonal Fisher (arXiv 2507.18807)."""
    return w.abs() * v.sqrt()


def taylor(w: Tensor, g: Tensor) -> Tensor:
    """|w g|: the first-order change of the loss when the weight goes (Molchanov et al. 2017, arXiv 1611.06440)."""
    return (w * g).abs()


def movement(movement: Tensor) -> Tensor:
    """Accumulated -w g: weights that move away from zero rank high (Sanh et al. 2020, arXiv 2005.07683). Signed."""
    return movement


def lamp(w: Tensor) -> Tensor:
    """w² over the sum of all squares that are not smaller (Lee et al. 2021, arXiv 2010.07611).

    Not elementwise: the tensor is sorted, so the transient is about eight times its weights in float32. Among equal
    squares an earlier weight stands first in the descending order, hence ranks higher: everybody's tie rule.
    """
    squares, order = w.square().sort(descending=True, stable=True)
    ranked = torch.where(squares > 0, squares / squares.cumsum(0, dtype=torch.float64), 0.0).float()
    return torch.empty_like(w).index_copy_(0, order, ranked)


def random(index: Tensor) -> Tensor:
    """A fixed pseudo-random order of the positions, the same on every rank and at every update (the control)."""
    bits = index * -7046029254386353131  # splitmix64; int64 arithmetic wraps around
    bits = (bits ^ ((bits >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    bits = (bits ^ ((bits >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return ((bits >> 40) & 0xFFFFFF).float()


def _builtin(name: str, function: Callable[..., Tensor], *, whole: bool = False) -> Score:
    return Score(name, function, frozenset(inspect.signature(function).parameters), whole)


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        _builtin("magnitude", magnitude),
        _builtin("hybrid", hybrid),
        _builtin("scale-aware", scale_aware),
        _builtin("state", state),
        _builtin("fisher", fisher),
        _builtin("taylor", taylor),
        _builtin("movement", movement),
        _builtin("lamp", lamp, whole=True),
        _builtin("random", random),
    )
}

ALIASES = {"bitter0": "hybrid", "bitter1": "magnitude", "bitter2": "scale-aware"}

#: Not a score but a choice between two, made by where the window begins: `state` where that is late, else `magnitude`.
AUTO_SCORE = "auto"
#: Share of the run from which on a window is late. `docs/method.md`, "When the state pays", has what was measured.
LATE = 0.75

#: Members of the state family: what ``--pruning-method state`` may rank by. Each uses what the optimizer knows.
STATE_FAMILY = ("state", "fisher", "hybrid", "scale-aware", "taylor")


def canonical_score(name: str) -> str:
    """Resolve an alias; ValueError with the valid names where there is no such score."""
    resolved = ALIASES.get(name, name)
    if resolved not in SCORES:
        raise ValueError(f"unknown score {name!r}: expected one of {', '.join([*SCORES, *ALIASES])}")
    return resolved


def find_score(score: str | Callable[..., Tensor]) -> Score:
    """The score of a name, or of a function ``f(w, m, v, g)`` (or of any of the names in :data:`INPUTS`)."""
    if isinstance(score, str):
        return SCORES[canonical_score(score)]
    label = getattr(score, "__qualname__", repr(score))
    try:
        parameters = inspect.signature(score).parameters
    except ValueError as error:
        raise ValueError(f"score function {label} has no signature: wrap it, as in lambda w: torch.abs(w)") from error
    names = list(parameters)
    if any(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters.values()):
        raise ValueError(f"score function {label} takes {names} by position only, and slices come by name: wrap it")
    if names and set(names) <= set(INPUTS):
        return Score(label, score, frozenset(names))
    if len(names) == 4:
        positional = score
        return Score(label, lambda w, m, v, g: positional(w, m, v, g), frozenset({"w", "m", "v", "g"}))
    raise ValueError(
        f"score function {label} takes {names}: expected four slices (w, m, v, g), or any of {', '.join(INPUTS)}"
    )
