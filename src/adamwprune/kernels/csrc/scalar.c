/* SPDX-License-Identifier: MIT */
/* Any processor: the compiler's baseline instruction set. */
#include "generic.h"

const adamw_kernels adamw_scalar = {
    step_any_block, all_scores, sample_scores,   scores_between,
    mark_open,      mark_above, compact_entries, square_sums,
};
