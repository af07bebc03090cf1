/* SPDX-License-Identifier: MIT */
/* The exact cut below the lowest scores of one or more tensors, in one pass over them.
 *
 * A sample tells between which two scores the threshold lies. One pass counts what is below and collects what is between,
 * and the exact rank is looked up there. Where marks are asked for, the same pass makes them. */
#include <math.h>
#include <string.h>

#include "adamw.h"

#define LEAST_SAMPLE (1 << 13)
#define MOST_SAMPLE (1 << 20)
#define BINS 2048

/* To unsigned integers that order alike; the zeros share one. */
static inline uint32_t order_key(float score)
{
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, 4);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

static float key_value(uint32_t key)
{
    const uint32_t bits = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
    float score;
    memcpy(&score, &bits, 4);
    return score;
}

/* The score at `rank` (from 1) in ascending order: counts keys in bins, and bins of the bin in which it lies. */
static float at_rank(const float *scores, int64_t count, int64_t rank)
{
    uint32_t first = 0xffffffffu, last = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t key = order_key(scores[i]);
        first = key < first ? key : first;
        last = key > last ? key : last;
    }
    uint32_t span = last - first;
    while (span) {
        int64_t counts[BINS] = {0};
        int shift = 0, bin = 0;
        while (span >> shift >= BINS)
            shift++;
        for (int64_t i = 0; i < count; i++) {
            const uint32_t offset = order_key(scores[i]) - first;
            if (offset <= span)
                counts[offset >> shift]++;
        }
        for (; rank > counts[bin]; bin++)
            rank -= counts[bin];
        const uint32_t skipped = (uint32_t)bin << shift, width = (1u << shift) - 1;
        first += skipped;
        span = span - skipped < width ? span - skipped : width;
    }
    return key_value(first);
}

/* Scores that a sample has, and for which nothing is sampled: all are collected. */
static int64_t sample_size(int64_t kept)
{
    const int64_t part = kept / 128;
    return part < LEAST_SAMPLE ? LEAST_SAMPLE : part > MOST_SAMPLE ? MOST_SAMPLE : part;
}

/* Scores for which the caller needs room, that of a sample included. */
int64_t adamw_cut_room(int64_t kept)
{
    return kept / 8 + 2 * sample_size(kept) + 80;
}

static int64_t sample(const adamw_scored *tensors, int64_t tensor_count, int64_t kept, float *out, const adamw_kernels *with)
{
    const int64_t size = sample_size(kept);
    int64_t drawn = 0;
    for (int64_t i = 0; i < tensor_count; i++)
        drawn += with->sample(&tensors[i], kept / size, out + drawn, 2 * size - drawn);
    return drawn;
}

/* Two scores between which the `count`-th lowest lies, most likely; infinities where there is no need. */
static void bracket(const float *scores, int64_t drawn, double share, double deviations, float *low, float *high)
{
    const double margin = deviations * sqrt((double)drawn * share * (1 - share)) + 16;
    const int64_t before = (int64_t)floor((double)drawn * share - margin);
    const int64_t behind = (int64_t)ceil((double)drawn * share + margin);
    *low = before >= 1 ? at_rank(scores, drawn, before) : -INFINITY;
    *high = behind <= drawn ? at_rank(scores, drawn, behind) : INFINITY;
    /* NaN, which the pass will refuse, brackets nothing. */
    *low = *low > -INFINITY ? *low : -INFINITY;
    *high = *high < INFINITY ? *high : INFINITY;
}

/* Per tensor: scores under the threshold, and on it; until now `at` says how many of the collected ones are the tensor's. */
static void count_at(float threshold, int64_t tensor_count, const float *scores, adamw_found *found)
{
    for (int64_t i = 0; i < tensor_count; i++) {
        const int64_t inside = found[i].at;
        int64_t below = 0, at = 0;
        for (int64_t j = 0; j < inside; j++) {
            below += scores[j] < threshold;
            at += scores[j] == threshold;
        }
        scores += inside;
        found[i].threshold = threshold;
        found[i].below += below;
        found[i].at = at;
    }
}

/* Find the cut below which `count` of the tensors' `kept` scores lie; `room` has adamw_cut_room(kept) entries, and `found`
 * one for each tensor. With `marks`, which takes one tensor, the weights that stay are marked; `open` is as large.
 * Returns 0, or 1 where the sample misled: then nothing is known but `bad`. */
int32_t adamw_cut(const adamw_scored *tensors, int64_t tensor_count, int64_t kept, int64_t count, float *room,
                  adamw_found *found, uint8_t *open, uint8_t *marks, int32_t isa)
{
    const adamw_kernels *with = adamw_kernels_of(isa);
    const int64_t capacity = adamw_cut_room(kept);
    float low = -INFINITY, high = count ? INFINITY : -INFINITY;
    if (count && kept > sample_size(kept)) {
        const int64_t drawn = sample(tensors, tensor_count, kept, room, with);
        /* Neighbouring weights are alike, so that a sample of stretches says less than its size: twice the usual margin. */
        bracket(room, drawn, (double)count / (double)kept, 8, &low, &high);
    }
    int64_t below = 0, bad = 0, inside = 0;
    for (int64_t i = 0; i < tensor_count; i++) {
        memset(&found[i], 0, sizeof found[i]);
        float *out = inside < capacity ? room + inside : room;
        found[i].at = with->between(&tensors[i], low, high, out, capacity - inside, marks, open, &found[i].below, &found[i].bad);
        inside += found[i].at;
        below += found[i].below;
        bad += found[i].bad;
    }
    if (bad)
        return 0;
    if (count && (inside + 80 > capacity || count <= below || count > below + inside))
        return 1;
    const float threshold = count ? at_rank(room, inside, count - below) : -INFINITY;
    count_at(threshold, tensor_count, room, found);
    if (marks)
        found->kept = with->mark_open(room, threshold, found->at - (count - found->below), open, tensors->numel, marks);
    return 0;
}
