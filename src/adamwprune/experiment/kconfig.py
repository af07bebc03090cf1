# SPDX-License-Identifier: MIT
"""Reads a ``.config`` through Kconfig, strictly: a line that would not act is an error with file and line.

Kconfig itself drops what it does not know, what a dependency hides and what has the wrong type. Here each of
these stops, and so does a symbol of the Kconfig files that the program never asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import suggestion

ASSIGNED = re.compile(r"CONFIG_(\w+)=(.*)")
UNSET = re.compile(r"# CONFIG_(\w+) is not set")


class Kconfig:
    """The symbols of a Kconfig tree with the values of one configuration, and the record of which were read."""

    def __init__(self, root: Path) -> None:
        import kconfiglib

        try:
            self._tree = kconfiglib.Kconfig(str(root / "Kconfig"), warn_to_stderr=False)
        except (kconfiglib.KconfigError, OSError) as error:
            raise ExperimentError(f"cannot read {root / 'Kconfig'}: {error}") from None
        self._origins: dict[str, str] = {}
        self._read: set[str] = set()
        self._choices: dict[str, Any] = self._tree.named_choices

    # Writing values in

    def load(self, path: Path) -> None:
        """Takes the values of ``path``; every line has to take effect."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentError(f"cannot read the configuration {path}: {error}") from None
        wanted = dict(self._wanted(path, lines))
        self._tree.load_config(str(path), replace=True)
        self._origins = {name: f"{path}:{number}" for name, (number, _) in wanted.items()}
        for name, (_, value) in wanted.items():
            self._require(name, value, self._origins[name])
        for warning in self._tree.warnings:
            raise ExperimentError(warning)

    def override(self, assignments: Iterable[str]) -> None:
        """Takes ``NAME=VALUE`` words, as in ``make EPOCHS=3``; NAME is a symbol or a choice, without ``CONFIG_``."""
        for word in assignments:
            name, equals, value = word.partition("=")
            name = name.removeprefix("CONFIG_")
            if not equals:
                raise ExperimentError(f"{word!r} is not NAME=VALUE")
            origin = f"{name}={value}"
            if name in self._choices:
                self._choose(name, value, origin)
                continue
            symbol = self._symbol(name, origin)
            self._origins[name] = origin
            if not symbol.set_value(value) or symbol.str_value != value:
                raise ExperimentError(f"{origin} has no effect: {self._why(symbol, value)}")

    # Reading values out

    def text(self, name: str) -> str:
        """The value of a string or integer symbol."""
        self._read.add(name)
        return str(self._tree.syms[name].str_value)

    def flag(self, name: str) -> bool:
        """The value of a bool symbol."""
        return self.text(name) == "y"

    def choice(self, name: str) -> str:
        """The selected member of a choice: ``LR_SCHEDULE_COSINE`` is ``"cosine"``, ``…_RECIPE`` or hidden ``""``."""
        members = self._choices[name].syms
        self._read.update(member.name for member in members)
        selected = self._choices[name].selection
        value = _member_value(name, selected.name) if selected else "recipe"
        return "" if value == "recipe" else value

    def has(self, name: str) -> bool:
        """Whether such a symbol is defined."""
        return name in self._choices or any(symbol.name == name for symbol in self._tree.unique_defined_syms)

    def is_choice(self, name: str) -> bool:
        """Whether ``name`` is a choice."""
        return name in self._choices

    def origin(self, name: str) -> str:
        """Where the value of ``name`` comes from, for an error message."""
        members = [member.name for member in self._choices[name].syms] if name in self._choices else [name]
        for member in members:
            if member in self._origins:
                return self._origins[member]
        return f"the default of CONFIG_{name}"

    def require_all_read(self) -> None:
        """Every symbol that a person can set has to have been asked for."""
        for symbol in self._tree.unique_defined_syms:
            if symbol.name not in self._read and _has_prompt(symbol):
                place = f"{symbol.nodes[0].filename}:{symbol.nodes[0].linenr}"
                raise ExperimentError(f"{place}: no code reads CONFIG_{symbol.name}; remove it, or make it act")

    def write(self, path: Path, *, minimal: bool = False) -> None:
        """Writes the values as a ``.config``, or as a preset that holds only what differs from the defaults."""
        if minimal:
            self._tree.write_min_config(str(path))
        else:
            self._tree.write_config(str(path))

    def names(self) -> list[str]:
        """Everything that can be assigned: symbols, and choices by their own name."""
        return sorted({*(symbol.name for symbol in self._tree.unique_defined_syms), *self._choices})

    # Details

    def _wanted(self, path: Path, lines: list[str]) -> Iterable[tuple[str, tuple[int, str]]]:
        seen: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            place = f"{path}:{number}"
            assigned, unset = ASSIGNED.fullmatch(line), UNSET.fullmatch(line)
            if assigned:
                name, value = assigned[1], assigned[2]
            elif unset:
                name, value = unset[1], "n"
            elif not line.strip() or line.startswith("#"):
                continue
            else:
                raise ExperimentError(f"{place}: {line!r} is not CONFIG_NAME=value, nor a comment")
            if name in seen:
                raise ExperimentError(f"{place}: CONFIG_{name} was already set in line {seen[name]}; keep one of them")
            seen[name] = number
            symbol = self._symbol(name, place)
            yield name, (number, self._plain(symbol, value, place))

    def _plain(self, symbol: Any, value: str, place: str) -> str:
        import kconfiglib

        if symbol.orig_type == kconfiglib.STRING:
            if len(value) < 2 or value[0] != '"' or value[-1] != '"':
                raise ExperimentError(f'{place}: CONFIG_{symbol.name} is text: write CONFIG_{symbol.name}="{value}"')
            return str(kconfiglib.unescape(value[1:-1]))
        if symbol.orig_type == kconfiglib.BOOL and value not in ("y", "n"):
            raise ExperimentError(f"{place}: CONFIG_{symbol.name}={value}: expected y or n")
        return value

    def _symbol(self, name: str, place: str) -> Any:
        symbol = self._tree.syms.get(name)
        if symbol is None or not symbol.nodes:
            raise ExperimentError(f"{place}: there is no CONFIG_{name}; {suggestion(name, self.names())}")
        return symbol

    def _choose(self, name: str, value: str, origin: str) -> None:
        members = {_member_value(name, member.name): member for member in self._choices[name].syms}
        wanted = (value or "recipe").lower()
        if wanted not in members:
            raise ExperimentError(f"{origin}: expected one of {' '.join(members)}")
        if not members[wanted].visibility:
            raise ExperimentError(f"{origin} has no effect: {self._why(members[wanted], 'y')}")
        members[wanted].set_value("y")
        for member in members.values():
            self._origins.pop(member.name, None)
        self._origins[members[wanted].name] = origin

    def _require(self, name: str, value: str, place: str) -> None:
        symbol = self._tree.syms[name]
        if symbol.str_value != value:
            raise ExperimentError(f"{place}: CONFIG_{name}={value} has no effect: {self._why(symbol, value)}")

    def _why(self, symbol: Any, value: str) -> str:
        import kconfiglib

        if symbol.choice is not None and symbol.visibility:
            return f"the choice is {symbol.choice.selection.name}"
        if not symbol.visibility:
            owner = symbol.choice or symbol
            return f"it needs {kconfiglib.expr_str(owner.direct_dep, _describe)}"
        kind = kconfiglib.TYPE_TO_STR[symbol.orig_type]
        return f"its value would be {symbol.str_value!r}, not {value!r}; its type is {kind}"


def _has_prompt(symbol: Any) -> bool:
    return any(node.prompt for node in symbol.nodes)


def _describe(item: Any) -> str:
    """A symbol in a dependency; one without a prompt is described by its help text."""
    if getattr(item, "nodes", None) and not _has_prompt(item):
        return str(item.nodes[0].help).strip()
    return f"CONFIG_{getattr(item, 'name', item)}"


def _member_value(choice: str, member: str) -> str:
    return member.removeprefix(f"{choice}_").lower().replace("_", "-")
