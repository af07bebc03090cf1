# SPDX-License-Identifier: MIT
"""Going on with a run in another way than it began: on another number of ranks, or with weights spread otherwise.

Checkpoints hold whole tensors, so that any number of ranks can read them; but the numbers that come of it are those of
neither way alone. It is a run of its own, in a directory of its own, that says in its config where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from adamwprune.training import checkpoint, outcome
from adamwprune.training.directory import RunDirectory
from adamwprune.training.errors import ConfigError, DirectoryError
from adamwprune.training.identity import USUAL, WAYS, differences, origin


def check_same(path: str, ours: dict[str, Any]) -> list[str]:
    """Refuse to go on with the run in the directory ``path``; ``ours`` is the identity of the run that would.

    Returns:
        In what the two ways differ, in words.

    Raises:
        ConfigError: it is not the same run computed in another way.
    """
    theirs = _opened(path).stored_config()["identity"]
    before, now = ({**USUAL, **identity["config"], "resume_from": None} for identity in (theirs, ours))
    refuse = f"resume_from={path!r}: "
    differing = differences(before, now)
    if foreign := [words for name, words in differing.items() if name not in WAYS]:
        raise ConfigError(f"{refuse}{', '.join(foreign)}; only {', '.join(WAYS)} may differ")
    if any(ours[name] != theirs.get(name) for name in ours if name != "config"):
        raise ConfigError(
            f"{refuse}its data, device, kernels or component versions differ; train anew, or from its weights with init"
        )
    if not differing:
        raise ConfigError(f"{refuse}it began in the same way, on as many ranks: leave resume_from out to go on with it")
    return [*differing.values()]


def check(path: str, ours: dict[str, Any]) -> list[str]:
    """The same, before it begins: now the other run must not have ended, and have a checkpoint."""
    differing = check_same(path, ours)
    source = _opened(path)
    if source.stored_result() is not None:
        raise ConfigError(
            f"resume_from={path!r}: that run has ended; its weights serve as init={str(source.best('best'))!r}"
        )
    if not source.last.is_file():
        raise ConfigError(
            f"resume_from={path!r}: it has no checkpoint yet ({source.last} is missing); leave resume_from out"
        )
    return differing


def begun_otherwise(directories: Iterable[Path], ours: dict[str, Any]) -> Iterator[tuple[Path, list[str]]]:
    """Those of the ``directories`` whose runs `check` lets this one go on with, and in what the ways differ."""
    for directory in directories:
        with suppress(ConfigError, DirectoryError):
            yield directory, check(str(directory), ours)


def take(folder: RunDirectory, path: str) -> None:
    """Begin in ``folder`` with what the run in the directory ``path`` has come to. Called on all ranks; one writes.

    The last checkpoint comes last: until it is there, nothing was taken over.
    """
    source = _opened(path)
    if not folder.writes:
        return
    for mine, theirs in ((folder.metrics, source.metrics), (folder.memory, source.memory)):
        mine.write_bytes(theirs.read_bytes())
    files = [(folder.best(kind), source.best(kind)) for kind in outcome.BEST]
    for mine, theirs in (*files, (folder.last, source.last)):
        if theirs.is_file():
            content = checkpoint.load(theirs, source.run_id)
            folder.save(mine, {name: value for name, value in content.items() if name not in ("schema", "run_id")})
    folder.log(f"goes on with run {source.run_id}, {source.path}")


def _opened(path: str) -> RunDirectory:
    return RunDirectory(Path(path), origin(path))
