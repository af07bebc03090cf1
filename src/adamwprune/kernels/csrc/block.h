/* SPDX-License-Identifier: MIT */
/* The update of one block, for every type of weights, gradients and state and every layout, on arrays of float32 lanes.
 *
 * A lane is a kept weight where state is compact, else any weight of the block. Included by each instruction set after it
 * has included lanes.h and defined
 *     static int gather_block(const void *source, int32_t type, const uint8_t *bits, int64_t low, int length, float *out)
 *     static void scatter_block(void *target, int32_t type, const uint8_t *bits, int64_t low, int length, const float *in)
 * which turn the kept entries of a block (all where `bits` is NULL) to float32 and back, and put zero where none is kept.
 * The first returns how many there are, and may write 16 entries more. And
 *     static void zero_lanes(const uint8_t *bits, int length, float *values)
 * which puts zero where none is kept. */

#include <math.h>
#include <string.h>

#include "adamw.h"
#include "formats.h"

#define LANES (ADAMW_BLOCK + 16)

/* Lanes behind the last of each group of a block. */
static inline void group_ends(const uint8_t *bits, int length, int *ends)
{
    int count = 0;
    for (int k = 0; k < ADAMW_GROUPS; k++) {
        for (int byte = k * ADAMW_GROUP / 8; byte < (k + 1) * ADAMW_GROUP / 8 && byte * 8 < length; byte++)
            count += __builtin_popcount(kept_bits(bits, byte, length));
        ends[k] = count;
    }
}

/* Places in the tensor of a block's lanes. */
static inline void lane_places(const uint8_t *bits, int64_t low, int length, uint32_t *restrict places)
{
    float all[ADAMW_BLOCK], lanes[LANES];
    for (int i = 0; i < ADAMW_BLOCK; i++)
        all[i] = (float)i;
    const int count = gather_block(all, ADAMW_F32, bits, 0, length, lanes);
    for (int i = 0; i < count; i++)
        places[i] = (uint32_t)low + (uint32_t)(int32_t)lanes[i];
}

/* Where g² > theta v, g becomes sign(g) sqrt(theta v); weights that have seen no gradient yet pass. */
static inline void clip_spikes(float theta, int count, float *restrict g, const float *restrict v)
{
    for (int i = 0; i < count; i++) {
        const float root = sqrtf(theta * v[i]), limit = v[i] != 0.0f ? root : INFINITY;
        const float grad = g[i] < -limit ? -limit : g[i];
        g[i] = g[i] > limit ? limit : grad;
    }
}

/* Adam(W) of `count` lanes; `g` is used up, `x` is NULL without AMSGrad. */
static inline void update(const adamw_tensor *tensor, int count, float *restrict w, float *restrict g, float *restrict m,
                          float *restrict v, float *restrict x)
{
    const adamw_tensor t = *tensor; /* which no store can change */
    const int from_grad = !(t.grad_weight < 0.5f);
    const float lerp = from_grad ? t.grad_weight - 1.0f : t.grad_weight, sign = t.maximize ? -1.0f : 1.0f;
    for (int i = 0; i < count; i++)
        g[i] = g[i] * t.scale * sign;
    if (t.theta > 0.0f)
        clip_spikes(t.theta, count, g, v);
    if (t.coupled != 0.0f) /* 0 times an infinite weight would be NaN */
        for (int i = 0; i < count; i++)
            g[i] = g[i] + w[i] * t.coupled;
    for (int i = 0; i < count; i++) {
        m[i] = fmaf(lerp, g[i] - m[i], from_grad ? g[i] : m[i]);
        v[i] = fmaf(t.square_weight * g[i], g[i], v[i] * t.beta2);
    }
    if (x)
        for (int i = 0; i < count; i++)
            x[i] = x[i] > v[i] ? x[i] : v[i];
    const float *square = x ? x : v;
    for (int i = 0; i < count; i++)
        w[i] = w[i] * t.decay + (t.neg_step * m[i]) / (sqrtf(square[i]) / t.bias2_sqrt + t.eps);
}

static inline void step_any_block(const adamw_tensor *t, int64_t block)
{
    float w[LANES], g[LANES], m[LANES], v[LANES], x[LANES], rest[LANES];
    uint32_t places[LANES], second[LANES], first[LANES], word[LANES];
    int ends[ADAMW_GROUPS];
    const int64_t low = block * ADAMW_BLOCK;
    const int length = block_length(t->numel, low), coded = t->first_type == ADAMW_I8;
    const int compacted = t->bits && !t->dense_state, groups = (length + ADAMW_GROUP - 1) / ADAMW_GROUP;
    const int64_t slot = compacted ? t->base[block] : low;
    const uint8_t *lanes = compacted ? t->bits : 0, *here = lanes ? lanes + low / 8 : 0;

    const int count = gather_block(t->weight, t->weight_type, lanes, low, length, w);
    gather_block(t->grad, t->grad_type, lanes, low, length, g);
    load_lanes(t->exp_avg, t->first_type, slot, count, m);
    load_lanes(t->exp_avg_sq, t->second_type, slot, count, v);
    if (t->max_exp_avg_sq)
        load_lanes(t->max_exp_avg_sq, t->second_type, slot, count, x);
    if (coded) {
        group_ends(here, length, ends);
        decode_first(m, ends, t->exp_avg_unit + block * ADAMW_GROUPS);
        decode_second(v, ends, t->exp_avg_sq_unit + block * ADAMW_GROUPS);
    }
    if (t->correction) {
        load_lanes(t->correction, ADAMW_I8, slot, count, rest);
        join(w, rest, count);
    }

    update(t, count, w, g, m, v, t->max_exp_avg_sq ? x : 0);

    if (t->bits && !compacted) {
        zero_lanes(t->bits + low / 8, length, w);
        zero_lanes(t->bits + low / 8, length, m);
        zero_lanes(t->bits + low / 8, length, v);
        if (t->max_exp_avg_sq)
            zero_lanes(t->bits + low / 8, length, x);
    }
    if (coded || t->correction) {
        lane_places(here, low, length, places);
        make_noise(places, count, t->seed, second, first, word);
    }
    if (coded) {
        encode(m, 0, ends, t->exp_avg_unit + block * ADAMW_GROUPS, groups, first);
        encode(v, 1, ends, t->exp_avg_sq_unit + block * ADAMW_GROUPS, groups, second);
    }
    if (t->correction) {
        split(w, rest, count, word); /* zero stays zero, whatever the noise */
        store_lanes(t->correction, ADAMW_I8, slot, count, rest);
    }
    store_lanes(t->exp_avg, t->first_type, slot, count, m);
    store_lanes(t->exp_avg_sq, t->second_type, slot, count, v);
    if (t->max_exp_avg_sq)
        store_lanes(t->max_exp_avg_sq, t->second_type, slot, count, x);
    /* Masked weights are zero, and are stored as zero again: nothing else can creep in. */
    scatter_block(t->weight, t->weight_type, lanes, low, length, w);
}

/* Sums of squares of the kept gradients of blocks `first` to `last`, one a block, in an order that nothing changes. */
static inline void square_sums(const void *grad, int32_t type, const uint8_t *bits, int64_t numel, int64_t first,
                               int64_t last, double *sums)
{
    float g[LANES];
    for (int64_t block = first; block < last; block++) {
        const int64_t low = block * ADAMW_BLOCK;
        const int count = gather_block(grad, type, bits, low, block_length(numel, low), g);
        double lane[16] = {0};
        memset(g + count, 0, 16 * sizeof *g);
        for (int i = 0; i < count; i += 16)
            for (int j = 0; j < 16; j++)
                lane[j] += (double)g[i + j] * g[i + j];
        for (int half = 8; half; half /= 2)
            for (int j = 0; j < half; j++)
                lane[j] += lane[j + half];
        sums[block] = lane[0];
    }
}
