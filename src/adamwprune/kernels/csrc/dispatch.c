/* SPDX-License-Identifier: MIT */
/* What callers see: the instruction set, and ranges of blocks over a list of tensors. */
#include <string.h>

#include "adamw.h"

/* 0: portable, 1: AVX2, 2: AVX-512 */
int32_t adamw_best_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}

/* Set entries whose bit is 0 to zero: `size` bytes each, `first` to `last` of them, both multiples of 8 or the end. */
void adamw_zero_masked(void *data, int32_t size, const uint8_t *bits, int64_t first, int64_t last, int32_t isa)
{
#if defined(__x86_64__)
    if (isa == 2 && size == 4) {
        adamw_zero_masked_avx512((float *)data, bits, first, last);
        return;
    }
#endif
    for (int64_t i = first; i < last; i += 8) {
        uint32_t gone = ~(uint32_t)bits[i / 8] & 0xff;
        if (last - i < 8)
            gone &= (1u << (last - i)) - 1;
        for (; gone; gone &= gone - 1)
            memset((char *)data + (i + __builtin_ctz(gone)) * size, 0, (size_t)size);
    }
}

/* Step blocks `first` to `last` of the tensors' blocks, numbered through in order. Threads take disjoint ranges. */
void adamw_step(const adamw_tensor *tensors, int64_t count, int64_t first, int64_t last, int32_t isa)
{
    adamw_block_function step = adamw_block_scalar;
#if defined(__x86_64__)
    step = isa == 2 ? adamw_block_avx512 : isa == 1 ? adamw_block_avx2 : adamw_block_scalar;
#endif
    int64_t start = 0;
    for (int64_t i = 0; i < count && start < last; i++) {
        const int64_t blocks = (tensors[i].numel + ADAMW_BLOCK - 1) / ADAMW_BLOCK;
        const int64_t low = first > start ? first - start : 0;
        const int64_t high = last - start < blocks ? last - start : blocks;
        for (int64_t block = low; block < high; block++)
            step(&tensors[i], block);
        start += blocks;
    }
}
