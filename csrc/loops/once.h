/*  Whether what is hoisted may be swept once, from what all steps together passed on to it, instead of in each step.

    The two differ by rounding alone, as long as nothing overflows on one way that does not on the other, meets an
    infinite slope there, or is flushed to 0 for good. So this asks how large an adjoint can have become in any step:
    no larger than what the steps left in slots, taken by its amount, times the amounts of slopes on the way.  */
#ifndef TG_ONCE_H
#define TG_ONCE_H

#include "loops/cell.h"
#include "compiled.h"

#include <math.h>

/* What it takes, of a cell with something hoisted; see tg_lay_stage. */
void tg_lay_watch(tg_stage *s, char *memory, uint64_t *used);
/* After each step: take down what it has left in adjoints, of an order, of w lanes. */
TG_INLINE void tg_watch(const tg_stage *s, const double *adj, double *amount, size_t w)
{
    for (uint32_t k = 0; k < s->n_watched; k++)
        TG_TURNS_APART for (size_t l = 0; l < w; l++)
            amount[l] += fabs(adj[s->watched[k] * w + l]);
}
/* After all steps: lanes whose adjoints may come out otherwise in a sweep of steps that are written out. */
uint32_t tg_unsure(tg_stage *s);
/* Such a sweep of a step: all instructions, hoisted or not, from the last to the first in the function's order. */
void tg_reverse_written_out(tg_job *j);

#endif
