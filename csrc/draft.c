/*  Drafts: constants folded and equals shared as nodes come, then passes over the whole.

    No pass changes a bit of any value: a dot adds its products in the order in which they were added.  */
#include "draft.h"
#include "emit.h"
#include "ops.h"
#include "order.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes ---- */

static uint32_t hash(const tg_draft *d, int op, uint32_t a, uint32_t b)
{
    uint64_t h = (uint64_t)op;
    if (tg_is_many(op))
        for (uint32_t k = 0; k < b; k++)
            h = (h ^ d->pool[a + k]) * 0x9E3779B97F4A7C15u;
    else
        h = ((h ^ a) * 0x9E3779B97F4A7C15u ^ b) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

static inline int same(const tg_draft *d, uint32_t i, int op, uint32_t a, uint32_t b)
{
    const tg_draft_node *n = d->node + i;
    if (n->op != op)
        return 0;
    if (tg_is_many(op))
        return n->b == b && !memcmp(d->pool + n->a, d->pool + a, b * sizeof *d->pool);
    return n->a == a && n->b == b;
}

/*  Where the node (op, a, b) is in the table, or would be. Most operations are of what was made just now: their place
    is near that of the later operand, so that the table is walked as the tape is and stays in the cache. Where that is
    full, for many are made of one operand, and for what has no such operand, it is anywhere. An entry has two bits of
    the hash above the node, its tag, so that most of what is not it is not looked at.  */
enum { SPREAD = 1024, NEAR = 8 };
#define TAG 0xC0000000u

TG_INLINE uint32_t *find(const tg_draft *d, int op, uint32_t a, uint32_t b, uint32_t *tag)
{
    uint32_t h = hash(d, op, a, b), *at;
    *tag = h / SPREAD << 30;
#define FOUND (!*at || ((*at & TAG) == *tag && same(d, (*at & ~TAG) - 1, op, a, b)))
    if (op != TG_LEAF && !tg_is_many(op)) {
        at = d->table + 2 * (size_t)(a > b ? a : b) + h % SPREAD;
        for (int k = 0; k < NEAR; k++, at++)
            if (FOUND)
                return at;
    }
    for (;; h = h * 0x9E3779B1u + 1) {                  /* which takes every value in turn */
        at = d->table + ((uint64_t)h * d->table_len >> 32);
        if (FOUND)
            return at;
    }
#undef FOUND
}

/* The node (op, a, b), an old one where there is its equal. */
static uint32_t intern(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    uint32_t tag, *at = find(d, op, a, b, &tag);
    if (*at) {
        const uint32_t old = (*at & ~TAG) - 1;
        d->shared += op != TG_LEAF;
        d->node[old].quiet &= d->quiet;
        return old;
    }
    d->node[d->len] = (tg_draft_node){.op = (uint8_t)op, .a = a, .b = b, .where = where, .quiet = d->quiet};
    if (d->value)
        d->value[d->len] = value;
    *at = ++d->len | tag;
    return d->len - 1;
}

/* Values, nodes and table are one allocation: another one, for cap nodes. */
static int more_nodes(tg_draft *d, uint32_t cap)
{
    const size_t values = d->valued ? cap : 0, table = 2 * (size_t)cap + SPREAD + NEAR;
    void *memory = tg_realloc(NULL, values * sizeof *d->value + cap * sizeof *d->node + table * sizeof *d->table);
    const tg_draft old = *d;
    if (!memory)
        return TG_MEMORY;
    d->memory = memory;
    d->value = d->valued ? memory : NULL;
    d->node = (tg_draft_node *)((double *)memory + values);
    d->table = (uint32_t *)(d->node + cap);
    d->table_len = (uint32_t)table;
    d->cap = cap;
    memset(d->table, 0, table * sizeof *d->table);
    if (d->len) {
        memcpy(d->node, old.node, d->len * sizeof *d->node);
        if (d->value)
            memcpy(d->value, old.value, d->len * sizeof *d->value);
    }
    for (uint32_t i = 0; i < d->len; i++) {
        const tg_draft_node *n = d->node + i;
        uint32_t tag, *at;
        if (n->op >= TG_OPS)                            /* guards and inputs are never looked for */
            continue;
        at = find(d, n->op, n->a, n->b, &tag);
        if (!*at)
            *at = (i + 1) | tag;
    }
    free(old.memory);
    return TG_OK;
}

static int more_pool(tg_draft *d, uint32_t cap)
{
    uint32_t *grown = tg_realloc(d->pool, cap * sizeof *d->pool);
    if (!grown)
        return TG_MEMORY;
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
    free(d->memory);
    free(d->pool);
}

uint32_t tg_draft_add(tg_draft *d, tg_draft_node node, double value)
{
    d->node[d->len] = node;
    if (d->value)
        d->value[d->len] = value;
    return d->len++;
}

uint32_t tg_draft_constant(tg_draft *d, double value)
{
    uint32_t half[2];
    memcpy(half, &value, sizeof half);
    return intern(d, TG_LEAF, half[0], half[1], value, 0);
}

uint32_t tg_draft_two(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    if (tg_draft_is_constant(d, a) && tg_draft_is_constant(d, b)) {
        d->folded++;
        return tg_draft_constant(d, value);
    }
    if ((op == TG_ADD || op == TG_MUL) && a > b) {
        uint32_t c = a;
        a = b;
        b = c;
    }
    return intern(d, op, a, b, value, where);
}

uint32_t tg_draft_pooled(tg_draft *d, int op, uint32_t n, double value, uint32_t where)
{
    uint32_t start = d->pool_len - n, before = d->len, i;
    int all = 1;
    for (uint32_t k = 0; k < n; k++)
        all &= tg_draft_is_constant(d, d->pool[start + k]);
    d->folded += (uint32_t)all;
    i = all ? tg_draft_constant(d, value) : intern(d, op, start, n, value, where);
    if (all || d->len == before)
        d->pool_len = start;
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

/* Count uses; what nobody uses goes, if it refuses nothing. */
static void drop_unused(tg_draft *d)
{
    for (uint32_t i = d->len; i-- > 0;) {
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m;
        if (!n->uses && !n->is_out && n->op < TG_GUARD && !can_refuse(d, n)) {
            n->op = TG_GONE;
            continue;
        }
        m = tg_draft_operands(d, n, &ids, pair);
        for (uint32_t k = 0; k < m; k++)
            d->node[ids[k]].uses++;
    }
}

/* The product that this sum can take in: the operand of an addition that is used here alone; TG_NONE without. */
static uint32_t product_of(const tg_draft *d, uint32_t i)
{
    const tg_draft_node *n = d->node + i;
    const uint32_t side[] = {n->b, n->a};
    if (n->op != TG_ADD || n->a == n->b)
        return TG_NONE;
    for (int k = 0; k < 2; k++) {
        const tg_draft_node *m = d->node + side[k];
        if (m->op == TG_MUL && m->uses == 1 && !m->is_out)
            return side[k];
    }
    return TG_NONE;
}

/* ((bias + x0 * w0) + x1 * w1) + .. becomes a dot. pool has room for it behind what it holds. */
static void fuse(tg_draft *d)
{
    for (uint32_t i = d->len; i-- > 0;) {
        uint32_t start = d->pool_len, rest = i, product;
        while ((product = product_of(d, rest)) != TG_NONE) {
            tg_draft_node *sum = d->node + rest, *m = d->node + product;
            uint32_t below = sum->a == product ? sum->b : sum->a;
            d->pool[d->pool_len++] = m->b;              /* backwards, turned round below */
            d->pool[d->pool_len++] = m->a;
            d->fused += rest == i ? 1 : 2;
            m->op = TG_GONE;
            if (rest != i)
                sum->op = TG_GONE;
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
        d->node[i] = (tg_draft_node){.op = TG_DOT, .a = start, .b = d->pool_len - start, .where = d->node[i].where,
                            .uses = d->node[i].uses, .is_out = d->node[i].is_out};
    }
}

/* Count what there is, note last uses and what has to be kept. */
static void survey(tg_draft *d, tg_program *size)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < d->len; i++) {
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m = tg_draft_operands(d, n, &ids, pair);
        int named;
        if (n->op == TG_GONE)
            continue;
        if (n->op == TG_LEAF)
            n->kept = n->live = size->n_const++;
        size->n_in += n->op == TG_INPUT;
        size->n_guards += n->op == TG_GUARD;
        size->n_calls += n->op == TG_CALL;
        if (tg_draft_is_fixed(n))
            continue;
        if (n->op == TG_RESULT) {
            n->last = at - 1;
            n->retained |= n->is_out;
            size->n_pool++;
            continue;
        }
        named = n->op == TG_GUARD  ? 0
                : n->op == TG_CALL ? TG_NAMES_A | TG_NAMES_B
                : d->named[n->op]  ? d->named[n->op]
                                   : tg_names(n->op, d->named);
        size->n_pool += n->op == TG_CALL ? m : 0;
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

tg_program *tg_finish_draft(tg_draft *d, const uint32_t *out, uint32_t n_out)
{
    tg_program size = {0}, *p = NULL;
    uint32_t *order = NULL;
    if (tg_draft_room(d, 0, 3 * (uint64_t)d->len))      /* two operands and a bias for each that may become a dot */
        return NULL;
    for (uint32_t k = 0; k < n_out; k++)
        d->node[out[k]].is_out = 1;
    drop_unused(d);
    fuse(d);
    survey(d, &size);
    if (!size.n_calls && tg_widen(d, size.n_instr, &order))
        return NULL;
    p = tg_new_program(size.n_const, size.n_in, n_out, size.n_instr, size.n_pool);
    if (p && (order ? tg_emit_wide(d, p, order) : (tg_emit(d, p), TG_OK))) {
        tg_free_program(p);
        p = NULL;
    }
    free(order);
    if (!p)
        return NULL;
    for (uint32_t k = 0; k < n_out; k++) {
        p->out[2 * (size_t)k] = d->node[out[k]].kept;
        p->out[2 * (size_t)k + 1] = d->node[out[k]].live;
    }
    p->n_guards = size.n_guards;
    p->folded = d->folded;
    p->shared = d->shared;
    p->fused = d->fused;
    return p;
}
