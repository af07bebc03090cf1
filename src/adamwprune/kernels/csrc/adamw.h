/* SPDX-License-Identifier: MIT */
/* AdamW on compact state, as a plain C interface: no torch, no Python.
 *
 * A tensor of `numel` weights keeps the state of its kept weights only, packed in row-major order. `bits` says which are
 * kept, bit i % 8 of byte i / 8; `base[b]` is the compact slot of the first kept weight of block b (ADAMW_BLOCK weights).
 * Every instruction set runs the same sequence of correctly rounded operations per weight, so all give the same bits. */
#ifndef ADAMW_H
#define ADAMW_H

#include <stdint.h>
#include <string.h>

/* Raised with every change of a structure or a function's arguments. */
#define ADAMW_INTERFACE 5

#define ADAMW_BLOCK 1024

/* Weights that share a unit of 8-bit state (adamwprune.kernels.formats). */
#define ADAMW_GROUP 256
#define ADAMW_GROUPS (ADAMW_BLOCK / ADAMW_GROUP)

/* ADAMW_I8 and ADAMW_U8 are codes of first and second moments; corrections are ADAMW_I8, too. */
enum { ADAMW_F32 = 0, ADAMW_BF16 = 1, ADAMW_I8 = 2, ADAMW_U8 = 3 };

typedef struct {
    void *weight;
    const void *grad;
    void *exp_avg;
    void *exp_avg_sq;
    void *max_exp_avg_sq; /* NULL: no AMSGrad */
    float *exp_avg_unit;  /* with codes: a unit for each group of weights */
    float *exp_avg_sq_unit;
    int8_t *correction;  /* what bfloat16 weights lack; NULL: nothing is kept of it */
    const uint8_t *bits; /* NULL: every weight is kept */
    const int64_t *base;
    int64_t numel;
    int32_t weight_channels; /* inputs where they lie next to each other in memory (filters.h), 0: row-major */
    int32_t grad_channels;
    int32_t taps;
    int32_t weight_type;
    int32_t grad_type;
    int32_t first_type;  /* of exp_avg */
    int32_t second_type; /* of exp_avg_sq and max_exp_avg_sq */
    int32_t dense_state; /* state has the weight's shape though there is a mask */
    int32_t maximize;
    uint32_t seed;      /* of the noise of stochastic rounding: adamwprune.kernels.formats.seed */
    float scale;        /* what the gradient is multiplied by first */
    float decay;        /* 1 - lr * weight_decay, or 1 */
    float coupled;      /* weight decay that is added to the gradient, or 0 */
    float grad_weight;  /* 1 - beta1 */
    float beta2;
    float square_weight; /* 1 - beta2 */
    float bias2_sqrt;    /* sqrt(1 - beta2^t) */
    float eps;
    float neg_step; /* -lr / (1 - beta1^t) */
    float theta;    /* SPAM's spike threshold, or 0 */
} adamw_tensor;

static inline float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* float32 to bfloat16, nearest even */
static inline uint16_t to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value)
        return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline int block_length(int64_t numel, int64_t low)
{
    return (int)(numel - low < ADAMW_BLOCK ? numel - low : ADAMW_BLOCK);
}

/* Byte `byte` of a block's bits (NULL: every weight is kept), zero behind the `length` weights that the block has. */
static inline uint32_t kept_bits(const uint8_t *bits, int byte, int length)
{
    const uint32_t kept = bits ? bits[byte] : 0xff;
    return length - byte * 8 < 8 ? kept & ((1u << (length - byte * 8)) - 1) : kept;
}

/* In the order of adamwprune.kernels.native.SCORE_NAMES. */
enum {
    ADAMW_MAGNITUDE,
    ADAMW_HYBRID,
    ADAMW_SCALE_AWARE,
    ADAMW_STATE,
    ADAMW_FISHER,
    ADAMW_TAYLOR,
    ADAMW_MOVEMENT
};

/* One tensor at a mask update; addresses that the score does not need are NULL. */
typedef struct {
    const void *weight;
    const void *grad;
    const void *exp_avg;
    const void *exp_avg_sq;
    const float *exp_avg_unit;
    const float *exp_avg_sq_unit;
    const float *movement;
    const uint8_t *bits;
    const int64_t *base;
    int64_t numel;
    int32_t weight_type;
    int32_t grad_type;
    int32_t first_type;
    int32_t second_type;
    int32_t dense_state; /* state has the weight's shape though there is a mask */
    int32_t score;
    float bias1; /* 1 - beta1^t */
    float bias2; /* 1 - beta2^t */
    float eps;
} adamw_scored;

typedef struct {
    void (*step)(const adamw_tensor *, int64_t block);
    int64_t (*scores)(const adamw_scored *, int64_t first, int64_t last, float *out);
    int64_t (*sample)(const adamw_scored *, int64_t stride, float *out, int64_t capacity);
    int64_t (*between)(const adamw_scored *, float low, float high, float *out, int64_t capacity, uint8_t *marks,
                       uint8_t *open, int64_t *below, int64_t *bad);
    int64_t (*mark_open)(const float *scores, float threshold, int64_t spare, const uint8_t *open, int64_t numel,
                         uint8_t *marks);
    int64_t (*mark)(const adamw_scored *, float threshold, int64_t spare, uint8_t *marks);
    void (*compact)(const void *entries, int32_t size, const uint8_t *before, const int64_t *from, const uint8_t *after,
                    const int64_t *to, int64_t numel, int64_t kept, int64_t first, int64_t last, void *out);
    void (*square_sums)(const void *grad, int32_t type, const uint8_t *bits, int64_t numel, int64_t first, int64_t last,
                        double *sums);
} adamw_kernels;

/* Where the lowest scores of one or more tensors end (adamwprune.prune.thresholds.Cut). */
typedef struct {
    float threshold;
    int64_t below; /* under the threshold */
    int64_t at;    /* on it */
    int64_t bad;   /* not finite: there is no cut */
    int64_t kept;  /* marked */
} adamw_found;

extern const adamw_kernels adamw_scalar, adamw_avx2, adamw_avx512;

const adamw_kernels *adamw_kernels_of(int32_t isa);

void adamw_zero_masked_avx512(void *data, int32_t size, const uint8_t *bits, int64_t first, int64_t last);

#endif
