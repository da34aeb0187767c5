/*  Star colourings: neighbours differ, and every path of four nodes has three colours, so that of each entry of a
    symmetric matrix one end is the only one of its colour beside the other.

    Two greedy ways, in natural, largest-first and smallest-last order; the best of the six is kept: none is safe alone.

    review  A. H. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian?", SIAM Review 47 (2005), algorithm
            4.1: a node gets no colour of a neighbour, nor of a node behind a neighbour that has no colour yet or a
            higher one
    stars   A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, "New acyclic and star coloring algorithms with
            application to computing Hessians", SIAM J. Sci. Comput. 29 (2007), algorithm 4.1: two-coloured stars are
            kept, so that a node may share a colour wherever it only makes a star larger  */
#include "sparse/colouring.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint32_t n, *start, *to, *edge;     /* neighbours of a node, and which edge leads to each: both ways the same one */
    uint32_t n_edges;
    uint64_t work, budget;
    uint32_t *colour, *order;           /* colour + 1; 0: none yet */
    uint32_t *forbidden, *treated;      /* by colour, by node: the node for which it is, + 1 */
    uint32_t *first_for, *first, *first_edge;   /* by colour: for which node, its first neighbour of it, the edge */
    uint32_t *star, *hub, n_stars;      /* by edge: its star; by star: its hub + 1, or 0 while it is one edge */
} graph;

static int over(graph *g, uint64_t work) { return (g->work += work) > g->budget; }

static uint32_t lowest(const graph *g, uint32_t v)
{
    uint32_t k = 1;
    while (g->forbidden[k] == v + 1)
        k++;
    return k;
}

static int review(graph *g, uint32_t v)
{
    for (uint32_t p = g->start[v]; p < g->start[v + 1]; p++) {
        const uint32_t w = g->to[p];
        g->forbidden[g->colour[w]] = v + 1;
        if (over(g, g->start[w + 1] - g->start[w]))
            return 0;
        for (uint32_t q = g->start[w]; q < g->start[w + 1]; q++) {
            const uint32_t x = g->to[q];
            if (!g->colour[w] || g->colour[x] < g->colour[w])
                g->forbidden[g->colour[x]] = v + 1;
        }
    }
    g->colour[v] = lowest(g, v);
    return 1;
}

static void treat(graph *g, uint32_t v, uint32_t w)
{
    for (uint32_t q = g->start[w]; q < g->start[w + 1]; q++)
        g->forbidden[g->colour[g->to[q]]] = v + 1;
    g->treated[w] = v + 1;
}

static int stars(graph *g, uint32_t v)
{
    for (uint32_t p = g->start[v]; p < g->start[v + 1]; p++) {
        const uint32_t w = g->to[p], k = g->colour[w];
        if (!k)
            continue;
        g->forbidden[k] = v + 1;
        if (over(g, g->start[w + 1] - g->start[w]))
            return 0;
        if (g->first_for[k] == v + 1) {                 /* two neighbours of one colour: v would be their hub */
            if (g->treated[g->first[k]] != v + 1)
                treat(g, v, g->first[k]);
            treat(g, v, w);
            continue;
        }
        g->first_for[k] = v + 1;
        g->first[k] = w;
        g->first_edge[k] = g->edge[p];
        for (uint32_t q = g->start[w]; q < g->start[w + 1]; q++) {
            const uint32_t x = g->to[q];
            if (x != v && g->colour[x] && g->hub[g->star[g->edge[q]]] == x + 1)
                g->forbidden[g->colour[x]] = v + 1;
        }
    }
    g->colour[v] = lowest(g, v);
    for (uint32_t p = g->start[v]; p < g->start[v + 1]; p++) {
        const uint32_t w = g->to[p], k = g->colour[w];
        uint32_t q, end = g->start[w + 1];
        if (!k)
            continue;
        for (q = g->start[w]; q < end; q++)
            if (g->to[q] != v && g->colour[g->to[q]] == g->colour[v])
                break;
        if (q < end) {                                  /* w has another neighbour of v's colour: w is the hub */
            g->star[g->edge[p]] = g->star[g->edge[q]];
            g->hub[g->star[g->edge[p]]] = w + 1;
        } else if (g->first[k] != w) {                  /* v has another neighbour of w's colour: v is */
            g->star[g->edge[p]] = g->star[g->first_edge[k]];
            g->hub[g->star[g->edge[p]]] = v + 1;
        } else {
            g->star[g->edge[p]] = g->n_stars;
            g->hub[g->n_stars++] = 0;
        }
    }
    return 1;
}

/* Nodes by degree, the largest first, or so that each has the fewest neighbours among those before it. */
static void ordered(graph *g, int which, uint32_t *bucket, uint32_t *degree)
{
    uint32_t *next = bucket + g->n + 1, *before = next + g->n, top = 0;
    for (uint32_t v = 0; v < g->n; v++)
        g->order[v] = v;
    if (!which)
        return;
    memset(bucket, 0xFF, (g->n + (size_t)1) * sizeof *bucket);      /* TG_NONE */
#define PUT(v)                                                                                                         \
    do {                                                                                                               \
        next[v] = bucket[degree[v]];                                                                                   \
        before[v] = TG_NONE;                                                                                           \
        if (next[v] != TG_NONE)                                                                                        \
            before[next[v]] = v;                                                                                       \
        bucket[degree[v]] = v;                                                                                         \
    } while (0)
    for (uint32_t v = g->n; v-- > 0;) {
        degree[v] = g->start[v + 1] - g->start[v];
        PUT(v);
    }
    if (which == 1) {
        for (uint32_t d = g->n + 1, at = 0; d-- > 0;)
            for (uint32_t v = bucket[d]; v != TG_NONE; v = next[v])
                g->order[at++] = v;
        return;
    }
    for (uint32_t at = g->n; at-- > 0;) {
        uint32_t v;
        while (bucket[top] == TG_NONE)
            top++;
        v = bucket[top];
        bucket[top] = next[v];
        if (next[v] != TG_NONE)
            before[next[v]] = TG_NONE;
        g->order[at] = v;
        degree[v] = TG_NONE;                            /* it is out */
        for (uint32_t p = g->start[v]; p < g->start[v + 1]; p++) {
            const uint32_t w = g->to[p];
            if (degree[w] == TG_NONE)
                continue;
            if (before[w] != TG_NONE)
                next[before[w]] = next[w];
            else
                bucket[degree[w]] = next[w];
            if (next[w] != TG_NONE)
                before[next[w]] = before[w];
            degree[w]--;
            PUT(w);
            top = degree[w] < top ? degree[w] : top;
        }
    }
#undef PUT
}

/* One greedy colouring: how many colours, or 0 where the budget is over. */
static uint32_t greedy(graph *g, int (*step)(graph *, uint32_t))
{
    uint32_t most = 0;
    memset(g->colour, 0, g->n * sizeof *g->colour);
    memset(g->forbidden, 0, (g->n + (size_t)2) * sizeof *g->forbidden);
    memset(g->treated, 0, g->n * sizeof *g->treated);
    memset(g->first_for, 0, (g->n + (size_t)2) * sizeof *g->first_for);
    g->n_stars = 0;
    for (uint32_t k = 0; k < g->n; k++) {
        const uint32_t v = g->order[k];
        if (!step(g, v))
            return 0;
        most = g->colour[v] > most ? g->colour[v] : most;
    }
    return most;
}

static void connect(graph *g, const uint32_t *row, const uint32_t *col, uint32_t n_entries)
{
    uint32_t at = 0;
    for (uint32_t k = 0; k < n_entries; k++)
        g->start[row[k] + 1] += row[k] != col[k];
    for (uint32_t v = 0; v < g->n; v++)
        g->start[v + 1] += g->start[v];
    for (uint32_t k = 0; k < n_entries; k++)
        if (row[k] != col[k])
            g->to[at++] = col[k];
    memcpy(g->order, g->start, g->n * sizeof *g->order); /* the next neighbour of each that is to be numbered */
    for (uint32_t v = 0; v < g->n; v++)                 /* lower neighbours come first, and in this order */
        for (uint32_t p = g->start[v]; p < g->start[v + 1]; p++)
            if (g->to[p] > v) {
                g->edge[p] = g->n_edges;
                g->edge[g->order[g->to[p]]++] = g->n_edges++;
            }
}

int64_t tg_star_colours(uint32_t n, const uint32_t *row, const uint32_t *col, uint32_t n_entries, uint64_t budget,
                        uint32_t *colour)
{
    graph g = {.n = n, .budget = budget};
    const size_t of = n + (size_t)2, e = n_entries + (size_t)1;
    uint32_t *memory = tg_zeroed((12 * of + 4 * e) * sizeof *memory), *bucket, *degree, best = 0;
    if (!memory)
        return TG_MEMORY;
    g.start = memory;
    g.colour = memory + of;
    g.order = memory + 2 * of;
    g.forbidden = memory + 3 * of;
    g.treated = memory + 4 * of;
    g.first_for = memory + 5 * of;
    g.first = memory + 6 * of;
    g.first_edge = memory + 7 * of;
    bucket = memory + 8 * of;                           /* and two more */
    degree = memory + 11 * of;
    g.to = memory + 12 * of;
    g.edge = g.to + e;
    g.star = g.edge + e;
    g.hub = g.star + e;
    connect(&g, row, col, n_entries);
    for (int which = 0; which < 3; which++) {
        ordered(&g, which, bucket, degree);
        for (int way = 0; way < 2; way++) {
            const uint32_t colours = greedy(&g, way ? stars : review);
            if (colours && (!best || colours < best)) {
                best = colours;
                for (uint32_t v = 0; v < n; v++)
                    colour[v] = g.colour[v] - 1;
            }
        }
    }
    free(memory);
    return best;
}
