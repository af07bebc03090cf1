# SPDX-License-Identifier: MIT
"""One run from start to end: its files, its numbers, and what ends it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from adamwprune import data, models
from adamwprune.models.lenet5 import LeNet5
from adamwprune.optim import Pruner
from adamwprune.training import DirectoryError
from adamwprune.training.batches import Normalizer
from adamwprune.training.engine import Progress, train
from adamwprune.training.evaluate import Scores, evaluate
from adamwprune.training.resolve import resolve

PRUNED = {"optimizer": "adamwprune", "pruning_method": "state", "target_sparsity": 0.7}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- what a run leaves behind ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(tiny.config(**PRUNED), folder)
    return folder


def test_the_files_have_their_keys(finished: Path) -> None:
    assert {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()} == {
        *("config.json", "metrics.jsonl", "memory.jsonl", "result.json", "log.txt"),
        *(f"checkpoints/{kind}.pt" for kind in ("last", "best", "best_any")),
    }
    config = json.loads((finished / "config.json").read_text())
    assert set(config) == {"schema", "run_id", "name", "config", "identity", "environment"}
    assert set(config["environment"]) >= {"torch", "python", "commit", "device", "threads"}
    result = json.loads((finished / "result.json").read_text())
    assert (result["schema"], result["run_id"], result["name"]) == (1, config["run_id"], config["name"])
    assert set(result) == {
        *("schema", "run_id", "name", "status", "reason", "config", "final", "best", "best_any", "target_sparsity"),
        *("sparsity", "parameters", "prunable", "kept", "account", "seconds", "steps", "throughput"),
        "time_to_target",
    }
    measured = {"epoch", "step", "sparsity"}
    measured |= {f"{split}_{score}" for split in ("val", "test") for score in ("accuracy", "loss", "perplexity")}
    assert set(result["final"]) == set(result["best"]) == set(result["best_any"]) == measured
    assert set(result["seconds"]) == {"train", "eval", "total"}
    assert [set(line) for line in lines(finished / "metrics.jsonl")] == [
        {
            *("epoch", "step", "seconds", "learning_rate", "train_loss", "val_loss", "val_accuracy"),
            *("val_perplexity", "target", "sparsity", "at_target", "throughput"),
        }
    ] * tiny.EPOCHS
    kinds = {"weights", "gradients", "state", "mask", "workspace"}
    for line in lines(finished / "memory.jsonl"):
        assert set(line) == {"epoch", "step", "seconds", "rss", "allocated", "bytes", "bytes_model"}
        assert set(line["bytes"]) == set(line["bytes_model"]) == kinds


def test_the_result_counts_what_is_there(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    state = torch.load(finished / "checkpoints/last.pt", weights_only=True)["run"]["model"]
    parameters = dict(LeNet5((1, 16, 16), 4, 0.5).named_parameters())
    assert result["parameters"] == sum(p.numel() for p in parameters.values())
    scope = [name for name, p in parameters.items() if p.dim() > 1 and not name.startswith("head")]
    assert result["prunable"] == sum(parameters[name].numel() for name in scope)
    kept = sum(int(state[name].count_nonzero()) for name in scope)
    assert result["kept"] == kept
    assert result["sparsity"] == result["final"]["sparsity"] == pytest.approx(1 - kept / result["prunable"])
    assert result["status"] == "finished"
    assert result["target_sparsity"] == 0.7
    assert result["steps"] == tiny.STEPS


def test_best_counts_only_evaluations_at_the_target(finished: Path) -> None:
    result, metrics = json.loads((finished / "result.json").read_text()), lines(finished / "metrics.jsonl")
    reached = [line["at_target"] for line in metrics]
    assert reached == sorted(reached)
    assert set(reached) == {False, True}

    def order(line: dict[str, Any]) -> tuple[float, float]:
        return line["val_accuracy"], -line["val_loss"]

    at_target = max((line for line in metrics if line["at_target"]), key=order)
    overall = max(metrics, key=order)
    for kind, expected in (("best", at_target), ("best_any", overall)):
        assert {name: result[kind][name] for name in ("epoch", "val_accuracy", "val_loss")} == {
            name: expected[name] for name in ("epoch", "val_accuracy", "val_loss")
        }
    assert result["best"]["sparsity"] == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("kind", ["best", "best_any"])
def test_the_best_checkpoint_has_the_accuracy_that_is_reported(finished: Path, kind: str) -> None:
    config = resolve(tiny.config(**PRUNED))
    model = models.build(config, tiny.INFO)
    saved = torch.load(finished / f"checkpoints/{kind}.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    test = data.load("tiny", "unused").test
    inputs = Normalizer.of(tiny.INFO, torch.device("cpu"))(test.images)
    scores = evaluate(model, [(inputs, test.labels)], torch.device("cpu"))
    result = json.loads((finished / "result.json").read_text())
    assert scores.accuracy == result[kind]["test_accuracy"]
    assert scores.loss == pytest.approx(result[kind]["test_loss"], rel=1e-5)
    assert saved["record"]["epoch"] == result[kind]["epoch"]


def test_memory_is_counted_alike_for_dense_and_pruned_runs(tmp_path: Path, finished: Path) -> None:
    result = train(tiny.config(), tmp_path)
    assert result["account"] is None
    assert result["kept"] == result["prunable"]
    dense, pruned = (lines(folder / "memory.jsonl") for folder in (tmp_path, finished))
    weights = 4 * result["prunable"]
    assert {line["bytes"]["weights"] for line in dense + pruned} == {weights}
    assert {line["bytes"]["gradients"] for line in dense + pruned} == {weights}
    assert all(line["bytes"]["state"] == pytest.approx(2 * weights, abs=100) for line in dense)
    assert dense[0]["bytes"]["state"] == pruned[0]["bytes"]["state"]
    assert pruned[-1]["bytes"]["state"] == pytest.approx(0.3 * 2 * weights, rel=0.02)
    assert all(line["bytes_model"][kind] >= size for line in dense + pruned for kind, size in line["bytes"].items())
    assert all(line["rss"] > weights and line["allocated"] is None for line in dense)


def test_a_best_of_a_tie_has_the_lower_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamwprune.training.run import Run

    values = iter([(0.5, 0.8), (0.4, 0.8), (0.6, 0.8), (0.4, 0.8), (0.1, 0.7), (0.2, 0.7), *[(1.0, 0.5)] * 9])
    monkeypatch.setattr(Run, "evaluate", lambda self, split: Scores(*next(values)))
    result = train(tiny.config(), tmp_path)
    assert (result["best"]["epoch"], result["best"]["val_loss"]) == (2, 0.4)


def test_it_learns(finished: Path) -> None:
    assert json.loads((finished / "result.json").read_text())["final"]["test_accuracy"] > 0.9


# ---- how a run is driven -----------------------------------------------------------------------------------------


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[Progress] = []
    train(tiny.config(eval_every=4), tmp_path, on_progress=seen.append)
    assert [p.step for p in seen] == sorted(p.step for p in seen)
    assert {(p.epochs, p.steps) for p in seen} == {(tiny.EPOCHS, tiny.STEPS)}
    assert [p.epoch for p in seen if p.phase == "evaluate"] == [4, 6]
    assert (seen[-1].phase, seen[-1].step) == ("done", tiny.STEPS)
    assert seen[-1].metrics["val_accuracy"] == lines(tmp_path / "metrics.jsonl")[-1]["val_accuracy"]
    news = [p.news for p in seen if p.news]
    assert [line.split(":")[0] for line in news] == [
        f"step {p.step} of {tiny.STEPS}" for p in seen if p.phase == "evaluate"
    ]
    assert all(line.split(": ")[1] in (tmp_path / "log.txt").read_text() for line in news)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    result = train(tiny.config(**PRUNED, precision=precision, clip_norm=1.0), tmp_path)
    assert result["status"] == "finished"
    assert result["final"]["test_accuracy"] > 0.8


def test_clipping_is_done_once_by_the_engine_or_by_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adamwprune.optim import adam
    from adamwprune.training import run

    calls = {"engine": 0, "optimizer": 0}
    for name, module in (("engine", run), ("optimizer", adam)):
        plain = module.clip_grad_norm_

        def counted(*args: Any, name: str = name, plain: Any = plain, **kwargs: Any) -> Any:
            calls[name] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(module, "clip_grad_norm_", counted)
    for expected, changes in (
        ((0, 0), {}),
        ((tiny.STEPS, 0), {"clip_norm": 0.5}),
        ((0, tiny.STEPS), {"optimizer": "adamwadv"}),
        ((0, tiny.STEPS), {**PRUNED, "base": "adamwadv"}),
        ((0, 0), {"optimizer": "adamwadv", "clip_norm": 0.0}),
    ):
        calls.update(engine=0, optimizer=0)
        train(tiny.config(**changes), tmp_path / str(expected) / str(len(changes)))
        assert (calls["engine"], calls["optimizer"]) == expected


def test_torchs_switches_are_put_back(tmp_path: Path) -> None:
    def switches() -> tuple[Any, ...]:
        return torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark

    before = switches()
    inside: list[tuple[Any, ...]] = []
    train(tiny.config(), tmp_path, on_progress=lambda progress: inside.append(switches()))
    assert set(inside) == {(1, 1, False)}
    assert switches() == before


# ---- runs that fail ----------------------------------------------------------------------------------------------


def break_step(monkeypatch: pytest.MonkeyPatch, step: int, *, gradient: bool) -> None:
    """Let the forward pass of a training step return NaN, or only its gradient be NaN."""
    plain, count = LeNet5.forward, 0

    def forward(self: LeNet5, images: torch.Tensor) -> torch.Tensor:
        nonlocal count
        logits = plain(self, images)
        if self.training:
            count += 1
            if count == step and gradient:
                logits.register_hook(lambda grad: grad * math.nan)
            elif count == step:
                logits = logits * math.nan
        return logits

    monkeypatch.setattr(LeNet5, "forward", forward)


def test_a_nan_loss_ends_the_run_and_keeps_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_step(monkeypatch, 17, gradient=False)
    result = train(tiny.config(**PRUNED), tmp_path)
    assert (result["status"], result["reason"]) == ("failed", "the loss of step 17 is nan")
    assert result["final"]["epoch"] == 2
    assert result["final"]["test_accuracy"] is None
    assert result["best"] is None
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert len(lines(tmp_path / "metrics.jsonl")) == 2
    assert (tmp_path / "checkpoints/last.pt").exists()
    assert train(tiny.config(**PRUNED), tmp_path) == result


def test_a_loss_that_is_only_looked_at_later_is_found_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from adamwprune.training.errors import TrainingError
    from adamwprune.training.run import Run

    run = Run(resolve(tiny.config()))
    for _ in range(tiny.STEPS_PER_EPOCH - 1):
        run.train_step()
    run.losses[3] = math.inf  # as on an accelerator, where no step waits for its loss
    with pytest.raises(TrainingError, match="the loss of step 4 is inf"):
        run.train_step()


def test_a_nan_gradient_at_a_mask_update_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_step(monkeypatch, 15, gradient=True)
    result = train(tiny.config(**PRUNED), tmp_path)
    assert result["status"] == "failed"
    assert result["reason"].startswith("the mask update of step 15 was refused: ")


def test_a_nan_that_only_evaluation_sees_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_step(monkeypatch, tiny.STEPS, gradient=True)
    result = train(tiny.config(), tmp_path)
    assert (result["status"], result["reason"]) == ("failed", f"the validation loss after step {tiny.STEPS} is nan")
    assert lines(tmp_path / "metrics.jsonl")[-1]["val_loss"] is None


def test_divergence_in_the_first_epoch(tmp_path: Path) -> None:
    result = train(tiny.config(optimizer="sgd", learning_rate=1e30), tmp_path)
    assert result["status"] == "failed"
    assert (result["final"], result["best"], result["best_any"]) == (None, None, None)


def test_a_run_that_ends_off_its_target_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    due = Pruner.due
    monkeypatch.setattr(Pruner, "due", lambda self, step: step < 20 and due(self, step))
    result = train(tiny.config(**PRUNED), tmp_path)
    assert result["status"] == "failed"
    assert 0 < result["sparsity"] < 0.7
    assert result["reason"] == f"ended at sparsity {result['sparsity']:.6f}, its target is 0.700000"
    assert result["best"] is None
    assert result["best_any"]["test_accuracy"] is not None


# ---- directories that are not ours -------------------------------------------------------------------------------


def test_another_runs_directory_is_refused(tmp_path: Path) -> None:
    train(tiny.config(), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        DirectoryError, match=r"holds run \w{12} \(lenet5_w0.5-tiny-adamw-none-s0\), not run \w{12}: seed is 0"
    ):
        train(tiny.config(seed=1), tmp_path)
    with pytest.raises(
        DirectoryError, match=r"epochs is 6 there and 7 here, ema is 0\.0 there and 0.5 here; choose anoth"
    ):
        train(tiny.config(epochs=7, ema=0.5), tmp_path)
    with pytest.raises(DirectoryError, match="holds run"):
        train(tiny.config(seed=1), tmp_path, resume=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DirectoryError, match=r"not a run's directory: it holds thesis.tex and no config.json"):
        train(tiny.config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config = tiny.config()
    with pytest.raises(Exception, match="interrupted at step 0"):
        train(config, tmp_path / "a", should_stop=lambda: True)
    with pytest.raises(Exception, match="interrupted at step 0"):
        train(config.replace(width=0.25), tmp_path / "b", should_stop=lambda: True)
    (tmp_path / "b/checkpoints/last.pt").replace(tmp_path / "a/checkpoints/last.pt")
    with pytest.raises(DirectoryError, match=r"last.pt is a checkpoint of run \w{12}, not of run \w{12}: its model"):
        train(config, tmp_path / "a")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="interrupted"):
        train(tiny.config(), tmp_path, should_stop=lambda: True)
    for content in (b"", b"PK garbage", (tmp_path / "checkpoints/last.pt").read_bytes()[:-3000]):
        (tmp_path / "checkpoints/last.pt").write_bytes(content)
        with pytest.raises(DirectoryError, match=r"last.pt is damaged \(\w+\): delete it to start over"):
            train(tiny.config(), tmp_path)


def test_records_that_were_cut_are_noticed(tmp_path: Path) -> None:
    calls = iter([False] * 20)
    with pytest.raises(Exception, match="interrupted"):
        train(tiny.config(), tmp_path, should_stop=lambda: next(calls, True))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"metrics.jsonl has 0 bytes, but its checkpoint was written after \d+"):
        train(tiny.config(), tmp_path)


def test_a_changed_environment_is_logged_on_resume(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="interrupted"):
        train(tiny.config(), tmp_path, should_stop=lambda: True)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["environment"]["torch"] = "1.0"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    train(tiny.config(), tmp_path)
    assert f"torch was 1.0, is {torch.__version__}" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"target_sparsity": 1.5, "pruning_method": "state"},
        {"data": "mnist", "data_dir": "/nowhere"},
        {"pruning_method": "state", "target_sparsity": 0.3, "pattern": "2:4"},
        {"pruning_method": "magnitude", "target_sparsity": 0.995},
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|missing|cannot be reached|min_density"):
        train(tiny.config().replace(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
