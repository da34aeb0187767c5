/*  Which nodes are held from outside, and reclaim: the rest goes. Room for new nodes, which may take a reclaim.  */
#ifndef TG_HELD_H
#define TG_HELD_H

#include "handle.h"

/* Remove the nodes that nothing depends on: how many went, or a code. None while ids have to stay: while a sweep is
   running a rule, or a program is being recorded. Runs Python code. */
int64_t tg_reclaim(void);

/* Make every live Value a leaf without rule and symbol: how many nodes went, or a code. Runs Python code. */
int64_t tg_forget_history(void);

/* Room for so many nodes and pool words, after a reclaim where one is due, and a note of the place where a program is
   being recorded. 1, or 0 with an exception. May run Python code. */
int tg_make_room(uint64_t nodes, uint64_t words);

#endif
