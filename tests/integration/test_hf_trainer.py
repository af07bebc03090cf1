# SPDX-License-Identifier: MIT
"""Hugging Face's Trainer: one line to prune, its own checkpoints, its own logs."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional
from workbench import accuracy, network, prune, same, scans, weights

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from adamwprune import AdamWPrune, attach, param_groups  # noqa: E402
from adamwprune.integrations.transformers import PruneCallback  # noqa: E402


class Classifier(nn.Module):
    """A network as the Trainer wants it: the loss comes out first."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, pixels, labels):
        logits = self.net(pixels)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def trainer(folder, model, callbacks=None, **options):
    images, labels, _, _ = scans()
    arguments = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=32,
        num_train_epochs=2,
        save_steps=30,
        logging_steps=15,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **options.pop("arguments", {}),
    )
    data = [{"pixels": x, "labels": y} for x, y in zip(images[:960], labels[:960], strict=True)]
    callbacks = [PruneCallback()] if callbacks is None else callbacks
    return transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=callbacks, **options)


def swapped(model, **options):
    """The one line: a class and its arguments, the length of the run left open."""
    options = {"lr": 0.01, "prune": prune(total_steps=None, every=2), **options}
    return {"optimizer_cls_and_kwargs": (AdamWPrune, {"params": param_groups(model, weight_decay=0.1), **options})}


def eight_bit(model):
    return swapped(model, state="8bit")


def given(model):
    """An optimizer made before, pruned beside."""
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    attach(optimizer, prune(total_steps=None, every=2))
    return {"optimizers": (optimizer, None)}


KINDS = {"swapped": swapped, "given": given, "8-bit": eight_bit}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(kind, tmp_path):
    whole = Classifier()
    run = trainer(tmp_path, whole, **KINDS[kind](whole))
    run.train()
    pruner = run.optimizer.optimizer.pruner
    assert pruner.prune.total_steps == pruner.step == run.state.max_steps == 60
    assert pruner.at_target
    assert accuracy(whole.net) > 0.9

    shutil.rmtree(tmp_path / "checkpoint-60")
    resumed = Classifier()
    for p in resumed.parameters():
        nn.init.normal_(p)
    again = trainer(tmp_path, resumed, **KINDS[kind](resumed))
    again.train(resume_from_checkpoint=True)
    assert again.optimizer.optimizer.pruner.report() == pruner.report()
    assert same(weights(resumed), weights(whole))


def test_gradient_accumulation_counts_optimizer_steps(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, model, **swapped(model), arguments={"gradient_accumulation_steps": 3})
    run.train()
    pruner = run.optimizer.optimizer.pruner
    assert pruner.prune.total_steps == pruner.step == run.state.max_steps == 20
    assert pruner.at_target


class Reporter(transformers.TrainerCallback):
    """Stands for TensorBoard and the like."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.seen.append(logs.get("sparsity"))


def test_sparsity_is_logged(tmp_path):
    before, after = Reporter(), Reporter()
    model = Classifier()
    run = trainer(tmp_path, model, [before, PruneCallback(), after], **swapped(model))
    run.train()
    history = [entry["sparsity"] for entry in run.state.log_history if "loss" in entry]
    assert after.seen == history
    assert before.seen == [None] * 4
    assert history == sorted(history)
    assert history[0] < 0.1
    assert history[-1] == pytest.approx(0.5, abs=1e-3)


def test_a_length_that_was_set_stays(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, model, **swapped(model, prune=prune(total_steps=40, end=30)))
    run.train()
    assert run.optimizer.optimizer.pruner.prune.total_steps == 40
    assert run.optimizer.optimizer.pruner.last_update == 30


def test_a_dense_baseline_runs_with_the_same_callback(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, model, **swapped(model, prune=None))
    run.train()
    assert all("sparsity" not in entry for entry in run.state.log_history)


def test_an_optimizer_without_a_pruner_is_refused(tmp_path):
    model = Classifier()
    run = trainer(tmp_path, model, optimizers=(torch.optim.AdamW(model.parameters()), None))
    with pytest.raises(ValueError, match="AdamW has no pruner"):
        run.train()


def test_without_the_callback_the_open_length_is_refused(tmp_path):
    model = Classifier()
    with pytest.raises(ValueError, match="total_steps"):
        trainer(tmp_path, model, [], **swapped(model)).train()
    assert not os.path.exists(tmp_path / "checkpoint-30")
