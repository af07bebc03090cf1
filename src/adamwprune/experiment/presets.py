# SPDX-License-Identifier: MIT
"""Where the Kconfig files and presets are, and what a matrix's folder is called."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from adamwprune.experiment import settings as settings_module
from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import common_fields, suggestion
from adamwprune.experiment.settings import Settings

DEFAULT = "digits"
SPELLED_OUT = 3
"""So many changed settings are named in a folder's name; more become a short hash."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A file under ``defconfigs/``."""

    name: str
    path: Path
    summary: str


def project_root() -> Path:
    """The folder with the Kconfig files: the current one, or the checkout this package runs from."""
    for root in (Path(), Path(__file__).resolve().parents[3]):
        if (root / "Kconfig").is_file() and (root / "defconfigs").is_dir():
            return root
    raise ExperimentError(
        "there are no Kconfig files here: run this in the project's folder, or describe the runs with --arm"
    )


def presets(root: Path) -> list[Preset]:
    """Every preset; the first line of its file is its summary."""
    found = []
    for path in sorted((root / "defconfigs").iterdir()):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found.append(Preset(name=path.name, path=path, summary=first.lstrip("# ").strip()))
    return found


def preset(root: Path, name: str) -> Preset:
    """The preset of that name; an unknown one is an error that lists the others."""
    for candidate in presets(root):
        if candidate.name == name:
            return candidate
    raise ExperimentError(f"there is no preset {name!r}; {suggestion(name, [p.name for p in presets(root)])}")


def folder_name(root: Path, settings: Settings) -> str:
    """The experiment's name, followed by what the settings change against the preset of that name.

    Runs of other lengths or learning rates must not mix in one table, so ``make EPOCHS=3`` gets a folder of its
    own. More seeds, sparsities or arms are the same experiment grown larger and share its folder.
    """
    base = next((p for p in presets(root) if p.name == settings.experiment), None)
    if base is None:
        return settings.experiment
    usual = settings_module.load(root, base.path).common
    here, there = settings.common.science(), usual.science()
    changes = {name: here[name] for name in common_fields() if name in here and here[name] != there[name]}
    words = [f"{name.replace('_', '-')}-{_word(value)}" for name, value in changes.items()]
    if len(words) > SPELLED_OUT:
        words = [hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]]
    return "-".join([settings.experiment, *words])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = "recipe" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]", "_", text)
