/*  Sharing a job: whose slots a piece is in, what is carried, who waits: see share.h.

    A hand is what a thread works with: a job of its own, with memory of its own, but that the first has the primals of
    the whole. The primals of a piece stay in the hand that had it, where the reverse sweep of the piece reads them,
    whoever carries that out; its adjoints are in slots of the hand that does, which are all 0 between pieces.  */
#include "share.h"
#include "crew.h"
#include "flush.h"
#include "pieces.h"
#include "wide.h"

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST = 64,                  /* hands */
    WORTH = 1 << 14,            /* instructions */
    OUTPUTS = 1 << 12           /* that a thread writes before it takes others; as many are worth a turn */
};
enum { PRIMALS, TANGENTS, ADJOINTS, ADJOINT_TANGENTS, KINDS };

typedef struct {
    tg_job job;
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
    if (n == 1)
        *to = *from;
    else if (to != from)
        memcpy(to, from, n * sizeof *to);
}

/* to[k] += from[k], which are 0 then; where nothing has been added to it, it is that, sign and all. */
static void give(double *restrict to, double *restrict from, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        to[k] = to[k] == 0.0 ? from[k] : to[k] + from[k];
    memset(from, 0, n * sizeof *from);
}

static void take(double *restrict to, double *restrict from, uint32_t n)
{
    copy(to, from, n);
    memset(from, 0, n * sizeof *from);
}

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
        tg_forward_between(j, t->from, t->to);
        wait_for(s, way->wait + t->wait_out, way->wait + t[1].wait);
        for (const tg_move *m = way->move + t->move_out; m < way->move + t[1].move; m++) {
            copy(place(s, PRIMALS, m->place), j->primal + (in_live ? m->live : m->kept), m->n);
            if (j->tangents)
                copy(place(s, TANGENTS, m->place), j->tangent + m->kept, m->n);
        }
        tg_set_progress(s->steps + k, (uint32_t)(t - first) + 1);
    }
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
    for (const tg_step *t = first; t < end; t++) {
        wait_for(s, way->wait + t->wait, way->wait + t->wait_out);
        for (const tg_move *m = way->move + t->move; m < way->move + t->move_out; m++) {
            take(j->adj + m->live, place(s, ADJOINTS, m->place), m->n);
            if (j->tangents)
                take(j->adj_tangent + m->live, place(s, ADJOINT_TANGENTS, m->place), m->n);
        }
        tg_reverse_between(j, t->from, t->to);
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

/* Outputs, once all pieces are done, if they are any good. */
static void write_some(sharing *s, uint32_t k)
{
    const tg_job *j = s->job;
    const uint32_t n = j->program->n_out, first = k * OUTPUTS, end = n - first < OUTPUTS ? n : first + OUTPUTS;
    for (uint32_t piece = 0; piece < s->pieces->n_pieces; piece++)
        tg_wait_for_progress(s->steps + piece, steps_of(s, TG_UPWARDS, piece));
    if (first_failed(s))
        return;
    if (j->out)
        write_between(s, first, end, s->primals, j->out, j->out_stride);
    if (j->out_tangent)
        write_between(s, first, end, s->tangents, j->out_tangent, j->out_tangent_stride);
}

static uint32_t parts_of_output(const tg_job *j)
{
    const uint32_t n = j->program->n_out;
    return j->out || j->out_tangent ? n / OUTPUTS + (n % OUTPUTS != 0) : 0;
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

static void begin_again(sharing *s)
{
    s->done = 0;
    for (uint32_t k = 0; k < s->pieces->n_pieces; k++)
        tg_set_progress(s->steps + k, 0);
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
    take_turns(s, before, s->done + (s->done == s->pieces->n_pieces ? parts_of_output(j) : 0), go_forward);
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
    take_turns(s, before, s->done, carry_out_reverse);
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
    s->primals = tg_zeroed(2 * (all->n_pieces + (size_t)1) * sizeof *s->primals);
    s->hand = tg_zeroed((size_t)n * sizeof *s->hand);
    if (!s->steps || !s->primals || !s->hand)
        return 0;
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
        if (tg_start(&h->job))
            return 0;
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
    const int hands = all && all->n_pieces ? n : 1;
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
    }
    for (int kind = 0; kind < KINDS; kind++)
        free(s->carried[kind]);
    free(s->steps);
    free(s->primals);
    free(s->hand);
    free(s);
    j->sharing = NULL;
}
