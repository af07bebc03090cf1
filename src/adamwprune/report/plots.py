# SPDX-License-Identifier: MIT
"""Plots of a comparison. A new plot is one small function and a line in ``PLOTS``."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from adamwprune.report.aggregate import median
from adamwprune.report.comparison import Comparison, Row
from adamwprune.report.drawing import (
    band,
    dense_band,
    dodge,
    points,
    reference_line,
    stacked_bar,
    steady_bytes,
    zoom_past_start,
)
from adamwprune.report.measure import ACCURACY, PERPLEXITY, Measure, measure_of
from adamwprune.report.memory import KINDS, byte_unit
from adamwprune.report.palette import GREY, INK, KIND_HUES, looks, series

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "adamwprune",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its file name, what it shows, and the function that draws it; None where there is nothing to draw."""

    name: str
    title: str
    caption: str
    draw: Callable[[Comparison], Figure | None]


def accuracy_against_sparsity(comparison: Comparison) -> Figure | None:
    """Test accuracy of classifiers over the target sparsity."""
    return _against_sparsity(comparison, ACCURACY)


def perplexity_against_sparsity(comparison: Comparison) -> Figure | None:
    """Test perplexity of language models over the target sparsity."""
    return _against_sparsity(comparison, PERPLEXITY)


def _against_sparsity(comparison: Comparison, measure: Measure) -> Figure | None:
    """A line per arm with error bars, a band per dense row; None where another measure is the one that counts."""
    pruned = [row for row in comparison.rows if row.kind in ("magnitude", "sparse")]
    if not pruned or measure_of(comparison.rows) is not measure:
        return None
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    style = looks(comparison.rows)
    for row in comparison.rows:
        if row.kind == "dense":
            dense_band(axes, row, style[row.label], measure)
    small = [row for row in comparison.rows if row.kind == "small dense" and row.block]
    for name in dict.fromkeys(map(series, small)):
        points(axes, [row for row in small if series(row) == name], 0.0, style[name], measure)
    labels = list(dict.fromkeys(row.label for row in pruned))
    step = dodge(comparison.targets, len(labels))
    for position, label in enumerate(labels):
        shift = (position - (len(labels) - 1) / 2) * step
        points(axes, [row for row in pruned if row.label == label], shift, style[label], measure)
    axes.set_xticks([100 * target for target in comparison.targets])
    if len(comparison.targets) == 1:
        # The points of one target stay together, as they do among others.
        axes.set_xlim(100 * comparison.targets[0] - 10, 100 * comparison.targets[0] + 10)
    axes.set_xlabel("target sparsity (%)")
    axes.set_ylabel(measure.test_axis)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def over_time(comparison: Comparison) -> Figure | None:
    """Sparsity, and validation accuracy or loss, over the run: a column per target, a mean and a band per arm."""
    if not any(run.evaluations for run in comparison.runs):
        return None
    measure = measure_of(comparison.rows)
    targets = comparison.targets or (0.0,)
    figure = Figure(figsize=(1.4 + 3.1 * max(len(targets), 2), 5.6), layout="constrained")
    panels = figure.subplots(2, len(targets), sharex=True, sharey="row", squeeze=False)
    style = looks(comparison.rows)
    for column, target in enumerate(targets):
        above, below = panels[0][column], panels[1][column]
        for row in comparison.rows:
            look = style[series(row)]
            if row.target == target:
                band(above, row, "sparsity", measure.position, look, 100.0)
            if row.kind == "dense" or row.block == target:
                band(below, row, measure.validation, measure.position, look, measure.scale)
        above.set_title(f"target {100 * target:g} %" if target else "dense")
        below.set_xlabel(measure.position)
    panels[0][0].set_ylabel("sparsity (%)")
    panels[1][0].set_ylabel(measure.validation_axis)
    zoom_past_start(panels[1][0], comparison.rows, measure)
    handles = {str(line.get_label()): line for axes in panels[1] for line in axes.get_lines()}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)
    return figure


def bytes_by_kind(comparison: Comparison) -> Figure | None:
    """Stacked bars of the account at the end: a bar per row, a line at dense AdamW."""
    bars = [(row, account) for row in comparison.rows if (account := steady_bytes(row))]
    if not bars:
        return None
    figure = Figure(figsize=(8.2, 1.6 + 0.33 * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    unit, name = byte_unit(min(sum(account.values()) for _, account in bars))
    for place, (row, account) in enumerate(bars):
        parts = {kind: number / unit for kind, number in account.items()}
        stacked_bar(axes, place, parts, f"{sum(parts.values()):,.1f} {name}, {_per_weight(row, account)}")
    axes.set_yticks(range(len(bars)), [_bar_name(row) for row, _ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel(f"account of the prunable weights at the end of the run ({name})")
    axes.grid(axis="y", visible=False)
    for row, account in bars:
        if row.kind == "dense" and row.config.get("optimizer") == "adamw":
            reference_line(axes, sum(account.values()) / unit, row.label)
    shown = [kind for kind in KINDS if any(kind in account for _, account in bars)]
    patches = [Patch(color=KIND_HUES[kind], label=kind) for kind in shown]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(shown))
    return figure


def _bar_name(row: Row) -> str:
    return f"{row.label}, {100 * row.target:g} %" if row.target else row.label


def _per_weight(row: Row, account: Mapping[str, float]) -> str:
    weights = median(row.over_runs(lambda run: run.result.get("prunable")))
    return f"{sum(account.values()) / weights:.2f} B/w" if weights else ""


PLOTS: tuple[Plot, ...] = (
    Plot(
        "accuracy",
        "Accuracy against sparsity",
        "Test accuracy after the last epoch, mean and sample standard deviation over seeds. "
        "Points of one target are set side by side; bands are the dense rows.",
        accuracy_against_sparsity,
    ),
    Plot(
        "perplexity",
        "Perplexity against sparsity",
        "Test perplexity after the last step, mean and sample standard deviation over seeds: less is better. "
        "Points of one target are set side by side; bands are the dense rows.",
        perplexity_against_sparsity,
    ),
    Plot(
        "over-time",
        "Sparsity and validation over time",
        "Mean and sample standard deviation over seeds at every evaluation. "
        "Arms that share a schedule lie on one line of sparsity. "
        "The lower axis may cut off the first third of the run, and deviations beyond the worst mean.",
        over_time,
    ),
    Plot(
        "bytes",
        "Bytes by kind",
        "The account of the prunable weights in steady state, as the run stored it after its last update; "
        "B/w is bytes per prunable weight of the bar's own network. "
        "The dashed line is dense AdamW. The peak of a run that starts dense is higher: see the table.",
        bytes_by_kind,
    ),
)


def render(figure: Figure, form: str) -> bytes:
    """The figure as a PNG or SVG file; the same bytes for the same figure."""
    buffer = io.BytesIO()
    if form == "png":
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    else:
        FigureCanvasSVG(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor="white", metadata=nothing)
    return buffer.getvalue()


def draw(plot: Plot, comparison: Comparison) -> dict[str, bytes]:
    """A plot's files by their suffix; empty where there is nothing to draw."""
    with matplotlib.rc_context(cast(Any, STYLE)):
        figure = plot.draw(comparison)
        return {} if figure is None else {form: render(figure, form) for form in ("svg", "png")}
