# SPDX-License-Identifier: MIT
"""Publishes a finished matrix in the documents: no number there is typed.

    .venv/bin/python scripts/publish.py results/digits

copies the report's table and plots, with a record of every run, to docs/results/digits, and writes the tables between

    <!-- results: digits/Accuracy -->
    <!-- /results -->

in README.md and docs/*.md. `tests/docs/test_results.py` compares the documents with what is published.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from adamwprune import report

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "docs" / "results"
BLOCK = re.compile(r"(<!-- results: (\S+)/(.+?) -->\n).*?(<!-- /results -->)", re.DOTALL)
KEPT = (
    "name",
    "run_id",
    "status",
    "final",
    "best",
    "best_any",
    "sparsity",
    "parameters",
    "prunable",
    "kept",
    "seconds",
)


def main() -> None:
    """Publish the matrices that are named."""
    if len(sys.argv) < 2:
        sys.exit("usage: publish.py RESULTS_FOLDER ...")
    for folder in map(Path, sys.argv[1:]):
        publish(folder)
    for page in documents():
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


def publish(folder: Path) -> None:
    """Copy one matrix's report."""
    made = report.build(folder)
    target = PUBLISHED / folder.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(made.table_md, target / "table.md")
    for plot in sorted((folder / "report").glob("*.png")):
        shutil.copy(plot, target / plot.name)
    runs = [record(path.parent) for path in sorted(folder.glob("runs/*/result.json"))]
    (target / "runs.json").write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def record(run: Path) -> dict[str, Any]:
    """What is kept of a run: how it ended, its account, and where it was made."""
    result, config = (json.loads((run / name).read_text()) for name in ("result.json", "config.json"))
    environment = {name: config["environment"][name] for name in ("torch", "python", "commit", "device")}
    account = (result.get("account") or {}).get("bytes")
    return {
        **{name: result.get(name) for name in KEPT},
        "bytes": account,
        "backend": config["identity"]["backend"],
        **environment,
    }


def documents() -> list[Path]:
    """Pages that may hold published tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill(text: str) -> str:
    """The page with its blocks as they are published."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{table(block[2], block[3])}\n\n{block[4]}", text)


def table(name: str, title: str) -> str:
    """One table of a published report."""
    content = (PUBLISHED / name / "table.md").read_text(encoding="utf-8")
    found = re.search(rf"\*\*{re.escape(title)}\*\*\n\n((?:\|.*\n)+)", content)
    if found is None:
        sys.exit(f"docs/results/{name}/table.md has no table {title!r}")
    return found[1].rstrip()


if __name__ == "__main__":
    main()
