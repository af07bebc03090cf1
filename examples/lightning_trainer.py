# SPDX-License-Identifier: MIT
"""Lightning's Trainer: one optimizer, and a callback that tells it the length. (pip install adamwprune[lightning])"""

import lightning
from digits import network, options, scans, show
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import adamwprune as ap
from adamwprune.integrations.lightning import PruneCallback

EPOCHS = 10


class Classifier(lightning.LightningModule):
    """As any other module; the length of the run is left open."""

    def __init__(self, sparsity: float) -> None:
        super().__init__()
        self.net = network()
        self.sparsity = sparsity

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, _):
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self):
        return ap.AdamWPrune(self.named_parameters(), lr=3e-3, prune=ap.Prune(sparsity=self.sparsity))


chosen = options(steps=230)
module = Classifier(chosen.sparsity)
# In order, as Lightning does not restore the order of a shuffled epoch.
loader = DataLoader(
    TensorDataset(*scans(train=True)), batch_size=len(scans(train=True)[0]) * EPOCHS // chosen.steps + 1
)
trainer = lightning.Trainer(
    accelerator="cpu",
    max_epochs=EPOCHS,
    callbacks=[
        PruneCallback(),
        EMAWeightAveraging(decay=0.9),  # kept as sparse as the model
        ModelCheckpoint(chosen.folder, filename="{epoch}", save_top_k=-1),
    ],
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
half = chosen.folder / f"epoch={EPOCHS // 2 - 1}.ckpt"
trainer.fit(module, loader, ckpt_path=half if chosen.resume else None, weights_only=True)

show(module, trainer.optimizers[0].pruner)
