/*  Layers of neurons over rows: stretches of dots in a row that see the same rows, each with weights of its own.

    Both ways they are products of matrices, so weights and what comes in are gathered once for many of them, and EIGHT
    sums of EIGHT lanes stay in registers. A layer's weights are all in different slots, and so are the numbers of its
    rows, see wide.c: each adjoint is still the sum of one instruction after the other, over rows or over neurons from
    the last to the first. What is 0 passes a 0 on, as long as all it meets is finite.  */
#include "wide/terms.h"

#include <string.h>

enum {
    NEURONS = 16,               /* at a time, backwards */
    MANY = 64                   /* weights of a neuron that are gathered at a time */
};

typedef struct {
    const tg_program *p;
    const tg_group *g;
    uint32_t first, rows, n;    /* n neurons, from element first of the group on, over so many rows each */
    uint32_t side;              /* which operand of a pair is the weight */
} layer;

/* Operand i of a neuron's first row. */
TG_INLINE uint32_t slot_of(const layer *y, uint32_t neuron, uint32_t i, int numbering)
{
    return y->p->pool[2 * (y->g->pool + y->g->terms * (y->first + (size_t)y->rows * neuron) + i) + (size_t)numbering];
}

static layer layer_of(const tg_job *j, const tg_group *g, uint32_t first, uint32_t last)
{
    const stretch s = the_stretch(j, g, first);
    return (layer){s.p, g, s.first, s.n, last - first + 1, tg_stride_of(s.p, g, s.first, s.n, 0, TG_LIVE).step != 0};
}

#define EACH_OF_EIGHT(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ROOM(q) double t##q[8];

/* ---- forward ---- */

/* Of n pairs the weights of eight neurons, and where the first row's numbers are. */
TG_INLINE void gather(const layer *y, const double *v, int numbering, uint32_t neuron, uint32_t pair, uint32_t n,
                      double (*w)[8], const double **x)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t own = 2 * (pair + i) + y->side;
        x[i] = v + slot_of(y, 0, own ^ 1, numbering);
        EIGHT w[i][l] = v[slot_of(y, neuron + l < y->n ? neuron + l : y->n - 1, own, numbering)];
    }
}

TG_CLONES void tg_layer_forward(tg_job *j, const tg_group *g, uint32_t first, uint32_t last, int numbering)
{
    const layer y = layer_of(j, g, first, last);
    const uint32_t pairs = g->terms / 2;
    double *to = j->primal + g->y[numbering] + y.first, w[MANY][8], bias[8];
    const double *v = j->primal, *x[MANY];
    for (uint32_t neuron = 0; neuron < y.n; neuron += 8) {
        const uint32_t n = y.n - neuron < 8 ? y.n - neuron : 8;
        EIGHT bias[l] = g->terms % 2 ? v[slot_of(&y, neuron + (l < n ? l : 0), 2 * pairs, numbering)] : 0.0;
        if (pairs <= MANY)
            gather(&y, v, numbering, neuron, 0, pairs, w, x);
        for (uint32_t row = 0; row < y.rows; row += 8) {        /* the last eight may go back over those before */
            const uint32_t at = row + 8 > y.rows ? y.rows - 8 : row;
            double *own = to + (size_t)y.rows * neuron + at;
            EACH_OF_EIGHT(ROOM)
#define BIAS(q) EIGHT t##q[l] = bias[q];
#define ADD(q) EIGHT t##q[l] += from[l] * w[i][q];
#define PUT(q) if (q < n) EIGHT own[q * (size_t)y.rows + l] = t##q[l];
            EACH_OF_EIGHT(BIAS)
            for (uint32_t pair = 0, m; pair < pairs; pair += m) {
                m = pairs - pair < MANY ? pairs - pair : MANY;
                if (pairs > MANY)
                    gather(&y, v, numbering, neuron, pair, m, w, x);
                for (uint32_t i = 0; i < m; i++) {
                    const double *from = x[i] + at;
                    EACH_OF_EIGHT(ADD)
                }
            }
            EACH_OF_EIGHT(PUT)
#undef PUT
#undef ADD
#undef BIAS
        }
    }
}

/* ---- reverse ---- */

/* What comes into n neurons, from `neuron` on, of m rows, from row at on; zeros up to the next eight rows. */
typedef struct {
    uint32_t neuron, n, at, m;
    double g[NEURONS][FAR];
} coming;

/* Read and clear it; whether there is any. */
TG_INLINE int take_all(const layer *y, double *adj, coming *in)
{
    uint64_t any[8] = {0}, found = 0;
    for (uint32_t q = 0; q < in->n; q++) {
        double *own = in->g[q];
        take(own, adj + y->g->y[TG_LIVE] + y->first + (size_t)y->rows * (in->neuron + q) + in->at, in->m);
        for (uint32_t k = in->m; k % 8; k++)
            own[k] = 0.0;
        for (uint32_t k = 0; k < in->m; k += 8)
            EIGHT any[l] |= tg_bits(own[k + l]) << 1;
    }
    EIGHT found |= any[l];
    return found != 0;
}

/* To the biases. */
TG_INLINE void pass_to_biases(const layer *y, double *adj, const coming *in)
{
    const uint32_t i = y->g->terms - 1;
    for (uint32_t q = 0; q < in->n; q += 8) {
        double *to[8], none[8] = {0.0}, t[8];
        const double *g[8];
        for (uint32_t e = 0; e < 8; e++) {
            const int own = q + e < in->n;
            to[e] = own ? adj + slot_of(y, in->neuron + q + e, i, TG_LIVE) : none + e;
            g[e] = in->g[own ? q + e : q];
            t[e] = *to[e];
        }
        {
            double t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3], t4 = t[4], t5 = t[5], t6 = t[6], t7 = t[7];
            for (uint32_t k = in->m; k-- > 0;) {
#define ADD(q) t##q += g[q][k];
                EACH_OF_EIGHT(ADD)
#undef ADD
            }
#define PUT(q) *to[q] = t##q;
            EACH_OF_EIGHT(PUT)
#undef PUT
        }
    }
}

/* Eight pairs, or less and zeros: weights, the numbers of each row side by side, and where those are that adjoints go
   to; NULL where they go nowhere. */
typedef struct {
    uint32_t pair, n;
    int odd;                    /* something is not finite */
    double w[NEURONS][8], x[FAR][8];
    double *to[8];              /* of the rows */
    int weights, rows;          /* whether any adjoints go there */
    uint8_t moves[8];           /* the weights */
} panel;

TG_INLINE void fill(const layer *y, const tg_job *j, const coming *in, panel *a)
{
    uint64_t odd[8] = {0}, any = 0;
    a->weights = a->rows = 0;
    for (uint32_t e = 0; e < 8; e++) {
        const uint32_t own = 2 * (a->pair + e) + y->side;
        a->to[e] = NULL;
        a->moves[e] = e < a->n && slot_of(y, 0, own, TG_LIVE) >= y->p->n_const;
        a->weights |= a->moves[e];
        if (e < a->n && slot_of(y, 0, own ^ 1, TG_LIVE) >= y->p->n_const)
            a->to[e] = j->adj + slot_of(y, 0, own ^ 1, TG_LIVE) + in->at;
        a->rows |= a->to[e] != NULL;
        for (uint32_t q = 0; q < in->n; q++)
            a->w[q][e] = e < a->n ? j->primal[slot_of(y, in->neuron + q, own, TG_KEPT)] : 0.0;
    }
    for (uint32_t q = 0; q < in->n; q++)
        EIGHT odd[l] |= tg_is_infinite_or_nan(a->w[q][l]);
    for (uint32_t e = 0; e < 8 && a->weights; e++) {
        const double *x = j->primal + (e < a->n ? slot_of(y, 0, 2 * (a->pair + e) + 1 - y->side, TG_KEPT) + in->at : 0);
        for (uint32_t k = 0; k < in->m; k++)
            a->x[k][e] = e < a->n ? x[k] : 0.0;
    }
    for (uint32_t k = 0; k < in->m && a->weights; k++)
        EIGHT odd[l] |= tg_is_infinite_or_nan(a->x[k][l]);
    EIGHT any |= odd[l];
    a->odd = any != 0;
}

TG_INLINE void pass_to_weights(const layer *y, double *adj, const coming *in, const panel *a)
{
    for (uint32_t q = 0; q < in->n; q += 4) {
        double t[4][8], t0[8], t1[8], t2[8], t3[8];
        const double *g[4];
        for (uint32_t i = 0; i < 4; i++) {
            g[i] = in->g[q + i < in->n ? q + i : q];
            for (uint32_t e = 0; e < 8; e++)
                t[i][e] = q + i < in->n && a->moves[e]
                              ? adj[slot_of(y, in->neuron + q + i, 2 * (a->pair + e) + y->side, TG_LIVE)] : 0.0;
        }
        EIGHT t0[l] = t[0][l];
        EIGHT t1[l] = t[1][l];
        EIGHT t2[l] = t[2][l];
        EIGHT t3[l] = t[3][l];
        for (uint32_t k = in->m; k-- > 0;) {
            const double *x = a->x[k];
            EIGHT t0[l] += g[0][k] * x[l];
            EIGHT t1[l] += g[1][k] * x[l];
            EIGHT t2[l] += g[2][k] * x[l];
            EIGHT t3[l] += g[3][k] * x[l];
        }
        EIGHT t[0][l] = t0[l];
        EIGHT t[1][l] = t1[l];
        EIGHT t[2][l] = t2[l];
        EIGHT t[3][l] = t3[l];
        for (uint32_t i = 0; i < 4 && q + i < in->n; i++)
            for (uint32_t e = 0; e < 8; e++)
                if (a->moves[e])
                    adj[slot_of(y, in->neuron + q + i, 2 * (a->pair + e) + y->side, TG_LIVE)] = t[i][e];
    }
}

TG_INLINE void pass_to_rows(const coming *in, const panel *a)
{
    for (uint32_t k = 0; k < in->m; k += 8) {
        const uint32_t n = in->m - k < 8 ? in->m - k : 8;
        double rooms[8][8] = {{0.0}}, *to[8];
        EACH_OF_EIGHT(ROOM)
        for (uint32_t e = 0; e < 8; e++) {
            to[e] = a->to[e] && n == 8 ? a->to[e] + k : rooms[e];
            if (a->to[e] && n < 8)
                memcpy(to[e], a->to[e] + k, n * sizeof **to);
        }
#define GET(q) EIGHT t##q[l] = to[q][l];
#define ADD(q) EIGHT t##q[l] += g[l] * w[q];
#define PUT(q) EIGHT to[q][l] = t##q[l];
        EACH_OF_EIGHT(GET)
        for (uint32_t q = in->n; q-- > 0;) {
            const double *g = in->g[q] + k, *w = a->w[q];
            EACH_OF_EIGHT(ADD)
        }
        EACH_OF_EIGHT(PUT)
#undef PUT
#undef ADD
#undef GET
        for (uint32_t e = 0; e < 8 && n < 8; e++)
            if (a->to[e])
                memcpy(a->to[e] + k, to[e], n * sizeof **to);
    }
}

/* Where something is not finite. */
static void pass_one_by_one(const layer *y, double *adj, const coming *in, const panel *a)
{
    for (uint32_t q = in->n; q-- > 0;)
        for (uint32_t e = 0; e < a->n; e++) {
            double *weight = adj + slot_of(y, in->neuron + q, 2 * (a->pair + e) + y->side, TG_LIVE);
            for (uint32_t k = in->m; k-- > 0;) {
                if (a->moves[e])
                    *weight += tg_passed_on(in->g[q][k], a->x[k][e]);
                if (a->to[e])
                    a->to[e][k] += tg_passed_on(in->g[q][k], a->w[q][e]);
            }
        }
}

TG_CLONES void tg_layer_reverse(tg_job *j, const tg_group *g, uint32_t first, uint32_t last)
{
    const layer y = layer_of(j, g, first, last);
    const uint32_t pairs = g->terms / 2;
    const int biased = g->terms % 2 && slot_of(&y, 0, g->terms - 1, TG_LIVE) >= y.p->n_const;
    coming in;
    panel a;
    for (uint32_t end = y.rows; end; end = in.at) {
        in.m = end < FAR ? end : FAR;
        in.at = end - in.m;
        for (uint32_t behind = y.n; behind; behind = in.neuron) {
            in.n = behind < NEURONS ? behind : NEURONS;
            in.neuron = behind - in.n;
            if (!take_all(&y, j->adj, &in))
                continue;
            if (biased)
                pass_to_biases(&y, j->adj, &in);
            for (a.pair = 0; a.pair < pairs; a.pair += 8) {
                a.n = pairs - a.pair < 8 ? pairs - a.pair : 8;
                fill(&y, j, &in, &a);
                if (a.odd) {
                    pass_one_by_one(&y, j->adj, &in, &a);
                    continue;
                }
                if (a.weights)
                    pass_to_weights(&y, j->adj, &in, &a);
                if (a.rows)
                    pass_to_rows(&in, &a);
            }
        }
    }
}
