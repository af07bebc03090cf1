# SPDX-License-Identifier: MIT
"""Every registered plot: it draws what its measure is for, and names every arm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from adamwprune.report.comparison import Comparison, compare
from adamwprune.report.drawing import band, over_time, zoom_past_start
from adamwprune.report.measure import measure_of
from adamwprune.report.palette import looks
from adamwprune.report.plots import PLOTS, Plot, draw
from adamwprune.report.read import read_matrix

named = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)


@pytest.fixture(scope="module")
def drawn(tiny: Path, spoken: Path) -> dict[str, dict[str, dict[str, bytes]]]:
    """Of images and of a language model: files by plot, of the plots that have something to draw."""
    comparisons = {path.name: compare(read_matrix(path))[0] for path in (tiny, spoken)}
    return {
        name: {plot.name: files for plot in PLOTS if (files := draw(plot, comparison))}
        for name, comparison in comparisons.items()
    }


def words(svg: bytes) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())


@pytest.mark.parametrize(
    ("path", "names"), [("tiny", "accuracy over-time bytes"), ("spoken", "perplexity over-time bytes")]
)
def test_every_plot_names_every_arm(
    path: str, names: str, drawn: dict[str, dict[str, dict[str, bytes]]], request: pytest.FixtureRequest
) -> None:
    comparison = compare(read_matrix(request.getfixturevalue(path)))[0]
    assert list(drawn[path]) == names.split()
    for files in drawn[path].values():
        assert files["png"].startswith(b"\x89PNG")
        assert all(row.label in words(files["svg"]) for row in comparison.rows)
        assert b"<dc:date>" not in files["svg"]


@named
def test_a_caption_is_a_sentence(plot: Plot) -> None:
    assert plot.caption.endswith(".")


def test_axes_of_a_language_model_are_its_own(drawn: dict[str, dict[str, dict[str, bytes]]]) -> None:
    files = drawn["spoken"]
    assert "test perplexity" in words(files["perplexity"]["svg"])
    told = words(files["over-time"]["svg"])
    assert "validation loss (nats per token)" in told
    assert "step" in told.split()
    assert "accuracy" not in told + words(files["perplexity"]["svg"])


@pytest.mark.parametrize("path", ["tiny", "spoken"])
def test_every_late_mean_is_inside_the_axes(path: str, request: pytest.FixtureRequest) -> None:
    comparison = compare(read_matrix(request.getfixturevalue(path)))[0]
    measure = measure_of(comparison.rows)
    axes = Figure().add_subplot()
    for row in comparison.rows:
        band(axes, row, measure.validation, measure.position, looks([row])[row.label], measure.scale)
    whole = axes.get_ylim()
    zoom_past_start(axes, comparison.rows, measure)
    low, high = axes.get_ylim()
    shown = [
        measure.scale * summary.mean
        for row in comparison.rows
        for place, summary in over_time(row, measure.validation, measure.position)
        if place >= 0.3 * (10 if measure.position == "epoch" else 200)
    ]
    assert low < min(shown) < max(shown) < high
    assert high - low < 0.8 * (whole[1] - whole[0])


@named
def test_draws_nothing_of_nothing(plot: Plot) -> None:
    assert draw(plot, Comparison(model="lenet5", data="digits", rows=(), notes=())) == {}


@named
def test_draws_a_single_dense_seed_and_a_single_target(plot: Plot, folder: Any) -> None:
    folder.add()
    dense = compare(read_matrix(folder.write()))[0]
    assert draw(plot, dense).keys() in (set(), {"png", "svg"})
    folder.add(pruning_method="magnitude", target_sparsity=0.5)
    drawn_at_all = set() if plot.name == "perplexity" else {"png", "svg"}
    assert draw(plot, compare(read_matrix(folder.write()))[0]).keys() == drawn_at_all


def test_a_run_that_was_evaluated_once_is_a_point(folder: Any) -> None:
    folder.add()
    path = folder.write()
    row = compare(read_matrix(path))[0].rows[0]
    markers = []
    for runs in (row.runs, tuple(dataclasses.replace(run, evaluations=run.evaluations[-1:]) for run in row.runs)):
        axes = Figure().add_subplot()
        band(axes, dataclasses.replace(row, runs=runs), "val_accuracy", "epoch", looks([row])[row.label], 100.0)
        markers.append(axes.get_lines()[0].get_marker())
    assert markers == ["None", looks([row])[row.label].marker]


def test_arms_never_look_alike(folder: Any) -> None:
    for score in ("state", "fisher", "hybrid"):
        for distribution in ("layer", "global"):
            folder.add(optimizer="adamwprune", pruning_method="state", target_sparsity=0.5, score=score,
                       distribution=distribution)  # fmt: skip
    rows = compare(read_matrix(folder.write()))[0].rows
    assert len(set(looks(rows).values())) == len(rows) == 6


def test_small_dense_networks_are_one_line_whatever_their_width(folder: Any) -> None:
    for target, width in ((0.5, 0.7), (0.7, 0.55), (0.9, 0.3)):
        folder.add(optimizer="adamwprune", pruning_method="state", target_sparsity=target)
        folder.add(optimizer="adamw", width=width)
    comparison = compare(read_matrix(folder.write()))[0]
    assert len(looks(comparison.rows)) == 2
    told = words(draw(PLOTS[0], comparison)["svg"])
    assert told.count("adamw small dense") == 1
    assert "width" not in told


def test_an_arm_looks_the_same_whoever_stands_beside_it(tiny: Path) -> None:
    comparison = compare(read_matrix(tiny))[0]
    together = looks(comparison.rows)
    assert all(looks([row])[row.label] == together[row.label] for row in comparison.rows)
