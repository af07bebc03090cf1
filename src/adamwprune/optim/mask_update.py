# SPDX-License-Identifier: MIT
"""A mask update: budgets, ranks, and new masks, tensor by tensor.

Every tensor is ranked before any is changed, so a refusal leaves everything as it was. What is held at once is one
threshold or packed mask per tensor, and a chunk of scores (natively, those near a tensor's threshold). Where the rows
of the tensors are spread over ranks, every rank calls this at the same step, and gets its rows of the masks that one
process would make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor

from adamwprune import kernels
from adamwprune.optim.slots import Slot, bounds
from adamwprune.prune.config import Prune
from adamwprune.prune.distributions import BY_SHAPE, by_cut
from adamwprune.prune.masks import Mask
from adamwprune.prune.ranks import Ranks, lowest_among, lowest_here, own_parts
from adamwprune.prune.scores import Score
from adamwprune.prune.shards import ranks_of
from adamwprune.prune.slices import View
from adamwprune.prune.thresholds import Cut, require_finite


def new_masks(
    slots: Sequence[Slot], views: Sequence[View], prune: Prune, sparsity: float, exchange_share: float
) -> Iterator[tuple[Slot, Mask]]:
    """Yield each tensor's new mask; the caller makes it the tensor's before it asks for the next.

    Args:
        slots: the tensors in scope.
        views: the same tensors as scores see them.
        prune: what the user asked for.
        sparsity: the schedule's sparsity now.
        exchange_share: share of the kept weights to exchange for masked ones.

    Raises:
        NonFiniteScoreError: a score is NaN or infinite; raised before the first mask is yielded.
    """
    ranking = prune.ranking()
    ranks = ranks_of(slot.weight for slot in slots)
    counts = _budgets(slots, views, prune, sparsity, ranks)
    swaps = [_exchanged(slot, count, exchange_share) for slot, count in zip(slots, counts, strict=True)]
    if not any(swaps) and all(count == slot.masked for slot, count in zip(slots, counts, strict=True)):
        return
    for slot, swap in zip(slots, swaps, strict=True):
        if swap and slot.exchange is not None:
            require_finite(slot.exchange, ranks)
    plans = _plans(slots, views, prune, [count + swap for count, swap in zip(counts, swaps, strict=True)], ranks)
    pattern = prune.parsed_pattern()
    remaining = list(reversed(views))
    del views
    for slot, plan, count, swap in zip(slots, plans, counts, swaps, strict=True):
        # The view goes before its tensor is compacted: it would keep the old state alive until the update is over.
        mask = plan if isinstance(plan, Mask) else remaining[-1].keep_above(plan, ranking)
        remaining.pop()
        masked = count if pattern is None else pattern.reachable(count)
        if not masked:  # a tensor that loses nothing yet stays with torch's own step
            continue
        if swap:
            mask = _regrown(slot, mask, swap, ranks)
        if ranks is not None:
            mask.elsewhere = masked - mask.masked
        yield slot, mask


def _budgets(
    slots: Sequence[Slot], views: Sequence[View], prune: Prune, sparsity: float, ranks: Ranks | None
) -> list[int]:
    """How many weights of each tensor shall be masked."""
    limits = [bounds(slot, prune) for slot in slots]
    budget = prune.budget_score()
    if budget is None or not slots:
        return BY_SHAPE[prune.distribution](limits, sparsity) if slots else []

    def cut_through(numbers: Sequence[int], count: int) -> Cut:
        return kernels.cut_through([views[i] for i in numbers], budget, count)

    return by_cut(limits, [_score_chunks(view, budget) for view in views], sparsity, ranks, cut_through)


def _score_chunks(view: View, score: Score) -> Callable[[], Iterable[Tensor]]:
    return lambda: view.scores(score)


def _plans(
    slots: Sequence[Slot], views: Sequence[View], prune: Prune, counts: Sequence[int], ranks: Ranks | None
) -> Sequence[Cut | Mask]:
    """Where each tensor's scores are cut; with a pattern, which compares neighbours, the masks themselves."""
    ranking, pattern = prune.ranking(), prune.parsed_pattern()
    if pattern is not None:
        masks = []
        for slot, view, count in zip(slots, views, counts, strict=True):
            mask, shape = view.mask or Mask.full(view.weight.numel(), view.weight.device), tuple(view.weight.shape)
            masks.append(pattern.select(view.dense_scores(ranking), mask, shape, count, ranks, slot.inputs))
        return masks
    more = [count - slot.masked for slot, count in zip(slots, counts, strict=True)]
    if ranks is None:
        return kernels.cuts(views, ranking, more)
    return own_parts(lowest_among([_score_chunks(view, ranking) for view in views], more, ranks), ranks)


def _exchanged(slot: Slot, masked: int, share: float) -> int:
    """How many kept weights to swap for masked ones."""
    if not share or slot.mask is None or slot.exchange is None:
        return 0
    kept = slot.weight.numel() - masked
    return min(int(share * kept), slot.masked, kept)


def _regrown(slot: Slot, dropped: Mask, count: int, ranks: Ranks | None) -> Mask:
    """Take back the ``count`` weights with the largest |gradient| among those masked before this update.

    (RigL, Evci et al. 2020, arXiv 1911.11134. They start again from weight zero and state zero.)
    """
    assert slot.mask is not None
    assert slot.exchange is not None
    candidates = (~slot.mask.to_bool()).nonzero().squeeze(1)
    smallness = -slot.exchange.reshape(-1)[candidates].abs()
    stays_masked = lowest_here(smallness, count, ranks).splitter()(smallness)
    keep = dropped.to_bool()
    keep[candidates[~stays_masked]] = True
    return Mask.from_bool(keep)
