# SPDX-License-Identifier: MIT
"""The report as text: for a terminal and as markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adamwprune.report.comparison import Comparison, compare, is_language
from adamwprune.report.differences import Difference, config_differences, environment_warnings
from adamwprune.report.language import nats, perplexity
from adamwprune.report.read import Matrix, Run
from adamwprune.report.tables import Table, as_markdown, as_text, difference, percent, tables


def for_terminal(matrix: Matrix) -> str:
    """Headline, tables, what differs, and what did not finish; plain aligned text."""
    return _report(matrix, heading=lambda text: f"{text}\n{'=' * len(text)}", table=as_text, bullet="  ")


def for_markdown(matrix: Matrix) -> str:
    """The same content as :func:`for_terminal`, for a markdown reader."""
    return _report(matrix, heading=lambda text: f"## {text}", table=as_markdown, bullet="- ")


def _report(matrix: Matrix, *, heading: Callable[[str], str], table: Callable[[Table], str], bullet: str) -> str:
    parts = [f"{matrix.name}: {counts(matrix)}"]

    def items(title: str, lines: Iterable[str]) -> None:
        listed = [bullet + line for line in lines]
        if listed:
            parts.append(f"{title}:")
            parts.append("\n".join(listed))

    for comparison in compare(matrix):
        parts.append(heading(comparison.title))
        unit = "nats" if any(map(is_language, comparison.rows)) else "points"
        items(f"State pruning (differences in {unit}, paired by seed)", headline(comparison))
        parts += [table(one) for one in tables(comparison)]
        items("What differs between the resolved configs of the arms", differences(comparison))
        items("Notes", comparison.notes)
    items("Warnings", environment_warnings(matrix.with_status("finished")))
    items("Left out of every average", (f"{run.name}: {run.reason}" for run in left_out(matrix)))
    items("Folders that are not of this matrix", matrix.strangers)
    return "\n\n".join(parts) + "\n"


def counts(matrix: Matrix) -> str:
    """How many runs the matrix has, and what became of them."""
    found = {status: len(matrix.with_status(status)) for status in ("finished", "failed", "unfinished")}
    listed = ", ".join(f"{number} {status}" for status, number in found.items() if number or status == "finished")
    return f"{len(matrix.runs)} runs, {listed}"


def left_out(matrix: Matrix) -> tuple[Run, ...]:
    """The runs that no average holds."""
    return matrix.with_status("failed", "unfinished")


def headline(comparison: Comparison) -> list[str]:
    """One line per state row: test accuracy, and the differences to its dense and magnitude rows."""
    sentences = []
    for row in comparison.rows:
        accuracy = row.summary("final", "test_accuracy")
        if row.config.get("pruning_method") != "state" or row.target == 0.0 or accuracy is None:
            continue
        language = is_language(row)
        against = [
            f"{nats(row, other) + ' nats' if language else difference(row, other)} against {other.label}"
            for other in (row.dense, row.magnitude)
            if other is not None
        ]
        reached = f"perplexity {perplexity(row)}" if language else f"{percent(accuracy)} %"
        told = f"{100 * row.target:g} % sparsity, {row.label}: {reached} on test"
        sentences.append(", ".join([told, *against]))
    return sentences


def differences(comparison: Comparison) -> list[str]:
    """Config fields that differ between arms; who has which value, where the names do not say so."""
    found = config_differences(comparison)
    named = ", ".join(one.field for one in found if one.named)
    unnamed = [_told(one) for one in found if not one.named]
    return ([f"as their names say: {named}"] if named else []) + (unnamed or ["nothing else"])


def _told(difference: Difference) -> str:
    holders: dict[str, list[str]] = {}
    for label, value in difference.values.items():
        if value is not None:
            holders.setdefault(str(value), []).append(label)
    return f"{difference.field}: " + "; ".join(f"{value} ({', '.join(who)})" for value, who in holders.items())
