/*  Stretches at work: several steps at a time in the interpreter, where all lanes go on; see stretch.h.

    Primals of each stretch are in a tile of what is noted, with what all steps share beside them. Where a sweep is to
    come and not all tiles fit a near cache, a unit of them is noted when its turn to be swept comes. Of one row whose
    states are all kept, its steps are then carried out side by side, as lanes; else they are carried out anew.  */
#include "compiled.h"
#include "loops/looping.h"
#include "loops/once.h"
#include "wide/wide.h"

static int64_t n_steps(const tg_job *j) { return j->loop->step->n_stretch; }
/* Instructions of a step. */
static uint32_t n_instr(const tg_job *j) { return j->looping->stretch.program->n_instr / (uint32_t)n_steps(j); }
/* Numbers of what all steps share, params and what is hoisted, and where they are: of a stretch, of a step. */
static size_t n_shared(const tg_job *j)
{
    const tg_program *step = j->loop->step->program[0];
    return (step->n_in - j->loop->n_state - j->loop->n_x + step->n_hoisted) * tg_width(j);
}

static size_t shared_of_step(const tg_job *j)
{
    return (j->loop->step->program[0]->n_const + j->loop->n_state + j->loop->n_x) * tg_width(j);
}

static size_t further(const tg_job *j) { return (size_t)(n_steps(j) - 1) * j->loop->n_x * tg_width(j); }

/* Primals that a step of a stretch has to itself. */
static size_t own_slots(const tg_job *j)
{
    const tg_program *p = j->looping->stretch.program;
    return (p->n_kept - p->n_const - p->n_in) / (size_t)n_steps(j);
}

/* Where the tile of a step begins. */
static double *tile_of(const tg_job *j, int64_t step)
{
    const tg_looping *w = j->looping;
    return w->noted + (step < w->noted_from ? 0 : (size_t)((step - w->noted_from) / n_steps(j)) * w->each);
}

/* A pair of slots: an output of a step of a stretch. */
static const uint32_t *output_of(const tg_job *j, int64_t k, uint32_t i)
{
    const tg_loop *o = j->loop;
    return j->looping->stretch.program->out + 2 * ((size_t)k * (o->n_state + o->n_y) + i);
}

void tg_lay_stretch(const tg_job *j, tg_looping *w, char *memory, uint64_t *used)
{
    const tg_loop *o = j->loop;
    const tg_program *p = o->step->stretch;
    const int keeps = j->seed || o->n_y;
    const int64_t each = o->step->n_stretch;
    const uint32_t n_of_step = o->step->program[0]->n_instr - o->step->program[0]->n_hoisted;
    uint64_t tiles = (uint64_t)(o->length + each - 1) / (uint64_t)each, most;
    w->each = ((keeps ? p->n_kept : p->n_live) | 1) * tg_width(j);      /* else tiles are in few places of a cache */
    most = TG_WHOLE_LOOP / (8 * w->each);
    if (most > TG_AT_ONCE / (p->n_instr + (uint64_t)1))
        most = TG_AT_ONCE / (p->n_instr + (uint64_t)1);
    w->side_by_side = w->side_by_side && tiles > most && each == TG_WIDEST && p->n_instr == TG_WIDEST * n_of_step;
    if (!j->seed || w->side_by_side)
        tiles = 1;
    else if (tiles > most)
        tiles = TG_UNIT / (8 * w->each) + 1;
    w->room = (int64_t)tiles * each;
    w->noted = tg_carve(memory, used, tiles * w->each, sizeof(double));
    w->stretch = (tg_job){.program = p, .lanes = j->lanes, .nan_errors = j->nan_errors | o->step->nan_errors,
                          .stop = j->lanes, .failed = w->step.failed, .interpreted = 1,
                          .keep = keeps ? w->noted : NULL};
    if (j->seed)
        w->stretch.adj = tg_carve(memory, used, p->n_live * tg_width(j), sizeof(double));
    if (j->seed && j->lanes > 1)
        w->stretch.shared = tg_carve(memory, used, p->n_const + (uint64_t)p->n_in, 1);
}

/* Which adjoints nobody wants, as in a step: of what is hoisted none, for those are swept on. */
static void mark_idle(const tg_job *j)
{
    const tg_program *step = j->loop->step->program[0];
    const uint8_t *mark = j->looping->step.job->shared;
    const size_t n_own = (size_t)j->loop->n_state + j->loop->n_x, x = step->n_const + (size_t)j->loop->n_state;
    uint8_t *to = j->looping->stretch.shared;
    memcpy(to, mark, x);
    for (to += x; to < j->looping->stretch.shared + x + (size_t)n_steps(j) * j->loop->n_x; to++)
        *to = mark[x];
    memcpy(to, mark + step->n_const + n_own, step->n_in - n_own);
}

void tg_set_stretch(const tg_job *j)
{
    const tg_looping *w = j->looping;
    const tg_job *step = w->step.job;
    const tg_program *p = w->stretch.program;
    const size_t from = shared_of_step(j), to = from + further(j), constants = p->n_const * tg_width(j);
    if (w->stretch.shared)
        mark_idle(j);
    if (!memcmp(w->noted + to, step->primal + from, n_shared(j) * sizeof(double)) &&
        !memcmp(w->noted, step->primal, constants * sizeof(double)))
        return;
    for (double *tile = w->noted; tile < w->noted + w->room / n_steps(j) * (int64_t)w->each; tile += w->each) {
        memcpy(tile, step->primal, constants * sizeof(double));
        memcpy(tile + to, step->primal + from, n_shared(j) * sizeof(double));
    }
}

/* What the ys of n steps are for. */
static void tell_all(tg_job *j, int64_t first, int64_t n)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    for (w->at = first; w->at < first + n; w->at++) {
        for (uint32_t i = 0; i < o->n_y; i++)
            tg_move_numbers(w->in[0] + (o->n_state + i) * tg_width(j),
                            w->stretch.primal + output_of(j, w->at - first, o->n_state + i)[0] * tg_width(j),
                            tg_width(j));
        tg_tell(j, w->alive);
    }
}

/* Keep the states before n steps, side by side, but for the first one, before which it is kept. */
static void keep_all(const tg_job *j, int64_t first, int64_t n)
{
    const size_t n_state = j->loop->n_state, apart = own_slots(j);
    for (uint32_t i = 0; i < n_state; i++) {
        const double *from = j->looping->stretch.primal + output_of(j, 0, i)[0];
        double *to = j->looping->kept + (size_t)first * n_state + i;
        for (int64_t k = 1; k < n; k++, from += apart)
            *(to += n_state) = *from;
    }
}

/* Carry out n steps before which all states are kept; whether all go on. */
static int go_side_by_side(tg_job *j, int64_t first, int64_t n)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    const tg_program *p = w->stretch.program, *step = o->step->program[0];
    const double *state = w->kept + (size_t)first * o->n_state;
    double *tile = tile_of(j, first), *own = tile + p->n_const;
    tg_move_numbers(own, state, o->n_state);
    tg_read_some_x(j, first, n, own + o->n_state);
    for (size_t l = 0; l < (size_t)n; l++, state += o->n_state, own += o->n_x) {
        for (uint32_t i = 0; i < o->n_state; i++)
            w->beside_in[0][i * TG_WIDEST + l] = state[i];
        for (uint32_t i = 0; i < o->n_x; i++)
            w->beside_in[0][(o->n_state + i) * TG_WIDEST + l] = own[o->n_state + i];
    }
    tg_go_along(&w->beside, (1u << n) - 1, 0, w->beside_in, (size_t)step->n_const + step->n_in + step->n_hoisted,
                tile + p->n_const + p->n_in, own_slots(j));
    return w->beside.job[0].alive == (1u << n) - 1;
}

int tg_stretch_on(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    tg_job *s = &w->stretch;
    const tg_program *p = s->program;
    const int64_t first = w->at, left = w->end - first, n = left < n_steps(j) ? left : n_steps(j);
    const size_t wide = tg_width(j), state = p->n_const * wide;
    const uint32_t all = (uint32_t)((1ull << j->lanes) - 1);
    if (w->side_by_side && first >= w->noted_from && w->n_kept * w->unit > first) {
        const int go_on = go_side_by_side(j, first, n);
        w->at += go_on ? n : 0;
        return go_on;
    }
    s->primal = tile_of(j, first);
    tg_move_numbers(s->primal + state, w->in[0], tg_state_size(j));
    tg_read_some_x(j, first, n, s->primal + state + tg_state_size(j));
    s->alive = all;
    tg_forward_between(s, 0, (uint32_t)n * n_instr(j));
    if (s->alive != all)
        return 0;
    if (o->n_y && first >= w->seen)
        tell_all(j, first, n);
    if (j->seed && w->side_by_side && first < w->noted_from)
        keep_all(j, first, n);
    for (uint32_t i = 0; i < o->n_state; i++)
        tg_move_numbers(w->in[0] + i * wide, s->primal + output_of(j, n - 1, i)[s->keep ? 0 : 1] * wide, wide);
    w->at = first + n;
    w->seen = w->at > w->seen ? w->at : w->seen;
    return 1;
}

/* Back over n steps of a stretch, of some lanes. */
TG_INLINE void back_over(tg_job *j, int64_t first, int64_t n, size_t wide)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    tg_job *s = &w->stretch;
    double *adj = s->adj, *state = adj + s->program->n_const * wide;
    const double *y = w->out_adj[0] + o->n_state * wide;
    const uint32_t each = n_instr(j), at_once = o->n_y || w->step.n_watched ? 1 : (uint32_t)n;
    for (uint32_t i = 0; i < o->n_state; i++)
        TG_TURNS_APART for (size_t l = 0; l < wide; l++)
            adj[output_of(j, n - 1, i)[1] * wide + l] += w->in_adj[0][i * wide + l];
    for (uint32_t k = (uint32_t)n; k > 0; k -= at_once) {
        if (o->n_y && !o->total)
            tg_weigh_ys(j, first + k - 1);
        for (uint32_t i = 0; i < o->n_y; i++)
            TG_TURNS_APART for (size_t l = 0; l < wide; l++)
                adj[output_of(j, k - 1, o->n_state + i)[1] * wide + l] += y[i * wide + l];
        tg_go_back(s, (k - at_once) * each, k * each);
        tg_watch(&w->step, adj + further(j), w->step.amount[0], wide);
    }
    for (size_t i = 0; i < o->n_state * wide; i++) {
        w->in_adj[0][i] = state[i];
        state[i] = 0.0;
    }
}

TG_CLONES static void back_over_wide(tg_job *j, int64_t first, int64_t n) { back_over(j, first, n, TG_WIDEST); }

/* Adjoints of what all steps share, which are added up on either side. */
static void hand_over(double *to, double *from, size_t n)
{
    memcpy(to, from, n * sizeof(double));
    memset(from, 0, n * sizeof(double));
}

void tg_stretch_back(tg_job *j)
{
    const tg_loop *o = j->loop;
    tg_looping *w = j->looping;
    tg_job *s = &w->stretch;
    const size_t x = o->n_x * tg_width(j), shared = shared_of_step(j);
    double *own = s->adj + shared - x;
    hand_over(s->adj + shared + further(j), w->step.job->adj + shared, n_shared(j));
    for (int64_t end = w->end, first; end > w->noted_from; end = first) {
        first = (end - 1) / n_steps(j) * n_steps(j);
        s->primal = tile_of(j, first);
        if (j->lanes == 1)
            back_over(j, first, end - first, 1);
        else
            back_over_wide(j, first, end - first);
        for (w->at = end; w->x_wanted && w->at-- > first;) {
            tg_move_numbers(w->in_adj[0] + tg_state_size(j), own + (size_t)(w->at - first) * x, x);
            tg_write_x(j, w->alive);
        }
        if (w->x_wanted || j->lanes == 1)               /* else nobody has added to them */
            memset(own, 0, (size_t)n_steps(j) * x * sizeof(double));
    }
    hand_over(w->step.job->adj + shared, s->adj + shared + further(j), n_shared(j));
}
