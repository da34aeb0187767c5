/*  Freezing: from a piece of the tape to a program.

    A draft is filled in the order of the tape, and finished: see draft.h. No pass changes a bit of any value: losses
    are taken apart into the very operations that their primals are made of.  */
#include "draft.h"
#include "kept.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

static uint32_t compute(tg_draft *d, int op, uint32_t a, uint32_t b, uint32_t where)
{
    return tg_draft_two(d, op, a, b, tg_primal(op, d->value[a], d->value[b]), where);
}

/* ids holds node numbers: xs, then ys, then a bias where n is odd; to pairs. */
static uint32_t dot_of(tg_draft *d, const uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    uint32_t half = n / 2;
    for (uint32_t k = 0; k < half; k++) {
        d->pool[d->pool_len++] = ids[k];
        d->pool[d->pool_len++] = ids[half + k];
    }
    if (n % 2)
        d->pool[d->pool_len++] = ids[n - 1];
    return tg_draft_pooled(d, TG_DOT, n, value, where);
}

/* The many-operand node of these node numbers, losses taken apart; ids may be overwritten. */
static uint32_t many_of(tg_draft *d, int op, uint32_t *ids, uint32_t n, double value, uint32_t where)
{
    uint32_t half = n / 2, y, top;
    switch (op) {
    case TG_DOT: return dot_of(d, ids, n, value, where);
    case TG_WHERE:
        if (tg_draft_is_constant(d, ids[0])) {
            d->folded++;
            return ids[tg_draft_number(d, ids[0]) != 0.0 ? 1 : 2];
        }
        return tg_draft_many(d, op, ids, n, value, where);
    case TG_CROSS_ENTROPY:
        top = tg_draft_many(d, TG_TOP, ids, n - 1, tg_top(d->value, ids, n - 1), where);
        for (uint32_t k = 0; k < n; k++)
            ids[k] = compute(d, TG_SUB, ids[k], top, where);
        y = tg_draft_many(d, TG_LOGSUMEXP, ids, n - 1, tg_logsumexp(d->value, ids, n - 1), where);
        return tg_draft_two(d, TG_SUB, y, ids[n - 1], value, where);
    case TG_MSE:
        for (uint32_t k = 0; k < half; k++)
            ids[k] = ids[half + k] = compute(d, TG_SUB, ids[k], ids[half + k], where);
        y = dot_of(d, ids, n, tg_dot(d->value, ids, n), where);
        return tg_draft_two(d, TG_DIV, y, tg_draft_constant(d, half), value, where);
    case TG_HINGE:
        for (uint32_t k = 0; k < half; k++) {
            uint32_t product = compute(d, TG_MUL, ids[half + k], ids[k], where);
            uint32_t margin = compute(d, TG_SUB, tg_draft_constant(d, 1.0), product, where);
            ids[k] = compute(d, TG_RELU, margin, margin, where);
        }
        y = tg_draft_many(d, TG_SUM, ids, half, tg_sum(d->value, ids, half), where);
        return tg_draft_two(d, TG_DIV, y, tg_draft_constant(d, half), value, where);
    default: return tg_draft_many(d, op, ids, n, value, where);
    }
}

/* ---- from the tape ---- */

enum { NEEDED = 1, IS_INPUT = 2, IS_RESULT = 4 };

typedef struct {
    uint32_t first;             /* the lowest id that is needed */
    uint32_t top;               /* above the highest */
    uint32_t *number;           /* of id: its node, where it is needed and has one */
    uint8_t *needed;            /* of id; with number in one block */
    uint64_t nodes, words;      /* most that the draft can need */
    uint32_t widest, reached;
    int losses, anything;       /* anything: outputs may be older than the start */
    const tg_loop **loop;       /* those that are called */
    uint32_t n_calls;
} reach;

static tg_kept kept;

/* What was there before the start is a constant, if it is no input. */
static int reach_down(const tg_tape *t, const tg_recording *rec, reach *r)
{
    const size_t len = t->len + (size_t)1;
    const uint32_t start = rec->start, *const as = t->a, *const bs = t->b;
    const uint8_t *const ops = t->op;
    uint8_t refusing[TG_OPCODE + 1] = {0}, *needed;
    uint32_t reached = 0, n_events = rec->n_events;
    int code = TG_OK;
    r->number = tg_borrow(&kept, len * (sizeof *r->number + sizeof *needed));
    if (!r->number)
        return TG_MEMORY;
    needed = r->needed = (uint8_t *)(r->number + len);
    memset(needed, 0, len);
    r->first = t->len;
    for (uint32_t k = 0; k < rec->n_in; k++)
        needed[rec->in[k]] = IS_INPUT;
#define NEED(id)                                                                                                       \
    do {                                                                                                               \
        needed[id] |= NEEDED;                                                                                          \
        r->top = (id) >= r->top ? (id) + 1 : r->top;                                                                   \
    } while (0)
    for (uint32_t k = 0; k < rec->n_out; k++) {
        if (!r->anything && rec->out[k] < rec->start && !(needed[rec->out[k]] & IS_INPUT))
            code = TG_ELSEWHERE;
        NEED(rec->out[k]);
    }
    for (uint32_t k = 0; k < rec->n_compared; k++) {
        if (rec->compared[k].a != TG_NONE)
            NEED(rec->compared[k].a);
        if (rec->compared[k].b != TG_NONE)
            NEED(rec->compared[k].b);
    }
    for (uint32_t call = 0; call < rec->n_calls; call++) {
        const tg_noted_call *c = rec->call + call;
        for (uint32_t k = 0; k < c->n_in + c->n_out; k++) {
            NEED(c->id[k]);
            needed[c->id[k]] |= k < c->n_in ? 0 : IS_RESULT;
        }
        r->nodes += (uint64_t)c->n_out + 1;
        r->words += (uint64_t)c->n_in + 1;
    }
    for (int op = 0; op < TG_OPS; op++)
        refusing[op] = (uint8_t)tg_can_refuse(op);
    for (uint32_t i = code ? 0 : t->len; i-- > 0;) {
        uint32_t n, *ids;
        int op;
        if (i >= start && refusing[ops[i] & TG_OPCODE]) {
            while (n_events && rec->event[n_events - 1].id > i)
                n_events--;
            if (!n_events || !(rec->event[n_events - 1].quiet || rec->event[n_events - 1].where == TG_FOREIGN))
                NEED(i);
        }
        if (!(needed[i] & NEEDED))
            continue;
        r->first = i;
        reached++;
        op = ops[i] & TG_OPCODE;
        if (needed[i] != NEEDED || i < start || op == TG_LEAF || op == TG_NODE)
            continue;
        if (!tg_is_many(op)) {                          /* an exponent is no operand to differentiate, but read */
            needed[as[i]] |= NEEDED;
            needed[bs[i]] |= NEEDED;
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
    r->reached = reached;
    r->nodes += reached;
#undef NEED
    r->nodes += rec->n_in + (uint64_t)rec->n_compared * 2;
    if (!code && !(r->loop = tg_realloc(NULL, (rec->n_calls + (size_t)1) * sizeof *r->loop)))
        code = TG_MEMORY;
    return !code && (r->nodes >= TG_NONE / 4 || r->words >= TG_NONE / 4) ? TG_FULL : code;
}

/* A call and its results, or what these are where all operands are constants. */
static void add_call(const tg_tape *t, const tg_noted_call *c, reach *r, tg_draft *d)
{
    const uint32_t *results = c->id + c->n_in, call = d->len, start = d->pool_len;
    int all = 1;
    for (uint32_t k = 0; k < c->n_in; k++) {
        d->pool[d->pool_len] = r->number[c->id[k]];
        all &= tg_draft_is_constant(d, d->pool[d->pool_len++]);
    }
    d->folded += (uint32_t)all;
    if (all)
        d->pool_len = start;
    else {
        tg_draft_add(d, (tg_draft_node){.op = TG_CALL, .a = start, .b = c->n_in, .where = c->where}, 0.0);
        r->loop[r->n_calls++] = c->loop;
    }
    for (uint32_t k = 0; k < c->n_out; k++)
        r->number[results[k]] =
            all ? tg_draft_constant(d, t->data[results[k]])
                : tg_draft_add(d, (tg_draft_node){.op = TG_RESULT, .a = call, .b = k}, t->data[results[k]]);
}

/* Where a draft is on its way up. */
typedef struct {
    uint32_t asked, call, event;    /* how many of the recording's are behind */
    uint32_t position;              /* where the last question that was looked at belongs */
    uint32_t where, foreign;        /* what nodes are now */
    uint32_t next;                  /* nothing of the recording's comes before this id */
} course;

/* What comes before node i: questions as soon as their operands are there, and in order; calls; events. */
static void catch_up(const tg_tape *t, const tg_recording *rec, reach *r, tg_draft *d, course *at, uint32_t i)
{
    at->next = TG_NONE;
    for (; at->asked < rec->n_compared; at->asked++) {
        const tg_comparison *c = rec->compared + at->asked;
        const uint32_t after = c->a == TG_NONE || (c->b != TG_NONE && c->b > c->a) ? c->b : c->a;
        uint32_t a, b;
        at->position = after + 1 > at->position ? after + 1 : at->position;
        if (at->position > i) {
            at->next = at->position;
            break;
        }
        a = c->a == TG_NONE ? tg_draft_constant(d, c->k) : r->number[c->a];
        b = c->b == TG_NONE ? tg_draft_constant(d, c->k) : r->number[c->b];
        if (!tg_draft_is_constant(d, a) || !tg_draft_is_constant(d, b))
            tg_draft_guard(d, a, b, c->where, c->how << 1 | c->outcome, at->asked);
    }
    for (; at->call < rec->n_calls; at->call++) {
        const tg_noted_call *c = rec->call + at->call;
        if (c->id[c->n_in] > i) {
            at->next = c->id[c->n_in] < at->next ? c->id[c->n_in] : at->next;
            break;
        }
        add_call(t, c, r, d);
    }
    for (; at->event < rec->n_events; at->event++) {
        const tg_event *e = rec->event + at->event;
        if (e->id > i) {
            at->next = e->id < at->next ? e->id : at->next;
            break;
        }
        at->foreign = e->where == TG_FOREIGN;
        at->where = at->foreign ? 0 : e->where;
        d->quiet = e->quiet != 0;
    }
}

/* Nodes from .. to - 1, between which nothing of the recording's comes. */
static void draft_some(const tg_tape *t, const tg_recording *rec, const reach *r, tg_draft *d, const course *at,
                       uint32_t from, uint32_t to, uint32_t *ids)
{
    const uint32_t start = rec->start, where = at->where, foreign = at->foreign;
    const uint32_t *const as = t->a, *const bs = t->b;
    const double *const data = t->data;
    const uint8_t *const needed = r->needed, *const ops = t->op;
    uint32_t *const number = r->number;
    for (uint32_t i = from; i < to; i++) {
        const int op = ops[i] & TG_OPCODE;
        if (needed[i] != NEEDED)
            continue;
        if (foreign)
            d->foreign += i >= start && op != TG_LEAF;
        if (i < start || op == TG_LEAF || op == TG_NODE) {
            d->captured += i < start && i >= rec->outer;
            number[i] = tg_draft_constant(d, data[i]);
        } else if (op == TG_COPY)
            number[i] = number[as[i]];
        else if (tg_is_many(op)) {
            const uint32_t n = tg_operands(t, i, ids, r->widest);
            for (uint32_t k = 0; k < n; k++)
                ids[k] = number[ids[k]];
            number[i] = many_of(d, op, ids, n, data[i], where);
        } else
            number[i] = tg_draft_quickly(d, op, number[as[i]], number[bs[i]], data[i], where);
    }
}

static void draft_up(const tg_tape *t, const tg_recording *rec, reach *r, tg_draft *d, uint32_t *ids)
{
    course at = {0};
    for (uint32_t k = 0; k < rec->n_in; k++) {          /* inputs first: nodes 0 to n_in - 1 */
        tg_draft_add(d, (tg_draft_node){.op = TG_INPUT, .a = k}, t->data[rec->in[k]]);
        r->number[rec->in[k]] = k;
    }
    for (uint32_t i = r->first, to; i < r->top; i = to) {
        catch_up(t, rec, r, d, &at, i);
        to = at.next < r->top ? at.next : r->top;
        draft_some(t, rec, r, d, &at, i, to, ids);
    }
    catch_up(t, rec, r, d, &at, r->top);                /* what was asked at the end */
}

static int known(const tg_tape *t, const uint32_t *ids, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (ids[k] >= t->len)
            return 0;
    return 1;
}

/* Whether all ids are there, and those of calls in order. */
static int all_known(const tg_tape *t, const tg_recording *rec)
{
    int all = known(t, rec->in, rec->n_in) && known(t, rec->out, rec->n_out);
    uint32_t last = rec->start;
    for (uint32_t k = 0; k < rec->n_compared; k++) {
        const tg_comparison *c = rec->compared + k;
        all &= !((c->a >= t->len && (c->a != TG_NONE || c->b == TG_NONE)) || (c->b >= t->len && c->b != TG_NONE));
    }
    for (uint32_t call = 0; all && call < rec->n_calls; call++) {
        const tg_noted_call *c = rec->call + call;
        const uint32_t *results = c->id + c->n_in;
        all &= c->n_out && known(t, c->id, c->n_in) && known(t, results, c->n_out);
        for (uint32_t k = 0; all && k < c->n_out; k++) {
            all &= results[k] > last;
            last = results[k];
        }
        for (uint32_t k = 0; all && k < c->n_in; k++)
            all &= c->id[k] < results[0];
    }
    return all;
}

int64_t tg_find_older(const tg_tape *t, const tg_recording *rec, uint32_t *ids, uint32_t most)
{
    reach r = {.anything = 1};
    int code = all_known(t, rec) ? TG_OK : TG_BAD_ID;
    uint32_t n = 0;
    if (!code)
        code = reach_down(t, rec, &r);
    for (uint32_t i = r.first; !code && i < rec->start && i < r.top; i++)
        if (r.needed[i] == NEEDED) {
            if (n < most)
                ids[n] = i;
            n++;
        }
    tg_give_back(&kept, r.number);
    free(r.loop);
    return code ? code : (int64_t)n;
}

tg_program *tg_freeze(const tg_tape *t, const tg_recording *rec, int64_t *code)
{
    reach r = {0};
    tg_draft d = {0};
    uint32_t *ids = NULL;
    tg_program *p = NULL;
    *code = all_known(t, rec) ? TG_OK : TG_BAD_ID;
    if (*code)
        return NULL;
    *code = reach_down(t, rec, &r);
    d.valued = (uint8_t)r.losses;
    if (!*code)
        *code = tg_draft_room(&d, r.nodes, 3 * (r.words + r.nodes));
    if (!*code) {
        ids = tg_realloc(NULL, (r.widest + (size_t)2 + rec->n_out) * sizeof *ids);
        if (ids) {
            draft_up(t, rec, &r, &d, ids);
            for (uint32_t k = 0; k < rec->n_out; k++)
                ids[k] = r.number[rec->out[k]];
            p = tg_finish_draft(&d, ids, rec->n_out);
            *code = p && r.n_calls ? tg_set_calls(p, r.loop, r.n_calls) : TG_OK;
            if (*code) {
                tg_free_program(p);
                p = NULL;
            }
        }
        if (p) {
            p->reached = r.reached;
            p->recorded = t->len - rec->start;
            p->captured = d.captured;
            p->foreign = d.foreign;
        } else
            *code = *code ? *code : TG_MEMORY;
    }
    tg_give_back(&kept, r.number);
    free(r.loop);
    tg_free_draft(&d);
    free(ids);
    return p;
}
