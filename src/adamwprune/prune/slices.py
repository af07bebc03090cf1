# SPDX-License-Identifier: MIT
"""A prunable tensor as scores see it: float32 slices over its kept weights, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor

from adamwprune.prune.masks import BLOCK, CHUNK, Chunk, Mask, whole
from adamwprune.prune.scores import Score
from adamwprune.prune.thresholds import Cut, lowest

_TORCH_NAMES = {"m": "exp_avg", "v": "exp_avg_sq"}


@dataclass(frozen=True, slots=True)
class View:
    """One tensor at a mask update, with what the optimizer knows of it.

    ``weight`` and ``grad`` have the parameter's shape. ``exp_avg``, ``exp_avg_sq`` and ``movement`` are compact (one
    entry per kept weight, row-major) where ``compact`` is set and a mask exists, else of the parameter's shape.
    ``grad_factor`` is what the step multiplied the gradient by, None for 1.
    Where the moments are stored in codes, ``decode`` makes them float32 of a moment's name, its codes and their places.
    ``age`` counts the updates that the moments have seen since they were last zero. ``first`` is the place of the first
    weight in the whole tensor, where other ranks hold rows before these.
    """

    name: str
    weight: Tensor
    mask: Mask | None
    compact: bool
    grad: Tensor | None = None
    grad_factor: Tensor | None = None
    exp_avg: Tensor | None = None
    exp_avg_sq: Tensor | None = None
    movement: Tensor | None = None
    decode: Callable[[str, Tensor, Tensor], Tensor] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    age: int = 0
    first: int = 0

    @property
    def kept(self) -> int:
        """How many weights are kept: as many scores there are."""
        return self.weight.numel() if self.mask is None else self.mask.kept

    @property
    def blocks(self) -> int:
        """How many blocks the weights make, whether they are kept or not."""
        return -(-self.weight.numel() // BLOCK)

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """The kept weights, a chunk at a time."""
        if self.mask is None:
            return whole(self.weight.numel(), self.weight.device, size)
        return self.mask.chunks(size)

    def _chunks_for(self, score: Score) -> Iterator[Chunk]:
        return self.chunks(self.weight.numel() if score.whole else CHUNK)

    def scores(self, score: Score) -> Iterator[Tensor]:
        """Score the kept weights in order, in float32, holding a chunk at a time (a tensor where ``score.whole``)."""
        dense = {name: x.detach().reshape(-1) for name, x in (("w", self.weight), ("g", self.grad)) if x is not None}
        state = {name: x.detach().reshape(-1) for name, x in self._state() if x is not None}
        for chunk in self._chunks_for(score):
            inputs = {name: x[chunk.low : chunk.high][chunk.index].float() for name, x in dense.items()}
            for name, x in state.items():
                inputs[name] = self._moment_slice(name, x, chunk)
            if "g" in inputs and self.grad_factor is not None:
                inputs["g"] = inputs["g"] * self.grad_factor
            if "m" in inputs:
                inputs["m"] = inputs["m"] / (1.0 - self.betas[0] ** self.age)
            if "v" in inputs:
                inputs["v"] = inputs["v"] / (1.0 - self.betas[1] ** self.age)
            inputs["index"] = chunk.index + (self.first + chunk.low + (crc32(self.name.encode()) << 32))
            yield score(**inputs)

    def _state(self) -> tuple[tuple[str, Tensor | None], ...]:
        return ("m", self.exp_avg), ("v", self.exp_avg_sq), ("movement", self.movement)

    def _moment_slice(self, name: str, x: Tensor, chunk: Chunk) -> Tensor:
        part = self._state_slice(x, chunk)
        if self.decode is None or name not in _TORCH_NAMES:
            return part.float()
        return self.decode(_TORCH_NAMES[name], part, chunk.low + chunk.index)

    def _state_slice(self, x: Tensor, chunk: Chunk) -> Tensor:
        if self.compact and self.mask is not None:
            return x[chunk.start : chunk.stop]
        return x[chunk.low : chunk.high][chunk.index]

    def cut(self, score: Score, count: int) -> Cut:
        """The cut below which exactly ``count`` of the kept weights' scores lie."""
        return lowest(lambda: self.scores(score), count)

    @staticmethod
    def cuts(views: Sequence[View], score: Score, counts: Sequence[int]) -> list[Cut]:
        """:meth:`cut` of many tensors of this kind."""
        return [view.cut(score, count) for view, count in zip(views, counts, strict=True)]

    @staticmethod
    def cut_through(views: Sequence[View], score: Score, count: int) -> Cut:
        """One cut below which exactly ``count`` scores of all tensors lie."""
        return lowest(lambda: (chunk for view in views for chunk in view.scores(score)), count)

    def keep_above(self, cut: Cut, score: Score) -> Mask:
        """The mask without the weights whose scores lie below the cut."""
        keeps = cut.splitter()
        bits, kept = [torch.empty(0, dtype=torch.uint8, device=self.weight.device)], 0
        for chunk, scores in zip(self._chunks_for(score), self.scores(score), strict=True):
            keep = torch.zeros(chunk.high - chunk.low, dtype=torch.bool, device=scores.device)
            keep[chunk.index[keeps(scores)]] = True
            part = Mask.from_bool(keep)
            bits.append(part.bits)
            kept += part.kept
        return Mask(torch.cat(bits), self.weight.numel(), kept)

    def dense_scores(self, score: Score) -> Tensor:
        """Scores as float32 of the weight's shape, zero where masked: for patterns, which compare neighbours."""
        out = torch.zeros(self.weight.numel(), dtype=torch.float32, device=self.weight.device)
        for chunk, scores in zip(self._chunks_for(score), self.scores(score), strict=True):
            out[chunk.low : chunk.high].index_copy_(0, chunk.index, scores)
        return out.view(self.weight.shape)
