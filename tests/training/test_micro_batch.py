# SPDX-License-Identifier: MIT
"""A batch in parts that memory holds: how many, that looking for them changes nothing, and that they add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_engine_resume import assert_same_run, in_pieces

from adamwprune.models.lenet5 import LeNet5
from adamwprune.training import ConfigError, DirectoryError, machine, micro_batch
from adamwprune.training.batches import parts_of
from adamwprune.training.engine import train
from adamwprune.training.identity import identity, run_id
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}


@given(share=st.integers(1, 300), most=st.integers(1, 400))
def test_parts_are_equal_and_as_few_as_fit(share: int, most: int) -> None:
    fitting = [parts for parts in range(1, share + 1) if share % parts == 0 and share / parts <= most]
    assert parts_of(share, most) == min(fitting)


def test_a_number_is_another_word_for_accumulation() -> None:
    plain, named = resolve(tiny.config(accumulate=4)), resolve(tiny.config(micro_batch="5"))
    assert named == plain
    assert resolve(tiny.config(micro_batch="100")) == resolve(tiny.config())


@pytest.mark.parametrize("wrong", ["0", "-4", "many", "1.5", ""])
def test_other_words_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, or a whole number from 1 on"):
        resolve(tiny.config(micro_batch=wrong))


def test_parts_are_given_in_one_way() -> None:
    with pytest.raises(ConfigError, match="micro_batch='auto' and accumulate=2 exclude each other"):
        resolve(tiny.config(micro_batch="auto", accumulate=2))


def memory_for(count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From here on memory holds so many images at once; how many were asked for."""
    asked: list[int] = []
    forward = LeNet5.forward

    def limited(self: LeNet5, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            asked.append(len(images))
            if len(images) > count:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(LeNet5, "forward", limited)
    return asked


@pytest.mark.parametrize(("holds", "tried"), [(100, [16, 16]), (5, [16, 8, 4, 4]), (1, [16, 8, 4, 2, 1, 1])])
def test_trying_goes_down_to_what_fits(monkeypatch: pytest.MonkeyPatch, holds: int, tried: list[int]) -> None:
    run = Run(resolve(tiny.config()))
    asked = memory_for(holds, monkeypatch)
    assert micro_batch.tried(run, 16) == 16 // tried[-1]
    assert asked == tried
    assert micro_batch.tried(run, 1) == 1
    memory_for(0, monkeypatch)
    assert micro_batch.tried(run, 16) > 16


def test_an_error_that_is_not_about_memory_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(resolve(tiny.config()))
    monkeypatch.setattr(run, "loss", lambda network, x, y: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        micro_batch.tried(run, 16)


def everything(run: Run) -> dict[str, Any]:
    return {**run.model.state_dict(), "random": torch.get_rng_state(), "state": len(run.optimizer.state)}


@pytest.mark.parametrize("counted", [True, False])
def test_looking_for_it_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, counted: bool) -> None:
    plain = Run(resolve(tiny.config()))
    before = everything(plain)
    if not counted:
        monkeypatch.setattr(micro_batch, "_counted", micro_batch.tried)
    run = Run(resolve(tiny.config(micro_batch="auto")))
    after = everything(run)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name], name
    assert all(p.grad is None for p in run.model.parameters())
    assert run.parts == 1
    for one in (plain, run):
        torch.set_rng_state(before["random"])
        one.train_step()
    assert torch.equal(plain.losses, run.losses)


def test_on_a_cpu_what_a_backward_pass_keeps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of this network costs what its activations weigh: the more of them, the fewer at once."""
    example = 0
    for name, holds in (("1", 1), ("3", 2), ("9", 8)):
        run = Run(resolve(tiny.config()))
        images, labels = run.task.batch(0)
        kept = [micro_batch._kept(run, images[:n], labels[:n]) for n in (4, 8)]
        example = (kept[1] - kept[0]) // 4
        weights = 4 * sum(p.numel() for p in run.model.parameters())
        free = 4 * weights + int(name) * micro_batch.PEAK * example + example
        monkeypatch.setattr(machine, "free_memory", lambda free=free: free)
        assert Run(resolve(tiny.config(micro_batch="auto"))).parts == 16 // holds
    assert 6 * 16 * 16 * 4 <= example <= 100 * 16 * 16 * 4  # of 16x16 pixels, at least the first layer's output


def test_memory_that_holds_no_example_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="memory does not hold lenet5 with a single example"):
        train(tiny.config(micro_batch="auto"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_parts_and_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory that was there at the beginning decides; the gradients are those of accumulation."""
    config = tiny_text.config(**PRUNED, micro_batch="auto")
    monkeypatch.setattr(micro_batch, "_counted", lambda run, share: 4)
    train(config, tmp_path / "whole")
    in_pieces(config, tmp_path / "pieces", [3])
    assert "8 examples at once" not in (tmp_path / "pieces/log.txt").read_text()
    assert "2 examples at once" in (tmp_path / "pieces/log.txt").read_text()
    monkeypatch.setattr(micro_batch, "_counted", lambda run, share: 1)
    train(config, tmp_path / "pieces")
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")
    train(tiny_text.config(**PRUNED, accumulate=4), tmp_path / "accumulated")
    curves = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "accumulated")]
    for mine, theirs in zip(*(map(json.loads, lines) for lines in curves), strict=True):
        assert mine["val_loss"] == theirs["val_loss"]
    with pytest.raises(DirectoryError, match="micro_batch is 'auto' there and None here"):
        train(tiny_text.config(**PRUNED), tmp_path / "whole")


def test_other_runs_are_the_runs_they_were() -> None:
    """Run folders that were written before this setting existed are still found."""
    known = run_id(identity(resolve(tiny.config(device="cpu")), "data"))
    assert known == run_id(identity(resolve(tiny.config(device="cpu", micro_batch="16")), "data"))
    assert known != run_id(identity(resolve(tiny.config(device="cpu", micro_batch="auto")), "data"))


def test_out_of_memory_in_the_middle_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tiny.config(micro_batch="auto")
    monkeypatch.setattr(micro_batch, "_counted", lambda run, share: 2)
    memory_for(5, monkeypatch)
    result = train(config, tmp_path)
    assert result["reason"] == (
        "out of memory at step 1: give a micro_batch of less than the 8 that 'auto' found, or lower batch_size"
    )
