/*  Chains: links one after the other, what is added to kept in a register.

    A link that adds a product is what a dot of one product and a bias is, to the bit.  */
#include "wide/wide.h"
#include "compiled.h"
#include "ops.h"

/* Where the slot of element k is found without asking how: by a step, or in a list. */
typedef struct {
    const uint32_t *list;       /* NULL: none */
    uint32_t at, step;
} course;

static course course_of(const tg_wide *w, const tg_slots *s)
{
    return (course){s->how == TG_LISTED ? w->list + s->at : NULL, s->at, s->how == TG_SIDE_BY_SIDE};
}

TG_INLINE uint32_t slot(const course *c, uint32_t k)
{
    return c->list ? c->list[k] & ~TG_RUNS : c->at + c->step * k;
}

/* The links of a chain, in one numbering. */
typedef struct {
    course added, results;
    const uint32_t *factors;    /* of the first product, x and w, four words apart */
    uint32_t products, half, before;    /* half: 1 where kinds take turns; before: what the first adds to */
} links;

static links links_of(const tg_job *j, const tg_group *s, int numbering)
{
    const tg_program *p = j->program;
    return (links){course_of(p->wide, &s->operand[1][numbering]), course_of(p->wide, &s->operand[2][numbering]),
                   p->pool + 2 * (size_t)s->pool + numbering, s->products, (uint32_t)tg_is_mixed(s),
                   s->operand[0][numbering].at};
}

TG_INLINE int is_product(const links *l, uint32_t k) { return l->products >> (k & 1) & 1; }
TG_INLINE const uint32_t *factors(const links *l, uint32_t k)
{
    return l->factors + 2 * TG_PRODUCT * (size_t)(k >> l->half);
}
TG_INLINE uint32_t below(const links *l, uint32_t k) { return k ? slot(&l->results, k - 1) : l->before; }

/* What link k adds; x: primals v, or tangents. */
TG_INLINE double term(const links *l, uint32_t k, const double *v, const double *x, int along)
{
    const uint32_t *pair;
    if (!is_product(l, k)) {
        const double y = x[slot(&l->added, k >> l->half)];
        return along && y == 0.0 ? 0.0 : y;
    }
    pair = factors(l, k);
    return along ? tg_product_along(v[pair[0]], x[pair[0]], v[pair[2]], x[pair[2]]) : v[pair[0]] * v[pair[2]];
}

TG_INLINE void add_up(const links *l, uint32_t from, uint32_t to, const double *v, double *x, int along)
{
    double sum = x[below(l, from)];
    for (uint32_t k = from; k < to; k++) {
        sum += term(l, k, v, x, along);
        x[slot(&l->results, k)] = sum;
    }
}

void tg_chain_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, int numbering)
{
    const links l = links_of(j, s, numbering);
    add_up(&l, from, to, j->primal, j->primal, 0);
}

void tg_chain_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to)
{
    const links l = links_of(j, s, TG_KEPT);
    add_up(&l, from, to, j->primal, j->tangent, 1);
}

/* What every other link from k on adds, two apart: products of what steps by one or not at all. */
static void products(const tg_slots *x, const tg_slots *w, uint32_t k, uint32_t to, const double *v, double *terms)
{
    const ptrdiff_t step = x->how == TG_SIDE_BY_SIDE, other = w->how == TG_SIDE_BY_SIDE;
    const double *a = v + x->at + step * (k >> 1), *b = v + w->at + other * (k >> 1);
    for (; k < to; k += 2, a += step, b += other, terms += 2)
        *terms = *a * *b;
}

void tg_chain_terms(const tg_job *j, const tg_group *s, uint32_t from, uint32_t to, int numbering, int along,
                    double *terms)
{
    const links l = links_of(j, s, numbering);
    for (uint32_t first = from; first < to && first < from + 2; first++) {
        const tg_slots *x = &s->factor[first & 1][0][numbering], *w = &s->factor[first & 1][1][numbering];
        if (!along && is_product(&l, first) && x->how != TG_LISTED && w->how != TG_LISTED)
            products(x, w, first, to, j->primal, terms + (first - from));
        else
            for (uint32_t k = first; k < to; k += 2)
                terms[k - from] = term(&l, k, j->primal, along ? j->tangent : j->primal, along);
    }
}

void tg_chain_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to)
{
    const links l = links_of(j, s, TG_LIVE);
    const uint32_t n_const = j->program->n_const;
    const double *v = j->primal;
    double *adj = j->adj, g = adj[slot(&l.results, to - 1)];
    for (uint32_t k = to; k-- > from;) {
        const uint32_t next = below(&l, k);
        const double passed = g;
        adj[slot(&l.results, k)] = 0.0;
        g = adj[next] + passed;
        if (!is_product(&l, k))
            adj[slot(&l.added, k >> l.half)] += passed;
        else if (passed != 0.0) {
            const uint32_t *x = factors(&l, k);
            const double a = v[x[-1]], b = v[x[1]];     /* in kept slots */
            if (x[0] >= n_const)
                adj[x[0]] += passed * b;
            if (x[2] >= n_const)
                adj[x[2]] += passed * a;
        }
        if (k == from)
            adj[next] = g;
    }
}

/* Where the factors of every other link are, in both numberings: the first, and the step to the next. */
typedef struct {
    tg_stride x[2], w[2];
    int stepping;               /* else they are looked up in the pool */
} pairs;

static tg_stride stride_of(const tg_slots *s) { return (tg_stride){s->at, s->how == TG_SIDE_BY_SIDE}; }

static pairs pairs_of(const tg_group *s, uint32_t odd)
{
    const tg_slots *x = s->factor[odd][0], *w = s->factor[odd][1];
    pairs f = {.stepping = 1};
    for (int numbering = 0; numbering < 2; numbering++) {
        f.x[numbering] = stride_of(x + numbering);
        f.w[numbering] = stride_of(w + numbering);
        f.stepping &= x[numbering].how != TG_LISTED && w[numbering].how != TG_LISTED;
    }
    return f;
}

TG_INLINE uint32_t step_to(const tg_stride *s, uint32_t k) { return s->at + (uint32_t)s->step * k; }

void tg_chain_pass(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, double passed)
{
    const links l = links_of(j, s, TG_LIVE);
    const pairs each[2] = {pairs_of(s, 0), pairs_of(s, 1)};
    const uint32_t n_const = j->program->n_const;
    const double *v = j->primal;
    double *adj = j->adj;
    for (uint32_t k = to; k-- > from;) {
        const pairs *f = each + (k & 1);
        if (!is_product(&l, k))
            adj[slot(&l.added, k >> l.half)] += passed;
        else if (passed != 0.0) {
            const uint32_t *pair = factors(&l, k) - TG_LIVE, i = k >> 1;
            const uint32_t x = f->stepping ? step_to(f->x + TG_LIVE, i) : pair[TG_LIVE];
            const uint32_t w = f->stepping ? step_to(f->w + TG_LIVE, i) : pair[2 + TG_LIVE];
            const double a = v[f->stepping ? step_to(f->x, i) : pair[0]];
            const double b = v[f->stepping ? step_to(f->w, i) : pair[2]];
            if (x >= n_const)
                adj[x] += passed * b;
            if (w >= n_const)
                adj[w] += passed * a;
        }
    }
}
