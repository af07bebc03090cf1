# SPDX-License-Identifier: MIT
"""Loss and accuracy of a network on a split."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from adamwprune.data import Split
from adamwprune.training.batches import Normalizer
from adamwprune.training.device import autocast

BATCH = 500


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, normalize: Normalizer, *, precision: str = "fp32", batch_size: int = BATCH
) -> tuple[float, float]:
    """Mean cross-entropy (no label smoothing, no augmentation) and the fraction of examples classified right.

    The model is left in the mode it was found in.
    """
    device = split.labels.device
    training = model.training
    model.eval()
    loss, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(split), batch_size):
        images, labels = split.images[start : start + batch_size], split.labels[start : start + batch_size]
        with autocast(device.type, precision):
            logits = model(normalize(images))
        loss += functional.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    model.train(training)
    return loss.item() / len(split), correct.item() / len(split)
