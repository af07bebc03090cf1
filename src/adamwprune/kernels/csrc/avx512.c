/* SPDX-License-Identifier: MIT */
/* x86 with AVX-512 (F, BW, VL, DQ): gathering and expanding in registers, and the common types without a detour.
 *
 * Dense state: one pass, full width. Compact state: a block goes through three passes. Kept weights and gradients are
 * gathered into two small buffers; state is loaded contiguous and full width, and updated; weights are expanded back.
 * State itself is never expanded in memory: a masked load that overlaps a masked store just made cannot be forwarded, and
 * that stall costs more than the arithmetic. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt,bmi2,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,popcnt,bmi2,avx2,fma")
#endif

#include "adamw.h"
#include "lanes.h"
#include "lanes512.h"

INLINE int gather_block(const void *source, int32_t type, const uint8_t *bits, int64_t low, int length, float *out)
{
    if (!bits) {
        load_lanes(source, type, low, length, out);
        return length;
    }
    int count = 0;
    for (int i = 0; i < length; i += 16) {
        const __mmask16 kept = kept_lanes(bits + low / 8, i, length);
        _mm512_storeu_ps(out + count, permute(places_of(kept), load(source, type, low + i, length - i)));
        count += (int)_mm_popcnt_u32(kept);
    }
    return count;
}

INLINE void scatter_block(void *target, int32_t type, const uint8_t *bits, int64_t low, int length, const float *values)
{
    if (!bits) {
        store_lanes(target, type, low, length, values);
        return;
    }
    for (int i = 0; i < length; i += 16) {
        const __mmask16 kept = kept_lanes(bits + low / 8, i, length);
        store(target, type, low + i, length - i, _mm512_maskz_expand_ps(kept, _mm512_loadu_ps(values)));
        values += _mm_popcnt_u32(kept);
    }
}

INLINE void zero_lanes(const uint8_t *bits, int length, float *values)
{
    for (int i = 0; i < length; i += 16) {
        const __m512 here = load(values, ADAMW_F32, i, length - i);
        store(values, ADAMW_F32, i, length - i, _mm512_maskz_mov_ps(kept_lanes(bits, i, length), here));
    }
}

#include "block.h"

/* Sixteen lanes' update; the moments and, with AMSGrad, the largest second one are changed. Returns the new weights. */
INLINE __m512 update16(const adamw_tensor *t, __m512 weight, __m512 grad, __m512 *first, __m512 *second, __m512 *largest)
{
    const int from_grad = !(t->grad_weight < 0.5f);
    const __m512 lerp = _mm512_set1_ps(from_grad ? t->grad_weight - 1.0f : t->grad_weight);
    const __m512 sign = _mm512_set1_ps(t->maximize ? -0.0f : 0.0f);
    __m512 m = *first, v = *second;
    grad = _mm512_xor_ps(_mm512_mul_ps(grad, _mm512_set1_ps(t->scale)), sign);
    if (t->theta > 0.0f) {
        const __m512 limit = _mm512_sqrt_ps(_mm512_mul_ps(_mm512_set1_ps(t->theta), v));
        const __m512 least = _mm512_xor_ps(limit, _mm512_set1_ps(-0.0f));
        const __mmask16 seen = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        const __mmask16 above = _mm512_mask_cmp_ps_mask(seen, grad, limit, _CMP_GT_OQ);
        const __mmask16 below = _mm512_mask_cmp_ps_mask(seen, grad, least, _CMP_LT_OQ);
        grad = _mm512_mask_mov_ps(_mm512_mask_mov_ps(grad, above, limit), below, least);
    }
    if (t->coupled != 0.0f) /* 0 times an infinite weight would be NaN */
        grad = _mm512_add_ps(grad, _mm512_mul_ps(weight, _mm512_set1_ps(t->coupled)));
    weight = _mm512_mul_ps(weight, _mm512_set1_ps(t->decay));
    m = _mm512_fmadd_ps(lerp, _mm512_sub_ps(grad, m), from_grad ? grad : m);
    v = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(t->square_weight), grad), grad,
                        _mm512_mul_ps(v, _mm512_set1_ps(t->beta2)));
    __m512 square = v;
    if (largest)
        square = *largest = _mm512_max_ps(*largest, v);
    const __m512 root = _mm512_add_ps(_mm512_div_ps(_mm512_sqrt_ps(square), _mm512_set1_ps(t->bias2_sqrt)),
                                      _mm512_set1_ps(t->eps));
    *first = m;
    *second = v;
    return _mm512_add_ps(weight, _mm512_div_ps(_mm512_mul_ps(_mm512_set1_ps(t->neg_step), m), root));
}

/* State lies as the weights do: no mask, or one whose masked lanes are stored as zero. */
INLINE void step_dense(const adamw_tensor *tensor, int64_t block, const int32_t weight_type, const int32_t first_type,
                       const int32_t second_type)
{
    const adamw_tensor copy = *tensor, *t = &copy; /* which no store can change: settings stay in registers */
    const int64_t low = block * ADAMW_BLOCK;
    const int length = block_length(t->numel, low);
    for (int i = 0; i < length; i += 16) {
        const int valid = length - i;
        const __mmask16 kept = t->bits ? kept_lanes(t->bits + low / 8, i, length) : 0xffff;
        __m512 m = load(t->exp_avg, first_type, low + i, valid), v = load(t->exp_avg_sq, second_type, low + i, valid), x;
        if (t->max_exp_avg_sq)
            x = load(t->max_exp_avg_sq, second_type, low + i, valid);
        const __m512 w = update16(t, load(t->weight, weight_type, low + i, valid),
                                  load(t->grad, weight_type, low + i, valid), &m, &v, t->max_exp_avg_sq ? &x : 0);
        store(t->weight, weight_type, low + i, valid, _mm512_maskz_mov_ps(kept, w));
        store(t->exp_avg, first_type, low + i, valid, _mm512_maskz_mov_ps(kept, m));
        store(t->exp_avg_sq, second_type, low + i, valid, _mm512_maskz_mov_ps(kept, v));
        if (t->max_exp_avg_sq)
            store(t->max_exp_avg_sq, second_type, low + i, valid, _mm512_maskz_mov_ps(kept, x));
    }
}

/* The kept ones of `length` weights from `low` on, their gradients and, unless it is NULL, their `places` in the tensor.
 * Returns how many there are; 16 entries more may be written. */
INLINE int gather_kept(const adamw_tensor *t, const int32_t weight_type, int64_t low, int length, float *w, float *g,
                       uint32_t *places)
{
    int count = 0;
    for (int i = 0; i < length; i += 16) {
        const __mmask16 kept = kept_lanes(t->bits + low / 8, i, length);
        const __m512 weight = load(t->weight, weight_type, low + i, length - i);
        const __m512 grad = load(t->grad, weight_type, low + i, length - i);
        prefetch(t->weight, weight_type, low + i + ADAMW_BLOCK);
        prefetch(t->grad, weight_type, low + i + ADAMW_BLOCK);
        const __m512i lanes = places_of(kept);
        _mm512_storeu_ps(w + count, permute(lanes, weight));
        _mm512_storeu_ps(g + count, permute(lanes, grad));
        if (places)
            _mm512_storeu_si512(places + count, _mm512_permutexvar_epi32(lanes, iota(low + i)));
        count += (int)_mm_popcnt_u32(kept);
    }
    return count;
}

INLINE void step_compact(const adamw_tensor *tensor, int64_t block, const int32_t weight_type, const int32_t first_type,
                         const int32_t second_type)
{
    const adamw_tensor copy = *tensor, *t = &copy; /* which no store can change: settings stay in registers */
    _Alignas(64) float w[LANES], g[LANES];
    const int64_t low = block * ADAMW_BLOCK, slot = t->base[block];
    const int length = block_length(t->numel, low);
    const int count = gather_kept(t, weight_type, low, length, w, g, 0);
    for (int j = 0; j < count; j += 16) {
        const int valid = count - j;
        prefetch(t->exp_avg, first_type, slot + count + j);
        prefetch(t->exp_avg_sq, second_type, slot + count + j);
        __m512 m = load(t->exp_avg, first_type, slot + j, valid), v = load(t->exp_avg_sq, second_type, slot + j, valid), x;
        if (t->max_exp_avg_sq)
            x = load(t->max_exp_avg_sq, second_type, slot + j, valid);
        _mm512_store_ps(w + j, update16(t, _mm512_load_ps(w + j), _mm512_load_ps(g + j), &m, &v,
                                        t->max_exp_avg_sq ? &x : 0));
        store(t->exp_avg, first_type, slot + j, valid, m);
        store(t->exp_avg_sq, second_type, slot + j, valid, v);
        if (t->max_exp_avg_sq)
            store(t->max_exp_avg_sq, second_type, slot + j, valid, x);
    }
    /* Masked weights are zero, and are stored as zero again: full stores, and nothing else can creep in. */
    scatter_block(t->weight, weight_type, t->bits, low, length, w);
}

INLINE void step_types(const adamw_tensor *t, int64_t block, const int32_t weight_type, const int32_t first_type,
                       const int32_t second_type)
{
    if (t->bits && !t->dense_state)
        step_compact(t, block, weight_type, first_type, second_type);
    else
        step_dense(t, block, weight_type, first_type, second_type);
}

#include "coded512.h"

static void step(const adamw_tensor *t, int64_t block)
{
    const int32_t w = t->weight_type, m = t->first_type, v = t->second_type;
    if (t->grad_type != w || (t->correction && m != ADAMW_I8))
        step_any_block(t, block);
    else if (m == ADAMW_I8 && t->correction)
        step_coded(t, block, ADAMW_BF16, 1);
    else if (m == ADAMW_I8 && w == ADAMW_BF16)
        step_coded(t, block, ADAMW_BF16, 0);
    else if (m == ADAMW_I8)
        step_coded(t, block, ADAMW_F32, 0);
    else if (w == ADAMW_F32 && m == ADAMW_F32)
        step_types(t, block, ADAMW_F32, ADAMW_F32, ADAMW_F32);
    else if (w == ADAMW_F32)
        step_types(t, block, ADAMW_F32, ADAMW_BF16, ADAMW_F32);
    else if (m == ADAMW_F32)
        step_types(t, block, ADAMW_BF16, ADAMW_F32, ADAMW_F32);
    else if (v == ADAMW_F32)
        step_types(t, block, ADAMW_BF16, ADAMW_BF16, ADAMW_F32);
    else
        step_types(t, block, ADAMW_BF16, ADAMW_BF16, ADAMW_BF16);
}

/* Sixteen scores of one kind, as score_lanes makes them. */
INLINE __m512 score16(const int32_t score, const adamw_scored *t, __m512 w, __m512 g, __m512 m, __m512 v)
{
    const __m512 eps = _mm512_set1_ps(t->eps);
    m = _mm512_abs_ps(_mm512_div_ps(m, _mm512_set1_ps(t->bias1)));
    v = _mm512_sqrt_ps(_mm512_div_ps(v, _mm512_set1_ps(t->bias2)));
    if (score == ADAMW_MAGNITUDE)
        return _mm512_abs_ps(w);
    if (score == ADAMW_HYBRID)
        return _mm512_div_ps(_mm512_mul_ps(_mm512_mul_ps(w, w), m), _mm512_add_ps(v, eps));
    if (score == ADAMW_SCALE_AWARE)
        return _mm512_div_ps(_mm512_mul_ps(_mm512_abs_ps(w), v), _mm512_add_ps(m, eps));
    if (score == ADAMW_STATE)
        return _mm512_mul_ps(_mm512_abs_ps(w), _mm512_sqrt_ps(v));
    if (score == ADAMW_FISHER)
        return _mm512_mul_ps(_mm512_abs_ps(w), v);
    return _mm512_abs_ps(_mm512_mul_ps(w, g));
}

INLINE void score_all(const int32_t score, const adamw_scored *t, int count, const float *w, const float *g, const float *m,
                      const float *v, float *out)
{
    const adamw_scored copy = *t; /* which no store can change: settings stay in registers */
    for (int i = 0; i < count; i += 16) /* the arrays have room for a whole vector more */
        _mm512_storeu_ps(out + i, score16(score, &copy, _mm512_loadu_ps(w + i), _mm512_loadu_ps(g + i),
                                          _mm512_loadu_ps(m + i), _mm512_loadu_ps(v + i)));
}

static inline void score_lanes(const adamw_scored *t, int count, const float *w, const float *g, const float *m,
                               const float *v, float *out)
{
    switch (t->score) {
    case ADAMW_MAGNITUDE:
        score_all(ADAMW_MAGNITUDE, t, count, w, g, m, v, out);
        break;
    case ADAMW_HYBRID:
        score_all(ADAMW_HYBRID, t, count, w, g, m, v, out);
        break;
    case ADAMW_SCALE_AWARE:
        score_all(ADAMW_SCALE_AWARE, t, count, w, g, m, v, out);
        break;
    case ADAMW_STATE:
        score_all(ADAMW_STATE, t, count, w, g, m, v, out);
        break;
    case ADAMW_FISHER:
        score_all(ADAMW_FISHER, t, count, w, g, m, v, out);
        break;
    default:
        score_all(ADAMW_TAYLOR, t, count, w, g, m, v, out);
    }
}

static inline void split_scores(int count, const float *scores, float low, float high, uint64_t *over, uint64_t *inside,
                                int64_t *bad, float *out)
{
    const __m512 least = _mm512_set1_ps(low), most = _mm512_set1_ps(high), infinite = _mm512_set1_ps(INFINITY);
    uint64_t above = 0, within = 0;
    for (int i = 0; i < count; i += 16) {
        const __mmask16 lanes = first_lanes(count - i);
        const __m512 values = _mm512_loadu_ps(scores + i);
        const __mmask16 more = _mm512_mask_cmp_ps_mask(lanes, values, most, _CMP_GT_OQ);
        const __mmask16 here = _mm512_mask_cmp_ps_mask(lanes, values, least, _CMP_NLT_UQ) & (__mmask16)~more;
        *bad += _mm_popcnt_u32(_mm512_mask_cmp_ps_mask(lanes, _mm512_abs_ps(values), infinite, _CMP_NLT_UQ));
        above |= (uint64_t)more << i;
        within |= (uint64_t)here << i;
        _mm512_storeu_ps(out, _mm512_maskz_compress_ps(here, values)); /* always, so that nothing branches on the data */
        out += _mm_popcnt_u32(here);
    }
    *over = above;
    *inside = within;
}

INLINE void move_vectors(const void *entries, const int32_t size, int64_t source, void *out, int64_t target, int64_t limit,
                         uint64_t had, uint64_t stay)
{
    uint64_t chosen = _pext_u64(stay, had);
    for (int left = __builtin_popcountll(had); left > 0; left -= 16, source += 16, chosen >>= 16) {
        const __m512i moved =
            _mm512_permutexvar_epi32(places_of((__mmask16)chosen), load_entries(entries, size, source, left));
        /* A full store is the fastest; what it writes behind the chosen entries is written again. */
        store_entries(out, size, target, limit - target < 16 ? (int)(limit - target) : 16, moved);
        target += (int)_mm_popcnt_u32((__mmask16)chosen);
    }
}

static inline void move_entries(const void *entries, int32_t size, int64_t source, void *out, int64_t target, int64_t limit,
                                uint64_t had, uint64_t stay)
{
    if (size == 4)
        move_vectors(entries, 4, source, out, target, limit, had, stay);
    else if (size == 2)
        move_vectors(entries, 2, source, out, target, limit, had, stay);
    else if (size == 1)
        move_vectors(entries, 1, source, out, target, limit, had, stay);
    else
        for (; had; had &= had - 1, source++)
            if (stay & had & -had)
                memcpy((char *)out + target++ * size, (const char *)entries + source * size, (size_t)size);
}

#define SCORE_LANES score_lanes
#define SPLIT split_scores
#define SPREAD _pdep_u64
#define MOVE_WORD move_entries
#include "select.h"

/* Full stores: masked ones cost twice as much. */
INLINE void zero_vectors(void *data, const int32_t size, const uint8_t *bits, int64_t first, int64_t last)
{
    const int lanes = 64 / size;
    int64_t i = first;
    for (; i + lanes <= last; i += lanes) {
        uint32_t keep;
        memcpy(&keep, bits + i / 8, (size_t)lanes / 8);
        char *here = (char *)data + i * size;
        const __m512i old = _mm512_loadu_si512(here);
        _mm512_storeu_si512(here, size == 4 ? _mm512_maskz_mov_epi32((__mmask16)keep, old) : _mm512_maskz_mov_epi16(keep, old));
    }
    for (; i < last; i++)
        if (!(bits[i / 8] >> (i % 8) & 1))
            memset((char *)data + i * size, 0, (size_t)size);
}

void adamw_zero_masked_avx512(void *data, int32_t size, const uint8_t *bits, int64_t first, int64_t last)
{
    if (size == 4)
        zero_vectors(data, 4, bits, first, last);
    else
        zero_vectors(data, 2, bits, first, last);
}

const adamw_kernels adamw_avx512 = {
    step,      all_scores, sample_scores,   scores_between,
    mark_open, mark_above, compact_entries, square_sums,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
