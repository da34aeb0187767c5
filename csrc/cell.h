/*  A cell: a recorded function as a loop carries it out over and over, with all its paths, on one block of rows.

    Its first inputs are its own, new every time; the others it shares with the loop and with other cells: they stay in
    their slots for a block, and their adjoints add up there. Each lane takes the path that its numbers take. A path is
    tried on all lanes that may take it; the others have the numbers of one of these meanwhile, so that nothing that
    they do counts, and native code does not stumble over them.  */
#ifndef TG_CELL_H
#define TG_CELL_H

#include "program.h"

/* cdef: begin */
typedef struct tg_cell {
    uint32_t n_paths, n_ways;
    const tg_program *const *program;   /* by path, all of the same inputs and outputs */
    const tg_native *const *native;     /* by path, NULL where there is none */
    const uint32_t *way;                /* threes: a path, an instruction at which it stops, the path that goes on */
    const uint32_t *shared;             /* which param of the loop each input is, after its own ones */
    int nan_errors;
} tg_cell;
/* cdef: end */

#define TG_WIDEST 16

/* A cell at work. Arrays of numbers come in twos, the second for tangents; slot after slot, a number for each lane. */
typedef struct tg_stage {
    const tg_cell *cell;
    tg_job *job;                        /* by path */
    uint32_t n_own, n_shared, n_out, holder;    /* holder: the path in whose slots the shared adjoints are */
    int lanes, orders, failed_first;    /* orders: 2 with tangents; failed_first: the lane that is told of */
    uint32_t failed[TG_WIDEST], stopped_on, stopped_at;
    double fail_a, fail_b;
} tg_stage;

/* Lay a stage out in memory from *used on, which counts what it takes; no memory: count only. */
void tg_lay_stage(tg_stage *s, const tg_cell *cell, uint32_t n_own, const tg_job *like, char *memory, uint64_t *used);
/* The numbers of lanes from one array to another, slot after slot. */
void tg_move_lanes(const tg_stage *s, uint32_t lanes, const double *from, double *to, size_t slots);
/* So many things of a size, in memory from *used on, which counts them; NULL without memory. */
void *tg_carve(char *memory, uint64_t *used, uint64_t n, size_t size);
/* The params of a block, of each lane, or one for all lanes. */
void tg_set_shared(tg_stage *s, double *const params[2], int one_for_all);
/* Carry out lanes, path[l] first: it gets the path that was taken. primals: where they stay, of a cell of one path,
   after tg_lay_primals; or NULL. Returns lanes that found no path. */
uint32_t tg_go(tg_stage *s, uint32_t lanes, uint8_t *path, double *const in[2], double *primals,
               double *const out[2]);
/* Constants and shared inputs of the first path to primals elsewhere. */
void tg_lay_primals(const tg_stage *s, double *primals);
/* The sweep over one path at inputs that take it: from the adjoints of the outputs to those of its own inputs. primals:
   those there, in one lane, and flush.h's mode is on already; or NULL. */
void tg_come_back(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], double *primals,
                  double *const out_adj[2], double *const in_adj[2]);
/* One path at the inputs that lanes have, all of which take it: in columns go the primals of each lane one after the
   other, n_kept of them, and one more where that is odd. */
void tg_go_along(tg_stage *s, uint32_t lanes, uint32_t path, double *const in[2], double *columns);
/* What has been added up for the params, to or from where it is added up for all cells; they are 0 where they were. */
void tg_take_adjoints(tg_stage *s, double *const sums[2]);
void tg_give_adjoints(tg_stage *s, double *const sums[2]);

#endif
