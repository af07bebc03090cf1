/* SPDX-License-Identifier: MIT */
/* What callers see: the instruction set, and ranges of blocks over a list of tensors. */
#include <string.h>

#include "adamw.h"
#include "filters.h"

/* Number of this interface: callers compare it before anything else, so that a stale build is never called. */
int32_t adamw_interface(void)
{
    return ADAMW_INTERFACE;
}

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

static void zero_rows(void *data, int32_t size, const uint8_t *bits, int64_t first, int64_t last, int32_t isa)
{
#if defined(__x86_64__)
    if (isa == 2 && (size == 4 || size == 2)) {
        adamw_zero_masked_avx512(data, size, bits, first, last);
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

/* Set entries whose bit is 0 to zero: `size` bytes each, `first` to `last` of them, both multiples of ADAMW_BLOCK or the
 * end. `channels` and `taps`: how filters lie in memory (filters.h); 0 channels: row-major. */
void adamw_zero_masked(void *data, int32_t size, const uint8_t *bits, int64_t first, int64_t last, int32_t channels,
                       int32_t taps, int32_t isa)
{
    if (!channels) {
        zero_rows(data, size, bits, first, last, isa);
        return;
    }
    uint32_t rows[FILTER_ROWS];
    for (int64_t low = first; low < last; low += FILTER_ROWS) {
        const int length = (int)(last - low < FILTER_ROWS ? last - low : FILTER_ROWS);
        rows_of_filters(rows, data, size, low, length, channels, taps);
        zero_rows(rows, size, bits + low / 8, 0, length, isa);
        filters_of_rows(data, rows, size, low, length, channels, taps);
    }
}

const adamw_kernels *adamw_kernels_of(int32_t isa)
{
#if defined(__x86_64__)
    if (isa)
        return isa == 2 ? &adamw_avx512 : &adamw_avx2;
#endif
    return &adamw_scalar;
}

/* Blocks `first` to `last` of a tensor of filters that lie otherwise in memory, a stretch after the other. */
static void step_filters(const adamw_tensor *tensor, int64_t first, int64_t last, const adamw_kernels *kernels)
{
    uint32_t weights[FILTER_ROWS], grads[FILTER_ROWS];
    const int size = size_of(tensor->weight_type), grad_size = size_of(tensor->grad_type), taps = tensor->taps;
    for (; first < last; first += FILTER_BLOCKS) {
        const int64_t stop = last - first < FILTER_BLOCKS ? last : first + FILTER_BLOCKS, low = first * ADAMW_BLOCK;
        const int length = (int)((stop * ADAMW_BLOCK < tensor->numel ? stop * ADAMW_BLOCK : tensor->numel) - low);
        adamw_tensor t = *tensor;
        if (t.weight_channels) {
            rows_of_filters(weights, t.weight, size, low, length, t.weight_channels, taps);
            t.weight = origin(weights, size, low);
        }
        if (t.grad_channels) {
            rows_of_filters(grads, t.grad, grad_size, low, length, t.grad_channels, taps);
            t.grad = origin(grads, grad_size, low);
        }
        for (int64_t block = first; block < stop; block++) {
            if (block + 2 * FILTER_BLOCKS <= last) { /* the next stretch, which memory has in nearly the same place */
                ask_for_block(tensor->weight, size, block + FILTER_BLOCKS);
                ask_for_block(tensor->grad, grad_size, block + FILTER_BLOCKS);
            }
            kernels->step(&t, block);
        }
        if (t.weight_channels)
            filters_of_rows(tensor->weight, weights, size, low, length, t.weight_channels, taps);
    }
}

static void step_blocks(const adamw_tensor *tensor, int64_t first, int64_t last, const adamw_kernels *kernels)
{
    if (tensor->weight_channels || tensor->grad_channels)
        step_filters(tensor, first, last, kernels);
    else
        for (int64_t block = first; block < last; block++)
            kernels->step(tensor, block);
}

/* Step blocks `first` to `last` of the tensors' blocks, numbered through in order. Threads take disjoint ranges. */
void adamw_step(const adamw_tensor *tensors, int64_t count, int64_t first, int64_t last, int32_t isa)
{
    int64_t start = 0;
    for (int64_t i = 0; i < count && start < last; i++) {
        const int64_t blocks = (tensors[i].numel + ADAMW_BLOCK - 1) / ADAMW_BLOCK;
        const int64_t low = first > start ? first - start : 0;
        const int64_t high = last - start < blocks ? last - start : blocks;
        step_blocks(&tensors[i], low, high, adamw_kernels_of(isa));
        start += blocks;
    }
}

int64_t adamw_scores(const adamw_scored *t, int64_t first, int64_t last, float *out, int32_t isa)
{
    return adamw_kernels_of(isa)->scores(t, first, last, out);
}

int64_t adamw_mark(const adamw_scored *t, float threshold, int64_t spare, uint8_t *marks, int32_t isa)
{
    return adamw_kernels_of(isa)->mark(t, threshold, spare, marks);
}

/* Compact slot of the first kept weight of each block. */
void adamw_block_starts(const uint8_t *bits, int64_t numel, int64_t *starts)
{
    const int64_t bytes = (numel + 7) / 8, step = ADAMW_BLOCK / 8;
    int64_t slot = 0;
    for (int64_t first = 0; first < bytes; first += step) {
        *starts++ = slot;
        int64_t byte = first;
        for (; byte + 8 <= bytes && byte < first + step; byte += 8) {
            uint64_t word;
            memcpy(&word, bits + byte, 8);
            slot += __builtin_popcountll(word);
        }
        for (; byte < bytes && byte < first + step; byte++)
            slot += __builtin_popcount(bits[byte]);
    }
}

void adamw_compact(const void *entries, int32_t size, const uint8_t *before, const int64_t *from, const uint8_t *after,
                   const int64_t *to, int64_t numel, int64_t kept, int64_t first, int64_t last, void *out,
                   int32_t isa)
{
    adamw_kernels_of(isa)->compact(entries, size, before, from, after, to, numel, kept, first, last, out);
}

/* Of blocks `first` to `last`, into `sums`; `channels` and `taps` as of adamw_zero_masked. */
void adamw_square_sums(const void *grad, int32_t type, const uint8_t *bits, int64_t numel, int64_t first, int64_t last,
                       int32_t channels, int32_t taps, double *sums, int32_t isa)
{
    const adamw_kernels *kernels = adamw_kernels_of(isa);
    if (!channels) {
        kernels->square_sums(grad, type, bits, numel, first, last, sums);
        return;
    }
    uint32_t rows[ADAMW_BLOCK];
    const int size = size_of(type);
    for (int64_t block = first; block < last; block++) {
        const int64_t low = block * ADAMW_BLOCK;
        rows_of_filters(rows, grad, size, low, block_length(numel, low), channels, taps);
        kernels->square_sums(origin(rows, size, low), type, bits, numel, block, block + 1, sums);
    }
}
