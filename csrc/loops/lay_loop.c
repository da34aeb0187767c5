/*  The memory of a loop at work: everything that looping.h names, one after the other.  */
#include "loops/looping.h"
#include "loops/schedule.h"

#include <assert.h>

#define BESIDE 2048             /* primals of a step at most, of which there are twice as many as lanes then */

static void lay_pair(const tg_job *j, double *pair[2], uint64_t slots, char *memory, uint64_t *used)
{
    for (int order = 0; order < tg_orders(j); order++)
        pair[order] = tg_carve(memory, used, slots * tg_width(j), sizeof(double));
}

static uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

static int small(const tg_cell *c)
{
    uint32_t most = 0;
    for (uint32_t k = 0; k < c->n_paths; k++)
        most = larger(most, c->program[k]->n_kept);
    return most <= BESIDE;
}

/* Which adjoints a sweep in lanes may leave out: by xs and by params that nobody wants. */
static void mark_idle(const tg_job *j, tg_stage *s)
{
    const tg_loop *o = j->loop;
    if (s->job[0].shared && !tg_wants(j, o->n_state, o->first_param - o->n_state))
        s->n_wanted = o->n_state;
    for (uint32_t k = 0; k < s->cell->n_paths && s->job[k].shared; k++) {
        uint8_t *mark = s->job[k].shared + s->job[k].program->n_const;
        memset(mark + s->n_wanted, TG_IDLE, s->n_own - s->n_wanted);
        for (uint32_t i = 0; i < s->n_shared; i++)
            mark[s->n_own + i] = tg_wants(j, o->first_param + s->cell->shared[i], 1) ? 0 : TG_IDLE;
    }
}

uint64_t tg_lay_loop(const tg_job *j, tg_looping *w, char *memory)
{
    const tg_loop *o = j->loop;
    const uint32_t n_in = o->n_state + o->n_x, n_out = o->n_state + o->n_y;
    uint32_t widest = larger(o->step->program[0]->n_in, 1);
    const int stretched = o->step->stretch && !o->step->chain && !j->tangents && !o->until && o->length;
    const int is_long = tg_takes_long(o->step, j->lanes), at_once = !j->tangents && !is_long;
    const int may_be_beside = at_once && j->lanes == 1 && small(o->step);
    uint64_t used = 0;
    tg_carve(memory, &used, 1, sizeof *w);
    tg_lay_stage(&w->step, o->step, n_in, j, memory, &used);
    w->step.is_long = is_long;
    if (o->final) {
        tg_lay_stage(&w->final, o->final, o->n_state, j, memory, &used);
        w->final.is_long = tg_takes_long(o->final, j->lanes);
        widest = larger(widest, o->final->program[0]->n_in);
    }
    if (o->until) {
        tg_lay_stage(&w->until, o->until, o->n_state, j, memory, &used);
        w->until.is_long = tg_takes_long(o->until, j->lanes);
        widest = larger(widest, o->until->program[0]->n_in);
    }
    lay_pair(j, w->in, larger(n_in, n_out), memory, &used);
    lay_pair(j, w->last, o->n_state, memory, &used);
    lay_pair(j, w->out, (uint64_t)n_out + 1, memory, &used);
    lay_pair(j, w->out_adj, (uint64_t)n_out + 1, memory, &used);
    lay_pair(j, w->in_adj, n_in, memory, &used);
    lay_pair(j, w->params, o->n_params, memory, &used);
    lay_pair(j, w->sums, o->n_params, memory, &used);
    lay_pair(j, w->total, 1, memory, &used);
    for (int order = 0; order < tg_orders(j); order++)
        w->x[order] = tg_carve(memory, &used, o->n_x * tg_width(j), sizeof **w->x);
    if (j->lanes > 1 || o->step->chain)
        lay_pair(j, w->tile, (uint64_t)o->n_x * TG_TILED, memory, &used);
    w->stopped_in = tg_carve(memory, &used, widest, sizeof(double));
    tg_lay_chain(j, w, memory, &used);
    if (j->seed && memory) {
        mark_idle(j, &w->step);
        if (o->final)
            mark_idle(j, &w->final);
    }
    if (j->seed) {
        const uint64_t each = tg_state_size(j) * (uint64_t)tg_orders(j);
        w->capacity = o->states < o->length ? o->states : o->length;
        if (w->capacity < o->length && w->capacity > TG_MOST_STATES)
            w->capacity = TG_MOST_STATES;
        w->capacity += w->capacity == 0;
        w->kept = tg_carve(memory, &used, (uint64_t)w->capacity, each * sizeof(double));
        w->kept_at = w->capacity < o->length ? tg_carve(memory, &used, (uint64_t)w->capacity, sizeof(int64_t)) : NULL;
        w->whole = NULL;
        w->side_by_side = w->capacity >= o->length && may_be_beside;
    }
    if (stretched)
        tg_lay_stretch(j, w, memory, &used);
    else
        w->each = (o->step->program[0]->n_kept | 1) * tg_width(j);  /* else many steps are in few places of a cache */
    if (j->seed) {
        if (!stretched && at_once && w->capacity >= o->length && o->step->n_paths == 1 &&
            (uint64_t)o->length <= TG_WHOLE_LOOP / (8 * w->each + 1)) {
            w->whole = tg_carve(memory, &used, (uint64_t)o->length * w->each, sizeof(double));
            w->interpreted = tg_carve(memory, &used, (uint64_t)o->length, 1);
        } else if (stretched ? w->side_by_side : may_be_beside) {
            const tg_job wide = {.lanes = TG_WIDEST, .nan_errors = j->nan_errors};
            tg_lay_stage(&w->beside, o->step, n_in, &wide, memory, &used);
            w->beside_in[0] = tg_carve(memory, &used, (uint64_t)n_in * TG_WIDEST, sizeof(double));
            if (!stretched)
                w->columns = tg_carve(memory, &used, (uint64_t)BESIDE * TG_WIDEST, sizeof(double));
        }
        w->taken = o->step->n_paths > 1 ? tg_carve(memory, &used, (uint64_t)o->length * tg_width(j), 1) : NULL;
    }
    return used;
}

int tg_start_loop(tg_job *j)
{
    tg_looping counted = {0};
    uint64_t bytes, laid;
    j->lanes = j->stop - j->start > 1 ? TG_WIDEST : 1;
    bytes = tg_lay_loop(j, &counted, NULL);
    j->memory = bytes < SIZE_MAX / 4 ? tg_zeroed((size_t)bytes + 64) : NULL;
    if (!j->memory)
        return TG_MEMORY;
    j->looping = (tg_looping *)(((uintptr_t)j->memory + 63) & ~(uintptr_t)63);
    laid = tg_lay_loop(j, j->looping, (char *)j->looping);
    assert(laid == bytes);
    (void)laid;
    tg_again(j);
    return TG_OK;
}
