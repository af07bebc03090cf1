# SPDX-License-Identifier: MIT
"""What the native and the Triton kernels know: types that go together, and scores. Anything else is the reference's."""

from __future__ import annotations

import torch
from torch import Tensor

from adamwprune.kernels.job import Job
from adamwprune.prune.scores import SCORES, Score

#: Types of weights and gradients.
FLOATS = (torch.float32, torch.bfloat16)

#: Types of (weight, exp_avg, exp_avg_sq) that are updated in float32.
_TYPES = {
    *((weight, torch.float32, torch.float32) for weight in FLOATS),
    *((weight, torch.bfloat16, torch.float32) for weight in FLOATS),
    *((weight, torch.int8, torch.uint8) for weight in FLOATS),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16),
}

#: Scores in the order of csrc/adamw.h, which is that of Triton's constants too.
SCORE_NAMES = ("magnitude", "hybrid", "scale-aware", "state", "fisher", "taylor", "movement")


def knows_types(job: Job) -> bool:
    """Whether a job's tensors have types that are updated in float32, and its state lies row-major."""
    if not all(x.is_contiguous() for x in job.state.values() if isinstance(x, Tensor)):
        return False
    types = (job.weight.dtype, job.state["exp_avg"].dtype, job.state["exp_avg_sq"].dtype)
    return types in _TYPES and job.grad.dtype in FLOATS


def knows_score(score: Score) -> bool:
    """Whether a score is one of :data:`SCORE_NAMES`, and not a user's of the same name."""
    return score.name in SCORE_NAMES and SCORES[score.name] is score
