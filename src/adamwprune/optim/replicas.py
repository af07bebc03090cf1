# SPDX-License-Identifier: MIT
"""Replicas of a model (DistributedDataParallel): exchange the gradients of kept weights only, and stay the same.

Every rank has the same weights, moments and reduced gradients, so every rank makes the same masks. That is checked
after each mask update, by a few checksums, because a rank that has gone its own way would otherwise sum entries of
different weights.
"""

# No `from __future__ import annotations`: DDP compares a hook's annotations with its types.
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from adamwprune.optim.pruner import Pruner
from adamwprune.prune.masks import Mask


def reduce_kept_gradients(model: DistributedDataParallel, optimizer: torch.optim.Optimizer) -> None:
    """Let ``model`` exchange the gradients of kept weights only, so that bytes on the wire fall with density.

    The gradients are those of the plain exchange with masked entries zero. (The same bits on two ranks. On more, a
    collective adds the ranks' values in an order that depends on an entry's place in the message, and places differ.)
    Buckets without masks are reduced as they are. On exchange steps of ``Prune(regrow=...)`` the gradients of masked
    weights are reduced too, before they are compared. Calls :func:`check_replicas`.

    Args:
        model: the wrapped model, before its first backward pass.
        optimizer: its optimizer, with a pruner; after a checkpoint was loaded, if one is.

    Raises:
        ValueError: the optimizer has no pruner.
        RuntimeError: the ranks' masks or schedules differ already, or the model has a communication hook.
    """
    pruner = _pruner(optimizer)
    check_replicas(optimizer, model.process_group)
    model.register_comm_hook(_KeptGradients(pruner, model.process_group), _reduce)


def check_replicas(optimizer: torch.optim.Optimizer, group: dist.ProcessGroup | None = None) -> None:
    """Compare masks and schedule of all ranks: now, and after every mask update.

    Args:
        optimizer: an optimizer with a pruner; call it on every rank of the group.
        group: the ranks that hold the same weights; None: all.

    Raises:
        ValueError: the optimizer has no pruner.
        RuntimeError: they differ, here or later in ``optimizer.step()``; the message names the ranks.
    """
    pruner = _pruner(optimizer)

    def before_step(*_: object) -> None:
        for slot in pruner.slots.values():
            if slot.exchange is not None:  # recorded in a hook of the backward pass, so it is this rank's alone
                dist.all_reduce(slot.exchange.div_(dist.get_world_size(group)), group=group)

    def after_step(*_: object) -> None:
        if pruner.step == pruner.last_update:
            compare_replicas(pruner, group)

    compare_replicas(pruner, group)
    optimizer.register_step_pre_hook(before_step)
    optimizer.register_step_post_hook(after_step)


def _pruner(optimizer: torch.optim.Optimizer) -> Pruner:
    pruner = getattr(optimizer, "pruner", None)
    if not isinstance(pruner, Pruner):
        raise ValueError(
            f"this {type(optimizer).__name__} has no pruner, so every gradient is needed: use "
            "AdamWPrune(prune=...) or adamwprune.attach first"
        )
    return pruner


# ---- the exchange of gradients ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _KeptGradients:
    pruner: Pruner
    group: dist.ProcessGroup


def _reduce(state: _KeptGradients, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's communication hook: average a bucket of gradients over the ranks."""
    buffer = bucket.buffer()
    # DDP without a hook multiplies by the reciprocal, too; a division would round differently.
    buffer.mul_(1.0 / dist.get_world_size(state.group))
    parts = [
        _Part(_as_parameter(gradient, p), slot.mask if (slot := state.pruner.slots.get(p)) is not None else None)
        for gradient, p in zip(bucket.gradients(), bucket.parameters(), strict=True)
    ]
    if all(part.mask is None for part in parts):
        return _sum(buffer, state.group)
    packed = torch.empty(sum(part.kept for part in parts), dtype=buffer.dtype, device=buffer.device)
    for part, piece in zip(parts, _split(packed, parts), strict=True):
        part.pack(piece)

    def unpack(done: torch.futures.Future[Tensor]) -> Tensor:
        for part, piece in zip(parts, _split(done.value(), parts), strict=True):
            part.unpack(piece)
        return buffer

    return _sum(packed, state.group).then(unpack)


def _sum(values: Tensor, group: dist.ProcessGroup) -> torch.futures.Future[Tensor]:
    """Add up over the ranks, in place; a failed collective fails the future."""
    work = dist.all_reduce(values, group=group, async_op=True)
    assert work is not None

    def only(done: torch.futures.Future[list[Tensor]]) -> Tensor:
        return done.value()[0]

    result: torch.futures.Future[Tensor] = work.get_future().then(only)
    return result


@dataclass(frozen=True, slots=True)
class _Part:
    """One parameter's gradient inside a bucket, and what is kept of it (None: everything)."""

    gradient: Tensor
    mask: Mask | None

    @property
    def kept(self) -> int:
        return self.gradient.numel() if self.mask is None else self.mask.kept

    def pack(self, piece: Tensor) -> None:
        flat = self.gradient.reshape(-1)
        if self.mask is None:
            piece.copy_(flat)
            return
        for chunk in self.mask.chunks():
            torch.index_select(flat[chunk.low : chunk.high], 0, chunk.index, out=piece[chunk.start : chunk.stop])

    def unpack(self, piece: Tensor) -> None:
        flat = piece
        if self.mask is not None:
            flat = torch.zeros(self.mask.numel, dtype=piece.dtype, device=piece.device)
            for chunk in self.mask.chunks():
                flat[chunk.low : chunk.high].index_copy_(0, chunk.index, piece[chunk.start : chunk.stop])
        self.gradient.copy_(flat.view(self.gradient.shape))


def _split(packed: Tensor, parts: Sequence[_Part]) -> tuple[Tensor, ...]:
    return torch.split(packed, [part.kept for part in parts])


def _as_parameter(gradient: Tensor, p: Tensor) -> Tensor:
    """A bucket holds gradients in their parameter's order in memory, and shows them in row-major order."""
    return gradient if p.is_contiguous() else gradient.view(-1).as_strided(p.shape, p.stride())


# ---- the check -------------------------------------------------------------------------------------------------------


def compare_replicas(pruner: Pruner, group: dist.ProcessGroup | None = None) -> None:
    """RuntimeError, naming the ranks, where schedule, scope or masks are not the same on all of them."""
    slots = list(pruner.slots.values())
    masks = [0 if slot.mask is None else crc32(bytes(slot.mask.bits.cpu().numpy())) for slot in slots]
    update = -1 if pruner.last_update is None else pruner.last_update
    scope = crc32(repr([(slot.name, tuple(slot.weight.shape)) for slot in slots]).encode())
    device = slots[0].weight.device if slots else torch.device("cpu")
    rows = _gather([pruner.step, update, scope, crc32(repr(masks).encode())], device, group)
    for column, what in enumerate(("step", "last mask update", "prunable tensors", "masks")):
        odd = _minority([row[column] for row in rows])
        if not odd:
            continue
        if what == "masks":
            tensors = list(zip(*_gather(masks, device, group), strict=True))
            what += f" of {', '.join(s.name for s, column in zip(slots, tensors, strict=True) if _minority(column))}"
        elif what in ("step", "last mask update"):
            what += f" ({', '.join(str(row[column]) for row in rows)})"
        raise RuntimeError(
            f"of {len(rows)} ranks, {', '.join(map(str, odd))} {'differ' if len(odd) > 1 else 'differs'} from the "
            f"others in the {what}: replicas must start from the same weights and checkpoint, with the same settings, "
            "and step on the same reduced gradients"
        )


def _gather(values: Sequence[int], device: torch.device, group: dist.ProcessGroup | None) -> list[tuple[int, ...]]:
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    return [tuple(int(x) for x in row.tolist()) for row in everyone]


def _minority(values: Sequence[int]) -> list[int]:
    """Ranks whose value is not the most common one; where two are equally common, the lower rank's counts."""
    common = Counter(values).most_common(1)[0][0]
    return [rank for rank, value in enumerate(values) if value != common]
