/*  An agenda: a set of small integers that gives out its highest or its lowest, in a few steps whatever there is.

    A bit an integer, a bit for each 64 of those, and so on: up to six levels. It is empty once all was taken.  */
#ifndef TG_AGENDA_H
#define TG_AGENDA_H

#include <stdlib.h>

#include "tape.h"

typedef struct {
    uint64_t *level[6], *memory;
    int top;
} tg_agenda;

/* For integers below n: TG_OK or TG_MEMORY. Freed with free(memory). */
static inline int tg_agenda_make(tg_agenda *g, uint32_t n)
{
    size_t words = n / 64 + (size_t)1, total = 0, at = 0;
    for (size_t w = words; ; w = (w + 63) / 64) {
        total += w;
        if (w == 1)
            break;
    }
    g->memory = tg_zeroed(total * sizeof *g->memory);
    if (!g->memory)
        return TG_MEMORY;
    for (g->top = 0; ; g->top++) {
        g->level[g->top] = g->memory + at;
        at += words;
        if (words == 1)
            return TG_OK;
        words = (words + 63) / 64;
    }
}

static inline void tg_agenda_add(tg_agenda *g, uint32_t i)
{
    for (int k = 0; k <= g->top; k++, i /= 64) {
        uint64_t *word = g->level[k] + i / 64, before = *word;
        *word |= (uint64_t)1 << i % 64;
        if (before)
            return;
    }
}

static inline uint32_t tg_bit_of(uint64_t word, int highest)
{
#if defined(__GNUC__)
    return (uint32_t)(highest ? 63 - __builtin_clzll(word) : __builtin_ctzll(word));
#else
    uint32_t k = highest ? 63 : 0;
    while (!(word >> k & 1))
        k += highest ? (uint32_t)-1 : 1u;
    return k;
#endif
}

/* The highest, or the lowest, which goes; TG_NONE where there is none. */
static inline uint32_t tg_agenda_take(tg_agenda *g, int highest)
{
    uint32_t i = 0;
    if (!g->level[g->top][0])
        return TG_NONE;
    for (int k = g->top; k >= 0; k--)
        i = 64 * i + tg_bit_of(g->level[k][i], highest);
    for (uint32_t k = 0, j = i; (int)k <= g->top; k++, j /= 64)
        if ((g->level[k][j / 64] &= ~((uint64_t)1 << j % 64)))
            break;
    return i;
}

#endif
