# SPDX-License-Identifier: MIT
"""Carries a data folder to another machine in parcels of bounded size.

    python benchmarks/gpu/parcels.py pack FOLDER PARCELS [--mib 52]
    python benchmarks/gpu/parcels.py unpack PARCELS FOLDER

The files are cut where a parcel is full: each parcel is one piece of all the bytes in order. `contents.json`, which
belongs to every parcel, names files, sizes and checksums. Needs Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

CONTENTS = "contents.json"
CHUNK = 1 << 20


def pack(folder: Path, parcels: Path, limit: int) -> list[Path]:
    """Cut the files of a folder into parcels of at most ``limit`` bytes; returns their paths."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise SystemExit(f"{folder} holds no files")
    parcels.mkdir(parents=True, exist_ok=True)
    listed, paths = [], []
    piece = b""
    for path in files:
        digest = hashlib.sha256()
        for chunk in _chunks(path):
            digest.update(chunk)
            while chunk:
                room = limit - len(piece)
                piece, chunk = piece + chunk[:room], chunk[room:]
                if len(piece) == limit:
                    paths.append(_write(parcels, len(paths), piece))
                    piece = b""
        name, size = str(path.relative_to(folder)), path.stat().st_size
        listed.append({"path": name, "size": size, "sha256": digest.hexdigest()})
    if piece:
        paths.append(_write(parcels, len(paths), piece))
    (parcels / CONTENTS).write_text(json.dumps({"parcels": len(paths), "files": listed}, indent=1))
    return paths


def unpack(parcels: Path, folder: Path) -> list[Path]:
    """Put the files together again; SystemExit where a parcel is missing, or a file is not what it was."""
    contents = json.loads((parcels / CONTENTS).read_text())
    paths = [parcels / _name(number) for number in range(contents["parcels"])]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise SystemExit(f"{parcels} lacks {', '.join(missing)} of {len(paths)} parcels: bring them, then unpack again")
    stream = (chunk for path in paths for chunk in _chunks(path))
    rest, written = b"", []
    for entry in contents["files"]:
        path, left, digest = folder / entry["path"], entry["size"], hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            while left:
                rest = rest or next(stream, b"")
                part, rest = rest[:left], rest[left:]
                if not part:
                    raise SystemExit(f"{parcels} ends within {entry['path']}: pack it again")
                file.write(part)
                digest.update(part)
                left -= len(part)
        if digest.hexdigest() != entry["sha256"]:
            raise SystemExit(f"{path} has another checksum than when it was packed: pack it again")
        written.append(path)
    return written


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _name(number: int) -> str:
    return f"parcel-{number:03}"


def _write(parcels: Path, number: int, piece: bytes) -> Path:
    path = parcels / _name(number)
    path.write_bytes(piece)
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="cut a folder into parcels")
    packing.add_argument("source", type=Path)
    packing.add_argument("target", type=Path)
    packing.add_argument("--mib", type=int, default=52, help="size of a parcel")
    unpacking = commands.add_parser("unpack", help="put a folder together again")
    unpacking.add_argument("source", type=Path)
    unpacking.add_argument("target", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "pack":
        for path in pack(chosen.source, chosen.target, chosen.mib << 20):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    else:
        print(f"{len(unpack(chosen.source, chosen.target))} files in {chosen.target}, as they were packed")


if __name__ == "__main__":
    main()
