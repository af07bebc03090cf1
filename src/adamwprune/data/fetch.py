# SPDX-License-Identifier: MIT
"""Download of a data set's files: resumed where it stopped, verified, moved into place in one step."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from adamwprune.data import accepted, files
from adamwprune.data.dataset import DataError, DataFile, DatasetInfo, SourceInfo
from adamwprune.data.registry import find

#: Called with a file's path, the bytes that are there, and the bytes expected.
OnProgress = Callable[[str, int, int], None]

CHUNK = 1 << 18
TIMEOUT = 30.0


def verify(name: str, data_dir: str | Path) -> dict[str, str]:
    """What is wrong with each file of a data set, by path; empty when all are there and have their checksums."""
    info = find(name)
    return (info.check_bytes or files.problems)(info, Path(data_dir))


def accept(name: str, data_dir: str | Path) -> list[str]:
    """Take the files of a data set as they are from now on; the parts that differ from the canonical ones."""
    info = find(name)
    if not isinstance(info, DatasetInfo) or info.digests is None:
        raise DataError(f"data set {name!r} is used in its canonical form only: run `adamwprune data fetch {name}`")
    different = info.digests(info, Path(data_dir))
    accepted.write(name, Path(data_dir), different)
    return list(different)


def ensure(name: str, data_dir: str | Path, progress: OnProgress | None = None) -> None:
    """Download the files of a data set that are missing or corrupt; DataError when a file cannot be had."""
    ensure_files(find(name), Path(data_dir), progress)


def ensure_files(info: SourceInfo, data_dir: Path, progress: OnProgress | None = None) -> None:
    """As :func:`ensure`, for a data set that need not be registered."""
    reasons: list[str] = []
    problems = files.problems(info, data_dir)
    for file in info.files:
        if file.path not in problems:
            continue
        target = data_dir / file.path
        try:
            failed = _download(file, target, progress or (lambda path, done, total: None))
            # What is there, and why it does not do, comes first: perhaps it need not be fetched at all.
            reasons += [problems[file.path], *failed] if failed else []
        except OSError as error:
            reasons.append(f"{target} cannot be written: {error}")
    if reasons:
        raise DataError(files.explain(info, data_dir, reasons))
    if beyond := problems.keys() - {file.path for file in info.files}:
        raise DataError("\n".join(problems[path] for path in sorted(beyond)))


def _download(file: DataFile, target: Path, progress: OnProgress) -> list[str]:
    """Try every mirror; the reasons why none worked, empty when one did."""
    partial = target.with_name(target.name + ".part")
    reasons = []
    for url in file.urls:
        for _ in range(2):  # once more from the start, where what was resumed turns out to be corrupt
            resumed = partial.is_file()
            try:
                _transfer(url, partial, file, progress)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reasons.append(f"{url}: {error}")
                break
            found = hashlib.sha256(partial.read_bytes()).hexdigest()
            if found == file.sha256:
                os.replace(partial, target)
                return []
            partial.unlink()
            reasons.append(f"{url}: got sha256 {found}, expected {file.sha256}")
            if not resumed:
                break
    return reasons


def _transfer(url: str, partial: Path, file: DataFile, progress: OnProgress) -> None:
    """Append what ``partial`` lacks; what is there is kept, so that an interrupted transfer goes on."""
    done = partial.stat().st_size if partial.is_file() else 0
    if done >= file.size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "adamwprune"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server sends the whole file
        partial.parent.mkdir(parents=True, exist_ok=True)  # only once there is something to write
        with open(partial, "ab" if done else "wb") as output:
            while done < file.size and (chunk := response.read(min(CHUNK, file.size - done))):
                output.write(chunk)
                done += len(chunk)
                progress(file.path, done, file.size)
            output.flush()
            os.fsync(output.fileno())
    if done < file.size:
        raise ConnectionError(f"the server closed the connection after {done} of {file.size} bytes")
