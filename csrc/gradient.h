/*  Sweeps that are recorded: see gradient.c.  */
#ifndef TG_GRADIENT_H
#define TG_GRADIENT_H

#include "tape.h"

/* cdef: begin */
/* Record the sweep from all roots at once, whose seeds are nodes, or 1 each: out gets the adjoint of every x, a new
   node each. TG_RULED where a node with a Python rule is on the way. */
int tg_record_sweep(tg_tape *t, const uint32_t *roots, const uint32_t *seeds, uint32_t n_roots, const uint32_t *xs,
                    uint32_t n_xs, uint32_t *out);
/* Whether a root depends on a node that is older than first: 0, 1 or a code. */
int tg_depends_on_older(tg_tape *t, const uint32_t *roots, uint32_t n_roots, uint32_t first);
/* cdef: end */

#endif
