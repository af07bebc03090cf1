# SPDX-License-Identifier: MIT
"""Lightning's ``Trainer``: tells the pruner how long the run is, logs the sparsity, and keeps averages masked.

>>> class Module(lightning.LightningModule):
...     def configure_optimizers(self):
...         return AdamWPrune(self.named_parameters(), lr=1e-3, prune=Prune(sparsity=0.5))
>>> trainer = lightning.Trainer(max_epochs=10, callbacks=[PruneCallback()])  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import WeightAveraging

from adamwprune.integrations.pruners import tell_total_steps
from adamwprune.optim import Pruner


class PruneCallback(Callback):  # type: ignore[misc]
    """Sets ``total_steps`` from ``trainer.estimated_stepping_batches`` where it is open, and logs ``sparsity``.

    The average of a ``WeightAveraging`` callback is kept masked.
    """

    def __init__(self) -> None:
        self._pruners: list[Pruner] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Optimizers and averages are there, and a checkpoint is loaded."""
        self._pruners = tell_total_steps(trainer.optimizers, trainer.estimated_stepping_batches)
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging) and callback._average_model is not None:
                for pruner in self._pruners:
                    pruner.follow(callback._average_model)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Log through the module, so that the trainer's logger and its interval decide."""
        for number, pruner in enumerate(self._pruners):
            pl_module.log("sparsity" if len(self._pruners) == 1 else f"sparsity_{number}", pruner.sparsity)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Let the optimizer go."""
        self._pruners = []
