# SPDX-License-Identifier: MIT
"""A data set of bright quadrants and a recipe of 42 steps: a whole run takes a fraction of a second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from adamwprune.data import DATASETS, Dataset, DatasetInfo, Split, digits
from adamwprune.training.config import RunConfig
from adamwprune.training.recipes import RECIPES

EXAMPLES, STEPS_PER_EPOCH, EPOCHS = 150, 7, 6
STEPS = STEPS_PER_EPOCH * EPOCHS


def _split(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 100, (count, 1, 16, 16), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[:, row : row + 8, column : column + 8] += 60
    return Split(images=images.to(torch.uint8), labels=labels)


def _read(info: DatasetInfo, data_dir: Path) -> Dataset:
    return Dataset(name=info.name, train=_split(EXAMPLES, 1), test=_split(60, 2))


INFO = dataclasses.replace(
    digits.INFO,
    name="tiny",
    shape=(1, 16, 16),
    classes=4,
    examples=EXAMPLES,
    mean=(0.25,),
    std=(0.15,),
    shift=1,
    flip=False,
    checksum="tiny",
    read=_read,
)


def register(patch: pytest.MonkeyPatch | None = None) -> None:
    """Enter the data set and its recipe: for as long as the patch lasts, or for this process."""
    patch = patch or pytest.MonkeyPatch()
    recipe = dataclasses.replace(RECIPES["lenet5", "digits"], epochs=EPOCHS, batch_size=16, val_fraction=0.2)
    patch.setitem(DATASETS, "tiny", INFO)  # type: ignore[arg-type]
    patch.setitem(RECIPES, ("lenet5", "tiny"), recipe)
    patch.setitem(RECIPES, ("resnet20", "tiny"), dataclasses.replace(recipe, epochs=2))


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{"data": "tiny", "width": 0.5, "threads": 1, **changes})


#: One config per way that optimizers and pruning can meet.
ARMS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd-magnitude": {"optimizer": "sgd", "pruning_method": "magnitude", "target_sparsity": 0.5},
    "adam-movement": {"optimizer": "adam", "pruning_method": "movement", "target_sparsity": 0.7},
    "adamwadv-state": {"optimizer": "adamwadv", "pruning_method": "state", "target_sparsity": 0.7},
    "adamwspam": {"optimizer": "adamwspam", "spam_interval": 9, "spam_min_age": 3, "spam_zscore": 2.0},
    "adamwprune-state": {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7},
    "adamwprune-spam-hybrid": {
        "optimizer": "adamwprune",
        "base": "adamwspam",
        "pruning_method": "state",
        "score": "bitter0",
        "target_sparsity": 0.9,
        "distribution": "global",
        "clip_norm": 1.0,
    },
    "adamwprune-regrow": {
        "optimizer": "adamwprune",
        "base": "adamwadv",
        "pruning_method": "state",
        "target_sparsity": 0.5,
        "regrow": 0.2,
    },
}
