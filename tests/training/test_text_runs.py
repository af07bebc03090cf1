# SPDX-License-Identifier: MIT
"""Language models in the engine: steps instead of epochs, perplexity, and a run in pieces."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_text
import torch
from test_engine_resume import assert_same_run, in_pieces
from torch.nn import functional

from adamwprune.models.gpt2 import GPT2
from adamwprune.training import ConfigError
from adamwprune.training.engine import train
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(tiny_text.config(**PRUNED, ema=0.9, dropout=0.1), folder)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_reports_perplexity(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", tiny_text.STEPS)
    assert result["sparsity"] == pytest.approx(0.7, abs=1e-3)
    for split in ("val", "test"):
        assert result["final"][f"{split}_perplexity"] == pytest.approx(math.exp(result["final"][f"{split}_loss"]))
        assert result["final"][f"{split}_perplexity"] < 7
    assert result["throughput"]["unit"] == "tokens"
    assert [line["step"] for line in lines(finished)] == [10, 20, 30]
    assert all(line["throughput"]["per_second"] > 0 for line in lines(finished))


def test_best_is_the_lowest_loss(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert result["best_any"]["val_loss"] == min(line["val_loss"] for line in lines(finished))


def test_the_best_checkpoint_is_what_was_evaluated_masked(finished: Path) -> None:
    run = Run(resolve(tiny_text.config(**PRUNED)))
    saved = torch.load(finished / "checkpoints/best.pt", weights_only=True)
    run.model.load_state_dict(saved["model"])
    assert run.evaluate("val").loss == pytest.approx(saved["record"]["val_loss"], rel=1e-5)
    matrices = [value for name, value in saved["model"].items() if name.startswith("h.") and value.dim() == 2]
    zeros = sum(int((matrix == 0).sum()) for matrix in matrices)
    assert zeros / sum(matrix.numel() for matrix in matrices) == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("changes", [{}, {**PRUNED, "ema": 0.9, "dropout": 0.1, "accumulate": 2}], ids=["dense", "all"])
def test_interrupted_equals_uninterrupted(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny_text.config(**changes)
    train(config, tmp_path / "whole")
    in_pieces(config, tmp_path / "pieces", [0, 3, 9, 12])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    whole, parts = (Run(resolve(tiny_text.config(accumulate=n))) for n in (1, 4))
    for run in (whole, parts):
        run.optimizer.zero_grad()
    assert whole._backward().item() == pytest.approx(parts._backward().item(), rel=1e-6)
    for p, q in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_computing_activations_again_changes_nothing(tmp_path: Path) -> None:
    results = [
        train(tiny_text.config(dropout=0.1, activation_checkpointing=again), tmp_path / str(again))
        for again in (False, True)
    ]
    assert results[0]["final"] == results[1]["final"]


def test_evaluation_is_on_the_start_of_the_held_out_text() -> None:
    run = Run(resolve(tiny_text.config(eval_tokens=64)))
    row = tiny_text._row(1500, 1).ids.long()
    held = row[1350:]
    losses = [
        functional.cross_entropy(run.model.eval()(held[None, start : start + 16])[0], held[start + 1 : start + 17])
        for start in range(0, 64, 16)
    ]
    assert run.evaluate("val").loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert [sum(len(inputs) for inputs, _ in run.task.split(name)) for name in ("val", "test")] == [4, 4]
    assert isinstance(run.model, GPT2)


def test_every_token_is_trained_on_once_an_epoch() -> None:
    run = Run(resolve(tiny_text.config()))
    run.task.train.ids[:] = torch.arange(1350).remainder(256).to(torch.uint8)
    seen = torch.cat([run.task.batch(step)[0].flatten() for step in range(run.steps_per_epoch)])
    starts = seen.view(-1, 16)[:, 0]
    assert run.steps_per_epoch == 10
    assert len(seen) == 10 * tiny_text.BATCH * tiny_text.CONTEXT
    assert torch.equal(seen.view(-1, 16), (starts[:, None] + torch.arange(16)) % 256)
    assert not torch.equal(run.task.batch(0)[0], run.task.batch(10)[0])


def test_the_last_batch_of_every_epoch_is_full() -> None:
    """84 windows fit if an epoch begins at the first token, and one less where it begins later."""
    run = Run(resolve(tiny_text.config(batch_size=4)))
    assert run.steps_per_epoch == 20
    for epoch in range(1, 30):
        inputs, targets = run.task.batch(20 * epoch - 1)
        assert inputs.shape == targets.shape == (4, tiny_text.CONTEXT)


def test_a_batch_larger_than_the_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=200 sequences of context=16 are more than the 1350 training tok"):
        Run(resolve(tiny_text.config(batch_size=200)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 128, "val_fraction": 0.08}, "val split of .* has 120 tokens, .*raise val_fraction=0.08"),
        ({"context": 64, "val_fraction": 64.5 / 1500}, "the val split .* has 64 tokens, .* context=64 takes"),
        ({"context": 300, "val_fraction": 0.5, "batch_size": 1}, "the test split of 'tiny-text' has 300 tokens"),
    ],
)
def test_a_held_out_text_of_less_than_a_window_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny_text.config(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_window_is_enough_to_evaluate_on() -> None:
    run = Run(resolve(tiny_text.config(context=64, val_fraction=65.5 / 1500, eval_tokens=64)))
    assert [sum(len(inputs) for inputs, _ in run.task.split(name)) for name in ("val", "test")] == [1, 1]
