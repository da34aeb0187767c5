/*  Programs, and steps of loops, to look at: as graphs, in which the steps of loops that instructions carry out are
    written out, each on the path that it takes.

    The nodes of some steps of a loop are the state before the first of them and all params, which are given; then for
    each step its x, which is given, the constants of its path, and its instructions; after the last step those of
    `final`, where that is asked for. The roots are the state after the last step, the ys of each, and what `final`
    gives. So a loop of any length is looked at a few steps at a time: what the adjoints of the first state are in one
    graph are the weights of the last state in the one before.

    The nodes of a program are its constants, its inputs and its instructions; those of a loop that is one of these are
    for each step the constants of its path, and its instructions.  */
#ifndef TG_STEPS_H
#define TG_STEPS_H

#include "look/look.h"
#include "loops/loop.h"

/* cdef: begin */
/* Where the codes that the lines of a program are of stand in a list that several programs share, 0: nowhere; and those
   of the steps of its calls, by call, then by path. */
typedef struct tg_codes {
    uint32_t n;
    const uint32_t *to;
    const struct tg_codes *const *within;
} tg_codes;

/* Carry out so many steps of a loop at these inputs, from step first on, or fewer where the loop ends by itself: state
   becomes that after them. nan_errors: as in tg_cell; path: which each took. How many there were; TG_MEMORY, or
   TG_BAD_ID where one found none. */
int64_t tg_walk(const tg_loop *o, const double *in, int64_t first, int64_t steps, double *state, int nan_errors,
                uint8_t *path);

/* Those steps as a graph, from the state before them. path: of each step, and then of final; code: of each path of the
   step, and then of final's; begin: gets the first node of each step and where the last ends. NULL without memory. */
tg_graph *tg_graph_of_steps(const tg_loop *o, const double *in, int64_t first, uint32_t steps, const double *state,
                            const uint8_t *path, int with_final, const tg_codes *code, uint32_t *begin);

/* A program at a point. A step of its loops that finds no path is on the first. nan_errors: as in tg_cell; code: NULL
   where lines are to be as the program has them, and results of loops given, as nan. NULL without memory. */
tg_graph *tg_graph_of_program(const tg_program *p, const double *in, int nan_errors, const tg_codes *code);
/* cdef: end */

#endif
