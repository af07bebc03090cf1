# SPDX-License-Identifier: MIT
"""ResNet-18 on CIFAR-10: is the dense network as good as it should be, and what do 50, 70, 90 and 95 % cost?

    python3 benchmarks/gpu/train_resnet18.py --data FOLDER --minutes 8

Dense SGD and AdamW, then state and the best magnitude variants at each sparsity, with three seeds.
"""

from __future__ import annotations

import sys

from training import Matrix, arms, main, pruned

from adamwprune.training import RunConfig

MATRIX = Matrix(
    name="train_resnet18",
    share=0.10,
    runs=arms(
        RunConfig(model="resnet18", data="cifar10"),
        (10, 11, 12),
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        *pruned((0.7, 0.9, 0.5, 0.95), "global", "layer"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(MATRIX, __doc__))
