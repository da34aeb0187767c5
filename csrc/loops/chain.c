/*  Chains at work: many steps in one call of machine code, where all lanes go the one way that it knows.

    With a sweep to come, what is noted of all steps has to fit a near cache, else there would be more to wait for than
    a call for each step costs. Where it does not, states are kept before each unit of steps that does, and a unit is
    noted when its turn to be swept comes. Otherwise, and without a sweep, it is noted for nobody, over and over in the
    same place.  */
#include "flush.h"
#include "loops/looping.h"
#include "ops.h"

#include <string.h>

#define NEAR ((uint64_t)1 << 20)        /* bytes of what is noted of all steps */

static const tg_chain *chain_of(const tg_job *j) { return j->loop->step->chain; }
static size_t each(const tg_job *j) { return chain_of(j)->n_noted * tg_width(j); }

void tg_lay_chain(const tg_job *j, tg_looping *w, char *memory, uint64_t *used)
{
    const tg_loop *o = j->loop;
    const uint64_t n = (uint64_t)o->length;
    w->noted = NULL;
    if (!chain_of(j) || j->tangents || o->until || !n)
        return;
    w->room = j->seed || n < TG_TILED ? (int64_t)n : TG_TILED;
    if (j->seed && (n > NEAR / (8 * each(j) + 1) || n > TG_AT_ONCE / (o->step->program[0]->n_instr + (uint64_t)1)))
        w->room = (int64_t)(TG_UNIT / (8 * each(j) + 1) / TG_TILED * TG_TILED);
    if (!w->room)
        return;
    w->noted = tg_carve(memory, used, (uint64_t)w->room * each(j), sizeof(double));
}

int tg_can_chain(const tg_job *j)
{
    const tg_looping *w = j->looping;
    return w->noted && !w->step.refused && (w->stretch.program || !w->step.interpreted);
}

/* What is noted of a step. */
static double *noted_of(const tg_job *j, int64_t step)
{
    const tg_looping *w = j->looping;
    return w->noted + (step < w->noted_from ? 0 : (size_t)(step - w->noted_from) * each(j));
}

static void tell_all(tg_job *j, int64_t first, int64_t n)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    for (w->at = first; w->at < first + n; w->at++) {
        const double *y = noted_of(j, first) + (size_t)(w->at - first) * each(j) + o->n_x * tg_width(j);
        tg_move_numbers(w->in[0] + tg_state_size(j), y, o->n_y * tg_width(j));
        tg_tell(j, w->alive);
    }
}

int tg_chain_on(tg_job *j)
{
    tg_looping *w = j->looping;
    const int64_t first = w->at, left = w->end - first, n = left < TG_TILED ? left : TG_TILED;
    const double *x;
    if (w->stretch.program)
        return tg_stretch_on(j);
    x = tg_read_tile(j, first);
    if (chain_of(j)->forward[j->lanes > 1](w->step.job->primal, x, noted_of(j, first), w->in[0], n))
        return 0;
    if (j->loop->n_y && first >= w->seen)
        tell_all(j, first, n);
    w->at = first + n;
    w->seen = w->at > w->seen ? w->at : w->seen;
    return 1;
}

void tg_chain_back(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const int own_weights = o->n_y && !o->total;
    const size_t x = o->n_x * tg_width(j), y = o->n_y * tg_width(j);
    const double *weight = w->out_adj[0] + tg_state_size(j);
    const fp_mode mode = flush_to_zero();
    if (w->stretch.program) {
        tg_stretch_back(j);
        restore_fp(mode);
        return;
    }
    for (int64_t step = w->noted_from; own_weights && step < w->end; step++) {
        tg_weigh_ys(j, step);
        memcpy(noted_of(j, step) + x, weight, y * sizeof *weight);
    }
    chain_of(j)->reverse[j->lanes > 1](w->step.job->primal, w->noted, w->step.job->adj, w->in_adj[0],
                                       own_weights ? w->noted + x : weight, own_weights ? (int64_t)each(j) : 0,
                                       w->step.amount[0], w->end - w->noted_from);
    for (w->at = w->end; w->x_wanted && w->at-- > w->noted_from;) {
        tg_move_numbers(w->in_adj[0] + tg_state_size(j), noted_of(j, w->at), x);
        tg_write_x(j, w->alive);
    }
    restore_fp(mode);
}
