/*  Groups of many-operand rows along tangents: stretches, as terms.c has their values and what these pass on.  */
#include "wide/terms.h"

#include <string.h>

/* ---- forward ---- */

/* The tangents of the sums of products of n instructions, 8 or BLOCK of them, which the compiler knows. */
TG_INLINE void dots_along(const stretch *s, const double *v, const double *d, uint32_t at, const uint32_t n, double *t)
{
    const uint32_t terms = s->g->terms & ~1u;
    double t0[8], t1[8], t2[8], t3[8], rooms[4][BLOCK];
    const double *bias = NULL;
    if (terms < s->g->terms)
        bias = see(walk_of(s, terms, TG_KEPT, d, at), n, n, rooms[0]);
#define ALL(x)                                                                                                         \
    {                                                                                                                  \
        EIGHT t0[l] x(l);                                                                                              \
        if (n > 8) {                                                                                                   \
            EIGHT t1[l] x(8 + l);                                                                                      \
            EIGHT t2[l] x(16 + l);                                                                                     \
            EIGHT t3[l] x(24 + l);                                                                                     \
        }                                                                                                              \
    }
#define BIAS(l) = bias ? bias[l] : 0.0
#define BY_ONE(l) += tg_product_along(c, dc, y[l], dy[l])
#define BY_OWN(l) += tg_product_along(x[l], dx[l], y[l], dy[l])
    ALL(BIAS)
    for (uint32_t i = 0; i < terms; i += 2) {
        const walk a = walk_of(s, i, TG_KEPT, v, at), b = walk_of(s, i + 1, TG_KEPT, v, at);
        const walk one = a.step ? b : a, other = a.step ? a : b;
        const double *y = see(other, n, n, rooms[0]), *dy = see((walk){d + (other.x - v), other.step}, n, n, rooms[1]);
        if (!one.step) {
            const double c = *one.x, dc = d[one.x - v];
            ALL(BY_ONE)
        } else {
            const double *x = see(one, n, n, rooms[2]), *dx = see((walk){d + (one.x - v), one.step}, n, n, rooms[3]);
            ALL(BY_OWN)
        }
    }
    EIGHT t[l] = t0[l];
    if (n > 8) {
        EIGHT t[8 + l] = t1[l];
        EIGHT t[16 + l] = t2[l];
        EIGHT t[24 + l] = t3[l];
    }
#undef BY_OWN
#undef BY_ONE
#undef BIAS
#undef ALL
}

/* The tangents of m elements of a stretch of other rows. */
TG_INLINE void sums_along(const tg_job *j, const stretch *s, uint32_t at, uint32_t m, double *t)
{
    const double *v = j->primal, *d = j->tangent;
    double share[BLOCK], rooms[2][BLOCK];
    EACH t[l] = 0.0;
    for (uint32_t i = 0; i < s->g->terms && s->g->op != TG_TOP; i++) {
        const double *x = see(walk_of(s, i, TG_KEPT, d, at), m, BLOCK, rooms[0]);
        if (s->g->op == TG_LOGSUMEXP) {
            shares_of(see(walk_of(s, i, TG_KEPT, v, at), m, BLOCK, rooms[1]), v + s->g->y[TG_KEPT] + s->first + at, m,
                      share);
            EACH t[l] += tg_unless_0(share[l], tg_passed_on(x[l], share[l]));
        } else
            EACH t[l] += x[l];
    }
}

/* The last block may go back over what the one before did: operands are still there. */
TG_CLONES void tg_terms_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    double t[BLOCK], *y = j->tangent + g->y[TG_KEPT];
    for (uint32_t end, m; from < to; from = end) {
        const stretch s = the_stretch(j, g, stretch_of(j->program->wide, g, from));
        end = s.first + s.n < to ? s.first + s.n : to;
        if (end - from < FEW) {
            tg_one_by_one(j, g->first + from, g->first + end, narrow, TG_KEPT);
            continue;
        }
        for (uint32_t k = from; k < end; k += m) {
            m = g->op != TG_DOT || end - from >= BLOCK ? BLOCK : 8;
            if (k + m > end && end - from >= m)
                k = end - m;
            if (g->op != TG_DOT)
                sums_along(j, &s, k - s.first, end - k < m ? end - k : m, t);
            else if (m == BLOCK)
                dots_along(&s, j->primal, j->tangent, k - s.first, BLOCK, t);
            else
                dots_along(&s, j->primal, j->tangent, k - s.first, 8, t);
            memcpy(y + k, t, (end - k < m ? end - k : m) * sizeof *t);
        }
    }
}

/* ---- reverse ---- */

typedef struct {
    passing of;
    double h[FAR];              /* the derivatives of its g */
} bending;

/* g * x and h * x + g * t, of n elements; of an operand that does not step x and t are one number each. */
TG_INLINE void bend(const double *g, const double *h, const double *x, const double *t, const int steps,
                    const uint32_t n, double *ga, double *ha)
{
    const double c = *x, d = *t;
    if (steps)
        for (uint32_t l = 0; l < n; l++) {
            ga[l] = tg_passed_on(g[l], x[l]);
            ha[l] = tg_passed_on(h[l], x[l]) + tg_passed_on(g[l], t[l]);
        }
    else
        for (uint32_t l = 0; l < n; l++) {
            ga[l] = tg_passed_on(g[l], c);
            ha[l] = tg_passed_on(h[l], c) + tg_passed_on(g[l], d);
        }
}

/* What all elements pass on, to be added up later. */
TG_INLINE void weigh(const bending *a, const double *x, const double *t, const int steps, double *ga, double *ha)
{
    const uint32_t m = a->of.m;
    double own[8], along[8];
    if (m < 8)
        bend(a->of.g, a->h, x, t, steps, m, ga, ha);
    else
        for (uint32_t k = 0; k < m; k += 8) {
            const uint32_t at = k + 8 <= m ? k : m - 8, on = steps ? at : 0;
            bend(a->of.g + at, a->h + at, x + on, t + on, steps, 8, own, along);
            EIGHT ga[at + l] = own[l];
            EIGHT ha[at + l] = along[l];
        }
}

/* To an operand that steps, as terms.c has it; steps is x's and t's. */
TG_INLINE void spread(double *restrict adj, double *restrict adt, ptrdiff_t step, const bending *a, const double *x,
                      const double *t, const int steps)
{
    const uint32_t m = a->of.m, rest = m % 8, last = m - 8, on = steps ? last : 0;
    const double *g = a->of.g, *h = a->h;
    double ga[FAR], ha[FAR];
    if (step != 1 || m < 8) {
        weigh(a, x, t, steps, ga, ha);
        for (uint32_t k = 0; k < m; k++, adj += step, adt += step) {
            *adj += ga[k];
            *adt += ha[k];
        }
        return;
    }
    if (rest) {
        double *to = adj + last, *along = adt + last;
        bend(g + last, h + last, x + on, t + on, steps, 8, ga, ha);
        EIGHT to[l] = l < 8 - rest ? to[l] : to[l] + ga[l];
        EIGHT along[l] = l < 8 - rest ? along[l] : along[l] + ha[l];
    }
    for (uint32_t k = 0; k + 8 <= m; k += 8, adj += 8, adt += 8, x += 8 * steps, t += 8 * steps) {
        bend(g + k, h + k, x, t, steps, 8, ga, ha);
        EIGHT adj[l] += ga[l];
        EIGHT adt[l] += ha[l];
    }
}

/* Sums that wait until there are FOUR, and theirs along the tangents. */
typedef struct {
    double *adj[FOUR], *adt[FOUR];
    const double *x[FOUR], *t[FOUR];
    uint32_t n;
    double room[FOUR][2][FAR];
} sums;

TG_INLINE void add_up(sums *s, const passing *a)
{
    static const double none[FAR];
    double sum[FOUR] = {0.0}, along[FOUR] = {0.0};
    const double *x[FOUR] = {none, none, none, none}, *t[FOUR] = {none, none, none, none};
    for (uint32_t i = 0; i < s->n; i++) {
        x[i] = s->x[i];
        t[i] = s->t[i];
        sum[i] = *s->adj[i];
        along[i] = *s->adt[i];
    }
    {
        const double *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *t0 = t[0], *t1 = t[1], *t2 = t[2], *t3 = t[3];
        double s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
        double d0 = along[0], d1 = along[1], d2 = along[2], d3 = along[3];
        for (uint32_t k = 0; k < a->n; k++) {
            const size_t l = a->hot[k];
            s0 += x0[l];
            s1 += x1[l];
            s2 += x2[l];
            s3 += x3[l];
            d0 += t0[l];
            d1 += t1[l];
            d2 += t2[l];
            d3 += t3[l];
        }
        sum[0] = s0;
        sum[1] = s1;
        sum[2] = s2;
        sum[3] = s3;
        along[0] = d0;
        along[1] = d1;
        along[2] = d2;
        along[3] = d3;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        *s->adj[i] = sum[i];
        *s->adt[i] = along[i];
    }
    s->n = 0;
}

TG_INLINE void add_later(sums *s, double *adj, double *adt, const double *x, const double *t, const passing *a)
{
    s->adj[s->n] = adj;
    s->adt[s->n] = adt;
    s->x[s->n] = x;
    s->t[s->n] = t;
    if (++s->n == FOUR)
        add_up(s, a);
}

/* To an operand of a stretch, g * x and h * x + g * t. */
TG_INLINE void pass(double *adj, double *adt, ptrdiff_t step, walk x, walk t, const bending *a, sums *waiting)
{
    double rooms[2][FAR];
    const double *own = x.step ? straight(x, a->of.m, rooms[0]) : x.x;
    const double *along = x.step ? straight(t, a->of.m, rooms[1]) : t.x;
    if (step && x.step)
        spread(adj, adt, step, a, own, along, 1);
    else if (step)
        spread(adj, adt, step, a, own, along, 0);
    else {
        double *ga = waiting->room[waiting->n][0], *ha = waiting->room[waiting->n][1];
        if (x.step)
            weigh(a, own, along, 1, ga, ha);
        else
            weigh(a, own, along, 0, ga, ha);
        add_later(waiting, adj, adt, ga, ha, &a->of);
    }
}

/* The same of what is only added. */
TG_INLINE void pass_plainly(double *adj, double *adt, ptrdiff_t step, const bending *a, sums *waiting)
{
    if (!step) {
        add_later(waiting, adj, adt, a->of.g, a->h, &a->of);
        return;
    }
    for (uint32_t l = 0; l < a->of.m; l++) {
        adj[step * (ptrdiff_t)l] += a->of.g[l];
        adt[step * (ptrdiff_t)l] += a->h[l];
    }
}

/* Of m logsumexps the shares of an operand, and these along the tangents. */
TG_INLINE void bend_shares(walk x, walk t, const double *y, const double *dy, uint32_t m, double *share, double *along)
{
    double own[BLOCK];
    for (uint32_t k = 0; k < m; k += BLOCK) {
        const uint32_t n = m - k < BLOCK ? m - k : BLOCK;
        shares_of(see((walk){x.x + x.step * (ptrdiff_t)k, x.step}, n, BLOCK, own), y + k, n, share + k);
        for (uint32_t l = k; l < k + n; l++)
            along[l] = share[l] * (t.x[t.step * (ptrdiff_t)l] - dy[l]);
    }
}

/* Elements at .. of a stretch, as many as are in a. */
TG_INLINE void pass_on(tg_job *j, const stretch *s, uint32_t at, const bending *a)
{
    const tg_group *g = s->g;
    const uint32_t terms = g->op == TG_DOT ? g->terms & ~1u : g->terms, n_const = s->p->n_const;
    const double *v = j->primal, *d = j->tangent;
    const uint32_t result = g->y[TG_KEPT] + s->first + at;
    double share[FAR], along[FAR];
    sums waiting;
    waiting.n = 0;
#define LIVE(i) const tg_stride live = tg_stride_of(s->p, g, s->first, s->n, i, TG_LIVE);                              \
    const ptrdiff_t to = live.at + (ptrdiff_t)live.step * at;
    if (terms < g->terms) {                             /* a bias comes before all others */
        LIVE(terms)
        if (live.at >= n_const)
            pass_plainly(j->adj + to, j->adj_tangent + to, live.step, a, &waiting);
    }
    for (uint32_t i = 0; i < terms; i++) {
        LIVE(i)
        if (live.at < n_const)
            continue;
        if (g->op == TG_DOT) {
            const walk x = walk_of(s, i ^ 1, TG_KEPT, v, at);
            pass(j->adj + to, j->adj_tangent + to, live.step, x, (walk){d + (x.x - v), x.step}, a, &waiting);
        } else if (g->op == TG_LOGSUMEXP) {
            bend_shares(walk_of(s, i, TG_KEPT, v, at), walk_of(s, i, TG_KEPT, d, at), v + result, d + result, a->of.m,
                        share, along);
            pass(j->adj + to, j->adj_tangent + to, live.step, (walk){share, 1}, (walk){along, 1}, a, &waiting);
        } else
            pass_plainly(j->adj + to, j->adj_tangent + to, live.step, a, &waiting);
    }
#undef LIVE
    if (waiting.n)
        add_up(&waiting, &a->of);
}

TG_CLONES void tg_terms_reverse_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to,
                                         tg_narrow_replay *narrow)
{
    stretch s = {0};
    bending a;
    for (uint32_t m; to > from; to -= m) {
        if (!s.p || s.first == to)
            s = the_stretch(j, g, stretch_of(j->program->wide, g, to - 1));
        m = to - from < FAR ? to - from : FAR;
        m = to - s.first < m ? to - s.first : m;
        if (s.n < FEW) {
            tg_one_by_one_back(j, g->first + to - m, g->first + to, narrow);
            continue;
        }
        take(a.of.g, j->adj + g->y[TG_LIVE] + to - m, m);
        take(a.h, j->adj_tangent + g->y[TG_LIVE] + to - m, m);
        note(&a.of, a.h, m);
        if (a.of.n && g->op != TG_TOP)
            pass_on(j, &s, to - m - s.first, &a);
    }
}
