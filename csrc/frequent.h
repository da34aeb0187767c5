/*  What most programs are made of, for one row: sums, differences, products and dots, as lanes.h has them.

    Such an instruction is a few of the processor's, so what tells them apart counts: branches, which processors foresee
    much further ahead than jumps through a table, in loops so small that all they need stays in registers. lanes.h has
    the others, one at a time.  */
#ifndef TG_FREQUENT_H
#define TG_FREQUENT_H

#include "compiled.h"
#include "ops.h"
#include "program.h"

#define IS_FREQUENT(row) ((row) == TG_ADD || (row) == TG_SUB || (row) == TG_MUL)

static inline int is_frequent(const tg_instr *s)
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

/* Primals from instruction k on, as long as it is one of these: the first that is not. */
TG_INLINE uint32_t frequent_forward(const tg_program *p, double *v, uint32_t k, uint32_t to, int live)
{
    const uint32_t *pool = p->pool + (live ? 1 : 0);
    const tg_instr *s = p->instr + k, *end = p->instr + to;
    for (; s < end; s++) {
        double *y = v + (live ? s->live_y : s->y);
        const int row = tg_row(s);
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, ...)                                            \
        if (IS_FREQUENT(TG_##NAME) && row == TG_##NAME) {                                                              \
            const double a = v[live ? s->live_a : s->a], b = v[live ? s->live_b : s->b];                               \
            *y = (primal);                                                                                             \
            continue;                                                                                                  \
        }
#include "ops.def"
        if (row == TG_DOT) {
            const uint32_t *x = pool + 2 * (size_t)s->a;
            *y = s->b == 3 ? v[x[4]] + v[x[0]] * v[x[2]] : dot(v, x, s->b);
        } else
            break;
    }
    return (uint32_t)(s - p->instr);
}

TG_OUTSIDE uint32_t frequent_values(const tg_program *p, double *v, uint32_t k, uint32_t to)
{
    return frequent_forward(p, v, k, to, 1);
}

TG_OUTSIDE uint32_t frequent_primals(const tg_program *p, double *v, uint32_t k, uint32_t to)
{
    return frequent_forward(p, v, k, to, 0);
}

/* Adjoints from instruction k - 1 down to from, as long as it is one of these: how many are left before it. */
TG_INLINE uint32_t frequent_reverse(const tg_program *p, const double *v, double *adj, uint32_t from, uint32_t k)
{
    const uint32_t n_const = p->n_const;
    const tg_instr *s = p->instr + k, *end = p->instr + from;
    for (; s > end && is_frequent(s - 1); s--) {
        const tg_instr *i = s - 1;
        const int row = tg_row(i);
        const double g = adj[i->live_y];
        adj[i->live_y] = 0.0;
        if (g == 0.0)
            continue;
#define PASS(to, partial)                                                                                              \
        if ((to) >= n_const)                                                                                           \
            adj[to] += g * (partial);
#define TG_UNARY(...)
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
        if (IS_FREQUENT(TG_##NAME) && row == TG_##NAME) {                                                              \
            const double a = v[i->a], b = v[i->b], y = v[i->y];                                                        \
            (void)a, (void)b, (void)y;                                                                                 \
            PASS(i->live_a, da)                                                                                        \
            PASS(i->live_b, db)                                                                                        \
            continue;                                                                                                  \
        }
#include "ops.def"
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
    return (uint32_t)(s - p->instr);
}

#undef IS_FREQUENT

#endif
