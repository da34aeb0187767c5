/*  Freezing: from a piece of the tape to a program.

    A draft is filled in the order of the tape, which folds constants and shares common subexpressions as it goes; then
    what nobody uses is dropped, sums of products become dots, and slots are given out. No pass changes a bit of any
    value: the losses are taken apart into the very operations that their primals are made of, and a dot adds its
    products in the order in which they were added.  */
#include "program.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT = TG_GUARD + 1, GONE };

typedef struct {
    uint8_t op;                 /* a constant is a TG_LEAF whose operands are the halves of its number */
    uint8_t is_out, retained, quiet;
    uint32_t a, b, where;
    union {
        uint32_t uses;          /* until sums are fused */
        uint32_t last;          /* then the instruction that uses it last; its own where there is none */
    };
    uint32_t kept, live;        /* slots of the result; of a guard what tg_instr has in y and live_y */
} node;                         /* a pass over the draft takes as long as its bytes */

typedef struct {
    node *node;
    double *value;              /* NULL: there are no losses to take apart, which alone ask for it */
    uint32_t *pool, *table;     /* table: (op, operands) to node + 1 */
    uint32_t len, pool_len, table_len;
    uint32_t folded, shared, fused, captured, foreign;
    uint8_t named[TG_OPS];      /* see tg_names */
    uint8_t quiet;              /* what comes is of a recorded sweep */
} draft;

/* ---- the draft ---- */

static uint32_t hash(const draft *d, int op, uint32_t a, uint32_t b)
{
    uint64_t h = (uint64_t)op;
    if (tg_is_many(op))
        for (uint32_t k = 0; k < b; k++)
            h = (h ^ d->pool[a + k]) * 0x9E3779B97F4A7C15u;
    else
        h = ((h ^ a) * 0x9E3779B97F4A7C15u ^ b) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static inline int same(const draft *d, uint32_t i, int op, uint32_t a, uint32_t b)
{
    const node *n = d->node + i;
    if (n->op != op)
        return 0;
    if (tg_is_many(op))
        return n->b == b && !memcmp(d->pool + n->a, d->pool + a, b * sizeof *d->pool);
    return n->a == a && n->b == b;
}

/*  Where the node (op, a, b) is in the table, or would be. Most operations are of what was made just now: their place
    is near that of the later operand, so that the table is walked as the tape is and stays in the cache. Where that is
    full, for many are made of one operand, and for what has no such operand, it is anywhere.  */
enum { SPREAD = 1024, NEAR = 8 };

static inline uint32_t *find(const draft *d, int op, uint32_t a, uint32_t b)
{
    uint32_t h = hash(d, op, a, b), *at;
    if (op != TG_LEAF && !tg_is_many(op)) {
        at = d->table + 2 * (size_t)(a > b ? a : b) + h % SPREAD;
        for (int k = 0; k < NEAR; k++, at++)
            if (!*at || same(d, *at - 1, op, a, b))
                return at;
    }
    for (;; h = h * 0x9E3779B1u + 1) {                  /* which takes every value in turn */
        at = d->table + ((uint64_t)h * d->table_len >> 32);
        if (!*at || same(d, *at - 1, op, a, b))
            return at;
    }
}

/* The node (op, a, b), an old one where there is its equal. */
static uint32_t intern(draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    uint32_t *at = find(d, op, a, b);
    if (*at) {
        d->shared += op != TG_LEAF;
        d->node[*at - 1].quiet &= d->quiet;
        return *at - 1;
    }
    d->node[d->len] = (node){.op = (uint8_t)op, .a = a, .b = b, .where = where, .quiet = d->quiet};
    if (d->value)
        d->value[d->len] = value;
    *at = ++d->len;
    return d->len - 1;
}

static uint32_t constant(draft *d, double value)
{
    uint32_t half[2];
    memcpy(half, &value, sizeof half);
    return intern(d, TG_LEAF, half[0], half[1], value, 0);
}

static int is_constant(const draft *d, uint32_t i) { return d->node[i].op == TG_LEAF; }

static double number_of(const node *n)
{
    const uint32_t half[2] = {n->a, n->b};
    double value;
    memcpy(&value, half, sizeof value);
    return value;
}

/* y = op(a, b), whose value is known. */
static uint32_t two(draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    if (is_constant(d, a) && is_constant(d, b)) {
        d->folded++;
        return constant(d, value);
    }
    if ((op == TG_ADD || op == TG_MUL) && a > b) {
        uint32_t c = a;
        a = b;
        b = c;
    }
    return intern(d, op, a, b, value, where);
}

static uint32_t compute(draft *d, int op, uint32_t a, uint32_t b, uint32_t where)
{
    return two(d, op, a, b, tg_primal(op, d->value[a], d->value[b]), where);
}

/* y = op of the last n entries of the pool, which are taken back where it is nothing new. */
static uint32_t many(draft *d, int op, uint32_t n, double value, uint32_t where)
{
    uint32_t start = d->pool_len - n, before = d->len, i;
    int all = 1;
    for (uint32_t k = 0; k < n; k++)
        all &= is_constant(d, d->pool[start + k]);
    d->folded += (uint32_t)all;
    i = all ? constant(d, value) : intern(d, op, start, n, value, where);
    if (all || d->len == before)
        d->pool_len = start;
    return i;
}

static uint32_t many_ids(draft *d, int op, const uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    memcpy(d->pool + d->pool_len, ids, n * sizeof *ids);
    d->pool_len += n;
    return many(d, op, n, value, where);
}

/* ids holds node numbers: xs, then ys, then a bias where n is odd; to pairs. */
static uint32_t dot_of(draft *d, const uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    uint32_t half = n / 2;
    for (uint32_t k = 0; k < half; k++) {
        d->pool[d->pool_len++] = ids[k];
        d->pool[d->pool_len++] = ids[half + k];
    }
    if (n % 2)
        d->pool[d->pool_len++] = ids[n - 1];
    return many(d, TG_DOT, n, value, where);
}

/* The many-operand node of these node numbers, losses taken apart; ids may be overwritten. */
static uint32_t many_of(draft *d, int op, uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    uint32_t half = n / 2, y, top;
    switch (op) {
    case TG_DOT: return dot_of(d, ids, n, value, where);
    case TG_WHERE:
        if (is_constant(d, ids[0])) {
            d->folded++;
            return ids[number_of(d->node + ids[0]) != 0.0 ? 1 : 2];
        }
        return many_ids(d, op, ids, n, value, where);
    case TG_CROSS_ENTROPY:
        top = many_ids(d, TG_TOP, ids, n - 1, tg_top(d->value, ids, n - 1), where);
        for (uint32_t k = 0; k < n; k++)
            ids[k] = compute(d, TG_SUB, ids[k], top, where);
        y = many_ids(d, TG_LOGSUMEXP, ids, n - 1, tg_logsumexp(d->value, ids, n - 1), where);
        return two(d, TG_SUB, y, ids[n - 1], value, where);
    case TG_MSE:
        for (uint32_t k = 0; k < half; k++)
            ids[k] = ids[half + k] = compute(d, TG_SUB, ids[k], ids[half + k], where);
        y = dot_of(d, ids, n, tg_dot(d->value, ids, n), where);
        return two(d, TG_DIV, y, constant(d, half), value, where);
    case TG_HINGE:
        for (uint32_t k = 0; k < half; k++) {
            uint32_t product = compute(d, TG_MUL, ids[half + k], ids[k], where);
            uint32_t margin = compute(d, TG_SUB, constant(d, 1.0), product, where);
            ids[k] = compute(d, TG_RELU, margin, margin, where);
        }
        y = many_ids(d, TG_SUM, ids, half, tg_sum(d->value, ids, half), where);
        return two(d, TG_DIV, y, constant(d, half), value, where);
    default: return many_ids(d, op, ids, n, value, where);
    }
}

/* ---- from the tape ---- */

enum { NEEDED = 1, IS_INPUT = 2 };

typedef struct {
    uint32_t first;             /* the lowest id that is needed */
    uint32_t top;               /* above the highest */
    uint8_t *needed;            /* of id */
    uint32_t *number;           /* of id - first: its node, where it is needed and has one */
    uint64_t nodes, words;      /* most that the draft can need */
    uint32_t widest, reached;
    int losses;
} reach;

/* What was there before the start is a constant, if it is no input. */
static int reach_down(const tg_tape *t, const tg_recording *rec, reach *r)
{
    uint8_t *needed = tg_zeroed((size_t)t->len + 1), refusing[TG_OPCODE + 1] = {0};
    int code = TG_OK;
    if (!needed)
        return TG_MEMORY;
    r->needed = needed;
    r->first = t->len;
    for (uint32_t k = 0; k < rec->n_in; k++)
        needed[rec->in[k]] = IS_INPUT;
#define NEED(id)                                                                                                       \
    do {                                                                                                               \
        needed[id] |= NEEDED;                                                                                          \
        r->top = (id) >= r->top ? (id) + 1 : r->top;                                                                   \
    } while (0)
    for (uint32_t k = 0; k < rec->n_out; k++) {
        if (rec->out[k] < rec->start && !(needed[rec->out[k]] & IS_INPUT))
            code = TG_ELSEWHERE;
        NEED(rec->out[k]);
    }
    for (uint32_t k = 0; k < rec->n_compared; k++) {
        if (rec->compared[k].a != TG_NONE)
            NEED(rec->compared[k].a);
        if (rec->compared[k].b != TG_NONE)
            NEED(rec->compared[k].b);
    }
    for (int op = 0; op < TG_OPS; op++)
        refusing[op] = (uint8_t)tg_can_refuse(op);
    for (uint32_t k = 0; k <= rec->n_events; k++) {     /* from event to event, and before the first */
        const tg_event *from = k ? rec->event + k - 1 : NULL;
        uint32_t i = from && from->id > rec->start ? from->id : rec->start;
        uint32_t end = k < rec->n_events ? rec->event[k].id : t->len;
        if (from && (from->quiet || from->where == TG_FOREIGN))
            continue;
        for (; i < end; i++)
            if (refusing[t->op[i] & TG_OPCODE])
                NEED(i);
    }
    for (uint32_t i = r->top; !code && i-- > 0;) {
        uint32_t n, *ids;
        int op = t->op[i] & TG_OPCODE;
        if (!(needed[i] & NEEDED))
            continue;
        r->first = i;
        r->reached++;
        r->nodes++;
        if ((needed[i] & IS_INPUT) || i < rec->start || op == TG_LEAF || op == TG_NODE)
            continue;
        if (!tg_is_many(op)) {                          /* an exponent is no operand to differentiate, but read */
            needed[t->a[i]] |= NEEDED;
            needed[t->b[i]] |= NEEDED;
            continue;
        }
        ids = tg_recorded(t, i, NULL, &n);
        for (uint32_t k = 0; k < n; k++)
            needed[ids[k]] |= NEEDED;
        r->words += n + (uint64_t)1;
        r->nodes += 2 * (uint64_t)n + 4;                /* a loss taken apart */
        r->widest = n > r->widest ? n : r->widest;
        r->losses |= op == TG_CROSS_ENTROPY || op == TG_MSE || op == TG_HINGE;
    }
#undef NEED
    r->nodes += rec->n_in + (uint64_t)rec->n_compared * 2;
    if (!code && !(r->number = tg_realloc(NULL, (size_t)(r->top - r->first + 1) * sizeof *r->number)))
        code = TG_MEMORY;
    return !code && (r->nodes >= TG_NONE / 4 || r->words >= TG_NONE / 4) ? TG_FULL : code;
}

static uint32_t numbered(const reach *r, uint32_t id) { return r->number[id - r->first]; }

static void draft_up(const tg_tape *t, const tg_recording *rec, reach *r, draft *d, uint32_t *ids)
{
    const tg_event *event = rec->event, *const events_end = rec->n_events ? event + rec->n_events : event;
    uint32_t next = 0, position = 0, where = 0, foreign = 0;
    for (uint32_t k = 0; k < rec->n_in; k++) {          /* inputs first: nodes 0 to n_in - 1 */
        d->node[d->len] = (node){.op = INPUT, .a = k};
        if (d->value)
            d->value[d->len] = t->data[rec->in[k]];
        d->len++;
        if (rec->in[k] >= r->first && rec->in[k] < r->top)
            r->number[rec->in[k] - r->first] = k;
    }
    for (uint32_t i = r->first; i <= r->top; i++) {
        uint32_t a, b;
        int op;
        for (; next < rec->n_compared; next++) {        /* as soon as their operands are there, and in order */
            const tg_comparison *c = rec->compared + next;
            uint32_t after = c->a == TG_NONE || (c->b != TG_NONE && c->b > c->a) ? c->b : c->a;
            position = after + 1 > position ? after + 1 : position;
            if (position > i)
                break;
            a = c->a == TG_NONE ? constant(d, c->k) : numbered(r, c->a);
            b = c->b == TG_NONE ? constant(d, c->k) : numbered(r, c->b);
            if (!is_constant(d, a) || !is_constant(d, b))
                d->node[d->len++] = (node){.op = TG_GUARD, .a = a, .b = b, .where = c->where,
                                           .kept = c->how << 1 | c->outcome, .live = next};
        }
        if (i == r->top || r->needed[i] != NEEDED)
            continue;
        for (; event < events_end && event->id <= i; event++) {
            foreign = event->where == TG_FOREIGN;
            where = foreign ? 0 : event->where;
            d->quiet = event->quiet != 0;
        }
        op = t->op[i] & TG_OPCODE;
        d->captured += i < rec->start && i >= rec->outer;
        d->foreign += foreign && i >= rec->start && op != TG_LEAF;
        if (i < rec->start || op == TG_LEAF || op == TG_NODE)
            a = constant(d, t->data[i]);
        else if (op == TG_COPY)
            a = numbered(r, t->a[i]);
        else if (tg_is_many(op)) {
            uint32_t n = tg_operands(t, i, ids, r->widest);
            for (uint32_t k = 0; k < n; k++)
                ids[k] = numbered(r, ids[k]);
            a = many_of(d, op, ids, n, t->data[i], where);
        } else
            a = two(d, op, numbered(r, t->a[i]), numbered(r, t->b[i]), t->data[i], where);
        r->number[i - r->first] = a;
    }
}

/* ---- passes over the draft ---- */

/* The operands of a node of the draft: how many, and where they are; pair is room for two. */
static inline uint32_t operands_of(const draft *d, const node *n, const uint32_t **ids, uint32_t *pair)
{
    *ids = pair;
    if (n->op == TG_LEAF || n->op >= INPUT)             /* or GONE */
        return 0;
    if (!tg_is_many(n->op)) {
        pair[0] = n->a;
        pair[1] = n->b;
        return n->a == n->b && n->op != TG_GUARD ? 1 : 2;
    }
    *ids = d->pool + n->a;
    return n->b;
}

/* Whether f could have seen this node refused: what is divided by a number that is not 0 cannot be. */
static int can_refuse(const draft *d, const node *n)
{
    return n->op < TG_OPS && tg_can_refuse(n->op) && !n->quiet &&
           !(n->op == TG_DIV && is_constant(d, n->b) && number_of(d->node + n->b) != 0.0);
}

/* Count uses; what nobody uses goes, if it refuses nothing. */
static void drop_unused(draft *d)
{
    for (uint32_t i = d->len; i-- > 0;) {
        node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m;
        if (!n->uses && !n->is_out && n->op != TG_GUARD && n->op != INPUT && !can_refuse(d, n)) {
            n->op = GONE;
            continue;
        }
        m = operands_of(d, n, &ids, pair);
        for (uint32_t k = 0; k < m; k++)
            d->node[ids[k]].uses++;
    }
}

/* The product that this sum can take in: the operand of an addition that is used here alone; TG_NONE without. */
static uint32_t product_of(const draft *d, uint32_t i)
{
    const node *n = d->node + i;
    const uint32_t side[] = {n->b, n->a};
    if (n->op != TG_ADD || n->a == n->b)
        return TG_NONE;
    for (int k = 0; k < 2; k++) {
        const node *m = d->node + side[k];
        if (m->op == TG_MUL && m->uses == 1 && !m->is_out)
            return side[k];
    }
    return TG_NONE;
}

/* ((bias + x0 * w0) + x1 * w1) + .. becomes a dot. pool has room for it behind what it holds. */
static void fuse(draft *d)
{
    for (uint32_t i = d->len; i-- > 0;) {
        uint32_t start = d->pool_len, rest = i, product;
        while ((product = product_of(d, rest)) != TG_NONE) {
            node *sum = d->node + rest, *m = d->node + product;
            uint32_t below = sum->a == product ? sum->b : sum->a;
            d->pool[d->pool_len++] = m->b;              /* backwards, turned round below */
            d->pool[d->pool_len++] = m->a;
            d->fused += rest == i ? 1 : 2;
            m->op = GONE;
            if (rest != i)
                sum->op = GONE;
            rest = below;
            if (d->node[rest].op != TG_ADD || d->node[rest].uses != 1 || d->node[rest].is_out)
                break;
        }
        if (d->pool_len == start)
            continue;
        for (uint32_t low = start, high = d->pool_len - 1; low < high; low++, high--) {
            uint32_t id = d->pool[low];
            d->pool[low] = d->pool[high];
            d->pool[high] = id;
        }
        d->pool[d->pool_len++] = rest;
        d->node[i] = (node){.op = TG_DOT, .a = start, .b = d->pool_len - start, .where = d->node[i].where,
                            .uses = d->node[i].uses, .is_out = d->node[i].is_out};
    }
}

typedef struct {
    uint32_t *free, n_free, n;
} slots;

static uint32_t take(slots *s) { return s->n_free ? s->free[--s->n_free] : s->n++; }

static int fixed(const node *n) { return n->op == TG_LEAF || n->op == INPUT; }

/* Count what there is, note last uses and what has to be kept. */
static void survey(draft *d, tg_program *size)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < d->len; i++) {
        node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m = operands_of(d, n, &ids, pair);
        int named;
        if (n->op == GONE)
            continue;
        if (n->op == TG_LEAF)
            n->kept = n->live = size->n_const++;
        size->n_in += n->op == INPUT;
        size->n_guards += n->op == TG_GUARD;
        if (fixed(n))
            continue;
        named = n->op == TG_GUARD ? 0 : d->named[n->op] ? d->named[n->op] : tg_names(n->op, d->named);
        if (tg_is_many(n->op)) {
            size->n_pool += m;
            named |= named & TG_NAMES_A ? TG_NAMES_B : 0;
        }
        for (uint32_t k = 0; k < m; k++) {
            d->node[ids[k]].last = at;
            if (!tg_is_many(n->op) || tg_names_operand(n->op, k, m))
                d->node[ids[k]].retained |= (named & (k == 0 ? TG_NAMES_A : TG_NAMES_B)) != 0;
        }
        if (m == 1 && named & TG_NAMES_B)
            d->node[ids[0]].retained = 1;
        n->retained |= (named & TG_NAMES_Y) != 0 || n->is_out;
        n->last = at++;
    }
    size->n_instr = at;
}

static void release(draft *d, uint32_t i, uint32_t at, slots *kept, slots *live)
{
    node *n = d->node + i;
    if (fixed(n) || n->last != at || n->is_out)
        return;
    n->last = TG_NONE;                                  /* once */
    live->free[live->n_free++] = n->live;
    if (!n->retained)
        kept->free[kept->n_free++] = n->kept;
}

static void emit(draft *d, tg_program *p, slots *kept, slots *live)
{
    uint32_t at = 0, n_pool = 0;
    for (uint32_t k = 0; k < p->n_in; k++)              /* inputs are the first nodes */
        d->node[k].kept = d->node[k].live = p->n_const + k;
    kept->n = live->n = p->n_const + p->n_in;
    for (uint32_t i = 0; i < d->len; i++) {
        node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m = operands_of(d, n, &ids, pair);
        tg_instr *s = p->instr + at;
        if (n->op == TG_LEAF)
            p->constant[n->kept] = number_of(n);
        if (n->op == GONE || fixed(n))
            continue;
        s->op = n->op | (n->quiet && tg_can_refuse(n->op) ? TG_QUIET : 0);
        s->where = n->where;
        if (n->op != TG_GUARD) {
            n->kept = n->retained ? kept->n++ : take(kept);
            n->live = take(live);
        }
        s->y = n->kept;
        s->live_y = n->live;
        if (!tg_is_many(n->op)) {
            s->a = d->node[n->a].kept;
            s->b = d->node[n->b].kept;
            s->live_a = d->node[n->a].live;
            s->live_b = d->node[n->b].live;
        } else {
            s->a = n_pool;
            s->b = m;
            for (uint32_t k = 0; k < m; k++, n_pool++) {
                p->pool[2 * n_pool] = d->node[ids[k]].kept;
                p->pool[2 * n_pool + 1] = d->node[ids[k]].live;
            }
        }
        for (uint32_t k = 0; k < m; k++)
            release(d, ids[k], at, kept, live);
        if (n->op != TG_GUARD)                          /* who has it, if anybody, comes later */
            release(d, i, at, kept, live);
        at++;
    }
    p->n_kept = kept->n;
    p->n_live = live->n;
}

static tg_program *finish(draft *d, const tg_recording *rec, const reach *r)
{
    tg_program size = {0}, *p;
    slots kept = {.free = d->table}, live = {.free = d->table + d->table_len / 2};   /* all is found by now */
    for (uint32_t k = 0; k < rec->n_out; k++)
        d->node[numbered(r, rec->out[k])].is_out = 1;
    drop_unused(d);
    fuse(d);
    survey(d, &size);
    p = tg_new_program(size.n_const, size.n_in, rec->n_out, size.n_instr, size.n_pool);
    if (p) {
        emit(d, p, &kept, &live);
        for (uint32_t k = 0; k < rec->n_out; k++) {
            p->out[2 * k] = d->node[numbered(r, rec->out[k])].kept;
            p->out[2 * k + 1] = d->node[numbered(r, rec->out[k])].live;
        }
        p->n_guards = size.n_guards;
        p->reached = r->reached;
        p->folded = d->folded;
        p->shared = d->shared;
        p->fused = d->fused;
    }
    return p;
}

static int known(const tg_tape *t, const uint32_t *ids, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (ids[k] >= t->len)
            return 0;
    return 1;
}

tg_program *tg_freeze(const tg_tape *t, const tg_recording *rec, int64_t *code)
{
    reach r = {0};
    draft d = {0};
    tg_program *p = NULL;
    *code = known(t, rec->in, rec->n_in) && known(t, rec->out, rec->n_out) ? TG_OK : TG_BAD_ID;
    for (uint32_t k = 0; k < rec->n_compared; k++) {
        const tg_comparison *c = rec->compared + k;
        if ((c->a >= t->len && (c->a != TG_NONE || c->b == TG_NONE)) || (c->b >= t->len && c->b != TG_NONE))
            *code = TG_BAD_ID;
    }
    if (*code)
        return NULL;
    *code = reach_down(t, rec, &r);
    if (!*code) {
        const size_t nodes = (size_t)r.nodes, pool = 3 * (size_t)(r.words + r.nodes), table = 2 * nodes + SPREAD + NEAR,
                     values = r.losses ? nodes : 0;
        void *memory = tg_realloc(NULL, values * sizeof *d.value + nodes * sizeof *d.node +
                                        (pool + table + r.widest + 2) * sizeof(uint32_t));
        if (memory) {
            d.value = r.losses ? memory : NULL;
            d.node = (node *)((double *)memory + values);
            d.table = (uint32_t *)(d.node + nodes);
            d.table_len = (uint32_t)table;
            d.pool = d.table + table;
            memset(d.table, 0, table * sizeof *d.table);
            draft_up(t, rec, &r, &d, d.pool + pool);
            p = finish(&d, rec, &r);
            free(memory);
        }
        if (p) {
            p->recorded = t->len - rec->start;
            p->captured = d.captured;
            p->foreign = d.foreign;
        } else
            *code = TG_MEMORY;
    }
    free(r.needed);
    free(r.number);
    return p;
}
