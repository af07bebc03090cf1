# SPDX-License-Identifier: MIT
"""A run on two ranks equals the run of one process on the same batches, up to rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from test_engine_resume import assert_same_run

from adamwprune.models.lenet5 import LeNet5
from adamwprune.training import ConfigError, DirectoryError
from adamwprune.training.engine import train

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}
TEXT = tiny_text.config(**PRUNED, ema=0.9, clip_norm=1.0, accumulate=2)
RANDOM = tiny_text.config(**PRUNED, ema=0.9, dropout=0.1)
RUNS = {"lenet5": tiny.config(clip_norm=1.0), "gpt2": TEXT, "kept": TEXT, "whole": RANDOM}

#: Each of two processes does all runs, one after another.
SCRIPT = """
import sys, weakref
from pathlib import Path
sys.path.insert(0, {here!r})
import pytest, torch, tiny, tiny_text
from test_ranks import RANDOM, RUNS, without_norms
from adamwprune.training import ConfigError, Interrupted, ranks
from adamwprune.training.engine import train
tiny.register()
tiny_text.register(pytest.MonkeyPatch())
folder = Path({folder!r})
with ranks.joined("cpu"):
    group = weakref.ref(torch.distributed.group.WORLD)
    for name, config in RUNS.items():
        with without_norms():
            train(config, folder / name, kept_gradients=name == "kept")
    steps = 0
    def stop():  # one rank is asked, and all stop
        global steps
        steps += 1
        return ranks.rank() == 1 and steps > 13
    with pytest.raises(Interrupted):
        train(RANDOM, folder / "pieces", should_stop=stop)
    torch.rand(ranks.rank() + 3)
    answers = ranks.collected(torch.tensor(train(RANDOM, folder / "pieces")["final"]["test_loss"]))
    assert answers[0] == answers[1]
    for changes in ({{"batch_size": 5}}, {{"batch_size": 6, "accumulate": 2}}):
        with pytest.raises(ConfigError, match="between 2 ranks"):
            train(tiny_text.config(**changes), folder / "odd")
assert group() is None  # nor do its threads go on, which at the end of a process may abort it
"""


@contextmanager
def without_norms() -> Iterator[None]:
    """LeNet-5 without batch normalisation, which would see each rank's share."""
    plain = LeNet5.__init__

    def build(self: LeNet5, *arguments: Any, **options: Any) -> None:
        plain(self, *arguments, **options)
        self.norm1 = self.norm2 = torch.nn.Identity()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeNet5, "__init__", build)
        yield


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two ranks."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(2, "-c", SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder)))
    return folder


def torchrun(count: int, *arguments: str) -> str:
    """What ``count`` ranks print; torchrun itself needs seconds to begin."""
    environment = {
        **os.environ,
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(probe.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)
    return "\n".join(outputs)


@pytest.mark.parametrize("name", ["lenet5", "gpt2"])
def test_two_ranks_equal_one_process(two: Path, tmp_path: Path, name: str) -> None:
    with without_norms():
        one = train(RUNS[name], tmp_path)
    other = json.loads((two / name / "result.json").read_text())
    assert (one["status"], one["steps"], one["kept"]) == (other["status"], other["steps"], other["kept"])
    assert other["final"]["test_loss"] == pytest.approx(one["final"]["test_loss"], rel=1e-3)
    curves = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, two / name)
    ]
    for mine, theirs in zip(*curves, strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-3)
        assert theirs["val_loss"] == pytest.approx(mine["val_loss"], rel=1e-3)
    a, b = (torch.load(folder / "checkpoints/last.pt")["run"]["model"] for folder in (tmp_path, two / name))
    for key in a:
        torch.testing.assert_close(b[key], a[key], rtol=0.0, atol=2e-3)


def test_exchanging_gradients_of_kept_weights_changes_no_bit(two: Path) -> None:
    assert_same_run(two / "gpt2", two / "kept")


def test_two_ranks_interrupted_equal_two_that_never_were(two: Path) -> None:
    assert "interrupted at step 13" in (two / "pieces" / "log.txt").read_text()
    assert_same_run(two / "whole", two / "pieces")


def test_ranks_draw_noise_of_their_own(two: Path) -> None:
    states = torch.load(two / "whole/checkpoints/last.pt")["run"]["random"]["cpu"]
    assert len(states) == 2
    assert not torch.equal(*states)


def test_another_number_of_ranks_is_refused(two: Path) -> None:
    with pytest.raises(DirectoryError, match="ranks is 2 there and 1 here"):
        train(TEXT, two / "gpt2")


def test_kept_gradients_need_ranks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kept_gradients=True has no effect"):
        train(TEXT, tmp_path / "run", kept_gradients=True)
    assert not (tmp_path / "run").exists()
