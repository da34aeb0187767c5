/*  What most programs are made of, for one row: sums, differences, products and dots, as lanes.h has them.

    Such an instruction is a few of the processor's, so what tells them apart counts: branches, which processors foresee
    much further ahead than jumps through a table, in loops so small that all they need stays in registers. links.h has
    those that are links, lanes.h all others, one at a time.  */
#ifndef TG_FREQUENT_H
#define TG_FREQUENT_H

#include "compiled.h"
#include "ops.h"
#include "program.h"

#define IS_FREQUENT(row) ((row) == TG_ADD || (row) == TG_SUB || (row) == TG_MUL)

#include "links.h"

static inline int is_frequent(const tg_half *s)
{
    const int row = tg_row(s);
    return IS_FREQUENT(row) || row == TG_DOT;
}

/* The dot of n operands. */
TG_INLINE double dot(const double *v, const uint32_t *x, uint32_t n)
{
    double t = n % 2 ? v[x[2 * (size_t)n - 2]] : 0.0;
    for (; n > 1; n -= 2, x += 4)
        t += v[x[0]] * v[x[2]];
    return t;
}

/* Primals from instruction s on, as long as it is one of these, but not of end: the first that is not. pool: from the
   first slot of their numbering on. */
TG_OUTSIDE const tg_half *frequent_forward(const uint32_t *pool, double *v, const tg_half *s, const tg_half *end)
{
    for (; s < end; s++) {
        double *y = v + s->y;
        const int row = (int)(s->op & ~TG_QUIET);           /* of a link none of those here */
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, ...)                                            \
        if (IS_FREQUENT(TG_##NAME) && row == TG_##NAME) {                                                              \
            const double a = v[s->a], b = v[s->b];                                                                     \
            *y = (primal);                                                                                             \
            continue;                                                                                                  \
        }
#include "ops.def"
        if (row == TG_DOT) {
            const uint32_t *x = pool + 2 * (size_t)s->a;
            *y = s->b == 3 ? v[x[4]] + v[x[0]] * v[x[2]] : dot(v, x, s->b);
        } else if (s->op & TG_LINK)
            s = links_forward(pool, v, s, end) - 1;
        else
            break;
    }
    return s;
}

/* Adjoints from instruction s - 1 down to end, as long as it is one of these: behind the last that is not. live: its
   other half. */
TG_INLINE const tg_half *frequent_reverse(const tg_program *p, const double *v, double *adj, const tg_half *end,
                                          const tg_half *s, const tg_half *live)
{
    const uint32_t n_const = p->n_const;
    for (; s > end && is_frequent(s - 1); s--, live--) {
        const tg_half *i = s - 1, *to = live - 1;
        const int row = (int)(i->op & ~TG_QUIET);           /* as above */
        const double g = adj[to->y];
        adj[to->y] = 0.0;
        if (g == 0.0)
            continue;
#define PASS(slot, partial)                                                                                            \
        if ((slot) >= n_const)                                                                                         \
            adj[slot] += g * (partial);
#define TG_UNARY(...)
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
        if (IS_FREQUENT(TG_##NAME) && row == TG_##NAME) {                                                              \
            const double a = v[i->a], b = v[i->b], y = v[i->y];                                                        \
            (void)a, (void)b, (void)y;                                                                                 \
            PASS(to->a, da)                                                                                            \
            PASS(to->b, db)                                                                                            \
            continue;                                                                                                  \
        }
#include "ops.def"
        if (i->op & TG_LINK) {
            const tg_half *left = links_reverse(p, v, adj, end, s, live, g);
            live -= s - left - 1;
            s = left + 1;
            continue;
        }
        const uint32_t *x = p->pool + 2 * (size_t)i->a;
        if (i->b == 3) {
            PASS(x[5], 1.0)
            PASS(x[1], v[x[2]])
            PASS(x[3], v[x[0]])
            continue;
        }
        if (i->b % 2)
            PASS(x[2 * (size_t)i->b - 1], 1.0)
        for (uint32_t n = i->b; n > 1; n -= 2, x += 4) {
            PASS(x[1], v[x[2]])
            PASS(x[3], v[x[0]])
        }
#undef PASS
    }
    return s;
}

#undef IS_FREQUENT

#endif
