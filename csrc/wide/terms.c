/*  Groups of many-operand rows, BLOCK of their instructions side by side, operand after operand.

    In a stretch every operand goes by equal steps: a layer of neurons over rows is products of a number and a vector,
    and no sum waits for itself. Each sum adds up in its own order.

    Where there are no stretches, DOT, SUM and WHERE are in groups.c, and the others look up operand by operand.  */
#include "wide/terms.h"
#include "compiled.h"
#include "failing.h"

#include <math.h>
#include <string.h>

/* ---- forward ---- */

static double dot(const stretch *s, int numbering, const double *v, uint32_t at)
{
    const uint32_t terms = s->g->terms & ~1u;
    const uint32_t *slot = s->p->pool + 2 * (s->g->pool + (size_t)s->g->terms * (s->first + at)) + numbering;
    double t = terms < s->g->terms ? v[slot[2 * terms]] : 0.0;
    for (uint32_t i = 0; i < terms; i += 2, slot += 4)
        t += v[slot[0]] * v[slot[2]];
    return t;
}

/* The sums of products of n instructions, 8 or BLOCK of them, which the compiler knows. */
TG_INLINE void dots(const stretch *s, int numbering, const double *v, uint32_t at, const uint32_t n, double *t)
{
    const uint32_t terms = s->g->terms & ~1u;
    double t0[8], t1[8], t2[8], t3[8], rooms[2][BLOCK];
    const double *x = NULL;
    if (terms < s->g->terms)
        x = see(walk_of(s, terms, numbering, v, at), n, n, rooms[0]);
#define SAME(l) c
#define OWN(l) z[l]
#define ALL(x, z) {                                                                                                    \
        EIGHT t0[l] += (x)[l] * z(l);                                                                                  \
        if (n > 8) {                                                                                                   \
            EIGHT t1[l] += (x)[8 + l] * z(8 + l);                                                                      \
            EIGHT t2[l] += (x)[16 + l] * z(16 + l);                                                                    \
            EIGHT t3[l] += (x)[24 + l] * z(24 + l);                                                                    \
        }                                                                                                              \
    }
    EIGHT t0[l] = x ? x[l] : 0.0;
    if (n > 8) {
        EIGHT t1[l] = x ? x[8 + l] : 0.0;
        EIGHT t2[l] = x ? x[16 + l] : 0.0;
        EIGHT t3[l] = x ? x[24 + l] : 0.0;
    }
    for (uint32_t i = 0; i < terms; i += 2) {
        const walk a = walk_of(s, i, numbering, v, at), b = walk_of(s, i + 1, numbering, v, at);
        if (!a.step || !b.step) {
            const double c = a.step ? *b.x : *a.x, *y = see(a.step ? a : b, n, n, rooms[0]);
            ALL(y, SAME)
        } else {
            const double *y = see(a, n, n, rooms[0]), *z = see(b, n, n, rooms[1]);
            ALL(y, OWN)
        }
    }
#undef ALL
#undef OWN
#undef SAME
    EIGHT t[l] = t0[l];
    if (n > 8) {
        EIGHT t[8 + l] = t1[l];
        EIGHT t[16 + l] = t2[l];
        EIGHT t[24 + l] = t3[l];
    }
}

/* Elements at .. end - 1 of a stretch. The last block may go back over what the one before did: operands are still
   there. */
TG_INLINE void dots_forward(const stretch *s, int numbering, const double *v, double *y, uint32_t at, uint32_t end)
{
    const uint32_t n = end - at;
    double t[BLOCK];
    for (uint32_t k = at; n < FEW && k < end; k++)
        y[k] = dot(s, numbering, v, k);
    for (uint32_t k = 0; n >= FEW && n < BLOCK && k < n; k += 8) {
        const uint32_t from = k + 8 > n ? end - 8 : at + k;
        dots(s, numbering, v, from, 8, t);
        memcpy(y + from, t, 8 * sizeof *t);
    }
    for (uint32_t k = 0; n >= BLOCK && k < n; k += BLOCK) {
        const uint32_t from = k + BLOCK > n ? end - BLOCK : at + k;
        dots(s, numbering, v, from, BLOCK, t);
        memcpy(y + from, t, sizeof t);
    }
}

/* Operand i of elements at .. at + m - 1, m at most BLOCK, stretches or not. */
TG_INLINE const double *look_up(const tg_job *j, const tg_group *g, int numbering, uint32_t at, uint32_t m, uint32_t i,
                                double *room)
{
    const uint32_t words = 2 * g->terms;
    const uint32_t *slot = j->program->pool + 2 * (size_t)(g->pool + i) + numbering + (size_t)words * at;
    const double *v = j->primal;
    if (m == BLOCK)
        EACH room[l] = v[slot[(size_t)words * l]];
    else
        EACH room[l] = v[slot[(size_t)words * (l < m ? l : 0)]];
    return room;
}

/* The values of m elements from at on. */
TG_INLINE void values(const tg_job *j, const tg_group *g, int numbering, uint32_t at, uint32_t m, double *t)
{
    double room[BLOCK], total[BLOCK], c[BLOCK], d[BLOCK];
    const uint32_t n = g->terms;
#define X(i) const double *x = look_up(j, g, numbering, at, m, i, room);
    switch (g->op) {
    case TG_SUM:
        EACH t[l] = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            X(i)
            EACH t[l] += x[l];
        }
        break;
    case TG_FSUM:
        EACH total[l] = c[l] = d[l] = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            X(i)
            EACH tg_fsum_add(total + l, c + l, d + l, x[l]);
        }
        EACH t[l] = tg_fsum_total(total[l], c[l], d[l]);
        break;
    default:                                            /* TG_LOGSUMEXP, TG_TOP */
        EACH t[l] = -INFINITY;
        for (uint32_t i = 0; i < n; i++) {
            X(i)
            EACH t[l] = tg_max(t[l], x[l]);
        }
        if (g->op == TG_TOP) {
            EACH t[l] = isfinite(t[l]) ? t[l] : 0.0;
            break;
        }
        EACH total[l] = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            X(i)
            EACH total[l] += tg_exp(x[l] - t[l]);
        }
        EACH t[l] = isfinite(t[l]) ? t[l] + tg_log(total[l]) : t[l];
    }
#undef X
}

/* Sums that are refused among m from at on. */
static void check_terms(tg_job *j, const tg_group *g, int numbering, uint32_t at, uint32_t m, double *t)
{
    const uint32_t *slot = j->program->pool + 2 * ((size_t)g->pool + (size_t)g->terms * at) + numbering;
    for (uint32_t l = 0; l < m; l++, slot += 2 * (size_t)g->terms) {
        double a, b;
        if (isfinite(t[l]))
            continue;
        tg_refused_terms(j->primal, slot, 2, g->terms, 1, &a, &b);
        if (!tg_refusal(TG_FSUM, a, b, t[l]))
            continue;
        if (j->nan_errors)
            t[l] = NAN;
        else
            tg_note_failure(j, 0, g->first + at + l, a, b, t[l]);
    }
}

/* The last stretch of the layer that begins with stretch k at from, as far as it is whole; k where there is none. */
static uint32_t last_of_layer(const tg_job *j, const tg_group *g, uint32_t k, uint32_t from, uint32_t to)
{
    const tg_wide *w = j->program->wide;
    const uint32_t *first = w->list + g->stretches, own = layer_at(w, g, k);
    uint32_t last = k;
    while (own != TG_NONE && first[k] == from && last + 1 < g->n_stretches && layer_at(w, g, last + 1) == own &&
           first[last + 2] <= to)
        last++;
    return last;
}

TG_CLONES void tg_terms_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering)
{
    double *y = j->primal + g->y[numbering], t[BLOCK];
    if (g->op == TG_DOT)
        for (uint32_t k = stretch_of(j->program->wide, g, from), end; from < to; from = end, k++) {
            const stretch s = the_stretch(j, g, k);
            const uint32_t last = last_of_layer(j, g, k, from, to);
            end = s.first + s.n < to ? s.first + s.n : to;
            if (last - k >= NEURONS_APART) {
                tg_layer_forward(j, g, k, last, numbering);
                k = last;
                end = the_stretch(j, g, k + 1).first;
            } else
                dots_forward(&s, numbering, j->primal, y + s.first, from - s.first, end - s.first);
        }
    else
        for (uint32_t m; from < to; from += m) {
            m = to - from < BLOCK ? to - from : BLOCK;
            values(j, g, numbering, from, m, t);
            if (g->op == TG_FSUM)
                check_terms(j, g, numbering, from, m, t);
            memcpy(y + from, t, m * sizeof *t);
        }
}

/* ---- reverse ---- */

/* To an operand that steps: to[k] += g * x[k], eight at a time. What is left of less is the end of the last eight,
   which come first, so that nobody waits for them. */
TG_INLINE void spread(double *restrict to, ptrdiff_t step, const passing *a, walk w)
{
    const double *restrict g = a->g, *restrict x = w.x;
    const uint32_t fits = step == 1 && (w.step == 0 || w.step == 1) && a->m >= 8, rest = a->m % 8, last = a->m - 8;
    const double c = *x;
    double t[8];
    if (fits && rest) {
        const double *own = x + w.step * (ptrdiff_t)last, *its = g + last;
        double *end = to + last;
        if (w.step)
            EIGHT t[l] = tg_passed_on(its[l], own[l]);
        else
            EIGHT t[l] = tg_passed_on(its[l], c);
        EIGHT end[l] = l < 8 - rest ? end[l] : end[l] + t[l];
    }
    if (fits)
        for (uint32_t left = a->m; left >= 8; left -= 8, g += 8, to += 8, x += 8 * w.step) {
            if (w.step)
                EIGHT t[l] = tg_passed_on(g[l], x[l]);
            else
                EIGHT t[l] = tg_passed_on(g[l], c);
            EIGHT to[l] += t[l];
        }
    else
        for (uint32_t k = 0; k < a->m; k++, to += step, x += w.step)
            *to += tg_passed_on(g[k], *x);
}

/* Sums that wait until there are FOUR: to += g * x[k] for each k. */
typedef struct {
    double *to[FOUR];
    const double *x[FOUR];
    uint32_t n;
    double room[FOUR][FAR];
} sums;

TG_INLINE void add_up(sums *s, const passing *a)
{
    static const double none[FAR];
    double t[FOUR] = {0.0};
    const double *x[FOUR] = {none, none, none, none};
    for (uint32_t i = 0; i < s->n; i++) {
        x[i] = s->x[i];
        t[i] = *s->to[i];
    }
    {
        const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
        double t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3];
        for (uint32_t k = 0; k < a->n; k++) {
            const size_t l = a->hot[k];
            const double g = a->g[l];
            t0 += g * x0[l];
            t1 += g * x1[l];
            t2 += g * x2[l];
            t3 += g * x3[l];
        }
        t[0] = t0;
        t[1] = t1;
        t[2] = t2;
        t[3] = t3;
    }
    for (uint32_t i = 0; i < s->n; i++)
        *s->to[i] = t[i];
    s->n = 0;
}

/* To an operand of a stretch, whose step is the same in both numberings. */
TG_INLINE void pass(double *to, ptrdiff_t step, walk x, const passing *a, sums *waiting)
{
    if (step) {
        spread(to, step, a, x);
        return;
    }
    waiting->to[waiting->n] = to;
    waiting->x[waiting->n] = straight(x, a->m, waiting->room[waiting->n]);
    if (++waiting->n == FOUR)
        add_up(waiting, a);
}

/* Elements at .. of a stretch, as many as are in a. */
TG_INLINE void pass_on(tg_job *j, const stretch *s, uint32_t at, const passing *a)
{
    static const double one = 1.0;
    const walk ones = {&one, 0};
    const tg_group *g = s->g;
    const uint32_t terms = g->op == TG_DOT ? g->terms & ~1u : g->terms, n_const = s->p->n_const;
    const uint32_t *pair = s->p->pool + 2 * (g->pool + (size_t)g->terms * s->first);
    const uint32_t *next = s->n > 1 ? pair + 2 * (size_t)g->terms : NULL;
    const double *v = j->primal, *y = v + g->y[TG_KEPT] + s->first + at;
    double *adj = j->adj;
    sums waiting;
    waiting.n = 0;
#define STEP(i) (next ? (int32_t)(next[2 * (i)] - pair[2 * (i)]) : 1)
#define WALK(i, step) ((walk){v + pair[2 * (i)] + (step) * (ptrdiff_t)at, step})
#define TO(i, step) (adj + pair[2 * (i) + 1] + (step) * (ptrdiff_t)at)
    if (terms < g->terms && pair[2 * terms + 1] >= n_const) {       /* a bias comes before all others */
        const ptrdiff_t step = STEP(terms);
        pass(TO(terms, step), step, ones, a, &waiting);
    }
    for (uint32_t i = 0; i < terms; i++) {
        const ptrdiff_t step = STEP(i);
        if (g->op == TG_DOT) {
            const ptrdiff_t other = STEP(i + 1);
            if (pair[2 * i + 1] >= n_const)
                pass(TO(i, step), step, WALK(i + 1, other), a, &waiting);
            if (pair[2 * i + 3] >= n_const)
                pass(TO(i + 1, other), other, WALK(i, step), a, &waiting);
            i++;
        } else if (pair[2 * i + 1] < n_const)
            continue;
        else if (g->op == TG_LOGSUMEXP) {
            double *room = waiting.room[waiting.n], own[BLOCK];
            for (uint32_t k = 0; k < a->m; k += BLOCK) {
                const uint32_t m = a->m - k < BLOCK ? a->m - k : BLOCK;
                walk x = WALK(i, step);
                x.x += step * (ptrdiff_t)k;
                shares_of(see(x, m, BLOCK, own), y + k, m, room + k);
            }
            pass(TO(i, step), step, (walk){room, 1}, a, &waiting);
        } else
            pass(TO(i, step), step, ones, a, &waiting);
    }
#undef TO
#undef WALK
#undef STEP
    if (waiting.n)
        add_up(&waiting, a);
}

/* Of a logsumexp, instruction after instruction, m of them from at on; what takes its time is done for BLOCK operands
   at once. */
TG_INLINE void share(tg_job *j, const tg_group *g, uint32_t at, const passing *a)
{
    const uint32_t n = g->terms, n_const = j->program->n_const;
    const double *v = j->primal, *y = v + g->y[TG_KEPT] + at;
    for (uint32_t k = 0; k < a->n; k++) {
        const uint32_t *pair = j->program->pool + 2 * ((size_t)g->pool + (size_t)n * (at + a->hot[k]));
        const double own = a->g[a->hot[k]], total = y[a->hot[k]];
        for (uint32_t i = 0, m; i < n; i += m, pair += 2 * (size_t)m) {
            double t[BLOCK];
            m = n - i < BLOCK ? n - i : BLOCK;
            EACH t[l] = v[pair[2 * (l < m ? l : 0)]] - total;
            if (m > 8)
                EACH t[l] = tg_passed_on(own, tg_exp(t[l]));
            else
                EIGHT t[l] = tg_passed_on(own, tg_exp(t[l]));
            for (uint32_t l = 0; l < m; l++)
                if (pair[2 * l + 1] >= n_const)
                    j->adj[pair[2 * l + 1]] += t[l];
        }
    }
}

/* Of a sum, instruction after instruction. */
static void pass_sums(tg_job *j, const tg_group *g, uint32_t at, const passing *a)
{
    for (uint32_t k = 0; k < a->n; k++) {
        const uint32_t *pair = j->program->pool + 2 * ((size_t)g->pool + (size_t)g->terms * (at + a->hot[k]));
        for (uint32_t i = 0; i < g->terms; i++)
            if (pair[2 * i + 1] >= j->program->n_const)
                j->adj[pair[2 * i + 1]] += a->g[a->hot[k]];
    }
}

TG_CLONES void tg_terms_reverse(tg_job *j, const tg_group *g, uint32_t from, uint32_t to)
{
    const tg_wide *w = j->program->wide;
    stretch s = {0};
    passing a;
    for (uint32_t m; to > from; to -= m) {
        if (g->n_stretches && (!s.p || s.first == to)) {
            const uint32_t k = stretch_of(w, g, to - 1), begun = layer_at(w, g, k);
            s = the_stretch(j, g, k);
            if (begun != TG_NONE && k - begun >= NEURONS_APART && s.first + s.n == to &&
                the_stretch(j, g, begun).first >= from) {
                tg_layer_reverse(j, g, begun, k);
                s = the_stretch(j, g, begun);
                m = to - s.first;
                continue;
            }
        }
        m = to - from < FAR ? to - from : FAR;
        m = to - s.first < m ? to - s.first : m;
        take(a.g, j->adj + g->y[TG_LIVE] + to - m, m);
        note(&a, a.g, m);
        if (!a.n || g->op == TG_TOP)
            continue;
        if (g->n_stretches)
            pass_on(j, &s, to - m - s.first, &a);
        else if (g->op == TG_LOGSUMEXP)
            share(j, g, to - m, &a);
        else
            pass_sums(j, g, to - m, &a);
    }
}

