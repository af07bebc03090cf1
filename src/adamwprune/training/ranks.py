# SPDX-License-Identifier: MIT
"""The processes of one run, as ``torchrun`` starts them: each trains on its share of every batch.

One process is a run of one rank, and nothing here costs it anything. What a run writes, rank 0 writes.
"""

from __future__ import annotations

import gc
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

# Its functions take the default group that is there when it is imported as a default argument. DistributedDataParallel
# imports it; from then on the group, and gloo's threads, would live to the end of the process, where a thread that
# still lets go of a tensor aborts it.
import torch.distributed.nn.functional
from torch import Tensor, nn

from adamwprune.training.errors import ConfigError

Item = TypeVar("Item", list[int], range)


def size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if _joined() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if _joined() else int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """The ranks know each other inside; a group that is there already is used, and left."""
    if size() == 1 or _joined():
        yield
        return
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device={device!r}: several ranks train on cpu or cuda")
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {rank()} wants GPU {local} of {torch.cuda.device_count()}: "
                "start at most as many ranks on a machine as it has GPUs (torchrun --nproc-per-node)"
            )
        torch.cuda.set_device(local)
    # Tensors on the CPU go through gloo beside NCCL too: agreeing on a flag must not wait for the GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    group = weakref.ref(dist.group.WORLD)
    try:
        yield
    finally:
        gc.collect()  # DistributedDataParallel lies in a cycle, and holds the group
        dist.destroy_process_group()
        if group() is not None:
            # Caches of DTensor hold every mesh that they have seen, and a mesh its group. Its threads stay, and what
            # they still have to let go of needs the interpreter: leave it to them for a moment while it is whole.
            time.sleep(0.2)


def share(batch_size: int) -> int:
    """How much of a batch each rank computes.

    Raises:
        ConfigError: the batch cannot be split evenly.
    """
    if batch_size % size():
        raise ConfigError(f"batch_size={batch_size} cannot be split evenly between {size()} ranks: choose a multiple")
    return batch_size // size()


def mine(numbers: Item) -> Item:
    """Every so many-th of ``numbers``, so that the ranks together have all of them."""
    return numbers[rank() :: size()]


def wait() -> None:
    """Wait until every rank has come here."""
    if _joined():
        dist.barrier()


def average(value: Tensor) -> Tensor:
    """The mean over the ranks, in place."""
    if _joined():
        dist.all_reduce(value)
        value /= size()
    return value


def total(value: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if _joined():
        dist.all_reduce(value)
    return value


def most(value: int) -> int:
    """The greatest of the ranks' values."""
    if not _joined():
        return value
    everywhere = torch.tensor(value)
    dist.all_reduce(everywhere, dist.ReduceOp.MAX)
    return int(everywhere)


def anywhere(flag: bool) -> bool:
    """Whether ``flag`` is set on any rank."""
    return bool(total(torch.tensor(int(flag))).item()) if _joined() else flag


def collected(value: Tensor) -> list[Tensor]:
    """The ranks' values, of one shape, in order."""
    if not _joined():
        return [value]
    everyone = [torch.empty_like(value) for _ in range(size())]
    dist.all_gather(everyone, value)
    return everyone


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give every rank the running statistics of rank 0."""
    if _joined():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
