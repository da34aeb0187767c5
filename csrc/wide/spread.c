/*  Long sums and dots in parts, found and carried out: see pieces.h.  */
#include "wide/spread.h"
#include "ops.h"
#include "wide/wide.h"

#include <stdlib.h>

enum { FEWEST = 8 };            /* pieces that have parts of a sum, and more terms: else these are carried */

/* ---- what is long ---- */

typedef struct {
    const tg_program *p;
    tg_pieces *made;
    uint32_t fixed, *in_slot;   /* by kept slot: the value in it, a fixed slot or an instruction behind those */
    uint8_t *marks, mark;       /* by value */
    tg_part *part;              /* of one sum after the other */
    uint32_t n_parts, cap;
} dividing;

static int add_part(dividing *c, tg_part part)
{
    if (c->n_parts == c->cap) {
        tg_part *more = tg_more(c->part, &c->cap, 64, sizeof *more);
        if (!more)
            return TG_MEMORY;
        c->part = more;
    }
    c->part[c->n_parts++] = part;
    return TG_OK;
}

static uint32_t terms_of(const tg_instr *s) { return tg_row(s) == TG_DOT ? s->b / 2 : s->b; }
static int is_long(const tg_instr *s)
{
    return (tg_row(s) == TG_SUM || tg_row(s) == TG_DOT) && terms_of(s) > FEWEST;
}

/* The piece, not before this one, that makes all of a term that is not constant; TG_NONE where there is none. */
static uint32_t maker(const dividing *c, const uint32_t *pair, uint32_t width, uint32_t piece)
{
    const uint32_t *start = c->made->start;
    uint32_t makers = 0;
    for (uint32_t i = 0; i < width; i++) {
        const uint32_t value = c->in_slot[pair[2 * (size_t)i]];
        if (value < c->p->n_const)
            continue;
        if (value < c->fixed + start[piece])
            return TG_NONE;
        while (value >= c->fixed + start[piece + 1]) {
            if (makers)
                return TG_NONE;
            piece++;
        }
        makers++;
    }
    return piece;
}

/* Find the parts of instruction k, s, of a piece: whether more pieces than are near have some, one after the other. */
static int divide(dividing *c, uint32_t piece, uint32_t k, const tg_instr *s)
{
    const uint32_t width = tg_row(s) == TG_DOT ? 2 : 1, n = terms_of(s), begun = c->n_parts, sum = c->made->n_sums;
    const uint32_t *pair = c->p->pool + 2 * (size_t)s->a;
    tg_part part = {.piece = 0, .sum = sum, .before = TG_NONE};
    int code = TG_OK;
    if (s->b % width && pair[2 * (size_t)(s->b - 1)] >= c->p->n_const)
        return TG_OK;
    for (uint32_t m = 0; m < n && !code; m++) {
        const uint32_t own = maker(c, pair + 2 * (size_t)width * m, width, part.piece);
        if (own == TG_NONE) {
            c->n_parts = begun;
            return TG_OK;
        }
        if (own != part.piece) {
            code = part.n ? add_part(c, part) : TG_OK;
            part = (tg_part){own, sum, m, 0, part.n ? part.piece : part.before};
        }
        part.n++;
    }
    if (!code && part.piece != piece) {
        code = add_part(c, part);
        part = (tg_part){piece, sum, n, 0, part.piece};
    }
    if (!code)
        code = add_part(c, part);
    if (code)
        return code;
    if (c->n_parts - begun <= FEWEST) {
        c->n_parts = begun;
        return TG_OK;
    }
    for (uint32_t m = 0; m < width * part.first; m++)
        c->marks[c->in_slot[pair[2 * (size_t)m]]] |= c->mark;
    c->made->sum[c->made->n_sums++] = (tg_long_sum){k, piece, width * part.first};
    return TG_OK;
}

static int find(dividing *c)
{
    const tg_program *p = c->p;
    tg_pieces *s = c->made;
    uint32_t n = 0;
    int code = TG_OK;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++)
        n += is_long(tg_at(&w, k));
    s->sum = tg_realloc(NULL, n * sizeof *s->sum + 1);
    if (!s->sum)
        return TG_MEMORY;
    for (uint32_t k = 0; k < c->fixed; k++)
        c->in_slot[k] = k;
    for (uint32_t u = 0; u < s->n_pieces; u++)
        for (uint32_t k = s->start[u]; k < s->start[u + 1] && !code; k++) {
            const tg_instr *own = tg_at(&w, k);
            if (is_long(own))
                code = divide(c, u, k, own);
            if (tg_row(own) != TG_GUARD)
                c->in_slot[own->y] = c->fixed + k;
        }
    return code;
}

/* The parts piece by piece. */
static int sort_parts(dividing *c)
{
    tg_pieces *s = c->made;
    s->first_part = tg_zeroed((s->n_pieces + (size_t)2) * sizeof *s->first_part);
    s->part = tg_realloc(NULL, c->n_parts * sizeof *s->part + 1);
    if (!s->first_part || !s->part)
        return TG_MEMORY;
    for (uint32_t k = 0; k < c->n_parts; k++)
        s->first_part[c->part[k].piece + 2]++;
    for (uint32_t u = 2; u <= s->n_pieces; u++)
        s->first_part[u] += s->first_part[u - 1];
    for (uint32_t k = 0; k < c->n_parts; k++)
        s->part[s->first_part[c->part[k].piece + 1]++] = c->part[k];
    return TG_OK;
}

int tg_find_long_sums(const tg_program *p, tg_pieces *s, uint32_t *in_slot, uint8_t *marks, uint8_t mark)
{
    dividing c = {.p = p, .made = s, .fixed = p->n_const + p->n_in, .in_slot = in_slot, .marks = marks, .mark = mark};
    int code = find(&c);
    if (!code)
        code = sort_parts(&c);
    free(c.part);
    return code;
}

/* ---- parts ---- */

/* Pairs of slots from the first term on. */
static const uint32_t *pairs_of(const tg_job *j, const tg_instr *s, uint32_t first)
{
    return j->program->pool + 2 * (s->a + (size_t)first * (tg_row(s) == TG_DOT ? 2 : 1));
}

static double start(const tg_instr *s, const uint32_t *pool, const double *v)
{
    return tg_row(s) == TG_DOT && s->b % 2 ? v[pool[2 * (size_t)(s->b - 1)]] : 0.0;
}

double tg_no_terms(const tg_job *j, const tg_instr *s)
{
    return start(s, pairs_of(j, s, 0) + tg_has_live_primals(j), j->primal);
}

double tg_no_tangents(const tg_job *j, const tg_instr *s) { return start(s, pairs_of(j, s, 0), j->tangent); }

double tg_add_terms(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double y)
{
    const uint32_t *slot = pairs_of(j, s, first) + tg_has_live_primals(j);
    const double *v = j->primal;
    if (tg_row(s) == TG_SUM)
        for (uint32_t k = 0; k < n; k++)
            y += v[slot[2 * (size_t)k]];
    else
        for (uint32_t k = 0; k < n; k++)
            y += v[slot[4 * (size_t)k]] * v[slot[4 * (size_t)k + 2]];
    return y;
}

double tg_add_tangents(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double y)
{
    const uint32_t *slot = pairs_of(j, s, first);
    const double *v = j->primal, *d = j->tangent;
    for (uint32_t k = 0; k < n; k++) {
        if (tg_row(s) == TG_SUM)
            y += d[slot[2 * (size_t)k]];
        else {
            const uint32_t x = slot[4 * (size_t)k], w = slot[4 * (size_t)k + 2];
            y += tg_product_along(v[x], d[x], v[w], d[w]);
        }
    }
    return y;
}

/* To the one with this pair, whose partial is named; t: its tangent. */
static inline void pass(const tg_job *j, const uint32_t *pair, double partial, double t, double g, double h)
{
    if (pair[1] < j->program->n_const)
        return;
    j->adj[pair[1]] += tg_passed_on(g, partial);
    if (j->tangents)
        j->adj_tangent[pair[1]] += tg_passed_on(h, partial) + tg_passed_on(g, t);
}

void tg_pass_to_terms(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double g, double h)
{
    const uint32_t *pair = pairs_of(j, s, first);
    const uint32_t n_const = j->program->n_const;
    const double *v = j->primal, *d = j->tangent;
    double *adj = j->adj, *along = j->tangents ? j->adj_tangent : NULL;
    if (g == 0.0 && h == 0.0)
        return;
    if (tg_row(s) == TG_SUM)
        for (uint32_t k = 0; k < n; k++, pair += 2) {
            if (pair[1] < n_const)
                continue;
            adj[pair[1]] += g;
            if (along)
                along[pair[1]] += h;
        }
    else
        for (uint32_t k = 0; k < n; k++, pair += 4) {
            const uint32_t x = pair[0], w = pair[2];
            pass(j, pair, v[w], j->tangents ? d[w] : 0.0, g, h);
            pass(j, pair + 2, v[x], j->tangents ? d[x] : 0.0, g, h);
        }
}
