# SPDX-License-Identifier: MIT
"""Residual networks on CIFAR and ImageNet, as is usual for them: crops, flips, label smoothing, a cosine to zero.

Learning rate and decay of the Adam family turn a filter by the same angle a step as those of SGD do, once both have
settled: the square root of 2·rate·decay, 0.01 here. Cutout is that of its paper (DeVries and Taylor 2017): a square of
16 pixels for ten classes, of 8 for a hundred. Bfloat16 with channels last is what trains fastest on CPUs with matrix
units and on GPUs alike.
"""

from __future__ import annotations

from adamwprune.training.recipes.base import Family, ImageRecipe, Recipe, adam_family

FAMILIES = {
    "sgd": Family(learning_rate=0.1, weight_decay=5e-4, momentum=0.9),
    **adam_family(learning_rate=1e-3, weight_decay=0.05, coupled=5e-5),
}


def cifar(*, epochs: int, cutout: int) -> ImageRecipe:
    """A network on CIFAR; what differs is the length and the size of the square."""
    return ImageRecipe(
        epochs=epochs,
        batch_size=128,
        label_smoothing=0.1,
        cutout=cutout,
        precision="bf16",
        channels_last=True,
        families=FAMILIES,
    )


#: 90 passes over 1.27 million images.
IMAGENET = ImageRecipe(
    iterations=446_000,
    batch_size=256,
    eval_every=None,
    eval_steps=10_000,
    val_fraction=0.01,
    label_smoothing=0.1,
    precision="bf16",
    channels_last=True,
    families={
        "sgd": Family(learning_rate=0.1, weight_decay=1e-4, momentum=0.9),
        **adam_family(learning_rate=1e-3, weight_decay=0.05, coupled=1e-5),
    },
)

RECIPES: dict[tuple[str, str], Recipe] = {
    **{(network, "imagenet"): IMAGENET for network in ("resnet18", "resnet50")},
    ("resnet18", "cifar10"): cifar(epochs=100, cutout=16),
    ("resnet18", "cifar100"): cifar(epochs=100, cutout=8),
    ("resnet50", "cifar10"): cifar(epochs=150, cutout=16),
    ("resnet50", "cifar100"): cifar(epochs=150, cutout=8),
    # For a CPU; so short a run is still far from learning the images by heart.
    ("resnet20", "cifar10"): cifar(epochs=12, cutout=0),
    ("resnet20", "cifar100"): cifar(epochs=12, cutout=0),
}
