/*  A step's program whose first instructions are those that come out the same in all steps: of constants and params
    alone, guards left out. A loop carries them out once, and sweeps them once. Their results have slots of their own;
    the others stay in their order, and a row that cannot go on is told of as in the function's order.  */
#ifndef TG_HOIST_H
#define TG_HOIST_H

#include "program.h"

/* cdef: begin */
/* TG_OK or TG_MEMORY. The first n_own inputs are new in each step. *made is to be freed; NULL where there is nothing of
   the kind, or the program is wide or has calls. */
int tg_hoist(const tg_program *p, uint32_t n_own, tg_program **made);
/* cdef: end */

#endif
