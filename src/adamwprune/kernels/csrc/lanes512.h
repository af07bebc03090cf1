/* SPDX-License-Identifier: MIT */
/* Sixteen entries of any type to lanes and back, and the kept ones of them to the front. Included by avx512.c. */

#include "adamw.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __mmask16 first_lanes(int valid)
{
    return valid >= 16 ? 0xffff : (__mmask16)((1u << valid) - 1);
}

/* Sixteen entries, or the first few of them at the end of an array. Masked accesses cost twice as much on some
 * processors, so they are kept for the ends. */
INLINE __m128i load_bytes(const void *entries, int64_t start, int valid)
{
    const uint8_t *from = (const uint8_t *)entries + start;
    return valid >= 16 ? _mm_loadu_si128((const void *)from) : _mm_maskz_loadu_epi8(first_lanes(valid), from);
}

/* Entries of `size` bytes as numbers without a sign. */
INLINE __m512i load_entries(const void *entries, const int32_t size, int64_t start, int valid)
{
    const __mmask16 lanes = first_lanes(valid);
    if (size == 4) {
        const uint32_t *from = (const uint32_t *)entries + start;
        return valid >= 16 ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi32(lanes, from);
    }
    if (size == 2) {
        const uint16_t *from = (const uint16_t *)entries + start;
        return _mm512_cvtepu16_epi32(valid >= 16 ? _mm256_loadu_si256((const void *)from)
                                                 : _mm256_maskz_loadu_epi16(lanes, from));
    }
    return _mm512_cvtepu8_epi32(load_bytes(entries, start, valid));
}

/* The lower `size` bytes of each lane. */
INLINE void store_entries(void *entries, const int32_t size, int64_t start, int valid, __m512i values)
{
    const __mmask16 lanes = first_lanes(valid);
    if (size == 4) {
        if (valid >= 16)
            _mm512_storeu_si512((uint32_t *)entries + start, values);
        else
            _mm512_mask_storeu_epi32((uint32_t *)entries + start, lanes, values);
    } else if (size == 2) {
        if (valid >= 16)
            _mm256_storeu_si256((void *)((uint16_t *)entries + start), _mm512_cvtepi32_epi16(values));
        else
            _mm512_mask_cvtepi32_storeu_epi16((uint16_t *)entries + start, lanes, values);
    } else if (valid >= 16) {
        _mm_storeu_si128((void *)((uint8_t *)entries + start), _mm512_cvtepi32_epi8(values));
    } else {
        _mm512_mask_cvtepi32_storeu_epi8((uint8_t *)entries + start, lanes, values);
    }
}

/* Codes of first moments, or corrections. */
INLINE __m512i load_signed(const void *codes, int64_t start, int valid)
{
    return _mm512_cvtepi8_epi32(load_bytes(codes, start, valid));
}

/* float32 to the bits of bfloat16, nearest even */
INLINE __m512i narrow(__m512 values)
{
    __m512i bits = _mm512_castps_si512(values);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0));
}

/* Entries of any type as float32. */
INLINE __m512 load(const void *source, int32_t type, int64_t start, int valid)
{
    if (type == ADAMW_F32)
        return _mm512_castsi512_ps(load_entries(source, 4, start, valid));
    if (type == ADAMW_BF16)
        return _mm512_castsi512_ps(_mm512_slli_epi32(load_entries(source, 2, start, valid), 16));
    return _mm512_cvtepi32_ps(type == ADAMW_I8 ? load_signed(source, start, valid) : load_entries(source, 1, start, valid));
}

/* float32 to entries of any type but codes, whose rounding is formats.h's. */
INLINE void store(void *target, int32_t type, int64_t start, int valid, __m512 values)
{
    if (type == ADAMW_F32)
        store_entries(target, 4, start, valid, _mm512_castps_si512(values));
    else
        store_entries(target, 2, start, valid, narrow(values));
}

/* Ask for the line of an entry; of one behind the end, too, which does nothing. */
INLINE void prefetch(const void *source, int32_t type, int64_t i)
{
    _mm_prefetch((const char *)source + i * (type == ADAMW_F32 ? 4 : type == ADAMW_BF16 ? 2 : 1), _MM_HINT_T0);
}

/* Bits of a block's weights from `i` on, sixteen or fewer. */
INLINE __mmask16 kept_lanes(const uint8_t *bits, int i, int length)
{
    if (length - i >= 16) {
        uint16_t kept;
        memcpy(&kept, bits + i / 8, 2);
        return kept;
    }
    const uint32_t kept = length - i > 8 ? bits[i / 8] | (uint32_t)bits[i / 8 + 1] << 8 : bits[i / 8];
    return (__mmask16)(kept & first_lanes(length - i));
}

/* For `permute`: in the first lanes the places of the kept lanes. The compress instruction would do the same for one
 * vector in four times the time; these places serve weights and gradients. */
INLINE __m512i places_of(__mmask16 kept)
{
    const uint64_t ones = _pdep_u64(kept, 0x1111111111111111ull); /* four bits a lane */
    const uint64_t places = _pext_u64(0xFEDCBA9876543210ull, (ones << 4) - ones);
    const __m512i half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i spread = _mm512_castsi128_si512(_mm_cvtsi64_si128((long long)places));
    return _mm512_srlv_epi32(_mm512_permutexvar_epi32(half, spread), shift);
}

/* Lanes from `places`, of which only the lower four bits count. */
INLINE __m512 permute(__m512i places, __m512 values)
{
    return _mm512_permutexvar_ps(places, values);
}

/* The numbers `low` and on. */
INLINE __m512i iota(int64_t low)
{
    return _mm512_add_epi32(_mm512_set1_epi32((int32_t)(uint32_t)low),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
