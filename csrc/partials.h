/*  The partials of the table as steps for a stack; see partials.c.  */
#ifndef TG_PARTIALS_H
#define TG_PARTIALS_H

#include <stdint.h>

/* cdef: begin */
void tg_read_partials(void);    /* to be called once, before there are threads */
/* cdef: end */

enum { TG_PART_NUMBER, TG_PART_OPERAND, TG_PART_ROW, TG_PART_TEST, TG_PART_CHOICE };

typedef struct {
    uint8_t what, op;           /* op: of a ROW; of an OPERAND 0 a, 1 b, 2 y */
    uint16_t yes, no;           /* of a TEST: how many steps follow for either side, before the CHOICE */
    double k;                   /* of a NUMBER */
} tg_part;

#define TG_DEEPEST_PARTIAL 32   /* of the stack */

enum { TG_DA, TG_DB, TG_DAA, TG_DAB, TG_DBB, TG_PARTIALS };

/* The steps of one of these partials of a row, and how many they are; 0 where it has none, as rows of many operands
   have none of second order. */
const tg_part *tg_partial(int op, int k, uint32_t *count);

/* A number, or the node that holds one. */
typedef struct {
    int is_node;
    uint32_t id;
    double k;
} tg_scalar;

static inline tg_scalar tg_number(double k) { return (tg_scalar){.k = k}; }
static inline tg_scalar tg_node(uint32_t id) { return (tg_scalar){.is_node = 1, .id = id}; }
static inline int tg_is_number(tg_scalar x, double k) { return !x.is_node && x.k == k; }

/* Who makes nodes of steps: y = op(a, b), b being a where op takes one; and where c, a node, is not 0, a, else b. */
typedef struct tg_maker {
    tg_scalar (*apply)(void *to, int op, tg_scalar a, tg_scalar b);
    tg_scalar (*choose)(void *to, tg_scalar c, tg_scalar a, tg_scalar b);
} tg_maker;

/* What a partial gives at what a, b and y stand for. Of a choice both sides are made; but where a number decides, the
   other one is not. */
tg_scalar tg_follow(const tg_maker *m, void *to, int op, int partial, const tg_scalar named[3]);
/* g times a partial: 0 where g is 0, whatever the partial. */
tg_scalar tg_weighed(const tg_maker *m, void *to, tg_scalar g, tg_scalar partial);

/* Whether a row has one operand. */
int tg_is_unary(int op);

#endif
