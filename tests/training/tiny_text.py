# SPDX-License-Identifier: MIT
"""A text that repeats itself with gaps, and a recipe of 30 steps for a GPT-2 that is smaller still."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from adamwprune.data import DATASETS
from adamwprune.data.dataset import TokenData, TokenInfo
from adamwprune.data.tokens import Tokens
from adamwprune.training.config import RunConfig
from adamwprune.training.recipes import RECIPES

STEPS, ROUND, CONTEXT, BATCH = 30, 10, 16, 8


def _row(length: int, seed: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(length) % 7
    row[torch.rand(length, generator=generator) < 0.1] = 7
    return Tokens(row.to(torch.uint8))


def _read(info: TokenInfo, data_dir: Path) -> TokenData:
    return TokenData(name=info.name, train=_row(1500, 1), test=_row(300, 2), vocabulary=8)


INFO = TokenInfo(name="tiny-text", summary="", read=_read, identify=lambda info, data_dir: "tiny-text")


def register(patch: pytest.MonkeyPatch) -> None:
    """Enter the text and its recipe for as long as the patch lasts."""
    recipe = dataclasses.replace(
        RECIPES["gpt2-tiny", "stdlib"],
        iterations=STEPS,
        eval_steps=ROUND,
        batch_size=BATCH,
        context=CONTEXT,
        val_fraction=0.1,
        precision="fp32",
    )
    patch.setitem(DATASETS, "tiny-text", INFO)  # type: ignore[arg-type]
    patch.setitem(RECIPES, ("gpt2-tiny", "tiny-text"), recipe)


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{"model": "gpt2-tiny", "data": "tiny-text", "width": 0.25, "threads": 1, **changes})
