# SPDX-License-Identifier: MIT
"""Every number of the tables against a recomputation from the JSON files, with nothing of the report's own."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from adamwprune.report import table
from adamwprune.report.comparison import Row, compare
from adamwprune.report.language import NOTHING
from adamwprune.report.read import read_matrix
from adamwprune.report.tables import COLUMNS, Column, as_markdown, as_text, size, tables


def stored(path: Path, optimizer: str, method: str, target: float | None) -> list[dict[str, Any]]:
    """Results of one arm in seed order, straight from the files."""
    results = [json.loads(file.read_text()) for file in path.glob("runs/*/result.json")]
    wanted = (optimizer, "adamw", method, target)
    keys = ("optimizer", "base", "pruning_method", "target_sparsity")
    found = [r for r in results if tuple(r["config"][key] for key in keys) == wanted and r["status"] == "finished"]
    return sorted(found, key=lambda result: result["config"]["seed"])


def shown(values: list[float], *, signed: bool = False) -> str:
    mean, sd = 100 * statistics.mean(values), 100 * statistics.stdev(values)
    return f"{mean:{'+' if signed else ''}.2f} ± {sd:.2f}".replace("-", "−")


def line_of(text: str, start: str) -> dict[str, dict[str, str]]:
    """Cells by header of the first line that starts so, from each of the two tables in the text."""
    found = {}
    for title in ("Accuracy", "Memory and time"):
        block = text[text.index(f"\n{title}\n") :].splitlines()[2:]
        headers = re.split(r"\s{2,}", block[0].strip())
        line = next(line for line in block if line.strip().startswith(start))
        found[title] = dict(zip(headers, re.split(r"\s{2,}", line.strip()), strict=True))
    return found


@pytest.mark.parametrize("target", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("optimizer", "method"), [("adamw", "movement"), ("adamwprune", "state")])
def test_numbers_of_a_row(tiny: Path, optimizer: str, method: str, target: float) -> None:
    def test_of(results: list[dict[str, Any]]) -> list[float]:
        return [result["final"]["test_accuracy"] for result in results]

    ours = stored(tiny, optimizer, method, target)
    dense = test_of(stored(tiny, "adamw", "none", None))
    magnitude = test_of(stored(tiny, "adamw", "magnitude", target))
    test = test_of(ours)
    assert len(ours) == len(dense) == len(magnitude) == 3
    name = "adamwprune/adamw" if optimizer == "adamwprune" else optimizer
    cells = line_of(table(tiny), f"{100 * target:g} %  {name} {method} ")
    accuracy, cost = cells["Accuracy"], cells["Memory and time"]
    assert accuracy["n"] == "3"
    assert accuracy["sparsity %"] == f"{100 * target:.2f}"
    assert accuracy["test %"] == shown(test)
    assert accuracy["− dense"] == shown([a - b for a, b in zip(test, dense, strict=True)], signed=True)
    assert accuracy["− magnitude"] == shown([a - b for a, b in zip(test, magnitude, strict=True)], signed=True)
    assert accuracy["best val %"] == shown([result["best"]["val_accuracy"] for result in ours])
    account = ours[0]["account"]["bytes"]
    assert cost["kept"] == f"{ours[0]['kept']:,}"
    assert cost["state+mask B/w"] == f"{(account['state'] + account['mask']) / ours[0]['prunable']:.3f}"
    assert cost["train s"] == f"{statistics.median(result['seconds']['train'] for result in ours):.1f}"
    samples = [json.loads(line) for line in next(tiny.glob("runs/*/memory.jsonl")).read_text().splitlines()]
    assert cost["peak account"] == f"{max(sum(one['bytes_model'].values()) for one in samples) / 1024:.1f} KiB"
    assert cost["peak process"] == f"{max(one['rss'] for one in samples) / 1024**2:.1f} MiB"


def test_dense_rows_take_their_account_from_the_samples(tiny: Path) -> None:
    cost = line_of(table(tiny), "dense  adamw dense")["Memory and time"]
    assert cost["state+mask B/w"] == "8.000"


@pytest.fixture(scope="module")
def rows(tiny: Path) -> tuple[Row, ...]:
    return compare(read_matrix(tiny))[0].rows


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.header)
def test_every_column_shows_one_line_of_text_for_every_row(column: Column, rows: tuple[Row, ...]) -> None:
    cells = [column.cell(row) for row in rows]
    assert all(cell and cell == cell.strip() and "\n" not in cell and "nan" not in cell for cell in cells)
    assert column.help
    assert sum(other.header == column.header for other in COLUMNS) == 1
    absent = column.header == "peak device" or any(word in column.header for word in ("small", "ppl", "nats"))
    assert absent or any(cell != NOTHING for cell in cells)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.header)
def test_every_column_bears_a_result_that_lacks_its_numbers(column: Column, folder: Any) -> None:
    directory = folder.add()
    result = json.loads((directory / "result.json").read_text())
    kept = {key: result[key] for key in ("schema", "run_id", "name", "status", "config")}
    (directory / "result.json").write_text(json.dumps(kept | {"best": None, "account": None}))
    (directory / "memory.jsonl").unlink()
    (comparison,) = compare(read_matrix(folder.write()))
    assert column.cell(comparison.rows[0])


def test_columns_without_content_are_left_out(tiny: Path) -> None:
    headers = [column.header for one in tables(compare(read_matrix(tiny))[0]) for column in one.columns]
    assert "peak device" not in headers
    assert "− small dense" not in headers


def test_markdown_has_the_cells_of_the_text(tiny: Path) -> None:
    for one in tables(compare(read_matrix(tiny))[0]):
        marked = [line for line in as_markdown(one).splitlines() if line.startswith("|")]
        split = [[cell.strip() for cell in line.strip("|").split("|")] for line in marked]
        assert split[0] == [column.header for column in one.columns]
        assert [tuple(cells) for cells in split[2:]] == list(one.lines)
        text = as_text(one)
        assert all(cell in text for line in one.lines for cell in line)
        assert all(line == line.rstrip() for line in text.splitlines())


def test_few_seeds_and_partial_pairs_are_marked(folder: Any) -> None:
    folder.add(seed=0)
    folder.add(seed=0, pruning_method="magnitude", target_sparsity=0.5)
    folder.add(seed=1, pruning_method="magnitude", target_sparsity=0.5)
    text = table(folder.write())
    assert line_of(text, "dense  adamw")["Accuracy"]["n"] == "1 !"
    sparse = line_of(text, "50 %")["Accuracy"]
    assert sparse["n"] == "2 !"
    assert sparse["− dense"].endswith("(1 of 2)")
    assert "±" not in sparse["− dense"]


def test_failures_are_listed_with_their_reason(tiny: Path) -> None:
    text = table(tiny)
    left_out = text[text.index("Left out of every average") :]
    for reason in ("loss is nan at step 80", "stopped after epoch 4 of 10", "not started"):
        assert reason in left_out


@pytest.mark.parametrize(
    ("number", "text"), [(None, NOTHING), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 1024**3, "3.0 GiB")]
)
def test_sizes(number: float | None, text: str) -> None:
    assert size(number) == text


def test_language_models_are_compared_by_perplexity_and_nats(spoken: Path) -> None:
    [comparison] = compare(read_matrix(spoken))
    [reached, _] = tables(comparison)
    assert reached.title == "Perplexity"
    headers = [column.header for column in reached.columns]
    assert not {"test %", "− dense", "− magnitude", "best val %"} & set(headers)
    [state] = [dict(zip(headers, line, strict=True)) for line in reached.lines if "state" in line[1]]
    assert state["test ppl"] == "4.000 ± 0.000"
    found = [math.exp(loss) for loss in (1.55, 1.65, 1.75)]
    assert state["best val ppl"] == f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}"
    assert state["nats − dense"] == "+0.0500 ± 0.0000"
    assert state["nats − magnitude"] == "−0.0300 ± 0.0000", "the better magnitude variant, by its loss"
    assert "perplexity 4.000 ± 0.000 on test, +0.0500 ± 0.0000 nats against" in table(spoken)
    assert "differences in nats" in table(spoken)
