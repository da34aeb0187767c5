/*  Which instruction of a row is noted as the first that did not do as recorded: the first in the function's order.

    A wide program may meet another one before it, so a row that is out goes on; it is noted anew where one comes that
    stands further ahead, and until its tile ends each of those has the operands that it has in the function. A lane
    that takes no part is out with nothing noted.  */
#ifndef TG_FAILING_H
#define TG_FAILING_H

#include "program.h"

static inline void tg_note_failure(tg_job *j, int lane, uint32_t at, double a, double b, double y)
{
    const uint32_t *order = j->program->order;
    const uint32_t bit = 1u << lane;
    const int64_t row = tg_row_of(j, lane);
    if (j->alive & bit) {
        j->alive &= ~bit;
        if (!j->failures++)
            j->fail_row = row;
    } else if (!order || !j->failed[row] || order[at] >= order[j->failed[row] - 1])
        return;
    j->failed[row] = at + 1;
    if (row == j->fail_row) {
        j->fail_a = a;
        j->fail_b = b;
        j->fail_y = y;
    }
}

#endif
