# SPDX-License-Identifier: MIT
"""Tensors whose rows are spread over ranks (DTensor, as FSDP2's ``fully_shard`` makes them), seen from one rank.

Everything here takes plain tensors as well: they are whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adamwprune.prune.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Shard:
    """Which rows of a tensor this rank holds."""

    ranks: Ranks
    """Who holds the other rows."""

    first: int
    """Place of the first weight held here in the whole tensor, row-major."""


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, sharing its memory."""
    to_local = getattr(tensor, "to_local", None)
    if to_local is None:
        return tensor
    with torch.no_grad():  # with gradients it would be a view that autograd follows
        part: Tensor = to_local()
    return part


def local_gradient(p: Tensor) -> Tensor | None:
    """What this rank holds of a parameter's gradient."""
    return None if p.grad is None else local(p.grad)


def everywhere(tensor: Tensor) -> Tensor:
    """A tensor that is whole on every rank, put together where it is not."""
    full_tensor = getattr(tensor, "full_tensor", None)
    if full_tensor is None:
        return tensor
    full: Tensor = full_tensor()
    return full


def like(part: Tensor, p: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """``part``, this rank's rows, as a tensor that is spread as ``p`` is; of its shape, or of row-major ``shape``."""
    mesh: Any = getattr(p, "device_mesh", None)
    if mesh is None:
        return part
    from torch.distributed.tensor import DTensor

    # Shape and stride must be told: from uneven shards they cannot be guessed.
    if shape is None:
        return DTensor.from_local(part, mesh, _placements(p), run_check=False, shape=p.shape, stride=p.stride())
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, mesh, _placements(p), run_check=False, shape=torch.Size(shape), stride=stride)


def _placements(p: Tensor) -> tuple[Any, ...]:
    placements: tuple[Any, ...] = p.placements  # type: ignore[attr-defined]
    return placements


def shard(p: Tensor) -> Shard | None:
    """Which rows of ``p`` are here; None where all are.

    Raises:
        ValueError: it is split in another way than by consecutive rows over one dimension of its mesh.
    """
    mesh = getattr(p, "device_mesh", None)
    if mesh is None:
        return None
    placements = _placements(p)
    split = [dim for dim, placement in enumerate(placements) if not placement.is_replicate()]
    if not split:
        return None
    if len(split) > 1 or not placements[split[0]].is_shard(0):
        raise ValueError(
            f"a tensor of shape {list(p.shape)} is spread as {placements}: pruning takes tensors whose rows "
            "are sharded over one dimension of the mesh (Shard(0), as fully_shard does by default), replicated or not "
            "over the others; leave it out with exclude"
        )
    group = mesh.get_group(split[0])
    rows, place = p.shape[0], mesh.get_local_rank(split[0])
    first_row = min(place * -(-rows // mesh.size(split[0])), rows)
    return Shard(Ranks(group, local(p).device), first_row * math.prod(p.shape[1:]))


def on_any_rank(flag: bool, params: Iterable[Tensor]) -> bool:
    """Whether the flag is set on any of the ranks over whose mesh parameters are spread."""
    p = next((p for p in params if hasattr(p, "device_mesh")), None)
    if p is None:
        return flag
    count = torch.tensor(int(flag), device=local(p).device)
    for group in p.device_mesh.get_all_groups():
        dist.all_reduce(count, group=group)
    return bool(count)


def ranks_of(params: Iterable[Tensor]) -> Ranks | None:
    """The ranks over which parameters are spread; None where no one is.

    Raises:
        ValueError: some are spread and some are whole, or they are spread over different ranks.
    """
    shards = [shard(p) for p in params]
    groups = {None if each is None else each.ranks.group for each in shards}
    if len(groups) > 1:
        raise ValueError(
            "the prunable tensors are not all sharded over the same ranks, so nobody holds each weight exactly once: "
            "shard all of them with one mesh, or leave the others out with exclude"
        )
    return next((each.ranks for each in shards if each is not None), None)
