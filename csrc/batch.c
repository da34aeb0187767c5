/*  The turns of batch.h: what a thread takes, a chunk to go on with or to begin, and where sums go.

    A hand is what a thread works with: a job and its memory, kept from chunk to chunk. Who has which hand, and all else
    of the batch that changes, is read and written with the crew's lock held; a hand that is taken is its thread's.  */
#include "batch.h"
#include "crew.h"

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

tg_chunking tg_chunks = {32, 1u << 15, 256, 1u << 17, 0.05};

/* An array that is added up over rows: where a hand's job names it, and what it is in the batch's. */
typedef struct {
    double **named, *total;
    uint64_t n;
} summed;

struct tg_hand {
    tg_job job;                 /* of its chunk; what is added up goes to sums */
    summed *summed;
    tg_sums *sums;
    int64_t chunk;              /* under way, or NONE */
    int taken;
};

/* Of one chunk, array after array. */
struct tg_sums {
    tg_sums *next;
    double x[];
};

/* The arrays that a job with these feeds adds up; how many they are. */
static uint32_t find_summed(tg_job *j, tg_feed *feed, summed *found)
{
    uint32_t n = 0;
    if (j->out && !j->out_stride)
        found[n++] = (summed){&j->out, j->out, j->program->n_out};
    if (j->out_tangent && !j->out_tangent_stride)
        found[n++] = (summed){&j->out_tangent, j->out_tangent, j->program->n_out};
    for (tg_feed *f = feed; f < feed + j->n_feeds; f++) {
        if (f->grad && !f->grad_stride)
            found[n++] = (summed){&f->grad, f->grad, f->count};
        if (f->grad_tangent && !f->grad_tangent_stride)
            found[n++] = (summed){&f->grad_tangent, f->grad_tangent, f->count};
    }
    return n;
}

static uint64_t parts(uint64_t whole, uint64_t part) { return whole / part + (whole % part != 0); }

void tg_share_rows(tg_batch *b, const tg_program *p, uint64_t rows, uint64_t cost, uint64_t threads)
{
    const uint64_t most = tg_chunks.most, lanes = (uint64_t)tg_lanes;
    const uint64_t summed = tg_chunks.summed * ((uint64_t)p->n_in + p->n_out);
    const uint64_t least = parts(summed > tg_chunks.work ? summed : tg_chunks.work, cost);
    const uint64_t step = parts(rows, most) > least ? parts(rows, most) : least;
    b->step = (int64_t)(parts(step, lanes) * lanes);
    b->threads = rows < parts(tg_chunks.worth, cost) ? 1 : (int)(threads < most ? threads : most);
}

int tg_start_batch(tg_batch *b)
{
    const tg_job *whole = b->job;
    const uint32_t n_feeds = whole->n_feeds, most = 2 + 2 * n_feeds;
    const int64_t rows = whole->stop - whole->start;
    summed *found;
    tg_feed *feed;
    b->n_chunks = rows / b->step + (rows % b->step != 0);
    b->n_hands = b->threads < b->n_chunks ? b->threads : (int)b->n_chunks;
    b->hands = tg_zeroed((size_t)b->n_hands * (sizeof *b->hands + most * sizeof *found + n_feeds * sizeof *feed) + 1);
    b->ready = tg_zeroed((size_t)b->n_chunks * sizeof *b->ready + 1);
    if (!b->hands || !b->ready)
        return TG_MEMORY;
    found = (summed *)(b->hands + b->n_hands);
    feed = (tg_feed *)(found + (size_t)b->n_hands * most);
    for (tg_hand *h = b->hands; h < b->hands + b->n_hands; h++, found += most, feed += n_feeds) {
        h->job = *whole;
        if (n_feeds)
            memcpy(feed, whole->feed, n_feeds * sizeof *feed);
        h->job.feed = feed;
        h->chunk = NONE;
        h->summed = found;
        b->n_summed = find_summed(&h->job, feed, found);
    }
    b->n_sums = 0;
    for (uint32_t k = 0; b->n_hands && k < b->n_summed; k++)
        b->n_sums += b->hands->summed[k].n;
    return TG_OK;
}

/* Give the hand the next chunk: whether there was one, and the memory for its sums. */
static int begin_chunk(tg_batch *b, tg_hand *h)
{
    const tg_job *whole = b->job;
    double *x;
    int64_t start;
    if (b->next == b->n_chunks)
        return 0;
    if (b->n_summed) {
        h->sums = b->spare ? b->spare : tg_zeroed(sizeof *h->sums + b->n_sums * sizeof *h->sums->x);
        if (!h->sums)
            return 0;
        if (h->sums == b->spare) {
            b->spare = h->sums->next;
            memset(h->sums->x, 0, b->n_sums * sizeof *h->sums->x);
        }
        x = h->sums->x;
        for (uint32_t k = 0; k < b->n_summed; x += h->summed[k++].n)
            *h->summed[k].named = x;
    }
    h->chunk = b->next++;
    start = whole->start + h->chunk * b->step;
    tg_next_rows(&h->job, start, whole->stop - start > b->step ? start + b->step : whole->stop);
    return 1;
}

/* The chunk of the hand is done: add what sums are next. */
static void end_chunk(tg_batch *b, tg_hand *h)
{
    b->ready[h->chunk] = h->sums;
    h->chunk = NONE;
    h->sums = NULL;
    while (b->n_summed && b->added < b->next && b->ready[b->added]) {
        tg_sums *sums = b->ready[b->added];
        const double *x = sums->x;
        for (uint32_t k = 0; k < b->n_summed; x += h->summed[k++].n)
            tg_accumulate(h->summed[k].total, x, h->summed[k].n);
        b->ready[b->added++] = NULL;
        sums->next = b->spare;
        b->spare = sums;
    }
}

/* A hand that nobody has, one with a chunk under way first, made ready. */
static tg_hand *take_hand(tg_batch *b)
{
    tg_hand *free_one = NULL;
    int code = TG_OK;
    for (tg_hand *h = b->hands; h < b->hands + b->n_hands; h++)
        if (!h->taken && (!free_one || (h->chunk != NONE && free_one->chunk == NONE)))
            free_one = h;
    if (!free_one || (free_one->chunk == NONE && b->next == b->n_chunks))
        return NULL;
    free_one->taken = 1;
    if (!free_one->job.memory) {
        tg_unlock_crew();
        code = tg_start(&free_one->job);
        tg_lock_crew();
    }
    if (!code && (free_one->chunk != NONE || begin_chunk(b, free_one)))
        return free_one;
    free_one->taken = 0;
    return NULL;
}

typedef struct {
    tg_batch *batch;
    fenv_t arithmetic;          /* the caller's, lest bits depend on who has a chunk */
} turn;

/* What a thread does in a turn. */
static void lend_hand(void *context)
{
    const turn *t = context;
    tg_batch *b = t->batch;
    tg_hand *h;
    fesetenv(&t->arithmetic);
    tg_lock_crew();
    while (!b->over && (h = take_hand(b))) {
        do {
            int more;
            double now;
            tg_unlock_crew();
            more = tg_run(&h->job, b->budget);
            now = tg_seconds();
            tg_lock_crew();
            b->moved = 1;
            b->over |= now > b->end || now < b->end - b->seconds;    /* the clock may have been set back */
            if (!more)
                end_chunk(b, h);
        } while (!b->over && (h->chunk != NONE || begin_chunk(b, h)));
        h->taken = 0;
    }
    tg_unlock_crew();
}

int tg_run_batch(tg_batch *b)
{
    turn t = {.batch = b};
    b->over = b->moved = 0;
    b->end = tg_seconds() + b->seconds;
    fegetenv(&t.arithmetic);
    tg_together(b->n_hands, lend_hand, &t);
    for (tg_hand *h = b->hands; h < b->hands + b->n_hands; h++)
        if (h->chunk != NONE || b->next < b->n_chunks)
            return b->moved ? 1 : TG_MEMORY;
    return 0;
}

void tg_finish_batch(tg_batch *b)
{
    for (tg_hand *h = b->hands; h && h < b->hands + b->n_hands; h++) {
        b->failures += h->job.failures;
        tg_finish(&h->job);
        free(h->sums);
    }
    for (int64_t k = 0; b->ready && k < b->n_chunks; k++)
        free(b->ready[k]);
    for (tg_sums *next; b->spare; b->spare = next) {
        next = b->spare->next;
        free(b->spare);
    }
    free(b->hands);
    free(b->ready);
    b->hands = NULL;
    b->ready = NULL;
}
