# SPDX-License-Identifier: MIT
"""The comparison as tables. A new column is one small function and a line in ``COLUMNS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from adamwprune.report.aggregate import Summary, median, summarise
from adamwprune.report.comparison import MIN_SEEDS, Comparison, Row, is_language
from adamwprune.report.language import NOTHING, nats, perplexity
from adamwprune.report.measure import measure_of
from adamwprune.report.memory import byte_unit, peak_account, peak_allocated, peak_rss, state_bytes, state_bytes_model


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what heads it, which of the two tables it is in, and what it shows of a row."""

    header: str
    part: Literal["both", "accuracy", "cost"]
    cell: Callable[[Row], str]
    help: str
    left: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A rendered table: cells are text, ``blocks`` holds each line's block so that views can set blocks apart."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[tuple[str, ...], ...]
    blocks: tuple[float, ...]


def percent(summary: Summary | None, *, signed: bool = False) -> str:
    """A fraction's mean and deviation in percent (differences: in points)."""
    if summary is None:
        return NOTHING
    rounded = round(100 * summary.mean, 2)
    mean = f"{rounded:{'+' if signed and rounded else ''}.2f}".replace("-0.00", "0.00").replace("-", "−")
    return mean if summary.sd is None else f"{mean} ± {100 * summary.sd:.2f}"


def size(number: float | None) -> str:
    """Bytes in the largest binary unit of which there is at least one."""
    if number is None:
        return NOTHING
    unit, name = byte_unit(number)
    return f"{number / unit:.{1 if unit > 1 else 0}f} {name}"


def difference(row: Row, other: Row | None) -> str:
    """The paired difference in test accuracy, with its number of pairs where some seeds have no partner."""
    summary = None if is_language(row) else row.difference(other)
    unpaired = summary is not None and summary.n < row.n
    return percent(summary, signed=True) + (f" ({summary.n} of {row.n})" if summary and unpaired else "")


def accuracy(row: Row, phase: str, name: str) -> str:
    """A mean accuracy; nothing for a language model."""
    return NOTHING if is_language(row) else percent(row.summary(phase, name))


def _plain(number: float | None, form: str) -> str:
    return NOTHING if number is None else format(number, form)


def _target(row: Row) -> str:
    return f"{100 * row.block:g} %" if row.block else "dense"


def _seeds(row: Row) -> str:
    return f"{row.n}{' !' if row.n < MIN_SEEDS else ''}"


def _measured(row: Row) -> str:
    return _mean([100 * share for share in row.over_runs(lambda run: run.result.get("sparsity"))], ".2f")


def _kept(row: Row) -> str:
    return _plain(median(row.over_runs(lambda run: run.result.get("kept"))), ",.0f")


def _seconds(row: Row) -> str:
    return _plain(median(row.over_runs(lambda run: (run.result.get("seconds") or {}).get("train"))), ".1f")


def _mean(values: Sequence[float], form: str) -> str:
    summary = summarise(values)
    return _plain(None if summary is None else summary.mean, form)


COLUMNS: tuple[Column, ...] = (
    Column("target", "both", _target, "target sparsity: the share of prunable weights removed"),
    Column("arm", "both", lambda row: row.label, "optimizer (and base), method (and score)", left=True),
    Column("n", "both", _seeds, "seeds that finished"),
    Column("sparsity %", "accuracy", _measured, "sparsity that was measured at the end"),
    Column("test %", "accuracy", lambda row: accuracy(row, "final", "test_accuracy"),
           "test accuracy after the last epoch, at the target sparsity"),
    Column("− dense", "accuracy", lambda row: difference(row, row.dense),
           "test accuracy minus the dense row's, points, paired by seed"),
    Column("− magnitude", "accuracy", lambda row: difference(row, row.magnitude),
           "test accuracy minus the best magnitude row's at this sparsity, points, paired by seed"),
    Column("− small dense", "accuracy", lambda row: difference(row, row.small),
           "test accuracy minus that of a narrower dense network with as many weights, points, paired by seed"),
    Column("best val %", "accuracy", lambda row: accuracy(row, "best", "val_accuracy"),
           "validation accuracy of the best epoch at the target sparsity"),
    Column("test ppl", "accuracy", perplexity, "test perplexity after the last step, at the target sparsity"),
    Column("nats − dense", "accuracy", lambda row: nats(row, row.dense),
           "test loss minus the dense row's, paired by seed"),
    Column("nats − magnitude", "accuracy", lambda row: nats(row, row.magnitude),
           "test loss minus the best magnitude row's at this sparsity, paired by seed"),
    Column("nats − small dense", "accuracy", lambda row: nats(row, row.small),
           "test loss minus that of a narrower dense network with as many weights, paired by seed"),
    Column("best val ppl", "accuracy", lambda row: perplexity(row, "best", "val_perplexity"),
           "validation perplexity of the best evaluation at the target sparsity"),
    Column("kept", "cost", _kept, "prunable weights kept"),
    Column("state+mask B/w", "cost", lambda row: _mean(row.over_runs(state_bytes), ".3f"),
           "bytes of optimizer state and mask per prunable weight at the end"),
    Column("whole net B/p", "cost", lambda row: _mean(row.over_runs(state_bytes_model), ".3f"),
           "the same for the whole network, per parameter"),
    Column("peak account", "cost", lambda row: size(median(row.over_runs(peak_account))),
           "largest sum of weights, gradients, state, mask and workspace of the network in a sample (median of runs)"),
    Column("peak process", "cost", lambda row: size(median(row.over_runs(peak_rss))),
           "largest resident memory of the process in a sample (median of runs); workers serve many runs"),
    Column("peak device", "cost", lambda row: size(median(row.over_runs(peak_allocated))),
           "largest memory the accelerator's allocator reported in a sample (median of runs)"),
    Column("train s", "cost", _seconds, "seconds of training (median of runs)"),
)  # fmt: skip


def tables(comparison: Comparison, columns: Sequence[Column] = COLUMNS) -> list[Table]:
    """What the networks reached, and what it cost; columns in which no row has anything are left out."""
    return [
        _table(comparison, measure_of(comparison.rows).title, [column for column in columns if column.part != "cost"]),
        _table(comparison, "Memory and time", [column for column in columns if column.part != "accuracy"]),
    ]


def _table(comparison: Comparison, title: str, columns: Sequence[Column]) -> Table:
    cells = {column.header: [column.cell(row) for row in comparison.rows] for column in columns}
    shown = tuple(column for column in columns if set(cells[column.header]) != {NOTHING})
    lines = tuple(zip(*(cells[column.header] for column in shown), strict=True))
    return Table(title, shown, lines, tuple(row.block for row in comparison.rows))


def as_text(table: Table) -> str:
    """Aligned columns for a terminal, a blank line between blocks."""
    headers = tuple(column.header for column in table.columns)
    widths = [max(map(len, cells)) for cells in zip(headers, *table.lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines = [table.title, line(headers), "  ".join("-" * width for width in widths)]
    for position, cells in enumerate(table.lines):
        if position and table.blocks[position] != table.blocks[position - 1]:
            lines.append("")
        lines.append(line(cells))
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    """A table as GitHub and most readers of markdown show it."""
    headers = [column.header for column in table.columns]
    rules = [":---" if column.left else "---:" for column in table.columns]
    lines = [f"**{table.title}**", ""]
    lines += ["| " + " | ".join(map(_escape, cells)) + " |" for cells in (headers, rules, *table.lines)]
    return "\n".join(lines)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")
