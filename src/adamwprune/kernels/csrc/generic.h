/* SPDX-License-Identifier: MIT */
/* Gathering and scattering in portable C; included by each instruction set that has no compress and expand of its own. */

#include <math.h>
#include <string.h>

#include "adamw.h"
#include "lanes.h"

/* The positions of a block's kept weights; returns how many there are. */
static inline int positions(const uint8_t *bits, int length, uint16_t *index)
{
    int count = 0;
    for (int byte = 0; byte * 8 < length; byte++)
        for (uint32_t kept = kept_bits(bits, byte, length); kept; kept &= kept - 1)
            index[count++] = (uint16_t)(byte * 8 + __builtin_ctz(kept));
    return count;
}

static inline int gather_block(const void *source, int32_t type, const uint8_t *bits, int64_t low, int length, float *out)
{
    if (!bits) {
        load_lanes(source, type, low, length, out);
        return length;
    }
    uint16_t index[ADAMW_BLOCK];
    const int count = positions(bits + low / 8, length, index);
    float all[ADAMW_BLOCK];
    load_lanes(source, type, low, length, all);
    for (int i = 0; i < count; i++)
        out[i] = all[index[i]];
    return count;
}

/* The inverse; entries that are not kept become zero. */
static inline void scatter_block(void *target, int32_t type, const uint8_t *bits, int64_t low, int length,
                                 const float *values)
{
    if (!bits) {
        store_lanes(target, type, low, length, values);
        return;
    }
    uint16_t index[ADAMW_BLOCK];
    const int count = positions(bits + low / 8, length, index);
    float all[ADAMW_BLOCK] = {0};
    for (int i = 0; i < count; i++)
        all[index[i]] = values[i];
    store_lanes(target, type, low, length, all);
}

static inline void zero_lanes(const uint8_t *bits, int length, float *restrict values)
{
    float all[ADAMW_BLOCK];
    uint16_t index[ADAMW_BLOCK];
    const int count = positions(bits, length, index);
    memcpy(all, values, (size_t)length * sizeof *values);
    memset(values, 0, (size_t)length * sizeof *values);
    for (int i = 0; i < count; i++)
        values[index[i]] = all[index[i]];
}

#include "block.h"
#include "scores.h"
#include "select.h"
