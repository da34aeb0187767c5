/*  Jacobians and Hessians of a program at one point: see matrix.c.  */
#ifndef TG_MATRIX_H
#define TG_MATRIX_H

#include "program.h"

/* cdef: begin */
enum { TG_COLUMNS, TG_ROWS, TG_HESSIAN };   /* a Jacobian's, forward; a Jacobian's, in reverse; a Hessian's */

/* What derivatives are wanted at the point of a job of one row whose primals were kept. COLUMNS: of all outputs, by
   inputs from first on, count of them, to out[output * out_stride + input - first]. ROWS: of outputs from first on, by
   the inputs of each feed, to its grad, with a row for each output. HESSIAN: of the sum of the outputs, weighed by
   seed, by inputs from first on, and by those of each feed, to its grad, with a row for each of the first. All that is
   wanted is written, whatever was there. */
typedef struct tg_matrix {
    const tg_program *program;
    const double *primal, *seed;
    int how;
    uint32_t first, count;
    const tg_feed *feed;
    uint32_t n_feeds;
    double *out;
    int64_t out_stride;
    /* of its own */
    int phase;
    uint32_t at, done;
    void *memory;
    struct tg_line *line;               /* by instruction, and one behind */
    struct tg_term *term;
    struct tg_bend *bend;               /* by term, of a Hessian */
    double *weight;                     /* by instruction, of a Hessian: its adjoint */
    double *adjoint;                    /* by live slot: while weights are made one lane, then tg_lanes */
    double *tangent;                    /* by kept slot */
    uint8_t *moves, *counts;            /* by kept and by live slot: whether tangent and adjoint are not 0 */
    uint8_t *bends;                     /* by group of a wide program: how its lines are, the most that one is */
} tg_matrix;

int tg_matrix_start(tg_matrix *m);      /* TG_OK or TG_MEMORY */
int tg_matrix_run(tg_matrix *m, uint64_t budget);   /* as tg_run; an instruction is one in all lanes */
void tg_matrix_finish(tg_matrix *m);
/* cdef: end */

#endif
