/* SPDX-License-Identifier: MIT */
/* One block in portable C; included by each instruction set that has no compress and expand of its own. */

#include <math.h>
#include <string.h>

#include "adamw.h"

static inline uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline void load(const void *source, int32_t type, int64_t start, int64_t count, float *out)
{
    if (type == ADAMW_F32)
        memcpy(out, (const float *)source + start, (size_t)count * 4);
    else
        for (int64_t i = 0; i < count; i++)
            out[i] = from_bf16(((const uint16_t *)source)[start + i]);
}

static inline void store(void *target, int32_t type, int64_t start, int64_t count, const float *values)
{
    if (type == ADAMW_F32)
        memcpy((float *)target + start, values, (size_t)count * 4);
    else
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)target)[start + i] = to_bf16(values[i]);
}

/* The positions of a block's kept weights; returns how many there are. */
static inline int positions(const uint8_t *bits, int length, uint16_t *index)
{
    int count = 0;
    for (int byte = 0; byte * 8 < length; byte++)
        for (uint32_t kept = kept_bits(bits, byte, length); kept; kept &= kept - 1)
            index[count++] = (uint16_t)(byte * 8 + __builtin_ctz(kept));
    return count;
}

static inline void update(const adamw_tensor *t, int count, float *w, float *g, float *m, float *v, float *x)
{
    const float lerp = t->grad_weight < 0.5f ? t->grad_weight : t->grad_weight - 1.0f;
    const int from_grad = !(t->grad_weight < 0.5f);
    for (int i = 0; i < count; i++) {
        float grad = t->maximize ? -g[i] : g[i];
        if (t->theta > 0.0f && v[i] != 0.0f) {
            float limit = sqrtf(t->theta * v[i]);
            grad = grad > limit ? limit : grad < -limit ? -limit : grad;
        }
        if (t->coupled != 0.0f) /* 0 times an infinite weight would be NaN */
            grad = grad + w[i] * t->coupled;
        float weight = w[i] * t->decay;
        m[i] = fmaf(lerp, grad - m[i], from_grad ? grad : m[i]);
        v[i] = fmaf(t->square_weight * grad, grad, v[i] * t->beta2);
        float square = v[i];
        if (x) {
            x[i] = x[i] > v[i] ? x[i] : v[i];
            square = x[i];
        }
        w[i] = weight + (t->neg_step * m[i]) / (sqrtf(square) / t->bias2_sqrt + t->eps);
    }
}

static inline void step_block(const adamw_tensor *t, int64_t block)
{
    float w[ADAMW_BLOCK], g[ADAMW_BLOCK], m[ADAMW_BLOCK], v[ADAMW_BLOCK], x[ADAMW_BLOCK];
    uint16_t index[ADAMW_BLOCK];
    const int64_t low = block * ADAMW_BLOCK;
    const int length = (int)(t->numel - low < ADAMW_BLOCK ? t->numel - low : ADAMW_BLOCK);
    const int64_t slot = t->bits ? t->base[block] : low;
    const int count = positions(t->bits ? t->bits + low / 8 : 0, length, index);

    if (t->weight_type == ADAMW_F32) {
        for (int i = 0; i < count; i++) {
            w[i] = ((const float *)t->weight)[low + index[i]];
            g[i] = ((const float *)t->grad)[low + index[i]];
        }
    } else {
        for (int i = 0; i < count; i++) {
            w[i] = from_bf16(((const uint16_t *)t->weight)[low + index[i]]);
            g[i] = from_bf16(((const uint16_t *)t->grad)[low + index[i]]);
        }
    }
    load(t->exp_avg, t->state_type, slot, count, m);
    load(t->exp_avg_sq, t->state_type, slot, count, v);
    if (t->max_exp_avg_sq)
        load(t->max_exp_avg_sq, t->state_type, slot, count, x);

    update(t, count, w, g, m, v, t->max_exp_avg_sq ? x : 0);

    store(t->exp_avg, t->state_type, slot, count, m);
    store(t->exp_avg_sq, t->state_type, slot, count, v);
    if (t->max_exp_avg_sq)
        store(t->max_exp_avg_sq, t->state_type, slot, count, x);
    /* Masked weights are zero, and are stored as zero again: nothing else can creep in. */
    if (t->weight_type == ADAMW_F32) {
        memset((float *)t->weight + low, 0, (size_t)length * 4);
        for (int i = 0; i < count; i++)
            ((float *)t->weight)[low + index[i]] = w[i];
    } else {
        memset((uint16_t *)t->weight + low, 0, (size_t)length * 2);
        for (int i = 0; i < count; i++)
            ((uint16_t *)t->weight)[low + index[i]] = to_bf16(w[i]);
    }
}

static inline int gather_block(const void *source, int32_t type, const uint8_t *bits, int64_t low, int length, float *out)
{
    uint16_t index[ADAMW_BLOCK];
    const int count = positions(bits ? bits + low / 8 : 0, length, index);
    for (int i = 0; i < count; i++)
        out[i] = type == ADAMW_F32 ? ((const float *)source)[low + index[i]]
                                   : from_bf16(((const uint16_t *)source)[low + index[i]]);
    return count;
}

#include "select.h"
