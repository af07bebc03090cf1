# SPDX-License-Identifier: MIT
"""The live parts of a run and where it stands: one optimizer step, one evaluation, all of it saved and restored."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from adamwprune import models
from adamwprune.models.flops import training_flops
from adamwprune.optim import check_replicas, clip_grad_norm_, reduce_kept_gradients
from adamwprune.prune import NonFiniteScoreError
from adamwprune.training import batch_norm, device, micro_batch, optimizer, ranks, shards, task, weights
from adamwprune.training.average import Average
from adamwprune.training.batches import seed_of
from adamwprune.training.config import RunConfig, known
from adamwprune.training.errors import ConfigError, TrainingError
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

    def __init__(self, config: RunConfig, *, kept_gradients: bool = False) -> None:
        if kept_gradients and (ranks.size() == 1 or config.pruning_method == "none"):
            raise ConfigError(
                "kept_gradients=True has no effect: it is for runs that prune and that torchrun started on several "
                "ranks; leave it out"
            )
        self.config = config
        #: Whether each rank holds a part of the weights only.
        self.spread = config.parallel == "fsdp"
        if self.spread and kept_gradients:
            raise ConfigError("kept_gradients=True is for parallel='ddp': with fsdp a rank gets gradients of its rows")
        self.kept_gradients = kept_gradients
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
        self.average = Average(self.model, config.ema) if config.ema else None
        #: Parts in which a rank computes its share of a batch.
        self.parts = micro_batch.find(self) if config.micro_batch else config.accumulate
        if ranks.size() > 1:
            batch_norm.over_ranks(self.model)
        if self.spread:
            for network in [self.model] if self.average is None else [self.model, self.average.model]:
                shards.spread(network, config.device)
        self.optimizer = optimizer.build(config, self.model, self.steps)
        if self.average and self.pruner:
            self.pruner.follow(self.average.model)
        self.replica: DistributedDataParallel | None = None
        forward: torch.nn.Module = self.model
        if ranks.size() > 1 and not self.spread:
            forward = self.replica = DistributedDataParallel(self.model)
        if ranks.rank():  # rank 0 draws what one process would
            torch.manual_seed(seed_of(f"rank {ranks.rank()}", config.seed))
        self.forward = torch.compile(forward) if config.compile else forward
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self.step = 0
        #: Loss of each step since the last evaluation, on the device.
        self.losses = torch.zeros(min(self.round, self.steps), device=self.device)

    @property
    def _units_per_example(self) -> int:
        return self.task.units_per_step // known(self.config.batch_size)

    @property
    def at_once(self) -> int:
        """Examples in a part of a rank's share of a batch."""
        return ranks.share(known(self.config.batch_size)) // self.parts

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

    def agree(self) -> None:
        """Make sure that all ranks prune alike, now and at every mask update; called once, before the first step.

        Raises:
            RuntimeError: they differ already.
        """
        if self.replica and self.kept_gradients and self.pruner:
            reduce_kept_gradients(self.replica, self.optimizer)
        elif self.replica and self.pruner:
            check_replicas(self.optimizer)

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
        self.losses[place] = ranks.average(loss)
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
        total = torch.zeros((), device=self.device)
        inputs, targets = self.task.batch(self.step)
        parts = list(zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True))
        for number, (x, y) in enumerate(parts, 1):
            with self._exchange(last=number == len(parts)):
                loss = self.loss(self.forward, x, y) / len(parts)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def loss(self, network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the run minimises, on some examples."""
        with device.autocast(self.config.device, known(self.config.precision)):
            return cross_entropy(network(x), y, label_smoothing=known(self.config.label_smoothing))

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Ranks average their gradients in the backward pass of the last part, and not before."""
        return nullcontext() if last or self.replica is None else self.replica.no_sync()

    def _thrift(self) -> str:
        """What would make a step take less memory."""
        config = self.config
        if config.micro_batch:
            words = [f"give a micro_batch of less than the {self.at_once} that {config.micro_batch!r} found"]
        else:
            divides = f"it must divide {config.batch_size}"
            words = [f"raise accumulate={config.accumulate}, which keeps the result ({divides})"]
        if config.context is not None and not config.activation_checkpointing:
            words.append("turn activation_checkpointing on (the same run: --retry-failed tries it again)")
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
        """Scores on the split ``val`` or ``test``, the same on all ranks."""
        ranks.share_buffers(self.judged)
        return evaluate(
            self.judged,
            self.task.split(split),
            self.device,
            known(self.config.precision),
            together=self.task.example[None] if self.spread else None,
        )

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly from here, called on all ranks; only their generators differ.

        The data's order is a function of seed and step.
        """
        random = device.random_state(self.config.device)
        everywhere = {name: ranks.collected(state) for name, state in random.items()}
        return {
            "step": self.step,
            "model": shards.whole(self.model.state_dict()),
            "optimizer": shards.whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else shards.whole(self.average.model.state_dict()),
            "losses": self.losses,
            "parts": self.parts,
            "random": everywhere if ranks.size() > 1 else random,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`: exactly, where as many ranks made it."""
        self.step = state["step"]
        shards.load(self.model, state["model"])
        if self.average:
            shards.load(self.average.model, state["average"])
        shards.load_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.losses.copy_(state["losses"])
        random = {name: one if isinstance(one, list) else [one] for name, one in state["random"].items()}
        if all(len(states) == ranks.size() for states in random.values()):
            self.parts = state.get("parts", self.parts)
            device.set_random_state({name: states[ranks.rank()] for name, states in random.items()})
        else:  # another number of ranks: each draws something else from here on
            torch.manual_seed(seed_of(f"rank {ranks.rank()} of {ranks.size()} from step {self.step}", self.config.seed))
