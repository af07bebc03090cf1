# SPDX-License-Identifier: MIT
"""In how many parts a batch is computed: the batch is the recipe's, a part of it is what memory holds.

On an accelerator parts are tried, from the whole share of a rank downwards. A process on a CPU would be ended by the
system instead of being refused memory, so there what the backward pass will need is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from adamwprune.training import device, machine, ranks
from adamwprune.training.batches import divisors, parts_of
from adamwprune.training.checks import AUTO
from adamwprune.training.config import known
from adamwprune.training.errors import ConfigError

if TYPE_CHECKING:
    from adamwprune.training.run import Run

#: What the optimizer may come to hold for each weight, in weights: moments, AMSGrad's maximum.
STATE = 3

#: What a step needs at its peak, in terms of what is kept for its backward pass: gradients of activations come on top.
PEAK = 2


def find(run: Run) -> int:
    """The fewest parts that memory holds, the same on all ranks; the run is left as it was.

    Raises:
        ConfigError: memory does not hold a single example.
    """
    share = ranks.share(known(run.config.batch_size))
    with _untouched(run):
        parts = _counted(run, share) if run.device.type == "cpu" else tried(run, share)
    parts = ranks.most(parts)
    if parts > share:
        raise ConfigError(f"micro_batch={AUTO!r}: memory does not hold {run.config.model} with a single example")
    return parts


def tried(run: Run, share: int) -> int:
    """Found by computing gradients, of less each time that memory ran out; more than ``share`` where all failed."""
    inputs, targets = run.task.batch(0)
    for parts in divisors(share):
        if _fits(run, inputs[: share // parts], targets[: share // parts]):
            return parts
        _release(run.device.type)
    return share + 1


def _fits(run: Run, inputs: Tensor, targets: Tensor) -> bool:
    """Whether memory holds two parts of a step, one after the other, beside what the optimizer will hold."""
    params = list(run.model.parameters())
    try:
        room = [torch.empty_like(p) for p in params for _ in range(STATE)]
        for _ in range(2):  # gradients are there from the second part on
            run.loss(run.model, inputs, targets).backward()  # type: ignore[no-untyped-call]
        del room
    except RuntimeError as error:
        if not device.is_out_of_memory(error):
            raise
        return False
    finally:
        for p in params:
            p.grad = None
    return True


def _counted(run: Run, share: int) -> int:
    """Found from the bytes that the backward pass of one more example keeps."""
    inputs, targets = run.task.batch(0)
    two, four = (_kept(run, *(x[:1].repeat(n, *[1] * (x.dim() - 1)) for x in (inputs, targets))) for n in (2, 4))
    example = PEAK * max(1, (four - two) // 2)
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    free = machine.free_memory() - (1 + STATE) * weights
    return parts_of(share, free // example) if free >= example else share + 1


def _kept(run: Run, inputs: Tensor, targets: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run.loss(run.model, inputs, targets)
    del loss  # it holds what was counted until here
    return sum(kept.values())


@contextmanager
def _untouched(run: Run) -> Iterator[None]:
    """Generators and running statistics are afterwards what they were."""
    random = device.random_state(run.config.device)
    buffers = [buffer.clone() for buffer in run.model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(run.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        device.set_random_state(random)
        _release(run.device.type)


def _release(name: str) -> None:
    """Give memory that torch keeps for later back to the device."""
    if name != "cpu":
        getattr(torch, name).empty_cache()
