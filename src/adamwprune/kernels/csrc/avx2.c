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

void adamw_block_avx2(const adamw_tensor *t, int64_t block)
{
    step_block(t, block);
}

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
