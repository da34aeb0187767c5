/*  Hessians by edge pushing: one reverse sweep that carries, beside the adjoints, the second derivatives between nodes.

    R. M. Gower, M. P. Mello, "A new framework for the computation of Hessians", Optimization Methods and Software 27
    (2012). An edge {i, j} with a weight is d2f/(di dj) of what is left above; it is kept at the higher of its nodes,
    and when the sweep comes there, pushed to that node's operands. Nonlinear operations make new ones. At the end the
    edges between inputs are the Hessian. Edges that are the same are added up when their higher node is reached.  */
#include "sparse/nonzeros.h"

#include <stdlib.h>

typedef struct {
    uint32_t next, other, weight;       /* next of the same higher node: index + 1; the lower node; a node */
} edge;

typedef struct {
    tg_nonzeros *s;
    edge *edge;
    uint32_t len, cap, unused;          /* unused: the first of a list of them, + 1 */
    uint32_t *first;                    /* by node: its list, + 1 */
    uint32_t *place;                    /* by node: where among near it is, + 1 */
    uint32_t *near, *weight, n_near, near_cap;  /* of the node that is visited */
} pushing;

/* Two nodes, one of them perhaps twice. */
static void add(pushing *e, uint32_t i, uint32_t j, tg_scalar weight)
{
    tg_nonzeros *s = e->s;
    const uint32_t high = i > j ? i : j, low = i > j ? j : i;
    uint32_t at = e->unused;
    if (tg_is_number(weight, 0.0) || !tg_goes_on(s, 1))
        return;
    if (!at) {
        if (e->len == e->cap) {
            const uint32_t cap = e->cap ? 2 * e->cap : 4096;
            edge *grown = cap < TG_NONE / 2 ? tg_realloc(e->edge, cap * sizeof *grown) : NULL;
            if (!grown) {
                s->code = cap < TG_NONE / 2 ? TG_MEMORY : TG_FULL;
                return;
            }
            e->edge = grown;
            e->cap = cap;
        }
        at = ++e->len;
    } else
        e->unused = e->edge[at - 1].next;
    e->edge[at - 1] = (edge){e->first[high], low, tg_holder(s, weight)};
    e->first[high] = at;
    tg_agenda_add(&s->agenda, high);
}

/* Room for another node near the one that is visited. */
static int more_near(pushing *e)
{
    const uint32_t cap = e->near_cap ? 2 * e->near_cap : 64;
    uint32_t *near = tg_realloc(e->near, cap * sizeof *near), *weight;
    e->near = near ? near : e->near;
    weight = near ? tg_realloc(e->weight, cap * sizeof *weight) : NULL;
    if (!weight)
        return TG_MEMORY;
    e->weight = weight;
    e->near_cap = cap;
    return TG_OK;
}

/* Take the edges of a node off its list, the same ones added up: numbers first, which are one number then, and the bias
   of a dot where the others are products. */
static void collect(pushing *e, uint32_t i)
{
    tg_nonzeros *s = e->s;
    edge *last = NULL;
    e->n_near = 0;
    for (int numbers = 1; numbers >= 0; numbers--)
        for (uint32_t at = e->first[i]; at && !s->code; at = last->next) {
            uint32_t *place, *weight;
            last = e->edge + (at - 1);
            place = e->place + last->other;
            if (!*place) {
                if (e->n_near == e->near_cap && (s->code = more_near(e)))
                    break;
                e->near[e->n_near] = last->other;
                e->weight[e->n_near] = TG_NONE;
                *place = ++e->n_near;
            }
            if (tg_draft_is_constant(&s->d, last->weight) != numbers)
                continue;
            weight = e->weight + (*place - 1);
            *weight = *weight == TG_NONE ? last->weight
                                         : tg_holder(s, tg_sum_of(s, tg_held(s, *weight), tg_held(s, last->weight)));
        }
    if (last && !s->code) {
        last->next = e->unused;
        e->unused = e->first[i];
        e->first[i] = 0;
    }
    for (uint32_t k = 0; k < e->n_near; k++)
        e->place[e->near[k]] = 0;
}

/* Twice what an edge between one node stands for, where two ways lead to it. */
static tg_scalar met(tg_nonzeros *s, const tg_port *p, const tg_port *q, tg_scalar weight)
{
    return p != q && p->id == q->id ? tg_sum_of(s, weight, weight) : weight;
}

static void push(pushing *e, uint32_t i, uint32_t ports)
{
    tg_nonzeros *s = e->s;
    const tg_port *port = s->port;
    const int exclusive = s->d.node[i].op == TG_WHERE;  /* one of its ways is 0 */
    for (uint32_t m = 0; m < e->n_near && !s->code; m++) {
        const uint32_t other = e->near[m];
        const tg_scalar w = tg_held(s, e->weight[m]);
        for (uint32_t p = 0; p < ports && !s->code && !tg_is_number(w, 0.0); p++) {
            const tg_scalar passed = tg_passed(s, i, port + p, w);
            if (other != i) {
                add(e, port[p].id, other, port[p].id == other ? tg_sum_of(s, passed, passed) : passed);
                continue;
            }
            for (uint32_t q = p; q < (exclusive ? p + 1 : ports) && !s->code; q++)
                add(e, port[p].id, port[q].id, met(s, port + p, port + q, tg_passed(s, i, port + q, passed)));
        }
    }
}

static void visit(pushing *e, uint32_t i)
{
    tg_nonzeros *s = e->s;
    const uint32_t adj = s->adj[i];
    uint32_t n;
    collect(e, i);
    s->adj[i] = 0;
    if (s->code)
        return;
    if (tg_is_input(s, i)) {
        for (uint32_t m = 0; m < e->n_near && !s->code; m++) {
            const uint32_t j = e->near[m];
            if (tg_is_number(tg_held(s, e->weight[m]), 0.0))
                continue;
            tg_entry(s, i - s->first, j - s->first, e->weight[m]);
            if (j != i)
                tg_entry(s, j - s->first, i - s->first, e->weight[m]);
        }
        return;
    }
    n = tg_ports(s, i);
    push(e, i, n);
    if (!adj || tg_is_number(tg_held(s, adj - 1), 0.0))
        return;
    for (uint32_t p = 0; p < n && tg_goes_on(s, 1); p++) {
        const tg_scalar g = tg_held(s, adj - 1);
        const uint32_t end = tg_bent_end(s, i, p, n);
        for (uint32_t q = p; q < end && !s->code; q++) {
            const tg_scalar bent = tg_bent(s, i, s->port + p, s->port + q);
            if (!tg_is_number(bent, 0.0))
                add(e, s->port[p].id, s->port[q].id, met(s, s->port + p, s->port + q, tg_product_of(s, g, bent)));
        }
        if (!tg_is_input(s, s->port[p].id))             /* whose adjoint nobody reads */
            tg_add_at(s, s->port[p].id, tg_passed(s, i, s->port + p, g));
    }
}

int tg_hessian_edges(tg_nonzeros *s, uint64_t budget)
{
    pushing e = {.s = s};
    uint32_t i;
    s->budget = budget;
    e.first = tg_zeroed((s->n + (size_t)1) * sizeof *e.first);
    e.place = tg_zeroed((s->n + (size_t)1) * sizeof *e.place);
    if (!e.first || !e.place)
        s->code = TG_MEMORY;
    for (uint32_t r = 0; r < s->n_out && !s->code; r++)
        if (s->moves[s->out[r]])
            tg_add_at(s, s->out[r], s->n_weights ? tg_node(s->weight[r]) : tg_number(1.0));
    while (!s->code && (i = tg_agenda_take(&s->agenda, 1)) != TG_NONE)
        visit(&e, i);
    free(e.edge);
    free(e.first);
    free(e.place);
    free(e.near);
    free(e.weight);
    return s->code ? s->code : tg_order_entries(s);
}
