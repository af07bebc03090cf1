# SPDX-License-Identifier: MIT
"""The tables of the documents, each made from the JSON files of its benchmark and from nothing else.

    python benchmarks/tables.py [NAME ...]

prints them. A table is a function that yields its header and its rows of cells, and a line in `TABLES`; the documents
hold it between `<!-- benchmark: NAME -->` and `<!-- /benchmark -->` (`scripts/publish_benchmarks.py`).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import record

Content = dict[str, Any]

#: Header, rows of cells, and the files that they were made from.
Table = tuple[list[str], list[list[str]], list[Content]]

MIB = 2**20

#: What a column of step times is headed by.
_MODELS = {"resnet50": "ResNet-50", "gpt2": "GPT-2"}

#: What a column of losses is headed by.
_TASKS = {"gpt": "small GPT, sources", "lenet5": "LeNet-5, digits"}


def ratio(row: dict[str, Any]) -> str:
    """A median with its quartiles."""
    low, high = row["quartiles"]
    return f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def column(model: str, threads: int) -> str:
    """Where something was timed."""
    return f"{_MODELS[model]}, {threads} thread{'s' * (threads > 1)}"


def step_times(group: str, only: Collection[str] = ()) -> Table:
    """Candidates down, networks and thread counts across; of all candidates, or of some."""
    files = {model: found for model in _MODELS if (found := there(f"optimizer_step-{model}-{group}"))}
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for model, content in files.items():
        for row in content["rows"]:
            if only and row["candidate"] not in only:
                continue
            place = column(model, row["threads"])
            columns[place] = None
            cells.setdefault(row["candidate"], {})[place] = ratio(row)
    body = [[name, *(found.get(place, "–") for place in columns)] for name, found in cells.items()]
    return ["", *columns], body, list(files.values())


def training_steps() -> Table:
    """Forward, backward and step of linear layers, and what pruning adds to them."""
    files = {model: found for model in _MODELS if (found := there(f"backward_step-{model}"))}
    header, body = [""], {}
    for model, content in files.items():
        for threads in sorted({row["threads"] for row in content["rows"]}):
            header += [column(model, threads), "more, in fused steps"]
            for row in content["rows"]:
                if row["threads"] == threads:
                    body.setdefault(row["candidate"], [row["candidate"]])
                    body[row["candidate"]] += [ratio(row), f"{row['extra_steps']:+.2f}".replace("-", "−")]
    return header, list(body.values()), list(files.values())


def mask_updates() -> Table:
    """The first update, and the others, in fused steps; and what they need for a moment."""
    files = {model: found for model in _MODELS if (found := there(f"mask_update-{model}"))}
    body = []
    for model, content in files.items():
        for threads in sorted({row["threads"] for row in content["rows"]}):
            rows = [row for row in content["rows"] if row["threads"] == threads]
            others = [row["fused_steps"] for row in rows[1:]]
            body.append(
                [
                    column(model, threads),
                    f"{rows[0]['fused_steps']:.1f}",
                    f"{statistics.median(others):.1f}",
                    f"{max(others):.1f}",
                    f"{max(row['first_round_fused_steps'] for row in rows):.1f}",
                    f"{max(row['transient_bytes'] for row in rows) / MIB:.0f}",
                    f"{content['settings']['largest_tensor_bytes'] / MIB:.0f}",
                ]
            )
    header = ["", "first update", "others, median", "others, slowest", "slowest on untouched memory"]
    header += ["transient MiB, at most", "largest tensor MiB"]
    return header, body, list(files.values())


def thresholds() -> Table:
    """Ways to find a threshold."""
    content = there("threshold")
    rows = content["rows"] if content else []
    body = [[row["way"], f"{row['seconds']:.2f}", f"{row['extra_bytes'] / MIB:.0f}"] for row in rows]
    return ["", "seconds", "extra MiB"], body, [content] if content else []


def memory(scope: str, only: Collection[str] = ()) -> Table:
    """Bytes a weight by the account and by the process, and multiples of float32 weights; of all rows, or of some."""
    content = there(f"memory-{scope}")
    body = []
    for row in content["rows"] if content else []:
        if only and row["candidate"] not in only:
            continue
        weights = content["settings"]["weights"]
        held = row["account"]
        kept = held["weights"] + held["state"] + held["mask"]
        cells = [
            (held["state"] + held["mask"]) / weights,
            kept / weights / 4,
            (kept + held["gradients"]) / weights,
            row["process_steady"] / weights,
            row["process_peak"] / weights,
        ]
        body.append([row["candidate"], *(f"{cell:.2f}" for cell in cells)])
        body[-1][2] += "×"
    header = [
        "",
        "state + mask, B/weight",
        "weights + state + mask, in float32 weights",
        "with gradients, B/weight",
        "process, steady, B/weight",
        "process, peak, B/weight",
    ]
    return header, body, [content] if content else []


def head_room() -> Table:
    """The largest batch within a budget."""
    content = there("head_room")
    body = []
    for row in content["rows"] if content else []:
        gain = row["after"] / content["settings"]["batch"] - 1
        body.append([row["candidate"], str(row["before"]), str(row["after"]), f"{gain:+.0%}".replace("-", "−")])
    header = ["", "batch before the ramp", "batch after the ramp", "gain on torch AdamW"]
    return header, body, [content] if content else []


def convergence() -> Table:
    """Mean final loss, its deviation over seeds, and the difference to float32 state, seed by seed."""
    files = {name: found for name in _TASKS if (found := there(f"state_convergence-{name}"))}
    header, body = [""], {}
    for name, content in files.items():
        losses: dict[tuple[float, str], dict[int, float]] = {}
        for row in content["rows"]:
            losses.setdefault((row["sparsity"], row["form"]), {})[row["seed"]] = row["loss"]
        header += [f"{_TASKS[name]}, loss", "− float32 state"]
        for (sparsity, form), by_seed in losses.items():
            label = f"{form}, {f'{sparsity:.0%}' if sparsity else 'dense'}"
            plain = losses[sparsity, "float32 state"]
            gaps = [by_seed[seed] - plain[seed] for seed in by_seed]
            body.setdefault(label, [label])
            body[label] += [spread(list(by_seed.values())), "–" if plain is by_seed else spread(gaps, "+")]
    return header, list(body.values()), list(files.values())


def spread(values: list[float], sign: str = "") -> str:
    """Mean ± sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.4f}".replace("-", "−") + deviation


def data_path() -> Table:
    """Rates of both, and the ratio of their times."""
    content = there("data_path")
    body = [
        [
            row["what"],
            row["other"],
            f"{1e3 * row['items'] / row['unit_ms']:,.0f}",
            f"{1e3 * row['items'] / row['ms']:,.0f}",
            ratio(row),
        ]
        for row in (content["rows"] if content else [])
    ]
    header = ["one thread", "the other", "theirs, a second", "ours, a second", "time, ours / theirs"]
    return header, body, [content] if content else []


def throughput() -> Table:
    """Rates of both loops, and the ratio of their times."""
    content = there("throughput")
    body = [
        [
            row["model"],
            f"{row['batch']}, {row['precision']}",
            row["other"],
            f"{1e3 * row['items'] / row['unit_ms']:,.0f} {row['unit']}",
            f"{1e3 * row['items'] / row['ms']:,.0f} {row['unit']}",
            ratio(row),
        ]
        for row in (content["rows"] if content else [])
    ]
    header = ["one thread", "batch", "the other", "theirs, a second", "ours, a second", "time, ours / theirs"]
    return header, body, [content] if content else []


def ddp_bytes() -> Table:
    """What a rank hands to the collectives, and what the ranks send."""
    content = there("ddp_bytes")
    body = []
    for row in content["rows"] if content else []:
        messages, wire = row["messages"], row["wire_bytes"]
        body.append(
            [
                row["what"],
                f"{row['sparsity']:.0%}",
                "–" if messages is None else f"{messages:.0f}",
                f"{row['handed_bytes'] / 1024:.1f}",
                "–" if wire is None else f"{wire / 1024:.1f}",
                f"{row['handed_bytes'] / row['weights']:.4f}",
            ]
        )
    header = ["", "sparsity", "messages", "KiB a rank hands over", "KiB on the wire, both ranks", "B/weight"]
    return header, body, [content] if content else []


#: What the README shows of the long tables.
_HEADLINES = {
    "speed": partial(
        step_times,
        "pruned",
        ("torch AdamW, foreach", "AdamWPrune, prune=None", "AdamWPrune, 50%", "AdamWPrune, 70%", "AdamWPrune, 90%"),
    ),
    "memory": partial(
        memory,
        "prunable",
        ("torch AdamW", "AdamWPrune, 50%", "AdamWPrune, 90%", "8-bit state, 50%", "8-bit state, 90%"),
    ),
}

#: Name of a table, and what makes it.
TABLES: dict[str, Callable[[], Table]] = {
    **{
        f"optimizer_step/{group}": partial(step_times, group)
        for group in ("pruned", "masked", "clipped", "whole", "small", "channels_last", "others", "torchao")
    },
    "backward_step": training_steps,
    "mask_update": mask_updates,
    "threshold": thresholds,
    **{f"memory/{scope}": partial(memory, scope) for scope in ("prunable", "whole")},
    "head_room": head_room,
    "state_convergence": convergence,
    "data_path": data_path,
    "throughput": throughput,
    "ddp_bytes": ddp_bytes,
    **{f"headline/{name}": make for name, make in _HEADLINES.items()},
}


def render(name: str) -> str:
    """A table as markdown, with a line that says where it was measured; the command where it was not.

    Raises:
        ValueError: there is no such table.
    """
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}: expected one of {', '.join(TABLES)}")
    header, body, sources = TABLES[name]()
    if not sources:
        return f"*Not run here: `{_command(name)}`.*"
    lines = [header, [":---", *["---:"] * (len(header) - 1)], *body]
    table = "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
    return f"{table}\n\n{measured_on(sources)}"


def _command(name: str) -> str:
    """What measures a table."""
    benchmark, _, part = name.partition("/")
    option = {"optimizer_step": "--group", "memory": "--scope"}.get(benchmark)
    return (
        "make benchmarks"
        if benchmark == "headline"
        else f"python benchmarks/{benchmark}.py" + (f" {option} {part}" if option else "")
    )


def measured_on(sources: Iterable[Content]) -> str:
    """Machine, versions and commit of some files."""
    places = {}
    for source in sources:
        machine = source["machine"]
        kernel = source["backend"] + (f", {source['instruction_set']}" if source["backend"] == "native" else "")
        places[
            f"{machine['processor']}, {machine['cores']} cores; torch {source['torch']}; {kernel}; "
            f"commit {source['commit']}"
        ] = None
    return f"*Measured on: {' / '.join(places)}.*"


def there(name: str) -> Content | None:
    """A benchmark's file; None where it was not run."""
    return record.read(name) if (record.RESULTS / f"{name}.json").is_file() else None


if __name__ == "__main__":
    for wanted in sys.argv[1:] or TABLES:
        print(f"\n{wanted}\n\n{render(wanted)}")
