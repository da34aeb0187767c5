/*  The split of schedule.h. With s states and each step carried out at most r times beyond its own turn, chains of up
    to b(s, r) = (s + r)! / (s! r!) steps can be swept; a split into m and the rest is best where the first part is at
    most b(s, r - 1) long, with s states again, and the other at least b(s - 1, r - 1), with one less.  */
#include "loops/schedule.h"

int64_t tg_next_kept(int64_t steps, int64_t states)
{
    int64_t reach = 1, shorter = 1, r = 0, rest;        /* b(s, r) and b(s, r - 1) */
    if (states == 1 || steps <= states + 1)
        return states == 1 ? steps - 1 : 1;
    while (reach < steps) {
        r++;
        shorter = reach;
        if ((double)reach * (double)(states + r) >= 4e18)
            break;                                      /* beyond 2^40 even after the division */
        reach = reach * (states + r) / r;
    }
    rest = shorter * states / (states + r - 1);         /* b(s - 1, r - 1) */
    return shorter < steps - rest ? shorter : steps - rest;
}
