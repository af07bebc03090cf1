# SPDX-License-Identifier: MIT
"""What a network is judged by: a classifier by its accuracy, a language model by its loss and perplexity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adamwprune.report.comparison import Row, is_language


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measure's names in the stored records and on the axes."""

    #: Heads the table.
    title: str
    #: In ``result.json``: after the last step, on the test split.
    test: str
    test_axis: str
    #: In ``metrics.jsonl``: at every evaluation, on the validation split.
    validation: str
    validation_axis: str
    #: What a run's length is counted in.
    position: Literal["epoch", "step"]
    #: From stored numbers to those on the axes.
    scale: float
    #: Whether more is better.
    rises: bool


ACCURACY = Measure(
    title="Accuracy",
    test="test_accuracy",
    test_axis="test accuracy (%)",
    validation="val_accuracy",
    validation_axis="validation accuracy (%)",
    position="epoch",
    scale=100.0,
    rises=True,
)
PERPLEXITY = Measure(
    title="Perplexity",
    test="test_perplexity",
    test_axis="test perplexity",
    validation="val_loss",
    validation_axis="validation loss (nats per token)",
    position="step",
    scale=1.0,
    rises=False,
)


def measure_of(rows: Iterable[Row]) -> Measure:
    """The measure of a comparison's rows."""
    return PERPLEXITY if any(map(is_language, rows)) else ACCURACY
