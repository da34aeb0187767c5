/*  A loop at work: what its files share. Arrays of numbers come in twos, the second for tangents; slot after slot, a
    number for each lane.  */
#ifndef TG_LOOPING_H
#define TG_LOOPING_H

#include "loops/loop.h"

struct tg_looping {
    tg_stage step, final, until;
    double *in[2];                      /* of the step: the state, then x; after it the next state, then y */
    double *last[2];                    /* a state that is wanted again */
    double *out[2], *out_adj[2], *in_adj[2];    /* of a cell at a time; in_adj starts with the state's */
    double *params[2], *sums[2];        /* sums: their adjoints */
    double *total[2];
    double *stopped_in;
    double *kept;                       /* states, tangents beside them */
    int64_t *kept_at;                   /* NULL where all are kept: then its index is its step */
    uint8_t *taken, path[TG_WIDEST];    /* taken: step after step, NULL where there is one path */
    double *whole;                      /* what all steps have made, or NULL; how much that is of each */
    size_t each;
    uint8_t *interpreted;               /* then, of each step */
    int64_t n_kept, capacity;
    int64_t at, goal, end, seen;        /* the step before which the state is, where to stop; steps that are not swept;
                                           steps whose ys are told */
    int64_t steps[TG_WIDEST];           /* of each lane */
    const double **x[2];                /* by number of x and lane: at the first step, and its tangent, NULL for 0 */
    double *tile[2];                    /* of rows, xs of TG_TILED steps, side by side */
    int64_t tiled;                      /* which: their number from the start, or -1 */
    double *noted;                      /* of steps that are carried out at once, or NULL; how many have room */
    int64_t room, noted_from;           /* noted_from: of which on it stays, until others are swept */
    tg_job stretch;                     /* steps at once in the interpreter, if it has a program */
    int side_by_side;                   /* then: of one row, all states are kept, one after the other */
    int chained;                        /* whether they are in this block */
    int64_t unit;                       /* states are kept before each so manieth step; so many are swept at once */
    tg_stage beside;                    /* the step in lanes, for steps of one lane: see go_beside */
    double *beside_in[2], *columns;     /* NULL where a step is too large, there are lanes anyway, or steps go in
                                           stretches */
    uint32_t alive, left;               /* left: lanes that have to come back, while a step or final is under way */
    uint8_t way[TG_WIDEST];             /* of until, and of final: the path of each lane */
    uint32_t sure;                      /* lanes whose sweep is done, in a second pass over a block */
    int counted, x_wanted;
    uint64_t advanced;
    tg_stopped stopped;
};

#define TG_TILED 16
#define TG_WHOLE_LOOP ((uint64_t)1 << 21)       /* bytes of what all steps make, where that is kept and no states:
                                                   caches have it */
#define TG_UNIT ((uint64_t)1 << 18)     /* of what is noted of a unit of steps, where it is not of all */
#define TG_AT_ONCE ((uint64_t)1 << 22)  /* instructions of all steps, between looks for signals */

static inline size_t tg_width(const tg_job *j) { return (size_t)j->lanes; }
static inline int tg_orders(const tg_job *j) { return j->tangents ? 2 : 1; }
/* Where the last unit begins that is not swept. */
static inline int64_t tg_last_unit(const tg_looping *w)
{
    return w->unit == 1 ? w->end - 1 : (w->end - 1) / w->unit * w->unit;
}
static inline size_t tg_state_size(const tg_job *j) { return j->loop->n_state * tg_width(j); }

/* Inputs from first on to slots. */
void tg_read_inputs(const tg_job *j, uint32_t first, uint32_t n, double *const to[2]);
/* Where the xs of a block are; and those of a step, to its inputs. */
void tg_find_x(const tg_job *j);
void tg_read_x(const tg_job *j, int64_t step);
/* Those of n steps from one on, as many as there are, side by side; no tangents. */
void tg_read_some_x(const tg_job *j, int64_t first, int64_t n, double *to);
/* Those of as many steps as a tile has, if there are as many, side by side, where they stay until others are read; no
   tangents. */
const double *tg_read_tile(const tg_job *j, int64_t first);
/* Those of all steps, which are so many numbers apart there; no tangents. */
void tg_read_all_x(const tg_job *j, double *to, size_t size);
/* Whether anybody wants derivatives by any of n inputs from first on. */
int tg_wants(const tg_job *j, uint32_t first, uint32_t n);
/* Derivatives by an input, a number for each lane: to a row of its own each, or added to one. */
void tg_write_adjoints(const tg_job *j, uint32_t input, double *const from[2], uint32_t lanes);
/* The same of n inputs from first on and all lanes that are alive. */
void tg_write_all_adjoints(const tg_job *j, uint32_t first, uint32_t n, double *const of[2]);
/* An output of lanes, likewise, but for a second pass over a block. */
void tg_write_output(const tg_job *j, int64_t output, double *const from[2], uint32_t lanes);
/* Of a step: derivatives by its xs; the weights of its ys, to adjoints of its outputs. */
void tg_write_x(const tg_job *j, uint32_t lanes);
void tg_weigh_ys(const tg_job *j, int64_t step);
/* What the ys of a step are for, which come after the state; and what is given in the end, with its adjoints where it
   is swept. */
void tg_tell(tg_job *j, uint32_t lanes);
void tg_give(tg_job *j);
/* What rows have that end early: nan for the ys of steps that they do not come to, and no slope by their xs. */
void tg_fill_unreached(const tg_job *j);

/* Lay out what it takes to carry out steps at once in machine code, of a cell that has a chain and for a job that can
   do with it. */
void tg_lay_chain(const tg_job *j, tg_looping *w, char *memory, uint64_t *used);
/* Whether the steps of the block that is loaded are carried out at once, if they all go well. */
int tg_can_chain(const tg_job *j);
/* What the next two do in the interpreter, of a cell that has a stretch; before the first step of a block, what all
   steps share is set. */
void tg_lay_stretch(const tg_job *j, tg_looping *w, char *memory, uint64_t *used);
void tg_set_stretch(const tg_job *j);
int tg_stretch_on(tg_job *j);
void tg_stretch_back(tg_job *j);
/* Some steps on from the one before which the state is; 0: not all went well. */
int tg_chain_on(tg_job *j);
/* Back over the steps that are noted. */
void tg_chain_back(tg_job *j);

#endif
