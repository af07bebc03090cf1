# SPDX-License-Identifier: MIT
"""Tables in the documents are those of the published reports, and the reports are of the published runs."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import publish  # noqa: E402  (a script, not a package)

PUBLISHED = sorted(path.parent for path in publish.PUBLISHED.glob("*/table.md"))


@pytest.mark.parametrize("page", publish.documents(), ids=lambda page: page.name)
def test_tables_in_the_documents_are_the_published_ones(page):
    text = page.read_text(encoding="utf-8")
    assert publish.fill(text) == text


def is_language(folder: Path) -> bool:
    return json.loads((folder / "runs.json").read_text())[0]["final"].get("test_perplexity") is not None


def shown(values: list[float], places: int) -> str:
    """Mean and sample standard deviation; one value has none."""
    spread = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{places}f}{spread}"


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_means_are_those_of_the_runs(folder):
    title, header, score, scale, places = (
        ("Perplexity", "test ppl", "test_perplexity", 1, 3)
        if is_language(folder)
        else ("Accuracy", "test %", "test_accuracy", 100, 2)
    )
    runs = json.loads((folder / "runs.json").read_text())
    assert all(run["status"] == "finished" for run in runs)
    groups: dict[str, list[float]] = {}
    for run in runs:
        groups.setdefault(re.sub(r"-s\d+$", "", run["name"]), []).append(scale * run["final"][score])
    expected = sorted(shown(group, places) for group in groups.values())
    rows = [row.split("|") for row in publish.table(folder.name, title).splitlines()]
    column = [cell.strip() for cell in rows[0]].index(header)
    assert sorted(row[column].strip() for row in rows[2:]) == expected


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_plots_are_shown_where_they_lie(folder):
    reached = "perplexity.png" if is_language(folder) else "accuracy.png"
    assert {path.name for path in folder.glob("*.png")} == {reached, "over-time.png", "bytes.png"}
