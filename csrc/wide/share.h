/*  A job for one sample that several threads share: each takes the pieces of pieces.h as they come. All bits are those
    of one thread.

    A job is shared where it is for one row, its program is wide enough, and tg_set_threads said so; it is asked anew at
    each start. It goes in turns, between which no thread but the caller's knows of it. Where memory is missing, it is
    carried out by one thread.  */
#ifndef TG_SHARE_H
#define TG_SHARE_H

#include "program.h"

/* cdef: begin */
void tg_set_threads(int n);             /* for jobs of one row that begin from now on, in all threads */
int tg_threads(void);                   /* 1 at first */
/* cdef: end */

/* Have the job shared from here on, or not any more, as tg_set_threads says. */
void tg_begin_share(tg_job *j);
/* The pieces that come next, as long as there is budget; from: 0 of the first. Returns how many instructions they are,
   by which it moves j->at on. Forward, tangents come with primals, and the outputs are written at the end; backwards
   the gradient is. */
uint64_t tg_share_forward(tg_job *j, uint32_t from, uint64_t budget);
uint64_t tg_share_reverse(tg_job *j, uint32_t from, uint64_t budget);
void tg_share_seeds(tg_job *j);         /* before the first of them backwards */
void tg_end_share(tg_job *j);

#endif
