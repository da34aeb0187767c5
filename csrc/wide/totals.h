/*  Running totals to which many pieces add: what each adds waits until the piece is done, and is added then; see
    pieces.h. Backwards each of the additions passes on the same number, so every piece knows it once the last one
    does.  */
#ifndef TG_TOTALS_H
#define TG_TOTALS_H

#include "crew.h"
#include "wide/pieces.h"

/* Find them in pieces that have been cut, and mark what their additions give but for the last one, which is nobody
   else's: TG_OK or TG_MEMORY. in_slot: room for the kept slots; marks: of fixed slots, then of instructions. */
int tg_find_totals(const tg_program *p, tg_pieces *s, uint32_t *in_slot, uint8_t *marks, uint8_t mark);

/* Totals while they are added up. */
typedef struct {
    const tg_pieces *pieces;
    tg_progress *added;         /* by piece: whether all that it adds to totals is, this way up */
    tg_progress *given;         /* by total: whether its adjoint is, this way down */
    double *sum[2];             /* by total: upwards what it is until now, and its tangent; downwards its adjoints */
} tg_running;

/* Memory for those of these pieces, or NULL without it; what there is is freed all the same. */
tg_running *tg_make_running(const tg_pieces *s);
void tg_free_running(tg_running *r);
void tg_begin_running(tg_running *r);

/* Instructions from .. to - 1 of a piece, forward and back, but for what is in room until tg_add_spans: n_room numbers,
   then as many tangents where there are any. Backwards as flush.h has it. */
void tg_forward_running(tg_running *r, tg_job *j, double *room, uint32_t piece, uint32_t from, uint32_t to);
void tg_reverse_running(tg_running *r, tg_job *j, uint32_t piece, uint32_t from, uint32_t to);
/* What is left, once all of the piece is done. */
void tg_add_spans(tg_running *r, tg_job *j, const double *room, uint32_t piece);

#endif
