# SPDX-License-Identifier: MIT
"""The live parts of a run and where it stands: one optimizer step, one evaluation, all of it saved and restored."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional

from adamwprune import data, models
from adamwprune.data.splits import stratified
from adamwprune.optim import clip_grad_norm_
from adamwprune.prune import NonFiniteScoreError
from adamwprune.training import device, optimizer
from adamwprune.training.batches import Epoch, Normalizer, seed_of, steps_per_epoch
from adamwprune.training.config import RunConfig, known
from adamwprune.training.evaluate import evaluate
from adamwprune.training.schedule import lr_factor

#: Tells the validation split from the other splits of a data set.
VALIDATION_SALT = 10

#: Steps between looks at the losses on an accelerator, where each look waits for the device.
CHECK_EVERY = 50


class NotFiniteError(Exception):
    """The run has produced NaN or infinity and cannot go on; the message says where."""


class Run:
    """Everything a run consists of, made from a resolved config. Nothing is written; whatever cannot work fails here.

    Randomness comes from torch's generators alone, so that saving their state saves all of it.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.info = data.images(known(config.data))
        self.device = torch.device(config.device)
        dataset = data.load(self.info.name, config.data_dir)
        kept, held = stratified(dataset.train.labels, known(config.val_fraction), VALIDATION_SALT)
        self.train = dataset.train.take(kept).to(self.device)
        self.val = dataset.train.take(held).to(self.device)
        self.test = dataset.test.to(self.device)
        self.normalize = Normalizer.of(self.info, self.device)

        torch.manual_seed(seed_of("weights", config.seed))
        self.model = models.build(config, self.info).to(self.device)
        self.steps_per_epoch = steps_per_epoch(len(self.train), known(config.batch_size))
        self.steps = known(config.epochs) * self.steps_per_epoch
        self.optimizer = optimizer.build(config, self.model, self.steps)
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self.step = 0
        #: Loss of each step of the current epoch, on the device.
        self.losses = torch.zeros(self.steps_per_epoch, device=self.device)
        self._epoch: tuple[int, Epoch] | None = None

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch

    @property
    def learning_rate(self) -> float:
        """Learning rate of the coming step."""
        config = self.config
        factor = lr_factor(known(config.lr_schedule), self.step, self.steps, known(config.lr_warmup))
        return known(config.learning_rate) * factor

    @property
    def pruner(self) -> Any:
        """The optimizer's pruner; None in a dense run."""
        return self.optimizer.pruner  # type: ignore[attr-defined]

    @property
    def sparsity(self) -> float:
        """Masked weights over prunable weights, counted."""
        return 0.0 if self.pruner is None else float(self.pruner.report()["sparsity"])

    @property
    def at_target(self) -> bool:
        """Whether the masks have the run's target sparsity, to the weight."""
        return self.pruner is None or bool(self.pruner.at_target)

    def train_step(self) -> None:
        """One optimizer step.

        Raises:
            NotFiniteError: the loss, or what weights are ranked by, is NaN or infinite.
        """
        config = self.config
        images, labels = self._batches().batch(self.step % self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.zero_grad()
        with device.autocast(config.device, config.precision):
            logits = self.model(self.normalize(images))
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=known(config.label_smoothing))
        self.losses[self.step % self.steps_per_epoch] = loss.detach()
        if self.device.type == "cpu" and not math.isfinite(loss.item()):
            raise NotFiniteError(f"the loss of step {self.step + 1} is {loss.item()}")
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if config.clip_norm and not optimizer.clips_inside(config):
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.optimizer, config.clip_norm)
        try:
            self.scaler.step(self.optimizer)
        except NonFiniteScoreError as error:
            raise NotFiniteError(f"the mask update of step {self.step + 1} was refused: {error}") from error
        self.scaler.update()
        self.step += 1
        if self.step % CHECK_EVERY == 0 or self.step % self.steps_per_epoch == 0:
            self._check_losses()

    def _batches(self) -> Epoch:
        if self._epoch is None or self._epoch[0] != self.epoch:
            config = self.config
            drawn = Epoch.draw(
                self.train,
                self.info,
                batch_size=known(config.batch_size),
                augment=known(config.augment),
                seed=config.seed,
                epoch=self.epoch,
            )
            self._epoch = (self.epoch, drawn)
        return self._epoch[1]

    def _check_losses(self) -> None:
        done = (self.step - 1) % self.steps_per_epoch + 1
        finite = torch.isfinite(self.losses[:done])
        if not bool(finite.all()):
            first = int(finite.int().argmin())
            raise NotFiniteError(f"the loss of step {self.step - done + first + 1} is {self.losses[first].item()}")

    def train_loss(self) -> float:
        """Mean loss of the epoch that has just ended."""
        return float(self.losses.mean())

    def evaluate(self, split: data.Split) -> tuple[float, float]:
        """Loss and accuracy on a split."""
        return evaluate(self.model, split, self.normalize, precision=self.config.precision)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly from here. The data's order is a function of seed and step."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
            "random": device.random_state(self.config.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.losses.copy_(state["losses"])
        device.set_random_state(state["random"])
