# SPDX-License-Identifier: MIT
"""GPT-2 of 124 million weights on 0.82 billion tokens of FineWeb-Edu: what does 50 % cost at equal tokens?

    adamwprune data prepare fineweb-edu --data-dir DATA --max-tokens 1000000000
    python3 benchmarks/gpu/train_gpt2.py --data DATA --minutes 600

For a machine of one's own for a day: a run is longer than a slice elsewhere, and is gone on with like the others.
"""

from __future__ import annotations

import sys

from training import Matrix, arms, main, pruned

from adamwprune.training import RunConfig

MATRIX = Matrix(
    name="train_gpt2",
    share=0.35,
    runs=arms(
        RunConfig(model="gpt2", data="fineweb-edu", context=1024, micro_batch="40", compile=True),
        (10,),
        {"optimizer": "adamw"},
        *pruned((0.5,), "global"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(MATRIX, __doc__))
