/* SPDX-License-Identifier: MIT */
/* x86 with AVX-512 (F, BW, VL): compress and expand in registers.
 *
 * A block goes through three passes. Kept weights and gradients are compressed into two small buffers; state is loaded
 * contiguous and full width, and updated; weights are expanded back. State itself is never expanded in memory: a masked
 * load that overlaps a masked store just made cannot be forwarded, and that stall costs more than the arithmetic. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "adamw.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt,bmi2")))
#define INLINE static inline __attribute__((always_inline))

TARGET INLINE __m512 widen(__m256i half)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* float32 to bfloat16, nearest even */
TARGET INLINE __m256i narrow(__m512 values)
{
    __m512i bits = _mm512_castps_si512(values);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0)));
}

/* Sixteen entries, or the first few of them at the end of an array. Masked accesses cost twice as much on some
 * processors, so they are kept for the ends. */
TARGET INLINE __m512 load(const void *source, int32_t type, int64_t start, int valid)
{
    if (type == ADAMW_F32) {
        const float *from = (const float *)source + start;
        return valid >= 16 ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps((__mmask16)((1u << valid) - 1), from);
    }
    const uint16_t *from = (const uint16_t *)source + start;
    return widen(valid >= 16 ? _mm256_loadu_si256((const void *)from)
                             : _mm256_maskz_loadu_epi16((__mmask16)((1u << valid) - 1), from));
}

TARGET INLINE void store(void *target, int32_t type, int64_t start, int valid, __m512 values)
{
    if (type == ADAMW_F32) {
        float *to = (float *)target + start;
        if (valid >= 16)
            _mm512_storeu_ps(to, values);
        else
            _mm512_mask_storeu_ps(to, (__mmask16)((1u << valid) - 1), values);
        return;
    }
    uint16_t *to = (uint16_t *)target + start;
    if (valid >= 16)
        _mm256_storeu_si256((void *)to, narrow(values));
    else
        _mm256_mask_storeu_epi16(to, (__mmask16)((1u << valid) - 1), narrow(values));
}

TARGET INLINE void step_block(const adamw_tensor *t, int64_t block, const int32_t weight_type, const int32_t state_type)
{
    _Alignas(64) float w[ADAMW_BLOCK + 16], g[ADAMW_BLOCK + 16];
    _Alignas(64) uint16_t keep[ADAMW_BLOCK / 16];
    const int64_t low = block * ADAMW_BLOCK;
    const int length = (int)(t->numel - low < ADAMW_BLOCK ? t->numel - low : ADAMW_BLOCK);
    const int64_t slot = t->bits ? t->base[block] : low;

    memset(keep, t->bits ? 0 : 0xff, sizeof keep);
    if (t->bits)
        memcpy(keep, t->bits + low / 8, (size_t)(length + 7) / 8);
    else if (length % 16)
        keep[length / 16] = (uint16_t)((1u << (length % 16)) - 1);

    int count = 0;
    for (int i = 0; i < length; i += 16) {
        const __mmask16 lanes = keep[i / 16];
        const __m512 weight = load(t->weight, weight_type, low + i, length - i);
        const __m512 grad = load(t->grad, weight_type, low + i, length - i);
        _mm512_storeu_ps(w + count, _mm512_maskz_compress_ps(lanes, weight));
        _mm512_storeu_ps(g + count, _mm512_maskz_compress_ps(lanes, grad));
        count += (int)_mm_popcnt_u32(lanes);
    }

    const int from_grad = !(t->grad_weight < 0.5f);
    const __m512 lerp = _mm512_set1_ps(from_grad ? t->grad_weight - 1.0f : t->grad_weight);
    const __m512 sign = _mm512_set1_ps(t->maximize ? -0.0f : 0.0f);
    const __m512 decay = _mm512_set1_ps(t->decay), coupled = _mm512_set1_ps(t->coupled);
    const __m512 beta2 = _mm512_set1_ps(t->beta2), square_weight = _mm512_set1_ps(t->square_weight);
    const __m512 bias2_sqrt = _mm512_set1_ps(t->bias2_sqrt), eps = _mm512_set1_ps(t->eps);
    const __m512 neg_step = _mm512_set1_ps(t->neg_step), theta = _mm512_set1_ps(t->theta);
    for (int j = 0; j < count; j += 16) {
        __m512 weight = _mm512_load_ps(w + j);
        __m512 grad = _mm512_xor_ps(_mm512_load_ps(g + j), sign);
        __m512 m = load(t->exp_avg, state_type, slot + j, count - j);
        __m512 v = load(t->exp_avg_sq, state_type, slot + j, count - j);
        if (t->theta > 0.0f) {
            const __m512 limit = _mm512_sqrt_ps(_mm512_mul_ps(theta, v));
            const __m512 least = _mm512_xor_ps(limit, _mm512_set1_ps(-0.0f));
            const __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            const __mmask16 above = _mm512_mask_cmp_ps_mask(seen, grad, limit, _CMP_GT_OQ);
            const __mmask16 below = _mm512_mask_cmp_ps_mask(seen, grad, least, _CMP_LT_OQ);
            grad = _mm512_mask_mov_ps(_mm512_mask_mov_ps(grad, above, limit), below, least);
        }
        if (t->coupled != 0.0f) /* 0 times an infinite weight would be NaN */
            grad = _mm512_add_ps(grad, _mm512_mul_ps(weight, coupled));
        weight = _mm512_mul_ps(weight, decay);
        m = _mm512_fmadd_ps(lerp, _mm512_sub_ps(grad, m), from_grad ? grad : m);
        v = _mm512_fmadd_ps(_mm512_mul_ps(square_weight, grad), grad, _mm512_mul_ps(v, beta2));
        __m512 square = v;
        if (t->max_exp_avg_sq) {
            square = _mm512_max_ps(load(t->max_exp_avg_sq, state_type, slot + j, count - j), v);
            store(t->max_exp_avg_sq, state_type, slot + j, count - j, square);
        }
        const __m512 root = _mm512_add_ps(_mm512_div_ps(_mm512_sqrt_ps(square), bias2_sqrt), eps);
        weight = _mm512_add_ps(weight, _mm512_div_ps(_mm512_mul_ps(neg_step, m), root));
        _mm512_store_ps(w + j, weight);
        store(t->exp_avg, state_type, slot + j, count - j, m);
        store(t->exp_avg_sq, state_type, slot + j, count - j, v);
    }

    /* Masked weights are zero, and are stored as zero again: full stores, and nothing else can creep in. */
    count = 0;
    for (int i = 0; i < length; i += 16) {
        const __mmask16 lanes = keep[i / 16];
        const __m512 weight = _mm512_maskz_expand_ps(lanes, _mm512_loadu_ps(w + count));
        store(t->weight, weight_type, low + i, length - i, weight);
        count += (int)_mm_popcnt_u32(lanes);
    }
}

TARGET void adamw_zero_masked_avx512(float *data, const uint8_t *bits, int64_t first, int64_t last)
{
    int64_t i = first;
    for (; i + 16 <= last; i += 16) {
        uint16_t keep;
        memcpy(&keep, bits + i / 8, 2);
        _mm512_storeu_ps(data + i, _mm512_maskz_mov_ps(keep, _mm512_loadu_ps(data + i)));
    }
    for (; i < last; i++)
        if (!(bits[i / 8] >> (i % 8) & 1))
            data[i] = 0;
}

TARGET static void step(const adamw_tensor *t, int64_t block)
{
    if (t->weight_type == ADAMW_F32)
        step_block(t, block, ADAMW_F32, ADAMW_F32);
    else if (t->state_type == ADAMW_F32)
        step_block(t, block, ADAMW_BF16, ADAMW_F32);
    else
        step_block(t, block, ADAMW_BF16, ADAMW_BF16);
}

/* From here on the compiler vectorises plain C; only the gathering is by hand. */
#if defined(__clang__)
#pragma clang attribute push(TARGET, apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,popcnt,bmi2,avx2,fma")
#endif

static inline int gather_block(const void *source, int32_t type, const uint8_t *bits, int64_t low, int length, float *out)
{
    int count = 0;
    for (int i = 0; i < length; i += 16) {
        uint16_t keep = 0;
        if (bits)
            memcpy(&keep, bits + (low + i) / 8, length - i > 8 ? 2 : 1);
        else
            keep = length - i >= 16 ? 0xffff : (uint16_t)((1u << (length - i)) - 1);
        const __m512 values = load(source, type, low + i, length - i);
        _mm512_storeu_ps(out + count, _mm512_maskz_compress_ps((__mmask16)keep, values));
        count += (int)_mm_popcnt_u32(keep);
    }
    return count;
}

/* Bits of `had` whose scores lie above the threshold; ties, which are rare, one by one. */
static inline uint64_t mark_word(uint64_t had, const float *scores, float threshold, int64_t *spare)
{
    const int count = __builtin_popcountll(had);
    const __m512 limit = _mm512_set1_ps(threshold);
    uint64_t above = 0, equal = 0;
    for (int i = 0; i < count; i += 16) {
        const __m512 values = _mm512_loadu_ps(scores + i);
        above |= (uint64_t)_mm512_cmp_ps_mask(values, limit, _CMP_GT_OQ) << i;
        equal |= (uint64_t)_mm512_cmp_ps_mask(values, limit, _CMP_EQ_OQ) << i;
    }
    const uint64_t valid = count == 64 ? ~0ull : (1ull << count) - 1;
    above &= valid;
    for (equal &= valid; equal && *spare > 0; equal &= equal - 1, --*spare)
        above |= equal & -equal;
    return _pdep_u64(above, had);
}

/* Move the entries of `stay` among those of `had` down from `source` to `target`. A full store may write behind the
 * last of them, but never past what has been read. */
static inline void move_word(float *entries, int64_t source, int64_t target, uint64_t had, uint64_t stay)
{
    uint64_t chosen = _pext_u64(stay, had);
    for (int left = __builtin_popcountll(had); left > 0; left -= 16, source += 16, chosen >>= 16) {
        const __mmask16 lanes = (__mmask16)chosen;
        const int count = (int)_mm_popcnt_u32(lanes);
        const __m512 moved =
            _mm512_maskz_compress_ps(lanes, load(entries, ADAMW_F32, source, left));
        if (left >= 16)
            _mm512_storeu_ps(entries + target, moved);
        else
            _mm512_mask_storeu_ps(entries + target, (__mmask16)((1u << count) - 1), moved);
        target += count;
    }
}

#define MARK_WORD mark_word
#define MOVE_WORD move_word
#include "select.h"

const adamw_kernels adamw_avx512 = {step, all_scores, scores_between, mark_above, compact_entries};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
