# SPDX-License-Identifier: MIT
"""When does Adam's state prune better than magnitude? A ResNet-20 on CIFAR-10 and a LeNet-5 on MNIST.

    python experiments/when_state_pays_images.py --network resnet20 --data-dir data --results FILE.jsonl --seeds 0 1 2
        --arms 75-90/magnitude-global 75-90/state-global --sparsities 0.9

AdamW with decay 0.05 on filters and matrices, betas 0.9/0.99, warm-up for a fifth of the steps, then a line to zero. A
fifth of the training images tells how good a network is; the test set is not looked at. Pruned: what the library prunes
where nothing else is said (all but the classifier and the norms), cubic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import branching
import torch
from torch import Tensor, nn
from torch.nn import functional

import adamwprune as ap
from adamwprune.data import DatasetInfo, Split, images, load
from adamwprune.data.splits import stratified
from adamwprune.models.lenet5 import LeNet5
from adamwprune.models.resnet import RESNET20, ResNet
from adamwprune.training.batches import Epoch, Normalizer, steps_per_epoch
from adamwprune.training.epochs import Epochwise

BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """A network, its images and how long it learns them."""

    data: str
    build: Callable[[DatasetInfo, float], nn.Module]
    steps: int
    #: Steps between mask updates.
    every: int
    lr: float
    bf16: bool


RECIPES = {
    "resnet20": Recipe(
        "cifar10", lambda info, width: ResNet(RESNET20, info.shape, info.classes, width), 1000, 10, 5e-3, True
    ),
    "lenet5": Recipe("mnist", lambda info, width: LeNet5(info.shape, info.classes, width), 2000, 20, 4e-3, False),
}


class Images(branching.Training, Epochwise[Epoch]):
    """A network that learns the images of ``train``."""

    def __init__(
        self, recipe: Recipe, train: Split, val: Split, seed: int, width: float = 1.0, prune: ap.Prune | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.train, self.val, self.seed, self.lr = recipe, train, val, seed, recipe.lr
        self.info = images(recipe.data)
        self.model = recipe.build(self.info, width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = Normalizer.of(self.info, torch.device("cpu"))
        self.steps_per_epoch = steps_per_epoch(len(train), BATCH)
        self.optimizer = ap.AdamWPrune(
            branching.groups(self.model, 0.05), lr=self.lr, betas=(0.9, 0.99), fused=True, prune=prune
        )

    def lr_factor(self, step: int) -> float:
        """Warm-up, then a line to zero."""
        steps, warmup = self.recipe.steps, self.recipe.steps // 5
        return min((step + 1) / warmup, (steps - step) / (steps - warmup))

    def logits(self, pixels: Tensor) -> Tensor:
        """What the network says of a batch of images."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bf16):
            logits: Tensor = self.model(self.normalize(pixels).to(memory_format=torch.channels_last))
        return logits.float()

    def _begin(self, epoch: int) -> Epoch:
        return Epoch.draw(self.train, self.info, batch_size=BATCH, augment=True, seed=self.seed, epoch=epoch)

    def take_step(self, step: int) -> None:
        """One batch of images."""
        epoch, batch = self._epoch_of(step)
        pixels, labels = epoch.batch(batch)
        functional.cross_entropy(self.logits(pixels), labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validation(self) -> dict[str, float]:
        """Loss and accuracy over the images that were held out."""
        self.model.eval()
        loss, right = 0.0, 0
        for pixels, labels in zip(self.val.images.split(500), self.val.labels.split(500), strict=True):
            logits = self.logits(pixels)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
        return {"loss": loss / len(self.val), "accuracy": 100 * right / len(self.val)}


def setting(network: str, data_dir: Path) -> branching.Setting:
    """The experiment on a network's images."""
    recipe = RECIPES[network]
    everything = load(recipe.data, data_dir).train
    train, val = map(everything.take, stratified(everything.labels, 0.2, salt=0))
    return branching.Setting(
        steps=recipe.steps,
        every=recipe.every,
        train=lambda seed, prune: Images(recipe, train, val, seed, prune=prune),
        small={f"width-{share}": partial(Images, recipe, train, val, width=share) for share in (0.45, 0.3)},
    )


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = branching.options(__doc__, small=True)
    parser.add_argument("--network", choices=RECIPES, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = branching.Results(options.results)
    branching.run(
        setting(options.network, options.data_dir),
        results,
        options.seeds,
        options.arms,
        options.sparsities,
        options.small,
    )


if __name__ == "__main__":
    main()
