/*  The order in which a wide program goes: see order.c.  */
#ifndef TG_WIDE_ORDER_H
#define TG_WIDE_ORDER_H

#include "draft.h"

#define TG_STARTS 0x80000000u   /* in an order: a group begins here */

/* The n instructions of a draft, once it is known which are retained, in the order in which they are to go, by number;
   *order is NULL where that of the draft is as good. TG_OK or TG_MEMORY. Uses kept and live of nodes other than guards
   and constants. */
int tg_widen(tg_draft *d, uint32_t n, uint32_t **order);

/* The node of an instruction of an order. */
static inline uint32_t tg_ordered(const tg_draft *d, uint32_t which) { return d->instr[which & ~TG_STARTS]; }

#endif
