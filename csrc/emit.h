/*  From a draft to instructions: see emit.c.  */
#ifndef TG_EMIT_H
#define TG_EMIT_H

#include "draft.h"

/* Fill a program with what the draft's nodes, surveyed, compute; in the draft's order, or in that of wide/order.h,
   which makes it a wide one: TG_OK or TG_MEMORY. */
void tg_emit(tg_draft *d, tg_program *p);
int tg_emit_wide(tg_draft *d, tg_program *p, const uint32_t *order);

#endif
