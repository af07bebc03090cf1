# SPDX-License-Identifier: MIT
"""Training steps of the engine against loops as people write them, on one thread.

    python benchmarks/throughput.py [--rounds 9] [--only NAME ...]

Every step of ours is timed between two of theirs, and what counts is its time over their mean: below 1 ours is faster.
Both train the same network in the same precision with torch's AdamW on batches of one size, cropped, flipped and cut in
the same measure; what differs is how batches are made and what else a step does. Pixels are random. Rows go to
results/benchmarks/throughput.json.

The others:

plain loop    torch's DataLoader in this process over a Dataset that augments image by image; autocast, backward, step
nanoGPT       its get_batch on mapped uint16 ids, and its loop: autocast, backward, clipping, step
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
import tables
import torch
from timing import Run as Step
from timing import paired
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from adamwprune import data, models
from adamwprune.data import DATASETS, Split
from adamwprune.training import RunConfig
from adamwprune.training.config import known
from adamwprune.training.device import autocast
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

IMAGES = 4000
#: Network, data set, examples in a batch, what is counted.
CASES = (
    ("lenet5", "mnist", 128),
    ("resnet20", "cifar10", 128),
    ("resnet18", "cifar10", 32),
    ("gpt2-tiny", "stdlib", 24),
    ("gpt2-mini", "stdlib", 8),
)


class Plain(Dataset[tuple[Tensor, int]]):
    """Image by image: shift, flip, cut a square out, normalise."""

    def __init__(self, split: Split, info: data.DatasetInfo, square: int) -> None:
        self.split, self.info, self.square = split, info, square
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        limit, (_, rows, columns) = self.info.shift, self.info.shape
        row, column = torch.randint(0, 2 * limit + 1, (2,)).tolist()
        padded = functional.pad(self.split.images[number], (limit,) * 4)
        image = padded[:, row : row + rows, column : column + columns]
        if self.info.flip and torch.rand(()) < 0.5:
            image = image.flip(-1)
        image = (image.float() / 255 - self.mean) / self.std
        if self.square:
            y, x = int(torch.randint(0, rows, ())), int(torch.randint(0, columns, ()))
            half = self.square // 2
            image[:, max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return image, int(self.split.labels[number])


def noise(info: data.DatasetInfo) -> data.DatasetInfo:
    """A data set of the same form with random pixels."""

    def read(info: data.DatasetInfo, data_dir: Path) -> data.Dataset:
        pixels = torch.randint(0, 256, (IMAGES, *info.shape), dtype=torch.uint8)
        split = Split(images=pixels, labels=torch.arange(IMAGES) % info.classes)
        return data.Dataset(name=info.name, train=split, test=split.take(torch.arange(500)))

    return dataclasses.replace(info, read=read, examples=IMAGES)


def image_batches(run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """A plain loop's batches, one epoch after another."""
    info = data.images(known(run.config.data))
    dataset = Plain(info.read(info, Path()).train, info, known(run.config.cutout))
    loader = DataLoader(dataset, batch_size=known(run.config.batch_size), shuffle=True, drop_last=True)
    for images, labels in itertools.chain.from_iterable(loader for _ in itertools.count()):
        last = torch.channels_last if run.config.channels_last else torch.contiguous_format
        yield images.contiguous(memory_format=last), labels


def token_batches(run: Run, folder: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """nanoGPT's."""
    path = folder / f"{run.config.model}.bin"
    run.task.train.ids.numpy().astype("<u2").tofile(path)  # type: ignore[attr-defined]
    block, batch = known(run.config.context), known(run.config.batch_size)
    while True:
        ids = np.memmap(path, dtype=np.uint16, mode="r")
        places = torch.randint(len(ids) - block, (batch,))
        inputs = torch.stack([torch.from_numpy(ids[at : at + block].astype(np.int64)) for at in places])
        targets = torch.stack([torch.from_numpy(ids[at + 1 : at + 1 + block].astype(np.int64)) for at in places])
        yield inputs, targets


def plain_step(run: Run, batches: Iterator[tuple[Tensor, Tensor]]) -> Step:
    """A loop as people write it, with the settings of a run of ours."""
    config = run.config
    network = models.build(config, run.task.shape).train()
    betas = (known(config.beta1), known(config.beta2))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=known(config.learning_rate), betas=betas, weight_decay=known(config.weight_decay)
    )

    def step() -> None:
        inputs, targets = next(batches)
        with autocast("cpu", known(config.precision)):
            logits = network(inputs)
            loss = functional.cross_entropy(
                logits.flatten(0, -2), targets.flatten(), label_smoothing=known(config.label_smoothing)
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()

    return step


def measure(model: str, name: str, batch: int, rounds: int, folder: Path) -> dict[str, Any]:
    """A row of the table."""
    run = Run(resolve(RunConfig(model=model, data=name, batch_size=batch, optimizer="adamw", device="cpu", threads=1)))
    text = run.task.unit == "tokens"
    theirs = plain_step(run, token_batches(run, folder) if text else image_batches(run))
    found = paired(run.train_step, theirs, rounds, warm_up=3).row()
    other = "nanoGPT's loop" if text else "plain loop"
    settings = {"model": model, "batch": batch, "precision": run.config.precision, "other": other, "threads": 1}
    return {**settings, "unit": run.task.unit, "items": run.task.units_per_step, **found}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=[], help="print these networks alone, and store nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in ("mnist", "cifar10"):
        DATASETS[name] = noise(data.images(name))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model, name, batch in CASES:
            if options.only and model not in options.only:
                continue
            row = measure(model, name, batch, options.rounds, Path(folder))
            rows.append(row)
            speed = row["items"] / row["ms"] * 1e3
            print(f"{speed:12,.0f} {row['unit']} a second  {row['ratio']:6.3f} {row['quartiles']}  {model}", flush=True)
    if not options.only:
        record.write("throughput", {"rounds": options.rounds, "images": IMAGES}, rows)
        print(tables.render("throughput"))


if __name__ == "__main__":
    main()
