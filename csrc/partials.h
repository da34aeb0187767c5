/*  The partials of the table as steps for a stack; see partials.c.  */
#ifndef TG_PARTIALS_H
#define TG_PARTIALS_H

#include <stdint.h>

enum { TG_PART_NUMBER, TG_PART_OPERAND, TG_PART_ROW, TG_PART_TEST, TG_PART_CHOICE };

typedef struct {
    uint8_t what, op;           /* op: of a ROW; of an OPERAND 0 a, 1 b, 2 y */
    uint16_t yes, no;           /* of a TEST: how many steps follow for either side, before the CHOICE */
    double k;                   /* of a NUMBER */
} tg_part;

#define TG_DEEPEST_PARTIAL 32   /* of the stack */

/* The steps of partial 0, da, or 1, db, of a row, and how many they are; 0 where it has none. The caller lets one
   thread in at a time. */
const tg_part *tg_partial(int op, int k, uint32_t *count);

/* Whether a row has one operand. */
int tg_is_unary(int op);

#endif
