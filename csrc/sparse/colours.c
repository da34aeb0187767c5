/*  Hessians by colours: for each colour, a tangent along all inputs of it, and the sweep of that tangent.

    Both visit what depends on those inputs, and what that meets in a nonlinear operation, and nothing else. The
    adjoints are those of one sweep for all colours. Which entry is read where, a star colouring decides: of each entry,
    one of its ends is the only one of its colour beside the other.  */
#include "sparse/nonzeros.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    tg_nonzeros *s;
    uint32_t *adj, *tangent;    /* by node: a node + 1, or 0 */
    uint32_t *seen, n_seen;     /* nodes with a tangent */
    uint32_t *met, n_met;       /* nodes whose operands have one */
    uint32_t *touched, *next;   /* by node: the last use of an operand with a tangent, + 1; by use: the one before */
    uint32_t *result, *hit, n_hits; /* by input: a node + 1; which ones have one */
    int dry;
} colouring;

/* Add what a way passes on, or that it passes something on. */
static void pass(colouring *c, uint32_t i, const tg_port *p, tg_scalar g, uint32_t to)
{
    if (c->dry)
        tg_mark_at(c->s, to);
    else
        tg_add_at(c->s, to, tg_passed(c->s, i, p, g));
}

static void pass_all(colouring *c, uint32_t i, tg_scalar g)
{
    tg_nonzeros *s = c->s;
    const uint32_t n = s->code || tg_is_number(g, 0.0) ? 0 : tg_ports(s, i);
    for (uint32_t k = 0; k < n && tg_goes_on(s, 1); k++)
        pass(c, i, s->port + k, g, s->port[k].id);
}

/* The adjoints of the weighed sum of the outputs. */
static void adjoints(colouring *c)
{
    tg_nonzeros *s = c->s;
    uint32_t i;
    for (uint32_t r = 0; r < s->n_out; r++)
        if (s->moves[s->out[r]]) {
            if (c->dry)
                tg_mark_at(s, s->out[r]);
            else
                tg_add_at(s, s->out[r], s->n_weights ? tg_node(s->weight[r]) : tg_number(1.0));
        }
    while ((i = tg_agenda_take(&s->agenda, 1)) != TG_NONE) {
        c->adj[i] = s->adj[i];
        s->adj[i] = 0;
        if (!tg_is_input(s, i))
            pass_all(c, i, tg_held(s, c->adj[i] - 1));
    }
}

/* Tangents along the inputs on the agenda. */
static void forward(colouring *c)
{
    tg_nonzeros *s = c->s;
    uint32_t i;
    c->n_seen = c->n_met = 0;
    while ((i = tg_agenda_take(&s->agenda, 0)) != TG_NONE) {
        const tg_scalar t = tg_held(s, s->adj[i] - 1);
        c->tangent[i] = s->adj[i];
        c->seen[c->n_seen++] = i;
        s->adj[i] = 0;
        if (tg_is_number(t, 0.0))
            continue;
        for (uint32_t u = s->use_start[i]; u < s->use_start[i + 1] && tg_goes_on(s, 1); u++) {
            const uint32_t user = s->use_node[u];
            tg_port p;
            if (!c->adj[user] || !tg_port_of(s, user, s->use_k[u], &p))
                continue;                               /* of no weight, or no way */
            if (!c->touched[user])
                c->met[c->n_met++] = user;
            c->next[u] = c->touched[user];
            c->touched[user] = u + 1;
            pass(c, user, &p, t, user);
        }
    }
}

/* What a tangent at the end of way p adds at the end of way q. */
static void meet(colouring *c, uint32_t i, const tg_port *p, const tg_port *q)
{
    tg_nonzeros *s = c->s;
    const tg_scalar bent = tg_goes_on(s, 1) ? tg_bent(s, i, p, q) : tg_number(0.0);
    if (tg_is_number(bent, 0.0))
        return;
    if (c->dry)
        tg_mark_at(s, q->id);
    else
        tg_add_at(s, q->id, tg_product_of(s, tg_product_of(s, tg_held(s, c->adj[i] - 1), bent),
                                          tg_held(s, c->tangent[p->id] - 1)));
}

/* What tangents of a node's operands make of its adjoint. */
static void bend(colouring *c, uint32_t i)
{
    tg_nonzeros *s = c->s;
    const int op = (int)s->d.node[i].op;
    for (uint32_t u = c->touched[i]; u && !s->code; u = c->next[u - 1]) {
        const uint32_t k = s->use_k[u - 1];
        tg_port p, q;
        if (!tg_port_of(s, i, k, &p))
            continue;
        meet(c, i, &p, &p);
        if (op == TG_LOGSUMEXP) {
            const uint32_t n = tg_ports(s, i);
            for (uint32_t m = 0; m < n; m++)
                if (s->port[m].k != k)
                    meet(c, i, &p, s->port + m);
        } else if ((op == TG_DOT && (k ^ 1) < s->d.node[i].b) || !tg_is_many(op)) {
            if (tg_port_of(s, i, k ^ 1, &q))
                meet(c, i, &p, &q);
        }
    }
}

/* The sweep of the tangents, into the result. */
static void back(colouring *c)
{
    tg_nonzeros *s = c->s;
    uint32_t i;
    c->n_hits = 0;
    for (uint32_t k = 0; k < c->n_met; k++)
        tg_agenda_add(&s->agenda, c->met[k]);
    while ((i = tg_agenda_take(&s->agenda, 1)) != TG_NONE) {
        const uint32_t adj = s->adj[i];
        s->adj[i] = 0;
        if (tg_is_input(s, i)) {
            c->result[i - s->first] = adj;
            c->hit[c->n_hits++] = i - s->first;
            continue;
        }
        bend(c, i);
        if (adj)
            pass_all(c, i, tg_held(s, adj - 1));
    }
    for (uint32_t k = 0; k < c->n_seen; k++)
        c->tangent[c->seen[k]] = 0;
    for (uint32_t k = 0; k < c->n_met; k++)
        c->touched[c->met[k]] = 0;
}

static void clear(colouring *c)
{
    for (uint32_t k = 0; k < c->n_hits; k++)
        c->result[c->hit[k]] = 0;
}

static void make(colouring *c)
{
    tg_nonzeros *s = c->s;
    const size_t n = s->n;
    uint32_t *memory = tg_zeroed((5 * n + s->links + 2 * (size_t)s->count + 1) * sizeof *memory);
    c->adj = memory;
    s->code = memory ? tg_uses(s) : TG_MEMORY;
    if (s->code)
        return;
    c->tangent = memory + n;
    c->seen = memory + 2 * n;
    c->met = memory + 3 * n;
    c->touched = memory + 4 * n;
    c->next = memory + 5 * n;
    c->result = c->next + s->links;
    c->hit = c->result + s->count;
    adjoints(c);
}

int tg_hessian_probe(tg_nonzeros *s, uint64_t budget)
{
    colouring c = {.s = s, .dry = 1};
    s->budget = budget;
    make(&c);
    for (uint32_t k = 0; k < s->count && !s->code; k++) {
        tg_mark_at(s, s->first + k);
        forward(&c);
        back(&c);
        for (uint32_t m = 0; m < c.n_hits; m++)
            tg_entry(s, c.hit[m], k, 0);
        clear(&c);
    }
    free(c.adj);
    return s->code ? s->code : tg_order_entries(s);
}

/* Where each entry i, j is read, as j, i is: in row i among the colour of j, where no other of that row has it; else in
   row j among that of i. seen: by colour, 0. */
static void choose_rows(const uint32_t *row, const uint32_t *col, uint32_t n_entries, const uint32_t *colour,
                        uint32_t *in, uint32_t *seen)
{
    for (uint32_t from = 0, to = 0; from < n_entries; from = to) {
        for (; to < n_entries && row[to] == row[from]; to++)
            seen[colour[col[to]]]++;
        for (uint32_t at = from; at < to; at++)
            in[at] = seen[colour[col[at]]] == 1 ? row[at] : col[at];
        for (uint32_t at = from; at < to; at++)
            seen[colour[col[at]]] = 0;
    }
}

int tg_hessian_colours(tg_nonzeros *s, const uint32_t *colour, uint32_t n_colours, const uint32_t *row,
                       const uint32_t *col, uint32_t n_entries, uint64_t budget, int dry)
{
    colouring c = {.s = s, .dry = dry};
    uint32_t *seen = tg_zeroed((n_colours + (size_t)1 + n_entries) * sizeof *seen);
    uint32_t *in = seen ? seen + n_colours : NULL;      /* by entry: the row that it is read in */
    s->budget = budget;
    if (seen) {
        choose_rows(row, col, n_entries, colour, in, seen);
        make(&c);
    } else
        s->code = TG_MEMORY;
    for (uint32_t k = 0; k < n_colours && !s->code; k++) {
        for (uint32_t j = 0; j < s->count; j++)
            if (colour[j] == k) {
                if (dry)
                    tg_mark_at(s, s->first + j);
                else
                    tg_add_at(s, s->first + j, tg_number(1.0));
            }
        forward(&c);
        back(&c);
        for (uint32_t at = 0; at < n_entries && !s->code && !dry; at++) {
            const uint32_t i = row[at], j = col[at], node = i < j ? 0 : c.result[in[at]];
            if (!node || colour[in[at] == i ? j : i] != k || tg_is_number(tg_held(s, node - 1), 0.0))
                continue;
            tg_entry(s, i, j, node - 1);
            if (i != j)
                tg_entry(s, j, i, node - 1);
        }
        clear(&c);
    }
    free(c.adj);
    free(seen);
    return s->code ? s->code : tg_order_entries(s);
}
