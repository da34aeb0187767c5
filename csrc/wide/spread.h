/*  Sums and dots whose terms many pieces make, one after the other: each piece has a part, see pieces.h. All parts
    together have the bits of the whole, as lanes.h has it.  */
#ifndef TG_SPREAD_H
#define TG_SPREAD_H

#include "wide/pieces.h"

/* Find them in pieces that have been cut, and mark the terms that are not made in the sum's own piece, which may be
   nobody else's: TG_OK or TG_MEMORY. in_slot: room for the kept slots; marks: of fixed slots, then of instructions. */
int tg_find_long_sums(const tg_program *p, tg_pieces *s, uint32_t *in_slot, uint8_t *marks, uint8_t mark);

/* Of a job for one row terms first .. first + n - 1, which in a dot are pairs. y, and its tangent, with these; without
   any it is what the first two give. */
double tg_no_terms(const tg_job *j, const tg_instr *s);
double tg_no_tangents(const tg_job *j, const tg_instr *s);
double tg_add_terms(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double y);
double tg_add_tangents(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double y);
/* The adjoint g, and h along the tangents where the job has any, to the terms; the bias is a constant. */
void tg_pass_to_terms(const tg_job *j, const tg_instr *s, uint32_t first, uint32_t n, double g, double h);

#endif
