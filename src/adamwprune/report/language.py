# SPDX-License-Identifier: MIT
"""What a language model is compared by: perplexity, and differences of the loss in nats."""

from __future__ import annotations

from adamwprune.report.comparison import Row, is_language

NOTHING = "–"


def perplexity(row: Row, phase: str = "final", name: str = "test_perplexity") -> str:
    """Mean and deviation of a perplexity; nothing for what is no language model."""
    summary = row.summary(phase, name)
    if summary is None:
        return NOTHING
    return f"{summary.mean:.3f}" + ("" if summary.sd is None else f" ± {summary.sd:.3f}")


def nats(row: Row, other: Row | None) -> str:
    """The paired difference of the test loss; nothing for what is no language model."""
    summary = row.difference(other, name="test_loss") if is_language(row) else None
    if summary is None:
        return NOTHING
    mean = f"{summary.mean:+.4f}".replace("-", "−")
    return mean + ("" if summary.sd is None else f" ± {summary.sd:.4f}")
