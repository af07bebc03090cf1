# SPDX-License-Identifier: MIT
"""docs/architecture.md against the code: which room imports which, and what it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "adamwprune"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text()


def may_know() -> dict[str, set[str]]:
    """The table of rooms."""
    rows = DOCUMENT.partition("| room | may know |")[2].partition("\n\n")[0].splitlines()[2:]
    names = [[set(re.findall(r"`(\w+)`", cell)) for cell in row.strip("|").split("|")] for row in rows]
    return {room.pop(): known for room, known in names}


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports from, wherever in the module it does."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "adamwprune":
            modules = [f"adamwprune.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        else:
            continue
        rooms |= {module.split(".")[1] for module in modules if module.startswith("adamwprune.")}
    return rooms


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms | {"cli"} == may_know().keys()


@pytest.mark.parametrize("room", may_know())
def test_rooms_know_only_what_they_may(room: str) -> None:
    files = [PACKAGE / "cli.py"] if room == "cli" else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        unknown = imported_rooms(path) - may_know()[room] - {room, "files"}
        assert not unknown, f"{path.relative_to(ROOT)} knows {unknown}"


def test_what_it_names_exists() -> None:
    files = re.findall(r"`(\w+/\w+\.py)`", DOCUMENT)
    assert files
    assert [name for name in files if not (PACKAGE / name).is_file()] == []
    around = DOCUMENT.partition("| path | what it is |")[2].partition("\n\n")[0].splitlines()[2:]
    paths = [name for row in around for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert paths
    assert [name for name in paths if not (ROOT / name).exists()] == []


def test_registries_are_where_it_says() -> None:
    for registry, module in re.findall(r"`([A-Z]+)`, `(\w+/\w+\.py)`", DOCUMENT):
        assert re.search(rf"^{registry}\b", (PACKAGE / module).read_text(), re.MULTILINE), f"{registry} in {module}"
