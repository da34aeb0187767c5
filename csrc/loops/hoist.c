/*  Which instructions are the same in all steps, and slots for the program that has them first.  */
#include "loops/hoist.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const tg_program *p;
    uint8_t *same;              /* by kept slot: whether what is there now is the same in all steps */
    uint8_t *hoisted;           /* by instruction */
    uint32_t *now, *order;      /* by kept slot: where that is in the new program; by new instruction: which it was */
    uint32_t *kept, *live;      /* by slot: the new one of what is not hoisted, TG_NONE before there is any */
    uint64_t pooled;
} hoisting;

/* The operands of an instruction, pair after pair; pair: room for those of one that has them in itself. */
static const uint32_t *operands_of(const tg_program *p, const tg_instr *s, uint32_t pair[4], uint32_t *n)
{
    if (tg_is_many(tg_row(s))) {
        *n = s->b;
        return p->pool + 2 * (size_t)s->a;
    }
    pair[0] = s->a;
    pair[1] = s->live_a;
    pair[2] = s->b;
    pair[3] = s->live_b;
    *n = 2;
    return pair;
}

/* How many instructions are hoisted. */
static uint32_t mark(hoisting *h, uint32_t n_own)
{
    const tg_program *p = h->p;
    uint32_t count = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t slot = 0; slot < p->n_const + p->n_in; slot++)
        h->same[slot] = slot < p->n_const || slot >= p->n_const + n_own;
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        uint32_t pair[4], n;
        const uint32_t *operand = operands_of(p, s, pair, &n);
        int same = tg_row(s) != TG_GUARD;
        h->pooled += tg_is_many(tg_row(s)) ? n : 0;
        for (uint32_t i = 0; i < n; i++)
            same &= h->same[operand[2 * (size_t)i]];
        h->hoisted[k] = (uint8_t)same;
        count += (uint32_t)same;
        if (tg_row(s) != TG_GUARD)
            h->same[s->y] = (uint8_t)same;
    }
    return count;
}

/* A pair of slots in the new program: what has one of its own, or is fixed, has it in both numberings. */
static void place(const hoisting *h, const tg_program *made, const uint32_t pair[2], uint32_t *kept, uint32_t *live)
{
    *kept = h->now[pair[0]];
    *live = *kept < made->n_const + made->n_in + made->n_hoisted ? *kept : h->live[pair[1]];
}

/* The new slot of a result that is not hoisted; *n counts them. */
static uint32_t slot_of(uint32_t *slots, uint32_t old, uint32_t *n)
{
    if (slots[old] == TG_NONE)
        slots[old] = (*n)++;
    return slots[old];
}

static void write(hoisting *h, tg_program *made)
{
    const tg_program *p = h->p;
    const uint32_t fixed = p->n_const + p->n_in;
    uint32_t first = 0, other = made->n_hoisted, n_pool = 0;
    tg_window w;
    tg_open_window(&w, p);
    made->n_kept = made->n_live = fixed + made->n_hoisted;
    memset(h->kept, 0xFF, p->n_kept * sizeof *h->kept); /* TG_NONE */
    memset(h->live, 0xFF, p->n_live * sizeof *h->live);
    for (uint32_t slot = 0; slot < fixed; slot++)
        h->now[slot] = slot;
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        const uint32_t at = h->hoisted[k] ? first++ : other++;
        tg_instr *to = made->instr + at;
        uint32_t pair[4], n;
        const uint32_t *operand = operands_of(p, s, pair, &n);
        *to = *s;
        h->order[at] = k;
        if (tg_is_many(tg_row(s))) {
            uint32_t *pool = made->pool + 2 * (size_t)n_pool;
            for (uint32_t i = 0; i < n; i++, pool += 2)
                place(h, made, operand + 2 * (size_t)i, pool, pool + 1);
            to->a = n_pool;
            n_pool += n;
        } else {
            place(h, made, operand, &to->a, &to->live_a);
            place(h, made, operand + 2, &to->b, &to->live_b);
        }
        if (tg_row(s) == TG_GUARD)
            continue;
        to->y = h->hoisted[k] ? fixed + at : slot_of(h->kept, s->y, &made->n_kept);
        to->live_y = h->hoisted[k] ? fixed + at : slot_of(h->live, s->live_y, &made->n_live);
        h->now[s->y] = to->y;
    }
    for (uint32_t i = 0; i < p->n_out; i++)
        place(h, made, p->out + 2 * (size_t)i, made->out + 2 * (size_t)i, made->out + 2 * (size_t)i + 1);
}

int tg_hoist(const tg_program *p, uint32_t n_own, tg_program **made)
{
    hoisting h = {.p = p};
    const size_t words = 2 * (size_t)p->n_kept + p->n_live + p->n_instr;
    uint32_t count = 0;
    int code = TG_MEMORY;
    *made = NULL;
    if (p->order || p->n_calls)
        return TG_OK;
    h.now = tg_realloc(NULL, words * sizeof *h.now + 1);
    h.same = tg_realloc(NULL, words + 1);
    if (h.now && h.same) {
        h.kept = h.now + p->n_kept;
        h.live = h.kept + p->n_kept;
        h.order = h.live + p->n_live;
        h.hoisted = h.same + p->n_kept;
        count = mark(&h, n_own);
        code = TG_OK;
    }
    if (count && h.pooled < TG_NONE) {
        tg_program *q = tg_new_program(p->n_const, p->n_in, p->n_out, p->n_instr, (uint32_t)h.pooled);
        code = q ? TG_OK : TG_MEMORY;
        if (q) {
            q->n_guards = p->n_guards;
            q->n_hoisted = count;
            if (p->n_const)
                memcpy(q->constant, p->constant, p->n_const * sizeof *p->constant);
            write(&h, q);
            code = tg_set_order(q, h.order);
            code = code ? code : tg_pack_program(q);
        }
        if (code)
            tg_free_program(q);
        else
            *made = q;
    }
    free(h.now);
    free(h.same);
    return code;
}
