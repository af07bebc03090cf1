# SPDX-License-Identifier: MIT
"""Rates at which batches are made, ours against loops as people write them, on one thread.

    python benchmarks/data_path.py [--rounds 15]

Every batch of ours is timed between two of theirs, and what counts is its time over their mean: below 1 ours is faster.
Pixels and tokens are random; photographs are smooth noise of 500x375, compressed like a camera's. Rows go to
results/benchmarks/data_path.json.

The others:

plain DataLoader   torch's DataLoader in this process over a Dataset that crops, flips and normalises image by image
nanoGPT            its get_batch: the file mapped anew for each batch, a slice and a conversion for each row, two stacks
plain Pillow       open, convert, crop, resize and flip each photograph, then normalise the batch
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
import tables
import torch
from PIL import Image
from timing import Run, paired
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from adamwprune.data import Split, Tokens, Windows, augment, image_index, image_stream, images, stream
from adamwprune.training.batches import Normalizer

CPU = torch.device("cpu")
LIMIT = 4
PHOTOGRAPHS, SIDE = 48, 224

#: What is made, who makes it too, how many of it, ours, and theirs.
Case = tuple[str, str, int, Run, Run]


class Plain(Dataset[tuple[Tensor, int]]):
    """Image by image."""

    def __init__(self, split: Split) -> None:
        self.split = split
        info = images("cifar10")
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (info.mean, info.std))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        padded = functional.pad(self.split.images[number], (LIMIT,) * 4)
        row, column = torch.randint(0, 2 * LIMIT + 1, (2,)).tolist()
        image = padded[:, row : row + 32, column : column + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return (image.float() / 255 - self.mean) / self.std, int(self.split.labels[number])


def small_images(batch: int = 500) -> Iterator[Case]:
    """Images that fit into memory."""
    pixels = torch.randint(0, 256, (20 * batch, 3, 32, 32), dtype=torch.uint8)
    split = Split(images=pixels, labels=torch.arange(len(pixels)) % 10)
    normalize = Normalizer.of(images("cifar10"), CPU)
    fill = torch.tensor([125, 123, 114])

    def ours(square: int) -> Tensor:
        chosen = split.take(torch.randint(0, len(split), (batch,)))
        moved = augment.shift(chosen.images, torch.randint(-LIMIT, LIMIT + 1, (batch, 2)), LIMIT)
        moved = augment.flip(moved, torch.randint(0, 2, (batch,)).bool())
        if square:
            moved = augment.cutout(moved, torch.randint(0, 32, (batch, 2)), square, fill)
        return normalize(moved)

    theirs = endless(lambda: DataLoader(Plain(split), batch_size=batch, shuffle=True))
    what = "images of 32x32: crop, flip"
    yield f"{what}, normalise", "plain DataLoader", batch, lambda: ours(0), lambda: next(theirs)
    yield f"{what}, cutout, normalise", "plain DataLoader, no cutout", batch, lambda: ours(16), lambda: next(theirs)


def endless(make: Callable[[], Any]) -> Iterator[Any]:
    """Batches of one epoch after another."""
    return itertools.chain.from_iterable(make() for _ in itertools.count())


def text(folder: Path) -> Iterator[Case]:
    """Windows on a mapped file of uint16 ids."""
    path = folder / "train.bin"
    np.random.RandomState(0).randint(0, 50257, 20_000_000).astype("<u2").tofile(path)
    row = Tokens(torch.from_file(str(path), size=20_000_000, dtype=torch.int16))
    for batch, block in ((20, 1024), (64, 256)):

        def theirs(batch: int = batch, block: int = block) -> tuple[Tensor, Tensor]:
            ids = np.memmap(path, dtype=np.uint16, mode="r")
            places = torch.randint(len(ids) - block, (batch,))
            inputs = torch.stack([torch.from_numpy(ids[at : at + block].astype(np.int64)) for at in places])
            targets = torch.stack([torch.from_numpy(ids[at + 1 : at + 1 + block].astype(np.int64)) for at in places])
            return inputs, targets

        windows = Windows.shuffled(row, block, 0)
        numbers = itertools.cycle(range(0, len(windows) - batch, batch))

        def ours(windows: Windows = windows, numbers: Iterator[int] = numbers, batch: int = batch) -> Any:
            return windows.batch(next(numbers), batch)

        yield f"tokens, {batch} windows of {block}", "nanoGPT", batch * block, ours, theirs


def photographs(folder: Path) -> Iterator[Case]:
    """JPEG files, decoded by one thread."""
    (folder / "n01").mkdir()
    random = np.random.RandomState(0)
    for number in range(PHOTOGRAPHS):
        smooth = Image.fromarray(random.randint(0, 256, (24, 32, 3)).astype(np.uint8)).resize((500, 375))
        grain = np.asarray(smooth).astype(int) + random.randint(-8, 9, (375, 500, 3))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(folder / f"n01/{number:02}.jpg", quality=90)
    index = image_index.from_folders(folder)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (stream("imagenet").mean, stream("imagenet").std))
    normalize = Normalizer(255 * mean, 1 / (255 * std))
    # Twenty times the same files, so that an epoch has as many batches; none is made ahead of its turn.
    many = dataclasses.replace(
        index,
        files=20 * index.files,
        file=np.arange(20 * len(index)),
        **{name: np.tile(getattr(index, name), 20) for name in ("offset", "size", "label")},
    )

    def epochs() -> Iterator[Tensor]:
        for seed in itertools.count():
            with image_stream.ImageStream(
                many, size=SIDE, batch_size=PHOTOGRAPHS, seed=seed, device=CPU, workers=1, ahead=0
            ) as epoch:
                yield from (normalize(epoch.batch(number)[0]) for number in range(len(epoch)))

    ours = epochs()

    def theirs() -> Tensor:
        batch = []
        for number, (*draw, mirrored) in enumerate(torch.rand(PHOTOGRAPHS, 5).tolist()):
            with Image.open(io.BytesIO(index.read(number))) as image:
                box = image_stream.crop(*image.size, tuple(draw))
                part = image.convert("RGB").crop(tuple(map(round, box))).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            if mirrored < 0.5:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            batch.append(torch.from_numpy(np.array(part).transpose(2, 0, 1)))
        return normalize(torch.stack(batch))

    yield (
        f"photographs: decode, crop to {SIDE}x{SIDE}, flip, normalise",
        "plain Pillow",
        PHOTOGRAPHS,
        lambda: next(ours),
        theirs,
    )


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for what, other, items, ours, theirs in itertools.chain(
            small_images(), text(Path(name)), photographs(Path(name))
        ):
            found = paired(ours, theirs, options.rounds).row()
            rows.append({"what": what, "other": other, "items": items, "threads": 1, **found})
            print(f"{items / found['ms'] * 1e3:14,.0f} a second  {found['ratio']:6.3f}  {what}", flush=True)
    record.write("data_path", {"rounds": options.rounds}, rows)
    print(tables.render("data_path"))


if __name__ == "__main__":
    main()
