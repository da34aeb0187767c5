/*  A program laid out on the tape: see lay_out.c.  */
#ifndef TG_LAY_OUT_H
#define TG_LAY_OUT_H

#include "program.h"

/* cdef: begin */
/* Record what a program in the function's order does as nodes of the tape. in: nodes for its inputs, whose data go the
   program's way; nan_errors: as in tg_job. of gets, for each instruction, the id of its node, or of a guard TG_NONE; a,
   b those of a guard's operands; out those of the outputs. */
int tg_lay_out(tg_tape *t, const tg_program *p, const uint32_t *in, int nan_errors, uint32_t *of, uint32_t *a,
               uint32_t *b, uint32_t *out);
/* cdef: end */

#endif
