/*  From a draft to instructions, whose results get slots.

    A narrow program takes the slot that was given back last, which is the one nearest in the caches. A wide one gives
    the results of a group slots side by side, so that a replay needs not look them up: what is retained in order, the
    others where as many are free in a row, those that are long in use apart from those that are not, which would find
    no row between them. So it does with the constants that an operand is in the instructions of a group.  */
#include "emit.h"
#include "ops.h"
#include "wide/order.h"

#include <stdlib.h>
#include <string.h>

static void emit_one(tg_draft *d, tg_program *p, uint32_t i, uint32_t at, uint32_t *n_pool)
{
    uint32_t *const to = p->pool + 2 * (size_t)*n_pool;
    const uint32_t *const kept = d->kept, *const live = d->live;
    const tg_draft_node *n = d->node + i;
    const uint32_t *ids;
    uint32_t pair[2], m = tg_draft_operands(d, n, &ids, pair);
    tg_instr *s = p->instr + at;
    s->op = n->op | (n->quiet && tg_can_refuse(n->op) ? TG_QUIET : 0);
    s->where = n->where;
    s->y = kept[i];
    s->live_y = live[i];
    if (!tg_is_many(n->op) && n->op != TG_CALL) {
        s->a = kept[n->a];
        s->b = kept[n->b];
        s->live_a = live[n->a];
        s->live_b = live[n->b];
        return;
    }
    s->a = *n_pool;
    s->b = m;
    for (uint32_t k = 0; k < m; k++) {
        to[2 * (size_t)k] = kept[ids[k]];
        to[2 * (size_t)k + 1] = live[ids[k]];
    }
    *n_pool += m;
    for (uint32_t k = i + 1; n->op == TG_CALL && k < d->len && d->node[k].op == TG_RESULT; k++, ++*n_pool, s->b++) {
        p->pool[2 * *n_pool] = d->kept[k];
        p->pool[2 * *n_pool + 1] = d->live[k];
    }
}

/* Constants and inputs, which are the first nodes. */
static void place_fixed(tg_draft *d, tg_program *p)
{
    for (uint32_t k = 0; k < p->n_in; k++)
        d->kept[k] = d->live[k] = p->n_const + d->node[k].a;
    for (uint32_t k = 0; k < p->n_const; k++) {
        const uint32_t i = d->constant[k];
        d->kept[i] = d->live[i];
        p->constant[d->live[i]] = tg_draft_number(d, i);
    }
}

/* ---- narrow ---- */

typedef struct {
    uint32_t *free, n_free, n;
} slots;

static uint32_t take(slots *s) { return s->n_free ? s->free[--s->n_free] : s->n++; }

static inline void release(tg_draft *d, uint32_t i, uint32_t at, slots *kept, slots *live)
{
    tg_draft_node *n = d->node + i;
    if (n->last != at || tg_draft_is_fixed(n) || n->is_out)
        return;
    n->last = TG_NONE;                                  /* once */
    live->free[live->n_free++] = d->live[i];
    if (!n->retained)
        kept->free[kept->n_free++] = d->kept[i];
}

static inline void place(tg_draft *d, uint32_t i, slots *kept, slots *live)
{
    d->kept[i] = d->node[i].retained ? kept->n++ : take(kept);
    d->live[i] = take(live);
}

void tg_emit(tg_draft *d, tg_program *p)
{
    const uint32_t n_fixed = p->n_const + p->n_in;
    slots kept = {d->constant, 0, n_fixed}, live = {d->instr, 0, n_fixed};  /* there is room */
    uint32_t at = 0, n_pool = 0, n_calls = 0;
    place_fixed(d, p);                                  /* who reads the constants last */
    for (uint32_t i = 0; i < d->len; i++) {
        tg_draft_node *n = d->node + i;
        const uint32_t *ids;
        uint32_t pair[2], m = tg_draft_operands(d, n, &ids, pair);
        uint32_t end = i + 1;           /* of what has no instruction but that of its call */
        if (n->op >= TG_RESULT || tg_draft_is_fixed(n))         /* or TG_GONE */
            continue;
        while (n->op == TG_CALL && end < d->len && d->node[end].op == TG_RESULT)
            place(d, end++, &kept, &live);
        if (n->op == TG_CALL) {
            d->kept[i] = n_calls++;
            d->live[i] = 0;
        } else if (n->op != TG_GUARD)
            place(d, i, &kept, &live);
        emit_one(d, p, i, at, &n_pool);
        for (uint32_t k = 0; k < m; k++)
            release(d, ids[k], at, &kept, &live);
        for (uint32_t k = n->op < TG_GUARD ? i : i + 1; k < end; k++)   /* who has it, if anybody, comes later */
            release(d, k, at, &kept, &live);
        at++;
    }
    p->n_kept = kept.n;
    p->n_live = live.n;
}

/* ---- wide ---- */

/* Slots in rows: a row is looked for from where the last one ended, and from the start again where enough are free. */
typedef struct {
    uint8_t *taken;
    uint32_t n, n_free, next;
} rows;

enum {
    OFTEN = 8,                  /* one of so many has to be free */
    FAR = 8                     /* a row of m is looked for among so many times m slots */
};

/* The first of m slots in a row. */
static uint32_t take_row(rows *s, uint32_t m)
{
    uint64_t left = FAR * (uint64_t)m;
    uint32_t from = s->next, at = from;
    if (at == s->n && s->n_free > s->n / OFTEN)
        from = at = 0;
    for (; at < s->n && at - from < m && left; left--, at++)
        if (s->taken[at])
            from = at + 1;
    if (at - from < m && at < s->n)                     /* too far */
        from = at = s->n;
    s->n_free -= at - from;
    s->next = from + m;
    s->n = s->next > s->n ? s->next : s->n;
    memset(s->taken + from, 1, m);
    return from;
}

static void give_back(rows *s, uint32_t slot)
{
    s->taken[slot] = 0;
    s->n_free++;
}

/* Give constants that are read by the instructions from .. to - 1 of an order the next slots, operand after operand. */
static uint32_t place_read(tg_draft *d, const uint32_t *order, uint32_t from, uint32_t to, uint32_t next)
{
    for (uint32_t m = 0, most = 1; m < most; m++)
        for (uint32_t k = from; k < to; k++) {
            const uint32_t *ids;
            uint32_t pair[2];
            const uint32_t own = tg_draft_operands(d, d->node + tg_ordered(d, order[k]), &ids, pair);
            most = own > most ? own : most;
            if (m < own && tg_draft_is_constant(d, ids[m]) && d->live[ids[m]] == TG_NONE)
                d->kept[ids[m]] = d->live[ids[m]] = next++;
        }
    return next;
}

/* What the draft surveyed in its own order, in this one: where results are read last, and constants in the order of
   their first use, group after group. The number of retained results. */
static uint32_t survey(tg_draft *d, const uint32_t *order, uint32_t n, uint32_t n_const)
{
    uint32_t retained = 0, next = 0;
    for (uint32_t k = 0; k < n_const; k++)
        d->live[d->constant[k]] = TG_NONE;
    for (uint32_t from = 0, to; from < n; from = to) {
        int constants = 0;
        to = from;
        do {
            tg_draft_node *node = d->node + tg_ordered(d, order[to]);
            const uint32_t *ids;
            uint32_t pair[2], m = tg_draft_operands(d, node, &ids, pair);
            for (uint32_t k = 0; k < m; k++) {
                d->node[ids[k]].last = to;
                constants |= tg_draft_is_constant(d, ids[k]);
            }
            node->last = to;
            retained += node->op != TG_GUARD && node->retained;
            to++;
        } while (to < n && !(order[to] & TG_STARTS));
        if (constants && next < n_const)
            next = place_read(d, order, from, to, next);
    }
    for (uint32_t k = 0; next < n_const; k++) {         /* results that are constants */
        const uint32_t i = d->constant[k];
        if (d->live[i] == TG_NONE)
            d->kept[i] = d->live[i] = next++;
    }
    return retained;
}

enum { BRIEF, LASTING, SPANS };
#define LONG (1u << 14)         /* instructions from where a result is made to its last use, of one that is lasting */
#define IS_LASTING 0x80000000u  /* on a slot, until it is known how many there are of the others */

typedef struct {
    rows span[SPANS];
    uint32_t first;             /* of their slots */
} space;

typedef struct {
    space kept, live;
    uint32_t n_fixed, retained;
    uint32_t *done, *next;      /* by instruction of the order, + 1: the first in the list of those whose results it is
                                   the last to use, and the next in the list that it is in */
} wide_slots;

static uint32_t take_span(space *s, int span, uint32_t m)
{
    return take_row(s->span + span, m) | (span == LASTING ? IS_LASTING : 0);
}

static void give_back_span(space *s, uint32_t slot)
{
    give_back(s->span + (slot & IS_LASTING ? LASTING : BRIEF), slot & ~IS_LASTING);
}

static uint32_t slot_of(const space *s, uint32_t taken)
{
    return s->first + (taken & IS_LASTING ? s->span[BRIEF].n + (taken & ~IS_LASTING) : taken);
}

static uint32_t end_of(const space *s) { return s->first + s->span[BRIEF].n + s->span[LASTING].n; }

static void place_group(tg_draft *d, const uint32_t *order, uint32_t from, uint32_t to, wide_slots *s)
{
    const tg_draft_node *first = d->node + tg_ordered(d, order[from]);
    uint32_t live, kept;
    int span = BRIEF;
    if (first->op == TG_GUARD)
        return;
    for (uint32_t k = from; k < to && span == BRIEF; k++) {
        const tg_draft_node *n = d->node + tg_ordered(d, order[k]);
        span = n->is_out || n->last - k > LONG ? LASTING : BRIEF;
    }
    live = take_span(&s->live, span, to - from);
    if (first->retained) {
        kept = s->n_fixed + s->retained;
        s->retained += to - from;
    } else
        kept = take_span(&s->kept, span, to - from);
    for (uint32_t k = from; k < to; k++) {
        const uint32_t i = tg_ordered(d, order[k]);
        d->kept[i] = kept + (k - from);
        d->live[i] = live + (k - from);
    }
}

/* List results by who uses them last, whose slots are free from then on. */
static void list_done(const tg_draft *d, const uint32_t *order, uint32_t n, wide_slots *s)
{
    for (uint32_t k = 0; k < n; k++) {
        const tg_draft_node *node = d->node + tg_ordered(d, order[k]);
        if (node->op == TG_GUARD || node->is_out)
            continue;
        s->next[k] = s->done[node->last];
        s->done[node->last] = k + 1;
    }
}

static void release_wide(const tg_draft *d, uint32_t i, wide_slots *s)
{
    give_back_span(&s->live, d->live[i]);
    if (!d->node[i].retained)
        give_back_span(&s->kept, d->kept[i]);
}

/* Give all results of an order their slots. */
static void place_wide(tg_draft *d, const uint32_t *order, uint32_t n, wide_slots *s)
{
    for (uint32_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && !(order[to] & TG_STARTS); to++)
            ;
        place_group(d, order, from, to, s);
        for (uint32_t k = from; k < to; k++)
            for (uint32_t done = s->done[k]; done; done = s->next[done - 1])
                release_wide(d, tg_ordered(d, order[done - 1]), s);
    }
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t i = tg_ordered(d, order[k]);
        if (d->node[i].op == TG_GUARD)
            continue;
        d->live[i] = slot_of(&s->live, d->live[i]);
        if (!d->node[i].retained)
            d->kept[i] = slot_of(&s->kept, d->kept[i]);
    }
}

int tg_emit_wide(tg_draft *d, tg_program *p, const uint32_t *order)
{
    const uint32_t n = p->n_instr;
    uint32_t *const lists = tg_zeroed(2 * (size_t)n * sizeof *lists + 2 * SPANS * ((size_t)n + 1));
    uint32_t n_pool = 0;
    int code = lists ? tg_set_order(p, order) : TG_MEMORY;
    wide_slots s = {.n_fixed = p->n_const + p->n_in, .done = lists, .next = lists ? lists + n : NULL};
    if (!code) {
        uint8_t *const taken = (uint8_t *)(lists + 2 * (size_t)n);
        for (uint32_t k = 0; k < n; k++)
            p->order[k] &= ~TG_STARTS;
        for (int span = 0; span < SPANS; span++) {
            s.kept.span[span].taken = taken + 2 * span * ((size_t)n + 1);
            s.live.span[span].taken = taken + (2 * span + 1) * ((size_t)n + 1);
        }
        s.live.first = s.n_fixed;
        s.kept.first = s.n_fixed + survey(d, order, n, p->n_const);
        place_fixed(d, p);
        list_done(d, order, n, &s);
        place_wide(d, order, n, &s);
        for (uint32_t k = 0; k < n; k++)
            emit_one(d, p, tg_ordered(d, order[k]), k, &n_pool);
        p->n_kept = end_of(&s.kept);
        p->n_live = end_of(&s.live);
        code = tg_group_program(p);
    }
    free(lists);
    return code;
}
