/*  Derivations: the program as a draft, the ways from a node to its operands, entries, and the program that they make.

    What passes along a way is a product with a partial of the table, made by its steps as in gradient.c. Where a node
    has an operand twice, as x * x does, that is one way with the sum of both partials. What is made cannot refuse.  */
#include "sparse/nonzeros.h"
#include "ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NODES 4u                /* that applying one row makes at most, with its constants; and words */

/* Whether there is room for what one row makes. */
static int room(tg_nonzeros *s)
{
    if (s->code)
        return 0;
    if (s->d.len + NODES > s->d.cap || s->d.pool_len + NODES > s->d.pool_cap)
        s->code = tg_draft_room(&s->d, NODES, NODES);
    return !s->code;
}

tg_scalar tg_held(const tg_nonzeros *s, uint32_t node)
{
    return tg_draft_is_constant(&s->d, node) ? tg_number(tg_draft_number(&s->d, node)) : tg_node(node);
}

uint32_t tg_holder(tg_nonzeros *s, tg_scalar x)
{
    return x.is_node ? x.id : room(s) ? tg_draft_constant(&s->d, x.k) : 0;
}

/* The product of numbers that stand in for one after the other: where it is as good as they are. */
static int as_good(double k) { return fabs(k) > 0x1p-500 && fabs(k) < 0x1p500; }

/* y = k * (m * x) as (k * m) * x, and y = (x + m) + k as x + (m + k); k is a number. Whether it was done, in *y. */
static int merged(tg_nonzeros *s, int op, tg_scalar *k, tg_scalar *x)
{
    const tg_draft_node n = s->d.node[x->id];
    uint32_t number, rest;
    double both;
    if (x->id < s->n || (int)n.op != op)
        return 0;
    number = tg_draft_is_constant(&s->d, n.a) ? n.a : n.b;
    rest = number == n.a ? n.b : n.a;
    if (!tg_draft_is_constant(&s->d, number))
        return 0;
    both = op == TG_MUL ? k->k * tg_draft_number(&s->d, number) : k->k + tg_draft_number(&s->d, number);
    if (!as_good(both) && (op != TG_ADD || both != 0.0))
        return 0;
    k->k = both;
    *x = tg_node(rest);
    return 1;
}

static tg_scalar apply(void *to, int op, tg_scalar a, tg_scalar b)
{
    tg_nonzeros *s = to;
    if (!a.is_node && !b.is_node)
        return tg_number(tg_primal(op, a.k, b.k));
    if (s->code)
        return tg_number(0.0);
    if (op == TG_NEG && a.id >= s->n && s->d.node[a.id].op == TG_MUL) {
        op = TG_MUL;
        b = tg_number(-1.0);
        if (!merged(s, op, &b, &a))
            op = TG_NEG, b = a;
    } else if ((op == TG_MUL || op == TG_ADD) && a.is_node != b.is_node)
        merged(s, op, a.is_node ? &b : &a, a.is_node ? &a : &b);
    if (op == TG_MUL && (tg_is_number(a, 1.0) || tg_is_number(b, 1.0)))
        return a.is_node ? a : b;
    if (op == TG_ADD && (tg_is_number(a, 0.0) || tg_is_number(b, 0.0)))
        return a.is_node ? a : b;
    if (!room(s))
        return tg_number(0.0);
    a.id = tg_holder(s, a);
    b.id = tg_holder(s, b);
    return tg_node(tg_draft_two(&s->d, op, a.id, b.id, 0.0, s->where));
}

static tg_scalar choose(void *to, tg_scalar c, tg_scalar a, tg_scalar b)
{
    tg_nonzeros *s = to;
    uint32_t ids[3];
    if (!room(s))
        return tg_number(0.0);
    if (a.is_node == b.is_node && (a.is_node ? a.id == b.id : !memcmp(&a.k, &b.k, sizeof a.k)))
        return a;
    ids[0] = c.id;
    ids[1] = tg_holder(s, a);
    ids[2] = tg_holder(s, b);
    return tg_node(tg_draft_many(&s->d, TG_WHERE, ids, 3, 0.0, s->where));
}

const tg_maker tg_nonzeros_maker = {apply, choose};

tg_scalar tg_sum_of(tg_nonzeros *s, tg_scalar a, tg_scalar b)
{
    if (tg_is_number(a, 0.0) || tg_is_number(b, 0.0))
        return a.is_node || a.k != 0.0 ? a : b;
    if (a.is_node && b.is_node && a.id == b.id)
        return apply(s, TG_MUL, tg_number(2.0), a);
    return apply(s, TG_ADD, a, b);
}

/* y = k * x of what was made; else 1 * y. */
static tg_scalar factor_of(const tg_nonzeros *s, tg_scalar y, double *k)
{
    const tg_draft_node n = s->d.node[y.id];
    const int of_a = y.id >= s->n && n.op == TG_MUL && tg_draft_is_constant(&s->d, n.a);
    const int of_b = y.id >= s->n && n.op == TG_MUL && tg_draft_is_constant(&s->d, n.b);
    *k = of_a ? tg_draft_number(&s->d, n.a) : of_b ? tg_draft_number(&s->d, n.b) : 1.0;
    return of_a ? tg_node(n.b) : of_b ? tg_node(n.a) : y;
}

/* (k * x) * (m * x) is (k * m * x) * x, as second derivatives of squares have it: where the first is 0, the other is no
   infinity that it would keep out. */
tg_scalar tg_product_of(tg_nonzeros *s, tg_scalar g, tg_scalar partial)
{
    double k, m;
    if (g.is_node && partial.is_node && !s->code) {
        const tg_scalar x = factor_of(s, g, &k);
        if (x.id == factor_of(s, partial, &m).id && as_good(k) && as_good(m) && as_good(k * m))
            return apply(s, TG_MUL, apply(s, TG_MUL, tg_number(k * m), x), x);
    }
    return tg_weighed(&tg_nonzeros_maker, s, g, partial);
}

/* ---- ways ---- */

static int op_of(const tg_nonzeros *s, uint32_t i) { return (int)s->d.node[i].op; }

/* A partial of a row of one or two operands. */
static tg_scalar few(tg_nonzeros *s, uint32_t i, int which)
{
    const tg_draft_node n = s->d.node[i];
    const tg_scalar named[] = {tg_held(s, n.a), tg_held(s, n.b), tg_node(i)};
    return tg_follow(&tg_nonzeros_maker, s, (int)n.op, which, named);
}

/* Whether operand k of a dot of n is one of a pair. */
static int paired(uint32_t k, uint32_t n) { return k < n / 2 * 2; }

int tg_port_of(tg_nonzeros *s, uint32_t i, uint32_t k, tg_port *to)
{
    const tg_draft_node n = s->d.node[i];
    const int op = (int)n.op;
    s->where = n.where;
    to->k = k;
    to->partial = tg_number(1.0);
    if (!tg_is_many(op)) {
        to->id = k ? n.b : n.a;
        if (n.a == n.b && !tg_is_unary(op)) {           /* one way for both */
            to->partial = tg_sum_of(s, few(s, i, TG_DA), few(s, i, TG_DB));
            return !k && s->moves[to->id] && !tg_is_number(to->partial, 0.0);
        }
        if (!s->moves[to->id] || (k && (tg_is_unary(op) || tg_is_passive(op))))
            return 0;
        to->partial = few(s, i, k ? TG_DB : TG_DA);
        return !tg_is_number(to->partial, 0.0);
    }
    to->id = s->d.pool[n.a + k];
    if (!s->moves[to->id] || op == TG_TOP || (op == TG_WHERE && k == 0))
        return 0;
    if (op == TG_DOT && paired(k, n.b)) {
        const uint32_t other = s->d.pool[n.a + (k ^ 1)];
        to->partial = tg_held(s, other);
        if (other == to->id) {
            to->partial = apply(s, TG_MUL, tg_number(2.0), tg_node(other));
            return k % 2 == 0;
        }
    } else if (op == TG_LOGSUMEXP) {
        const tg_scalar named[] = {tg_held(s, to->id), tg_held(s, to->id), tg_node(i)};
        to->partial = tg_follow(&tg_nonzeros_maker, s, op, TG_DA, named);
    }
    return !tg_is_number(to->partial, 0.0);
}

uint32_t tg_ports(tg_nonzeros *s, uint32_t i)
{
    const uint32_t n = tg_is_many(op_of(s, i)) ? s->d.node[i].b : 2;
    uint32_t count = 0;
    for (uint32_t k = 0; k < n; k++)
        count += (uint32_t)tg_port_of(s, i, k, s->port + count);
    return count;
}

tg_scalar tg_passed(tg_nonzeros *s, uint32_t i, const tg_port *p, tg_scalar g)
{
    if (op_of(s, i) == TG_WHERE) {
        const tg_scalar c = tg_node(s->d.pool[s->d.node[i].a]), zero = tg_number(0.0);
        return p->k == 1 ? choose(s, c, g, zero) : choose(s, c, zero, g);
    }
    return tg_product_of(s, g, p->partial);
}

tg_scalar tg_bent(tg_nonzeros *s, uint32_t i, const tg_port *p, const tg_port *q)
{
    const tg_draft_node n = s->d.node[i];
    const int op = (int)n.op;
    s->where = n.where;
    if (op == TG_LOGSUMEXP) {
        const tg_scalar rest = p == q ? apply(s, TG_SUB, tg_number(1.0), q->partial)
                                    : apply(s, TG_NEG, q->partial, q->partial);
        return tg_product_of(s, p->partial, rest);
    }
    if (op == TG_DOT)
        return p != q ? tg_number(paired(p->k, n.b) && q->k == (p->k ^ 1))
                      : tg_number(paired(p->k, n.b) && s->d.pool[n.a + (p->k ^ 1)] == p->id ? 2.0 : 0.0);
    if (tg_is_many(op))
        return tg_number(0.0);
    if (n.a == n.b && !tg_is_unary(op)) {
        const tg_scalar mixed = few(s, i, TG_DAB);
        return tg_sum_of(s, tg_sum_of(s, few(s, i, TG_DAA), few(s, i, TG_DBB)), tg_sum_of(s, mixed, mixed));
    }
    return few(s, i, p->k != q->k ? TG_DAB : p->k ? TG_DBB : TG_DAA);
}

uint32_t tg_bent_end(const tg_nonzeros *s, uint32_t i, uint32_t q, uint32_t n)
{
    const int op = op_of(s, i);
    if (!tg_is_many(op) || op == TG_LOGSUMEXP)
        return n;
    return op != TG_DOT ? q : q + 2 < n ? q + 2 : n;
}

void tg_add_at(tg_nonzeros *s, uint32_t node, tg_scalar g)
{
    if (tg_is_number(g, 0.0) || s->code)
        return;
    if (s->adj[node])
        g = tg_sum_of(s, tg_held(s, s->adj[node] - 1), g);
    s->adj[node] = tg_holder(s, g) + 1;
    tg_agenda_add(&s->agenda, node);
}

void tg_mark_at(tg_nonzeros *s, uint32_t node)
{
    if (!s->adj[node])
        tg_add_at(s, node, tg_number(1.0));
}

int tg_uses(tg_nonzeros *s)
{
    uint32_t pair[2];
    const uint32_t *ids;
    if (s->use_start)
        return TG_OK;
    s->use_start = tg_zeroed((s->n + (size_t)2) * sizeof *s->use_start);
    s->use_node = tg_realloc(NULL, (size_t)s->links * sizeof *s->use_node + 1);
    s->use_k = tg_realloc(NULL, (size_t)s->links * sizeof *s->use_k + 1);
    if (!s->use_start || !s->use_node || !s->use_k)
        return TG_MEMORY;
    for (int fill = 0; fill < 2; fill++) {
        for (uint32_t i = s->n_in; i < s->n; i++) {
            const uint32_t n = s->moves[i] ? tg_draft_operands(&s->d, s->d.node + i, &ids, pair) : 0;
            for (uint32_t k = 0; k < n; k++)
                if (s->moves[ids[k]]) {
                    uint32_t *at = s->use_start + ids[k] + 1;
                    if (fill) {
                        s->use_node[*at] = i;
                        s->use_k[*at] = k;
                    }
                    ++*at;
                }
        }
        if (!fill) {                                    /* ends become starts, one further on */
            uint32_t sum = 0;
            for (uint32_t i = 0; i <= s->n; i++) {
                const uint32_t count = s->use_start[i + 1];
                s->use_start[i + 1] = sum;
                sum += count;
            }
        }
    }
    return TG_OK;
}

/* ---- entries ---- */

void tg_entry(tg_nonzeros *s, uint32_t row, uint32_t col, uint32_t node)
{
    if (s->len == s->cap) {
        const uint32_t cap = s->cap ? 2 * s->cap : 1024;
        uint32_t *grown = cap < TG_NONE / 2 ? tg_realloc(s->row, 3 * (size_t)cap * sizeof *grown) : NULL;
        if (!grown) {
            s->code = s->code ? s->code : cap < TG_NONE / 2 ? TG_MEMORY : TG_FULL;
            return;
        }
        memmove(grown + 2 * (size_t)cap, grown + 2 * (size_t)s->cap, s->len * sizeof *grown);
        memmove(grown + cap, grown + s->cap, s->len * sizeof *grown);
        s->row = grown;
        s->col = grown + cap;
        s->node = grown + 2 * (size_t)cap;
        s->cap = cap;
    }
    s->row[s->len] = row;
    s->col[s->len] = col;
    s->node[s->len++] = node;
}

/* A stable counting sort of from into to by key, which is less than n. */
static void by(const uint32_t *key, uint32_t n, uint32_t len, uint32_t *const from[3], uint32_t *const to[3],
               uint32_t *start)
{
    memset(start, 0, (n + (size_t)1) * sizeof *start);
    for (uint32_t k = 0; k < len; k++)
        start[key[k] + 1]++;
    for (uint32_t k = 0; k < n; k++)
        start[k + 1] += start[k];
    for (uint32_t k = 0; k < len; k++) {
        const uint32_t at = start[key[k]]++;
        for (int m = 0; m < 3; m++)
            to[m][at] = from[m][k];
    }
}

int tg_order_entries(tg_nonzeros *s)
{
    const uint32_t rows = s->n_out > s->count ? s->n_out : s->count;
    uint32_t *memory = tg_realloc(NULL, (3 * (size_t)s->len + rows + 1) * sizeof *memory);
    uint32_t *const one[] = {s->row, s->col, s->node}, *two[3];
    if (!memory)
        return TG_MEMORY;
    for (int m = 0; m < 3; m++)
        two[m] = memory + rows + 1 + m * (size_t)s->len;
    by(s->col, s->count, s->len, one, two, memory);
    by(two[0], rows, s->len, two, one, memory);
    free(memory);
    return TG_OK;
}

uint64_t tg_nonzeros_work(const tg_nonzeros *s) { return s->work; }
uint64_t tg_nonzeros_links(const tg_nonzeros *s) { return s->links; }
uint32_t tg_nonzeros_count(const tg_nonzeros *s) { return s->len; }

void tg_nonzeros_pattern(const tg_nonzeros *s, uint32_t *row, uint32_t *col)
{
    if (s->len) {
        memcpy(row, s->row, s->len * sizeof *row);
        memcpy(col, s->col, s->len * sizeof *col);
    }
}

/* ---- from program to program ---- */

/* An operation on numbers alone, as only a file may have it: its value is not known here. */
static uint32_t unfolded(tg_draft *d, int op, uint32_t a, uint32_t b, uint32_t where)
{
    return tg_draft_add(d, (tg_draft_node){.op = (uint8_t)op, .a = a, .b = b, .where = where, .quiet = d->quiet}, 0.0);
}

/* A row of one or two operands. What can stop a replay stays an instruction of its own, whatever it equals: paths go on
   from there, see Derived in Python. */
static uint32_t redrafted(tg_draft *d, int op, uint32_t a, uint32_t b, int quiet, uint32_t where)
{
    const uint32_t before = d->len, known = tg_draft_is_constant(d, a) && tg_draft_is_constant(d, b);
    uint32_t i;
    d->quiet = 1;                                       /* an equal one stays what it was */
    i = known ? unfolded(d, op, a, b, where) : tg_draft_two(d, op, a, b, 0.0, where);
    if (i < before && !quiet && tg_can_refuse(op))
        i = unfolded(d, op, a, b, where);
    d->node[i].quiet &= (uint8_t)quiet;
    return i;
}

/* The program as nodes: inputs, weights, constants, instructions. */
static int draft_up(tg_nonzeros *s, const tg_program *p, uint32_t weights_at, uint32_t *of)
{
    tg_draft *d = &s->d;
    uint32_t widest = 2;
    tg_window at_hand;
    tg_open_window(&at_hand, p);
    for (uint32_t k = 0; k < p->n_in; k++)
        of[p->n_const + k] = tg_draft_add(d, (tg_draft_node){.op = TG_INPUT,
                                                             .a = k < weights_at ? k : k + s->n_weights}, 0.0);
    for (uint32_t k = 0; k < s->n_weights; k++)
        s->weight[k] = tg_draft_add(d, (tg_draft_node){.op = TG_INPUT, .a = weights_at + k}, 0.0);
    s->n_in = d->len;
    for (uint32_t k = 0; k < p->n_const; k++)
        of[k] = tg_draft_constant(d, p->constant[k]);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *c = tg_at(&at_hand, k);
        const int op = tg_row(c), quiet = (c->op & TG_QUIET) != 0;
        if (op == TG_GUARD)
            tg_draft_guard(d, of[c->a], of[c->b], c->where, c->y, c->live_y);
        else if (tg_is_many(op)) {
            const uint32_t start = d->pool_len, before = d->len;
            int moving = 0;
            for (uint32_t m = 0; m < c->b; m++) {
                d->pool[d->pool_len++] = of[p->pool[2 * (size_t)(c->a + m)]];
                moving |= !tg_draft_is_constant(d, d->pool[d->pool_len - 1]);
            }
            widest = c->b > widest ? c->b : widest;
            d->quiet = 1;
            of[c->y] = moving ? tg_draft_pooled(d, op, c->b, 0.0, c->where) : unfolded(d, op, start, c->b, c->where);
            if (of[c->y] < before && !quiet && tg_can_refuse(op)) {     /* as redrafted has it */
                d->pool_len = start + c->b;
                of[c->y] = unfolded(d, op, start, c->b, c->where);
            }
            d->node[of[c->y]].quiet &= (uint8_t)quiet;
        } else
            of[c->y] = redrafted(d, op, of[c->a], of[c->b], quiet, c->where);
    }
    for (uint32_t k = 0; k < p->n_out; k++)
        s->out[k] = of[p->out[2 * (size_t)k]];
    d->quiet = 1;
    s->n = d->len;
    s->port = tg_realloc(NULL, widest * sizeof *s->port);
    return s->port ? TG_OK : TG_MEMORY;
}

/* Which nodes move with the inputs, and how many ways there are. */
static int mark(tg_nonzeros *s)
{
    s->moves = tg_zeroed((size_t)s->n + 1);
    s->adj = tg_zeroed((s->n + (size_t)1) * sizeof *s->adj);
    if (!s->moves || !s->adj)
        return TG_MEMORY;
    memset(s->moves + s->first, 1, s->count);
    for (uint32_t i = s->n_in; i < s->n; i++) {
        const uint32_t *ids;
        uint32_t pair[2], n = tg_draft_operands(&s->d, s->d.node + i, &ids, pair), moving = 0;
        if (s->d.node[i].op == TG_GUARD)
            continue;
        for (uint32_t k = 0; k < n; k++)
            moving += s->moves[ids[k]];
        s->moves[i] = moving != 0;
        s->links += moving;
    }
    return s->links < TG_NONE ? TG_OK : TG_FULL;
}

tg_nonzeros *tg_open_nonzeros(const tg_program *p, uint32_t first, uint32_t count, uint32_t n_weights,
                              uint32_t weights_at, int64_t *code)
{
    tg_nonzeros *s;
    tg_program *plain = NULL;
    uint32_t *of;
    *code = TG_BAD_ID;
    if (first > p->n_in || count > p->n_in - first || weights_at > p->n_in || (n_weights && n_weights != p->n_out))
        return NULL;
    *code = TG_MEMORY;
    if (p->order) {
        p = plain = tg_plain_program(p);
        if (!plain)
            return NULL;
    }
    s = tg_zeroed(sizeof *s);
    of = tg_realloc(NULL, (p->n_kept + (size_t)1) * sizeof *of);
    if (s && of) {
        s->first = first;
        s->count = count;
        s->n_out = p->n_out;
        s->n_weights = n_weights;
        s->budget = UINT64_MAX;
        s->out = tg_realloc(NULL, p->n_out * sizeof *s->out + 1);
        s->weight = tg_realloc(NULL, n_weights * sizeof *s->weight + 1);
        if (s->out && s->weight)
            *code = tg_draft_room(&s->d, 16 + (uint64_t)p->n_in + n_weights + p->n_const + 4 * (uint64_t)p->n_instr,
                                  p->n_pool + (uint64_t)16);
        if (!*code)
            *code = draft_up(s, p, weights_at, of);
        if (!*code)
            *code = mark(s);
        if (!*code)
            *code = tg_agenda_make(&s->agenda, s->n);
    }
    free(of);
    tg_free_program(plain);
    if (!*code)
        return s;
    tg_close_nonzeros(s);
    return NULL;
}

void tg_close_nonzeros(tg_nonzeros *s)
{
    if (!s)
        return;
    tg_free_draft(&s->d);
    free(s->out);
    free(s->weight);
    free(s->moves);
    free(s->adj);
    free(s->agenda.memory);
    free(s->port);
    free(s->use_start);
    free(s->use_node);
    free(s->use_k);
    free(s->row);
    free(s);
}

tg_program *tg_nonzeros_program(tg_nonzeros *s, const uint32_t *row, const uint32_t *col, uint32_t n, int64_t *code)
{
    uint32_t *out = tg_realloc(NULL, n * sizeof *out + 1), at = 0;
    tg_program *p;
    *code = out ? tg_draft_room(&s->d, 1, 0) : TG_MEMORY;
    for (uint32_t k = 0; k < n && !*code; k++) {
        const int here = at < s->len && s->row[at] == row[k] && s->col[at] == col[k];
        out[k] = here ? s->node[at] : tg_draft_constant(&s->d, 0.0);
        at += (uint32_t)here;
    }
    if (!*code && at < s->len)
        *code = TG_BAD_ID;
    p = *code ? NULL : tg_finish_draft(&s->d, out, n);
    if (!*code && !p)
        *code = TG_MEMORY;
    if (p)
        p->recorded = p->reached = s->d.len + s->d.shared + s->d.folded;
    free(out);
    return p;
}
