# SPDX-License-Identifier: MIT
"""Text as a task: windows on a row of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from adamwprune import data
from adamwprune.data import Tokens, Windows
from adamwprune.training import ranks
from adamwprune.training.batches import seed_of
from adamwprune.training.checks import check_window
from adamwprune.training.config import RunConfig, known
from adamwprune.training.epochs import Epochwise
from adamwprune.training.errors import ConfigError

#: Tokens in a batch of evaluation.
TOKENS = 1 << 13

#: A text of up to so many bytes is kept on the device; longer ones stay where they are, and each batch is sent.
RESIDENT = 4 << 30


class Text(Epochwise[Windows]):
    """Windows on a text; a token's target is its successor."""

    unit = "tokens"
    broken: Mapping[str, str] = {}

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.context, self.batch_size = known(config.context), known(config.batch_size)
        self.shape = data.load_text(known(config.data), config.data_dir)
        self.classes = self.shape.vocabulary
        train, val = self.shape.train.hold_out(known(config.val_fraction))
        # A window's last target lies one past its end.
        limit = config.eval_tokens + 1 if config.eval_tokens else None
        self.train = self._placed(train)
        for name, tokens in (("val", val), ("test", self.shape.test)):
            check_window(config, name, len(tokens))
        self.held = {"val": self._placed(val[:limit]), "test": self._placed(self.shape.test[:limit])}
        self.units_per_step = self.batch_size * self.context
        # An epoch begins at a random offset, so that its last window may be missing.
        self.steps_per_epoch = (len(self.train) - self.context) // self.context // self.batch_size
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"batch_size={self.batch_size} sequences of context={self.context} are more than the "
                f"{len(self.train)} training tokens of {config.data!r}: lower one of them"
            )
        self.example = torch.zeros(self.context, dtype=torch.int64, device=device)

    def _begin(self, epoch: int) -> Windows:
        return Windows.shuffled(self.train, self.context, seed_of("epoch", self.config.seed, epoch))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Windows in random order, every token once an epoch."""
        windows, number = self._epoch_of(step)
        share = ranks.share(self.batch_size)
        return self._sent(windows.batch(number * self.batch_size + ranks.rank() * share, share))

    def split(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows side by side from the start."""
        windows = Windows.consecutive(self.held[name], self.context)
        count = max(1, TOKENS // self.context)
        for first in ranks.mine(range(0, len(windows), count)):
            yield self._sent(windows.batch(first, count))

    def rank(self, record: Mapping[str, Any]) -> tuple[float, float]:
        """Of lower loss."""
        return -record["val_loss"], 0.0

    def _placed(self, tokens: Tokens) -> Tokens:
        return tokens.to(self.device) if tokens.ids.nbytes <= RESIDENT else tokens

    def _sent(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        return inputs.to(self.device), targets.to(self.device)
