/*  Sharing a job: whose slots a piece is in, what is carried, who waits: see share.h.

    A hand is what a thread works with: a job of its own, with memory of its own, but that the first has the primals of
    the whole. The primals of a piece stay in the hand that had it, where the reverse sweep of the piece reads them,
    whoever carries that out; its adjoints are in slots of the hand that does, which are all 0 between pieces.  */
#include "wide/share.h"
#include "compiled.h"
#include "crew.h"
#include "flush.h"
#include "wide/pieces.h"
#include "wide/spread.h"
#include "wide/totals.h"
#include "wide/wide.h"

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST = 64,                  /* hands */
    WORTH = 1 << 14,            /* instructions */
    EACH = 1 << 12              /* outputs that a thread writes, or inputs, before it takes others */
};
enum { PRIMALS, TANGENTS, ADJOINTS, ADJOINT_TANGENTS, KINDS };

typedef struct {
    tg_job job;
    double *room;               /* what the piece adds to running totals, and its tangents */
    uint32_t failed;
    int taken;                  /* guarded by the crew's lock */
} hand;

struct tg_sharing {
    const tg_pieces *pieces;
    tg_job *job;
    int n_hands;
    hand *hand;
    tg_progress *steps;         /* by piece: how many are done, this way */
    double *carried[KINDS];     /* by place, but for fixed slots, which are the job's own */
    tg_progress *added;         /* by piece: whether its parts of other pieces' sums are, this way up */
    tg_progress *given;         /* by sum: whether its adjoint is, this way down */
    double *sum[2];             /* by sum: upwards what it is until now, and its tangent; downwards its adjoints */
    tg_running *running;
    double **primals, **tangents;   /* by piece, those of the hand that had it; the last are the job's own */
    uint32_t done;              /* pieces, this way */
    /* of a turn */
    void (*work)(struct tg_sharing *s, hand *h, uint32_t k);
    tg_progress next;
    uint32_t stop;
    fenv_t arithmetic;          /* the caller's */
};
typedef struct tg_sharing sharing;

static tg_progress threads;     /* besides the caller's */

void tg_set_threads(int n) { tg_set_progress(&threads, n > 1 ? (uint32_t)n - 1 : 0); }
int tg_threads(void) { return (int)tg_progress_of(&threads) + 1; }

/* ---- a turn ---- */

static hand *take_hand(sharing *s)
{
    hand *free_one = NULL;
    tg_lock_crew();
    for (hand *h = s->hand; h < s->hand + s->n_hands && !free_one; h++)
        if (!h->taken)
            free_one = h;
    if (free_one)
        free_one->taken = 1;
    tg_unlock_crew();
    return free_one;
}

static void lend_hand(void *context)
{
    sharing *s = context;
    hand *h = take_hand(s);
    if (!h)
        return;
    fesetenv(&s->arithmetic);
    for (uint32_t k; (k = tg_take_next(&s->next)) < s->stop;)
        s->work(s, h, k);
    tg_lock_crew();
    h->taken = 0;
    tg_unlock_crew();
}

/* Work on start .. stop - 1, each after those before it are taken. */
static void take_turns(sharing *s, uint32_t start, uint32_t stop, void (*work)(sharing *s, hand *h, uint32_t k))
{
    s->work = work;
    s->stop = stop;
    tg_set_progress(&s->next, start);
    fegetenv(&s->arithmetic);
    tg_together(s->n_hands, lend_hand, s);
}

/* ---- pieces ---- */

static uint32_t steps_of(const sharing *s, int ways, uint32_t k)
{
    const uint32_t *first = s->pieces->way[ways].first;
    return first[k + 1] - first[k];
}

static void wait_for(const sharing *s, const tg_wait *w, const tg_wait *end)
{
    for (; w < end; w++)
        tg_wait_for_progress(s->steps + w->piece, w->steps);
}

/* Where the numbers of a kind are from a place on. */
static double *place(const sharing *s, int kind, uint32_t at)
{
    const tg_job *j = s->job;
    double *const own[KINDS] = {j->primal, j->tangent, j->adj, j->adj_tangent};
    const uint32_t fixed = j->program->n_const + j->program->n_in;
    return at < fixed ? own[kind] + at : s->carried[kind] + (at - fixed);
}

static void copy(double *to, const double *from, uint32_t n)
{
    if (to == from)
        return;
    if (n == 1)
        *to = *from;
    else
        memcpy(to, from, n * sizeof *to);
}

/* to[k] += from[k], which are 0 then; where nothing has been added to it, it is that, sign and all. */
TG_CLONES static void give(double *restrict to, double *restrict from, uint32_t n)
{
    uint32_t k = 0;
    for (; n - k >= 8; k += 8)
        for (uint32_t l = k; l < k + 8; l++)
            to[l] = to[l] == 0.0 ? from[l] : to[l] + from[l];
    for (; k < n; k++)
        to[k] = to[k] == 0.0 ? from[k] : to[k] + from[k];
    memset(from, 0, n * sizeof *from);
}

static void take(double *restrict to, double *restrict from, uint32_t n)
{
    copy(to, from, n);
    memset(from, 0, n * sizeof *from);
}

/* ---- long sums ---- */

static const tg_part *part_at(const sharing *s, uint32_t piece)
{
    return s->pieces->part + s->pieces->first_part[piece];
}

/* A part of a sum that this piece has, or of the last one's, after which it is complete. */
static void add_part(sharing *s, tg_job *j, const tg_part *a)
{
    const tg_long_sum *sum = s->pieces->sum + a->sum;
    const tg_instr t = tg_instruction(j->program, sum->at);
    const int last = a->piece == sum->piece;
    double *y = last ? j->primal + (tg_has_live_primals(j) ? t.live_y : t.y) : s->sum[0] + a->sum;
    if (a->before != TG_NONE)
        tg_wait_for_progress(s->added + a->before, 1);
    *y = tg_add_terms(j, &t, a->first, a->n, a->before != TG_NONE ? s->sum[0][a->sum] : tg_no_terms(j, &t));
    if (j->tangents) {
        const fp_mode mode = flush_to_zero();
        double *dy = last ? j->tangent + t.y : s->sum[1] + a->sum;
        *dy = tg_add_tangents(j, &t, a->first, a->n, a->before != TG_NONE ? s->sum[1][a->sum] : tg_no_tangents(j, &t));
        restore_fp(mode);
    }
}

/* Instructions from .. to - 1 of a piece. */
static void go_upwards(sharing *s, hand *h, uint32_t piece, uint32_t from, uint32_t to)
{
    tg_job *j = &h->job;
    for (const tg_part *a = part_at(s, piece); a < part_at(s, piece + 1); a++) {
        const tg_long_sum *sum = s->pieces->sum + a->sum;
        if (sum->piece != piece || sum->at < from || sum->at >= to)
            continue;
        tg_forward_running(s->running, j, h->room, piece, from, sum->at);
        add_part(s, j, a);
        from = sum->at + 1;
    }
    tg_forward_running(s->running, j, h->room, piece, from, to);
}

/* What is left for other pieces' sums, once the terms are there. */
static void add_parts(sharing *s, tg_job *j, uint32_t piece)
{
    for (const tg_part *a = part_at(s, piece); a < part_at(s, piece + 1); a++)
        if (s->pieces->sum[a->sum].piece != piece)
            add_part(s, j, a);
    tg_set_progress(s->added + piece, 1);
}

static void go_downwards(sharing *s, tg_job *j, uint32_t piece, uint32_t from, uint32_t to)
{
    for (const tg_part *a = part_at(s, piece + 1); a-- > part_at(s, piece);) {
        const tg_long_sum *sum = s->pieces->sum + a->sum;
        tg_instr t;
        if (sum->piece != piece || sum->at < from || sum->at >= to)
            continue;
        t = tg_instruction(j->program, sum->at);
        tg_reverse_running(s->running, j, piece, sum->at + 1, to);
        take(s->sum[0] + a->sum, j->adj + t.live_y, 1);
        if (j->tangents)
            take(s->sum[1] + a->sum, j->adj_tangent + t.live_y, 1);
        tg_set_progress(s->given + a->sum, 1);
        tg_pass_to_terms(j, &t, a->first, a->n, s->sum[0][a->sum], j->tangents ? s->sum[1][a->sum] : 0.0);
        to = sum->at;
    }
    tg_reverse_running(s->running, j, piece, from, to);
}

/* What later pieces' sums pass on to the terms of a piece, which nobody else has passed anything to. */
static void pass_to_parts(sharing *s, tg_job *j, uint32_t piece)
{
    for (const tg_part *a = part_at(s, piece + 1); a-- > part_at(s, piece);) {
        const tg_long_sum *sum = s->pieces->sum + a->sum;
        tg_instr t;
        if (sum->piece == piece)
            continue;
        t = tg_instruction(j->program, sum->at);
        tg_wait_for_progress(s->given + a->sum, 1);
        tg_pass_to_terms(j, &t, a->first, a->n, s->sum[0][a->sum], j->tangents ? s->sum[1][a->sum] : 0.0);
    }
}

/* ---- a piece ---- */

static void carry_out_forward(sharing *s, hand *h, uint32_t k)
{
    const tg_way *way = s->pieces->way + TG_UPWARDS;
    const tg_step *const first = way->step + way->first[k], *const end = way->step + way->first[k + 1];
    tg_job *j = &h->job;
    const int in_live = tg_has_live_primals(j);
    s->primals[k] = j->primal;
    s->tangents[k] = j->tangent;
    for (const tg_step *t = first; t < end; t++) {
        wait_for(s, way->wait + t->wait, way->wait + t->wait_out);
        for (const tg_move *m = way->move + t->move; m < way->move + t->move_out; m++) {
            copy(j->primal + (in_live ? m->live : m->kept), place(s, PRIMALS, m->place), m->n);
            if (j->tangents)
                copy(j->tangent + m->kept, place(s, TANGENTS, m->place), m->n);
        }
        go_upwards(s, h, k, t->from, t->to);
        wait_for(s, way->wait + t->wait_out, way->wait + t[1].wait);
        for (const tg_move *m = way->move + t->move_out; m < way->move + t[1].move; m++) {
            copy(place(s, PRIMALS, m->place), j->primal + (in_live ? m->live : m->kept), m->n);
            if (j->tangents)
                copy(place(s, TANGENTS, m->place), j->tangent + m->kept, m->n);
        }
        tg_set_progress(s->steps + k, (uint32_t)(t - first) + 1);
    }
    add_parts(s, j, k);
    tg_add_spans(s->running, j, h->room, k);
}

static void carry_out_reverse(sharing *s, hand *h, uint32_t k)
{
    const tg_way *way = s->pieces->way + TG_DOWNWARDS;
    const tg_step *const first = way->step + way->first[k], *const end = way->step + way->first[k + 1];
    const uint32_t piece = s->pieces->n_pieces - 1 - k;
    const fp_mode mode = flush_to_zero();               /* what is given is added, too */
    tg_job job = h->job, *j = &job;
    j->primal = s->primals[piece];
    j->tangent = s->tangents[piece];
    pass_to_parts(s, j, piece);
    for (const tg_step *t = first; t < end; t++) {
        wait_for(s, way->wait + t->wait, way->wait + t->wait_out);
        for (const tg_move *m = way->move + t->move; m < way->move + t->move_out; m++) {
            take(j->adj + m->live, place(s, ADJOINTS, m->place), m->n);
            if (j->tangents)
                take(j->adj_tangent + m->live, place(s, ADJOINT_TANGENTS, m->place), m->n);
        }
        go_downwards(s, j, piece, t->from, t->to);
        wait_for(s, way->wait + t->wait_out, way->wait + t[1].wait);
        for (const tg_move *m = way->move + t->move_out; m < way->move + t[1].move; m++) {
            give(place(s, ADJOINTS, m->place), j->adj + m->live, m->n);
            if (j->tangents)
                give(place(s, ADJOINT_TANGENTS, m->place), j->adj_tangent + m->live, m->n);
        }
        tg_set_progress(s->steps + piece, (uint32_t)(t - first) + 1);
    }
    restore_fp(mode);
}

/* The hand with what failed, of all of them the first in the function's order. */
static const hand *first_failed(const sharing *s)
{
    const uint32_t *order = s->job->program->order;
    const hand *first = NULL;
    for (const hand *h = s->hand; h < s->hand + s->n_hands; h++)
        if (h->failed && (!first || order[h->failed - 1] < order[first->failed - 1]))
            first = h;
    return first;
}

/* ---- what comes out ---- */

static void write_between(const sharing *s, uint32_t first, uint32_t end, double *const *from, double *to,
                          int64_t stride)
{
    const tg_job *j = s->job;
    const uint32_t *slot = j->program->out + (tg_has_live_primals(j) ? 1 : 0), *piece = s->pieces->out_piece;
    to += stride * tg_row_of(j, 0);
    for (uint32_t i = first; i < end; i++) {
        const double x = from[piece[i]][slot[2 * (size_t)i]];
        if (stride)
            to[i] = x;
        else
            to[i] += x;
    }
}

static void wait_for_all(const sharing *s, int ways)
{
    const uint32_t n = s->pieces->n_pieces;
    for (uint32_t k = 0; k < n; k++)
        tg_wait_for_progress(s->steps + (ways == TG_UPWARDS ? k : n - 1 - k), steps_of(s, ways, k));
}

static uint32_t parts_of(uint32_t n) { return n / EACH + (n % EACH != 0); }

/* Outputs, once all pieces are done, if they are any good. */
static void write_some(sharing *s, uint32_t k)
{
    const tg_job *j = s->job;
    const uint32_t n = j->program->n_out, first = k * EACH, end = n - first < EACH ? n : first + EACH;
    wait_for_all(s, TG_UPWARDS);
    if (first_failed(s))
        return;
    if (j->out)
        write_between(s, first, end, s->primals, j->out, j->out_stride);
    if (j->out_tangent)
        write_between(s, first, end, s->tangents, j->out_tangent, j->out_tangent_stride);
}

/* Adjoints of inputs from .. to - 1, of one argument, or their tangents: they are 0 then. */
static void collect_between(const tg_job *j, const tg_feed *f, uint32_t from, uint32_t to, int along)
{
    const int64_t stride = along ? f->grad_tangent_stride : f->grad_stride;
    double *out = along ? f->grad_tangent : f->grad;
    double *x = (along ? j->adj_tangent : j->adj) + j->program->n_const + from;
    if (out)
        out += stride * tg_row_of(j, 0) + (from - f->first);
    if (out && stride)
        memcpy(out, x, (to - from) * sizeof *x);
    for (uint32_t i = 0; out && !stride && i < to - from; i++)
        out[i] += x[i];
    memset(x, 0, (to - from) * sizeof *x);
}

/* Some of the gradient, once all pieces are done. */
static void collect_some(sharing *s, uint32_t k)
{
    const tg_job *j = s->job;
    const uint32_t n = j->program->n_in, first = k * EACH, end = n - first < EACH ? n : first + EACH;
    wait_for_all(s, TG_DOWNWARDS);
    for (const tg_feed *f = j->feed; f < j->feed + j->n_feeds; f++) {
        const uint32_t from = f->first > first ? f->first : first;
        const uint32_t to = f->first + f->count < end ? f->first + f->count : end;
        for (int along = 0; from < to && along <= j->tangents; along++)
            collect_between(j, f, from, to, along);
    }
}

void tg_share_seeds(tg_job *j)
{
    const sharing *s = j->sharing;
    const double *seed = j->seed + (j->seed_stride ? j->seed_stride * tg_row_of(j, 0) : 0);
    for (uint32_t i = 0; j->alive && i < j->program->n_out; i++)
        *place(s, ADJOINTS, s->pieces->out_place[i]) += seed[i];
}

/* ---- both ways ---- */

static void go_forward(sharing *s, hand *h, uint32_t k)
{
    if (k < s->pieces->n_pieces)
        carry_out_forward(s, h, k);
    else
        write_some(s, k - s->pieces->n_pieces);
}

static void go_back(sharing *s, hand *h, uint32_t k)
{
    if (k < s->pieces->n_pieces)
        carry_out_reverse(s, h, k);
    else
        collect_some(s, k - s->pieces->n_pieces);
}

static void begin_again(sharing *s)
{
    s->done = 0;
    for (uint32_t k = 0; k < s->pieces->n_pieces; k++)
        tg_set_progress(s->steps + k, 0);
    for (uint32_t k = 0; k < s->pieces->n_pieces; k++)
        tg_set_progress(s->added + k, 0);
    for (uint32_t k = 0; k < s->pieces->n_sums; k++)
        tg_set_progress(s->given + k, 0);
    tg_begin_running(s->running);
}

/* How many instructions the pieces are that come next and are done within a budget, which all hands have. */
static uint64_t next_pieces(sharing *s, uint64_t budget, int ways)
{
    const tg_pieces *all = s->pieces;
    const uint64_t most = budget < UINT64_MAX / MOST ? budget * (uint64_t)s->n_hands : budget;
    uint64_t took = 0;
    for (; s->done < all->n_pieces && took < most; s->done++) {
        const uint32_t piece = ways == TG_UPWARDS ? s->done : all->n_pieces - 1 - s->done;
        took += all->start[piece + 1] - all->start[piece];
    }
    return took;
}

uint64_t tg_share_forward(tg_job *j, uint32_t from, uint64_t budget)
{
    sharing *s = j->sharing;
    const hand *failed;
    uint32_t before;
    uint64_t took;
    if (!from) {
        begin_again(s);
        for (hand *h = s->hand; h < s->hand + s->n_hands; h++) {
            h->job.alive = 1;
            h->failed = 0;
        }
        s->primals[s->pieces->n_pieces] = j->primal;
        s->tangents[s->pieces->n_pieces] = j->tangent;
    }
    before = s->done;
    took = next_pieces(s, budget, TG_UPWARDS);
    take_turns(s, before, s->done + (s->done == s->pieces->n_pieces && (j->out || j->out_tangent) ?
                                     parts_of(j->program->n_out) : 0), go_forward);
    j->at = from + (uint32_t)took;
    failed = j->at == j->program->n_instr ? first_failed(s) : NULL;
    if (failed) {
        const int64_t row = tg_row_of(j, 0);
        j->alive = 0;
        j->failed[row] = failed->failed;
        if (!j->failures++) {
            j->fail_row = row;
            j->fail_a = failed->job.fail_a;
            j->fail_b = failed->job.fail_b;
            j->fail_y = failed->job.fail_y;
        }
    }
    return took;
}

uint64_t tg_share_reverse(tg_job *j, uint32_t from, uint64_t budget)
{
    sharing *s = j->sharing;
    uint32_t before;
    uint64_t took;
    if (!from)
        begin_again(s);
    before = s->done;
    took = next_pieces(s, budget, TG_DOWNWARDS);
    take_turns(s, before, s->done + (s->done == s->pieces->n_pieces ? parts_of(j->program->n_in) : 0), go_back);
    j->at = from + (uint32_t)took;
    return took;
}

/* ---- begin and end ---- */

/* How many hands a job is to have; 1: it is not shared. */
static int wanted(const tg_job *j)
{
    const int n = tg_threads() < MOST ? tg_threads() : MOST;
    return j->lanes == 1 && j->stop - j->start == 1 && !j->native && !j->keep && j->program->wide &&
           j->program->n_instr >= WORTH ? n : 1;
}

/* The memory of a job's hands, and what they share: whether there was all. */
static int make_hands(sharing *s, tg_job *j, int n)
{
    const tg_pieces *all = s->pieces;
    const int kinds[KINDS] = {1, j->tangents, j->seed != NULL, j->seed && j->tangents};
    s->steps = tg_zeroed(all->n_pieces * sizeof *s->steps);
    s->added = tg_zeroed(all->n_pieces * sizeof *s->added);
    s->given = tg_zeroed(all->n_sums * sizeof *s->given + 1);
    s->sum[0] = tg_zeroed(2 * (size_t)all->n_sums * sizeof **s->sum + 1);
    s->primals = tg_zeroed(2 * (all->n_pieces + (size_t)1) * sizeof *s->primals);
    s->hand = tg_zeroed((size_t)n * sizeof *s->hand);
    s->running = tg_make_running(all);
    if (!s->running || !s->steps || !s->added || !s->given || !s->sum[0] || !s->primals || !s->hand)
        return 0;
    s->sum[1] = s->sum[0] + all->n_sums;
    s->tangents = s->primals + all->n_pieces + 1;
    for (int kind = 0; kind < KINDS; kind++)
        if (kinds[kind] && !(s->carried[kind] = tg_zeroed(all->n_carried * sizeof *s->carried[kind] + 1)))
            return 0;
    for (; s->n_hands < n; s->n_hands++) {
        hand *h = s->hand + s->n_hands;
        h->job = *j;
        h->job.keep = s->n_hands ? NULL : j->primal;    /* the first has the job's own, where inputs are */
        h->job.sharing = NULL;
        h->job.n_feeds = 0;
        h->job.row = NULL;
        h->job.failed = &h->failed;
        h->job.start = 0;
        h->job.stop = 1;
        h->room = tg_realloc(NULL, 2 * (size_t)all->n_room * sizeof *h->room + 1);
        if (!h->room || tg_start(&h->job)) {
            free(h->room);
            return 0;
        }
        j->bytes += h->job.bytes;
        if (!s->n_hands)
            h->job.primal = j->primal;
        h->job.keep = NULL;
    }
    return 1;
}

void tg_begin_share(tg_job *j)
{
    const int n = wanted(j);
    const tg_pieces *all = n > 1 ? tg_pieces_of(j->program) : NULL;
    const int hands = all && all->n_pieces && all->pays[j->seed != NULL] ? n : 1;
    if (hands == (j->sharing ? j->sharing->n_hands : 1))
        return;
    tg_end_share(j);
    if (hands == 1)
        return;
    j->sharing = tg_zeroed(sizeof *j->sharing);
    if (!j->sharing)
        return;
    j->sharing->pieces = all;
    j->sharing->job = j;
    if (!make_hands(j->sharing, j, hands))
        tg_end_share(j);
}

void tg_end_share(tg_job *j)
{
    sharing *s = j->sharing;
    if (!s)
        return;
    for (int k = 0; k < s->n_hands; k++) {
        s->job->bytes -= s->hand[k].job.bytes;
        tg_finish(&s->hand[k].job);
        free(s->hand[k].room);
    }
    for (int kind = 0; kind < KINDS; kind++)
        free(s->carried[kind]);
    free(s->steps);
    free(s->added);
    free(s->given);
    free(s->sum[0]);
    tg_free_running(s->running);
    free(s->primals);
    free(s->hand);
    free(s);
    j->sharing = NULL;
}
