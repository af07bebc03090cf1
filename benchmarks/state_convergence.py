# SPDX-License-Identifier: MIT
"""What state of fewer bits does to training: final losses against float32 state, same recipe, same seeds.

    python benchmarks/state_convergence.py [--task gpt|lenet5 ...] [--seeds 0 1 2]

`gpt` is a small GPT on the Python standard library's sources, byte by byte, and its loss that on held-out files.
`lenet5` is LeNet-5 on scikit-learn's digits, and its loss that on the test split. Learning rate, weight decay, warm-up
and cosine are the same for all; the sparse half prunes to 80 % with the default settings. The rows, one per run, go to
results/benchmarks/state_convergence-TASK.json.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
import tables
import torch
from torch import Tensor, nn

import adamwprune as ap
from adamwprune import data
from adamwprune.models.gpt2 import GPT2, Shape
from adamwprune.models.lenet5 import LeNet5

SPARSITY = 0.8
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.1, 0.1
SHAPE = Shape(blocks=3, heads=4, width=96, context=64, vocabulary=256)
GPT_STEPS, GPT_BATCH, GPT_HELD_OUT = 300, 16, 256
LENET_STEPS, LENET_BATCH = 330, 64

#: Options of the optimizer, and the weights' type.
FORMS: dict[str, tuple[dict[str, Any], torch.dtype]] = {
    "float32 state": ({}, torch.float32),
    "bfloat16 exp_avg": ({"state": "bfloat16"}, torch.float32),
    "8-bit state": ({"state": "8bit"}, torch.float32),
    "8-bit state, bf16 weights with correction": ({"state": "8bit", "correction": True}, torch.bfloat16),
    "bf16 weights and state, as torch's AdamW": ({}, torch.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Task:
    """A network and its data."""

    model: nn.Module
    steps: int
    batch: Callable[[int], tuple[Tensor, Tensor]]
    """Inputs and targets of a step."""
    held_out: tuple[Tensor, Tensor]


def gpt(seed: int) -> Task:
    """Bytes to the bytes that follow."""
    found = data.load_text("stdlib", Path())
    train = data.Windows.shuffled(found.train, SHAPE.context, seed)
    test = data.Windows.consecutive(found.test, SHAPE.context)
    return Task(
        GPT2(SHAPE), GPT_STEPS, lambda step: train.batch(GPT_BATCH * step, GPT_BATCH), test.batch(0, GPT_HELD_OUT)
    )


def lenet5(seed: int) -> Task:
    """Scans to digits; batches are drawn at random."""
    found, info = data.load("digits", Path()), data.images("digits")
    generator = torch.Generator().manual_seed(seed)

    def prepared(split: data.Split) -> tuple[Tensor, Tensor]:
        return (split.images.float() / 255 - info.mean[0]) / info.std[0], split.labels

    images, labels = prepared(found.train)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (LENET_BATCH,), generator=generator)
        return images[chosen], labels[chosen]

    return Task(LeNet5(info.shape, info.classes), LENET_STEPS, batch, prepared(found.test))


TASKS = {"gpt": gpt, "lenet5": lenet5}


def train(task: Task, dtype: torch.dtype, sparsity: float, options: dict[str, Any]) -> float:
    """Loss on held-out data after the last step."""
    model = task.model.to(dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()  # running statistics need the digits
    prune = ap.Prune(sparsity=sparsity, total_steps=task.steps) if sparsity else None
    groups = ap.param_groups(model, weight_decay=WEIGHT_DECAY)
    optimizer = ap.AdamWPrune(groups, lr=LEARNING_RATE, fused=True, prune=prune, **options)
    for step in range(task.steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm_cosine((step + 1) / task.steps)
        optimizer.zero_grad()
        loss(model, *task.batch(step)).backward()
        optimizer.step()
    if optimizer.pruner is not None and not optimizer.pruner.at_target:
        raise RuntimeError(f"sparsity is {optimizer.pruner.sparsity}, not {sparsity}")
    model.eval()
    with torch.no_grad():
        return loss(model, *task.held_out).item()


def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in float32."""
    if inputs.is_floating_point():
        inputs = inputs.to(next(p for p in model.parameters() if p.dim() > 1).dtype)
    logits = model(inputs).float()
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def warm_cosine(progress: float) -> float:
    """Linear warm-up, then a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))


def main() -> None:
    """Train, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.task:
        rows = []
        for sparsity in (0.0, SPARSITY):
            for form, (settings, dtype) in FORMS.items():
                for seed in options.seeds:
                    torch.manual_seed(seed)
                    final = train(TASKS[name](seed), dtype, sparsity, settings)
                    rows.append({"form": form, "sparsity": sparsity, "seed": seed, "loss": round(final, 5)})
                    print(f"{sparsity:4.0%}  seed {seed}  loss {final:.4f}  {form}", flush=True)
        recipe = {"learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "warm_up": WARM_UP}
        shown = {"task": name, "seeds": options.seeds, "sparsity": SPARSITY, **recipe}
        record.write(f"state_convergence-{name}", shown, rows)
    print(tables.render("state_convergence"))


if __name__ == "__main__":
    main()
