# SPDX-License-Identifier: MIT
"""A run on two ranks equals the run of one process on the same batches, up to rounding: replicas and shards alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from test_engine_resume import assert_same_run
from workers import Workers

from adamwprune.training import ConfigError, DirectoryError, Interrupted
from adamwprune.training import ranks as rooms
from adamwprune.training.engine import train
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}
TEXT = tiny_text.config(**PRUNED, ema=0.9, clip_norm=1.0, accumulate=2, iterations=20)
RANDOM = tiny_text.config(**PRUNED, ema=0.9, dropout=0.1, iterations=16)

#: Runs of which several ranks make what one process makes.
RUNS = {
    "lenet5": tiny.config(clip_norm=1.0, epochs=2),
    "resnet20": tiny.config(**PRUNED, model="resnet20", width=0.25, ema=0.9),
    "sgd": tiny.config(optimizer="sgd", pruning_method="magnitude", target_sparsity=0.5, epochs=2, train_examples=100),
    "gpt2": TEXT,
}
WAYS = ("ddp", "fsdp")
CASES = [(name, way) for name in RUNS for way in WAYS]


def folder_of(name: str, way: str) -> str:
    return f"{name}-{way}"


def on_two_ranks(rank: int, folder: Path) -> None:
    """All runs of this file on two ranks, one after another."""
    tiny.register()
    tiny_text.register(pytest.MonkeyPatch())
    for name, way in CASES:
        train(RUNS[name].replace(parallel=way), folder / folder_of(name, way))
    train(TEXT, folder / "kept", kept_gradients=True)
    for way in WAYS:
        interrupted(RANDOM.replace(parallel=way), folder / folder_of("whole", way), folder / folder_of("pieces", way))
    for changes in ({"batch_size": 5}, {"batch_size": 6, "accumulate": 2}):
        with pytest.raises(ConfigError, match="between 2 ranks"):
            train(tiny_text.config(**changes), folder / "odd")
    with pytest.raises(ConfigError, match="kept_gradients=True is for parallel='ddp'"):
        train(TEXT.replace(parallel="fsdp"), folder / "odd", kept_gradients=True)


def interrupted(config: Any, whole: Path, pieces: Path) -> None:
    """The same run twice; the second is stopped where one rank is asked to stop, and goes on."""
    train(config, whole)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return rooms.rank() == 1 and steps > 13

    with pytest.raises(Interrupted):
        train(config, pieces, should_stop=stop)
    torch.rand(rooms.rank() + 3)
    answers = rooms.collected(torch.tensor(train(config, pieces)["final"]["test_loss"]))
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def two(ranks: Workers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two ranks."""
    folder = tmp_path_factory.mktemp("two")
    ranks(2, on_two_ranks, folder)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    for name, config in RUNS.items():
        train(config, folder / name)
    return folder


@pytest.mark.parametrize(("name", "way"), CASES)
def test_two_ranks_equal_one_process(one: Path, two: Path, name: str, way: str) -> None:
    folders = (one / name, two / folder_of(name, way))
    mine, theirs = (json.loads((folder / "result.json").read_text()) for folder in folders)
    for key in ("status", "steps", "kept", "parameters", "prunable"):
        assert mine[key] == theirs[key]
    assert theirs["final"]["test_loss"] == pytest.approx(mine["final"]["test_loss"], rel=1e-3)
    curves = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in folders]
    for ours, other in zip(*curves, strict=True):
        assert other["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-3)
        assert other["val_loss"] == pytest.approx(ours["val_loss"], rel=1e-3)
    a, b = (torch.load(path / "checkpoints/last.pt")["run"] for path in folders)
    assert a["model"].keys() == b["model"].keys()
    for key in a["model"]:
        torch.testing.assert_close(b["model"][key], a["model"][key], rtol=0.0, atol=2e-3)
    for number, entry in a["optimizer"]["state"].items():
        other = b["optimizer"]["state"][number]
        for key, value in entry.items():
            # Beside another optimizer masks are packed, and where weights are spread of their shape.
            assert key == "prune_mask" or not isinstance(value, torch.Tensor) or other[key].shape == value.shape


def test_a_shared_run_leaves_checkpoints_of_one_process(two: Path) -> None:
    saved = torch.load(two / "resnet20-fsdp/checkpoints/best.pt")
    run = Run(resolve(RUNS["resnet20"].replace(init=str(two / "resnet20-fsdp/checkpoints/best.pt"))))
    assert run.average is not None
    assert run.evaluate("val").loss == pytest.approx(saved["record"]["val_loss"], rel=1e-5)
    run.restore({**torch.load(two / "resnet20-fsdp/checkpoints/last.pt")["run"], "random": {}})
    assert run.at_target


def test_exchanging_gradients_of_kept_weights_changes_no_bit(two: Path) -> None:
    assert_same_run(two / "gpt2-ddp", two / "kept")


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_interrupted_equal_two_that_never_were(two: Path, way: str) -> None:
    assert "interrupted at step 13" in (two / folder_of("pieces", way) / "log.txt").read_text()
    assert_same_run(two / folder_of("whole", way), two / folder_of("pieces", way))


@pytest.mark.parametrize("way", WAYS)
def test_ranks_draw_noise_of_their_own(two: Path, way: str) -> None:
    states = torch.load(two / folder_of("whole", way) / "checkpoints/last.pt")["run"]["random"]["cpu"]
    assert len(states) == 2
    assert not torch.equal(*states)


def test_another_number_of_ranks_is_refused(two: Path) -> None:
    with pytest.raises(DirectoryError, match="ranks is 2 there and 1 here"):
        train(TEXT, two / "gpt2-ddp")
    with pytest.raises(DirectoryError, match="parallel is 'fsdp' there and 'ddp' here"):
        train(TEXT, two / "gpt2-fsdp")


#: A group of torchrun's, in a process that has seen no other.
SCRIPT = """
import weakref
import torch
from torch.nn.parallel import DistributedDataParallel
from adamwprune.training import ranks
def use():
    DistributedDataParallel(torch.nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
with ranks.joined("cpu"):
    group = weakref.ref(torch.distributed.group.WORLD)
    assert ranks.size() == 2
    use()
assert group() is None  # nor do its threads go on, which at the end of a process may abort it
"""


def test_ranks_part_with_nothing_left_of_their_group() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(outputs)
