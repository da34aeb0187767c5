/*  Sparse derivatives of a program, as a program whose outputs are the nonzeros.

    The program is drafted anew, and a derivation appends to that draft: sweeps of single outputs or inputs (cones.c),
    edge pushing (edges.c), or sweeps of colours (colours.c). What is 0 whatever the numbers are is not made, and no
    entry. A derivation is used once, by one thread; where it goes over its budget it is closed, and another one opened.

    Work is counted in links: from a node to one of its operands, once for each number that is passed along it.  */
#ifndef TG_NONZEROS_H
#define TG_NONZEROS_H

#include "program.h"

/* cdef: begin */
#define TG_OVER 1               /* a code: the budget was not enough */

typedef struct tg_nonzeros tg_nonzeros;

/* To derive p by count inputs from first on. There are n_weights more inputs, in the place of input weights_at: one for
   each output, to derive their weighed sum, or none. NULL with *code: TG_MEMORY, TG_BAD_ID or TG_FULL. */
tg_nonzeros *tg_open_nonzeros(const tg_program *p, uint32_t first, uint32_t count, uint32_t n_weights,
                              uint32_t weights_at, int64_t *code);
void tg_close_nonzeros(tg_nonzeros *s);

/* The Jacobian, row by row in reverse or column by column forward: TG_OK, TG_OVER, TG_MEMORY or TG_FULL. dry: entries
   are found, but nothing is made. */
int tg_jacobian_rows(tg_nonzeros *s, uint64_t budget, int dry);
int tg_jacobian_columns(tg_nonzeros *s, uint64_t budget, int dry);
/* The Hessian of the sum of the outputs, weighed where there are weights, by edge pushing. */
int tg_hessian_edges(tg_nonzeros *s, uint64_t budget);
/* The same by a tangent and its sweep for each colour of inputs: colour[k] of n_colours is input k's. Of the entries
   that row and col name, in order, each is read where no other of its row or column has its colour. dry: only counted,
   for nothing is made. */
int tg_hessian_colours(tg_nonzeros *s, const uint32_t *colour, uint32_t n_colours, const uint32_t *row,
                       const uint32_t *col, uint32_t n_entries, uint64_t budget, int dry);
/* The pattern of the Hessian: a dry tangent and sweep for each input. */
int tg_hessian_probe(tg_nonzeros *s, uint64_t budget);

uint64_t tg_nonzeros_work(const tg_nonzeros *s);        /* so far */
uint64_t tg_nonzeros_links(const tg_nonzeros *s);       /* of the program: what one sweep of all outputs visits */
uint32_t tg_nonzeros_count(const tg_nonzeros *s);
/* Rows and columns of the entries, in order: row after row, columns ascending. */
void tg_nonzeros_pattern(const tg_nonzeros *s, uint32_t *row, uint32_t *col);
/* The program whose outputs are the entries of this pattern, in order; what is no entry is 0. NULL with *code; with
   TG_BAD_ID an entry is not in the pattern. Nothing can be derived after that. */
tg_program *tg_nonzeros_program(tg_nonzeros *s, const uint32_t *row, const uint32_t *col, uint32_t n, int64_t *code);
/* cdef: end */

#include "sparse/agenda.h"
#include "draft.h"
#include "partials.h"

/* A way from a node to an operand that moves, one for each operand. */
typedef struct {
    uint32_t id, k;             /* the operand, and which one it is */
    tg_scalar partial;            /* a number 0 is no way; of TG_WHERE without meaning */
} tg_port;

struct tg_nonzeros {
    tg_draft d;
    uint32_t n, n_in, first, count, n_out, n_weights;   /* n: the nodes of the program itself are the first ones */
    uint32_t *out, *weight;     /* nodes */
    uint8_t *moves;             /* by node: it may depend on an input that is derived by */
    uint32_t *adj;              /* by node: the adjoint or tangent that is passed on, a node + 1; 0: none */
    tg_agenda agenda;           /* of nodes */
    tg_port *port;
    uint32_t *ids, n_ids;       /* operands, as many as the widest node has */
    uint32_t *use_start, *use_node, *use_k; /* by node: who uses it, as which operand; made when asked for */
    uint32_t *row, *col, *node, len, cap;   /* entries */
    uint64_t work, budget, links;
    uint32_t where;
    int code;                   /* what went wrong first; then nothing is made any more */
};

extern const tg_maker tg_nonzeros_maker;

/* What a node holds, and the node of what is held. */
tg_scalar tg_held(const tg_nonzeros *s, uint32_t node);
uint32_t tg_holder(tg_nonzeros *s, tg_scalar x);
tg_scalar tg_sum_of(tg_nonzeros *s, tg_scalar a, tg_scalar b);
tg_scalar tg_product_of(tg_nonzeros *s, tg_scalar g, tg_scalar partial);

/* The ways from node i, into s->port: how many. And the one along operand k, into *to: 0 where there is none. */
uint32_t tg_ports(tg_nonzeros *s, uint32_t i);
int tg_port_of(tg_nonzeros *s, uint32_t i, uint32_t k, tg_port *to);
/* What goes along a way when g is at node i. */
tg_scalar tg_passed(tg_nonzeros *s, uint32_t i, const tg_port *p, tg_scalar g);
/* The second partial by the operands of two ways, p before q or the same. */
tg_scalar tg_bent(tg_nonzeros *s, uint32_t i, const tg_port *p, const tg_port *q);
/* Of n ways from i, up to which one those from q on may have a second partial with q. */
uint32_t tg_bent_end(const tg_nonzeros *s, uint32_t i, uint32_t q, uint32_t n);

/* Add to what is at a node, and put it on the agenda. */
void tg_add_at(tg_nonzeros *s, uint32_t node, tg_scalar g);
void tg_mark_at(tg_nonzeros *s, uint32_t node);     /* where nothing is made: add something */
int tg_uses(tg_nonzeros *s);    /* make use_start: TG_OK or TG_MEMORY */
void tg_entry(tg_nonzeros *s, uint32_t row, uint32_t col, uint32_t node);
int tg_order_entries(tg_nonzeros *s);

/* Count some work: whether there is budget and nothing went wrong. */
static inline int tg_goes_on(tg_nonzeros *s, uint64_t work)
{
    s->work += work;
    if (s->work > s->budget && !s->code)
        s->code = TG_OVER;
    return !s->code;
}

static inline int tg_is_input(const tg_nonzeros *s, uint32_t i) { return i < s->n_in; }

#endif
