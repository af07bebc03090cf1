# SPDX-License-Identifier: MIT
"""The live parts of a run and where it stands: one optimizer step, one evaluation, all of it saved and restored."""

from __future__ import annotations

import math
from typing import Any

import torch

from adamwprune import models
from adamwprune.models.flops import training_flops
from adamwprune.optim import clip_grad_norm_
from adamwprune.prune import NonFiniteScoreError
from adamwprune.training import device, optimizer, task, weights
from adamwprune.training.average import Average
from adamwprune.training.batches import seed_of
from adamwprune.training.config import RunConfig, known
from adamwprune.training.errors import TrainingError
from adamwprune.training.evaluate import Scores, cross_entropy, evaluate
from adamwprune.training.schedule import lr_factor

#: Steps between looks at the losses on an accelerator, where each look waits for the device.
CHECK_EVERY = 50

#: A mean training loss above so many times that of guessing, after the warm-up, is a run that has diverged.
DIVERGED = 3.0


class Run:
    """Everything a run consists of, made from a resolved config. Nothing is written; whatever cannot work fails here.

    Randomness comes from torch's generators alone, so that saving their state saves all of it.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.task = task.create(config)
        torch.manual_seed(seed_of("weights", config.seed))
        self.model = models.build(config, self.task.shape).to(self.device)
        if config.init:
            weights.load(config.init, self.model)
        self.flops_per_unit = training_flops(self.model, self.task.example) / self._units_per_example
        self.steps_per_epoch = self.task.steps_per_epoch
        self.steps = config.iterations or known(config.epochs) * self.steps_per_epoch
        #: Steps from one evaluation to the next.
        self.round = config.eval_steps or known(config.eval_every) * self.steps_per_epoch
        self.optimizer = optimizer.build(config, self.model, self.steps)
        self.average = Average(self.model, config.ema) if config.ema else None
        if self.average and self.pruner:
            self.pruner.follow(self.average.model)
        self.forward = torch.compile(self.model) if config.compile else self.model
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self.step = 0
        #: Loss of each step since the last evaluation, on the device.
        self.losses = torch.zeros(min(self.round, self.steps), device=self.device)

    @property
    def _units_per_example(self) -> int:
        return self.task.units_per_step // known(self.config.batch_size)

    @property
    def epoch(self) -> float:
        """Passes over the training data."""
        epochs = self.step / self.steps_per_epoch
        return int(epochs) if epochs == int(epochs) else round(epochs, 4)

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is evaluated and kept: the average where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def learning_rate(self) -> float:
        """Learning rate of the coming step."""
        config = self.config
        factor = lr_factor(
            known(config.lr_schedule), self.step, self.steps, known(config.lr_warmup), known(config.lr_floor)
        )
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
            TrainingError: the loss, or what weights are ranked by, is NaN or infinite; or the run has diverged.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.zero_grad()
        try:
            loss = self._backward()
        except RuntimeError as error:
            if not device.is_out_of_memory(error):
                raise
            raise TrainingError(f"out of memory at step {self.step + 1}: {self._thrift()}") from error
        place = self.step % self.round
        self.losses[place] = loss
        if self.device.type == "cpu" and not math.isfinite(loss.item()):
            raise TrainingError(f"the loss of step {self.step + 1} is {loss.item()}")
        if self.config.clip_norm and not optimizer.clips_inside(self.config):
            self.scaler.unscale_(self.optimizer)
            clip_grad_norm_(self.optimizer, self.config.clip_norm)
        try:
            self.scaler.step(self.optimizer)
        except NonFiniteScoreError as error:
            raise TrainingError(f"the mask update of step {self.step + 1} was refused: {error}") from error
        self.scaler.update()
        self.step += 1
        if self.average:
            self.average.update(self.model, self.step)
        if self.step % CHECK_EVERY == 0 or self.evaluation_due:
            self._check_losses(place + 1)

    def _backward(self) -> torch.Tensor:
        """Gradients of the coming step's batch, part by part; its mean loss."""
        config = self.config
        total = torch.zeros((), device=self.device)
        inputs, targets = self.task.batch(self.step)
        for x, y in zip(inputs.chunk(config.accumulate), targets.chunk(config.accumulate), strict=True):
            with device.autocast(config.device, known(config.precision)):
                logits = self.forward(x)
                loss = cross_entropy(logits, y, label_smoothing=known(config.label_smoothing)) / config.accumulate
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _thrift(self) -> str:
        """What would make a step take less memory."""
        config = self.config
        words = [f"raise accumulate={config.accumulate}, which keeps the result (it must divide {config.batch_size})"]
        if config.context is not None and not config.activation_checkpointing:
            words.append("turn activation_checkpointing on")
        words.append("lower batch_size" if config.context is None else "lower batch_size or context")
        return ", or ".join(words)

    @property
    def evaluation_due(self) -> bool:
        """Whether the step that was just taken ends a round, or the run."""
        return self.step % self.round == 0 or self.step == self.steps

    def _check_losses(self, done: int) -> None:
        """Look at the losses of this round, of which there are ``done``."""
        losses = self.losses[:done]
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            first = int(finite.int().argmin())
            raise TrainingError(f"the loss of step {self.step - done + first + 1} is {losses[first].item()}")
        guessing = math.log(self.task.classes)
        warm = self.step - done >= known(self.config.lr_warmup) * self.steps
        if self.evaluation_due and warm and self.train_loss() > DIVERGED * guessing:
            raise TrainingError(
                f"the run has diverged: its mean loss over the {done} steps up to step {self.step} is "
                f"{self.train_loss():.4g}, and guessing gives {guessing:.4g}; lower learning_rate or clip_norm, or "
                "raise lr_warmup"
            )

    def train_loss(self) -> float:
        """Mean loss of the round that has just ended."""
        return float(self.losses[: (self.step - 1) % self.round + 1].mean())

    def evaluate(self, split: str) -> Scores:
        """Scores on the split ``val`` or ``test``."""
        return evaluate(self.judged, self.task.split(split), self.device, known(self.config.precision))

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly from here. The data's order is a function of seed and step."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "losses": self.losses,
            "random": device.random_state(self.config.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.losses.copy_(state["losses"])
        device.set_random_state(state["random"])
