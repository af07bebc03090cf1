# SPDX-License-Identifier: MIT
"""What several ranks, or one that takes itself for several, are told before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch

from adamwprune.experiment import commands
from adamwprune.experiment.errors import ExperimentError
from adamwprune.training import ConfigError, ranks
from adamwprune.training.engine import train
from adamwprune.training.resolve import resolve

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun would have said."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")


def test_kept_gradients_need_ranks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kept_gradients=True has no effect"):
        train(tiny_text.config(**PRUNED), tmp_path / "run", kept_gradients=True)
    assert not (tmp_path / "run").exists()


def test_sharing_needs_ranks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parallel='fsdp' has no effect on one process: start several ranks"):
        train(tiny_text.config(parallel="fsdp"), tmp_path / "run")
    with pytest.raises(ConfigError, match="has no effect on one process"):
        commands.train("lenet5", {"data": "digits", "parallel": "fsdp"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": "zero"}, "unknown parallel 'zero': expected one of ddp, fsdp"),
        ({"parallel": "fsdp", "micro_batch": "auto"}, "micro_batch='auto' looks for .* give a number"),
        ({"parallel": "fsdp", "precision": "fp16"}, "precision='fp16' is not tried with parallel='fsdp'"),
        ({"batch_size": 7, "micro_batch": "2"}, "batch_size=7 cannot be split evenly between 2 ranks"),
    ],
)
def test_what_does_not_go_together_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(tiny_text.config(**changes))


@pytest.mark.usefixtures("two")
def test_a_number_of_examples_is_of_each_rank() -> None:
    assert resolve(tiny.config(batch_size=32, micro_batch="8")).accumulate == 2
    assert resolve(tiny.config(batch_size=32, micro_batch="8", parallel="fsdp")).accumulate == 2


@pytest.mark.usefixtures("two")
def test_a_matrix_takes_one_process() -> None:
    selection = commands.Selection(path=Path("nowhere"), runs=[], jobs=1, supersede=False)
    with pytest.raises(ExperimentError, match="a matrix takes one process, and torchrun started 2"):
        commands.run_selection(selection, retry_failed=False)


@pytest.mark.usefixtures("two")
def test_devices_and_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="device='mps': several ranks train on cpu or cuda"), ranks.joined("mps"):
        pass
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="rank 0 wants GPU 1 of 1: start at most as many"), ranks.joined("cuda"):
        pass
    assert not torch.distributed.is_initialized()
