/*  Programs as such: their memory, what they cost, and whether one from elsewhere can be replayed.  */
#include "loops/loop.h"
#include "ops.h"
#include "wide/pieces.h"
#include "wide/wide.h"

#include <stdlib.h>
#include <string.h>

tg_program *tg_new_program(uint32_t n_const, uint32_t n_in, uint32_t n_out, uint32_t n_instr, uint32_t n_pool)
{
    const uint64_t all = n_instr * (uint64_t)sizeof(tg_instr), bytes = sizeof(tg_program) +
                         n_const * (uint64_t)sizeof(double) + (n_pool + (uint64_t)n_out) * 2 * sizeof(uint32_t);
    tg_program *p = bytes <= SIZE_MAX && all < SIZE_MAX ? tg_zeroed((size_t)bytes) : NULL;
    if (!p)
        return NULL;
    p->instr = tg_zeroed((size_t)all + 1);
    if (!p->instr) {
        free(p);
        return NULL;
    }
    p->n_const = n_const;
    p->n_in = n_in;
    p->n_out = n_out;
    p->n_instr = p->n_alone = n_instr;
    p->n_pool = n_pool;
    p->constant = (double *)(p + 1);
    p->pool = (uint32_t *)(p->constant + n_const);
    p->out = p->pool + 2 * (size_t)n_pool;
    p->bytes = bytes + all;
    return p;
}

void tg_free_program(tg_program *p)
{
    if (!p)
        return;
    free(p->instr);
    if (p->alone[TG_LIVE] != p->alone[TG_KEPT])
        free(p->alone[TG_LIVE]);
    free(p->alone[TG_KEPT]);
    free(p->where);
    free(p->order);
    free(p->call);
    tg_free_groups(p->wide);
    tg_free_pieces(p->pieces);
    free(p);
}

int tg_set_order(tg_program *p, const uint32_t *order)
{
    const size_t bytes = p->n_instr * sizeof *p->order;
    p->order = tg_realloc(p->order, bytes + 1);
    if (!p->order)
        return TG_MEMORY;
    memcpy(p->order, order, bytes);
    p->bytes += bytes;
    return TG_OK;
}

/* What kind of link an instruction would be behind one that gives slot y, a kept one; 0: none. */
static uint32_t kind_of_link(const tg_program *p, const tg_half *s, uint32_t y)
{
    const uint32_t row = (uint32_t)tg_row(s), *x;
    switch (row) {
    case TG_ADD:
    case TG_SUB:
    case TG_MUL: return s->a == y ? 4 * row + 1 : s->b == y ? 4 * row + 2 : 0;
    case TG_DOT:
        x = p->pool + 2 * (size_t)s->a;
        return s->b != 3 ? 0 : x[0] == y ? 4 * row + 1 : x[2] == y ? 4 * row + 2 : x[4] == y ? 4 * row + 3 : 0;
    default: return 0;
    }
}

static void mark_links(tg_program *p)
{
    const tg_half *s = p->alone[TG_KEPT];
    uint32_t n = 0, last = 0, last_but_one = 0;         /* n: how many links there are in a row */
    for (uint32_t k = 1; k <= p->n_alone; k++) {
        const uint32_t kind = k < p->n_alone ? kind_of_link(p, s + k, s[k - 1].y) : 0;
        if (!kind || (n > 1 && kind != last && kind != last_but_one)) {
            for (uint32_t i = k - n; n >= TG_FEW_LINKS && i < k; i++) {
                p->alone[TG_KEPT][i].op |= TG_LINK;
                p->alone[TG_LIVE][i].op |= TG_LINK;
            }
            n = 0;
        }
        n += kind != 0;
        last_but_one = last;
        last = kind;
    }
}

/* Half of an instruction: as its slots are in one of the numberings. */
static tg_half half_of(const tg_instr *s, int numbering)
{
    const int live = numbering == TG_LIVE, same = !live || tg_is_pooled(tg_row(s));
    return (tg_half){s->op, live ? s->live_y : s->y, same ? s->a : s->live_a, same ? s->b : s->live_b};
}

/* Whether both halves of all instructions are the same, so that they are stored once. */
static int halves_agree(const tg_program *p)
{
    uint32_t k = 0;
    for (; k < p->n_alone; k++) {
        const tg_half kept = half_of(p->instr + k, TG_KEPT), live = half_of(p->instr + k, TG_LIVE);
        if (memcmp(&kept, &live, sizeof kept))
            break;
    }
    return k == p->n_alone;
}

int tg_pack_program(tg_program *p)
{
    const int agree = halves_agree(p);
    const size_t n = p->n_alone, half = n * sizeof(tg_half);
    uint32_t *const where = tg_realloc(NULL, n * sizeof *where + 1);
    tg_half *const live = agree ? NULL : tg_realloc(NULL, half + 1), *fewer;
    if (!where || (!agree && !live)) {
        free(where);
        free(live);
        return TG_MEMORY;
    }
    for (uint32_t k = 0; k < n; k++) {
        where[k] = p->instr[k].where;
        if (live)
            live[k] = half_of(p->instr + k, TG_LIVE);
    }
    for (uint32_t k = 0; k < n; k++) {                  /* in place: there may be many */
        const tg_half kept = half_of(p->instr + k, TG_KEPT);
        memcpy((char *)p->instr + k * sizeof kept, &kept, sizeof kept);
    }
    fewer = tg_realloc(p->instr, half + 1);
    p->alone[TG_KEPT] = fewer ? fewer : (tg_half *)(void *)p->instr;
    p->alone[TG_LIVE] = live ? live : p->alone[TG_KEPT];
    p->where = where;
    p->instr = NULL;
    p->bytes += (agree ? 1 : 2) * half + n * sizeof *where - p->n_instr * (uint64_t)sizeof(tg_instr);
    mark_links(p);
    return TG_OK;
}

int tg_set_calls(tg_program *p, const tg_loop *const *loops, uint32_t n)
{
    const size_t bytes = n * sizeof *p->call;
    uint32_t k = 0;
    tg_window w;
    tg_open_window(&w, p);
    p->call = tg_zeroed(bytes + 1);
    if (!p->call)
        return TG_MEMORY;
    p->bytes += bytes;
    for (uint32_t at = 0; at < p->n_instr; at++) {
        uint64_t n_in, n_out;
        if (tg_row(tg_at(&w, at)) != TG_CALL)
            continue;
        if (k == n)
            return TG_BAD_ID;
        n_in = (uint64_t)loops[k]->first_param + loops[k]->n_params;
        n_out = loops[k]->n_state + (uint64_t)loops[k]->n_y * (uint64_t)loops[k]->length;
        if (n_in >= TG_NONE || n_out >= TG_NONE)
            return TG_BAD_ID;
        for (uint32_t m = 0; m < loops[k]->step->n_paths; m++)
            if (loops[k]->step->program[m]->depth >= p->depth)
                p->depth = loops[k]->step->program[m]->depth + 1;
        p->call[k] = (tg_called){loops[k], at, (uint32_t)n_in, (uint32_t)n_out};
        k++;
    }
    p->n_calls = k;
    return k == n && p->depth <= TG_DEEPEST ? TG_OK : TG_BAD_ID;
}

/* The operands of all many-operand instructions, and those and the results of calls. */
static uint64_t pooled(const tg_program *p)
{
    uint64_t n = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++)
        n += tg_is_pooled(tg_row(tg_at(&w, k))) ? tg_at(&w, k)->b : 0;
    return n;
}

tg_program *tg_plain_program(const tg_program *p)
{
    const uint64_t words = pooled(p);                   /* an operand of two instructions may be once in the pool */
    tg_program *plain = words < TG_NONE ? tg_new_program(p->n_const, p->n_in, p->n_out, p->n_instr, (uint32_t)words) :
                                          NULL;
    const uint32_t fixed = p->n_const + p->n_in;
    uint32_t *at = tg_realloc(NULL, p->n_instr * sizeof *at + 1), *pool = tg_realloc(NULL, p->n_instr * sizeof *at + 1);
    uint32_t *in_slot = tg_realloc(NULL, p->n_kept * sizeof *in_slot + 1), n_pool = 0;
    uint32_t next = fixed + p->n_instr;                 /* results of calls */
    tg_window w;
    tg_open_window(&w, p);
    if (!plain || !at || !pool || !in_slot) {
        tg_free_program(plain);
        plain = NULL;
        goto done;
    }
    plain->call = p->n_calls ? tg_zeroed(p->n_calls * sizeof *p->call) : NULL;
    if (p->n_calls && !plain->call) {
        tg_free_program(plain);
        plain = NULL;
        goto done;
    }
    plain->n_calls = p->n_calls;
    plain->depth = p->depth;
    for (uint32_t k = 0; k < p->n_calls; k++)
        plain->call[k] = p->call[k];                    /* there is no order then */
    plain->n_guards = p->n_guards;
    if (p->n_const)
        memcpy(plain->constant, p->constant, p->n_const * sizeof *p->constant);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        at[p->order ? p->order[k] : k] = k;
        pool[k] = tg_is_pooled(tg_row(tg_at(&w, k))) ? tg_at(&w, k)->b : 0;
    }
    for (uint32_t k = 0; k < p->n_instr; k++) {         /* pools in the function's order, too */
        const uint32_t own = pool[at[k]];
        pool[at[k]] = n_pool;
        n_pool += own;
    }
    for (uint32_t k = 0; k < fixed; k++)
        in_slot[k] = k;
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        const uint32_t place = p->order ? p->order[k] : k;
        tg_instr *to = plain->instr + place;
        *to = *s;
        if (tg_is_pooled(tg_row(s))) {
            to->a = pool[k];
            for (uint32_t m = 0; m < s->b; m++) {
                const uint32_t slot = p->pool[2 * (size_t)(s->a + m)];
                uint32_t *pair = plain->pool + 2 * (size_t)(to->a + m);
                if (tg_row(s) == TG_CALL && m >= p->call[s->y].n_in)
                    in_slot[slot] = next++;
                pair[0] = pair[1] = in_slot[slot];
            }
        } else {
            to->a = to->live_a = in_slot[s->a];
            to->b = to->live_b = in_slot[s->b];
        }
        if (tg_row(s) < TG_GUARD)
            in_slot[s->y] = to->y = to->live_y = fixed + place;
    }
    plain->n_kept = plain->n_live = next;
    for (uint32_t k = 0; k < 2 * p->n_out; k++)
        plain->out[k] = in_slot[p->out[k & ~1u]];
done:
    free(at);
    free(pool);
    free(in_slot);
    return plain;
}

uint64_t tg_cost(const tg_program *p)
{
    uint64_t each[TG_GUARD + 1] = {[TG_GUARD] = 1}, cost = 0;
    const uint64_t most = (uint64_t)1 << 62;
    tg_window w;
    tg_open_window(&w, p);
    for (int op = 0; op < TG_OPS; op++)
        each[op] = strchr(tg_is_many(op) ? tg_ops[op].da : tg_ops[op].primal, '(') ? 16 : 1;
    for (uint32_t k = 0, group = 0, n; k < p->n_instr; k += n) {
        const tg_instr *s = tg_at(&w, k);
        if (tg_row(s) == TG_CALL) {
            const tg_loop *o = p->call[s->y].loop;
            const uint64_t step = tg_cost(o->step->program[0]) + 4;
            n = 1;
            cost += s->b + (step < most / ((uint64_t)o->length + 1) ? step * (uint64_t)o->length : most);
        } else {
            const tg_group *g = p->wide && group < p->wide->n ? p->wide->group + group : NULL;
            const int begins = g && g->first == k;
            group += begins;
            n = begins && !g->products ? g->n : 1;              /* all of which cost the same */
            cost += n * each[tg_row(s)] * (tg_is_many(tg_row(s)) ? s->b : 1);
        }
        cost = cost < most ? cost : most;
    }
    return cost;
}

/* ---- from elsewhere ---- */

/* What the slots hold as the instructions go by: a constant or an input is the number of its slot, a result comes after
   those, and those of calls come last; TG_NONE before there is any. */
typedef struct {
    const tg_program *p;
    uint32_t n_calls, n_results;        /* calls until now, and their results */
    uint32_t fixed, *kept, *live;       /* by slot - fixed */
    uint32_t place;                     /* of the instruction that reads, in the function's order */
    uint8_t *retained;                  /* by kept slot - fixed: a partial names what is in it */
    uint8_t named[TG_NAMED];            /* see tg_names */
} contents;

static uint32_t place_of(const tg_program *p, uint32_t k) { return p->order ? p->order[k] : k; }

/* Whether both slots are there and hold the same, which is there by then in the function's order, too. */
static int agree(const contents *c, uint32_t kept, uint32_t live)
{
    uint32_t value;
    if (kept >= c->p->n_kept || live >= c->p->n_live)
        return 0;
    value = kept < c->fixed ? kept : c->kept[kept - c->fixed];
    return value != TG_NONE && value == (live < c->fixed ? live : c->live[live - c->fixed]) &&
           (value < c->fixed || value - c->fixed >= c->p->n_instr || place_of(c->p, value - c->fixed) < c->place);
}

static void retain(contents *c, uint32_t kept)
{
    if (kept >= c->fixed)
        c->retained[kept - c->fixed] = 1;
}

/* Read the operands of s, whose partials name these. */
static int operands_agree(contents *c, const tg_instr *s, int named)
{
    const uint32_t *pool = c->p->pool + 2 * (size_t)s->a;
    if (!tg_is_many(tg_row(s))) {
        if (!agree(c, s->a, s->live_a) || !agree(c, s->b, s->live_b))
            return 0;
        if (named & TG_NAMES_A)
            retain(c, s->a);
        if (named & TG_NAMES_B)
            retain(c, s->b);
        return !tg_is_passive(tg_row(s)) || s->b < c->p->n_const;
    }
    if (!s->b || s->a > c->p->n_pool || s->b > c->p->n_pool - s->a || s->live_a || s->live_b)
        return 0;
    for (uint32_t k = 0; k < s->b; k++) {
        uint32_t kept = pool[2 * (size_t)k], live = pool[2 * (size_t)k + 1];
        if (!agree(c, kept, live) || kept == s->y || live == s->live_y)
            return 0;
        if (named & TG_NAMES_A && tg_names_operand(tg_row(s), k, s->b) &&
            !(tg_row(s) == TG_DOT && pool[2 * (size_t)(k ^ 1)] < c->p->n_const))
            retain(c, kept);
    }
    return 1;
}

/* Read the operands of the call that is instruction k, s, and put its results where they belong. */
static int call_agrees(contents *c, const tg_instr *s, uint32_t k)
{
    const tg_program *p = c->p;
    const uint32_t *pool;
    const tg_called *called;
    if (p->order || s->y != c->n_calls || s->y >= p->n_calls || s->live_y || s->live_a || s->live_b ||
        s->a > p->n_pool || s->b > p->n_pool - s->a)
        return 0;
    pool = p->pool + 2 * (size_t)s->a;
    called = p->call + s->y;
    if (called->at != k || s->b != (uint64_t)called->n_in + called->n_out)
        return 0;
    c->n_calls++;
    for (uint32_t m = 0; m < called->n_in; m++) {
        if (!agree(c, pool[2 * (size_t)m], pool[2 * (size_t)m + 1]))
            return 0;
        retain(c, pool[2 * (size_t)m]);
    }
    for (int set = 1; set >= 0; set--)                  /* and then see whether each is still there */
        for (uint32_t m = 0; m < called->n_out; m++) {
            const uint32_t kept = pool[2 * (size_t)(called->n_in + m)], live = pool[2 * (size_t)(called->n_in + m) + 1];
            const uint32_t value = c->fixed + p->n_instr + c->n_results + m;
            if (kept < c->fixed || live < c->fixed || kept >= p->n_kept || live >= p->n_live ||
                c->retained[kept - c->fixed])
                return 0;
            if (set)
                c->kept[kept - c->fixed] = c->live[live - c->fixed] = value;
            else if (c->kept[kept - c->fixed] != value || c->live[live - c->fixed] != value)
                return 0;
        }
    for (uint32_t m = 0; m < called->n_in; m++) {       /* an operand's live slot is not a result's */
        const uint32_t live = pool[2 * (size_t)m + 1];
        if (live >= c->fixed && c->live[live - c->fixed] != TG_NONE &&
            c->live[live - c->fixed] >= c->fixed + p->n_instr + c->n_results)
            return 0;
    }
    c->n_results += called->n_out;
    return 1;
}

#define NO_GUARD (TG_NONE - 1)

/* Whether order, where there is one, has each instruction once, and guards in the function's order have numbers that
   grow. number: room for each instruction. */
static int guards_grow(const tg_program *p, uint32_t *number)
{
    uint32_t guards = 0, next = 0;
    tg_window w;
    tg_open_window(&w, p);
    memset(number, 0xFF, p->n_instr * sizeof *number);  /* TG_NONE */
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        const uint32_t place = place_of(p, k), own = tg_row(s) == TG_GUARD ? s->live_y : NO_GUARD;
        if (place >= p->n_instr || number[place] != TG_NONE || (tg_row(s) == TG_GUARD && own >= NO_GUARD))
            return 0;
        number[place] = own;
    }
    for (uint32_t k = 0; k < p->n_instr; k++) {
        if (number[k] == NO_GUARD)
            continue;
        if (number[k] < next)
            return 0;
        next = number[k] + 1;
        guards++;
    }
    return guards == p->n_guards;
}

static int in_order(contents *c)
{
    const tg_program *p = c->p;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        int named = 0;
        c->place = place_of(p, k);
        if (tg_row(s) > TG_CALL || s->op & TG_LINK ||
            (tg_row(s) < TG_GUARD && !tg_ops[tg_row(s)].da[0]) ||
            (s->op & TG_QUIET && !tg_can_refuse(tg_row(s))) || (tg_row(s) == TG_WHERE && s->b != 3))
            return 0;
        if (tg_row(s) == TG_CALL) {
            if (s->op & TG_QUIET || !call_agrees(c, s, k))
                return 0;
            continue;
        }
        if (tg_row(s) == TG_GUARD) {
            const uint32_t how = s->y >> 1, as = (how - TG_REFUSES) / TG_REFUSAL, row = (how - TG_REFUSES) % TG_REFUSAL;
            if (how >= TG_REFUSES && (row >= TG_OPS || as > 3 || !tg_can_refuse((int)row) || tg_is_many((int)row) ||
                                      !(s->y & 1)))
                return 0;
        } else {
            named = tg_names(tg_row(s), tg_moving(p, s), c->named);
            if (s->y < c->fixed || s->live_y < c->fixed || s->y >= p->n_kept || s->live_y >= p->n_live ||
                c->retained[s->y - c->fixed])
                return 0;
            if (!tg_is_many(tg_row(s)) &&
                (s->a == s->y || s->b == s->y || s->live_a == s->live_y || s->live_b == s->live_y))
                return 0;
        }
        if (!operands_agree(c, s, named))
            return 0;
        if (tg_row(s) != TG_GUARD) {
            if (c->retained[s->y - c->fixed])           /* by its own operands */
                return 0;
            c->kept[s->y - c->fixed] = c->live[s->live_y - c->fixed] = c->fixed + k;
            if (named & TG_NAMES_Y)
                retain(c, s->y);
        }
    }
    c->place = TG_NONE;
    for (uint32_t k = 0; k < p->n_out; k++)
        if (!agree(c, p->out[2 * (size_t)k], p->out[2 * (size_t)k + 1]))
            return 0;
    return c->n_calls == p->n_calls;
}

int tg_check_program(const tg_program *p)
{
    uint64_t fixed = (uint64_t)p->n_const + p->n_in, most = fixed + p->n_instr;
    contents c = {.p = p, .fixed = (uint32_t)fixed};
    size_t kept, live;
    uint32_t *at;
    int code;
    for (uint32_t k = 0; k < p->n_calls; k++)
        most += p->call[k].n_out;
    if (most >= TG_NONE || p->n_kept < fixed || p->n_live < fixed || p->n_kept > most || p->n_live > most)
        return TG_BAD_ID;
    kept = p->n_kept - (size_t)fixed;
    live = p->n_live - (size_t)fixed;
    c.kept = tg_realloc(NULL, kept * sizeof *c.kept + 1);
    c.live = tg_realloc(NULL, live * sizeof *c.live + 1);
    c.retained = tg_zeroed(kept + 1);
    at = tg_realloc(NULL, p->n_instr * sizeof *at + 1);
    code = c.kept && c.live && c.retained && at ? TG_OK : TG_MEMORY;
    if (!code) {
        memset(c.kept, 0xFF, kept * sizeof *c.kept);    /* TG_NONE */
        memset(c.live, 0xFF, live * sizeof *c.live);
        code = guards_grow(p, at) && in_order(&c) && (!p->order || pooled(p) <= p->n_pool) ? TG_OK : TG_BAD_ID;
    }
    free(c.kept);
    free(c.live);
    free(c.retained);
    free(at);
    return code;
}
