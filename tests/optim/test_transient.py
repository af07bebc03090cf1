# SPDX-License-Identifier: MIT
"""What a mask update and a step hold beside the state: never more than about one tensor."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from lab import backward, ours, prune, weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Bytes of storages made while active: alive now, and the most that were alive at once."""

    def __init__(self, known=()):
        super().__init__()
        self.seen = {t.untyped_storage()._cdata for t in known}
        self.live = self.peak = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor.untyped_storage())
        return out

    def note(self, storage):
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        size = storage.nbytes()
        self.live += size
        self.largest = max(self.largest, size)
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.freed, key, size)

    def freed(self, key, size):
        self.seen.discard(key)
        self.live -= size


def measured(shapes, **settings):
    """Of a step with a mask update: transient bytes, the largest allocation, and bytes of the largest tensor.

    What is alive at the end is the new, smaller state; the rest of the peak is the transient.
    """
    named = weights(shapes)
    optimizer = ours(named, prune(start=1, end=3, every=1, schedule="linear", **settings))
    seen = Allocations()
    for _ in range(2):
        optimizer.zero_grad()
        backward(named, [torch.randn_like(p) for _, p in named])
        gc.collect()
        known = [value for state in optimizer.state.values() for value in state.values()]
        seen = Allocations([*known, *(p for _, p in named), *(p.grad for _, p in named)])
        with seen:
            optimizer.step()
    return seen.peak - seen.live, seen.largest, max(p.numel() for _, p in named) * 4


BIG = [(600, 500)] + [(200, 100)] * 4


@pytest.mark.parametrize(
    ("score", "distribution"),
    [("state", "layer"), ("hybrid", "global"), ("movement", "erk"), ("magnitude", "fisher"), ("random", "global")],
)
def test_no_single_allocation_exceeds_the_largest_tensor(score, distribution):
    """Index vectors are int64: twice a float tensor of as many weights."""
    _, largest, tensor = measured(BIG, score=score, distribution=distribution)
    assert largest <= 2 * tensor


@pytest.mark.parametrize("distribution", ["layer", "global"])
def test_the_transient_does_not_grow_with_the_number_of_tensors(distribution):
    few, _, tensor = measured([(500, 400)], distribution=distribution)
    many, _, _ = measured([(500, 400)] * 6, distribution=distribution)
    assert many < few + 0.5 * tensor


@pytest.mark.parametrize("distribution", ["layer", "global"])
def test_a_mask_update_holds_no_more_than_the_largest_tensor(distribution):
    """Halfway to 80 % state is compacted; the step before runs on masked, dense state."""
    transient, _, tensor = measured([(2000, 1000)], distribution=distribution, sparsity=0.8)
    assert transient <= tensor


@pytest.mark.parametrize("distribution", ["layer", "global"])
def test_old_state_goes_tensor_by_tensor(distribution):
    """Half of forty tensors' state is forty tensors; a tensor's scores, keys and indices are about sixteen."""
    tensor = 200 * 200 * 4
    named = weights([(200, 200)] * 40)
    optimizer = ours(named, prune(start=1, end=2, every=1, schedule="linear", distribution=distribution))
    for _ in range(2):
        optimizer.zero_grad()
        backward(named, [torch.randn_like(p) for _, p in named])
        gc.collect()
        seen = Allocations([*(p for _, p in named), *(p.grad for _, p in named)])
        for state in optimizer.state.values():
            for value in state.values():
                seen.note(value.untyped_storage())
        before = seen.live
        with seen:
            optimizer.step()
    assert before > 80 * tensor
    assert seen.live < before - 35 * tensor
    assert seen.peak < before + 25 * tensor


def test_selection_never_concatenates_scores():
    """Sixteen tensors under one global threshold: nothing as large as all scores is ever made."""
    _, largest, tensor = measured([(200, 150)] * 16, distribution="global")
    assert largest <= 65536 * 8
    assert largest < 16 * tensor / 3
