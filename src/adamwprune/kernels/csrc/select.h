/* SPDX-License-Identifier: MIT */
/* A mask update's passes over one tensor: score, sample, count and collect, mark, compact.
 *
 * Included by each instruction set after block.h and, where it has its own ways, after it has defined
 *     SCORE_LANES(t, count, w, g, m, v, out)     scores of gathered entries, as score_lanes below
 *     SPLIT(count, scores, low, high, ...)       as split_scores below
 *     SPREAD(chosen, had)                        as spread_bits below
 *     MOVE_WORD(...)                             as move_entries below */

#include <math.h>
#include <string.h>

#include "adamw.h"

/* The 64 bits of weights `low` and on (NULL: every weight is kept), zero behind the last weight. */
static inline uint64_t word_at(const uint8_t *bits, int64_t numel, int64_t low)
{
    const int64_t left = numel - low;
    uint64_t word = 0;
    if (left >= 64) {
        word = ~0ull;
        if (bits)
            memcpy(&word, bits + low / 8, 8);
        return word;
    }
    for (int64_t byte = 0; byte * 8 < left; byte++)
        word |= (uint64_t)kept_bits(bits ? bits + low / 8 : 0, (int)byte, (int)left) << byte * 8;
    return word;
}

static inline void put_word(uint8_t *bits, int64_t numel, int64_t low, uint64_t word)
{
    const int64_t bytes = (numel - low + 7) / 8;
    memcpy(bits + low / 8, &word, bytes < 8 ? (size_t)bytes : 8);
}

/* Bit i of `chosen` to the place of the i-th bit of `had`. */
#ifndef SPREAD
static inline uint64_t spread_bits(uint64_t chosen, uint64_t had)
{
    uint64_t spread = 0;
    for (; had && chosen; had &= had - 1, chosen >>= 1)
        if (chosen & 1)
            spread |= had & -had;
    return spread;
}
#define SPREAD spread_bits
#endif

/* State of `count` kept weights from `low` on: gathered where it is dense, contiguous from `slot` where it is compact. */
static inline void gather_state(const adamw_scored *t, const void *state, int32_t type, int64_t low, int length,
                                int64_t slot, int count, float *out)
{
    if (t->dense_state || !t->bits)
        gather_block(state, type, t->bits, low, length, out);
    else
        load_lanes(state, type, slot, count, out);
}

/* Scores of the kept weights among `length` from `low` (a multiple of 64) on; `slot` is that of the first one. At most a
 * block, and within one unit of 8-bit state where it does not begin one. */
static inline int score_stretch(const adamw_scored *t, int64_t low, int length, int64_t slot, float *out)
{
    float w[LANES], g[LANES], m[LANES], v[LANES];
    int ends[ADAMW_GROUPS];
    const int count = gather_block(t->weight, t->weight_type, t->bits, low, length, w);
    if (t->grad)
        gather_block(t->grad, t->grad_type, t->bits, low, length, g);
    if (t->exp_avg_unit || t->exp_avg_sq_unit)
        group_ends(t->bits ? t->bits + low / 8 : 0, length, ends);
    if (t->exp_avg) {
        gather_state(t, t->exp_avg, t->first_type, low, length, slot, count, m);
        if (t->exp_avg_unit)
            decode_first(m, ends, t->exp_avg_unit + low / ADAMW_GROUP);
    }
    if (t->exp_avg_sq) {
        gather_state(t, t->exp_avg_sq, t->second_type, low, length, slot, count, v);
        if (t->exp_avg_sq_unit)
            decode_second(v, ends, t->exp_avg_sq_unit + low / ADAMW_GROUP);
    }
    if (t->score == ADAMW_MOVEMENT)
        gather_state(t, t->movement, ADAMW_F32, low, length, slot, count, out);
    else
        SCORE_LANES(t, count, w, g, m, v, out);
    return count;
}

/* Ask for `count` entries from `start` on, which come next: a block of float32 is a page, where processors stop to look
 * ahead by themselves. What lies behind the end is not read by this. */
static inline void ask_for(const void *entries, int32_t type, int64_t start, int count)
{
    const int size = type == ADAMW_F32 ? 4 : type == ADAMW_BF16 ? 2 : 1;
    if (entries)
        for (int byte = 0; byte < count * size; byte += 64)
            __builtin_prefetch((const char *)entries + start * size + byte);
}

static inline int score_block(const adamw_scored *t, int64_t block, float *out)
{
    const int64_t low = block * ADAMW_BLOCK, slot = t->base ? t->base[block] : 0;
    const int length = block_length(t->numel, low), last = low + length == t->numel;
    const int64_t next = last ? 0 : t->base ? t->base[block + 1] : low + ADAMW_BLOCK;
    if (!last) {
        const int states = t->base ? (int)(next - slot) : length;
        ask_for(t->weight, t->weight_type, low + ADAMW_BLOCK, length);
        ask_for(t->grad, t->grad_type, low + ADAMW_BLOCK, length);
        ask_for(t->exp_avg, t->first_type, next, states);
        ask_for(t->exp_avg_sq, t->second_type, next, states);
        ask_for(t->movement, ADAMW_F32, next, states);
    }
    return score_stretch(t, low, length, slot, out);
}

/* Scores of blocks `first` to `last`, one after the other; returns how many. */
static inline int64_t all_scores(const adamw_scored *t, int64_t first, int64_t last, float *out)
{
    float scores[LANES];
    int64_t total = 0;
    for (int64_t block = first; block < last; block++) {
        const int count = score_block(t, block, scores);
        memcpy(out + total, scores, (size_t)count * 4);
        total += count;
    }
    return total;
}

/* Scores of 64 weights out of every `64 * stride`, at places that no regular shape of the tensor meets. Returns how many
 * there are, no more than `capacity`. */
static inline int64_t sample_scores(const adamw_scored *t, int64_t stride, float *out, int64_t capacity)
{
    float scores[LANES];
    const int64_t pieces = (t->numel + 63) / 64;
    int64_t total = 0;
    for (int64_t first = 0; first < pieces; first += stride) {
        const uint32_t chance = (uint32_t)first * 0x9E3779B1u;
        const int64_t piece = first + (int64_t)((uint64_t)(chance ^ chance >> 15) % (uint64_t)stride), low = piece * 64;
        if (piece >= pieces)
            break;
        int64_t slot = 0;
        if (t->base) {
            slot = t->base[low / ADAMW_BLOCK];
            for (int64_t before = low / ADAMW_BLOCK * ADAMW_BLOCK; before < low; before += 64)
                slot += __builtin_popcountll(word_at(t->bits, t->numel, before));
        }
        const int count = score_stretch(t, low, t->numel - low < 64 ? (int)(t->numel - low) : 64, slot, scores);
        if (total + count > capacity)
            break;
        memcpy(out + total, scores, (size_t)count * 4);
        total += count;
    }
    return total;
}

/* Bit i of `over`: the i-th score is above `high`; of `inside`: it is neither that nor under `low`. Writes the scores
 * inside to `out` (16 more may be written), counts in `bad` those that are not finite. Up to 64 scores. */
#ifndef SPLIT
static inline void split_scores(int count, const float *scores, float low, float high, uint64_t *over, uint64_t *inside,
                                int64_t *bad, float *out)
{
    uint64_t above = 0, within = 0;
    int found = 0;
    for (int i = 0; i < count; i++) {
        const int more = scores[i] > high, here = !(more | (scores[i] < low));
        above |= (uint64_t)more << i;
        within |= (uint64_t)here << i;
        *bad += !(fabsf(scores[i]) < INFINITY);
        out[found] = scores[i]; /* written anyway, so that nothing branches on the data */
        found += here;
    }
    *over = above;
    *inside = within;
}
#define SPLIT split_scores
#endif

/* Counts scores under `low` and scores that are not finite, and collects those from `low` to `high`, in order. Returns how
 * many lie there; no more than about `capacity` are written. Where `marks` is not NULL, it gets the bits of the weights
 * whose scores lie above `high`, and `open` those of the weights whose scores were collected. */
static inline int64_t scores_between(const adamw_scored *t, float low, float high, float *out, int64_t capacity,
                                     uint8_t *marks, uint8_t *open, int64_t *below, int64_t *bad)
{
    float scores[ADAMW_BLOCK + 64], some[80];
    int64_t found = 0, scored = 0, higher = 0;
    for (int64_t start = 0; start < t->numel; start += ADAMW_BLOCK) {
        const int count = score_block(t, start / ADAMW_BLOCK, scores);
        int done = 0;
        scored += count;
        for (int64_t place = start; done < count || (marks && place < t->numel && place < start + ADAMW_BLOCK); place += 64) {
            const uint64_t had = word_at(t->bits, t->numel, place);
            const int here = __builtin_popcountll(had);
            uint64_t over, inside;
            SPLIT(here, scores + done, low, high, &over, &inside, bad, found + 80 <= capacity ? out + found : some);
            found += __builtin_popcountll(inside);
            higher += __builtin_popcountll(over);
            done += here;
            if (marks) {
                put_word(marks, t->numel, place, SPREAD(over, had));
                put_word(open, t->numel, place, SPREAD(inside, had));
            }
        }
    }
    *below += scored - higher - found;
    return found;
}

/* Which of `count` scores lie above the threshold, and the first `spare` of those that lie on it. */
static inline uint64_t above(int count, const float *scores, float threshold, int64_t *spare)
{
    float on[80];
    uint64_t over, equal;
    int64_t bad = 0;
    SPLIT(count, scores, threshold, threshold, &over, &equal, &bad, on);
    for (; equal && *spare > 0; equal &= equal - 1, --*spare)
        over |= equal & -equal;
    return over;
}

/* Marks the open weights whose scores, which scores_between collected, lie above the threshold, and the first `spare` of
 * those that lie on it. Returns how many weights are marked in all. */
static inline int64_t mark_open(const float *scores, float threshold, int64_t spare, const uint8_t *open, int64_t numel,
                                uint8_t *marks)
{
    int64_t kept = 0;
    for (int64_t low = 0; low < numel; low += 64) {
        const uint64_t asked = word_at(open, numel, low);
        uint64_t marked = word_at(marks, numel, low);
        if (asked) {
            const int count = __builtin_popcountll(asked);
            marked |= SPREAD(above(count, scores, threshold, &spare), asked);
            put_word(marks, numel, low, marked);
            scores += count;
        }
        kept += __builtin_popcountll(marked);
    }
    return kept;
}

/* Marks in `marks` (one bit a weight) the kept weights whose scores lie above the threshold, and the first `spare` of
 * those that lie on it. Returns how many are marked. */
static inline int64_t mark_above(const adamw_scored *t, float threshold, int64_t spare, uint8_t *marks)
{
    float scores[ADAMW_BLOCK + 64];
    int64_t kept = 0;
    for (int64_t start = 0; start < t->numel; start += ADAMW_BLOCK) {
        const int64_t end = start + block_length(t->numel, start);
        score_block(t, start / ADAMW_BLOCK, scores);
        int done = 0;
        for (int64_t low = start; low < end; low += 64) {
            const uint64_t had = word_at(t->bits, t->numel, low);
            const int count = __builtin_popcountll(had);
            const uint64_t marked = SPREAD(above(count, scores + done, threshold, &spare), had);
            put_word(marks, t->numel, low, marked);
            kept += __builtin_popcountll(marked);
            done += count;
        }
    }
    return kept;
}

/* Copy the entries of `stay` among those of `had` from `source` on to `target` on, which ends at `limit`. */
#ifndef MOVE_WORD
static inline void move_entries(const void *entries, int32_t size, int64_t source, void *out, int64_t target, int64_t limit,
                                uint64_t had, uint64_t stay)
{
    (void)limit;
    for (; had; had &= had - 1, source++)
        if (stay & had & -had)
            memcpy((char *)out + target++ * size, (const char *)entries + source * size, (size_t)size);
}
#define MOVE_WORD move_entries
#endif

/* Copy the entries (`size` bytes each) of the weights that `after` keeps in blocks `first` to `last` to `out`, packed. The
 * slots of the blocks' first weights are `from` (NULL: entries lie as the weights do) and `to`; `before` says which entries
 * there are (NULL: all); `after` keeps `kept` in the whole tensor. */
static inline void compact_entries(const void *entries, int32_t size, const uint8_t *before, const int64_t *from,
                                   const uint8_t *after, const int64_t *to, int64_t numel, int64_t kept,
                                   int64_t first, int64_t last, void *out)
{
    const int64_t blocks = (numel + ADAMW_BLOCK - 1) / ADAMW_BLOCK, limit = last < blocks ? to[last] : kept;
    const int64_t end = last < blocks ? last * ADAMW_BLOCK : numel;
    int64_t source = before ? from[first] : first * ADAMW_BLOCK, target = to[first];
    for (int64_t low = first * ADAMW_BLOCK; low < end; low += 64) {
        const uint64_t had = word_at(before, numel, low), stay = word_at(after, numel, low);
        MOVE_WORD(entries, size, source, out, target, limit, had, stay);
        source += __builtin_popcountll(had);
        target += __builtin_popcountll(stay);
    }
}
