/*  How steps become one program: instruction after instruction, with slots of each step's own.  */
#include "loops/stretch.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define MOST_STEPS 16u
#define MOST 2048u              /* instructions and operands of all steps: with more they are far from the processor */

typedef struct {
    const tg_program *p;
    tg_program *made;
    uint32_t n_state, n_x, steps;
    uint32_t first;             /* results of a step have the slots from this one on, but for those that are hoisted */
    uint32_t n_copies;          /* of outputs a step */
    uint8_t *copied;            /* by output: whether it is one */
    uint32_t n_instr, n_pool;   /* that are there */
} stretching;

/* Find outputs that need slots of their own: what is no result of the step, or another output, too. Returns how many
   operands there are besides. */
static uint64_t look_at(stretching *h)
{
    const tg_program *p = h->p;
    uint64_t pooled = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = p->n_hoisted; k < p->n_instr; k++)
        pooled += tg_is_many(tg_row(tg_at(&w, k))) ? tg_at(&w, k)->b : 0;
    for (uint32_t i = 0; i < p->n_out; i++) {
        int own = p->out[2 * (size_t)i] >= h->first;
        for (uint32_t k = 0; k < i && own; k++)
            own = p->out[2 * (size_t)k] != p->out[2 * (size_t)i];
        h->copied[i] = !own;
        h->n_copies += !own;
    }
    return pooled;
}

/* How many slots a step has to itself: of adjoints it shares them with every second one, for what it leaves to the next
   is of no use to the one after that. An even number of primals: two at a time go there. */
static uint32_t slots_of(const stretching *h, int numbering)
{
    const uint32_t n = (numbering == TG_KEPT ? h->p->n_kept : h->p->n_live) - h->first + h->n_copies;
    return numbering == TG_KEPT ? n + n % 2 : n;
}

/* Where a step has a slot of the program that it has to itself. */
static uint32_t own_slot(const stretching *h, uint32_t step, uint32_t slot, int numbering)
{
    const uint32_t fixed = h->made->n_const + h->made->n_in;
    return fixed + slots_of(h, numbering) * (numbering == TG_KEPT ? step : step % 2) + (slot - h->first);
}

/* A slot of the step's program. */
static uint32_t slot_of(const stretching *h, uint32_t step, uint32_t slot, int numbering)
{
    const uint32_t state = h->p->n_const, x = state + h->n_state, shared = x + h->n_x;
    if (slot < state || (slot < x && !step))
        return slot;
    if (slot < x)
        return h->made->out[2 * (size_t)((step - 1) * h->p->n_out + slot - state) + (size_t)numbering];
    if (slot < shared)
        return slot + step * h->n_x;
    if (slot < h->first)
        return slot + (h->steps - 1) * h->n_x;
    return own_slot(h, step, slot, numbering);
}

static void write_instruction(stretching *h, uint32_t step, const tg_instr *s)
{
    tg_instr *to = h->made->instr + h->n_instr++;
    *to = *s;
    if (tg_is_many(tg_row(s))) {
        const uint32_t *from = h->p->pool + 2 * (size_t)s->a;
        uint32_t *pool = h->made->pool + 2 * (size_t)h->n_pool;
        for (size_t i = 0; i < 2 * (size_t)s->b; i++)
            pool[i] = slot_of(h, step, from[i], i % 2 ? TG_LIVE : TG_KEPT);
        to->a = h->n_pool;
        h->n_pool += s->b;
    } else {
        to->a = slot_of(h, step, s->a, TG_KEPT);
        to->b = slot_of(h, step, s->b, TG_KEPT);
        to->live_a = slot_of(h, step, s->live_a, TG_LIVE);
        to->live_b = slot_of(h, step, s->live_b, TG_LIVE);
    }
    if (tg_row(s) == TG_GUARD)
        return;
    to->y = slot_of(h, step, s->y, TG_KEPT);
    to->live_y = slot_of(h, step, s->live_y, TG_LIVE);
}

/* Outputs of a step; copies of them last to first, so that they are swept in the order in which a step's adjoints are
   added to what it is swept from. */
static void write_outputs(stretching *h, uint32_t step)
{
    const tg_program *p = h->p;
    uint32_t *out = h->made->out + 2 * (size_t)step * p->n_out, copies = h->n_copies;
    for (uint32_t i = p->n_out; i-- > 0;) {
        const uint32_t *from = p->out + 2 * (size_t)i;
        const uint32_t kept = slot_of(h, step, from[0], TG_KEPT), live = slot_of(h, step, from[1], TG_LIVE);
        if (h->copied[i]) {
            copies--;
            out[2 * (size_t)i] = own_slot(h, step, p->n_kept + copies, TG_KEPT);
            out[2 * (size_t)i + 1] = own_slot(h, step, p->n_live + copies, TG_LIVE);
            h->made->instr[h->n_instr++] = (tg_instr){
                .op = TG_COPY, .y = out[2 * (size_t)i], .a = kept, .b = kept, .live_y = out[2 * (size_t)i + 1],
                .live_a = live, .live_b = live};
        } else {
            out[2 * (size_t)i] = kept;
            out[2 * (size_t)i + 1] = live;
        }
    }
}

static int make(stretching *h, uint32_t pooled)
{
    const tg_program *p = h->p;
    const uint32_t n_instr = p->n_instr - p->n_hoisted + h->n_copies;
    const uint32_t n_in = p->n_in + p->n_hoisted + (h->steps - 1) * h->n_x;
    tg_window w;
    tg_open_window(&w, p);
    h->made = tg_new_program(p->n_const, n_in, h->steps * p->n_out, h->steps * n_instr, h->steps * pooled);
    if (!h->made)
        return TG_MEMORY;
    if (p->n_const)
        memcpy(h->made->constant, p->constant, p->n_const * sizeof *p->constant);
    h->made->n_kept = p->n_const + n_in + h->steps * slots_of(h, TG_KEPT);
    h->made->n_live = p->n_const + n_in + 2 * slots_of(h, TG_LIVE);
    for (uint32_t step = 0; step < h->steps; step++) {
        for (uint32_t k = p->n_hoisted; k < p->n_instr; k++)
            write_instruction(h, step, tg_at(&w, k));
        write_outputs(h, step);
    }
    return tg_pack_program(h->made);
}

int tg_stretch(const tg_program *p, uint32_t n_state, uint32_t n_x, tg_program **made, uint32_t *steps)
{
    stretching h = {.p = p, .n_state = n_state, .n_x = n_x, .steps = MOST_STEPS,
                    .first = p->n_const + p->n_in + p->n_hoisted};
    uint64_t size, pooled;
    int code = TG_OK;
    *made = NULL;
    if (p->wide || p->n_calls || p->n_in > MOST || p->n_out > MOST || p->n_instr > MOST)
        return TG_OK;
    h.copied = tg_zeroed(p->n_out + (size_t)1);
    if (!h.copied)
        return TG_MEMORY;
    pooled = look_at(&h);
    size = (uint64_t)p->n_instr - p->n_hoisted + h.n_copies + pooled + n_x;
    while (h.steps * size > MOST)
        h.steps /= 2;
    if (h.steps > 1)
        code = make(&h, (uint32_t)pooled);
    if (code)
        tg_free_program(h.made);
    else
        *made = h.made;
    *steps = h.steps;
    free(h.copied);
    return code;
}
