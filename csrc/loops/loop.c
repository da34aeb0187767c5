/*  Loops at work: the order of steps forward and back. A job is carried out in slices of steps, block of rows after
    block.  */
#include "loops/looping.h"
#include "flush.h"
#include "loops/once.h"
#include "loops/schedule.h"

#include <string.h>

#define WORTH_BESIDE 4

/* COUNT: how many steps there are, where it takes a pass to know; LAST: what is given; TURN: back over that. */
enum phase { LOAD, COUNT, FIRST, LAST, TURN, BACK };

/* ---- steps ---- */

static inline void copy_state(const tg_job *j, double *const from[2], double *const to[2])
{
    for (int order = 0; order < tg_orders(j); order++)
        tg_move_numbers(to[order], from[order], tg_state_size(j));
}

static uint32_t every_lane(const tg_job *j) { return (uint32_t)((1ull << j->lanes) - 1); }

/* The lanes that have a step. */
static uint32_t lanes_at(const tg_job *j, int64_t step)
{
    uint32_t lanes = 0;
    if (!j->loop->until)
        return step < j->loop->length ? j->looping->alive : 0;
    for (int l = 0; l < j->lanes; l++)
        lanes |= (uint32_t)(j->looping->steps[l] > step) << l;
    return lanes & j->looping->alive;
}

/* Lanes of a stage are out. */
static void drop(tg_job *j, tg_stage *s, uint32_t lost, int cell)
{
    tg_looping *w = j->looping;
    if (!lost)
        return;
    for (int l = 0; l < j->lanes; l++)
        if (lost >> l & 1) {
            j->failed[tg_row_of(j, l)] = 1;
            j->failures++;
        }
    if (w->stopped.in == NULL) {
        for (uint32_t i = 0; i < s->n_own + s->n_shared; i++) {
            const double *slot = i < s->n_own ? w->in[0] + i * tg_width(j)
                                              : w->params[0] + s->cell->shared[i - s->n_own] * tg_width(j);
            w->stopped_in[i] = slot[s->failed_first];
        }
        w->stopped = (tg_stopped){.step = w->at, .cell = cell, .path = s->stopped_on, .at = s->stopped_at,
                                  .in = w->stopped_in};
        j->fail_a = s->fail_a;
        j->fail_b = s->fail_b;
    }
    w->alive &= ~lost;
}

/* Find out which lanes end here; 1: there is more to it. */
static int ask_until(tg_job *j)
{
    tg_looping *w = j->looping;
    uint32_t lost;
    const uint32_t lanes = j->loop->until && !w->counted ? lanes_at(j, w->at) : 0;
    if (!lanes)
        return 0;
    if (!w->until.more)
        memset(w->way, 0, sizeof w->way);
    lost = tg_go(&w->until, lanes, w->way, w->in, NULL, w->out);
    if (w->until.more)
        return 1;
    drop(j, &w->until, lost, 2);
    for (int l = 0; l < j->lanes; l++)
        if ((lanes & w->alive) >> l & 1 && w->out[0][l] != 0.0)
            w->steps[l] = w->at;
    return 0;
}

/* One step on, or a part of a long one, or not where no lane has one: whether there was. */
static int go(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    double *primals;
    uint32_t lanes;
    if (!w->step.more && ask_until(j))
        return 1;
    lanes = lanes_at(j, w->at);
    if (!lanes)
        return 0;
    primals = w->whole && j->phase == FIRST ? w->whole + (size_t)w->at * w->each : NULL;
    if (!w->step.more) {
        if (!primals)
            tg_read_x(j, w->at);
        if (w->taken && w->at < w->seen)
            memcpy(w->path, w->taken + w->at * j->lanes, tg_width(j));
    }
    if (lanes != every_lane(j) || !tg_go_well(&w->step, o->n_state + (primals ? 0 : o->n_x), w->in[0], primals)) {
        uint32_t lost;
        if (primals)
            tg_read_x(j, w->at);
        lost = tg_go(&w->step, lanes, w->path, w->in, primals, w->in);
        if (w->step.more)
            return 1;
        drop(j, &w->step, lost, 0);
    }
    if (primals)
        w->interpreted[w->at] = (uint8_t)w->step.job->interpreted;
    lanes &= w->alive;
    if (w->at == w->seen && j->phase != COUNT) {
        tg_tell(j, lanes);
        w->seen++;
        if (w->taken)
            memcpy(w->taken + w->at * j->lanes, w->path, tg_width(j));
    }
    w->at++;
    return 1;
}

/* All steps are done: what is given, and where it is swept, its adjoints; 1: there is more to do. */
static int arrive(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    w->left = 0;
    if (!w->alive)
        return 0;
    if (o->total && o->final) {
        uint32_t lost;
        if (!w->final.more)
            memset(w->way, 0, sizeof w->way);
        lost = tg_go(&w->final, w->alive, w->way, w->in, NULL, w->out);
        if (w->final.more)
            return 1;
        drop(j, &w->final, lost, 1);
        for (int order = 0; order < tg_orders(j); order++)
            for (size_t l = 0; l < tg_width(j); l++)
                w->total[order][l] = o->n_y ? w->total[order][l] + w->out[order][l] : w->out[order][l];
    } else if (o->total && !o->n_y)
        for (int order = 0; order < tg_orders(j); order++)
            memcpy(w->total[order], w->in[order], tg_width(j) * sizeof(double));
    tg_give(j);
    w->left = w->alive;
    return 0;
}

/* Those of lanes that are left which take the path of the lowest, of which each lane's is known. */
static uint32_t alike(const tg_job *j, uint32_t left, const uint8_t *path, uint32_t *which)
{
    uint32_t group = 0, first = 0;
    while (!(left >> first & 1))
        first++;
    for (int l = 0; l < j->lanes; l++)
        group |= (uint32_t)((left >> l & 1) && path[l] == path[first]) << l;
    *which = path[first];
    return group;
}

/* Back over `final` on the lanes that are left; 1: there is more to do. */
static int turn(tg_job *j)
{
    tg_looping *w = j->looping;
    while (j->loop->total && j->loop->final && w->left) {
        uint32_t path, group = alike(j, w->left, w->way, &path);
        tg_come_back(&w->final, group, path, w->in, NULL, w->out_adj, w->in_adj);
        if (w->final.more)
            return 1;
        w->left &= ~group;
    }
    return 0;
}

static int64_t kept_step(const tg_looping *w, int64_t k) { return w->kept_at ? w->kept_at[k] : k * w->unit; }

/* Numbers from one column to the next. */
static size_t column_of(const tg_job *j, uint32_t path)
{
    const size_t n = j->loop->step->program[path]->n_kept;
    return n + n % 2;
}

/* Carry out steps before which states are kept, from the one before which the state is on down, side by side: which
   step is which lane makes no difference to its numbers. How many; 0 where they are too few to be worth it. */
static int go_beside(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const uint32_t path = w->columns && w->taken ? w->taken[w->at] : 0;
    const int64_t top = w->n_kept - 1;
    int64_t first;
    int n = 0;
    if (!w->columns || top < 0)
        return 0;
    while (n < TG_WIDEST && n <= top && kept_step(w, top - n) == w->at - n &&
           (!w->taken || w->taken[w->at - n] == path))
        n++;
    if (n < WORTH_BESIDE)
        return 0;
    first = w->at - n + 1;
    for (int l = 0; l < n; l++) {
        const double *state = w->kept + (top - n + 1 + l) * o->n_state;
        for (uint32_t i = 0; i < o->n_state; i++)
            w->beside_in[0][i * TG_WIDEST + (size_t)l] = state[i];
        for (uint32_t i = 0; i < o->n_x; i++)
            w->beside_in[0][(o->n_state + i) * TG_WIDEST + (size_t)l] = w->x[0][i][(first + l) * o->x_by[i]];
    }
    tg_go_along(&w->beside, (1u << n) - 1, path, w->beside_in, 0, w->columns, column_of(j, path));
    w->step.job[path].interpreted = w->beside.job[path].interpreted;
    return n;
}

/* Back over the step before which the state is, or a part of a long one; primals: see tg_come_back. */
static void come_back(tg_job *j, double *primals)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const uint8_t *path = w->taken ? w->taken + w->at * j->lanes : NULL;
    double *const *out_adj = o->n_y ? w->out_adj : w->in_adj;
    const uint32_t lanes = lanes_at(j, w->at);
    if (!lanes)
        return;
    if (!w->step.more) {
        if (!primals)
            tg_read_x(j, w->at);
        if (o->n_y)
            copy_state(j, w->in_adj, w->out_adj);
        if (!o->total)
            tg_weigh_ys(j, w->at);
        w->left = path ? lanes : 0;
    }
    if (!path)
        tg_come_back(&w->step, lanes, 0, w->in, primals, out_adj, w->in_adj);
    while (w->left) {
        uint32_t which, group = alike(j, w->left, path, &which);
        tg_come_back(&w->step, group, which, w->in, primals, out_adj, w->in_adj);
        if (w->step.more)
            return;
        w->left &= ~group;
    }
    if (w->step.more)
        return;
    if (w->x_wanted)
        tg_write_x(j, lanes);
}

/* ---- blocks ---- */

static void begin(tg_job *j)
{
    tg_looping *w = j->looping;
    tg_read_inputs(j, 0, j->loop->n_state, w->in);
    memset(w->path, 0, sizeof w->path);
    w->at = w->seen = 0;
}

/* What all steps are to make: all that is there before them. */
static void set_whole(const tg_job *j)
{
    const tg_loop *o = j->loop;
    const tg_looping *w = j->looping;
    if (!w->whole)
        return;
    tg_set_all(&w->step, w->whole, w->each, o->length);
    tg_read_all_x(j, w->whole + (o->step->program[0]->n_const + o->n_state) * tg_width(j), w->each);
}

/* From here on step by step. */
static void unchain(tg_job *j)
{
    if (j->looping->chained)
        set_whole(j);
    j->looping->chained = 0;
    j->looping->unit = 1;
    j->looping->n_kept = 0;
}

static void load(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const int64_t left = j->stop - j->base;
    w->alive = left < j->lanes ? (1u << left) - 1 : every_lane(j);
    w->stopped.in = NULL;
    w->n_kept = 0;
    w->sure = 0;
    w->end = o->length;
    w->step.more = w->final.more = w->until.more = 0;
    w->advanced = 0;
    w->counted = 0;
    for (int l = 0; l < j->lanes; l++)
        w->steps[l] = o->length;
    for (int order = 0; order < tg_orders(j); order++) {
        memset(w->total[order], 0, tg_width(j) * sizeof(double));
        memset(w->out_adj[order], 0, ((size_t)o->n_state + o->n_y + 1) * tg_width(j) * sizeof(double));
        memset(w->in_adj[order], 0, ((size_t)o->n_state + o->n_x) * tg_width(j) * sizeof(double));
        memset(w->sums[order], 0, o->n_params * tg_width(j) * sizeof(double));
    }
    tg_read_inputs(j, o->first_param, o->n_params, w->params);
    tg_set_shared(&w->step, w->params, 0);
    if (w->beside.job)
        tg_set_shared(&w->beside, w->params, 1);
    if (o->final)
        tg_set_shared(&w->final, w->params, 0);
    if (o->until)
        tg_set_shared(&w->until, w->params, 0);
    tg_find_x(j);
    w->chained = tg_can_chain(j);
    w->unit = !w->chained ? 1 : j->seed ? w->room : o->length;
    w->noted_from = j->seed ? tg_last_unit(w) : o->length;
    if (!w->chained)
        set_whole(j);
    else if (w->stretch.program)
        tg_set_stretch(j);
    w->x_wanted = tg_wants(j, o->n_state, o->first_param - o->n_state);
    if (o->until)
        tg_fill_unreached(j);
    begin(j);
    j->phase = o->until && j->seed ? COUNT : FIRST;
}

/* The steps of all lanes are known. */
static void count(tg_job *j)
{
    tg_looping *w = j->looping;
    w->end = 0;
    for (int l = 0; l < j->lanes; l++)
        if (w->alive >> l & 1 && w->steps[l] > w->end)
            w->end = w->steps[l];
    w->counted = 1;
    begin(j);
    j->phase = FIRST;
}

static void kept_state(const tg_job *j, int64_t k, double *of[2])
{
    const tg_looping *w = j->looping;
    const size_t each = tg_state_size(j), at = (size_t)(w->side_by_side && w->chained ? k * w->unit : k);
    of[0] = w->kept + at * each * (size_t)tg_orders(j);
    of[1] = of[0] + each;
}

/* Keep the state, unless it is the one that was taken out again; and say where to go from here. */
static void set_out(tg_job *j)
{
    tg_looping *w = j->looping;
    const int64_t steps = tg_last_unit(w) - w->at, room = w->capacity - w->n_kept + 1;
    const int64_t left = (w->unit == 1 ? steps : steps / w->unit) + 1;
    w->goal = w->at + (left > 1 ? tg_next_kept(left, room) : 0) * w->unit;
}

static void keep(tg_job *j)
{
    tg_looping *w = j->looping;
    double *of[2];
    kept_state(j, w->n_kept, of);
    copy_state(j, w->in, of);
    if (w->kept_at)
        w->kept_at[w->n_kept] = w->at;
    w->n_kept++;
    set_out(j);
}

/* Back to the last state that is kept and still of use. */
static void take_out(tg_job *j)
{
    tg_looping *w = j->looping;
    double *of[2];
    int64_t k = w->n_kept - 1;
    if (kept_step(w, k) >= w->end)
        w->n_kept = k--;
    kept_state(j, k, of);
    copy_state(j, of, w->in);
    w->at = kept_step(w, k);
    set_out(j);
}

/* All steps are swept, and lanes are unsure: once more with these, what is hoisted in each step; for params alone. */
static void go_again(tg_job *j, uint32_t unsure)
{
    tg_looping *w = j->looping;
    w->step.written_out = 1;
    w->sure = w->alive & ~unsure;
    w->alive = unsure;
    w->x_wanted = 0;
    for (int order = 0; order < tg_orders(j); order++)
        for (size_t i = 0; i < j->loop->n_params * tg_width(j); i++)
            if (unsure >> i % tg_width(j) & 1)
                w->sums[order][i] = 0.0;
    unchain(j);
    count(j);
    w->seen = w->end;
}

static void finish_block(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    if (j->seed && w->alive) {
        const fp_mode mode = flush_to_zero();
        const uint32_t unsure = w->step.written_out ? 0 : tg_unsure(&w->step) & w->alive;
        if (!w->step.written_out)
            tg_write_all_adjoints(j, 0, o->n_state, w->in_adj);
        tg_take_adjoints(&w->step, w->sums);
        if (!unsure) {
            w->alive |= w->sure;
            tg_write_all_adjoints(j, o->first_param, o->n_params, w->sums);
        }
        restore_fp(mode);
        if (unsure) {
            go_again(j, unsure);
            return;
        }
    }
    j->base += j->lanes;
    j->phase = LOAD;
}

/* Some steps on, or back to the first one, where they do not all go well. */
static void go_chained(tg_job *j)
{
    tg_looping *w = j->looping;
    const int64_t at = w->at;
    if (tg_chain_on(j))
        w->advanced += (uint64_t)(w->at - at - (w->at == w->end));
    else if (j->phase == FIRST) {
        unchain(j);
        begin(j);
        w->advanced = 0;
        w->seen = at;
    } else {                            /* what went well once does so again, unless somebody has changed xs since */
        tg_take_adjoints(&w->step, w->sums);
        drop(j, &w->step, w->alive, 0);
        w->end = 0;
    }
}

/* Forward over all steps for the first time, keeping states on the way where they will be wanted. */
static void first(tg_job *j)
{
    tg_looping *w = j->looping;
    const int keeps = j->seed && (w->chained ? w->unit < w->end : !w->whole);
    if (keeps && w->at < w->end && !w->step.more && !w->until.more) {
        if (w->at == 0 ? w->n_kept == 0 : w->at == w->goal && w->at < tg_last_unit(w))
            keep(j);
        if (w->at == tg_last_unit(w))
            copy_state(j, w->in, w->last);
    }
    if (w->chained && w->at < w->end)
        go_chained(j);
    else if (w->at < w->end && go(j))
        w->advanced += w->at < w->end && !w->step.more && !w->until.more;
    else
        j->phase = LAST;
}

/* All is given, and swept as far as the last state. */
static void turn_back(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    if (!j->seed || !w->alive) {
        finish_block(j);
        return;
    }
    if (o->total && o->final)
        tg_take_adjoints(&w->final, w->sums);
    tg_give_adjoints(&w->step, w->sums);
    j->phase = BACK;
    if (o->total)
        tg_weigh_ys(j, 0);                 /* the same at all steps */
    if (w->whole || w->chained)
        return;
    if (w->end) {
        copy_state(j, w->last, w->in);
        w->at = w->goal = w->end - 1;
    }
}

/* Back over all steps, of which all is kept. */
static void back_along(tg_job *j)
{
    tg_looping *w = j->looping;
    const fp_mode mode = flush_to_zero();
    for (w->at = w->end; w->at-- > 0;) {
        w->step.job->interpreted = w->interpreted[w->at];
        come_back(j, w->whole + (size_t)w->at * w->each);
    }
    restore_fp(mode);
    w->end = 0;
}

/* Back over n steps that were carried out side by side. */
static void back_beside(tg_job *j, int n)
{
    tg_looping *w = j->looping;
    const size_t column = column_of(j, w->taken ? w->taken[w->at] : 0);
    const fp_mode mode = flush_to_zero();
    w->end -= n;
    w->n_kept -= n;
    for (; n-- > 0; w->at--)
        come_back(j, w->columns + (size_t)n * column);
    restore_fp(mode);
}

/* Back over a unit, or some steps on to where it is noted. */
static void back_chained(tg_job *j)
{
    tg_looping *w = j->looping;
    w->noted_from = tg_last_unit(w);
    if (w->at < w->noted_from && w->at == w->goal)
        keep(j);
    else if (w->at < w->end)
        go_chained(j);
    else {
        tg_chain_back(j);
        w->end = w->noted_from;
        if (w->end)
            take_out(j);
    }
}

static void back(tg_job *j)
{
    tg_looping *w = j->looping;
    if (!w->end)
        finish_block(j);
    else if (w->chained)
        back_chained(j);
    else if (w->whole)
        back_along(j);
    else if (w->at < w->goal) {
        go(j);
        w->advanced += !w->step.more;
    } else if (w->at < w->end - 1)
        keep(j);
    else {
        const int n = go_beside(j);
        if (n)
            back_beside(j, n);
        else {
            come_back(j, NULL);
            if (w->step.more)
                return;
            w->end--;
        }
        if (w->end)
            take_out(j);
    }
}

int tg_run_loop(tg_job *j, uint64_t budget)
{
    while (j->base < j->stop && budget > 0) {
        const int64_t at = j->looping->at, end = j->looping->end;
        uint64_t took = (uint64_t)j->loop->step->program[0]->n_instr + 1;
        switch ((enum phase)j->phase) {
        case LOAD: load(j); break;
        case COUNT:
            if (!go(j))
                count(j);
            break;
        case FIRST: first(j); break;
        case LAST:
            if (!arrive(j))
                j->phase = TURN;
            break;
        case TURN:
            if (!j->seed || !turn(j))
                turn_back(j);
            break;
        case BACK: back(j); break;
        }
        if (j->looping->step.more || j->looping->final.more || j->looping->until.more)
            return 1;
        if (j->looping->chained && j->looping->end < end)
            took *= (uint64_t)(end - j->looping->end);
        else if (j->looping->at > at)
            took *= (uint64_t)(j->looping->at - at);
        budget -= took < budget ? took : budget;
    }
    return j->base < j->stop;
}
