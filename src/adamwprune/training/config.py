# SPDX-License-Identifier: MIT
"""The one typed description of a run.

Every front end (command line, Kconfig, Python) fills in a :class:`RunConfig`; the engine reads nothing else.
``None`` means "the recipe of this model and optimizer decides"; :func:`adamwprune.training.resolve.resolve`
replaces every ``None`` by a value and validates the whole before anything runs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

OPTIMIZERS = ("sgd", "adam", "adamw", "adamwadv", "adamwspam", "adamwprune")
METHODS = ("none", "magnitude", "movement", "state")
PARALLEL = ("ddp", "fsdp")
BASES = ("adam", "adamw", "adamwadv", "adamwspam")


Value = TypeVar("Value")


def known(value: Value | None) -> Value:
    """A field that resolving has filled."""
    assert value is not None
    return value


def option(default: Any, help: str, *, science: bool = True) -> Any:
    """A field with its one-line help; ``science=False`` marks what does not decide the run's numbers."""
    return field(default=default, metadata={"help": help, "science": science})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One training run. Field help texts are the command line's and Kconfig's."""

    # What is trained
    model: str = option("lenet5", "network to train")
    width: float = option(1.0, "width multiplier of the network (small dense baselines)")
    context: int | None = option(None, "tokens in a sequence (None: what the network holds)")
    dropout: float | None = option(None, "dropout of a language model")
    init: str | None = option(None, "file of weights to begin with: a run's checkpoint, or a state dict")
    data: str | None = option(None, "data set (None: the model's default)")
    data_dir: str = option("data", "folder that holds the data sets", science=False)
    seed: int = option(0, "seed of weights, data order and augmentation")

    # How it is trained
    optimizer: str = option("adamw", "one of " + " ".join(OPTIMIZERS))
    base: str = option("adamw", "what adamwprune augments: one of " + " ".join(BASES))
    epochs: int | None = option(None, "passes over the training split")
    iterations: int | None = option(None, "optimizer steps of the run, instead of epochs")
    batch_size: int | None = option(None, "images or sequences per optimizer step")
    accumulate: int = option(1, "parts in which a batch is computed one after another, to save memory")
    micro_batch: str | None = option(
        None, "most images or sequences that a rank computes at once; auto: what memory holds"
    )
    learning_rate: float | None = option(None, "peak learning rate")
    weight_decay: float | None = option(None, "weight decay of matrices and filters; norms and biases have none")
    momentum: float | None = option(None, "momentum of sgd")
    beta1: float | None = option(None, "decay of the smoothed gradient")
    beta2: float | None = option(None, "decay of the smoothed squared gradient")
    eps: float | None = option(None, "term added to the denominator of Adam's update")
    amsgrad: bool | None = option(None, "AMSGrad (None: the base decides)")
    lr_schedule: str | None = option(None, "constant, cosine or linear (to zero)")
    lr_warmup: float | None = option(None, "share of the run in which the learning rate warms up")
    lr_floor: float | None = option(None, "share of the peak at which the schedule ends instead of zero")
    clip_norm: float | None = option(None, "clip the gradient norm to this; 0 does not clip")
    label_smoothing: float | None = option(None, "label smoothing of the loss")
    augment: bool | None = option(None, "random shifts (and flips where the data allow them)")
    cutout: int | None = option(None, "side of a square that augmentation cuts out of each image; 0: none")
    ema: float | None = option(None, "decay of an average of the weights that is evaluated in their place; 0: none")

    # What is pruned, and when
    pruning_method: str = option("none", "one of " + " ".join(METHODS))
    score: str | None = option(None, "score that ranks weights, or auto (None: the method's default)")
    target_sparsity: float | None = option(None, "fraction of prunable weights removed, in [0, 1)")
    prune_start: float | None = option(None, "start of the ramp, as a share of the run")
    prune_end: float | None = option(None, "end of the ramp, as a share of the run")
    prune_every: int | None = option(None, "optimizer steps between mask updates (0: automatic)")
    schedule: str | None = option(None, "cubic, linear, cosine or constant")
    distribution: str | None = option(None, "layer, global, erk or a score's name")
    pattern: str | None = option(None, 'empty for single weights, or "n:m"')
    regrow: float | None = option(None, "share of kept weights exchanged at a mask update")
    min_density: float | None = option(None, "no tensor keeps a smaller share of its weights than this")

    # SPAM (adamwspam, and adamwprune on that base)
    spam_theta: float | None = option(None, "clip a gradient whose square exceeds this many second moments")
    spam_interval: int | None = option(None, "steps between momentum resets (0: never)")
    spam_warmup: int | None = option(None, "steps of learning-rate warm-up after a reset")
    spam_min_age: int | None = option(None, "steps after a reset before gradients are clipped or masks updated")
    spam_zscore: float | None = option(None, "soft reset where the gradient norm's z-score exceeds this; 0: off")

    # Where and how it runs
    device: str = option("auto", "auto, cpu, cuda, mps or xpu")
    precision: str | None = option(None, "fp32, bf16 or fp16 autocast")
    channels_last: bool | None = option(None, "images in channels-last order")
    activation_checkpointing: bool = option(
        False, "compute a language model's activations again in the backward pass, to save memory", science=False
    )
    compile: bool = option(False, "train through torch.compile")
    threads: int = option(0, "CPU threads of the run (0: as torch chooses)")
    parallel: str = option("ddp", "how several ranks share a run: ddp (each holds it) or fsdp (each holds a part)")
    resume_from: str | None = option(
        None, "directory of an unfinished run to go on with, which began on another number of ranks"
    )
    deterministic: bool = option(True, "ask torch for deterministic algorithms")
    val_fraction: float | None = option(None, "share of the training examples held out for validation")
    train_examples: int | None = option(
        None, "images to train on, the same of each class for every seed (None: all that are not for validation)"
    )
    checkpoint_every: int = option(0, "optimizer steps between checkpoints (0: every epoch)", science=False)
    eval_every: int | None = option(None, "epochs between evaluations")
    eval_steps: int | None = option(None, "optimizer steps between evaluations, instead of epochs")
    eval_tokens: int | None = option(None, "tokens that an evaluation reads; 0: the whole split")
    target_accuracy: float | None = option(
        None, "validation accuracy whose first time is stored; the run goes on", science=False
    )
    target_loss: float | None = option(
        None, "validation loss whose first time is stored; the run goes on", science=False
    )

    @property
    def family(self) -> str:
        """The optimizer whose recipe and settings apply: adamwprune's are its base's."""
        return self.base if self.optimizer == "adamwprune" else self.optimizer

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some fields changed; unknown names are a TypeError."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in field order."""
        return dataclasses.asdict(self)

    def science(self) -> dict[str, Any]:
        """The fields that decide the run's numbers, in field order."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["science"]}


#: Fields that act only where something is pruned.
PRUNE_FIELDS = (
    "score", "target_sparsity", "prune_start", "prune_end", "prune_every", "schedule", "distribution", "pattern",
    "regrow", "min_density",
)  # fmt: skip

#: Fields that act only on optimizers of SPAM's family.
SPAM_FIELDS = tuple(f.name for f in dataclasses.fields(RunConfig) if f.name.startswith("spam_"))
