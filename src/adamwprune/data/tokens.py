# SPDX-License-Identifier: MIT
"""Text as one long row of token ids, and the windows on it that batches are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A row of token ids in memory or in a mapped file; ``ids`` is uint8, or int16 that holds the bits of uint16."""

    ids: Tensor

    def __post_init__(self) -> None:
        assert self.ids.dtype in (torch.uint8, torch.int16), self.ids.dtype
        assert self.ids.ndim == 1, self.ids.shape

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Tokens:
        """A part of the row; nothing is copied."""
        return Tokens(self.ids[part])

    def to(self, device: torch.device) -> Tokens:
        """The same row on ``device``: for one that fits there."""
        return Tokens(self.ids.to(device))

    def take(self, index: Tensor) -> Tensor:
        """The ids at ``index`` (any shape), as int64."""
        ids = self.ids[index].long()
        return ids & 0xFFFF if self.ids.dtype == torch.int16 else ids

    def hold_out(self, fraction: float) -> tuple[Tokens, Tokens]:
        """What stays, and the last ``fraction`` of the row, rounded down; both are whole texts but for one cut."""
        cut = len(self) - int(fraction * len(self))
        return self[:cut], self[cut:]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``block`` tokens in the order in which they are trained on; a token's target is its successor."""

    tokens: Tokens
    block: int
    starts: Tensor

    @classmethod
    def consecutive(cls, tokens: Tokens, block: int) -> Windows:
        """The row from its start, window by window: for evaluation."""
        return cls._from(tokens, block, 0)

    @classmethod
    def shuffled(cls, tokens: Tokens, block: int, seed: int) -> Windows:
        """One epoch: windows side by side from a random offset on, in random order.

        Every token is seen once, but for those before the first window and after the last. All of it is a function of
        ``seed``, so that a run can go on at any window.
        """
        generator = torch.Generator().manual_seed(seed)
        limit = min(block, len(tokens) - block)  # a short row has less room to move
        offset = int(torch.randint(max(limit, 1), (), generator=generator))
        windows = cls._from(tokens, block, offset)
        order = torch.randperm(len(windows), generator=generator)
        return cls(tokens, block, windows.starts[order.to(windows.starts.device)])

    @classmethod
    def _from(cls, tokens: Tokens, block: int, offset: int) -> Windows:
        if block < 1 or len(tokens) < block + 1:
            raise ValueError(
                f"{len(tokens)} tokens are too few for a block of {block}: "
                f"a window and its targets take {block + 1}; use a shorter block or more text"
            )
        count = (len(tokens) - 1 - offset) // block
        return cls(tokens, block, offset + block * torch.arange(count, device=tokens.ids.device))

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (int64; windows, tokens) of ``count`` windows from number ``first`` on."""
        reach = torch.arange(self.block + 1, device=self.starts.device)
        ids = self.tokens.take(self.starts[first : first + count, None] + reach)
        return ids[:, :-1], ids[:, 1:]
