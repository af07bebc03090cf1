/* SPDX-License-Identifier: MIT */
/* The step on 8-bit moments with AVX-512: adamwprune.kernels.formats, operation for operation.
 *
 * A group of weights shares a unit, and its new unit is not known before its last new moment is. So a group takes two
 * passes over lanes that stay in the first cache: codes to moments and their update, then moments to codes. A lane is a
 * kept weight where state is compact, else any weight of the group. Included by avx512.c. */

INLINE __m512i magnitude_bits(__m512 values)
{
    return _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(0x7fffffff));
}

INLINE __m512i times(__m512i lanes, uint32_t factor)
{
    return _mm512_mullo_epi32(lanes, _mm512_set1_epi32((int)factor));
}

/* The first of make_noise's three words, the second moment's; the others are multiples of it. */
INLINE __m512i noise16(__m512i places, uint32_t seed)
{
    __m512i x = _mm512_add_epi32(times(places, NOISE_PLACE), _mm512_set1_epi32((int)(seed * NOISE_SEED)));
    x = times(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), NOISE_MIX);
    x = times(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), NOISE_REMIX);
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

INLINE __m512 uniform16(__m512i words)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(words, 8)), _mm512_set1_ps(0x1p-24f));
}

/* Codes `whole`, or the next where the noise says so: `rest` is what lies above, of a gap of `gap`. */
INLINE __m512i round_up(__m512i whole, __m512 gap, __m512 rest, __m512i words)
{
    const __mmask16 up = _mm512_cmp_ps_mask(_mm512_mul_ps(uniform16(words), gap), rest, _CMP_LT_OQ);
    return _mm512_mask_add_epi32(whole, up, whole, _mm512_set1_epi32(1));
}

/* `factor`: one over the unit. */
INLINE __m512i code_first16(__m512 moments, __m512 factor, __m512i words)
{
    const __m512i most = _mm512_set1_epi32(127);
    const __m512 ratio = _mm512_mul_ps(_mm512_abs_ps(moments), factor);
    const __m512i whole = _mm512_min_epi32(_mm512_cvttps_epi32(_mm512_sqrt_ps(ratio)), most);
    const __m512 low = _mm512_cvtepi32_ps(whole), next = _mm512_add_ps(low, _mm512_set1_ps(1.0f));
    const __m512 square = _mm512_mul_ps(low, low), gap = _mm512_sub_ps(_mm512_mul_ps(next, next), square);
    const __m512i code = _mm512_min_epi32(round_up(whole, gap, _mm512_sub_ps(ratio, square), words), most);
    return _mm512_mask_sub_epi32(code, _mm512_movepi32_mask(_mm512_castps_si512(moments)), _mm512_setzero_si512(), code);
}

/* Of second moments whose square roots are `roots`; `factor`: one over the square root of the unit. */
INLINE __m512i code_second16(__m512 roots, __m512 factor, __m512i words)
{
    const __m512i most = _mm512_set1_epi32(255), one = _mm512_set1_epi32(1);
    const __m512 root = _mm512_mul_ps(roots, factor), ratio = _mm512_mul_ps(root, root);
    const __m512i whole = _mm512_min_epi32(_mm512_cvttps_epi32(_mm512_sqrt_ps(root)), most);
    const __m512 low = _mm512_cvtepi32_ps(whole), next = _mm512_add_ps(low, _mm512_set1_ps(1.0f));
    const __m512 square = _mm512_mul_ps(low, low), above = _mm512_mul_ps(next, next);
    const __m512 fourth = _mm512_mul_ps(square, square), gap = _mm512_sub_ps(_mm512_mul_ps(above, above), fourth);
    const __m512i code = _mm512_min_epi32(round_up(whole, gap, _mm512_sub_ps(ratio, fourth), words), most);
    const __mmask16 positive = _mm512_cmp_ps_mask(root, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_max_epi32(code, positive, code, one);
}

/* join() and split() of formats.h. */
INLINE __m512 join16(__m512 weights, __m512i corrections)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(weights), _mm512_slli_epi32(corrections, 8)));
}

INLINE __m512 split16(__m512 values, __m512i words, __m512i *corrections)
{
    const __m512i bits = _mm512_castps_si512(values), wild = _mm512_set1_epi32(0x7f800000);
    const __mmask16 tame = _mm512_cmpneq_epi32_mask(_mm512_and_si512(bits, wild), wild);
    const __m512i upper = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_srli_epi32(words, 24)), 8);
    const __m512i high = _mm512_srli_epi32(_mm512_add_epi32(upper, _mm512_set1_epi32(0x80)), 8);
    *corrections = _mm512_maskz_sub_epi32(tame, upper, _mm512_slli_epi32(high, 8));
    return _mm512_mask_mov_ps(values, tame, _mm512_castsi512_ps(_mm512_slli_epi32(high, 16)));
}

/* The `length` weights at `low` that make a group, and its `count` lanes, whose state begins at `slot`. */
typedef struct {
    int64_t low, slot;
    int length, count;
    _Alignas(64) float w[ADAMW_GROUP + 16], g[ADAMW_GROUP + 16], m[ADAMW_GROUP + 16];
    _Alignas(64) float roots[ADAMW_GROUP + 16]; /* of second moments */
    _Alignas(64) uint32_t places[ADAMW_GROUP + 16];
    __m512i most_first, most_second; /* bits of the largest new moments */
} group_lanes;

/* Codes to moments, and the update. */
INLINE void update_group(const adamw_tensor *t, __m512 unit_first, __m512 unit_second, const int32_t weight_type,
                         const int compacted, const int corrected, group_lanes *lanes)
{
    const int64_t low = lanes->low, slot = lanes->slot;
    __m512i most_first = _mm512_setzero_si512(), most_second = _mm512_setzero_si512();
    for (int j = 0; j < lanes->count; j += 16) {
        const int valid = lanes->count - j;
        const __mmask16 kept =
            compacted || !t->bits ? first_lanes(valid) : kept_lanes(t->bits + low / 8, j, lanes->count);
        __m512 w = compacted ? _mm512_load_ps(lanes->w + j) : load(t->weight, weight_type, low + j, valid);
        const __m512 g = compacted ? _mm512_load_ps(lanes->g + j) : load(t->grad, weight_type, low + j, valid);
        const __m512 first = load(t->exp_avg, ADAMW_I8, slot + j, valid);
        const __m512 second = load(t->exp_avg_sq, ADAMW_U8, slot + j, valid), square = _mm512_mul_ps(second, second);
        __m512 m = _mm512_mul_ps(_mm512_mul_ps(first, _mm512_abs_ps(first)), unit_first);
        __m512 v = _mm512_mul_ps(_mm512_mul_ps(square, square), unit_second);
        if (corrected)
            w = join16(w, load_signed(t->correction, slot + j, valid));
        w = update16(t, w, g, &m, &v, 0);
        const __m512 root = _mm512_sqrt_ps(v); /* which update16 takes, too: one instruction */
        m = _mm512_maskz_mov_ps(kept, m);
        most_first = _mm512_max_epi32(most_first, magnitude_bits(m));
        most_second = _mm512_max_epi32(most_second, magnitude_bits(_mm512_maskz_mov_ps(kept, v)));
        _mm512_store_ps(lanes->w + j, _mm512_maskz_mov_ps(kept, w));
        _mm512_store_ps(lanes->m + j, m);
        _mm512_store_ps(lanes->roots + j, _mm512_maskz_mov_ps(kept, root));
    }
    lanes->most_first = most_first;
    lanes->most_second = most_second;
}

/* Moments to codes, and weights to where they lie. A group whose unit is 0 or lost has codes 0. */
INLINE void code_group(const adamw_tensor *t, float unit_first, float unit_second, const int32_t weight_type,
                       const int compacted, const int corrected, group_lanes *lanes)
{
    const int64_t low = lanes->low, slot = lanes->slot;
    const int some_first = unit_first > 0.0f && unit_first < INFINITY;
    const int some_second = unit_second > 0.0f && unit_second < INFINITY;
    const __m512 factor_first = _mm512_set1_ps(1.0f / unit_first), factor_second = _mm512_set1_ps(1.0f / sqrtf(unit_second));
    const __m512i none = _mm512_setzero_si512();
    for (int j = 0; j < lanes->count; j += 16) {
        const int valid = lanes->count - j;
        const __m512i places = compacted ? _mm512_load_si512(lanes->places + j) : iota(low + j);
        const __m512i words = noise16(places, t->seed);
        const __m512i first_words = times(words, NOISE_PLACE);
        store_entries(t->exp_avg, 1, slot + j, valid,
                      some_first ? code_first16(_mm512_load_ps(lanes->m + j), factor_first, first_words) : none);
        store_entries(t->exp_avg_sq, 1, slot + j, valid,
                      some_second ? code_second16(_mm512_load_ps(lanes->roots + j), factor_second, words) : none);
        if (corrected) {
            const __m512i weight_words = times(first_words, NOISE_SEED);
            __m512i corrections;
            _mm512_store_ps(lanes->w + j, split16(_mm512_load_ps(lanes->w + j), weight_words, &corrections));
            store_entries(t->correction, 1, slot + j, valid, corrections);
        }
        if (!compacted)
            store(t->weight, weight_type, low + j, valid, _mm512_load_ps(lanes->w + j));
    }
    if (compacted)
        scatter_block(t->weight, weight_type, t->bits, low, lanes->length, lanes->w);
}

/* Ask for what lies a block ahead of a group: between two passes, the processor's own guesses come too late. */
INLINE void prefetch_group(const adamw_tensor *t, const int32_t weight_type, const int compacted, const int corrected,
                           const group_lanes *lanes)
{
    for (int64_t i = lanes->low + ADAMW_BLOCK; i < lanes->low + ADAMW_BLOCK + ADAMW_GROUP && !compacted; i += 16) {
        prefetch(t->weight, weight_type, i);
        prefetch(t->grad, weight_type, i);
    }
    for (int64_t i = lanes->slot + ADAMW_BLOCK; i < lanes->slot + ADAMW_BLOCK + lanes->count; i += 64) {
        prefetch(t->exp_avg, ADAMW_I8, i);
        prefetch(t->exp_avg_sq, ADAMW_U8, i);
        if (corrected)
            prefetch(t->correction, ADAMW_I8, i);
    }
}

/* Group `group` of the tensor, whose lanes' state begins at `slot`; returns how many lanes it has. */
INLINE int step_group(const adamw_tensor *t, int64_t group, int64_t slot, const int32_t weight_type, const int compacted,
                      const int corrected)
{
    const int64_t low = group * ADAMW_GROUP;
    float *first = t->exp_avg_unit + group, *second = t->exp_avg_sq_unit + group;
    group_lanes lanes;
    lanes.low = low;
    lanes.slot = slot;
    lanes.length = lanes.count = t->numel - low < ADAMW_GROUP ? (int)(t->numel - low) : ADAMW_GROUP;

    if (compacted)
        lanes.count = gather_kept(t, weight_type, low, lanes.length, lanes.w, lanes.g, lanes.places);
    prefetch_group(t, weight_type, compacted, corrected, &lanes);
    update_group(t, _mm512_set1_ps(*first), _mm512_set1_ps(*second), weight_type, compacted, corrected, &lanes);
    *first = unit_of_largest(_mm512_reduce_max_epi32(lanes.most_first), LEAST_FIRST, MOST_FIRST);
    *second = unit_of_largest(_mm512_reduce_max_epi32(lanes.most_second), LEAST_SECOND, MOST_SECOND);
    code_group(t, *first, *second, weight_type, compacted, corrected, &lanes);
    return lanes.count;
}

INLINE void step_coded(const adamw_tensor *tensor, int64_t block, const int32_t weight_type, const int corrected)
{
    const adamw_tensor copy = *tensor, *t = &copy; /* which no store can change: settings stay in registers */
    const int compacted = t->bits && !t->dense_state;
    int64_t slot = compacted ? t->base[block] : block * ADAMW_BLOCK;
    for (int64_t group = block * ADAMW_GROUPS; group < (block + 1) * ADAMW_GROUPS && group * ADAMW_GROUP < t->numel; group++)
        slot += compacted ? step_group(t, group, slot, weight_type, 1, corrected)
                          : step_group(t, group, slot, weight_type, 0, corrected);
}
