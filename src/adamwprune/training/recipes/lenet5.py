# SPDX-License-Identifier: MIT
"""LeNet-5, tuned on validation accuracy with seeds below 10."""

from __future__ import annotations

from adamwprune.training.recipes.base import Family, ImageRecipe, Recipe, adam_family

RECIPES: dict[tuple[str, str], Recipe] = {
    ("lenet5", "digits"): ImageRecipe(
        epochs=25,
        batch_size=64,
        val_fraction=0.15,
        families={
            "sgd": Family(learning_rate=0.1, weight_decay=1e-3, momentum=0.9),
            **adam_family(learning_rate=4e-3, weight_decay=0.05, coupled=1e-3),
        },
    ),
    ("lenet5", "mnist"): ImageRecipe(
        epochs=10,
        batch_size=128,
        val_fraction=0.1,
        families={
            "sgd": Family(learning_rate=0.05, weight_decay=5e-4, momentum=0.9),
            **adam_family(learning_rate=4e-3, weight_decay=0.05, coupled=1e-4),
        },
    ),
}
