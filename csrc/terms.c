/*  Groups of many-operand rows, BLOCK of their instructions side by side, operand after operand.

    In a stretch every operand goes by equal steps. What steps by one is read where it lies, what does not step is one
    number for all: a layer of neurons over rows is products of a number and a vector, and no sum waits for itself. Each
    sum adds up in its own order. Backwards an operand that steps gets its adjoints side by side, too; what does not,
    a weight, is a sum over the instructions, from the last to the first, FOUR such sums at a time. wide.c makes sure
    that these are the sums of one instruction after the other, to the bit.

    Where there are no stretches, DOT, SUM and WHERE are in groups.c, and the others look up operand by operand.  */
#include "wide.h"
#include "compiled.h"
#include "failing.h"
#include "ops.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, FAR = 2 * BLOCK, FOUR = 4, FEW = 8 };
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
static uint32_t stretch_of(const tg_wide *w, const tg_group *g, uint32_t k)
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

static stretch the_stretch(const tg_job *j, const tg_group *g, uint32_t k)
{
    const uint32_t *first = j->program->wide->list + g->stretches + k;
    return (stretch){j->program, g, first[0], first[1] - first[0]};
}

/* ---- forward ---- */

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

TG_CLONES void tg_terms_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering)
{
    double *y = j->primal + g->y[numbering], t[BLOCK];
    if (g->op == TG_DOT)
        for (uint32_t k = stretch_of(j->program->wide, g, from), end; from < to; from = end, k++) {
            const stretch s = the_stretch(j, g, k);
            end = s.first + s.n < to ? s.first + s.n : to;
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

/* What of a block passes something on: elements from the last to the first. */
typedef struct {
    double g[FAR];
    uint32_t m, n, hot[FAR];
} passing;

/* Read and clear m adjoints. */
TG_INLINE void take(passing *a, double *from, uint32_t m)
{
    uint32_t n = 0, l = 0;
    for (double *to = a->g; l + 8 <= m; l += 8, from += 8, to += 8) {
        EIGHT to[l] = from[l];
        EIGHT from[l] = 0.0;
    }
    for (; l < m; l++, from++) {
        a->g[l] = *from;
        *from = 0.0;
    }
    for (; l-- > 0;) {
        a->hot[n] = l;
        n += tg_bits(a->g[l]) << 1 != 0;
    }
    a->m = m;
    a->n = n;
}

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

/* The shares that an operand has in m logsumexps. */
TG_INLINE void shares_of(const double *x, const double *y, uint32_t m, double *to)
{
    double own[BLOCK];
    EACH own[l] = l < m ? x[l] - y[l] : 0.0;
    EACH to[l] = tg_exp(own[l]);
}

/* m numbers side by side. */
TG_INLINE const double *straight(walk w, uint32_t m, double *room)
{
    for (uint32_t l = 0; l < m && w.step != 1; l++)
        room[l] = w.x[w.step * (ptrdiff_t)l];
    return w.step == 1 ? w.x : room;
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
        if (g->n_stretches && (!s.p || s.first == to))
            s = the_stretch(j, g, stretch_of(w, g, to - 1));
        m = to - from < FAR ? to - from : FAR;
        m = to - s.first < m ? to - s.first : m;
        take(&a, j->adj + g->y[TG_LIVE] + to - m, m);
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

/* ---- along tangents, in stretches ---- */

TG_CLONES void tg_terms_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    const double *v = j->primal, *d = j->tangent;
    const uint32_t terms = g->op == TG_DOT ? g->terms & ~1u : g->terms;
    double t[BLOCK], share[BLOCK], rooms[4][BLOCK];
    for (uint32_t m, end; from < to; from = end) {
        const stretch s = the_stretch(j, g, stretch_of(j->program->wide, g, from));
        uint32_t at = from - s.first;
        at = s.n >= BLOCK && s.n - at < BLOCK ? s.n - BLOCK : at;   /* so that a block is read where it lies */
        end = s.first + s.n < to ? s.first + s.n : to;
        end = from + BLOCK < end ? from + BLOCK : end;
        m = end - s.first - at;
        if (s.n < FEW) {
            narrow(j, g->first + from, g->first + end);
            continue;
        }
#define SEE(i, of, room) see(walk_of(&s, i, TG_KEPT, of, at), m, BLOCK, rooms[room])
        EACH t[l] = 0.0;
        if (terms < g->terms) {
            const double *x = SEE(terms, d, 0);
            EACH t[l] = x[l];
        }
        for (uint32_t i = 0; i < terms && g->op != TG_TOP; i++) {
            const double *x = SEE(i, d, 0);
            if (g->op == TG_DOT) {
                const tg_stride a = tg_stride_of(s.p, g, s.first, s.n, i, TG_KEPT);
                const tg_stride b = tg_stride_of(s.p, g, s.first, s.n, i + 1, TG_KEPT);
                const double *p = SEE(i, v, 1);
                if (a.at + (uint32_t)a.step * at == b.at + (uint32_t)b.step * at && (a.step == b.step || m == 1))
                    EACH {
                        const double half = tg_unless_0(p[l], tg_passed_on(x[l], p[l]));
                        t[l] += half + half;
                    }
                else {
                    const double *y = SEE(i + 1, d, 2), *q = SEE(i + 1, v, 3);
                    EACH t[l] += tg_unless_0(q[l], tg_passed_on(x[l], q[l])) + tg_unless_0(p[l], tg_passed_on(y[l], p[l]));
                }
                i++;
            } else if (g->op == TG_LOGSUMEXP) {
                shares_of(SEE(i, v, 1), v + g->y[TG_KEPT] + s.first + at, m, share);
                EACH t[l] += tg_unless_0(share[l], tg_passed_on(x[l], share[l]));
            } else
                EACH t[l] += x[l];
        }
        memcpy(j->tangent + g->y[TG_KEPT] + from, t + (from - s.first - at), (end - from) * sizeof *t);
    }
}

/* Add m numbers to adjoints that step, or to one, from the last on; and others to their derivatives. */
TG_INLINE void add_from_last(double *adj, double *adt, ptrdiff_t step, uint32_t m, const double *x, const double *dx)
{
    if (step == 1 && m == BLOCK) {
        EACH adj[l] += x[l];
        EACH adt[l] += dx[l];
    } else if (step)
        for (uint32_t l = m; l-- > 0;) {
            adj[step * (ptrdiff_t)l] += x[l];
            adt[step * (ptrdiff_t)l] += dx[l];
        }
    else {
        double sum = *adj, along = *adt;
        for (uint32_t l = m; l-- > 0;) {
            sum += x[l];
            along += dx[l];
        }
        *adj = sum;
        *adt = along;
    }
}

TG_CLONES void tg_terms_reverse_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to,
                                         tg_narrow_replay *narrow)
{
    const uint32_t biased = g->op == TG_DOT && g->terms % 2;
    const double *v = j->primal, *d = j->tangent;
    double g0[BLOCK], h0[BLOCK], ga[BLOCK], ha[BLOCK], share[BLOCK], rooms[2][BLOCK];
    passing a, along;
    for (uint32_t n, m, at, back; to > from; to -= n) {
        stretch s = the_stretch(j, g, stretch_of(j->program->wide, g, to - 1));
        n = to - from < BLOCK ? to - from : BLOCK;
        n = to - s.first < n ? to - s.first : n;
        at = to - n - s.first;
        if (s.n < FEW) {
            narrow(j, g->first + to - n, g->first + to);
            continue;
        }
        take(&a, j->adj + g->y[TG_LIVE] + to - n, n);
        take(&along, j->adj_tangent + g->y[TG_LIVE] + to - n, n);
        back = s.n < BLOCK || s.n - at >= BLOCK ? 0 : at + BLOCK - s.n;     /* so that a block is read where it lies */
        at -= back;
        m = n + back;
        EACH g0[l] = l >= back && l < m ? a.g[l - back] : 0.0;
        EACH h0[l] = l >= back && l < m ? along.g[l - back] : 0.0;
        for (uint32_t turn = 0; (a.n || along.n) && g->op != TG_TOP && turn < 2 * g->terms; turn++) {
            const uint32_t still = turn >= g->terms, k = turn - still * g->terms;   /* those that step come first */
            const uint32_t i = !biased ? k : k ? k - 1 : g->terms - 1;
            const tg_stride live = tg_stride_of(s.p, g, s.first, s.n, i, TG_LIVE);
            const ptrdiff_t first = live.at + (ptrdiff_t)live.step * (at + back);
            const double *x, *t;
            if ((live.step == 0) != (int)still || live.at < s.p->n_const)
                continue;
            if (g->op == TG_DOT && (k || !biased)) {
                x = SEE(i ^ 1, v, 0);
                t = SEE(i ^ 1, d, 1);
                EACH ga[l] = tg_passed_on(g0[l], x[l]);
                EACH ha[l] = tg_passed_on(h0[l], x[l]) + tg_passed_on(g0[l], t[l]);
            } else if (g->op == TG_LOGSUMEXP) {
                const double *own = d + g->y[TG_KEPT] + to - m;
                shares_of(SEE(i, v, 0), v + g->y[TG_KEPT] + to - m, m, share);
                t = SEE(i, d, 1);
                EACH ga[l] = tg_passed_on(g0[l], share[l]);
                EACH ha[l] = l < m ? tg_passed_on(h0[l], share[l]) + tg_passed_on(g0[l], share[l] * (t[l] - own[l])) : 0.0;
            } else {
                EACH ga[l] = g0[l];
                EACH ha[l] = h0[l];
            }
            add_from_last(j->adj + first, j->adj_tangent + first, live.step, n, ga + back, ha + back);
        }
    }
#undef SEE
}
