# SPDX-License-Identifier: MIT
"""Writes the benchmarks' tables into the documents: no number there is typed.

    .venv/bin/python scripts/publish_benchmarks.py

fills the lines between

    <!-- benchmark: optimizer_step/pruned -->
    <!-- /benchmark -->

in README.md and docs/*.md with the tables that `benchmarks/tables.py` makes of results/benchmarks/*.json.
`tests/benchmarks/test_published.py` compares the documents with those files.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402  (a folder of scripts, not a package)

BLOCK = re.compile(r"(<!-- benchmark: (\S+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def main() -> None:
    """Fill every page."""
    for page in documents():
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


def documents() -> list[Path]:
    """Pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill(text: str) -> str:
    """The page with its blocks as they were measured."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{tables.render(block[2])}\n\n{block[3]}", text)


if __name__ == "__main__":
    main()
