/*  Stretches of many-operand rows as terms.c and terms_along.c walk along them.

    What steps by one is read where it lies, what does not step is one number for all. Backwards an operand that steps
    gets its adjoints side by side, too; what does not, a weight, is a sum over the instructions, from the last to the
    first, FOUR such sums at a time. wide.c makes sure that these are the sums of one instruction after the other, to
    the bit.  */
#ifndef TG_TERMS_H
#define TG_TERMS_H

#include "wide/wide.h"
#include "compiled.h"
#include "ops.h"

enum { BLOCK = 32, FAR = 2 * BLOCK, FOUR = 4, FEW = 8 };
enum { NEURONS_APART = 4 };     /* so few of a layer are better off by themselves */
#define EACH for (uint32_t l = 0; l < BLOCK; l++)
#define EIGHT for (uint32_t l = 0; l < 8; l++)

/* n numbers, step by step. */
typedef struct {
    const double *x;
    ptrdiff_t step;
} walk;

typedef struct {
    const tg_program *p;
    const tg_group *g;
    uint32_t first, n;          /* its elements in the group */
} stretch;

TG_INLINE walk walk_of(const stretch *s, uint32_t i, int numbering, const double *v, uint32_t at)
{
    const tg_stride w = tg_stride_of(s->p, s->g, s->first, s->n, i, numbering);
    return (walk){v + w.at + (ptrdiff_t)w.step * at, w.step};
}

/* Element k of a group is in this stretch. */
static inline uint32_t stretch_of(const tg_wide *w, const tg_group *g, uint32_t k)
{
    const uint32_t *first = w->list + g->stretches;
    uint32_t low = 0, high = g->n_stretches;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (first[middle] <= k)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static inline stretch the_stretch(const tg_job *j, const tg_group *g, uint32_t k)
{
    const uint32_t *first = j->program->wide->list + g->stretches + k;
    return (stretch){j->program, g, first[0], first[1] - first[0]};
}

/* The first stretch of the layer that stretch k is in, or TG_NONE. */
static inline uint32_t layer_at(const tg_wide *w, const tg_group *g, uint32_t k)
{
    return w->list[g->stretches + g->n_stretches + 1 + k];
}

/* The first m of n numbers, m or n of them; the others are the first one again. */
TG_INLINE const double *see(walk w, uint32_t m, uint32_t n, double *room)
{
    if (w.step == 1 && m == n)
        return w.x;
    if (!w.step) {
        const double x = *w.x;
        for (uint32_t l = 0; l < n; l++)
            room[l] = x;
    } else
        for (uint32_t l = 0; l < n; l++)
            room[l] = w.x[w.step * (l < m ? l : 0)];
    return room;
}

/* m numbers side by side. */
TG_INLINE const double *straight(walk w, uint32_t m, double *room)
{
    for (uint32_t l = 0; l < m && w.step != 1; l++)
        room[l] = w.x[w.step * (ptrdiff_t)l];
    return w.step == 1 ? w.x : room;
}

/* The shares that an operand has in m logsumexps. */
TG_INLINE void shares_of(const double *x, const double *y, uint32_t m, double *to)
{
    double own[BLOCK];
    EACH own[l] = l < m ? x[l] - y[l] : 0.0;
    EACH to[l] = tg_exp(own[l]);
}

/* What of a block passes something on: elements from the last to the first. */
typedef struct {
    double g[FAR];
    uint32_t m, n, hot[FAR];
} passing;

/* Read and clear m adjoints. */
TG_INLINE void take(double *to, double *from, uint32_t m)
{
    for (; m >= 8; m -= 8, from += 8, to += 8) {
        EIGHT to[l] = from[l];
        EIGHT from[l] = 0.0;
    }
    for (; m; m--) {
        *to++ = *from;
        *from++ = 0.0;
    }
}

/* Of m elements those of which an adjoint is not 0, or else h. */
TG_INLINE void note(passing *a, const double *h, uint32_t m)
{
    uint32_t n = 0;
    for (uint32_t l = m; l-- > 0;) {
        a->hot[n] = l;
        n += (tg_bits(a->g[l]) | tg_bits(h[l])) << 1 != 0;
    }
    a->m = m;
    a->n = n;
}

#endif
