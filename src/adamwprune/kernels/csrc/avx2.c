/* SPDX-License-Identifier: MIT */
/* x86 with AVX2 and FMA: the portable block, vectorised by the compiler. */
#if defined(__x86_64__)
#if defined(__clang__)
#include <math.h>
#include <stdint.h>
#include <string.h>
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#include "generic.h"

const adamw_kernels adamw_avx2 = {
    step_any_block, all_scores, sample_scores,   scores_between,
    mark_open,      mark_above, compact_entries, square_sums,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
