/*  Calls: an instruction of a program that carries out a whole loop.

    Its operands are the inputs of the loop, its results the outputs: the last state, then the ys. Both are pairs of
    slots in the pool, the results behind the operands; y is the number of the call, b how many pairs there are. The
    primals of all operands keep their slots, for backwards the loop is carried out again from them.

    A lane in which a step leaves the paths that the loop has is out, as at a guard. A program with calls is never wide,
    and whoever replays one has memory for its loops from the start: a job of its own each, over the lanes.  */
#ifndef TG_CALL_H
#define TG_CALL_H

#include "loops/loop.h"

/* cdef: begin */
/* Where a row that was alone left the paths of a loop: the step, its path, the instruction, and its operands. */
typedef struct tg_stop {
    int64_t step;
    uint32_t path, at;
    double a, b;
} tg_stop;

/* Of an instruction that is a call and at which a job of one row stopped, before tg_finish: where within, and where
   within that where it is a call as well; at most so many. How many there are. Of the job of a loop, where within the
   instruction at which its step stopped. */
int tg_stopped_within(const tg_job *j, uint32_t at, tg_stop *stops, int most);
/* cdef: end */

/* Lay the loops that a job calls out in memory from *used on, which counts what they take; no memory: count only.
   like: a job with as many lanes, with tangents and a sweep where those are wanted; beside: how many jobs share the
   room for states. */
void tg_lay_calls(tg_job *j, const tg_job *like, uint32_t beside, char *memory, uint64_t *used);
/* What of a call is carried out: values from live slots to live slots, or primals from kept ones to kept ones; tangents
   of kept slots; the sweep, from adjoints of results to those of operands. */
enum { TG_CALL_VALUES, TG_CALL_PRIMALS, TG_CALL_TANGENTS, TG_CALL_BACK };
/* Carry a call out, as far as is sensible before one looks for signals: 1: there is more to do; 0: done. In sweeps it
   is as flush.h has it outside. Nothing to do where no lane is alive. */
int tg_call_some(tg_job *j, uint32_t call, int what);
/* Then: the lanes that were alive and did not get through; and these are out. */
uint32_t tg_call_lost(const tg_job *j, uint32_t call);
void tg_call_note_lost(tg_job *j, uint32_t call);
static inline void tg_call_all(tg_job *j, uint32_t call, int what)
{
    while (tg_call_some(j, call, what))
        ;
}

#endif
