/*  A loop: a recorded step carried out many times, each time on the state that the last one left, and swept backwards.

    Its inputs are the state, then the xs, a part of them for each step, then params. The step's own inputs are the
    state and x, its outputs the next state and y. Outputs of the loop are either the last state, the ys, and with
    `until` how many steps there were; or one number: the sum of the ys, of which there is one a step, and of what
    `final` gives for the last state; without both, the state, which is one number then.

    What follows from params alone is carried out once for all steps, and swept once: see hoist.h. Forward, a step needs
    no memory but its own. Backward each is carried out anew from the state before it, the last first, unless what all
    steps make fits a near cache. Steps of few operations are carried out several at a time: see stretch.h, and chain.c
    for machine code. All states are kept where there is room for as many, else those that schedule.h says;
    the numbers of a sweep do not depend on how many. Which paths steps took is remembered, a byte each and for each
    lane.

    It is carried out by a job: see program.h. A block of rows is in lanes side by side, each ends after steps of its
    own, and one that leaves all known paths is out, as in programs; what a step did not do is in tg_stopped.  */
#ifndef TG_LOOP_H
#define TG_LOOP_H

#include "loops/cell.h"

/* cdef: begin */
struct tg_loop {
    const tg_cell *step, *final, *until;    /* the last two may be NULL; until is asked before each step */
    uint32_t n_state, n_x, n_y, n_params, first_param;
    const uint32_t *x_at, *x_by;        /* of each of x's numbers: which input at the first step; how far to the next */
    const uint32_t *y_at, *y_by;        /* likewise outputs */
    int64_t length;                     /* steps at most */
    int64_t states;                     /* how many may be kept */
    int total;                          /* one number is given */
};

/* Where the first row of a job that was alone stopped. */
typedef struct tg_stopped {
    int64_t step;
    int cell;                           /* 0 the step, 1 final, 2 until */
    uint32_t path, at;
    const double *in;                   /* all inputs of the cell */
} tg_stopped;

tg_stopped tg_where_stopped(const tg_job *j);   /* before tg_finish */
uint64_t tg_advanced(const tg_job *j);          /* steps that were carried out but for the sake of later states */
/* cdef: end */

int tg_start_loop(tg_job *j);           /* TG_OK, TG_MEMORY */
/* Lay out what a loop needs at work, itself included, from memory on, of a job that has its lanes; no memory: count
   only. How many bytes it is, a multiple of 64. */
uint64_t tg_lay_loop(const tg_job *j, tg_looping *w, char *memory);
int tg_run_loop(tg_job *j, uint64_t budget);

#endif
