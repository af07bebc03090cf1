/* SPDX-License-Identifier: MIT */
/* State in fewer bits than float32: adamwprune.kernels.formats in C, operation for operation, on arrays of a block's lanes.
 *
 * `ends[k]` is the lane behind the last one of the block's group k. Plain loops: the compiler vectorises them for each
 * instruction set, and as every operation is correctly rounded, all give the same bits. */

#include <math.h>
#include <string.h>

#include "adamw.h"

/* Below, a group's moments are stored as zeros. */
#define LEAST_FIRST 1e-30f
#define LEAST_SECOND 1e-28f

/* What the largest code stands for, in units. */
#define MOST_FIRST (127.0f * 127.0f)
#define MOST_SECOND (255.0f * 255.0f * 255.0f * 255.0f)

/* Odd factors of the noise: a place's, which makes the second word of the first, too; the seed's, which makes the third
 * of the second; and two that mix. */
#define NOISE_PLACE 0x9E3779B1u
#define NOISE_SEED 0x85EBCA77u
#define NOISE_MIX 0x7FEB352Du
#define NOISE_REMIX 0x846CA68Bu

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Random words of the lanes at `places` of the tensor: for the second moment, the first, the weight. */
static inline void make_noise(const uint32_t *places, int count, uint32_t seed, uint32_t *restrict second,
                              uint32_t *restrict first, uint32_t *restrict weight)
{
    const uint32_t start = seed * NOISE_SEED;
    for (int i = 0; i < count; i++) {
        uint32_t x = places[i] * NOISE_PLACE + start;
        x = (x ^ (x >> 16)) * NOISE_MIX;
        x = (x ^ (x >> 15)) * NOISE_REMIX;
        second[i] = x ^ (x >> 16);
        first[i] = second[i] * NOISE_PLACE;
        weight[i] = first[i] * NOISE_SEED;
    }
}

static inline float uniform(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 0x1p-24f;
}

/* Codes, read as float32, to moments, in place. */
static inline void decode_first(float *codes, const int *ends, const float *units)
{
    for (int k = 0, first = 0; k < ADAMW_GROUPS; first = ends[k++]) {
        const float unit = first < ends[k] ? units[k] : 0.0f; /* a block's last groups may not exist */
        const int end = ends[k];
        for (int i = first; i < end; i++)
            codes[i] = codes[i] * fabsf(codes[i]) * unit;
    }
}

static inline void decode_second(float *codes, const int *ends, const float *units)
{
    for (int k = 0, first = 0; k < ADAMW_GROUPS; first = ends[k++]) {
        const float unit = first < ends[k] ? units[k] : 0.0f;
        const int end = ends[k];
        for (int i = first; i < end; i++) {
            const float square = codes[i] * codes[i];
            codes[i] = square * square * unit;
        }
    }
}

/* A group's largest entry, of which these are the bits, over `most`, the largest code's value; 0 where it is (nearly)
 * zero. */
static inline float unit_of_largest(int32_t bits, float least, float most)
{
    const float largest = bits_float(bits > 0x7f800000 ? 0x7fc00000u : (uint32_t)bits);
    return largest < least ? 0.0f : largest / most;
}

static inline float unit_of(const float *moments, int first, int last, float least, float most)
{
    int32_t bits = 0; /* as integers, because there NaN compares: above infinity */
    for (int i = first; i < last; i++) {
        const int32_t size = (int32_t)(float_bits(moments[i]) & 0x7fffffff);
        bits = size > bits ? size : bits;
    }
    return unit_of_largest(bits, least, most);
}

/* Moments of one group to codes, as float32 and in place. */
static inline void code_first(float *restrict moments, int first, int end, float unit, const uint32_t *restrict words)
{
    const float factor = 1.0f / unit;
    for (int i = first; i < end; i++) {
        const float ratio = fabsf(moments[i]) * factor;
        const int32_t root = (int32_t)sqrtf(ratio), whole = root < 127 ? root : 127;
        const float low = (float)whole, gap = (low + 1.0f) * (low + 1.0f) - low * low;
        const int32_t code = whole + (uniform(words[i]) * gap < ratio - low * low);
        moments[i] = copysignf((float)(code < 127 ? code : 127), moments[i]);
    }
}

static inline void code_second(float *restrict moments, int first, int end, float unit, const uint32_t *restrict words)
{
    const float factor = 1.0f / sqrtf(unit);
    for (int i = first; i < end; i++) {
        const float square = sqrtf(moments[i]) * factor, ratio = square * square;
        const int32_t root = (int32_t)sqrtf(square), whole = root < 255 ? root : 255;
        const float low = (float)whole, next = low + 1.0f;
        const float fourth = (low * low) * (low * low), gap = (next * next) * (next * next) - fourth;
        const int32_t code = whole + (uniform(words[i]) * gap < ratio - fourth), least = square > 0.0f;
        const int32_t most = code < 255 ? code : 255;
        moments[i] = (float)(most > least ? most : least);
    }
}

/* Moments of a block to codes, as float32 and in place, and its groups' new units; `words` of the noise. A group whose
 * unit is 0 or lost has codes 0. */
static inline void encode(float *moments, int second, const int *ends, float *units, int groups, const uint32_t *words)
{
    const float least = second ? LEAST_SECOND : LEAST_FIRST;
    const float most = second ? MOST_SECOND : MOST_FIRST;
    for (int k = 0, first = 0; k < groups; first = ends[k++]) {
        const float unit = units[k] = unit_of(moments, first, ends[k], least, most);
        if (!(unit > 0.0f && unit < INFINITY))
            memset(moments + first, 0, (size_t)(ends[k] - first) * sizeof *moments);
        else if (second)
            code_second(moments, first, ends[k], unit, words);
        else
            code_first(moments, first, ends[k], unit, words);
    }
}

/* The 24-bit values of bfloat16 weights and their corrections, both read as float32; into `weights`. */
static inline void join(float *restrict weights, const float *restrict corrections, int count)
{
    for (int i = 0; i < count; i++)
        weights[i] = bits_float(float_bits(weights[i]) + (uint32_t)((int32_t)corrections[i] * 256));
}

/* bfloat16 weights (as float32, in place) and corrections (as float32), rounded stochastically to 24 bits. */
static inline void split(float *restrict values, float *restrict corrections, int count, const uint32_t *restrict words)
{
    for (int i = 0; i < count; i++) {
        const uint32_t bits = float_bits(values[i]);
        const int wild = (bits & 0x7f800000) == 0x7f800000;
        const uint32_t upper = (bits + (words[i] >> 24)) >> 8, high = (upper + 0x80) >> 8;
        corrections[i] = wild ? 0.0f : (float)((int32_t)upper - (int32_t)(high << 8));
        values[i] = wild ? values[i] : bits_float(high << 16);
    }
}
