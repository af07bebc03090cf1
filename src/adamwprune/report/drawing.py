# SPDX-License-Identifier: MIT
"""The marks that plots are made of: points with error bars, bands, bars."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from adamwprune.report.aggregate import Summary, curve, summarise
from adamwprune.report.comparison import Row
from adamwprune.report.measure import Measure
from adamwprune.report.memory import KINDS, steady_account
from adamwprune.report.palette import INK, KIND_HUES, Look, series
from adamwprune.report.read import Run


def dodge(targets: Sequence[float], lines: int) -> float:
    """How far to set points of one target apart, in percent of sparsity, so that error bars do not overlap."""
    places = sorted({100 * target for target in targets})
    gap = min((b - a for a, b in itertools.pairwise(places)), default=20.0)
    return 0.22 * gap / max(lines, 4)


def points(axes: Axes, rows: Sequence[Row], shift: float, look: Look, measure: Measure) -> None:
    """Means on the test split at the target, with the sample deviation as error bar."""
    found = [(row, summary) for row in rows if (summary := row.summary("final", measure.test))]
    if not found:
        return
    found.sort(key=lambda pair: pair[0].block)
    axes.errorbar(
        [100 * row.block + shift for row, _ in found],
        [measure.scale * summary.mean for _, summary in found],
        yerr=[measure.scale * summary.spread for _, summary in found],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dashes,
        capsize=3,
        elinewidth=1.2,
        label=series(found[0][0]),
    )


def dense_band(axes: Axes, row: Row, look: Look, measure: Measure) -> None:
    """Mean on the test split of a dense row over the whole width, with its sample deviation."""
    summary = row.summary("final", measure.test)
    if summary is None:
        return
    mean, spread = measure.scale * summary.mean, measure.scale * summary.spread
    axes.axhspan(mean - spread, mean + spread, color=look.colour, alpha=0.15, linewidth=0)
    axes.axhline(mean, color=look.colour, linestyle=look.dashes, linewidth=1.3, label=row.label)


def over_time(row: Row, name: str, position: str) -> list[tuple[float, Summary]]:
    """Mean and deviation over seeds of a metric at every epoch or step that all seeds evaluated."""

    def series(run: Run) -> dict[float, float]:
        return {getattr(one, position): getattr(one, name) for one in run.evaluations}

    return curve([series(run) for run in row.runs if run.evaluations])


def band(axes: Axes, row: Row, name: str, position: str, look: Look, scale: float) -> None:
    """A metric over the run: the mean as a line, the sample deviation as a band."""
    found = over_time(row, name, position)
    places = [place for place, _ in found]
    mean = [scale * summary.mean for _, summary in found]
    spread = [scale * summary.spread for _, summary in found]
    below = [m - s for m, s in zip(mean, spread, strict=True)]
    above = [m + s for m, s in zip(mean, spread, strict=True)]
    axes.fill_between(places, below, above, color=look.colour, alpha=0.15, linewidth=0)
    alone = look.marker if len(places) == 1 else None  # a line through one point is not seen
    axes.plot(places, mean, color=look.colour, linestyle=look.dashes, marker=alone, label=series(row))


def zoom_past_start(axes: Axes, rows: Sequence[Row], measure: Measure, share: float = 0.3) -> None:
    """Let the axis end at the worst mean after the first third, where it would mostly show the start otherwise."""
    found = [one for row in rows for one in over_time(row, measure.validation, measure.position)]
    last = max((place for place, _ in found), default=0.0)
    better = 1.0 if measure.rises else -1.0
    late = [better * measure.scale * summary.mean for place, summary in found if place >= share * last]
    best = max((measure.scale * (better * summary.mean + summary.spread) for _, summary in found), default=0.0)
    if late and best > min(late):
        margin = 0.05 * (best - min(late))
        drawn = min(better * limit for limit in axes.get_ylim())
        axes.set_ylim(*sorted((better * max(drawn, min(late) - margin), better * (best + margin))))


def steady_bytes(row: Row) -> dict[str, float]:
    """The row's mean account by kind at the end; kinds without bytes are left out."""
    accounts = [account for account in map(steady_account, row.runs) if account]
    means = ((kind, summarise(account.get(kind, 0) for account in accounts)) for kind in KINDS)
    return {kind: summary.mean for kind, summary in means if summary is not None and summary.mean > 0}


def stacked_bar(axes: Axes, place: float, parts: Mapping[str, float], text: str) -> None:
    """One horizontal bar of parts, its text in a column beside the axes."""
    left = 0.0
    for kind, width in parts.items():
        axes.barh(place, width, left=left, height=0.72, color=KIND_HUES[kind])
        left += width
    axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)


def reference_line(axes: Axes, place: float, text: str) -> None:
    """A dashed vertical line with its name on top."""
    axes.axvline(place, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate(
        text, (place, 1), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
        ha="center", va="bottom", fontsize=9.5,
    )  # fmt: skip
