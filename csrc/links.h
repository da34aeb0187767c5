/*  Links: instructions in a row of frequent.h's kinds each of which reads what the one before gives, for one row.

    What one gives and the next one reads stays in a register: through memory it would take the processor longer than
    the operation. Links are marked beforehand, and only where many in a row are of a kind, or of two, for branches that
    nobody foresees cost more than that saves. Slots are compared all the same, so marks decide nothing but speed.  */
#ifndef TG_LINKS_H
#define TG_LINKS_H

#include "compiled.h"
#include "ops.h"
#include "program.h"

/* Primals from instruction s on, as long as it is marked, but not of end: the first that is not. pool: from the first
   slot of their numbering on. */
TG_OUTSIDE const tg_half *links_forward(const uint32_t *pool, double *v, const tg_half *s, const tg_half *end)
{
    uint32_t last = TG_NONE;
    double carried = 0.0;
    for (; s < end && s->op & TG_LINK; s++) {
        const int row = tg_row(s);
#define GOT(slot) ((slot) == last ? carried : v[slot])
        if (row == TG_DOT) {
            const uint32_t *x = pool + 2 * (size_t)s->a;
            carried = GOT(x[4]) + GOT(x[0]) * GOT(x[2]);
        }
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, ...)                                            \
        if (IS_FREQUENT(TG_##NAME) && row == TG_##NAME) {                                                              \
            const double a = GOT(s->a), b = GOT(s->b);                                                                 \
            carried = (primal);                                                                                        \
        }
#include "ops.def"
#undef GOT
        last = s->y;
        v[last] = carried;
    }
    return s;
}

/* Adjoints from instruction s - 1 on, whose own is g and is marked, down to end, as long as they are: behind the last
   that is not. live: its other half. */
TG_OUTSIDE const tg_half *links_reverse(const tg_program *p, const double *v, double *adj, const tg_half *end,
                                        const tg_half *s, const tg_half *live, double g)
{
    const uint32_t n_const = p->n_const;
    for (uint32_t next = 0; next != TG_NONE; s--, live--) {
        const tg_half *i = s - 1, *to = live - 1;
        const int row = tg_row(i);
        double carried = 0.0;
        next = i > end && i[-1].op & TG_LINK ? to[-1].y : TG_NONE;
        if (next != TG_NONE) {
            carried = adj[next];
            adj[next] = 0.0;
        }
#define PASS(slot, partial)                                                                                            \
        if ((slot) == next)                                                                                            \
            carried += g * (partial);                                                                                  \
        else if ((slot) >= n_const)                                                                                    \
            adj[slot] += g * (partial);
        if (g != 0.0 && row == TG_DOT) {
            const uint32_t *x = p->pool + 2 * (size_t)i->a;
            PASS(x[5], 1.0)
            PASS(x[1], v[x[2]])
            PASS(x[3], v[x[0]])
        }
#define TG_UNARY(...)
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
        if (IS_FREQUENT(TG_##NAME) && g != 0.0 && row == TG_##NAME) {                                                  \
            const double a = v[i->a], b = v[i->b], y = v[i->y];                                                        \
            (void)a, (void)b, (void)y;                                                                                 \
            PASS(to->a, da)                                                                                            \
            PASS(to->b, db)                                                                                            \
        }
#include "ops.def"
#undef PASS
        g = carried;
    }
    return s;
}

#endif
