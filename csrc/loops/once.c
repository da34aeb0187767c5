/*  What is watched while steps are swept, and asked when they all are.  */
#include "loops/once.h"
#include "ops.h"
#include "wide/wide.h"

#include <math.h>

#define MOST 0x1p900            /* an adjoint; what is lost by flushing it grows to 2^-100 at most */
#define LEAST 0x1p100           /* what is taken for the largest there was, if it is less */

/* Slots of results that are new in each step: from where on. */
static size_t first_of_steps(const tg_program *p) { return (size_t)p->n_const + p->n_in + p->n_hoisted; }

/* Which slots of what is hoisted a step reads or gives; is_read: room for all slots, 0. */
static void find_watched(tg_stage *s, const tg_program *p, uint8_t *is_read)
{
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t at = p->n_hoisted; at < p->n_instr; at++) {
        const tg_instr *i = tg_at(&w, at);
        const uint32_t *pool = p->pool + 2 * (size_t)i->a;
        if (tg_row(i) == TG_GUARD)
            continue;
        if (!tg_is_many(tg_row(i)))
            is_read[i->a] = is_read[i->b] = 1;
        else
            for (uint32_t k = 0; k < i->b; k++)
                is_read[pool[2 * (size_t)k]] = 1;
    }
    for (uint32_t k = 0; k < p->n_out; k++)
        is_read[p->out[2 * (size_t)k]] = 1;
    s->n_watched = 0;
    for (uint32_t slot = p->n_const + p->n_in; slot < first_of_steps(p); slot++)
        if (is_read[slot])
            s->watched[s->n_watched++] = slot;
}

void tg_lay_watch(tg_stage *s, char *memory, uint64_t *used)
{
    const tg_program *p = s->cell->program[0];
    const size_t slots = first_of_steps(p), width = (size_t)s->lanes;
    uint8_t *is_read = tg_carve(memory, used, p->n_kept, 1);
    s->watched = tg_carve(memory, used, p->n_hoisted, sizeof *s->watched);
    s->factor = tg_carve(memory, used, slots * width, sizeof(double));
    s->worst = tg_carve(memory, used, width, sizeof(double));
    for (int order = 0; order < s->orders; order++) {
        s->amount[order] = tg_carve(memory, used, width, sizeof(double));
        s->trial[order] = tg_carve(memory, used, slots * width, sizeof(double));
    }
    if (memory)
        find_watched(s, p, is_read);
}

void tg_reverse_written_out(tg_job *j)
{
    const tg_program *p = j->program;
    uint32_t hoisted = p->n_hoisted, other = p->n_instr;
    while (hoisted || other > p->n_hoisted)
        if (!hoisted || (other > p->n_hoisted && p->order[other - 1] > p->order[hoisted - 1])) {
            other--;
            tg_reverse_between(j, other, other + 1);
        } else {
            hoisted--;
            tg_reverse_between(j, hoisted, hoisted + 1);
        }
}

/* The amount of all that is in a slot of a lane, which is 0 from here on. */
static double taken(const tg_job *j, size_t at)
{
    double amount = fabs(j->adj[at]);
    j->adj[at] = 0.0;
    if (j->tangents) {
        amount += fabs(j->adj_tangent[at]);
        j->adj_tangent[at] = 0.0;
    }
    return amount;
}

/* By lane, the most that an adjoint which a step passes on comes to in that of an input. */
static void weigh(tg_stage *s)
{
    const tg_program *p = s->job->program;
    const size_t w = (size_t)s->lanes, slots = first_of_steps(p);
    double *factor = s->factor;         /* that by slot and lane, too */
    tg_job j = *s->job;
    tg_window at_hand;
    tg_open_window(&at_hand, p);
    j.adj = s->trial[0];
    j.adj_tangent = s->trial[1];
    j.shared = NULL;                    /* by all inputs, whoever wants them: as a lane alone */
    memset(factor, 0, slots * w * sizeof *factor);
    memset(s->worst, 0, w * sizeof *s->worst);
    for (uint32_t k = 0; k < s->n_watched; k++)
        for (size_t l = 0; l < w; l++)
            factor[s->watched[k] * w + l] = 1.0;
    for (uint32_t k = p->n_hoisted; k-- > 0;) {
        const tg_instr *i = tg_at(&at_hand, k);
        const int many = tg_is_many(tg_row(i));
        const uint32_t few[] = {i->a, 0, i->b}, n = many ? i->b : 2;
        const uint32_t *operand = many ? p->pool + 2 * (size_t)i->a : few;
        double *own = factor + i->y * w;
        for (size_t l = 0; l < w; l++) {
            own[l] += own[l] > 0.0;
            j.adj[i->y * w + l] = own[l] > 0.0;
        }
        tg_reverse_between(&j, k, k + 1);
        for (uint32_t m = 0; m < n; m++)
            for (size_t l = 0; operand[2 * m] >= p->n_const && l < w; l++)
                factor[operand[2 * m] * w + l] += own[l] * taken(&j, operand[2 * m] * w + l);
    }
    for (size_t at = p->n_const * w; at < slots * w; at++) {
        double *worst = s->worst + at % w;
        *worst = !(factor[at] < MOST) ? INFINITY : factor[at] > *worst ? factor[at] : *worst;
    }
    s->weighed = 1;
}

uint32_t tg_unsure(tg_stage *s)
{
    uint32_t unsure = 0;
    if (!s->job->program->n_hoisted)
        return 0;
    if (!s->weighed)
        weigh(s);
    for (int l = 0; l < s->lanes; l++) {
        const double amount = s->amount[0][l] + (s->orders > 1 ? s->amount[1][l] : 0.0);
        unsure |= (uint32_t)!(s->worst[l] * (amount + LEAST) < MOST) << l;
    }
    return unsure;
}
