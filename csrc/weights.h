/*  Weights of a batch: inputs that all its rows share, and that the program reads once, as a factor of a pair of a dot.

    Where there are many, they take most of a replay in lanes, if each has a slot of that width and adds up adjoints in
    another. So they have neither: dots read them as numbers, in the order in which they come, and a sweep only keeps
    the adjoints of the dots that have weights, and what is beside these, for some blocks of rows. The products of the
    two are added up weight after weight, in each lane in the order of the blocks: to the bit what adding them to lanes
    at once would have given.  */
#ifndef TG_WEIGHTS_H
#define TG_WEIGHTS_H

#include "compiled.h"
#include "program.h"

enum { TG_HELD = 8 };           /* blocks of rows that are kept together */

/* A weight, and where in both numberings the factor beside it is. */
typedef struct {
    double x;
    uint32_t kept, live;
} tg_weight;

/* The weights of a dot; dot: 1 + its number among those with adjoints that are kept, or 0. */
typedef struct {
    uint32_t first, n, dot;
} tg_weighted;

struct tg_weights {
    uint32_t n, n_dots, n_factors, n_held;  /* n_held: blocks that are kept */
    int spilled;                /* lanes of weights have sums of blocks that are not kept any more */
    tg_weighted *of;            /* by instruction */
    tg_weight *weight;
    uint32_t *input;            /* by weight: which it is */
    uint32_t *dot, *beside;     /* by input: as of.dot of the dot whose weight it is, and which factor is beside it */
    uint32_t *factor;           /* the kept slots of factors */
    double *adjoint, *beside_it;    /* of dots and of factors, TG_HELD times the lanes of each */
    void *memory;               /* of these */
};

/* Find the weights of a job, before it has memory: TG_OK or TG_MEMORY. There are none where that is not worth it. */
int tg_find_weights(tg_job *j);
void tg_mark_weights(tg_job *j);        /* among the slots that are shared */
void tg_free_weights(tg_job *j);

/* The weights of a dot of n pairs where each has one, or NULL. */
static inline const tg_weight *tg_weights_of(const tg_job *j, uint32_t k, uint32_t n)
{
    const tg_weights *w = j->weights;
    return w && w->of[k].n && w->of[k].n == n ? w->weight + w->of[k].first : NULL;
}

/* Where the adjoint of a dot is kept for this block, or NULL. */
static inline double *tg_kept_adjoint(const tg_job *j, uint32_t k)
{
    const tg_weights *w = j->weights;
    return w && w->of[k].dot ? w->adjoint + ((size_t)(w->of[k].dot - 1) * TG_HELD + w->n_held) * (size_t)tg_lanes
                             : NULL;
}

/* A block was swept: what weights pass on goes to the gradients with the last one. */
void tg_collect_weights(tg_job *j, int last_block);

/* The sum of sixteen lanes, in halves, each in a loop of a length that the compiler knows. */
TG_INLINE double tg_sum_of_lanes(const double *x)
{
    double t[8];
    for (int l = 0; l < 8; l++)
        t[l] = x[l] + x[l + 8];
    for (int l = 0; l < 4; l++)
        t[l] += t[l + 4];
    for (int l = 0; l < 2; l++)
        t[l] += t[l + 2];
    return t[0] + t[1];
}

#endif
