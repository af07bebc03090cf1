# SPDX-License-Identifier: MIT
"""Time of one optimizer step against torch's fused AdamW on the same tensors.

    python benchmarks/optimizer_step.py [--model resnet50|gpt2] [--group pruned ...] [--threads 1 2] [--rounds 15]

Every run is timed between two runs of its unit, and what counts is its time over their mean. A row is the median ratio
with its quartiles. In every group but `whole` all tensors are prunable; masks are random. A group's rows go to
results/benchmarks/optimizer_step-MODEL-GROUP.json.

The groups:

pruned         the step alone (mask_grads=False), from unpruned to 95 %
masked         step and gradient masking, the latter as a pass of its own over gradients that have left the cache; where
               it happens in training, right after backward, is measured by backward_step.py
clipped        ap.clip_grad_norm_ and step, against torch's clip_grad_norm_ and fused step
whole          all parameters of the network, with the default scope
small          state of fewer bits, against the fused step in float32
channels_last  the step alone on filters in torch.channels_last, against the fused step on the same (ResNet-50)
others         other ways to keep pruned weights at zero
torchao        torchao's 8-bit AdamW; apart, because it compiles for minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import record
import rivals
import tables
import torch
from shapes import MODELS, Shapes, count, matrices, parameters
from timing import Run, paired

import adamwprune as ap
from adamwprune import kernels

#: A row's name, and a function that makes what is timed; made one at a time, so that memory is one candidate's.
Candidates = Iterator[tuple[str, Callable[[], Run]]]


def unnamed(shapes: Shapes) -> list[torch.nn.Parameter]:
    """Random weights with random gradients, as other optimizers take them."""
    return [p for _, p in parameters(shapes)]


def fused(shapes: Shapes, memory_format: torch.memory_format = torch.preserve_format) -> torch.optim.Optimizer:
    """What everything is compared with."""
    return torch.optim.AdamW(parameters(shapes, memory_format=memory_format), fused=True)


def clipped_fused(shapes: Shapes) -> Run:
    """Torch's clipping and fused step."""
    params = unnamed(shapes)
    optimizer = torch.optim.AdamW(params, fused=True)
    return lambda: (torch.nn.utils.clip_grad_norm_(params, 1.0), optimizer.step())


def at_target(
    named: list[tuple[str, torch.nn.Parameter]], sparsity: float, *, mask_grads: bool = False, **options: Any
) -> ap.AdamWPrune:
    """An AdamWPrune that has reached its target, by random masks; at sparsity 0 one that will never prune."""
    prune = ap.Prune(sparsity=sparsity, total_steps=2, start=0, end=1, every=1, score="random", mask_grads=mask_grads)
    optimizer = ap.AdamWPrune(named, fused=True, prune=prune if sparsity else None, **options)
    optimizer.step()
    if optimizer.pruner is not None and not optimizer.pruner.at_target:
        raise RuntimeError(f"the target {sparsity} was not reached")
    return optimizer


def ours(shapes: Shapes, sparsity: float, dtype: torch.dtype = torch.float32, **options: Any) -> ap.AdamWPrune:
    """:func:`at_target` on random weights and gradients."""
    return at_target(parameters(shapes, dtype), sparsity, **options)


def pruned(shapes: Shapes) -> Candidates:
    """The step alone."""
    yield "torch AdamW, for-loop", lambda: torch.optim.AdamW(parameters(shapes), foreach=False).step
    yield "torch AdamW, foreach", lambda: torch.optim.AdamW(parameters(shapes), foreach=True).step
    yield "torch AdamW, fused (against itself)", lambda: fused(shapes).step
    yield "AdamWPrune, prune=None", lambda: ours(shapes, 0).step
    waiting = ap.Prune(sparsity=0.5, total_steps=10**6)
    yield "AdamWPrune, before the ramp", lambda: ap.AdamWPrune(parameters(shapes), fused=True, prune=waiting).step
    for sparsity in (0.2, 0.3, 0.5, 0.7, 0.9, 0.95):
        yield f"AdamWPrune, {sparsity:.0%}", lambda s=sparsity: ours(shapes, s).step


def masked(shapes: Shapes) -> Candidates:
    """Step and a cold pass that masks gradients."""

    def run(optimizer: ap.AdamWPrune) -> None:
        for slot in optimizer.pruner.slots.values():
            kernels.zero_masked(slot.weight.grad, slot.mask)
        optimizer.step()

    for sparsity in (0.3, 0.5, 0.7, 0.9):
        yield f"AdamWPrune, {sparsity:.0%}", lambda s=sparsity: partial(run, ours(shapes, s, mask_grads=True))


def clipped(shapes: Shapes) -> Candidates:
    """Clipping by the norm over kept weights, and step."""

    def run(optimizer: ap.AdamWPrune) -> None:
        ap.clip_grad_norm_(optimizer, 1.0)
        optimizer.step()

    for sparsity in (0.0, 0.5, 0.9):
        name = f"AdamWPrune, {sparsity:.0%}" if sparsity else "AdamWPrune, prune=None"
        yield name, lambda s=sparsity: partial(run, ours(shapes, s))


def whole(shapes: Shapes) -> Candidates:
    """All parameters; embeddings, head, norms and biases are not pruned."""
    yield "AdamWPrune, prune=None", lambda: ours(shapes, 0).step
    for sparsity in (0.5, 0.7, 0.9):
        yield f"AdamWPrune, {sparsity:.0%}", lambda s=sparsity: ours(shapes, s).step


def small(shapes: Shapes) -> Candidates:
    """State and weights of fewer bits."""
    for sparsity in (0.0, 0.5, 0.9):
        at = f"{sparsity:.0%}" if sparsity else "prune=None"
        yield f"bfloat16 exp_avg, {at}", lambda s=sparsity: ours(shapes, s, state="bfloat16").step
        yield f"8-bit state, {at}", lambda s=sparsity: ours(shapes, s, state="8bit").step
        yield (
            f"8-bit state, bf16 weights with correction, {at}",
            lambda s=sparsity: ours(shapes, s, torch.bfloat16, state="8bit", correction=True).step,
        )


def channels_last(shapes: Shapes) -> Candidates:
    """The step alone, where channels lie next to each other in memory."""
    yield "torch AdamW, fused (against itself)", lambda: fused(shapes, torch.channels_last).step
    for sparsity in (0.0, 0.3, 0.5, 0.7, 0.9):
        name = f"AdamWPrune, {sparsity:.0%}" if sparsity else "AdamWPrune, prune=None"
        yield name, lambda s=sparsity: at_target(parameters(shapes, memory_format=torch.channels_last), s).step


def others(shapes: Shapes) -> Candidates:
    """Other ways to keep half of the weights at zero."""
    yield "the original's masks, its AdamW (AMSGrad)", lambda: rivals.original_masks(unnamed(shapes), 0.5).step
    yield (
        "the original's masks, torch's fused AdamW",
        lambda: rivals.BoolMasks(torch.optim.AdamW(unnamed(shapes), fused=True), 0.5).step,
    )
    yield "torchao PruneOptimizer, mask fixed", lambda: rivals.torchao_pruner(unnamed(shapes), 0.5, healing=True).step
    yield "torchao PruneOptimizer, pruning", lambda: rivals.torchao_pruner(unnamed(shapes), 0.5, healing=False).step


def torchao(shapes: Shapes) -> Candidates:
    """torchao's 8-bit AdamW."""
    yield "torchao AdamW8bit", lambda: rivals.torchao_8bit(unnamed(shapes)).step


GROUPS: dict[str, Callable[[Shapes], Candidates]] = {
    "pruned": pruned,
    "masked": masked,
    "clipped": clipped,
    "whole": whole,
    "small": small,
    "channels_last": channels_last,
    "others": others,
    "torchao": torchao,
}


def memory_format(group: str) -> torch.memory_format:
    """How the unit's filters lie in memory."""
    return torch.channels_last if group == "channels_last" else torch.preserve_format


def measure(model: str, group: str, threads: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows of a group."""
    torch.set_num_threads(threads)
    shapes = MODELS[model]() if group == "whole" else matrices(MODELS[model]())
    unit = clipped_fused(shapes) if group == "clipped" else fused(shapes, memory_format(group)).step
    for name, make in GROUPS[group](shapes):
        try:
            run = make()
        except ImportError as error:
            print(f"not run: {name}: {error}", flush=True)
            continue
        row = {"candidate": name, "threads": threads, **paired(run, unit, rounds).row()}
        del run, make
        print(f"{threads} thread(s)  {row['ratio']:7.3f}  {row['quartiles']}  {name}", flush=True)
        yield row


def usual_groups(model: str) -> list[str]:
    """All groups, but the one that compiles for minutes and those that differ in nothing for a network."""
    has_filters = any(len(shape) == 4 for shape in MODELS[model]().values())
    return [name for name in GROUPS if name != "torchao" and (has_filters or name != "channels_last")]


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument("--group", choices=GROUPS, nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for group in options.group or usual_groups(options.model):
        torch.manual_seed(0)
        rows = [row for threads in options.threads for row in measure(options.model, group, threads, options.rounds)]
        shapes = MODELS[options.model]()
        settings = {
            "model": options.model,
            "group": group,
            "weights": count(shapes if group == "whole" else matrices(shapes)),
            "unit": "clip_grad_norm_ and fused step of torch" if group == "clipped" else "fused step of torch",
            "rounds": options.rounds,
        }
        record.write(f"optimizer_step-{options.model}-{group}", settings, rows)
        print(tables.render(f"optimizer_step/{group}"))


if __name__ == "__main__":
    main()
