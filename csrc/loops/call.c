/*  Calls at work: lanes of slots become rows of a loop's job, and the other way round.  */
#include "loops/call.h"
#include "failing.h"
#include "flush.h"
#include "loops/looping.h"

#include <string.h>

#define ROOM ((uint64_t)64 << 20)       /* bytes of states that the loops of a job keep */

struct tg_calling {
    tg_job job;
    tg_loop loop;
    tg_feed feed;
    fp_mode mode;                       /* outside of sweeps */
    double *in[2], *out[2], *seed[2], *grad[2];         /* a row for each lane; the second for tangents */
    uint32_t failed[TG_WIDEST], lost;
    uint64_t slice;                     /* instructions */
    int under_way;
};

static void lay_rows(double *rows[2], uint64_t n, const tg_job *like, char *memory, uint64_t *used)
{
    for (int order = 0; order < (like->tangents ? 2 : 1); order++)
        rows[order] = tg_carve(memory, used, n * (uint64_t)like->lanes, sizeof(double));
}

static void lay_call(tg_calling *w, const tg_called *c, uint64_t room, const tg_job *like, char *memory, uint64_t *used)
{
    const uint64_t each = (uint64_t)c->loop->n_state * (uint64_t)like->lanes * (like->tangents ? 16 : 8);
    tg_looping counted = {0}, *looping;
    char *here;
    w->loop = *c->loop;
    w->loop.states = (int64_t)(room / (each + 1) + 1);
    w->mode = flush_to_zero();
    restore_fp(w->mode);
    lay_rows(w->in, c->n_in, like, memory, used);
    lay_rows(w->out, c->n_out, like, memory, used);
    if (like->seed) {
        lay_rows(w->seed, c->n_out, like, memory, used);
        lay_rows(w->grad, c->n_in, like, memory, used);
    }
    w->feed = (tg_feed){.count = c->n_in, .in = w->in[0], .in_stride = c->n_in, .tangent_stride = c->n_in,
                        .grad = w->grad[0], .grad_stride = c->n_in, .grad_tangent = w->grad[1],
                        .grad_tangent_stride = c->n_in};
    w->job = (tg_job){.loop = &w->loop, .feed = &w->feed, .n_feeds = 1, .seed = like->seed, .out = w->out[0],
                      .out_tangent = w->out[1], .seed_stride = c->n_out, .out_stride = c->n_out,
                      .out_tangent_stride = c->n_out, .stop = like->lanes, .failed = w->failed,
                      .tangents = like->tangents, .nan_errors = like->nan_errors, .lanes = like->lanes};
    here = memory ? memory + *used : NULL;
    w->slice = (c->loop->step->program[0]->n_instr + (uint64_t)1) *
               (TG_SLICE / (uint64_t)like->lanes / (tg_dearest(c->loop->step) + 1) + 1);
    looping = here ? (tg_looping *)(void *)here : &counted;
    tg_carve(memory, used, tg_lay_loop(&w->job, looping, here), 1);
    w->job.looping = looping;
}

void tg_lay_calls(tg_job *j, const tg_job *like, uint32_t beside, char *memory, uint64_t *used)
{
    const tg_program *p = j->program;
    tg_calling counted = {0};
    if (!p->n_calls)
        return;
    j->calling = tg_carve(memory, used, p->n_calls, sizeof *j->calling);
    for (uint32_t k = 0; k < p->n_calls; k++)
        lay_call(memory ? j->calling + k : &counted, p->call + k, ROOM / p->n_calls / beside, like, memory, used);
}

/* Slots to rows; lanes that are out have the numbers of the lowest that is not. */
static void gather(const tg_job *j, const uint32_t *pairs, uint32_t n, int live, const double *from, double *to)
{
    const size_t lanes = (size_t)j->lanes;
    size_t lowest = 0;
    while (!(j->alive >> lowest & 1))
        lowest++;
    for (uint32_t i = 0; i < n; i++) {
        const double *x = from + pairs[2 * (size_t)i + (live ? 1 : 0)] * lanes;
        for (size_t l = 0; l < lanes; l++)
            to[l * n + i] = x[j->alive >> l & 1 ? l : lowest];
    }
}

static void scatter(const tg_job *j, const uint32_t *pairs, uint32_t n, int live, const double *from, double *to)
{
    const size_t lanes = (size_t)j->lanes;
    for (uint32_t i = 0; i < n; i++)
        for (size_t l = 0; l < lanes; l++)
            to[pairs[2 * (size_t)i + (live ? 1 : 0)] * lanes + l] = from[l * n + i];
}

static const uint32_t *pairs_of(const tg_job *j, uint32_t call)
{
    return j->program->pool + 2 * (size_t)j->program->alone[TG_KEPT][j->program->call[call].at].a;
}

/* Adjoints of results to rows, which are 0 from there on; whether any was not. */
static int take(const tg_job *j, const uint32_t *pairs, uint32_t n, double *adj, double *to)
{
    const size_t lanes = (size_t)j->lanes;
    int any = 0;
    for (uint32_t i = 0; i < n; i++) {
        double *x = adj + pairs[2 * (size_t)i + 1] * lanes;
        for (size_t l = 0; l < lanes; l++) {
            to[l * n + i] = j->alive >> l & 1 ? x[l] : 0.0;
            any |= x[l] != 0.0;
            x[l] = 0.0;
        }
    }
    return any;
}

/* Rows to adjoints of operands; those of constants are left out. */
static void give(const tg_job *j, const uint32_t *pairs, uint32_t n, const double *from, double *adj)
{
    const size_t lanes = (size_t)j->lanes;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t slot = pairs[2 * (size_t)i + 1];
        for (size_t l = 0; slot >= j->program->n_const && l < lanes; l++)
            adj[slot * lanes + l] += from[l * n + i];
    }
}

/* From slots to rows: whether there is anything to do. */
static int begin(tg_job *j, uint32_t call, int what)
{
    const tg_called *c = j->program->call + call;
    const uint32_t *pairs = pairs_of(j, call), *results = pairs + 2 * (size_t)c->n_in;
    tg_calling *w = j->calling + call;
    const int moving = j->tangents && what >= TG_CALL_TANGENTS;
    w->lost = 0;
    if (!j->alive)
        return 0;
    if (what == TG_CALL_BACK) {
        int any = take(j, results, c->n_out, j->adj, w->seed[0]);
        if (moving)
            any |= take(j, results, c->n_out, j->adj_tangent, w->seed[1]);
        if (!any)
            return 0;
    }
    gather(j, pairs, c->n_in, what == TG_CALL_VALUES, j->primal, w->in[0]);
    if (moving)
        gather(j, pairs, c->n_in, 0, j->tangent, w->in[1]);
    w->feed.tangent = moving ? w->in[1] : NULL;
    w->job.seed = what == TG_CALL_BACK ? w->seed[0] : NULL;
    w->job.seed_tangent = what == TG_CALL_BACK ? w->seed[1] : NULL;
    tg_again(&w->job);
    return 1;
}

/* And from rows to slots. */
static void end(tg_job *j, uint32_t call, int what)
{
    const tg_called *c = j->program->call + call;
    const uint32_t *pairs = pairs_of(j, call), *results = pairs + 2 * (size_t)c->n_in;
    tg_calling *w = j->calling + call;
    for (int l = 0; w->job.failures && l < w->job.lanes; l++) {
        w->lost |= (uint32_t)(w->failed[l] != 0 && (j->alive >> l & 1)) << l;
        w->failed[l] = 0;
    }
    if (what == TG_CALL_BACK) {
        give(j, pairs, c->n_in, w->grad[0], j->adj);
        if (j->tangents)
            give(j, pairs, c->n_in, w->grad[1], j->adj_tangent);
    } else if (what == TG_CALL_TANGENTS)
        scatter(j, results, c->n_out, 0, w->out[1], j->tangent);
    else
        scatter(j, results, c->n_out, what == TG_CALL_VALUES, w->out[0], j->primal);
}

int tg_call_some(tg_job *j, uint32_t call, int what)
{
    tg_calling *w = j->calling + call;
    fp_mode mode = 0;
    if (!w->under_way)
        w->under_way = begin(j, call, what);
    if (!w->under_way)
        return 0;
    if (what >= TG_CALL_TANGENTS) {
        mode = flush_to_zero();
        restore_fp(w->mode);
    }
    w->under_way = tg_run_loop(&w->job, w->slice);
    if (what >= TG_CALL_TANGENTS)
        restore_fp(mode);
    if (!w->under_way)
        end(j, call, what);
    return w->under_way;
}

uint32_t tg_call_lost(const tg_job *j, uint32_t call) { return j->calling[call].lost; }

void tg_call_note_lost(tg_job *j, uint32_t call)
{
    const uint32_t lost = tg_call_lost(j, call);
    for (int l = 0; l < j->lanes; l++)
        if (lost >> l & 1)
            tg_note_failure(j, l, j->program->call[call].at, 0.0, 0.0, 0.0);
}

int tg_stopped_within(const tg_job *j, uint32_t at, tg_stop *stops, int most)
{
    int n = 0;
    if (j->looping) {
        const tg_looping *w = j->looping;
        const tg_stage *s = w->stopped.cell == 0 ? &w->step : w->stopped.cell == 1 ? &w->final : &w->until;
        at = w->stopped.at;
        j = s->job + w->stopped.path;
    }
    while (n < most && j->program->n_calls && tg_row(j->program->alone[TG_KEPT] + at) == TG_CALL) {
        const tg_calling *w = j->calling + j->program->alone[TG_KEPT][at].y;
        const tg_stopped *s = &w->job.looping->stopped;
        if (!s->in)
            break;
        stops[n++] = (tg_stop){s->step, s->path, s->at, w->job.fail_a, w->job.fail_b};
        j = w->job.looping->step.job + s->path;
        at = s->at;
    }
    return n;
}
