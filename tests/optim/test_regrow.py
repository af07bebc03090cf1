# SPDX-License-Identifier: MIT
"""Regrowth against a brute-force RigL: drop the lowest scores, take back the largest gradients, anneal to the end."""

from __future__ import annotations

import math

import brute
import pytest
import torch
from lab import attached, backward, gradients, ours, plain_step, prune, weights, zeros_where_masked

from adamwprune import Prune, attach

KINDS = {"ours": ours, "attached": attached}


class Rigl:
    """Masks of tensors by score |w|; the weights come from the run, so that only selection is compared."""

    def __init__(self, named, regrow, sparsity, start, end, every):
        self.keep = {name: torch.ones_like(p, dtype=torch.bool) for name, p in named}
        self.regrow, self.sparsity, self.start, self.end = regrow, sparsity, start, end
        self.events = brute.events(start, end, every)
        self.first = True

    def update(self, step, moved, gradient):
        """``moved``: weights after the step, before the update. ``gradient``: the step's dense gradient."""
        share = brute.share("cubic", (step - self.start) / (self.end - self.start))
        anneal = (1 + math.cos(math.pi * (step - self.start) / (self.end - self.start))) / 2
        for name, keep in self.keep.items():
            masked = int((~keep).sum())
            count = brute.rounded(self.sparsity * share, keep.numel())
            swapped = 0
            if masked:
                kept = keep.numel() - count
                swapped = min(int(self.regrow * anneal * kept), masked, kept)
            live = keep.nonzero()
            scores = moved[name].abs()[keep].tolist()
            dropped = brute.lowest_positions([scores], count + swapped - masked)[0]
            dead = (~keep).nonzero()
            largest = brute.lowest_positions([(-gradient[name].abs()[~keep]).tolist()], swapped)[0]
            for i in dropped:
                keep[tuple(live[i])] = False
            for i in largest:
                keep[tuple(dead[i])] = True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("mask_grads", [True, False])
@pytest.mark.parametrize("regrow", [0.1, 0.5])
def test_masks_equal_brute_force(kind, micro, mask_grads, regrow):
    named = [(n, p) for n, p in weights([(6, 9), (3, 4, 3, 3)])]
    settings = prune(score="magnitude", regrow=regrow, mask_grads=mask_grads, sparsity=0.6, start=1, end=13, every=3)
    optimizer = KINDS[kind](named, settings, lr=0.1)
    oracle = Rigl(named, regrow, 0.6, 1, 13, 3)
    exchanged = 0
    for step in range(1, 15):
        optimizer.zero_grad()
        parts = [gradients(named, step * micro + k) for k in range(micro)]
        for part in parts:
            backward(named, part)
        total = {name: sum(p[i] for p in parts) for i, (name, _) in enumerate(named)}
        moved = {}
        event = step in oracle.events
        if event:
            moved = {name: w for (name, _), w in zip(named, plain_step(optimizer, named)[0], strict=True)}
        before = {name: keep.clone() for name, keep in oracle.keep.items()}
        optimizer.step()
        if event:
            oracle.update(step, moved, total)
        exchanged += sum(int((keep & ~before[name]).sum()) for name, keep in oracle.keep.items())
        for name, keep in optimizer.pruner.named_masks().items():
            assert torch.equal(keep, oracle.keep[name]), f"{name} at step {step}"
        if mask_grads:
            zeros_where_masked(optimizer)
    assert exchanged > 0
    assert optimizer.pruner.at_target


def test_golden_exchange():
    """jaxpruner's: drop half of 01010110 with weights -9 1 4 -1 5 8 -2 3 (score w), grow by |w|: 11001100."""
    values = torch.tensor([[-9.0, 1.0, 4.0, -1.0, 5.0, 8.0, -2.0, 3.0]])
    first = torch.tensor([[0, 1, 0, 1, 0, 1, 1, 0]])
    w = torch.nn.Parameter(first * 100.0)
    optimizer = torch.optim.SGD([("w", w)], lr=0.0)
    settings = Prune(
        sparsity=0.5,
        total_steps=100_000,
        start=1,
        end=100_000,
        every=1,
        schedule="constant",
        score=lambda w: w,
        regrow=0.51,
    )
    pruner = attach(optimizer, settings)
    for step in (1, 2):
        if step == 2:
            assert torch.equal(pruner.named_masks()["w"].int(), first)
            w.data.copy_(first * values)
        optimizer.zero_grad()
        (w * values).sum().backward()
        optimizer.step()
    assert pruner.named_masks()["w"].int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_with_empty_moments(kind):
    named = weights([(8, 8)])
    optimizer = KINDS[kind](named, prune(score="magnitude", regrow=0.5))
    before = None
    revived = 0
    for step in range(1, 15):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        optimizer.step()
        keep = optimizer.pruner.named_masks().get("layer0.weight")
        if before is not None and keep is not None:
            new = keep & ~before
            revived += int(new.sum())
            state = optimizer.state[named[0][1]]
            for x in (named[0][1].detach(), state["exp_avg"], state["exp_avg_sq"]):
                assert not x[new].count_nonzero()
        before = keep
    assert revived > 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_skipped_or_discarded_step_decide_nothing(kind):
    """The same run with and without a batch whose gradients were thrown away, right before an exchange."""
    masks = []
    for thrown in ("no", "zero_grad", "gradscaler"):
        named = weights([(8, 8)])
        optimizer = KINDS[kind](named, prune(score="magnitude", regrow=0.5))
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)
        for step in range(1, 8):
            optimizer.zero_grad()
            if step == 6 and thrown != "no":
                wild = gradients(named, 77)
                wild[0] *= 1e6
                if thrown == "gradscaler":
                    wild[0][optimizer.pruner.named_masks()["layer0.weight"]] = torch.inf
                scaler.scale(torch.zeros(()))
                backward(named, wild)
                if thrown == "gradscaler":
                    scaler.step(optimizer)
                    scaler.update(1.0)
                optimizer.zero_grad()
            backward(named, gradients(named, step))
            optimizer.step()
        masks.append(optimizer.pruner.named_masks()["layer0.weight"])
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_the_exchange_ends_with_the_ramp():
    named = weights([(16, 16)])
    optimizer = ours(named, prune(score="magnitude", regrow=0.9))
    for step in range(1, 15):
        optimizer.zero_grad()
        backward(named, gradients(named, step))
        before = optimizer.pruner.named_masks().get("layer0.weight")
        optimizer.step()
        after = optimizer.pruner.named_masks().get("layer0.weight")
        if step >= 10:
            assert not (after & ~before).any()
    assert optimizer.pruner.report()["bytes"]["workspace"] == 0
