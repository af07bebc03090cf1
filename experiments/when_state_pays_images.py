# SPDX-License-Identifier: MIT
"""When does Adam's state prune better than magnitude? A ResNet-20 on CIFAR-10.

    python experiments/when_state_pays_images.py --data-dir data --results FILE --seeds 0 --arms 75-90/state-global

1,000 steps of 128 of the 40,000 training images (the other 10,000 tell how good a network is; the test set is not
looked at), shifted and mirrored, AdamW (lr 5e-3, betas 0.9/0.99, decay 0.05 on filters), 200 steps of warm-up, linear
to zero, bf16 autocast with channels last. Pruned: what the library prunes where nothing else is said (all but the
classifier and the norms), every 10 steps, cubic.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import branching
import torch
from torch.nn import functional

import adamwprune as ap
from adamwprune.data import Split, images, load
from adamwprune.data.splits import stratified
from adamwprune.models.resnet import RESNET20, BasicBlock, Plan, ResNet
from adamwprune.training.batches import Epoch, Normalizer, steps_per_epoch

STEPS, BATCH = 1000, 128
LR, WARMUP = 5e-3, 200
INFO = images("cifar10")


class Images(branching.Training):
    """A residual network that learns the images of ``train``."""

    lr = LR

    def __init__(
        self,
        train: Split,
        val: Split,
        seed: int,
        plan: Plan = RESNET20,
        width: float = 1.0,
        prune: ap.Prune | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.train, self.val, self.seed = train, val, seed
        self.model = ResNet(plan, INFO.shape, INFO.classes, width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = Normalizer.of(INFO, torch.device("cpu"))
        self.epochs: dict[int, Epoch] = {}
        self.optimizer = ap.AdamWPrune(
            branching.groups(self.model, 0.05), lr=LR, betas=(0.9, 0.99), fused=True, prune=prune
        )

    def lr_factor(self, step: int) -> float:
        """Warm-up, then a line to zero."""
        return min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))

    def take_step(self, step: int) -> None:
        """One batch of images."""
        epoch, number = divmod(step, steps_per_epoch(len(self.train), BATCH))
        if epoch not in self.epochs:
            drawn = Epoch.draw(self.train, INFO, batch_size=BATCH, augment=True, seed=self.seed, epoch=epoch)
            self.epochs = {epoch: drawn}
        pixels, labels = self.epochs[epoch].batch(number)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(self.normalize(pixels).to(memory_format=torch.channels_last))
        functional.cross_entropy(logits.float(), labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validation(self) -> dict[str, float]:
        """Loss and accuracy over the images that were held out."""
        self.model.eval()
        loss, right = 0.0, 0
        for pixels, labels in zip(self.val.images.split(500), self.val.labels.split(500), strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                logits = self.model(self.normalize(pixels).to(memory_format=torch.channels_last)).float()
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
        return {"loss": loss / len(self.val), "accuracy": 100 * right / len(self.val)}


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = branching.options(__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    everything = load("cifar10", options.data_dir).train
    train, val = map(everything.take, stratified(everything.labels, 0.2, salt=0))
    small = {f"width-{share}": {"width": share} for share in (0.45, 0.3)}
    setting = branching.Setting(
        steps=STEPS,
        every=10,
        train=lambda seed, prune: Images(train, val, seed, prune=prune),
        small={
            "1-block-a-stage": partial(Images, train, val, plan=Plan(BasicBlock, (1, 1, 1), 16)),
            **{name: partial(Images, train, val, **more) for name, more in small.items()},
        },
    )
    results = branching.Results(options.results)
    branching.run(setting, results, options.seeds, options.arms, options.sparsities, options.small)


if __name__ == "__main__":
    main()
