# SPDX-License-Identifier: MIT
"""Runs grouped into rows, and every row beside the rows it has to be compared with.

An *arm* is everything but the seed and the target sparsity; a *row* is one arm at one target, over its seeds.
Only finished runs get into a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from adamwprune.report.aggregate import Summary, median, paired_differences, summarise
from adamwprune.report.arms import (
    BESIDE_ARM,
    NAMED_FIELDS,
    PLACE_FIELDS,
    PRUNING_FIELDS,
    VARIANT_FIELDS,
    differing,
    label,
    stepping,
)
from adamwprune.report.read import Matrix, Run

MIN_SEEDS = 3

# A small dense network stands beside a sparse row if their numbers of weights differ by no more than this share.
AS_MANY = 0.25

Kind = Literal["dense", "magnitude", "sparse", "small dense"]
KIND_ORDER: tuple[Kind, ...] = ("dense", "magnitude", "sparse", "small dense")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the comparison: the finished runs of an arm at a target sparsity, one per seed."""

    label: str
    kind: Kind
    target: float
    block: float
    runs: tuple[Run, ...]
    dense: Row | None = None
    magnitude: Row | None = None
    small: Row | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved config of the row; seeds and places differ inside it, nothing else."""
        return self.runs[0].config

    @property
    def n(self) -> int:
        """How many seeds finished."""
        return len(self.runs)

    def by_seed(self, phase: str, name: str) -> dict[int, float]:
        """A measured number per seed, of the runs that have it."""
        values = ((run.seed, run.measured(phase, name)) for run in self.runs)
        return {seed: value for seed, value in values if value is not None}

    def summary(self, phase: str, name: str) -> Summary | None:
        """A measured number over the seeds."""
        return summarise(self.by_seed(phase, name).values())

    def difference(self, other: Row | None, phase: str = "final", name: str = "test_accuracy") -> Summary | None:
        """This row minus the other, paired by seed."""
        if other is None:
            return None
        return paired_differences(self.by_seed(phase, name), other.by_seed(phase, name))

    def over_runs(self, value: Callable[[Run], float | None]) -> list[float]:
        """A number per run, of the runs that have it."""
        return [number for number in map(value, self.runs) if number is not None]

    @property
    def live_weights(self) -> float | None:
        """Weights of the whole network that are not masked."""
        return median(self.over_runs(_live_weights))


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All rows of one model on one data set, blocks of equal target sparsity together, dense rows first."""

    model: str
    data: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What is compared, in words."""
        return f"{self.model} on {self.data}"

    @property
    def targets(self) -> tuple[float, ...]:
        """The target sparsities, ascending."""
        return tuple(sorted({row.target for row in self.rows if row.target > 0}))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of all rows."""
        return tuple(run for row in self.rows for run in row.runs)


def compare(matrix: Matrix) -> list[Comparison]:
    """One comparison per model and data set of the matrix, in its order."""
    settings: dict[tuple[str, str], list[Run]] = {}
    for run in matrix.with_status("finished"):
        settings.setdefault((str(run.config.get("model")), str(run.config.get("data"))), []).append(run)
    return [_compare_setting(model, data, runs) for (model, data), runs in settings.items()]


def _compare_setting(model: str, data: str, runs: list[Run]) -> Comparison:
    rows, notes = _group(runs)
    rows = _place_small(_told_apart(rows))
    rows = [_with_references(row, rows) for row in rows]
    rows.sort(key=lambda row: (row.block, KIND_ORDER.index(row.kind)))
    return Comparison(model=model, data=data, rows=tuple(rows), notes=(*notes, *_notes(rows)))


def _group(runs: Iterable[Run]) -> tuple[list[Row], list[str]]:
    groups: dict[tuple[object, ...], dict[int, Run]] = {}
    notes = []
    for run in runs:
        seeds = groups.setdefault(_row_key(run), {})
        if run.seed in seeds:
            notes.append(f"{run.folder} repeats seed {run.seed} of {seeds[run.seed].folder}; only the first counts")
        else:
            seeds[run.seed] = run
    return [_row(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()], notes


def _row(runs: tuple[Run, ...]) -> Row:
    config, target = runs[0].config, runs[0].target
    kind: Kind = "sparse"
    if target == 0.0:
        kind = "dense" if config.get("width", 1.0) >= 1.0 else "small dense"
    elif config.get("pruning_method") == "magnitude":
        kind = "magnitude"
    return Row(label=label(config, target), kind=kind, target=target, block=target, runs=runs)


def _row_key(run: Run) -> tuple[object, ...]:
    ignored = BESIDE_ARM | (PRUNING_FIELDS if run.target == 0.0 else frozenset())
    if run.config.get("optimizer") != "adamwprune":
        ignored |= {"base"}
    return (run.target, *sorted((name, repr(value)) for name, value in run.config.items() if name not in ignored))


def _told_apart(rows: list[Row]) -> list[Row]:
    """Rows whose names collide get the fields that tell them apart added."""
    named = Counter((row.label, row.target) for row in rows)
    ambiguous = {label for (label, _), number in named.items() if number > 1}
    told = []
    for row in rows:
        if row.label in ambiguous:
            fields = differing((other.config for other in rows if other.label == row.label), BESIDE_ARM)
            added = ", ".join(f"{name}={row.config.get(name)}" for name in fields)
            row = replace(row, label=f"{row.label} [{added}]")
        told.append(row)
    return told


def _place_small(rows: list[Row]) -> list[Row]:
    """Small dense rows move to the block of the target that keeps as many weights as they have."""
    sparse = {row.target: row.live_weights for row in rows if row.kind in ("magnitude", "sparse")}

    def placed(row: Row) -> Row:
        weights = row.live_weights
        off = {target: abs(weights / live - 1.0) for target, live in sparse.items() if weights is not None and live}
        nearest = min(off, key=lambda target: off[target], default=None)
        if row.kind != "small dense" or nearest is None or off[nearest] > AS_MANY:
            return row
        return replace(row, block=nearest)

    return [placed(row) for row in rows]


def _with_references(row: Row, rows: list[Row]) -> Row:
    dense = magnitude = small = None
    if row.kind == "small dense":
        dense = _nearest(row, [other for other in rows if other.kind == "dense"], own_only=True)
    elif row.kind != "dense":
        width = row.config.get("width")
        unpruned = [other for other in rows if other.target == 0.0 and other.config.get("width") == width]
        dense = _nearest(row, unpruned, own_only=True)
    if row.kind == "sparse":
        magnitude = _nearest(row, [o for o in rows if o.kind == "magnitude" and o.target == row.target])
    if row.kind in ("magnitude", "sparse"):
        small = _nearest(row, [o for o in rows if o.kind == "small dense" and o.block == row.block])
    return replace(row, dense=dense, magnitude=magnitude, small=small)


def _nearest(row: Row, candidates: list[Row], *, own_only: bool = False) -> Row | None:
    """The candidate with the same stepping optimizer and the most alike recipe; the better one on validation of two.

    Without one of the same optimizer the best of the others stands in, unless ``own_only``.
    """
    own = [other for other in candidates if stepping(other.config) == stepping(row.config)]
    if not own and own_only:
        return None

    def preference(other: Row) -> tuple[int, bool, float]:
        ignored = PLACE_FIELDS | NAMED_FIELDS | {"seed"}
        ignored |= PRUNING_FIELDS if other.target == 0.0 else VARIANT_FIELDS
        foreign = other.target == 0.0 and other.config.get("optimizer") != row.config.get("optimizer")
        recipe = len(differing((row.config, other.config), ignored))
        return recipe, foreign, _badness(other)

    return min(own or candidates, key=preference, default=None)


def is_language(row: Row) -> bool:
    """Whether the row's network is a language model, judged by its loss and not by its accuracy."""
    return row.summary("final", "val_perplexity") is not None


def _badness(row: Row) -> float:
    """Orders rows by validation: the better one is less."""
    loss, accuracy = (row.summary("final", name) for name in ("val_loss", "val_accuracy"))
    if is_language(row):
        return loss.mean if loss else 0.0
    return -accuracy.mean if accuracy else 0.0


def _notes(rows: list[Row]) -> list[str]:
    notes = []
    if few := [row.label for row in rows if row.n < MIN_SEEDS]:
        notes.append(f"! marks fewer than {MIN_SEEDS} seeds ({len(few)} of {len(rows)} rows)")
    sparse = [row for row in rows if row.kind in ("magnitude", "sparse")]
    for name in dict.fromkeys(row.label for row in sparse if row.dense is None):
        notes.append(f"{name}: no dense row of its optimizer, so no difference to one")
    for row in sparse:
        if row.kind == "sparse" and row.magnitude is None:
            notes.append(f"{row.label} at {row.target:.0%}: no magnitude row at this sparsity")
    borrowed = {row.label: row.magnitude.label for row in sparse if row.magnitude and not _same_step(row)}
    notes += [f"{name}: no magnitude row of its optimizer; compared with {other}" for name, other in borrowed.items()]
    if sparse and not any(row.kind == "small dense" for row in rows):
        notes.append("no small dense row (width below 1): nothing here says that a smaller network would do worse")
    return notes


def _same_step(row: Row) -> bool:
    return row.magnitude is not None and stepping(row.magnitude.config) == stepping(row.config)


def _live_weights(run: Run) -> float | None:
    parameters, prunable, kept = (run.result.get(name) for name in ("parameters", "prunable", "kept"))
    if parameters is None:
        return None
    if prunable is None or kept is None:
        return float(parameters)
    return float(parameters) - float(prunable) + float(kept)
