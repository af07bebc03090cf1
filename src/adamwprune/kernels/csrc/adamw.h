/* SPDX-License-Identifier: MIT */
/* AdamW on compact state, as a plain C interface: no torch, no Python.
 *
 * A tensor of `numel` weights keeps the state of its kept weights only, packed in row-major order. `bits` says which are
 * kept, bit i % 8 of byte i / 8; `base[b]` is the compact slot of the first kept weight of block b (ADAMW_BLOCK weights).
 * Every instruction set runs the same sequence of correctly rounded operations per weight, so all give the same bits. */
#ifndef ADAMW_H
#define ADAMW_H

#include <stdint.h>

#define ADAMW_BLOCK 1024

enum { ADAMW_F32 = 0, ADAMW_BF16 = 1 };

typedef struct {
    void *weight;
    const void *grad;
    void *exp_avg;
    void *exp_avg_sq;
    void *max_exp_avg_sq; /* NULL: no AMSGrad */
    const uint8_t *bits;  /* NULL: every weight is kept */
    const int64_t *base;
    int64_t numel;
    int32_t weight_type; /* of weight and grad */
    int32_t state_type;
    int32_t maximize;
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

typedef void (*adamw_block_function)(const adamw_tensor *, int64_t block);

void adamw_block_scalar(const adamw_tensor *, int64_t block);
void adamw_block_avx2(const adamw_tensor *, int64_t block);
void adamw_block_avx512(const adamw_tensor *, int64_t block);

void adamw_zero_masked_avx512(float *data, const uint8_t *bits, int64_t first, int64_t last);

#endif
