/* SPDX-License-Identifier: MIT */
/* State in fewer bits than float32: adamwprune.kernels.formats in C, operation for operation, on arrays of a block's lanes.
 *
 * `ends[k]` is the lane behind the last one of the block's group k. Plain loops: the compiler vectorises them for each
 * instruction set, and as every operation is correctly rounded, all give the same bits. */

#include <math.h>
#include <string.h>

#include "adamw.h"

#define LEAST_FIRST 1e-30f
#define LEAST_SECOND 1e-28f

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
static inline void make_noise(const uint32_t *places, int count, uint32_t number, uint32_t *second, uint32_t *first,
                              uint32_t *weight)
{
    const uint32_t seed = number * 0x85EBCA77u;
    for (int i = 0; i < count; i++) {
        uint32_t x = places[i] * 0x9E3779B1u + seed;
        x = (x ^ (x >> 16)) * 0x7FEB352Du;
        x = (x ^ (x >> 15)) * 0x846CA68Bu;
        x ^= x >> 16;
        second[i] = x;
        first[i] = x * 0x9E3779B1u;
        weight[i] = x * 0x9E3779B1u * 0x85EBCA77u;
    }
}

static inline float uniform(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 0x1p-24f;
}

/* Codes, read as float32, to moments, in place. */
static inline void decode_first(float *codes, const int *ends, const float *units)
{
    for (int k = 0, i = 0; k < ADAMW_GROUPS; k++)
        for (; i < ends[k]; i++)
            codes[i] = codes[i] * fabsf(codes[i]) * units[k];
}

static inline void decode_second(float *codes, const int *ends, const float *units)
{
    for (int k = 0, i = 0; k < ADAMW_GROUPS; k++)
        for (; i < ends[k]; i++) {
            const float square = codes[i] * codes[i];
            codes[i] = square * square * units[k];
        }
}

/* A group's largest entry over the value of its largest code; 0 where all are (nearly) zero. */
static inline float unit_of(const float *moments, int first, int last, float least, float steps)
{
    int32_t bits = 0; /* as integers, because there NaN compares: above infinity */
    for (int i = first; i < last; i++) {
        const int32_t size = (int32_t)(float_bits(moments[i]) & 0x7fffffff);
        bits = size > bits ? size : bits;
    }
    if (bits > 0x7f800000)
        bits = 0x7fc00000;
    const float largest = bits_float((uint32_t)bits);
    return largest < least ? 0.0f : largest / steps;
}

/* Moments to codes, as float32 and in place, and new units. A group whose unit is 0 or lost has codes 0. */
static inline void encode_first(float *moments, const int *ends, float *units, int groups, const uint32_t *words)
{
    for (int k = 0, i = 0; k < groups; i = ends[k++]) {
        const float unit = units[k] = unit_of(moments, i, ends[k], LEAST_FIRST, 127.0f * 127.0f);
        const int usable = unit > 0.0f && unit < INFINITY;
        for (int j = i; j < ends[k]; j++) {
            const float ratio = usable ? fabsf(moments[j]) / unit : 0.0f, root = sqrtf(ratio);
            const float low = (float)(int32_t)(root < 127.0f ? root : 127.0f);
            const float gap = (low + 1.0f) * (low + 1.0f) - low * low;
            const float up = uniform(words[j]) * gap < ratio - low * low ? 1.0f : 0.0f;
            const float code = low + up < 127.0f ? low + up : 127.0f;
            moments[j] = copysignf(code, moments[j]);
        }
    }
}

static inline void encode_second(float *moments, const int *ends, float *units, int groups, const uint32_t *words)
{
    for (int k = 0, i = 0; k < groups; i = ends[k++]) {
        const float unit = units[k] = unit_of(moments, i, ends[k], LEAST_SECOND, 255.0f * 255.0f * 255.0f * 255.0f);
        const int usable = unit > 0.0f && unit < INFINITY;
        for (int j = i; j < ends[k]; j++) {
            const float ratio = usable ? moments[j] / unit : 0.0f, root = sqrtf(sqrtf(ratio));
            const float low = (float)(int32_t)(root < 255.0f ? root : 255.0f), next = low + 1.0f;
            const float fourth = (low * low) * (low * low), gap = (next * next) * (next * next) - fourth;
            const float up = uniform(words[j]) * gap < ratio - fourth ? 1.0f : 0.0f;
            float code = low + up < 255.0f ? low + up : 255.0f;
            if (code == 0.0f && ratio > 0.0f)
                code = 1.0f;
            moments[j] = code;
        }
    }
}

/* The 24-bit values of bfloat16 weights and their corrections, both read as float32; into `weights`. */
static inline void join(float *weights, const float *corrections, int count)
{
    for (int i = 0; i < count; i++)
        weights[i] = bits_float(float_bits(weights[i]) + (uint32_t)((int32_t)corrections[i] * 256));
}

/* bfloat16 weights (as float32, in place) and corrections (as float32), rounded stochastically to 24 bits. */
static inline void split(float *values, float *corrections, int count, const uint32_t *words)
{
    for (int i = 0; i < count; i++) {
        const uint32_t bits = float_bits(values[i]);
        const int wild = (bits & 0x7f800000) == 0x7f800000;
        const uint32_t upper = (bits + (words[i] >> 24)) >> 8, high = (upper + 0x80) >> 8;
        corrections[i] = wild ? 0.0f : (float)((int32_t)upper - (int32_t)(high << 8));
        values[i] = wild ? values[i] : bits_float(high << 16);
    }
}
