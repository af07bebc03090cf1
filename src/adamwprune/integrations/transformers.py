# SPDX-License-Identifier: MIT
"""Hugging Face ``Trainer``: tells the pruner how long the run is, and logs the sparsity.

>>> trainer = Trainer(
...     model=model,
...     args=arguments,
...     train_dataset=data,
...     optimizer_cls_and_kwargs=(
...         AdamWPrune,
...         {"params": param_groups(model, weight_decay=0.1), "lr": 3e-4, "prune": Prune(sparsity=0.5)},
...     ),
...     callbacks=[PruneCallback()],
... )  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adamwprune.integrations.pruners import find_pruner, tell_total_steps


class PruneCallback(TrainerCallback):  # type: ignore[misc]
    """Sets ``total_steps`` from ``state.max_steps`` where it is open, and adds ``sparsity`` to what is logged.

    Callbacks run in the order of the trainer's list, and those of ``report_to`` stand before those of the user: to show
    them the sparsity too, put this one first, ``trainer.callback_handler.callbacks.insert(0, PruneCallback())``.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """The first moment at which the length of the run is known; a checkpoint is loaded already."""
        tell_total_steps([optimizer], state.max_steps)

    def on_log(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Add the measured sparsity to training logs, for the callbacks that follow and in ``state.log_history``."""
        pruner = None if optimizer is None else find_pruner(optimizer)
        if pruner is None or logs is None:
            return
        logs["sparsity"] = pruner.sparsity
        state.log_history[-1]["sparsity"] = pruner.sparsity
