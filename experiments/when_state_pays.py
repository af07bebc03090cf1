# SPDX-License-Identifier: MIT
"""When does Adam's state prune better than magnitude? A character GPT on Shakespeare, many windows and scores.

    python experiments/when_state_pays.py --text input.txt --results FILE.jsonl --seeds 0 1 2 --arms 75-90/state-global

4 blocks x 96, 2,000 steps of 24 x 128 bytes, AdamW (lr 2e-3, betas 0.9/0.98, decay 0.1 on matrices), 100 steps of
warm-up, cosine to a tenth, clipping at 1, bf16 autocast. Pruned: the blocks' four matrices, every 20 steps, cubic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import branching
import torch
from torch import Tensor
from torch.nn import functional

import adamwprune as ap
from adamwprune.models.gpt2 import GPT2, Shape

STEPS, BATCH, LENGTH = 2000, 24, 128
LR, WARMUP = 2e-3, 100
SHAPE = Shape(blocks=4, heads=4, width=96, context=LENGTH, vocabulary=256)
MATRICES = ("h.*.c_attn.weight", "h.*.c_proj.weight", "h.*.c_fc.weight")


class Characters(branching.Training):
    """A GPT that learns the first nine tenths of a text."""

    lr = LR

    def __init__(self, text: Tensor, seed: int, shape: Shape = SHAPE, prune: ap.Prune | None = None) -> None:
        torch.manual_seed(seed)
        cut = int(0.9 * len(text))
        self.train, self.val, self.seed = text[:cut], text[cut:], seed
        self.model = GPT2(shape)
        self.optimizer = ap.AdamWPrune(
            branching.groups(self.model, 0.1), lr=LR, betas=(0.9, 0.98), fused=True, prune=prune
        )

    def lr_factor(self, step: int) -> float:
        """Warm-up, then a cosine to a tenth."""
        return branching.cosine_to_a_tenth(step, STEPS, WARMUP)

    def take_step(self, step: int) -> None:
        """One batch of the text."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        at = torch.randint(len(self.train) - LENGTH, (BATCH, 1), generator=generator)
        rows = self.train[at + torch.arange(LENGTH + 1)].long()
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(rows[:, :-1])
        self.loss(logits.float().flatten(0, 1), rows).backward()
        ap.clip_grad_norm_(self.optimizer, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """What a step descends: nats per byte of a batch."""
        return functional.cross_entropy(logits, rows[:, 1:].flatten())

    @torch.no_grad()
    def validation(self) -> dict[str, float]:
        """Nats per byte over the whole validation text."""
        self.model.eval()
        rows = self.val[: len(self.val) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1).long()
        total = 0.0
        for part in rows.split(64):
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(part[:, :-1])
            total += float(
                functional.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            )
        return {"loss": total / rows[:, 1:].numel()}


def small_shapes() -> dict[str, Shape]:
    """Dense networks with about as many weights in their blocks as a sparse one keeps: narrower, and shallower."""
    shapes = {}
    for sparsity in (0.5, 0.8, 0.9, 0.95):
        for blocks in (1, 2, 4):
            width = round(SHAPE.width * math.sqrt((1 - sparsity) * SHAPE.blocks / blocks) / 4) * 4
            shapes[f"{blocks}x{width}"] = Shape(blocks=blocks, heads=4, width=width, context=LENGTH, vocabulary=256)
    return shapes


def read(path: Path) -> Tensor:
    """The bytes of a text."""
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def setting(text: Tensor, kind: Callable[..., Characters] = Characters) -> branching.Setting:
    """The experiment on a text, trained in the way of ``kind``."""
    return branching.Setting(
        steps=STEPS,
        every=20,
        train=lambda seed, prune: kind(text, seed, prune=prune),
        include=MATRICES,
        small={name: partial(Characters, text, shape=shape) for name, shape in small_shapes().items()},
    )


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = branching.options(__doc__, small=True)
    parser.add_argument("--text", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = branching.Results(options.results)
    branching.run(setting(read(options.text)), results, options.seeds, options.arms, options.sparsities, options.small)


if __name__ == "__main__":
    main()
