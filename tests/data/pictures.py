# SPDX-License-Identifier: MIT
"""A few JPEG images in folders of classes and in webdataset shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03")


def picture(number: int, width: int = 40, height: int = 30) -> bytes:
    """A JPEG of one colour, by which it can be told."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (5 * number + 5, 100, 200 - 5 * number)).save(out, "JPEG", quality=95)
    return out.getvalue()


def number_of(pixels: np.ndarray) -> int:
    """Which picture an image (channels first) is of."""
    return round((float(pixels[0].mean()) - 5) / 5)


def folders(root: Path, count: int = 12) -> Path:
    """Picture ``n`` in class ``n % 3``."""
    for number in range(count):
        folder = root / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.JPEG").write_bytes(picture(number))
    return root


def shard(path: Path, numbers: list[int], *, labels: str = ".cls") -> Path:
    """Pictures in one shard, each with its class after or before it."""
    with tarfile.open(path, "w") as members:
        for number in numbers:
            label = number % 3
            files = {".jpg": picture(number), labels: json.dumps({"label": label}) if labels == ".json" else str(label)}
            for suffix, content in sorted(files.items(), reverse=number % 2 == 0):
                data = content.encode() if isinstance(content, str) else content
                member = tarfile.TarInfo(f"s/{number:03}{suffix}")
                member.size = len(data)
                members.addfile(member, io.BytesIO(data))
    return path


def shards(root: Path, count: int = 12, each: int = 4, word: str = "train") -> list[Path]:
    """Pictures in shards of ``each``."""
    root.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, each)
    return [shard(root / f"{word}-{at:04}.tar", list(range(at, min(at + each, count)))) for at in starts]
