# SPDX-License-Identifier: MIT
"""Lightning's Trainer: one line in ``configure_optimizers``, one callback, its own checkpoints."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from workbench import accuracy, network, prune, same, scans, weights

lightning = pytest.importorskip("lightning")
callbacks = pytest.importorskip("lightning.pytorch.callbacks")
loggers = pytest.importorskip("lightning.pytorch.loggers")

from adamwprune import AdamWPrune, attach  # noqa: E402
from adamwprune.integrations.lightning import PruneCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(lightning.LightningModule):
    def __init__(self, kind="swapped", **settings):
        super().__init__()
        self.net = network()
        self.kind, self.settings = kind, prune(total_steps=None, every=2, **settings)

    def training_step(self, batch, _):
        pixels, labels = batch
        return functional.cross_entropy(self.net(pixels), labels)

    def configure_optimizers(self):
        if self.kind in ("swapped", "8-bit"):
            form = "8bit" if self.kind == "8-bit" else None
            return AdamWPrune(self.named_parameters(), lr=0.01, weight_decay=0.1, state=form, prune=self.settings)
        optimizer = torch.optim.AdamW(self.named_parameters(), lr=0.01)
        if self.kind == "attached":
            attach(optimizer, self.settings)
        return {"optimizer": optimizer}


def fit(folder, module, resume=None, epochs=3, more=(), **options):
    """Three epochs of 20 batches, which come in order: Lightning resumes between epochs exactly."""
    images, labels, _, _ = scans()
    data = DataLoader(TensorDataset(images[:960], labels[:960]), batch_size=48)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=options.pop("logger", False),
        callbacks=[
            PruneCallback(),
            *more,
            callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


@pytest.mark.parametrize("kind", ["swapped", "attached", "8-bit"])
@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}], ids=["", "clipped"])
def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(kind, options, tmp_path):
    whole = Classifier(kind)
    trainer = fit(tmp_path, whole, **options)
    pruner = trainer.optimizers[0].pruner
    assert pruner.prune.total_steps == pruner.step == trainer.global_step == (60 if not options else 30)
    assert pruner.at_target
    assert accuracy(whole.net) > 0.9

    resumed = Classifier(kind)
    for p in resumed.parameters():
        torch.nn.init.normal_(p)
    again = fit(tmp_path, resumed, resume=tmp_path / "epoch=1.ckpt", **options)
    assert again.optimizers[0].pruner.report() == pruner.report()
    assert same(weights(resumed), weights(whole))


def test_sparsity_is_logged(tmp_path):
    module = Classifier()
    fit(tmp_path, module, logger=loggers.CSVLogger(tmp_path), log_every_n_steps=10)
    rows = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("sparsity")
    logged = [float(row.split(",")[column]) for row in rows[1:]]
    assert len(logged) == 6
    assert logged == sorted(logged)
    assert logged[-1] == pytest.approx(0.5, abs=1e-3)


def test_weight_averaging_is_kept_sparse_and_saved_sparse(tmp_path):
    average = callbacks.EMAWeightAveraging(decay=0.9)
    module = Classifier()
    trainer = fit(tmp_path, module, more=[average])
    masks = trainer.optimizers[0].pruner.named_masks()
    assert masks
    for epoch in (1, 2):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        sparsity = [float((saved[name] == 0).float().mean()) for name in masks]
        assert min(sparsity) > 0.4
    for name, keep in masks.items():
        assert not module.get_parameter(name)[~keep].count_nonzero()  # the average is the model now
    assert accuracy(module.net) > 0.9


def test_an_optimizer_without_a_pruner_is_refused(tmp_path):
    with pytest.raises(ValueError, match="AdamW has no pruner"):
        fit(tmp_path, Classifier("plain"))


def test_a_run_without_an_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_steps or max_epochs"):
        fit(tmp_path, Classifier(), epochs=-1)
