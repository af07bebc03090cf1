/* SPDX-License-Identifier: MIT */
/* Scores of gathered entries in portable C: plain loops, one for each score. */

#include <math.h>

#include "adamw.h"

/* Scores of `count` weights, of the gradients and moments that the score needs; moments are used up. */
static inline void score_lanes(const adamw_scored *t, int count, const float *restrict w, const float *restrict g,
                               float *restrict m, float *restrict v, float *restrict out)
{
    if (t->exp_avg)
        for (int i = 0; i < count; i++)
            m[i] = fabsf(m[i] / t->bias1);
    if (t->exp_avg_sq)
        for (int i = 0; i < count; i++)
            v[i] = sqrtf(v[i] / t->bias2);
    switch (t->score) {
    case ADAMW_MAGNITUDE:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i]);
        break;
    case ADAMW_HYBRID:
        for (int i = 0; i < count; i++)
            out[i] = w[i] * w[i] * m[i] / (v[i] + t->eps);
        break;
    case ADAMW_SCALE_AWARE:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i]) * v[i] / (m[i] + t->eps);
        break;
    case ADAMW_STATE:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i]) * sqrtf(v[i]);
        break;
    case ADAMW_FISHER:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i]) * v[i];
        break;
    default:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i] * g[i]);
    }
}
#define SCORE_LANES score_lanes
