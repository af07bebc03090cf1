# SPDX-License-Identifier: MIT
"""Every registered plot: it draws, it names every arm, and the same input gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from adamwprune.report.comparison import Comparison, compare
from adamwprune.report.palette import looks
from adamwprune.report.plots import PLOTS, Plot, draw
from adamwprune.report.read import read_matrix

named = pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)


@pytest.fixture(scope="module")
def comparison(tiny: Path) -> Comparison:
    return compare(read_matrix(tiny))[0]


@named
def test_draws_the_same_files_twice_and_names_every_arm(plot: Plot, comparison: Comparison) -> None:
    first = draw(plot, comparison)
    assert first == draw(plot, comparison)
    assert first["png"].startswith(b"\x89PNG")
    words = " ".join(element.text or "" for element in ElementTree.fromstring(first["svg"]).iter())
    assert all(row.label in words for row in comparison.rows)
    assert b"<dc:date>" not in first["svg"]
    assert plot.caption.endswith(".")


@named
def test_draws_nothing_of_nothing(plot: Plot) -> None:
    assert draw(plot, Comparison(model="lenet5", data="digits", rows=(), notes=())) == {}


@named
def test_draws_a_single_dense_seed_and_a_single_target(plot: Plot, folder: Any) -> None:
    folder.add()
    dense = compare(read_matrix(folder.write()))[0]
    assert draw(plot, dense).keys() in (set(), {"png", "svg"})
    folder.add(pruning_method="magnitude", target_sparsity=0.5)
    assert draw(plot, compare(read_matrix(folder.write()))[0]).keys() == {"png", "svg"}


def test_arms_never_look_alike(folder: Any) -> None:
    for score in ("state", "fisher", "hybrid"):
        for distribution in ("layer", "global"):
            folder.add(optimizer="adamwprune", pruning_method="state", target_sparsity=0.5, score=score,
                       distribution=distribution)  # fmt: skip
    rows = compare(read_matrix(folder.write()))[0].rows
    assert len(set(looks(rows).values())) == len(rows) == 6


def test_an_arm_looks_the_same_whoever_stands_beside_it(comparison: Comparison) -> None:
    together = looks(comparison.rows)
    assert all(looks([row])[row.label] == together[row.label] for row in comparison.rows)
