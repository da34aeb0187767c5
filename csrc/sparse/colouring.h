/*  Star colourings of a graph; see colouring.c.  */
#ifndef TG_COLOURING_H
#define TG_COLOURING_H

#include "tape.h"

/* cdef: begin */
/* Colour the n nodes of a symmetric pattern, whose entries come row after row, columns ascending: the number of
   colours, the best of several ways; or TG_MEMORY. Work beyond the budget, of entries looked at, is not done: then the
   best so far, or 0. */
int64_t tg_star_colours(uint32_t n, const uint32_t *row, const uint32_t *col, uint32_t n_entries, uint64_t budget,
                        uint32_t *colour);
/* cdef: end */

#endif
