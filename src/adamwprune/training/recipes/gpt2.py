# SPDX-License-Identifier: MIT
"""GPT-2 on text: warm-up, a cosine to a tenth of the peak, clipping at 1, no dropout, decay of matrices alone.

The small ones train on a CPU in minutes. The large ones keep the learning rates that are usual for their size.
"""

from __future__ import annotations

from collections.abc import Mapping

from adamwprune.training.recipes.base import Family, Recipe, TextRecipe, adam_family

#: Tokens of an evaluation: all of tiny Shakespeare's held-out text, and enough of a longer one.
EVALUATED = 1 << 17


def families(learning_rate: float, beta2: float) -> Mapping[str, Family]:
    """All optimizers at the learning rate of the Adam family; SGD's is set for clipped gradients."""
    return {
        "sgd": Family(learning_rate=0.3, weight_decay=1e-4, momentum=0.9, clip_norm=1.0),
        **adam_family(learning_rate=learning_rate, weight_decay=0.1, coupled=1e-4, beta2=beta2, clip_norm=1.0),
    }


def recipe(
    *, learning_rate: float, iterations: int, batch_size: int, eval_steps: int, beta2: float = 0.98
) -> TextRecipe:
    """A GPT-2 on a text; what differs is its length and its learning rate."""
    return TextRecipe(
        iterations=iterations,
        batch_size=batch_size,
        lr_floor=0.1,
        precision="bf16",
        val_fraction=0.05,
        eval_steps=eval_steps,
        eval_tokens=EVALUATED,
        families=families(learning_rate, beta2),
    )


TINY = recipe(learning_rate=2e-3, iterations=2000, batch_size=24, eval_steps=200)
MINI = recipe(learning_rate=1e-3, iterations=2000, batch_size=16, eval_steps=200)
#: Four passes over 27 million tokens.
MEDIUM = recipe(learning_rate=1.5e-3, iterations=3300, batch_size=64, eval_steps=300, beta2=0.95)
#: GPT-2's own sizes, on a text of a few million tokens.
SHORT = recipe(learning_rate=6e-4, iterations=2000, batch_size=32, eval_steps=200, beta2=0.95)
#: The same on a corpus: 0.82 billion tokens.
LONG = recipe(learning_rate=6e-4, iterations=10_000, batch_size=80, eval_steps=500, beta2=0.95)

TEXTS = ("stdlib", "shakespeare", "shakespeare-bpe", "text")
CORPORA = ("openwebtext", "fineweb-edu")

RECIPES: dict[tuple[str, str], Recipe] = {
    **{
        (model, text): settings
        for model, settings in (("gpt2-tiny", TINY), ("gpt2-mini", MINI), ("gpt2-30m", MEDIUM), ("gpt2", SHORT))
        for text in TEXTS
    },
    **{("gpt2", corpus): LONG for corpus in CORPORA},
}
