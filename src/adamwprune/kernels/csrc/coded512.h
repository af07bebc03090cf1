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

/* The last lanes of the hash that make_noise makes: the word of the second moment. */
INLINE __m512i noise16(__m512i places, uint32_t number)
{
    __m512i x = _mm512_add_epi32(_mm512_mullo_epi32(places, _mm512_set1_epi32((int)0x9E3779B1u)),
                                 _mm512_set1_epi32((int)(number * 0x85EBCA77u)));
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), _mm512_set1_epi32(0x7FEB352D));
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 15)), _mm512_set1_epi32((int)0x846CA68Bu));
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

INLINE __m512i code_first16(__m512 moments, __m512 unit, __m512i words)
{
    const __m512i most = _mm512_set1_epi32(127);
    const __m512 ratio = _mm512_div_ps(_mm512_abs_ps(moments), unit);
    const __m512i whole = _mm512_min_epi32(_mm512_cvttps_epi32(_mm512_sqrt_ps(ratio)), most);
    const __m512 low = _mm512_cvtepi32_ps(whole), next = _mm512_add_ps(low, _mm512_set1_ps(1.0f));
    const __m512 square = _mm512_mul_ps(low, low), gap = _mm512_sub_ps(_mm512_mul_ps(next, next), square);
    const __m512i code = _mm512_min_epi32(round_up(whole, gap, _mm512_sub_ps(ratio, square), words), most);
    return _mm512_mask_sub_epi32(code, _mm512_movepi32_mask(_mm512_castps_si512(moments)), _mm512_setzero_si512(), code);
}

INLINE __m512i code_second16(__m512 moments, __m512 unit, __m512i words)
{
    const __m512i most = _mm512_set1_epi32(255), one = _mm512_set1_epi32(1);
    const __m512 ratio = _mm512_div_ps(moments, unit);
    const __m512i whole = _mm512_min_epi32(_mm512_cvttps_epi32(_mm512_sqrt_ps(_mm512_sqrt_ps(ratio))), most);
    const __m512 low = _mm512_cvtepi32_ps(whole), next = _mm512_add_ps(low, _mm512_set1_ps(1.0f));
    const __m512 square = _mm512_mul_ps(low, low), above = _mm512_mul_ps(next, next);
    const __m512 fourth = _mm512_mul_ps(square, square), gap = _mm512_sub_ps(_mm512_mul_ps(above, above), fourth);
    const __m512i code = _mm512_min_epi32(round_up(whole, gap, _mm512_sub_ps(ratio, fourth), words), most);
    const __mmask16 positive = _mm512_cmp_ps_mask(ratio, _mm512_setzero_ps(), _CMP_GT_OQ);
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

INLINE __m512i load_codes(const int8_t *source, int64_t start, int valid)
{
    return _mm512_cvtepi8_epi32(valid >= 16 ? _mm_loadu_si128((const void *)(source + start))
                                            : _mm_maskz_loadu_epi8(first_lanes(valid), source + start));
}

INLINE void store_codes(void *target, int64_t start, int valid, __m512i codes)
{
    if (valid >= 16)
        _mm_storeu_si128((void *)((uint8_t *)target + start), _mm512_cvtepi32_epi8(codes));
    else
        _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)target + start, first_lanes(valid), codes);
}

/* The lanes of one group, in float32. */
typedef struct {
    _Alignas(64) float w[ADAMW_GROUP + 16], g[ADAMW_GROUP + 16], m[ADAMW_GROUP + 16], v[ADAMW_GROUP + 16];
    _Alignas(64) uint32_t places[ADAMW_GROUP + 16];
} group_lanes;

INLINE __m512i iota(int64_t low)
{
    return _mm512_add_epi32(_mm512_set1_epi32((int32_t)(uint32_t)low),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* Kept weights, their gradients and places of the group at `low`; returns how many there are. */
INLINE int gather_group(const adamw_tensor *t, int64_t low, int length, const int32_t weight_type, group_lanes *lanes)
{
    int count = 0;
    for (int i = 0; i < length; i += 16) {
        const __mmask16 kept = kept_lanes(t->bits + low / 8, i, length);
        const __m512 weight = load(t->weight, weight_type, low + i, length - i);
        const __m512 grad = load(t->grad, weight_type, low + i, length - i);
        prefetch(t->weight, weight_type, low + i + ADAMW_BLOCK);
        prefetch(t->grad, weight_type, low + i + ADAMW_BLOCK);
        const __m512i places = places_of(kept);
        _mm512_storeu_ps(lanes->w + count, permute(places, weight));
        _mm512_storeu_ps(lanes->g + count, permute(places, grad));
        _mm512_storeu_si512(lanes->places + count, _mm512_permutexvar_epi32(places, iota(low + i)));
        count += (int)_mm_popcnt_u32(kept);
    }
    return count;
}

/* New units of a group from the largest magnitudes of its new moments; whether it has codes other than 0. */
INLINE int new_unit(__m512i largest, float least, float steps, float *unit)
{
    const float most = bits_float((uint32_t)_mm512_reduce_max_epi32(largest));
    *unit = most != most ? NAN : most < least ? 0.0f : most / steps;
    return *unit > 0.0f && *unit < INFINITY;
}

/* Group `group` of the tensor, whose lanes' state begins at `slot`; returns how many lanes it has. */
INLINE int step_group(const adamw_tensor *t, int64_t group, int64_t slot, const int32_t weight_type, const int compacted,
                      const int corrected)
{
    group_lanes lanes;
    const int64_t low = group * ADAMW_GROUP;
    const int length = t->numel - low < ADAMW_GROUP ? (int)(t->numel - low) : ADAMW_GROUP;
    const int count = compacted ? gather_group(t, low, length, weight_type, &lanes) : length;
    const __m512 unit_first = _mm512_set1_ps(t->exp_avg_unit[group]), unit_second = _mm512_set1_ps(t->exp_avg_sq_unit[group]);
    __m512i most_first = _mm512_setzero_si512(), most_second = _mm512_setzero_si512();

    for (int j = 0; j < count; j += 16) {
        const int valid = count - j;
        const __mmask16 kept = compacted || !t->bits ? first_lanes(valid) : kept_lanes(t->bits + low / 8, j, length);
        __m512 w = compacted ? _mm512_load_ps(lanes.w + j) : load(t->weight, weight_type, low + j, valid);
        const __m512 g = compacted ? _mm512_load_ps(lanes.g + j) : load(t->grad, weight_type, low + j, valid);
        const __m512 first = load(t->exp_avg, ADAMW_I8, slot + j, valid);
        const __m512 second = load(t->exp_avg_sq, ADAMW_U8, slot + j, valid), square = _mm512_mul_ps(second, second);
        __m512 m = _mm512_mul_ps(_mm512_mul_ps(first, _mm512_abs_ps(first)), unit_first);
        __m512 v = _mm512_mul_ps(_mm512_mul_ps(square, square), unit_second);
        if (corrected)
            w = join16(w, load_codes(t->correction, slot + j, valid));
        w = update16(t, w, g, &m, &v, 0);
        m = _mm512_maskz_mov_ps(kept, m);
        v = _mm512_maskz_mov_ps(kept, v);
        most_first = _mm512_max_epi32(most_first, magnitude_bits(m));
        most_second = _mm512_max_epi32(most_second, magnitude_bits(v));
        _mm512_store_ps(lanes.w + j, _mm512_maskz_mov_ps(kept, w));
        _mm512_store_ps(lanes.m + j, m);
        _mm512_store_ps(lanes.v + j, v);
    }

    const int any_first = new_unit(most_first, LEAST_FIRST, 127.0f * 127.0f, t->exp_avg_unit + group);
    const int any_second =
        new_unit(most_second, LEAST_SECOND, 255.0f * 255.0f * 255.0f * 255.0f, t->exp_avg_sq_unit + group);
    const __m512 new_first = _mm512_set1_ps(t->exp_avg_unit[group]), new_second = _mm512_set1_ps(t->exp_avg_sq_unit[group]);
    for (int j = 0; j < count; j += 16) {
        const int valid = count - j;
        const __m512i places = compacted ? _mm512_load_si512(lanes.places + j) : iota(low + j);
        const __m512i words = noise16(places, t->number);
        const __m512i first_words = _mm512_mullo_epi32(words, _mm512_set1_epi32((int)0x9E3779B1u));
        const __m512i none = _mm512_setzero_si512();
        store_codes(t->exp_avg, slot + j, valid,
                    any_first ? code_first16(_mm512_load_ps(lanes.m + j), new_first, first_words) : none);
        store_codes(t->exp_avg_sq, slot + j, valid,
                    any_second ? code_second16(_mm512_load_ps(lanes.v + j), new_second, words) : none);
        __m512 w = _mm512_load_ps(lanes.w + j);
        if (corrected) {
            __m512i corrections;
            w = split16(w, _mm512_mullo_epi32(first_words, _mm512_set1_epi32((int)0x85EBCA77u)), &corrections);
            store_codes(t->correction, slot + j, valid, corrections);
            _mm512_store_ps(lanes.w + j, w);
        }
        if (!compacted)
            store(t->weight, weight_type, low + j, valid, w);
    }
    if (compacted)
        scatter_block(t->weight, weight_type, t->bits, low, length, lanes.w);
    return count;
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
