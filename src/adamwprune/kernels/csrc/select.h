/* SPDX-License-Identifier: MIT */
/* A mask update's passes over one tensor, block by block: score, count and collect, mark, compact.
 *
 * Included by each instruction set after block.h and, where it has a way to take 64 weights at once, after it has defined
 * MARK_WORD and MOVE_WORD. */

#include <math.h>
#include <string.h>

#include "adamw.h"

/* State of a block's kept weights: gathered where it is dense, contiguous where it is compact. */
static inline void gather_state(const adamw_scored *t, const void *state, int32_t type, int64_t block, int count, float *out)
{
    const int64_t low = block * ADAMW_BLOCK;
    if (t->dense_state || !t->bits)
        gather_block(state, type, t->bits, low, block_length(t->numel, low), out);
    else
        load_lanes(state, type, t->base[block], count, out);
}

static inline int score_block(const adamw_scored *t, int64_t block, float *out)
{
    float w[ADAMW_BLOCK + 16], g[ADAMW_BLOCK + 16], m[ADAMW_BLOCK + 16], v[ADAMW_BLOCK + 16];
    int ends[ADAMW_GROUPS];
    const int64_t low = block * ADAMW_BLOCK;
    const int length = block_length(t->numel, low);
    const int count = gather_block(t->weight, t->weight_type, t->bits, low, length, w);
    if (t->grad)
        gather_block(t->grad, t->grad_type, t->bits, low, length, g);
    if (t->exp_avg_unit || t->exp_avg_sq_unit)
        group_ends(t->bits ? t->bits + low / 8 : 0, length, ends);
    if (t->exp_avg) {
        gather_state(t, t->exp_avg, t->first_type, block, count, m);
        if (t->exp_avg_unit)
            decode_first(m, ends, t->exp_avg_unit + block * ADAMW_GROUPS);
        for (int i = 0; i < count; i++)
            m[i] = fabsf(m[i] / t->bias1);
    }
    if (t->exp_avg_sq) {
        gather_state(t, t->exp_avg_sq, t->second_type, block, count, v);
        if (t->exp_avg_sq_unit)
            decode_second(v, ends, t->exp_avg_sq_unit + block * ADAMW_GROUPS);
        for (int i = 0; i < count; i++)
            v[i] = sqrtf(v[i] / t->bias2);
    }
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
    case ADAMW_TAYLOR:
        for (int i = 0; i < count; i++)
            out[i] = fabsf(w[i] * g[i]);
        break;
    default:
        gather_state(t, t->movement, ADAMW_F32, block, count, out);
    }
    return count;
}

/* Scores of blocks `first` to `last`, one after the other; returns how many. */
static inline int64_t all_scores(const adamw_scored *t, int64_t first, int64_t last, float *out)
{
    float scores[ADAMW_BLOCK + 16];
    int64_t total = 0;
    for (int64_t block = first; block < last; block++) {
        const int count = score_block(t, block, scores);
        memcpy(out + total, scores, (size_t)count * 4);
        total += count;
    }
    return total;
}

/* Of every `stride`-th block: counts scores under `low` and scores that are not finite, and collects those from `low`
 * to `high`. Returns how many lie there; no more than `capacity` are written. */
static inline int64_t scores_between(const adamw_scored *t, int64_t first, int64_t last, int64_t stride, float low,
                                     float high, float *out, int64_t capacity, int64_t *below, int64_t *bad)
{
    float scores[ADAMW_BLOCK + 16];
    int64_t found = 0;
    for (int64_t block = first; block < last; block += stride) {
        const int count = score_block(t, block, scores);
        int under = 0, over = 0, broken = 0;
        for (int i = 0; i < count; i++) {
            under += scores[i] < low;
            over += scores[i] > high;
            broken += !(fabsf(scores[i]) < INFINITY);
        }
        *below += under;
        *bad += broken;
        if (under + over == count)
            continue;
        float inside[ADAMW_BLOCK + 16];
        int inner = 0;
        for (int i = 0; i < count; i++) { /* written anyway, so that nothing branches on the data */
            inside[inner] = scores[i];
            inner += (scores[i] >= low) & (scores[i] <= high);
        }
        if (found < capacity)
            memcpy(out + found, inside, (size_t)(capacity - found < inner ? capacity - found : inner) * 4);
        found += inner;
    }
    return found;
}

/* Mask of one byte's weights: those whose scores, taken in order from `scores`, lie above the threshold, and the first
 * `spare` that lie on it. */
static inline uint8_t mark_byte(uint32_t bits, const float *scores, float threshold, int64_t *spare)
{
    uint32_t mark = 0;
    for (; bits; bits &= bits - 1) {
        const float score = *scores++;
        const int keep = score > threshold || (score == threshold && (*spare)-- > 0);
        mark |= (uint32_t)keep << __builtin_ctz(bits);
    }
    return (uint8_t)mark;
}

/* Marks in `marks` (one bit a weight) the kept weights whose scores lie above the threshold, and the first `spare` of
 * those that lie on it. Returns how many are marked. */
static inline int64_t mark_above(const adamw_scored *t, float threshold, int64_t spare, uint8_t *marks)
{
    float scores[ADAMW_BLOCK + 64];
    int64_t kept = 0;
    for (int64_t low = 0; low < t->numel; low += ADAMW_BLOCK) {
        const int length = block_length(t->numel, low);
        const uint8_t *bits = t->bits ? t->bits + low / 8 : 0;
        score_block(t, low / ADAMW_BLOCK, scores);
        int byte = 0, i = 0;
#ifdef MARK_WORD
        for (; byte * 8 + 64 <= length; byte += 8) {
            uint64_t had = ~0ull;
            if (bits)
                memcpy(&had, bits + byte, 8);
            const uint64_t marked = MARK_WORD(had, scores + i, threshold, &spare);
            memcpy(marks + low / 8 + byte, &marked, 8);
            kept += __builtin_popcountll(marked);
            i += __builtin_popcountll(had);
        }
#endif
        for (; byte * 8 < length; byte++) {
            const uint32_t had = kept_bits(bits, byte, length);
            const uint8_t marked = mark_byte(had, scores + i, threshold, &spare);
            marks[low / 8 + byte] = marked;
            kept += __builtin_popcount(marked);
            i += __builtin_popcount(had);
        }
    }
    return kept;
}

/* Move the entries (`size` bytes each) of the weights that `after` keeps down to the front, in place: a kept weight's
 * slot never rises. `before` says which entries there are (NULL: one for each weight). Returns how many stay. */
static inline int64_t compact_entries(void *entries, int32_t size, const uint8_t *before, const uint8_t *after, int64_t numel)
{
    char *data = entries;
    int64_t source = 0, target = 0, byte = 0;
#ifdef MOVE_WORD
    if (size == 4)
        for (; byte * 8 + 64 <= numel; byte += 8) {
            uint64_t had = ~0ull, stay;
            if (before)
                memcpy(&had, before + byte, 8);
            memcpy(&stay, after + byte, 8);
            MOVE_WORD((float *)entries, source, target, had, stay);
            source += __builtin_popcountll(had);
            target += __builtin_popcountll(stay);
        }
#endif
    for (; byte * 8 < numel; byte++) {
        uint32_t had = before ? before[byte] : 0xff;
        if (numel - byte * 8 < 8)
            had &= (1u << (numel - byte * 8)) - 1;
        const uint32_t stay = after[byte];
        if (stay == had && source == target) {
            source = target += __builtin_popcount(had);
            continue;
        }
        for (; had; had &= had - 1) {
            if (stay & had & -had) {
                memcpy(data + target * size, data + source * size, (size_t)size);
                target++;
            }
            source++;
        }
    }
    return target;
}
