# SPDX-License-Identifier: MIT
"""The documents: their code is code, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
RUNNABLE = "# runnable"

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path: Path, *languages: str) -> list[str]:
    """Fenced code blocks of these languages."""
    fences = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in fences if language in languages]


def prose(path: Path) -> str:
    """The text without its fenced code blocks and comments."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The names GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_document
def test_python_blocks_compile_and_the_marked_ones_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(blocks(path, "python", "py")):
        compiled = compile(code, f"{path.name}[{number}]", "exec")
        if code.startswith(RUNNABLE):
            exec(compiled, {"__name__": "__main__"})


def test_the_swap_of_the_readme_is_run() -> None:
    assert any(code.startswith(RUNNABLE) and "AdamWPrune(" in code for code in blocks(ROOT / "README.md", "python"))


@each_document
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    text = prose(path)
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), f"{path.name}: {link} does not exist"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link} has no such heading"


@each_document
def test_no_absolute_paths(path: Path) -> None:
    found = re.findall(r"(?<![\w.:/~$}<])/(?:home|work|root|tmp|usr|mnt|data|Users)\b[^\s`)]*", path.read_text())
    assert found == []


def make_targets() -> set[str]:
    """Targets of the Makefile; a pattern target keeps its percent sign."""
    text = "\n".join(path.read_text() for path in (ROOT / "Makefile", *ROOT.glob("*.mk")))
    rules = re.findall(r"^([A-Za-z0-9_.%\- ]+?)\s*:(?![:=])", text, re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


@each_document
def test_make_targets_exist(path: Path) -> None:
    code = "\n".join(blocks(path, "", "sh", "bash", "console"))
    spans = re.findall(r"`([^`\n]+)`", prose(path))
    calls = re.findall(r"^(?:\$ )?make +([a-z][\w\-]*)", "\n".join([code, *spans]), re.MULTILINE)
    targets = make_targets()
    for call in calls:
        if call.endswith("-NAME"):
            call = call.replace("-NAME", "-%")
        patterns = {target.split("%")[0] for target in targets if "%" in target}
        known = call in targets or any(call.startswith(prefix) for prefix in patterns if prefix)
        assert known, f"{path.name}: make {call} is not a target"
        if call.startswith("defconfig-") and not call.endswith("%"):
            assert (ROOT / "defconfigs" / call.removeprefix("defconfig-")).is_file(), f"{path.name}: no preset {call}"


def test_source_files_name_their_licence() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for folder in ("src", "tests", "scripts", "benchmarks", "examples", "lenet5")
        for path in (ROOT / folder).rglob("*.py")
        if "SPDX-License-Identifier: MIT" not in path.read_text().partition("\n\n")[0]
    ]
    assert missing == []
