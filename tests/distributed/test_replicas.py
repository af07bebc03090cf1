# SPDX-License-Identifier: MIT
"""DistributedDataParallel with the exchange of kept gradients, against the plain exchange."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import adamwprune as ap


class Net(nn.Module):
    """Two prunable layers, one outside the scope, one that a step may not use, and a filter bank."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Linear(16, 12)
        self.spare = nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, use_spare: bool) -> Tensor:
        x = self.conv(x).mean(1).flatten(1)
        return self.head(torch.tanh((self.spare if use_spare else self.first)(x)))


def batch(step: int, rank: int) -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(10 * step + rank))


def make(hook: bool, attached: bool = False, channels_last: bool = False, bf16: bool = False, ddp=(), **settings):
    """A wrapped network and its optimizer, the same on every rank."""
    torch.manual_seed(0)
    model = Net().to(torch.bfloat16 if bf16 else torch.float32)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    settings = {"sparsity": 0.7, "total_steps": 10, "start": 1, "end": 8, "every": 2, **settings}
    groups = ap.param_groups(model, weight_decay=0.1)
    # A cap of no bytes makes a bucket of each layer or so once DDP rebuilds them, after the first step.
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, bucket_cap_mb=0.0005, **dict(ddp))
    if attached:
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        ap.attach(optimizer, ap.Prune(**{"score": "magnitude", **settings}))
    else:
        optimizer = ap.AdamWPrune(groups, lr=0.01, prune=ap.Prune(**settings))
    if hook:
        ap.reduce_kept_gradients(wrapped, optimizer)
    return wrapped, optimizer


def train(wrapped, optimizer, rank, steps=10, accumulate=1):
    """The gradient of every step, as the optimizer saw it."""
    dtype, seen = next(wrapped.parameters()).dtype, []
    for step in range(steps):
        optimizer.zero_grad()
        for micro in range(accumulate):
            last = micro == accumulate - 1
            with contextlib.nullcontext() if last else wrapped.no_sync():
                x = batch(100 * micro + step, rank).to(dtype)
                wrapped(x, use_spare=step % 3 == 2).float().square().mean().backward()
        seen.append([None if p.grad is None else p.grad.clone() for p in wrapped.parameters()])
        optimizer.step()
    return seen


def same_bits(rank, accumulate, settings):
    """Gradients, weights and masks of both exchanges."""
    plain, hooked = make(False, **settings), make(True, **settings)
    seen = [train(*pair, rank, accumulate=accumulate) for pair in (plain, hooked)]
    for step, (expected, found) in enumerate(zip(*seen, strict=True)):
        for (name, _), a, b in zip(plain[0].named_parameters(), expected, found, strict=True):
            assert (a is None) == (b is None), f"gradient of {name} at step {step}"
            assert a is None or torch.equal(a, b), f"gradient of {name} at step {step}"
    for p, q in zip(plain[0].parameters(), hooked[0].parameters(), strict=True):
        assert torch.equal(p, q)
    assert hooked[1].pruner.at_target
    masks, others = plain[1].pruner.named_masks(), hooked[1].pruner.named_masks()
    assert masks.keys() == others.keys()
    assert all(torch.equal(mask, others[name]) for name, mask in masks.items())


@pytest.mark.parametrize(
    ("accumulate", "settings"),
    [
        (1, {}),
        (2, {"ddp": (("gradient_as_bucket_view", True),)}),
        (1, {"channels_last": True}),
        (2, {"bf16": True}),
        (1, {"attached": True}),
        (1, {"score": "taylor", "distribution": "global"}),
    ],
    ids=["plain", "accumulated-bucket-view", "channels-last", "bfloat16", "attached-sgd", "taylor-global"],
)
def test_two_ranks_get_the_bits_of_the_plain_exchange(ranks, accumulate, settings):
    ranks(2, same_bits, accumulate, settings)


def whole_numbers(rank):
    """On more ranks the order of sums may differ, which does not matter where they are exact: whole numbers."""
    grads = []
    for hook in (False, True):
        torch.manual_seed(0)
        wrapped = DistributedDataParallel(nn.Sequential(nn.Linear(16, 12, bias=False)))
        prune = ap.Prune(sparsity=0.7, total_steps=4, start=0, end=1, score="magnitude")
        optimizer = ap.AdamWPrune(wrapped.module.named_parameters(), lr=0.0001, prune=prune)
        if hook:
            ap.reduce_kept_gradients(wrapped, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randint(-9, 9, (5, 16), generator=torch.Generator().manual_seed(rank))
            (3 * wrapped(x.float())).sum().backward()
            optimizer.step()
        grads.append(wrapped.module[0].weight.grad)
        assert optimizer.pruner.at_target
    assert grads[0].count_nonzero() > 40
    assert torch.equal(*grads)


def test_three_ranks(ranks):
    ranks(3, whole_numbers)


def bytes_handed_over(rank):
    """Entries of every all-reduce of a step, before and after pruning."""
    wrapped, optimizer = make(True, sparsity=0.9, total_steps=4, start=2, end=3, every=1)
    sizes, plain = [], dist.all_reduce
    dist.all_reduce = lambda tensor, *rest, **options: (sizes.append(tensor.numel()), plain(tensor, *rest, **options))[
        1
    ]
    try:
        for step in range(4):
            sizes.clear()
            train(wrapped, optimizer, rank, steps=1)
            kept = sum(p.numel() for p in wrapped.parameters()) - sum(s.masked for s in optimizer.pruner.slots.values())
            if step in (0, 1):
                assert sum(sizes) == sum(p.numel() for p in wrapped.parameters())
        assert sum(sizes) == kept
        assert optimizer.pruner.at_target
    finally:
        dist.all_reduce = plain


def test_only_kept_entries_are_handed_to_the_collective(ranks):
    ranks(2, bytes_handed_over)


def regrown(rank):
    """RigL's exchange ranks by the reduced gradient, so replicas regrow the same weights: those of one process."""
    settings = {"regrow": 0.3, "score": "magnitude"}
    wrapped, optimizer = make(True, **settings)
    train(wrapped, optimizer, rank)
    masks = optimizer.pruner.named_masks()
    torch.manual_seed(0)
    model = Net()
    prune = ap.Prune(sparsity=0.7, total_steps=10, start=1, end=8, every=2, **settings)
    single = ap.AdamWPrune(ap.param_groups(model, weight_decay=0.1), lr=0.01, prune=prune)
    for step in range(10):
        single.zero_grad()
        x = torch.cat([batch(step, 0), batch(step, 1)])
        model(x, use_spare=step % 3 == 2).square().mean().backward()
        single.step()
    for name, mask in single.pruner.named_masks().items():
        assert torch.equal(mask, masks[name]), name


def test_regrowth_compares_gradients_of_all_ranks(ranks):
    ranks(2, regrown)


def differ(rank, what):
    """What the check says on this rank."""
    exclude = ("first.*",) if what == "scope" and rank == 2 else ()
    try:
        wrapped, optimizer = make(True, exclude=exclude)
        if what == "masks":
            if rank == 1:
                wrapped.module.first.weight.data.normal_()
            train(wrapped, optimizer, rank, steps=4)
        elif what == "step":
            optimizer.pruner.step += rank == 1
            ap.check_replicas(optimizer)
    except RuntimeError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    ("what", "rank", "words"),
    [
        ("masks", 1, "masks of first.weight"),
        ("step", 1, r"step (0, 1, 0)"),
        ("scope", 2, "prunable tensors"),
    ],
)
def test_a_rank_that_differs_is_named(ranks, what, rank, words):
    message = f"of 3 ranks, {rank} differs from the others in the {words}: replicas must start from"
    for found in ranks(3, differ, what):
        assert found.startswith(message)


def test_without_a_pruner_it_is_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="has no pruner"):
        ap.check_replicas(torch.optim.AdamW(model.named_parameters()))
