# SPDX-License-Identifier: MIT
"""A GPT of 30 million weights on 27 million tokens of Wikipedia, four passes: what do 50 and 80 % cost?

    adamwprune data prepare text FOLDER_WITH_BINS --data-dir DATA     (train.bin and val.bin of uint16 GPT-2 tokens)
    python3 benchmarks/gpu/train_gpt.py --data DATA --minutes 8

Dense AdamW, a dense network of half the width beside it, then state and magnitude at each sparsity, with three seeds.
"""

from __future__ import annotations

import sys

from training import Matrix, arms, main, pruned

from adamwprune.training import RunConfig

MATRIX = Matrix(
    name="train_gpt",
    share=0.30,
    runs=arms(
        RunConfig(model="gpt2-30m", data="text", context=512),
        (10, 11, 12),
        {"optimizer": "adamw"},
        *pruned((0.5, 0.8), "global", "layer"),
        {"optimizer": "adamw", "width": 0.5},
    ),
)

if __name__ == "__main__":
    sys.exit(main(MATRIX, __doc__))
