/* SPDX-License-Identifier: MIT */
/* Contiguous entries of any type to float32 lanes and back. Included by each instruction set. */

#include <string.h>

#include "adamw.h"

static inline void load_lanes(const void *source, int32_t type, int64_t start, int count, float *out)
{
    switch (type) {
    case ADAMW_F32:
        memcpy(out, (const float *)source + start, (size_t)count * 4);
        break;
    case ADAMW_BF16:
        for (int i = 0; i < count; i++)
            out[i] = from_bf16(((const uint16_t *)source)[start + i]);
        break;
    case ADAMW_I8:
        for (int i = 0; i < count; i++)
            out[i] = ((const int8_t *)source)[start + i];
        break;
    default:
        for (int i = 0; i < count; i++)
            out[i] = ((const uint8_t *)source)[start + i];
    }
}

/* Codes are whole numbers that fit. */
static inline void store_lanes(void *target, int32_t type, int64_t start, int count, const float *values)
{
    switch (type) {
    case ADAMW_F32:
        memcpy((float *)target + start, values, (size_t)count * 4);
        break;
    case ADAMW_BF16:
        for (int i = 0; i < count; i++)
            ((uint16_t *)target)[start + i] = to_bf16(values[i]);
        break;
    case ADAMW_I8:
        for (int i = 0; i < count; i++)
            ((int8_t *)target)[start + i] = (int8_t)values[i];
        break;
    default:
        for (int i = 0; i < count; i++)
            ((uint8_t *)target)[start + i] = (uint8_t)values[i];
    }
}
