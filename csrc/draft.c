/*  Drafts: constants folded and equals shared as nodes come, then passes over the whole.

    No pass changes a bit of any value: a dot adds its products in the order in which they were added.  */
#include "draft.h"
#include "emit.h"
#include "ops.h"
#include "wide/order.h"

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

/*  Nodes are found again in lists, each of them in one. Most operations are of what was made just now: they are in the
    list of their later operand, constants not counted, so that what is looked at stands near it and is in the cache.
    Where that list has MANY, and for what has no such operand, it is one by hash.  */
enum { MANY = 8, EACH = 2 };    /* a bucket for so many nodes */

static uint32_t *bucket_of(const tg_draft *d, int op, uint32_t a, uint32_t b)
{
    return d->bucket + ((uint64_t)hash(d, op, a, b) * d->n_buckets >> 32);
}

/* The node (op, a, b) + 1, or 0 and the list that it is to be in. */
TG_INLINE uint32_t find(const tg_draft *d, int op, uint32_t a, uint32_t b, uint32_t **list)
{
    uint32_t i;
    if (op != TG_LEAF && !tg_is_many(op)) {
        uint32_t many = MANY;
        *list = d->first + (tg_draft_is_constant(d, a) || (b > a && !tg_draft_is_constant(d, b)) ? b : a);
        for (i = **list; i && many; i = d->next[i - 1], many--)
            if (same(d, i - 1, op, a, b))
                return i;
        if (many)
            return 0;
    }
    *list = bucket_of(d, op, a, b);
    for (i = **list; i && !same(d, i - 1, op, a, b); i = d->next[i - 1])
        ;
    return i;
}

/* The node (op, a, b), an old one where there is its equal. */
static uint32_t intern(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    uint32_t *list, old = find(d, op, a, b, &list);
    if (old--) {
        d->shared += op != TG_LEAF;
        d->node[old].quiet &= d->quiet;
        return old;
    }
    d->next[d->len] = *list;
    *list = d->len + 1;
    return tg_draft_add(d, (tg_draft_node){.op = (uint8_t)op, .a = a, .b = b, .where = where, .quiet = d->quiet},
                        value);
}

/* Values, nodes and lists are one allocation: another one, for cap nodes. */
static int more_nodes(tg_draft *d, uint32_t cap)
{
    const size_t values = d->valued ? cap : 0, buckets = cap / EACH + (size_t)1;
    void *memory = tg_realloc(NULL, values * sizeof *d->value + cap * sizeof *d->node +
                                        (2 * (size_t)cap + buckets) * sizeof *d->first);
    const tg_draft old = *d;
    if (!memory)
        return TG_MEMORY;
    d->memory = memory;
    d->value = d->valued ? memory : NULL;
    d->node = (tg_draft_node *)((double *)memory + values);
    d->first = (uint32_t *)(d->node + cap);
    d->next = d->first + cap;
    d->bucket = d->next + cap;
    d->n_buckets = (uint32_t)buckets;
    d->cap = cap;
    memset(d->bucket, 0, buckets * sizeof *d->bucket);
    if (d->len) {
        memcpy(d->node, old.node, d->len * sizeof *d->node);
        memcpy(d->first, old.first, d->len * sizeof *d->first);
        memcpy(d->next, old.next, d->len * sizeof *d->next);
        if (d->value)
            memcpy(d->value, old.value, d->len * sizeof *d->value);
    }
    for (uint32_t k = 0; k < old.n_buckets; k++)
        for (uint32_t i = old.bucket[k], below; i; i = below) {
            const tg_draft_node *n = d->node + (i - 1);
            uint32_t *list = bucket_of(d, n->op, n->a, n->b);
            below = d->next[i - 1];
            d->next[i - 1] = *list;
            *list = i;
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
    d->first[d->len] = 0;
    if (d->value)
        d->value[d->len] = value;
    return d->len++;
}

void tg_draft_guard(tg_draft *d, uint32_t a, uint32_t b, uint32_t where, uint32_t asked, uint32_t number)
{
    const uint32_t i = tg_draft_add(d, (tg_draft_node){.op = TG_GUARD, .a = a, .b = b, .where = where}, 0.0);
    d->kept[i] = asked;
    d->live[i] = number;
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

/* Count uses; what nobody uses goes, if it refuses nothing. The nodes that stay are listed before end, in order, which
   spares later passes the others, and sums among them backwards. How many stay. */
static uint32_t drop_unused(tg_draft *d, uint32_t *end, uint32_t *sums, uint32_t *n_sums)
{
    uint32_t *left = end;
    *n_sums = 0;
    for (uint32_t i = d->len; i-- > 0;) {
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m;
        if (!n->uses && !n->is_out && n->op < TG_GUARD && !can_refuse(d, n)) {
            n->op = TG_GONE;
            continue;
        }
        *--left = i;
        if (n->op == TG_ADD)
            sums[(*n_sums)++] = i;
        m = tg_draft_operands(d, n, &ids, pair);
        for (uint32_t k = 0; k < m; k++)
            d->node[ids[k]].uses++;
    }
    return (uint32_t)(end - left);
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

/* ((bias + x0 * w0) + x1 * w1) + .. becomes a dot. The sums are listed backwards; pool has room for dots behind what it
   holds. */
static void fuse(tg_draft *d, const uint32_t *sums, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t i = sums[k], start = d->pool_len;
        uint32_t rest = i, product;
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

/* Which operands are no constants, as tg_moving has it. */
static int moving_of(const tg_draft *d, const tg_draft_node *n)
{
    return tg_is_many(n->op) ? 3 : (!tg_draft_is_constant(d, n->a)) | (!tg_draft_is_constant(d, n->b)) << 1;
}

/* Count what there is, note last uses and what has to be kept; list constants and instructions, of the nodes that are
   left. */
static void survey(tg_draft *d, const uint32_t *left, uint32_t n_left, tg_program *size)
{
    uint32_t at = 0;
    for (uint32_t l = 0; l < n_left; l++) {
        const uint32_t i = left[l];
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m = tg_draft_operands(d, n, &ids, pair);
        int named;
        if (n->op == TG_GONE)
            continue;
        if (n->op == TG_LEAF) {
            d->constant[size->n_const] = i;
            d->kept[i] = d->live[i] = size->n_const++;
        }
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
                                   : tg_names(n->op, moving_of(d, n), d->named);
        size->n_pool += n->op == TG_CALL ? m : 0;
        if (tg_is_many(n->op)) {
            size->n_pool += m;
            named |= named & TG_NAMES_A ? TG_NAMES_B : 0;
        }
        for (uint32_t k = 0; k < m; k++) {
            d->node[ids[k]].last = at;
            if (!tg_is_many(n->op) || (tg_names_operand(n->op, k, m) &&
                                       !(n->op == TG_DOT && tg_draft_is_constant(d, ids[k ^ 1]))))
                d->node[ids[k]].retained |= (named & (k == 0 ? TG_NAMES_A : TG_NAMES_B)) != 0;
        }
        if (m == 1 && named & TG_NAMES_B)
            d->node[ids[0]].retained = 1;
        n->retained |= (named & TG_NAMES_Y) != 0 || n->is_out;
        n->last = at;
        d->instr[at++] = i;                             /* which is never after left + l */
    }
    size->n_instr = at;
}

tg_program *tg_finish_draft(tg_draft *d, const uint32_t *out, uint32_t n_out)
{
    tg_program size = {0}, *p = NULL;
    uint32_t *order = NULL, *lists = NULL, n_left, n_sums;
    if (!tg_draft_room(d, 0, 3 * (uint64_t)d->len))     /* two operands and a bias for each that may become a dot */
        lists = tg_realloc(NULL, 2 * (size_t)d->len * sizeof *lists + 1);
    if (!lists)
        return NULL;
    d->instr = lists;
    d->constant = lists + d->len;
    for (uint32_t k = 0; k < n_out; k++)
        d->node[out[k]].is_out = 1;
    n_left = drop_unused(d, d->constant, d->constant, &n_sums);
    fuse(d, d->constant, n_sums);
    survey(d, d->constant - n_left, n_left, &size);
    if (size.n_calls || !tg_widen(d, size.n_instr, &order))
        p = tg_new_program(size.n_const, size.n_in, n_out, size.n_instr, size.n_pool);
    if (p && (order ? tg_emit_wide(d, p, order) : (tg_emit(d, p), TG_OK))) {
        tg_free_program(p);
        p = NULL;
    }
    free(order);
    free(lists);
    if (!p)
        return NULL;
    for (uint32_t k = 0; k < n_out; k++) {
        p->out[2 * (size_t)k] = d->kept[out[k]];
        p->out[2 * (size_t)k + 1] = d->live[out[k]];
    }
    p->n_guards = size.n_guards;
    p->folded = d->folded;
    p->shared = d->shared;
    p->fused = d->fused;
    return p;
}
