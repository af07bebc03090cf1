# SPDX-License-Identifier: MIT
"""Files of others are data: what a pickle would execute is refused, and not executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adamwprune.models.lenet5 import LeNet5
from adamwprune.training import ConfigError, checkpoint, weights
from adamwprune.training.errors import DirectoryError


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A checkpoint of run ``abc`` with a trap among its tensors."""
    path = tmp_path / "last.pt"
    torch.save({"schema": checkpoint.SCHEMA, "run_id": "abc", "model": {"w": Trap(tmp_path / "sprung")}}, path)
    return path


def test_the_trap_works(trapped: Path) -> None:
    torch.load(trapped, weights_only=False)
    assert (trapped.parent / "sprung").exists()


def test_a_checkpoint_executes_nothing(trapped: Path) -> None:
    with pytest.raises(DirectoryError, match=r"last.pt is damaged \(UnpicklingError\): delete it to start over"):
        checkpoint.load(trapped, "abc")
    assert not (trapped.parent / "sprung").exists()


def test_weights_to_begin_with_execute_nothing(trapped: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no weights that can be read safely \(UnpicklingError\)"):
        weights.load(str(trapped), LeNet5((1, 28, 28), 10))
    assert not (trapped.parent / "sprung").exists()
