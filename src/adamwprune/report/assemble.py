# SPDX-License-Identifier: MIT
"""From a results folder to its report folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adamwprune.files import write_text
from adamwprune.report.comparison import Comparison, compare
from adamwprune.report.page import Drawn, page
from adamwprune.report.plots import PLOTS, draw
from adamwprune.report.read import read_matrix
from adamwprune.report.text import for_markdown, for_terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPaths:
    """The files of a report."""

    table_txt: Path
    table_md: Path
    page: Path
    plots: tuple[Path, ...]


def table(results_dir: Path | str) -> str:
    """The comparison of a results folder as text for a terminal."""
    return for_terminal(read_matrix(results_dir))


def build(results_dir: Path | str) -> ReportPaths:
    """Write tables, plots and the page into the results folder's ``report/``. Only stored files are read."""
    matrix = read_matrix(results_dir)
    folder = matrix.path / "report"
    comparisons = compare(matrix)
    drawn = {comparison.title: _drawn(comparison, alone=len(comparisons) == 1) for comparison in comparisons}
    plots = tuple(
        write_text(folder / f"{one.name}.{form}", content)
        for plots in drawn.values()
        for one in plots
        for form, content in one.files.items()
    )
    _remove_stale(folder, plots)
    return ReportPaths(
        table_txt=write_text(folder / "table.txt", for_terminal(matrix)),
        table_md=write_text(folder / "table.md", for_markdown(matrix)),
        page=write_text(folder / "index.html", page(matrix, comparisons, drawn)),
        plots=plots,
    )


def _remove_stale(folder: Path, plots: tuple[Path, ...]) -> None:
    """Plots of an earlier state of the matrix would be taken for this one's."""
    for plot in PLOTS:
        for path in folder.glob(f"{plot.name}*"):
            if path.suffix in (".png", ".svg") and path not in plots:
                path.unlink()


def _drawn(comparison: Comparison, *, alone: bool) -> list[Drawn]:
    suffix = "" if alone else f"-{comparison.model}-{comparison.data}"
    drawn = (Drawn(plot=plot, name=plot.name + suffix, files=draw(plot, comparison)) for plot in PLOTS)
    return [one for one in drawn if one.files]
