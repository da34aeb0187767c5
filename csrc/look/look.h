/*  A graph to look at: the nodes that some results need, as plain arrays, whether they come from the tape or a program.

    Node i is op[i] of operand[start[i]] .. operand[start[i + 1] - 1], which are smaller numbers than i. Of DOT they are
    xs, then ys, then the bias, as on the tape. A guard of a program is a node without a use; what kinds there are, kind
    says. Adjoints are those of the last tg_graph_sweep.

    Lifetime: one allocation, freed with free(). A graph copies all that it needs of the tape or program.  */
#ifndef TG_LOOK_H
#define TG_LOOK_H

#include "program.h"

/* cdef: begin */
enum {                      /* kinds of nodes */
    TG_CONSTANT,            /* a number; on the tape a leaf without a handle */
    TG_GIVEN,               /* an input; on the tape a leaf with a handle */
    TG_COMPUTED,
    TG_COMPARED,            /* a guard */
};

typedef struct tg_graph {
    uint32_t n, n_operands, n_roots;
    uint8_t *op, *kind;     /* op of a guard: TG_OPS */
    uint32_t *start, *operand, *where, *root;
    uint32_t *id;           /* of the node on the tape; in a program its instruction or input or constant */
    double *value, *adjoint, *grad;
    int ruled;              /* a Python rule stands in for a slope: TG_GRAPH_RULED in kind */
} tg_graph;

#define TG_GRAPH_RULED 0x80

/* The cone of some nodes of the tape, in order; grad is theirs. NULL with *code: TG_BAD_ID or TG_MEMORY. */
tg_graph *tg_graph_of_tape(const tg_tape *t, const uint32_t *roots, uint32_t n_roots, int64_t *code);
/* Whether these nodes' values are finite, and the grads of all nodes up to the last of them: 1 or 0, TG_BAD_ID. */
int tg_all_finite(const tg_tape *t, const uint32_t *ids, uint32_t n);
void tg_free_graph(tg_graph *g);
/* The adjoints of the sum of the roots, weighed by seed; NULL: 1 each. TG_OK or TG_MEMORY. */
int tg_graph_sweep(tg_graph *g, const double *seed);
/* Say where nodes of the tape were recorded: from ids[k] on, until ids[k + 1], at where[k]. */
void tg_graph_note(tg_graph *g, const uint32_t *ids, const uint32_t *where, uint32_t n);
/* What node i passes on to each of its operands when its adjoint is g; with g = 1 the partials. TG_OK or TG_MEMORY. */
int tg_graph_passed(const tg_graph *graph, uint32_t i, double g, double *out);

/* ---- counts ---- */

/* Number nodes by where, by op where there is none: group[i] in the order of first use. Returns how many groups, with
   the first node of each in first (room for n_first of them: more are one group, the last); or TG_MEMORY. */
int64_t tg_graph_groups(const tg_graph *g, uint32_t *group, uint32_t *first, uint32_t n_first);
/* By group: nodes, operands, sum of |adjoint * value|, largest |partial|. TG_OK or TG_MEMORY. */
int tg_graph_totals(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint64_t *nodes, uint64_t *operands,
                    double *weight, double *partial);
/* Nanoseconds that a node of each op takes, forward and backward, measured on this graph; of many operands: an operand.
   ns has tg_op_count + 2 entries, the last of no use. */
void tg_graph_time(const tg_graph *g, double *ns);
/* By group the time of its nodes: ns of their operations. */
void tg_graph_share(const tg_graph *g, const uint32_t *group, uint32_t n_groups, const double *ns, double *took);
/* By group the sum of adjoint * error, and of |adjoint| * (|error| + bound). */
void tg_graph_weigh(const tg_graph *g, const uint32_t *group, uint32_t n_groups, const double *error,
                    const double *bound, double *signed_sum, double *size);
/* Count nodes into position x group cells, and reads into position x distance cells, 16 rows an octave. */
void tg_graph_raster(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint32_t width, uint32_t height,
                     uint32_t *nodes, uint32_t *reads);
/* Shades of counts: 0 for none, from 1 up with their logarithm. */
void tg_graph_shades(const uint32_t *count, uint32_t n, uint8_t *shade);
/* Nodes of a group, evenly spaced: at most n of them into out; returns how many. */
uint32_t tg_graph_sample(const tg_graph *g, const uint32_t *group, uint32_t of, uint32_t *out, uint32_t n);
/* group[i] = to[group[i]] */
void tg_graph_regroup(const tg_graph *g, uint32_t *group, const uint32_t *to, uint32_t n_groups);
/* How often what is in one of up to 4096 groups is read in another: edges as from, to, count, at most most of them; or
   TG_MEMORY or TG_BAD_ID. */
int64_t tg_graph_fold(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint32_t *edges, uint32_t most);

/* ---- diagnosis ---- */

#define TG_LOOK_NAN 1       /* of bad: only nan is bad, infinities are let be */

typedef struct tg_origin {
    uint32_t node, operand; /* operand: of which the adjoint is bad, by number; TG_NONE: a value is */
    uint32_t count;         /* how many origins there are */
    uint32_t n_way;         /* nodes from the origin to the result */
    int sum;                /* contributions were finite, their sum is not */
} tg_origin;

/* Where a bad value at a root, or a bad adjoint at one of the nodes in by, comes from: way gets the nodes from there
   on, at most n_way. TG_OK, with count 0 where nothing is bad; or TG_MEMORY. */
int tg_graph_bad_value(const tg_graph *g, uint32_t root, int how, tg_origin *out, uint32_t *way, uint32_t n_way);
int tg_graph_bad_adjoint(const tg_graph *g, const uint32_t *by, uint32_t n_by, int how, tg_origin *out, uint32_t *way,
                         uint32_t n_way);

/* ---- rounding ---- */

/* By node the rounding error of its operation, exact minus computed, to first order, and a bound of what that does not
   say. TG_OK or TG_MEMORY. */
void tg_graph_rounding(const tg_graph *g, double *error, double *bound);
/* cdef: end */

/* A graph with room for this much, all zero; NULL without memory. */
tg_graph *tg_new_graph(uint64_t n, uint64_t operands, uint64_t roots);
/* How many operands some instructions of a program have, which is in the function's order, those of calls left out; and
   instructions as nodes from at on, none of which is a call: slot has the nodes of what they read, and gets those of
   results. nan_errors: as in tg_job. */
uint64_t tg_graph_operands(const tg_program *p, uint32_t first, uint32_t end);
void tg_graph_append(tg_graph *g, const tg_program *p, uint32_t first, uint32_t end, uint32_t *slot, uint32_t at,
                     int nan_errors);
/* The most operands of a node; 2 at least. */
uint32_t tg_graph_widest(const tg_graph *g);

#endif
