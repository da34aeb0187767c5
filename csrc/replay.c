/*  Replays: a job is carried out in slices, so that Python can look for signals in between.

    A block of rows is loaded, run forward, run backward and written; then comes the next. One row runs at width 1.

    Native code knows rows that do as recorded alone: a block with another starts anew in the interpreter, whatever of
    it the interpreter has done already.  */
#include "loops/call.h"
#include "compiled.h"
#include "failing.h"
#include "flush.h"
#include "ops.h"
#include "wide/share.h"
#include "weights.h"
#include "wide/wide.h"

#include <stdlib.h>
#include <string.h>

#define WIDE 16
#define TG_TILE 8              /* elements of a row that are turned at a time: their slots fit the nearest cache */

typedef double *grad_of_feed(const tg_feed *f, int64_t *stride);

/* What lanes.h has for a block of rows of one width. */
typedef struct {
    void (*load)(tg_job *j, int first_block);
    tg_narrow_replay *values, *primals, *tangents;
    void (*seeds)(tg_job *j);
    tg_narrow_replay *reverse, *reverse_tangents;
    void (*write)(tg_job *j, const double *from, const uint32_t *slots, uint32_t n, double *to, int64_t stride);
    void (*collect)(tg_job *j, int last_block, double *adj, grad_of_feed *grad);
} width;

#define LANES 1
#define NAME(x) one_##x
#include "lanes.h"
#undef LANES
#undef NAME
#define LANES WIDE
#define NAME(x) wide_##x
#include "lanes.h"
#undef LANES
#undef NAME

const int tg_lanes = WIDE;

enum phase { LOAD, FORWARD, TANGENTS, WRITE, REVERSE };

static double *grad_of(const tg_feed *f, int64_t *stride)
{
    *stride = f->grad_stride;
    return f->grad;
}

static double *grad_tangent_of(const tg_feed *f, int64_t *stride)
{
    *stride = f->grad_tangent_stride;
    return f->grad_tangent;
}

/* Whether primals are in kept slots: for values alone they are in live ones, unless native code cannot do with them. */
static int kept_slots(const tg_job *j)
{
    return j->seed || j->tangents || j->keep || (j->native && !j->native->values[j->lanes > 1].n);
}

int tg_has_live_primals(const tg_job *j) { return !kept_slots(j); }

static void write_constants(tg_job *j)
{
    double *to = j->primal;
    for (uint32_t i = 0; i < j->program->n_const; i++)
        for (int l = 0; l < j->lanes; l++)
            *to++ = j->program->constant[i];
}

int tg_start(tg_job *j)
{
    const tg_program *p = j->program;
    size_t lanes = j->stop - j->start > 1 ? WIDE : 1, kept = p->n_kept * lanes, live = p->n_live * lanes, n;
    const uint32_t n_fixed = p->n_const + p->n_in;
    const int wide = lanes > 1, sharing = wide && !j->tangents;
    int zeroed;
    size_t primals;
    uint64_t called = 0;
    if (j->loop)
        return tg_start_loop(j);
    j->lanes = (int)lanes;
    if (tg_find_weights(j))
        return TG_MEMORY;
    tg_lay_calls(j, j, 1, NULL, &called);
    primals = j->keep ? 0 : kept_slots(j) ? kept : live;
    n = primals + (j->tangents ? kept : 0) + (j->seed ? live : 0) + (j->seed && j->tangents ? live : 0) +
        (sharing ? n_fixed : 0) + (wide ? (size_t)n_fixed / sizeof(double) + 1 : 0);
    j->bytes = (n + 16) * sizeof(double) + called;
    zeroed = called || j->weights;                      /* what weights have no use for is never touched */
    j->memory = !zeroed ? tg_realloc(NULL, j->bytes) : called < SIZE_MAX / 4 ? tg_zeroed(j->bytes) : NULL;
    if (!j->memory) {
        tg_free_weights(j);
        return TG_MEMORY;
    }
    j->primal = (double *)(((uintptr_t)j->memory + 63) & ~(uintptr_t)63);
    if (!zeroed)
        memset(j->primal + primals, 0, (n - primals) * sizeof(double)); /* primals are written before they are read */
    j->tangent = j->primal + primals;
    j->adj = j->tangent + (j->tangents ? kept : 0);
    j->adj_tangent = j->adj + (j->seed ? live : 0);
    j->same = j->adj_tangent + (j->seed && j->tangents ? live : 0);
    j->shared = wide ? (uint8_t *)(j->same + (sharing ? n_fixed : 0)) : NULL;
    for (const tg_feed *f = j->feed; wide && f < j->feed + j->n_feeds; f++) {
        const int mark = sharing && !f->in_stride && f->count ? TG_SHARED : 0;
        memset(j->shared + p->n_const + f->first, f->grad || f->grad_tangent ? mark : mark | TG_IDLE, f->count);
        if (mark)
            memcpy(j->same + p->n_const + f->first, f->in, f->count * sizeof *f->in);
    }
    if (sharing && p->n_const) {
        memset(j->shared, TG_SHARED, p->n_const);
        memcpy(j->same, p->constant, p->n_const * sizeof *j->same);
    }
    tg_mark_weights(j);
    if (called) {
        char *behind = (char *)(j->primal + n);
        called = 0;
        tg_lay_calls(j, j, 1, behind + (-(uintptr_t)behind & 63), &called);
    }
    if (!j->keep)
        write_constants(j);
    tg_again(j);
    return TG_OK;
}

void tg_again(tg_job *j)
{
    j->loaded = 0;
    j->failures = 0;
    tg_next_rows(j, j->start, j->stop);
}

void tg_next_rows(tg_job *j, int64_t start, int64_t stop)
{
    j->start = j->base = start;
    j->stop = stop;
    j->phase = LOAD;
}

void tg_finish(tg_job *j)
{
    tg_end_share(j);
    tg_free_weights(j);
    free(j->memory);
    j->memory = NULL;
}

#define INTERPRETED 0x80000000u

/* The primals that do not follow from others; where they are kept, all may be there already. */
static void load(tg_job *j, const width *w)
{
    j->phase = FORWARD;
    j->interpreted = 0;
    j->at = 0;
    if (j->keep) {
        j->primal = j->keep + j->base * (int64_t)j->program->n_kept;
        if (j->again) {
            j->interpreted = j->lives[j->base] & INTERPRETED ? 1 : 0;
            j->alive = j->lives[j->base] & ~INTERPRETED;
            j->phase = WRITE;
            return;
        }
        write_constants(j);
    }
    w->load(j, j->keep || !j->loaded);
    j->loaded = 1;
    tg_begin_share(j);
}

static void write_out(tg_job *j, const width *w)
{
    const tg_program *p = j->program;
    if (j->out)
        w->write(j, j->primal, kept_slots(j) ? p->out : p->out + 1, p->n_out, j->out, j->out_stride);
    if (j->out_tangent)
        w->write(j, j->tangent, p->out, p->n_out, j->out_tangent, j->out_tangent_stride);
}

static void collect(tg_job *j, const width *w)
{
    int last = j->base + j->lanes >= j->stop;
    tg_collect_weights(j, last);
    w->collect(j, last, j->adj, grad_of);
    if (j->tangents)
        w->collect(j, last, j->adj_tangent, grad_tangent_of);
}

typedef void group_replay(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);

static void group_values(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    tg_group_forward(j, s, from, to, narrow, TG_LIVE);
}

static void group_primals(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    tg_group_forward(j, s, from, to, narrow, TG_KEPT);
}

/* The first call that is instruction at or a later one. */
static uint32_t call_from(const tg_program *p, uint32_t at)
{
    uint32_t low = 0, high = p->n_calls;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (p->call[middle].at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* From .. to - 1, between them the calls, as long as a lane is alive. */
static void between_calls(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow, group_replay *grouped)
{
    const tg_program *p = j->program;
    const int what = grouped == group_values    ? TG_CALL_VALUES
                     : grouped == group_primals ? TG_CALL_PRIMALS
                                                : TG_CALL_TANGENTS;
    for (uint32_t k = call_from(p, from); from < to && j->alive; k++) {
        const uint32_t end = k < p->n_calls && p->call[k].at < to ? p->call[k].at : to;
        narrow(j, tg_alone(p, 0, from), from, end);
        if (end < to)
            tg_call_all(j, k, what);
        if (end < to && grouped != tg_group_tangents)
            tg_call_note_lost(j, k);
        from = end + 1;
    }
}

/* From .. to - 1, what is in groups group by group. */
static void upwards(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow, group_replay *grouped)
{
    const tg_program *p = j->program;
    const tg_group *g;
    if (p->n_calls)
        between_calls(j, from, to, narrow, grouped);
    else if (!p->wide)
        narrow(j, tg_alone(p, 0, from), from, to);
    else if (j->lanes > 1)
        tg_one_by_one(j, from, to, narrow, grouped == group_values ? TG_LIVE : TG_KEPT);
    else                                                /* groups are for one row */
        for (uint32_t at = tg_group_at(p->wide, from), end; from < to; from = end) {
            end = tg_first_part(p->wide, &at, from, to, &g);
            if (g)
                grouped(j, g, from, end, narrow);
            else
                narrow(j, tg_alone(p, at, from), from, end);
        }
}

/* The same from the last to the first. */
static void downwards(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow, group_replay *grouped)
{
    const tg_program *p = j->program;
    const tg_group *g;
    for (uint32_t k = call_from(p, to), at; k-- > 0 && (at = p->call[k].at) >= from; to = at) {
        narrow(j, tg_alone(p, 0, at + 1), at + 1, to);
        tg_call_all(j, k, TG_CALL_BACK);
    }
    if (!p->wide)
        narrow(j, tg_alone(p, 0, from), from, to);
    else if (j->lanes > 1)
        tg_one_by_one_back(j, from, to, narrow);
    else
        for (uint32_t at = to ? tg_group_at(p->wide, to - 1) + 1 : 0, start; to > from; to = start) {
            start = tg_last_part(p->wide, &at, from, to, &g);
            if (g)
                grouped(j, g, start, to, narrow);
            else
                narrow(j, tg_alone(p, at, start), start, to);
        }
}

static const width *width_of(const tg_job *j) { return j->lanes == 1 ? &one_width : &wide_width; }
static const tg_code *code_of(const tg_job *j, int kept)
{
    return (kept ? j->native->code : j->native->values) + (j->lanes > 1);
}

/* Instructions from .. to - 1 in the interpreter. */
static void interpret(tg_job *j, uint32_t from, uint32_t to, int kept)
{
    const width *w = width_of(j);
    if (kept)
        upwards(j, from, to, w->primals, group_primals);
    else
        upwards(j, from, to, w->values, group_values);
}

/* The call that a piece is, and that alone; else TG_NONE. What is compiled around it has kept slots. */
static uint32_t call_of(const tg_job *j, const tg_code *code, uint32_t k)
{
    const tg_half *s = j->program->n_calls ? j->program->alone[TG_KEPT] + code->first[k] : NULL;
    return s && tg_row(s) == TG_CALL ? s->y : TG_NONE;
}

/* A piece; other than 0 where native code does not know what to do. Which lanes a call has lost is told by the
   interpreter, for what comes before it may have gone wrong unseen. */
static int piece_forward(tg_job *j, const tg_code *code, uint32_t k, int kept)
{
    const uint32_t f = code->function[k], call = call_of(j, code, k);
    if (f != TG_NONE)
        return code->forward[f](j->primal, code->told + code->at[k], code->list);
    if (call != TG_NONE) {
        tg_call_all(j, call, TG_CALL_PRIMALS);
        return tg_call_lost(j, call) != 0;
    }
    interpret(j, code->first[k], code->first[k + 1], kept);
    return 0;
}

static void piece_reverse(tg_job *j, const tg_code *code, uint32_t k)
{
    const uint32_t f = code->function[k];
    if (f != TG_NONE)
        code->reverse[f](j->primal, j->adj, code->told + code->at[k], code->list);
    else
        downwards(j, code->first[k], code->first[k + 1], width_of(j)->reverse, tg_group_reverse);
}

/* Pieces from at on, which counts them, as long as there is budget; returns how many instructions they were. */
static uint64_t native_forward(tg_job *j, uint32_t at, uint64_t budget)
{
    const int kept = kept_slots(j);
    const tg_code *code = code_of(j, kept);
    uint64_t took = 0;
    for (; at < code->n && took < budget; at++) {
        const uint32_t call = call_of(j, code, at);
        took += code->first[at + 1] - code->first[at];
        if (call != TG_NONE && tg_call_some(j, call, TG_CALL_PRIMALS)) {
            took = budget;
            break;
        }
        if (call != TG_NONE ? tg_call_lost(j, call) != 0 : piece_forward(j, code, at, kept)) {
            j->interpreted = 1;                         /* from the start: shared slots have been written over */
            at = 0;
            break;
        }
    }
    j->at = at;
    return took;
}

static uint64_t native_reverse(tg_job *j, uint32_t at, uint64_t budget)
{
    const tg_code *code = code_of(j, 1);
    uint64_t took = 0;
    for (; at < code->n && took < budget; at++) {
        const uint32_t k = code->n - 1 - at, call = call_of(j, code, k);
        took += code->first[k + 1] - code->first[k];
        if (call == TG_NONE)
            piece_reverse(j, code, k);
        else if (tg_call_some(j, call, TG_CALL_BACK)) {
            took = budget;
            break;
        }
    }
    j->at = at;
    return took;
}

static void tangents_between(tg_job *j, uint32_t from, uint32_t to)
{
    const fp_mode mode = flush_to_zero();
    upwards(j, from, to, width_of(j)->tangents, tg_group_tangents);
    restore_fp(mode);
}

void tg_forward_between(tg_job *j, uint32_t from, uint32_t to)
{
    interpret(j, from, to, kept_slots(j));
    if (j->tangents)
        tangents_between(j, from, to);
}

void tg_go_back(tg_job *j, uint32_t from, uint32_t to)
{
    if (j->tangents)
        downwards(j, from, to, width_of(j)->reverse_tangents, tg_group_reverse_tangents);
    else
        downwards(j, from, to, width_of(j)->reverse, tg_group_reverse);
}

void tg_reverse_between(tg_job *j, uint32_t from, uint32_t to)
{
    const fp_mode mode = flush_to_zero();
    tg_go_back(j, from, to);
    restore_fp(mode);
}

enum { NO_CALL, UNDER_WAY, DONE };

/* Where instructions from .. to - 1 are next, counted from the end in a sweep: end them before the next call, and where
   that is the first of them, carry some of it out. */
static int stop_at_call(tg_job *j, uint32_t from, uint32_t *to)
{
    const tg_program *p = j->program;
    const int back = j->phase == REVERSE;
    const uint32_t first = back ? p->n_instr - 1 - from : from;
    const uint32_t k = back ? call_from(p, first + 1) - 1 : call_from(p, first);
    const int up = j->phase == TANGENTS ? TG_CALL_TANGENTS : kept_slots(j) ? TG_CALL_PRIMALS : TG_CALL_VALUES;
    uint32_t at;
    if (j->phase == LOAD || j->phase == WRITE || !j->alive || (back && !j->seed) || k >= p->n_calls)
        return NO_CALL;
    at = back ? p->n_instr - 1 - p->call[k].at : p->call[k].at;
    if (at != from) {
        *to = at < *to ? at : *to;
        return NO_CALL;
    }
    *to = from + 1;
    if (tg_call_some(j, k, back ? TG_CALL_BACK : up))
        return UNDER_WAY;
    if (j->phase == FORWARD)
        tg_call_note_lost(j, k);
    return DONE;
}

/* The step of the machine: from phase to phase, at most budget instructions in one. Returns how many it took. */
static uint64_t advance(tg_job *j, uint64_t budget)
{
    const width *w = width_of(j);
    const int native = j->native && !j->interpreted &&
                       (j->phase == FORWARD || (j->phase == REVERSE && j->seed && !j->tangents));
    const uint32_t n = native ? code_of(j, kept_slots(j))->n : j->program->n_instr;
    uint64_t step = n - j->at < budget ? n - j->at : budget;
    const uint32_t from = j->at;
    uint32_t to = from + (uint32_t)step;
    fp_mode mode;
    const int call = j->program->n_calls && !native ? stop_at_call(j, from, &to) : NO_CALL;
    if (call == UNDER_WAY)
        return budget;
    step = to - from;
    switch ((enum phase)j->phase) {
    case LOAD:
        load(j, w);
        return 1;
    case FORWARD:
        j->at = to;
        if (native)
            step = native_forward(j, from, budget);
        else if (j->sharing)
            step = tg_share_forward(j, from, budget);
        else if (call == NO_CALL)
            interpret(j, from, to, kept_slots(j));
        if (j->at == n || (!j->alive && !j->program->order)) {
            j->phase = j->alive && j->tangents && !j->sharing ? TANGENTS : WRITE;
            j->at = 0;
        }
        break;
    case TANGENTS:
        if (call == NO_CALL)
            tangents_between(j, from, to);
        j->at = to;
        if (to == n) {
            j->phase = WRITE;
            j->at = 0;
        }
        break;
    case WRITE:
        if (!j->sharing)
            write_out(j, w);
        if (j->keep && !j->again)
            j->lives[j->base] = j->alive | (j->interpreted ? INTERPRETED : 0);
        if (j->seed && j->sharing)
            tg_share_seeds(j);
        else if (j->seed)
            w->seeds(j);
        j->phase = REVERSE;
        j->at = 0;
        return 1;
    case REVERSE:                                       /* at counts what is done, from the end */
        if (j->seed && j->alive) {
            j->at = to;
            if (native) {
                mode = flush_to_zero();
                step = native_reverse(j, from, budget);
                restore_fp(mode);
            } else if (j->sharing)
                step = tg_share_reverse(j, from, budget);
            else if (call == NO_CALL)
                tg_reverse_between(j, n - to, n - from);
        } else
            j->at = n;
        if (j->at == n) {
            if (j->seed && !j->sharing)
                collect(j, w);
            j->base += j->lanes;
            j->phase = LOAD;
            j->at = 0;
        }
        break;
    }
    return step;
}

/* Instructions from .. to - 1, at one of which a chunk begins, tangents included. */
static void forward(tg_job *j, uint32_t from, uint32_t to)
{
    const tg_code *code = j->native ? code_of(j, 1) : NULL;
    j->interpreted = !code;
    for (uint32_t k = 0; !j->interpreted && k < code->n && code->first[k] < to; k++)
        if (code->first[k] >= from)
            j->interpreted = piece_forward(j, code, k, 1);
    if (j->interpreted)
        interpret(j, from, to, 1);
    if (j->tangents && j->alive)
        tangents_between(j, from, to);
}

static void reverse(tg_job *j, uint32_t from, uint32_t to)
{
    const tg_code *code = j->native ? code_of(j, 1) : NULL;
    if (j->tangents || j->interpreted)
        tg_go_back(j, from, to);
    else
        for (uint32_t k = code->n; k-- > 0 && code->first[k] >= from;)
            if (code->first[k] < to)
                piece_reverse(j, code, k);
}

int tg_forward_some(tg_job *j, int more)
{
    const tg_program *p = j->program;
    if (!more) {
        j->phase = FORWARD;
        j->interpreted = 1;
        j->at = 0;
    }
    while (j->alive && j->at < p->n_instr) {
        const uint32_t k = call_from(p, j->at), end = k < p->n_calls ? p->call[k].at : p->n_instr;
        const int primals = j->phase == FORWARD;
        if (j->at < end) {
            if (primals)
                interpret(j, j->at, end, 1);
            else
                tangents_between(j, j->at, end);
            j->at = end;
        } else if (tg_call_some(j, k, primals ? TG_CALL_PRIMALS : TG_CALL_TANGENTS))
            return 1;
        else if (j->at++, primals)
            tg_call_note_lost(j, k);
        if (j->at == p->n_instr && primals && j->tangents) {
            j->phase = TANGENTS;
            j->at = 0;
        }
    }
    return 0;
}

int tg_reverse_some(tg_job *j, int more)
{
    const tg_program *p = j->program;
    if (!more)
        j->at = p->n_instr;                             /* what comes before it is still to be swept */
    while (j->at) {
        const uint32_t k = call_from(p, j->at), start = k ? p->call[k - 1].at + 1 : 0;
        if (j->at > start) {
            tg_go_back(j, start, j->at);
            j->at = start;
        } else if (tg_call_some(j, k - 1, TG_CALL_BACK))
            return 1;
        else
            j->at--;
    }
    return 0;
}

void tg_forward(tg_job *j) { forward(j, j->program->n_hoisted, j->program->n_instr); }
void tg_reverse(tg_job *j) { reverse(j, j->program->n_hoisted, j->program->n_instr); }
void tg_forward_hoisted(tg_job *j) { forward(j, 0, j->program->n_hoisted); }
void tg_reverse_hoisted(tg_job *j) { reverse(j, 0, j->program->n_hoisted); }

int tg_run(tg_job *j, uint64_t budget)
{
    if (j->loop)
        return tg_run_loop(j, budget);
    while (j->base < j->stop && budget > 0) {
        uint64_t took = advance(j, budget);
        budget -= took < budget ? took : budget;
    }
    return j->base < j->stop;
}

void tg_accumulate(double *to, const double *from, uint64_t n)
{
    for (uint64_t k = 0; k < n; k++)
        to[k] += from[k];
}
