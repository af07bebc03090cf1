# SPDX-License-Identifier: MIT
"""ResNet-50 on CIFAR-100: is the dense network as good as it should be, and what do 50, 70 and 90 % cost?

    python3 benchmarks/gpu/train_resnet50.py --data FOLDER --minutes 8

Dense SGD and AdamW, then state and magnitude at each sparsity. One seed: a run takes most of a slice.
"""

from __future__ import annotations

import sys

from training import Matrix, arms, main, pruned

from adamwprune.training import RunConfig

MATRIX = Matrix(
    name="train_resnet50",
    share=0.12,
    runs=arms(
        RunConfig(model="resnet50", data="cifar100"),
        (10,),
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        *pruned((0.7, 0.9, 0.5), "global"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(MATRIX, __doc__))
