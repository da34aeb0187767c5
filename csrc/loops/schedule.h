/*  Which states of a chain of steps are kept, so that a sweep from the last to the first repeats as few as can be:
    Griewank, Walther, "Algorithm 799: revolve", ACM Transactions on Mathematical Software 26 (2000).  */
#ifndef TG_SCHEDULE_H
#define TG_SCHEDULE_H

#include <stdint.h>

#define TG_MOST_STEPS ((int64_t)1 << 40)
#define TG_MOST_STATES ((int64_t)1 << 22)

/* How many of these steps to go from a state that is kept to the next that is to be, where there is room for so many
   states, that one included; all but the last where there is room for no other. At least 2 steps, at least 1 state, at
   most TG_MOST_STEPS and TG_MOST_STATES. */
int64_t tg_next_kept(int64_t steps, int64_t states);

#endif
