/*  A stretch: several steps of a loop in a row as one program, so that what begins and ends a step is done once for all
    of them.

    Its inputs are the state before the first step, the xs of each step, then what steps share, and last what is
    hoisted, which is carried out elsewhere. Its instructions are those of a step, one step after the other, as many of
    each; so the first few steps alone are an interval of it. Its outputs are those of each step, the state and y, of
    which each has slots that belong to no other: a sweep over it adds to adjoints what sweeps over its steps do, in
    their order.  */
#ifndef TG_STRETCH_H
#define TG_STRETCH_H

#include "program.h"

/* cdef: begin */
/* TG_OK or TG_MEMORY. p is a step's program, hoisted or not; its first inputs are the state and x. *made is of *steps
   steps, and to be freed; NULL where a step is wide, has calls, or is so large that what begins and ends it is
   little. */
int tg_stretch(const tg_program *p, uint32_t n_state, uint32_t n_x, tg_program **made, uint32_t *steps);
/* cdef: end */

#endif
