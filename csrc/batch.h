/*  A batch: the rows of a job in chunks, which several threads take one after the other.

    A chunk is a job of its own. What is added up over rows is added up in each chunk from 0 on, and the sums of chunks
    are added in the order of the chunks, whoever had them and whenever they were ready: the bits depend on the rows and
    on the size of the chunks, not on the threads.

    It is carried out in turns, after each of which Python may look for signals, fork, or give up: between two of them
    no thread but the caller's knows of it. A chunk under way waits for the next turn, where any thread goes on with it.

    Memory that runs out means fewer threads; an error only where not even one can go on.  */
#ifndef TG_BATCH_H
#define TG_BATCH_H

#include "program.h"

/* cdef: begin */
typedef struct tg_hand tg_hand;
typedef struct tg_sums tg_sums;

typedef struct tg_batch {
    const tg_job *job;          /* of all rows; never started itself */
    int64_t step;               /* rows of a chunk, the last may have less */
    int threads;                /* at most */
    uint64_t budget;            /* instructions that a thread carries out before it looks at the clock */
    double seconds;             /* of a turn */
    /* of the batch itself */
    int64_t n_chunks, next, added;  /* chunks: how many, begun, their sums where they belong */
    uint64_t n_sums, failures;      /* failures: of all rows, once it is finished */
    uint32_t n_summed;
    int n_hands, over, moved;   /* of the turn: it is over, it got somewhere */
    double end;
    tg_hand *hands;
    tg_sums **ready;            /* by chunk, until they are added */
    tg_sums *spare;
} tg_batch;

/* How rows make chunks; only tests write it. */
typedef struct {
    uint64_t most;              /* chunks, so that the last of them ends soon after the others */
    uint64_t work;              /* additions of a chunk, at least: some 10 us */
    uint64_t summed;            /* additions for each number that may be added up, at least */
    uint64_t worth;             /* additions, some 40 us of them, below which threads cost more than they give */
    double seconds;             /* of a turn */
} tg_chunking;
extern tg_chunking tg_chunks;

/* The step of a batch of so many rows, each of which costs so many additions: by the program and the number of rows
   alone, and so are the bits. And its threads, as many as are given at most. */
void tg_share_rows(tg_batch *b, const tg_program *p, uint64_t rows, uint64_t cost, uint64_t threads);

int tg_start_batch(tg_batch *b);        /* TG_OK or TG_MEMORY */
int tg_run_batch(tg_batch *b);          /* a turn; 1: there is more to do, 0: done, or TG_MEMORY */
void tg_finish_batch(tg_batch *b);      /* whether it was started or not, and as often as one likes */
/* cdef: end */

#endif
