# SPDX-License-Identifier: MIT
"""One look per arm, the same in every plot and every report.

The hue tells the score, the marker and the dashes tell the optimizer that steps. The hues are those of Okabe and Ito,
which colour-blind readers can tell apart, without the ones that vanish on white or on black.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adamwprune.report.arms import stepping, width
from adamwprune.report.comparison import Row

INK = "#1b1f24"
GREY = "#7f868d"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0a78bd", "#d55e00", "#009e73", "#b9669a", "#d99400", "#3fa5dc"
BROWN, OLIVE = "#9c6b3f", "#7d8a1e"

HUES = {
    "magnitude": VERMILION,
    "movement": GREEN,
    "state": BLUE,
    "fisher": SKY,
    "hybrid": PURPLE,
    "scale-aware": OLIVE,
    "lamp": ORANGE,
    "taylor": BROWN,
    "random": GREY,
}
_SHAPES: dict[str, tuple[str, str | tuple[int, tuple[int, ...]]]] = {
    "adamw": ("o", "-"),
    "adamwspam": ("s", "--"),
    "adam": ("^", "-."),
    "adamwadv": ("D", ":"),
    "sgd": ("v", (0, (5, 1, 1, 1, 1, 1))),
}
_SPARE = (PURPLE, ORANGE, SKY, OLIVE, BROWN, GREY, GREEN, VERMILION, BLUE)

KIND_HUES = {"weights": GREY, "gradients": ORANGE, "state": BLUE, "mask": VERMILION, "workspace": PURPLE}


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and dashes of one arm."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[int, ...]]


def series(row: Row) -> str:
    """What a line in a plot is called: the arm, or small dense networks of all widths, each beside its target."""
    return row.label.replace(width(row.config), "") if row.kind == "small dense" else row.label


def looks(rows: Iterable[Row]) -> dict[str, Look]:
    """The look of every series; arms that would look alike (variants of one score) get spare colours."""
    chosen: dict[str, Look] = {}
    for row in rows:
        if series(row) in chosen:
            continue
        marker, dashes = ("X", ":") if row.kind == "small dense" else _SHAPES.get(stepping(row.config), ("P", "-"))
        look = Look(_hue(row), marker, dashes)
        spare = (Look(colour, marker, dashes) for colour in _SPARE)
        taken = set(chosen.values())
        chosen[series(row)] = look if look not in taken else next((one for one in spare if one not in taken), look)
    return chosen


def _hue(row: Row) -> str:
    if row.target == 0.0:
        return INK if row.kind == "small dense" else GREY
    method, score = str(row.config.get("pruning_method")), str(row.config.get("score"))
    return HUES.get(score, HUES.get(method, GREY))
