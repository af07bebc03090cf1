# SPDX-License-Identifier: MIT
"""What a run may ask for beyond the plain loop, each against a plain computation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_text
import torch
from test_engine_resume import assert_same_run, in_pieces

from adamwprune.models.lenet5 import LeNet5
from adamwprune.training import throughput
from adamwprune.training.average import WARMUP
from adamwprune.training.engine import train
from adamwprune.training.errors import TrainingError
from adamwprune.training.image_task import Images
from adamwprune.training.resolve import resolve
from adamwprune.training.run import DIVERGED, Run

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}


def test_the_average_is_that_of_all_states_so_far_and_is_what_is_judged() -> None:
    run = Run(resolve(tiny.config(ema=0.8)))
    expected = copy.deepcopy(run.model.state_dict())
    for step in range(1, 15):
        run.train_step()
        decay = min(0.8, (1 + step) / (WARMUP + step))
        for name, value in run.model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value
    assert run.average is not None
    for name, value in run.average.model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    plain = Run(resolve(tiny.config()))
    plain.model.load_state_dict(expected)
    assert run.evaluate("val").loss == pytest.approx(plain.evaluate("val").loss, rel=1e-5)
    assert run.evaluate("val") != run_without_average(run)


def run_without_average(run: Run) -> Any:
    run.average = None
    return run.evaluate("val")


def test_the_average_of_a_pruned_network_is_as_sparse(tmp_path: Path) -> None:
    result = train(tiny.config(**PRUNED, ema=0.9), tmp_path)
    assert result["status"] == "finished"
    saved = torch.load(tmp_path / "checkpoints/best.pt", weights_only=True)["model"]
    scope = [saved[name] for name in ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight")]
    zeros = sum(int((weight == 0).sum()) for weight in scope)
    assert zeros == result["prunable"] - result["kept"]


def test_an_averaged_run_in_pieces_equals_one_that_never_stopped(tmp_path: Path) -> None:
    config = tiny.config(**PRUNED, ema=0.9, cutout=4, accumulate=2)
    train(config, tmp_path / "whole")
    in_pieces(config, tmp_path / "pieces", [5, 12, 9])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


def test_channels_last_is_how_images_reach_the_network() -> None:
    plain, last = (Run(resolve(tiny.config(channels_last=on))) for on in (False, True))
    for split in ("val", "test"):
        pairs = zip(plain.task.split(split), last.task.split(split), strict=True)
        assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)
    (a, _), (b, _) = plain.task.batch(3), last.task.batch(3)
    assert torch.equal(a, b)
    assert b.is_contiguous(memory_format=torch.channels_last)
    assert all(p.is_contiguous() for p in last.model.parameters())


def test_cutout_paints_squares_of_the_mean_colour_in_training_alone() -> None:
    run = Run(resolve(tiny.config(cutout=6)))
    without = Run(resolve(tiny.config()))
    assert isinstance(run.task, Images)
    (cut, labels), (whole, same) = run.task.batch(2), without.task.batch(2)
    assert torch.equal(labels, same)
    changed = (cut != whole).flatten(1).sum(1)
    assert 0 < int(changed.max()) <= 36
    assert cut[cut != whole].abs().max() < 0.02
    assert all(
        torch.equal(a, b) for (a, _), (b, _) in zip(run.task.split("val"), without.task.split("val"), strict=True)
    )


def test_training_goes_through_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[LeNet5] = []

    def compile(model: LeNet5) -> Any:
        compiled.append(model)
        return lambda images: 0.0 * model(images)

    monkeypatch.setattr(torch, "compile", compile)
    run = Run(resolve(tiny.config(compile=True)))
    assert compiled == [run.model]
    run.train_step()
    assert run.losses[0].item() == pytest.approx(torch.tensor(4.0).log().item())
    assert run.evaluate("val").loss != run.losses[0].item()
    assert Run(resolve(tiny.config())).forward is not compiled[0]
    assert len(compiled) == 1


def test_a_run_in_steps_is_evaluated_in_steps(tmp_path: Path) -> None:
    result = train(tiny.config(iterations=23, eval_steps=10), tmp_path)
    lines = [line.split(", ")[0] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == ['{"epoch": 1.4286', '{"epoch": 2.8571', '{"epoch": 3.2857']
    assert (result["steps"], result["final"]["step"]) == (23, 23)


def test_the_training_loss_is_the_mean_since_the_last_evaluation() -> None:
    run = Run(resolve(tiny.config(iterations=13, eval_steps=5)))
    losses = []
    for _ in range(13):
        run.train_step()
        losses.append(run.losses[(run.step - 1) % 5].item())
        if run.step == 10:
            assert run.train_loss() == pytest.approx(sum(losses[5:10]) / 5)
    assert run.train_loss() == pytest.approx(sum(losses[10:]) / 3)


# ---- divergence --------------------------------------------------------------------------------------------------


def test_a_run_that_is_worse_than_guessing_ends_with_the_reason(tmp_path: Path) -> None:
    result = train(tiny_text.config(learning_rate=1.0, clip_norm=0.0), tmp_path)
    assert result["status"] == "failed"
    assert "the run has diverged: its mean loss over the 10 steps up to step 20" in result["reason"]
    assert "guessing gives 2.079" in result["reason"]


@pytest.mark.parametrize(("factor", "fails"), [(0.99, False), (1.01, True)])
def test_divergence_is_judged_at_the_end_of_a_round_after_the_warm_up(factor: float, fails: bool) -> None:
    run = Run(resolve(tiny_text.config(lr_warmup=0.3)))
    loss = factor * DIVERGED * torch.tensor(8.0).log()
    for step, looked_at in ((10, False), (15, False), (20, True)):
        run.step = step
        run.losses[:] = loss
        if looked_at and fails:
            with pytest.raises(TrainingError, match="diverged"):
                run._check_losses(10)
        else:
            run._check_losses(10 if step != 15 else 5)


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LeNet5, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise error
        return torch.zeros(len(images), 4)

    monkeypatch.setattr(LeNet5, "forward", fail)
    result = train(tiny.config(accumulate=2), tmp_path)
    assert result["status"] == "failed"
    assert result["reason"] == (
        "out of memory at step 1: raise accumulate=2, which keeps the result (it must divide 16), or lower batch_size"
    )
    text = Run(resolve(tiny_text.config()))
    assert text._thrift().endswith(
        "activation_checkpointing on (the same run: --retry-failed tries it again), or lower batch_size or context"
    )


def test_other_errors_of_a_step_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "_backward", lambda self: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        train(tiny.config(), tmp_path)


# ---- speed -------------------------------------------------------------------------------------------------------


def test_throughput_is_counted_in_what_the_network_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(resolve(tiny_text.config()))
    found = throughput.measured(run, steps=4, seconds=2.0)
    assert found["unit"] == "tokens"
    assert found["per_second"] == 4 * tiny_text.BATCH * tiny_text.CONTEXT / 2
    weights = sum(p.numel() for p in run.model.parameters()) - run.model.wpe.weight.numel()
    assert found["flops_per_second"] == found["per_second"] * (6 * weights + 12 * 4 * 24 * tiny_text.CONTEXT)
    assert found["utilization"] is None
    monkeypatch.setattr(throughput, "peak", lambda name, precision: 10.0 * found["flops_per_second"])
    assert throughput.measured(run, steps=4, seconds=2.0)["utilization"] == pytest.approx(0.1)
    assert throughput.measured(run, steps=0, seconds=0.0)["per_second"] == 0.0
    images = throughput.measured(Run(resolve(tiny.config())), steps=3, seconds=1.0)
    assert (images["unit"], images["per_second"]) == ("images", 48.0)


def test_known_devices() -> None:
    assert throughput.peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert throughput.peak("NVIDIA H100 PCIe", "fp16") == 756e12
    assert throughput.peak("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert throughput.peak("cpu", "bf16") is None
    assert throughput.peak("NVIDIA H100 80GB HBM3", "fp32") is None
