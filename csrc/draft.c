/*  Drafts: constants folded and equals shared as nodes come, then passes over the whole.

    No pass changes a bit of any value: a dot adds its products in the order in which they were added.  */
#include "draft.h"
#include "emit.h"
#include "kept.h"
#include "ops.h"
#include "wide/order.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes ---- */

#define MIXED(h, x) (((h) ^ (x)) * UINT64_C(0x9E3779B97F4A7C15))

static inline uint32_t hash(int op, uint32_t a, uint32_t b)
{
    return (uint32_t)(MIXED(MIXED((uint32_t)op, a), b) >> 32);
}

static uint32_t hash_many(const tg_draft *d, int op, uint32_t start, uint32_t n)
{
    uint64_t h = (uint64_t)op;
    for (uint32_t k = 0; k < n; k++)
        h = MIXED(h, d->pool[start + k]);
    return (uint32_t)(h >> 32);
}

static inline int is_same(const tg_draft_node *n, int op, uint64_t pair)
{
    uint64_t own;
    memcpy(&own, n, sizeof own);
    return own == pair && n->op == op;
}

static int is_same_many(const tg_draft *d, const tg_draft_node *n, int op, uint32_t start, uint32_t m)
{
    return n->op == op && n->b == m && !memcmp(d->pool + n->a, d->pool + start, m * sizeof *d->pool);
}

enum { MANY = 16 };             /* nodes of one list, from where on these are in others */

static inline uint32_t *bucket_of(const tg_draft *d, uint32_t h) { return d->bucket + ((uint64_t)h * d->cap >> 32); }

/* Put all of a list where their hash says. */
static void spread(tg_draft *d, uint32_t i)
{
    for (uint32_t below; i; i = below) {
        const tg_draft_node *n = d->node + (i - 1);
        uint32_t *list = bucket_of(d, tg_is_many(n->op) ? hash_many(d, n->op, n->a, n->b) : hash(n->op, n->a, n->b));
        below = d->next[i - 1];
        d->next[i - 1] = *list;
        *list = i;
    }
}

/* The old node that equals what is new. */
static inline uint32_t share(tg_draft *d, uint32_t i, int op)
{
    d->shared += op != TG_LEAF;
    d->node[i].quiet &= d->quiet;
    return i;
}

/* The node (op, a, b) in a list, + 1; 0 where it is not there. *n: how many were looked at. */
static inline uint32_t find(const tg_draft *d, uint32_t list, int op, uint64_t pair, uint32_t *n)
{
    uint32_t i = list;
    for (*n = 0; i && !is_same(d->node + (i - 1), op, pair); ++*n)
        i = d->next[i - 1];
    return i;
}

static tg_kept kept_nodes, kept_pool;

/* Values, nodes and lists are one block: another one, for cap nodes. */
static int more_nodes(tg_draft *d, uint32_t cap)
{
    const size_t values = d->valued ? cap : 0;
    void *memory = tg_borrow(&kept_nodes, values * sizeof *d->value + cap * sizeof *d->node +
                                              4 * (size_t)cap * sizeof *d->first);
    const tg_draft old = *d;
    if (!memory)
        return TG_MEMORY;
    d->memory = memory;
    d->value = d->valued ? memory : NULL;
    d->node = (tg_draft_node *)((double *)memory + values);
    d->first = (uint32_t *)(d->node + cap);
    d->next = d->first + cap;
    d->bucket = d->next + cap;
    d->sieve = d->bucket + cap;
    d->cap = cap;
    memset(d->bucket, 0, cap * sizeof *d->bucket);
    if (d->len) {
        memcpy(d->node, old.node, d->len * sizeof *d->node);
        memcpy(d->first, old.first, d->len * sizeof *d->first);
        memcpy(d->next, old.next, d->len * sizeof *d->next);
        memcpy(d->sieve, old.sieve, d->len * sizeof *d->sieve);
        if (d->value)
            memcpy(d->value, old.value, d->len * sizeof *d->value);
    }
    for (uint32_t k = 0; k < old.cap; k++)
        spread(d, old.bucket[k]);
    tg_give_back(&kept_nodes, old.memory);
    return TG_OK;
}

static int more_pool(tg_draft *d, uint32_t cap)
{
    uint32_t *grown = tg_borrow(&kept_pool, cap * sizeof *d->pool);
    if (!grown)
        return TG_MEMORY;
    if (d->pool_len)
        memcpy(grown, d->pool, d->pool_len * sizeof *d->pool);
    tg_give_back(&kept_pool, d->pool);
    d->pool = grown;
    d->pool_cap = cap;
    return TG_OK;
}

/* At least twice what there was, and at most. */
static uint32_t grown_to(uint64_t least, uint32_t cap, uint32_t most)
{
    const uint64_t twice = 2 * (uint64_t)cap;
    return (uint32_t)(least > twice ? least : twice < most ? twice : most);
}

int tg_draft_room(tg_draft *d, uint64_t nodes, uint64_t words)
{
    const uint64_t len = d->len + nodes, pool = d->pool_len + words;
    int code = TG_OK;
    if (len >= TG_NONE / 4 || pool >= TG_NONE)
        return TG_FULL;
    if (len > d->cap)
        code = more_nodes(d, grown_to(len, d->cap, TG_NONE / 4));
    if (!code && pool > d->pool_cap)
        code = more_pool(d, grown_to(pool, d->pool_cap, TG_NONE));
    return code;
}

void tg_free_draft(tg_draft *d)
{
    tg_give_back(&kept_nodes, d->memory);
    tg_give_back(&kept_pool, d->pool);
}

static inline void use(tg_draft *d, tg_draft_node *n) { d->used += !n->uses++; }

static void use_operands(tg_draft *d, const tg_draft_node *n)
{
    const uint32_t *ids;
    uint32_t pair[2], m = tg_draft_operands(d, n, &ids, pair);
    for (uint32_t k = 0; k < m; k++)
        use(d, d->node + ids[k]);
}

uint32_t tg_draft_add(tg_draft *d, tg_draft_node node, double value)
{
    const uint32_t i = d->len;
    use_operands(d, &node);
    d->node[i] = node;
    d->first[i] = d->sieve[i] = 0;
    if (d->value)
        d->value[i] = value;
    d->len = i + 1;
    return i;
}

void tg_draft_guard(tg_draft *d, uint32_t a, uint32_t b, uint32_t where, uint32_t asked, uint32_t number)
{
    const uint32_t i = tg_draft_add(d, (tg_draft_node){.op = TG_GUARD, .a = a, .b = b, .where = where}, 0.0);
    d->kept[i] = asked;
    d->live[i] = number;
}

uint32_t tg_draft_constant(tg_draft *d, double value)
{
    uint32_t half[2], *list, i, n;
    uint64_t pair;
    memcpy(half, &value, sizeof half);
    pair = tg_pair_of(half[0], half[1]);
    list = bucket_of(d, hash(TG_LEAF, half[0], half[1]));
    i = find(d, *list, TG_LEAF, pair, &n);
    return i ? share(d, i - 1, TG_LEAF) : tg_draft_push(d, TG_LEAF, pair, value, 0, list);
}

uint32_t tg_draft_two(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    const tg_two two = tg_two_of(d, op, a, b);
    uint32_t *const own = d->first + two.own, *list, i = 0, n = 0;
    if (tg_draft_is_constant(d, two.own)) {
        d->folded++;
        return tg_draft_constant(d, value);
    }
    list = *own == TG_SPREAD ? bucket_of(d, hash(op, two.a, two.b)) : own;
    if (d->sieve[two.own] & tg_sieve_bit(op, &two))
        i = find(d, *list, op, tg_pair_of(two.a, two.b), &n);
    if (i)
        return share(d, i - 1, op);
    if (n >= MANY && list == own) {
        spread(d, *own);
        *own = TG_SPREAD;
        d->sieve[two.own] = ~0u;
        list = bucket_of(d, hash(op, two.a, two.b));
    }
    return tg_draft_push_two(d, op, &two, value, where, list);
}

uint32_t tg_draft_pooled(tg_draft *d, int op, uint32_t n, double value, uint32_t where)
{
    const uint32_t start = d->pool_len - n;
    uint32_t *list, i;
    int all = 1;
    for (uint32_t k = 0; k < n; k++)
        all &= tg_draft_is_constant(d, d->pool[start + k]);
    if (all) {
        d->folded++;
        d->pool_len = start;
        return tg_draft_constant(d, value);
    }
    list = bucket_of(d, hash_many(d, op, start, n));
    for (i = *list; i; i = d->next[i - 1])
        if (is_same_many(d, d->node + (i - 1), op, start, n)) {
            d->pool_len = start;
            return share(d, i - 1, op);
        }
    i = tg_draft_push(d, op, tg_pair_of(start, n), value, where, list);
    use_operands(d, d->node + i);
    return i;
}

uint32_t tg_draft_many(tg_draft *d, int op, const uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    memcpy(d->pool + d->pool_len, ids, n * sizeof *ids);
    d->pool_len += n;
    return tg_draft_pooled(d, op, n, value, where);
}

/* ---- passes ---- */

/* Whether f could have seen this node refused: what is divided by a number that is not 0 cannot be. */
static int can_refuse(const tg_draft *d, const tg_draft_node *n)
{
    return n->op < TG_OPS && tg_can_refuse(n->op) && !n->quiet &&
           !(n->op == TG_DIV && tg_draft_is_constant(d, n->b) && tg_draft_number(d, n->b) != 0.0);
}

/* What nobody uses goes, if it refuses nothing, and then what only that has used. */
static void drop_unused(tg_draft *d)
{
    for (uint32_t i = d->len; i-- > 0;) {
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m;
        if (n->uses || n->op >= TG_GUARD || can_refuse(d, n))
            continue;
        m = tg_draft_operands(d, n, &ids, pair);
        for (uint32_t k = 0; k < m; k++)
            d->node[ids[k]].uses--;
        n->op = TG_GONE;
    }
}

/* Whether anything is used by nobody, but for inputs. */
static int any_unused(const tg_draft *d)
{
    uint32_t used = d->used;
    for (uint32_t k = 0; k < d->len && d->node[k].op == TG_INPUT; k++)
        used += !d->node[k].uses;
    return used < d->len;
}

/* The product that this sum can take in: the operand of an addition that is used here alone; TG_NONE without. */
static inline uint32_t product_of(const tg_draft_node *node, const tg_draft_node *n)
{
    if (n->a == n->b)
        return TG_NONE;
    return node[n->b].op == TG_MUL && node[n->b].uses == 1   ? n->b
           : node[n->a].op == TG_MUL && node[n->a].uses == 1 ? n->a
                                                             : TG_NONE;
}

/* ((bias + x0 * w0) + x1 * w1) + .. becomes a dot. The pool has room for dots behind what it holds. What is not gone
   then, as most is that is in dots, is listed where instructions will be, up to the end of the room for them: the first
   of these. */
static uint32_t fuse(tg_draft *d)
{
    tg_draft_node *const node = d->node;
    uint32_t left = d->cap;
    for (uint32_t i = d->len; i-- > 0;) {
        uint32_t *const start = d->pool + d->pool_len, *end = start, rest = i, product;
        if (node[i].op == TG_GONE)
            continue;
        d->instr[--left] = i;
        while (node[rest].op == TG_ADD && (rest == i || node[rest].uses == 1) &&
               (product = product_of(node, node + rest)) != TG_NONE) {
            tg_draft_node *sum = node + rest, *m = node + product;
            *end++ = m->b;                              /* backwards, turned round below */
            *end++ = m->a;
            m->op = TG_GONE;
            sum->op = TG_GONE;
            rest = sum->a == product ? sum->b : sum->a;
        }
        if (end == start)
            continue;
        d->fused += (uint32_t)(end - start) - 1;
        for (uint32_t *low = start, *high = end - 1; low < high; low++, high--) {
            const uint32_t id = *low;
            *low = *high;
            *high = id;
        }
        *end++ = rest;
        node[i].op = TG_DOT;
        node[i].quiet = 0;
        node[i].a = d->pool_len;
        node[i].b = (uint32_t)(end - start);
        d->pool_len += node[i].b;
    }
    return left;
}

/* Which operands are no constants, as tg_moving has it. */
static int moving_of(const tg_draft *d, const tg_draft_node *n)
{
    return tg_is_many(n->op) ? 3 : (!tg_draft_is_constant(d, n->a)) | (!tg_draft_is_constant(d, n->b)) << 1;
}

/* Instruction `at` reads these: until when they are used, and which of them and its result have to be kept. */
static inline void note_use(tg_draft *d, tg_draft_node *n, const uint32_t *ids, uint32_t m, uint32_t at)
{
    tg_draft_node *const node = d->node;
    const int many = tg_is_many(n->op);
    int named;
    if (n->op == TG_GUARD || n->op == TG_CALL) {
        for (uint32_t k = 0; k < m; k++) {
            node[ids[k]].last = at;
            node[ids[k]].retained |= n->op == TG_CALL;
        }
        return;
    }
    named = tg_names(n->op, moving_of(d, n), d->named);
    n->retained |= (named & TG_NAMES_Y) != 0 || n->is_out;
    if (many && !(named & TG_NAMES_A))
        for (uint32_t k = 0; k < m; k++)
            node[ids[k]].last = at;
    else if (n->op == TG_DOT) {                         /* of a pair each names the other one */
        for (uint32_t k = 0; k < m - m % 2; k += 2) {
            tg_draft_node *x = node + ids[k], *w = node + ids[k + 1];
            x->last = w->last = at;
            x->retained |= w->op != TG_LEAF;
            w->retained |= x->op != TG_LEAF;
        }
        if (m % 2)
            node[ids[m - 1]].last = at;
    } else if (many)
        for (uint32_t k = 0; k < m; k++) {
            node[ids[k]].last = at;
            node[ids[k]].retained |= tg_names_operand(n->op, k, m);
        }
    else {
        node[n->a].last = node[n->b].last = at;
        node[n->a].retained |= (named & TG_NAMES_A) != 0;
        node[n->b].retained |= (named & TG_NAMES_B) != 0;
    }
}

/* Count what there is, note last uses and what has to be kept; list constants and instructions, which takes no more
   room than all that is left, listed from there on. */
static void survey(tg_draft *d, uint32_t left, tg_program *size)
{
    uint32_t at = 0;
    for (; left < d->cap; left++) {
        const uint32_t i = d->instr[left], *ids;
        tg_draft_node *n = d->node + i;
        uint32_t pair[2], m;
        switch (n->op) {
        case TG_LEAF:
            d->constant[size->n_const] = i;
            d->live[i] = size->n_const++;
            d->kept[i] = 0;                             /* its level, where instructions are put in order */
            continue;
        case TG_INPUT: size->n_in++; continue;
        case TG_RESULT:
            n->last = at - 1;
            n->retained |= n->is_out;
            size->n_pool++;
            continue;
        case TG_GUARD: size->n_guards++; break;
        case TG_CALL: size->n_calls++; break;
        default: break;
        }
        m = tg_draft_operands(d, n, &ids, pair);
        size->n_pool += n->op == TG_CALL || tg_is_many(n->op) ? m : 0;
        note_use(d, n, ids, m, at);
        n->last = at;
        d->instr[at++] = i;
    }
    size->n_instr = at;
}

tg_program *tg_finish_draft(tg_draft *d, const uint32_t *out, uint32_t n_out)
{
    tg_program size = {0}, *p = NULL;
    uint32_t *order = NULL;
    if (tg_draft_room(d, 0, 3 * (uint64_t)d->len))      /* two operands and a bias for each that may become a dot */
        return NULL;
    d->instr = d->bucket;                               /* nobody is looked for any more */
    d->constant = d->sieve;
    for (uint32_t k = 0; k < n_out; k++) {
        d->node[out[k]].is_out = 1;
        use(d, d->node + out[k]);
    }
    if (any_unused(d))
        drop_unused(d);
    survey(d, fuse(d), &size);
    if (size.n_calls || !tg_widen(d, size.n_instr, &order))
        p = tg_new_program(size.n_const, size.n_in, n_out, size.n_instr, size.n_pool);
    if (p && (order ? tg_emit_wide(d, p, order) : (tg_emit(d, p), TG_OK))) {
        tg_free_program(p);
        p = NULL;
    }
    free(order);
    if (!p)
        return NULL;
    for (uint32_t k = 0; k < n_out; k++) {
        p->out[2 * (size_t)k] = d->kept[out[k]];
        p->out[2 * (size_t)k + 1] = d->live[out[k]];
    }
    if (tg_pack_program(p)) {
        tg_free_program(p);
        return NULL;
    }
    p->n_guards = size.n_guards;
    p->folded = d->folded;
    p->shared = d->shared;
    p->fused = d->fused;
    return p;
}
