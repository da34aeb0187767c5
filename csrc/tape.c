/*  The arena: growth, popping, reclaim.

    Growth is the one place that allocates nodes. Each array grows on its own, so that a failure half way leaves arrays
    longer than cap says, which harms nobody. Reclaim marks, then slides the survivors down; order survives, so ids
    stay topological.  */
#define _DEFAULT_SOURCE
#include "tape.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "ops.h"

#define FIRST_CAP 1024u
#define RECLAIM_FROM (1u << 20)         /* below this many nodes a tape is too small to be worth a reclaim */
#define RECLAIM_POOL_FROM (1u << 22)    /* nor below this many pool words: few nodes may have many operands */
#define HUGE (2u << 20)

tg_tape tg_main = {.last_many = TG_NONE, .reclaim_at = RECLAIM_FROM, .pool_reclaim_at = RECLAIM_POOL_FROM};

static _Atomic uint64_t fail_in;

void tg_fail_allocation(uint64_t n) { fail_in = n; }

static int fails(void) { return fail_in && --fail_in == 0; }

/* A first touch costs more than recording does; huge pages make it one touch in 512. */
static void ask_for_huge_pages(void *start, size_t bytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= 2 * (size_t)HUGE) {
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)start + page - 1) & ~(page - 1);
        madvise((void *)from, ((uintptr_t)start + bytes - from) & ~(page - 1), MADV_HUGEPAGE);
    }
#else
    (void)start, (void)bytes;
#endif
}

void *tg_realloc(void *old, size_t bytes)
{
    void *grown = fails() ? NULL : realloc(old, bytes);
    if (grown)
        ask_for_huge_pages(grown, bytes);
    return grown;
}

void *tg_zeroed(size_t bytes)
{
    void *zeroed = fails() ? NULL : calloc(bytes, 1);
    if (zeroed)
        ask_for_huge_pages(zeroed, bytes);
    return zeroed;
}

void tg_free_adjoints(tg_tape *t)
{
    free(t->adj);
    free(t->touched);
    t->adj = NULL;
    t->touched = NULL;
    t->adj_cap = 0;
}

static int grow_array(void *array, size_t count, size_t size)
{
    void *old, *grown;
    if (count > SIZE_MAX / size)
        return TG_MEMORY;
    memcpy(&old, array, sizeof old);
    grown = tg_realloc(old, count * size);
    if (!grown)
        return TG_MEMORY;
    memcpy(array, &grown, sizeof grown);
    return TG_OK;
}

/* The length to grow to: doubled, at least need, at most 2^32 - 1; 0 where need is over that. */
static uint32_t doubled(uint32_t cap, uint64_t need)
{
    uint64_t n = 2 * (uint64_t)cap;
    if (need > TG_NONE)
        return 0;
    if (n < FIRST_CAP)
        n = FIRST_CAP;
    if (n < need)
        n = need;
    return n > TG_NONE ? TG_NONE : (uint32_t)n;
}

static void set_room(tg_tape *t)
{
    t->room = t->recorders ? 0 : t->sweep || t->cap < t->reclaim_at ? t->cap : t->reclaim_at;
}

/* Bits of nodes that are not there are 0. */
static int grow_rules(tg_tape *t, uint32_t cap)
{
    size_t before = t->rule ? t->cap / 8 + (size_t)1 : 0, bytes = cap / 8 + (size_t)1;
    if (grow_array(&t->rule, bytes, 1))
        return TG_MEMORY;
    memset(t->rule + before, 0, bytes - before);
    return TG_OK;
}

int tg_set_rule(tg_tape *t, uint32_t id, int on)
{
    uint8_t bit = (uint8_t)(1u << id % 8);
    if (id >= t->len)
        return TG_BAD_ID;
    if (on && !t->rule && grow_rules(t, t->cap))
        return TG_MEMORY;
    if (!t->rule || !(t->rule[id / 8] & bit) == !on)
        return TG_OK;
    t->rule[id / 8] ^= bit;
    t->rules += on ? 1 : -1;
    return TG_OK;
}

int tg_grow(tg_tape *t, uint64_t nodes, uint64_t words)
{
    if (t->len + nodes > t->cap) {
        uint32_t cap = doubled(t->cap, t->len + nodes);
        if (!cap)
            return TG_FULL;
        if (grow_array(&t->op, cap, sizeof *t->op) || grow_array(&t->a, cap, sizeof *t->a) ||
            grow_array(&t->b, cap, sizeof *t->b) || grow_array(&t->data, cap, sizeof *t->data) ||
            grow_array(&t->grad, cap, sizeof *t->grad) || grow_array(&t->owner, cap, sizeof *t->owner) ||
            (t->rule && grow_rules(t, cap)))
            return TG_MEMORY;
        t->cap = cap;
    }
    if (t->pool_len + words > t->pool_cap) {
        uint32_t cap = doubled(t->pool_cap, t->pool_len + words);
        if (!cap)
            return TG_FULL;
        if (grow_array(&t->pool, cap, sizeof *t->pool))
            return TG_MEMORY;
        t->pool_cap = cap;
    }
    set_room(t);
    return TG_OK;
}

static uint32_t twice(uint32_t n, uint32_t least)
{
    return n < least / 2 ? least : n > TG_NONE / 2 ? TG_NONE : 2 * n;
}

int tg_reclaim_due(const tg_tape *t, uint64_t nodes, uint64_t words)
{
    return !t->sweep && !t->recorders && (t->len + nodes > t->reclaim_at || t->pool_len + words > t->pool_reclaim_at);
}

void tg_set_reclaim_point(tg_tape *t)
{
    t->reclaim_at = twice(t->len, RECLAIM_FROM);
    t->pool_reclaim_at = twice(t->pool_len, RECLAIM_POOL_FROM);
    set_room(t);
}

uint32_t *tg_recorded(const tg_tape *t, uint32_t id, uint32_t *pair, uint32_t *n)
{
    switch (t->op[id] & TG_OPCODE) {
    case TG_LEAF: *n = 0; return pair;
#define TG_UNARY(NAME, ...) case TG_##NAME: pair[0] = t->a[id]; *n = 1; return pair;
#define TG_BINARY(NAME, ...) case TG_##NAME: pair[0] = t->a[id]; pair[1] = t->b[id]; *n = 2; return pair;
#define TG_PASSIVE(NAME, ...) case TG_##NAME: pair[0] = t->a[id]; pair[1] = t->b[id]; *n = 2; return pair;
#include "ops.def"
    default: *n = t->b[id]; return t->pool + t->a[id];
    }
}

uint32_t tg_operands(const tg_tape *t, uint32_t id, uint32_t *out, uint32_t n)
{
    uint32_t pair[2], count;
    const uint32_t *ids;
    if (id >= t->len)
        return 0;
    ids = tg_recorded(t, id, pair, &count);
    if (tg_is_passive(t->op[id] & TG_OPCODE))
        count = 1;
    for (uint32_t k = 0; k < count && k < n; k++)
        out[k] = ids[k];
    return count;
}

static void trim_pool(tg_tape *t)
{
    while (t->last_many != TG_NONE && t->last_many >= t->len) {
        t->pool_len = t->a[t->last_many] - 1;
        t->last_many = t->pool[t->pool_len];
    }
}

void tg_take_back(tg_tape *t, uint32_t len)
{
    if (len > t->len)
        return;
    for (uint32_t i = len; t->rules && i < t->len; i++)
        tg_set_rule(t, i, 0);
    t->len = len;
    trim_pool(t);
}

void tg_pop(tg_tape *t)
{
    uint32_t n = t->len;
    if (t->recorders)
        return;
    while (n > 0 && !t->owner[n - 1])
        n--;
    tg_take_back(t, n);
}

uint32_t tg_owners(const tg_tape *t)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < t->len; i++)
        n += TG_LIVE(t->owner[i]);
    return n;
}

#if defined(__clang__)
const char *const tg_compiler = __VERSION__;
#elif defined(__GNUC__)
const char *const tg_compiler = "GCC " __VERSION__;
#else
const char *const tg_compiler = "unknown";
#endif

int tg_node_bytes(int swept)
{
    const tg_tape *t = &tg_main;
    return (int)(sizeof *t->op + sizeof *t->a + sizeof *t->b + sizeof *t->data + sizeof *t->grad + sizeof *t->owner +
                 (swept ? sizeof *t->adj : 0));
}

uint64_t tg_bytes(const tg_tape *t)
{
    return t->cap * (uint64_t)tg_node_bytes(0) + (t->rule ? t->cap / 8 + 1 : 0) +
           t->pool_cap * (uint64_t)sizeof *t->pool + t->adj_cap * (uint64_t)sizeof *t->adj + (t->adj_cap >> TG_BLOCK);
}

void tg_clear_grads(tg_tape *t)
{
    if (t->len)
        memset(t->grad, 0, t->len * sizeof *t->grad);
}

double tg_seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void tg_mark(tg_tape *t, uint32_t id)
{
    if (id < t->len)
        t->op[id] |= TG_MARK;
}

void tg_mark_owned(tg_tape *t)
{
    for (uint32_t i = 0; i < t->len; i++)
        if (TG_LIVE(t->owner[i]))
            t->op[i] |= TG_MARK;
}

void tg_mark_operands(tg_tape *t, uint32_t (*seen)(void *, uint32_t), void *context)
{
    double start = tg_seconds();
    for (uint32_t end = t->len; end > 0;) {
        uint32_t i = end;
        end = 0;
        while (i-- > 0) {
            uint32_t pair[2], n, *ids;
            if (!(t->op[i] & TG_MARK))
                continue;
            if (seen && t->owner[i]) {
                uint32_t top = seen(context, i);
                if (top > i && top >= end)
                    end = top + 1;
            }
            ids = tg_recorded(t, i, pair, &n);
            while (n-- > 0)
                t->op[ids[n]] |= TG_MARK;
        }
    }
    t->reclaim_seconds += tg_seconds() - start;
}

/* Old id to new, or NULL: then nothing is marked any more. */
static uint32_t *renumbering(tg_tape *t)
{
    uint32_t *map = tg_realloc(NULL, (t->len + (size_t)1) * sizeof *map), n = 0;
    for (uint32_t i = 0; i < t->len; i++)
        if (map)
            map[i] = t->op[i] & TG_MARK ? n++ : TG_NONE;
        else
            t->op[i] &= (uint8_t)~TG_MARK;
    return map;
}

static int64_t slide(tg_tape *t, uint32_t *map, void (*dropped)(void *, void *), void *context)
{
    double start = tg_seconds();
    uint32_t n = 0, old = t->len;
    if (!map)
        return TG_MEMORY;
    t->pool_len = 0;
    t->last_many = TG_NONE;
    for (uint32_t i = 0; i < old; i++) {
        int op = t->op[i] & TG_OPCODE, ruled = tg_has_rule(t, i);
        if (ruled)
            tg_set_rule(t, i, 0);
        if (!(t->op[i] & TG_MARK)) {
            if (t->owner[i] && dropped)
                dropped(context, t->owner[i]);
            continue;
        }
        t->op[n] = (uint8_t)(t->op[i] & ~TG_MARK);
        if (ruled)
            tg_set_rule(t, n, 1);
        if (tg_is_many(op)) {
            uint32_t from = t->a[i], count = t->b[i], to = t->pool_len + 1;
            t->pool[t->pool_len] = t->last_many;
            for (uint32_t k = 0; k < count; k++)
                t->pool[to + k] = map[t->pool[from + k]];
            t->pool_len = to + count;
            t->last_many = n;
            t->a[n] = to;
            t->b[n] = count;
        } else if (op != TG_LEAF) {
            t->a[n] = map[t->a[i]];
            t->b[n] = map[t->b[i]];
        } else {
            t->a[n] = t->a[i];
            t->b[n] = t->b[i];
        }
        t->data[n] = t->data[i];
        t->grad[n] = t->grad[i];
        t->owner[n] = t->owner[i];
        n++;
    }
    t->len = n;
    free(map);
    tg_set_reclaim_point(t);
    t->reclaims++;
    t->reclaim_seconds += tg_seconds() - start;
    return (int64_t)old - n;
}

int64_t tg_slide(tg_tape *t, void (*dropped)(void *, void *), void *context)
{
    return slide(t, renumbering(t), dropped, context);
}

int64_t tg_forget(tg_tape *t, void (*dropped)(void *, void *), void *context)
{
    uint32_t *map = renumbering(t);
    for (uint32_t i = 0; map && i < t->len; i++)
        if (t->op[i] & TG_MARK) {
            t->op[i] = TG_LEAF | TG_MARK;
            t->a[i] = t->b[i] = 0;
            tg_set_rule(t, i, 0);
        }
    return slide(t, map, dropped, context);
}
