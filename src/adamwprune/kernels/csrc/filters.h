/* SPDX-License-Identifier: MIT */
/* Filters whose channels lie next to each other in memory (torch.channels_last), a stretch at a time in row-major order.
 *
 * A filter of `channels` inputs and `taps` places has weight (i, k) at i * taps + k in row-major order, and at
 * k * channels + i in memory. Stretches are long enough to read memory in order, and small enough to stay in the cache. */
#ifndef ADAMW_FILTERS_H
#define ADAMW_FILTERS_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "adamw.h"

/* Blocks that are moved together, and their weights. */
#define FILTER_BLOCKS 8
#define FILTER_ROWS (FILTER_BLOCKS * ADAMW_BLOCK)

/* One tap of channels `first` to `last`, to rows or back. */
static inline __attribute__((always_inline)) void move_tap(char *rows, char *memory, const int size, const int back, int k,
                                                           int first, int last, int channels, int taps)
{
    for (int i = first; i < last; i++) {
        char *row = rows + ((int64_t)i * taps + k) * size, *place = memory + ((int64_t)k * channels + i) * size;
        memcpy(back ? place : row, back ? row : place, (size_t)size);
    }
}

#if defined(__SSE2__)
/* Four taps from `k` on of four channels from `i` on, of 4 bytes each: a transposition. */
static inline void move_square(char *rows, char *memory, const int back, int k, int i, int channels, int taps)
{
    char *from = back ? rows + ((int64_t)i * taps + k) * 4 : memory + ((int64_t)k * channels + i) * 4;
    char *to = back ? memory + ((int64_t)k * channels + i) * 4 : rows + ((int64_t)i * taps + k) * 4;
    const int64_t from_line = (back ? taps : channels) * (int64_t)4, to_line = (back ? channels : taps) * (int64_t)4;
    const __m128i a = _mm_loadu_si128((const __m128i *)from), b = _mm_loadu_si128((const __m128i *)(from + from_line));
    const __m128i c = _mm_loadu_si128((const __m128i *)(from + 2 * from_line));
    const __m128i d = _mm_loadu_si128((const __m128i *)(from + 3 * from_line));
    const __m128i low = _mm_unpacklo_epi32(a, b), high = _mm_unpackhi_epi32(a, b);
    const __m128i low2 = _mm_unpacklo_epi32(c, d), high2 = _mm_unpackhi_epi32(c, d);
    _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi64(low, low2));
    _mm_storeu_si128((__m128i *)(to + to_line), _mm_unpackhi_epi64(low, low2));
    _mm_storeu_si128((__m128i *)(to + 2 * to_line), _mm_unpacklo_epi64(high, high2));
    _mm_storeu_si128((__m128i *)(to + 3 * to_line), _mm_unpackhi_epi64(high, high2));
}
#endif

/* All taps of channels `first` to `last`. */
static inline __attribute__((always_inline)) void move_channels(char *rows, char *memory, const int size, const int back,
                                                                int first, int last, int channels, int taps)
{
    int k = 0;
#if defined(__SSE2__)
    for (; size == 4 && k + 4 <= taps; k += 4) {
        int i = first;
        for (; i + 4 <= last; i += 4)
            move_square(rows, memory, back, k, i, channels, taps);
        for (int tap = k; tap < k + 4; tap++)
            move_tap(rows, memory, size, back, tap, i, last, channels, taps);
    }
#endif
    for (; k < taps; k++)
        move_tap(rows, memory, size, back, k, first, last, channels, taps);
}

/* Copy entries `low` to `low + length`, row-major, between `rows` (which holds them alone) and `memory`, the tensor. */
static inline __attribute__((always_inline)) void move_filters(char *rows, char *memory, const int size, const int back,
                                                               int64_t low, int length, int channels, int taps)
{
    const int64_t filter = (int64_t)channels * taps;
    for (int done = 0; done < length;) {
        const int64_t number = (low + done) / filter, begin = low + done - number * filter;
        const int64_t end = filter - begin < length - done ? filter : begin + length - done;
        const int first = (int)(begin / taps), from_tap = (int)(begin % taps), last = (int)(end / taps);
        char *here = rows + (done - begin) * size, *there = memory + number * filter * size;
        /* Whole channels, between the parts of channels in which the stretch begins and ends. */
        for (int k = from_tap; from_tap && k < (last > first ? taps : (int)(end % taps)); k++)
            move_tap(here, there, size, back, k, first, first + 1, channels, taps);
        if (last > first || !from_tap)
            for (int k = 0; k < (int)(end % taps); k++)
                move_tap(here, there, size, back, k, last, last + 1, channels, taps);
        move_channels(here, there, size, back, first + (from_tap > 0), last, channels, taps);
        done += (int)(end - begin);
    }
}

static inline int size_of(int32_t type)
{
    return type == ADAMW_F32 ? 4 : 2;
}

static inline void rows_of_filters(void *rows, const void *memory, int size, int64_t low, int length, int channels,
                                   int taps)
{
    if (size == 4)
        move_filters(rows, (char *)memory, 4, 0, low, length, channels, taps);
    else
        move_filters(rows, (char *)memory, 2, 0, low, length, channels, taps);
}

static inline void filters_of_rows(void *memory, const void *rows, int size, int64_t low, int length, int channels,
                                   int taps)
{
    if (size == 4)
        move_filters((char *)rows, memory, 4, 1, low, length, channels, taps);
    else
        move_filters((char *)rows, memory, 2, 1, low, length, channels, taps);
}

/* Ask for a block's worth of memory that comes later. */
static inline void ask_for_block(const void *memory, int size, int64_t block)
{
    for (int byte = 0; byte < ADAMW_BLOCK * size; byte += 64)
        __builtin_prefetch((const char *)memory + block * ADAMW_BLOCK * size + byte);
}

/* Where entry 0 would be if `rows` held the entries from `low` on. */
static inline void *origin(void *rows, int size, int64_t low)
{
    return (void *)((uintptr_t)rows - (uintptr_t)low * (uintptr_t)size);
}

#endif
