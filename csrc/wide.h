/*  The groups of a wide program, and their replay for one row: see wide.c and groups.c.

    A group is instructions in a row of one operation, none of which reads what another gives. Its results lie side by
    side in both numberings of slots. Where an operand of each of them is: all the same slot, slots side by side, or a
    list of slots, which has a bit where RUN of them are side by side.

    A chain is additions in a row each of which adds to the result of the one before: what sum(..) of a function makes.
    They go one after the other, but the sum stays in a register.  */
#ifndef TG_WIDE_H
#define TG_WIDE_H

#include "program.h"

/* cdef: begin */
enum { TG_SAME, TG_SIDE_BY_SIDE, TG_LISTED };
enum { TG_KEPT, TG_LIVE };      /* the two numberings */

enum { TG_RUN = 8, TG_FEW_TERMS = 5 };
#define TG_RUNS 0x80000000u     /* in a list: this slot and those behind it are side by side, TG_RUN of them */

typedef struct {
    uint32_t how, at;           /* at: the first slot, or where its list begins */
} tg_slots;

typedef struct {
    uint32_t first, n, op;      /* op: as that of its instructions */
    uint32_t terms;             /* of a many-operand row: operands of each, in pool one after the other from pool on */
    uint32_t pool;
    uint32_t y[2];
    tg_slots operand[TG_FEW_TERMS][2];  /* those of a sum of many terms are in the pool alone; of a chain what is added
                                           to first, what is added, and the results */
    uint8_t chain;
    uint8_t straight;           /* a sum of many terms, which are side by side in both numberings */
    uint8_t apart;              /* adjoints may be added operand by operand: nobody sees the difference */
    uint8_t names;              /* the primals that its partials name, as tg_names has it */
    uint8_t moves;              /* the operands that adjoints go to, a bit each */
} tg_group;

struct tg_wide {
    uint32_t n, n_list;
    tg_group *group;
    uint32_t *list;
};

/* Whether a row of one or two operands takes an instruction or two. */
int tg_is_short(uint32_t op);
/* cdef: end */

void tg_free_groups(tg_wide *w);

/* The slot of element k. */
static inline uint32_t tg_slot(const tg_wide *w, const tg_slots *s, uint32_t k)
{
    return s->how == TG_SAME ? s->at : s->how == TG_SIDE_BY_SIDE ? s->at + k : w->list[s->at + k] & ~TG_RUNS;
}

static inline int tg_has_few(const tg_group *g) { return g->terms <= TG_FEW_TERMS; }

/* The first group that ends above instruction at, or n. */
static inline uint32_t tg_group_at(const tg_wide *w, uint32_t at)
{
    uint32_t low = 0, high = w->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (w->group[middle].first + w->group[middle].n > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Instructions from .. to - 1 of a group, for one row; narrow is for what is better done one by one. */
typedef void tg_narrow_replay(tg_job *j, uint32_t from, uint32_t to);
void tg_group_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow,
                      int numbering);
void tg_group_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);
void tg_group_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);
void tg_group_reverse_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);

#endif
