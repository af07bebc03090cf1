# SPDX-License-Identifier: MIT
"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from adamwprune.report.comparison import Comparison
from adamwprune.report.differences import config_differences, environment, environment_warnings, shared_config
from adamwprune.report.language import NOTHING
from adamwprune.report.palette import INK
from adamwprune.report.plots import Plot
from adamwprune.report.read import Matrix, Run
from adamwprune.report.tables import tables
from adamwprune.report.text import counts, headline, left_out


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A plot that was drawn: the stem of its files and their contents by suffix."""

    plot: Plot
    name: str
    files: Mapping[str, bytes]


def page(matrix: Matrix, comparisons: Sequence[Comparison], drawn: Mapping[str, Sequence[Drawn]]) -> str:
    """The page; ``drawn`` holds the plots by the comparison's title. The same input gives the same text."""
    templates = Environment(
        loader=PackageLoader("adamwprune.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    finished = matrix.with_status("finished")
    return templates.get_template("page.html.j2").render(
        matrix=matrix,
        counts=counts(matrix),
        sections=[_section(comparison, drawn.get(comparison.title, ())) for comparison in comparisons],
        warnings=environment_warnings(finished),
        environment=environment(finished),
        left_out=left_out(matrix),
        runs=[_run_line(run) for run in matrix.runs],
    )


def _section(comparison: Comparison, drawn: Sequence[Drawn]) -> dict[str, Any]:
    found = config_differences(comparison)
    return {
        "comparison": comparison,
        "headline": headline(comparison),
        "tables": tables(comparison),
        "plots": [(one, inline_svg(one.files["svg"].decode("utf-8"), one.name, one.plot.title)) for one in drawn],
        "labels": list(dict.fromkeys(row.label for row in comparison.rows)),
        "unnamed": [difference for difference in found if not difference.named],
        "named": [difference for difference in found if difference.named],
        "shared": shared_config(comparison),
    }


def inline_svg(text: str, name: str, title: str) -> Markup:
    """A matplotlib SVG as an element of the page: its own ids, and the page's ink on the page's ground."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r'\b(id|xlink:href)="(#?)([^"]+)"', rf'\1="\g<2>{name}-\3"', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    svg = re.sub(r' xmlns:xlink="[^"]*"| xmlns="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = _PAPER.sub("", svg, count=1)
    label = Markup.escape(title)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


# The white ground that matplotlib draws first.
_PAPER = re.compile(r'<g id="[^"]*patch_1">.*?</g>', re.DOTALL)


def _run_line(run: Run) -> dict[str, Any]:
    def shown(phase: str, split: str) -> str:
        accuracy, perplexity = (run.measured(phase, f"{split}_{name}") for name in ("accuracy", "perplexity"))
        if perplexity is not None:
            return f"{perplexity:.3f}"
        return NOTHING if accuracy is None else f"{100 * accuracy:.2f} %"

    sparsity = run.result.get("sparsity")
    return {
        "run": run,
        "link": "../" + quote(run.folder) + "/",
        "target": f"{100 * run.target:g}",
        "sparsity": NOTHING if sparsity is None else f"{100 * float(sparsity):.2f}",
        "test": shown("final", "test"),
        "best": shown("best", "val"),
        "command": command(run.config),
    }


def command(config: Mapping[str, Any]) -> str:
    """The command line that makes a run again: every field of its resolved config as a flag."""
    words = ["adamwprune", "train", str(config.get("model"))]
    for name, value in config.items():
        flag = name.replace("_", "-")
        if name in ("model", "data_dir", "checkpoint_every") or value is None or value == "":
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return " ".join(words)
