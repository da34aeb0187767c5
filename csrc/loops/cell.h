/*  A cell: a recorded function as a loop carries it out over and over, with all its paths, on one block of rows.

    Its first inputs are its own, new every time; the others it shares with the loop and with other cells: they stay in
    their slots for a block, and their adjoints add up there. Each lane takes the path that its numbers take. A path is
    tried on all lanes that may take it; the others have the numbers of one of these meanwhile, so that nothing that
    they do counts, and native code does not stumble over them.  */
#ifndef TG_CELL_H
#define TG_CELL_H

#include "program.h"

#include <string.h>

/* cdef: begin */
/* Many steps of a loop at once as machine code, for one lane and for tg_lanes: of a cell of one path. Of each step
   n_noted numbers are noted in each lane: first what becomes the adjoints of x, then y, then what reverse needs. v:
   primals of what all steps share. Forward takes xs, side by side, and the state before the first step, which becomes
   that after the last; what it gives other than 0 says that a guard came out otherwise or that a result is not finite,
   and that nothing it wrote is any good. Reverse takes the adjoints of what steps share and those of the state, and the
   weights of each step's y, so many numbers apart, and takes down amounts for once.h. */
typedef struct tg_chain {
    uint32_t n_noted;
    int (*forward[2])(const double *v, const double *x, double *noted, double *state, int64_t steps);
    void (*reverse[2])(const double *v, double *noted, double *adj, double *state, const double *weight, int64_t by,
                       double *amount, int64_t steps);
} tg_chain;

/* What is refused is nan; where it is looked at, only what has no way on. */
enum { TG_NAN = 1, TG_NAN_UNCAUGHT };

typedef struct tg_cell {
    uint32_t n_paths, n_ways;
    const tg_program *const *program;   /* by path, all of the same inputs and outputs; hoisted only where it is one */
    const tg_native *const *native;     /* by path, NULL where there is none */
    const uint32_t *way;                /* threes: a path, an instruction at which it stops, the path that goes on */
    const uint32_t *shared;             /* which param of the loop each input is, after its own ones */
    const tg_chain *chain;              /* NULL: none */
    const tg_program *stretch;          /* NULL: none; see loops/stretch.h, with so many steps */
    uint32_t n_stretch;
    int nan_errors;                     /* 0: what is refused stops */
} tg_cell;
/* cdef: end */

#define TG_WIDEST 16
#define TG_SLICE ((uint64_t)1 << 20)    /* additions, in all lanes, between looks for signals */

/* A cell at work. Arrays of numbers come in twos, the second for tangents; slot after slot, a number for each lane. */
typedef struct tg_stage {
    const tg_cell *cell;
    tg_job *job;                        /* by path */
    uint32_t *watched, n_watched;       /* of the first path: slots of what is hoisted that steps read */
    double *amount[2];                  /* by lane: what each step has left in their adjoints, by amounts, added up */
    double *factor, *trial[2];          /* of what is hoisted, by slot, and */
    double *worst;                      /* by lane: see once.h */
    uint32_t n_own, n_shared, n_out;
    uint32_t n_wanted;                  /* how many of its own inputs get adjoints: the first ones */
    uint32_t holder;                    /* the path in whose slots the shared adjoints are */
    int lanes, orders, failed_first;    /* orders: 2 with tangents; failed_first: the lane that is told of */
    int is_set, weighed;                /* whether what is hoisted is there, and what it makes of adjoints is known */
    int interpreted_once, interpreted;  /* what is hoisted; that, or a step after it in this block */
    int is_long;                        /* it is carried out as tg_call_some has it: a part at a time */
    int more;                           /* then, whether it is under way: no other is begun before it is done */
    uint32_t left, walking, lost;       /* of tg_go, meanwhile */
    int written_out;                    /* in this pass over it, what is hoisted is swept in each step */
    uint32_t failed[TG_WIDEST], stopped_on, stopped_at;
    uint32_t refused, refused_at[TG_WIDEST];    /* lanes that what is hoisted refused, and where, as in failed */
    double fail_a, fail_b, refused_a, refused_b;
} tg_stage;

uint64_t tg_dearest(const tg_cell *c);  /* what the path costs that costs most */
/* Whether it has loops in it that take longer, in so many lanes, than one should be without a look for signals. */
int tg_takes_long(const tg_cell *c, int lanes);
/* Lay a stage out in memory from *used on, which counts what it takes; no memory: count only. */
void tg_lay_stage(tg_stage *s, const tg_cell *cell, uint32_t n_own, const tg_job *like, char *memory, uint64_t *used);
/* Numbers to elsewhere; a call would take longer than a few of them. */
static inline void tg_move_numbers(double *to, const double *from, size_t n)
{
    if (n < TG_WIDEST)
        for (size_t i = 0; i < n; i++)
            to[i] = from[i];
    else
        memcpy(to, from, n * sizeof(double));
}

/* So many things of a size, in memory from *used on, which counts them; NULL without memory. */
void *tg_carve(char *memory, uint64_t *used, uint64_t n, size_t size);
/* The params of a block, of each lane, or one for all lanes; and what follows from them alone. */
void tg_set_shared(tg_stage *s, double *const params[2], int one_for_all);
/* The same, of a cell of one path, to n places for primals, each so many numbers, 0 at first, unless they have it. */
void tg_set_all(const tg_stage *s, double *primals, size_t each, int64_t n);
/* Carry out lanes, path[l] first: it gets the path that was taken. Returns lanes that found no path, which get no
   outputs. out may be in. primals: where they go, of a cell of one path, what it shares is there; or NULL. There may be
   more to do: then again with the same. */
uint32_t tg_go(tg_stage *s, uint32_t lanes, uint8_t *path, double *const in[2], double *primals, double *const out[2]);
/* The same of all lanes, of a cell of one path without tangents, of whose own inputs the first n are new to its
   primals; 0, and nothing has changed, where not all go on, or there is more to it. */
int tg_go_well(tg_stage *s, uint32_t n, double *inout, double *primals);
/* The sweep over one path at inputs that take it: from the adjoints of the outputs to those of its own inputs. primals:
   all that are kept, and flush.h's mode is on already, of what is not long; or NULL. out_adj may be in_adj. There may
   be more to do, as with tg_go. */
void tg_come_back(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], double *primals,
                  double *const out_adj[2], double *const in_adj[2]);
/* One path at the inputs that lanes have, all of which take it: in columns go the primals of each lane one after the
   other, from slot first on, and one more where they are odd; a column is so many numbers from the last. */
void tg_go_along(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], size_t first, double *columns,
                 size_t apart);
/* What has been added up for the params, to or from where it is added up for all cells; they are 0 where they were.
   To there it is swept over what is hoisted first. */
void tg_take_adjoints(tg_stage *s, double *const sums[2]);
void tg_give_adjoints(tg_stage *s, double *const sums[2]);

#endif
