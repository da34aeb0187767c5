/*  The order in which a wide program goes: see order.c.  */
#ifndef TG_WIDE_ORDER_H
#define TG_WIDE_ORDER_H

#include "draft.h"

#define TG_STARTS 0x80000000u   /* on a node of an order: a group begins here */

/* The n nodes of a draft that become instructions, once it is known which are retained, in the order in which they are
   to go; *order is NULL where that of the draft is as good. TG_OK or TG_MEMORY. Uses kept and live of nodes other than
   guards and constants. */
int tg_widen(tg_draft *d, uint32_t n, uint32_t **order);

#endif
