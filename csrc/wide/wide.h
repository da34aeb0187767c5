/*  The groups of a wide program, and their replay for one row: see wide.c and groups.c.

    A group is instructions in a row of one operation, none of which reads what another gives. Its results lie side by
    side in both numberings of slots; those of a row that takes an instruction or two have no operand's slot, so that
    what was done may be done again. Where an operand of each of them is: all the same slot, slots side by side, or a
    list of slots, which has a bit where RUN of them are side by side.

    Many-operand rows of a group fall into stretches where that pays: within one, each operand goes by equal steps from
    one instruction to the next. So do the sums of a layer of neurons over rows: an operand is the same weight, the
    other one its rows side by side.

    A chain is instructions in a row each of which adds to the result of the one before: a number, as sum(..) of a
    function makes them, or a product, which is a dot whose bias is the sum until there. All of its links are of a kind,
    or every other one is. They go one after the other, but the sum stays in a register.

    An instruction in a group is not stored: who wants to see it has it made from the group, see remade.c.  */
#ifndef TG_WIDE_H
#define TG_WIDE_H

#include "program.h"

/* cdef: begin */
enum { TG_SAME, TG_SIDE_BY_SIDE, TG_LISTED };

enum { TG_RUN = 8, TG_FEW_TERMS = 5 };
enum { TG_NO_CHAIN, TG_CHAIN_A, TG_CHAIN_B };
enum { TG_EVEN = 1, TG_ODD = 2, TG_PRODUCT = 3 };
#define TG_RUNS 0x80000000u     /* in a list: this slot and those behind it are side by side, TG_RUN of them */

typedef struct {
    uint32_t how, at;           /* at: the first slot, or where its list begins */
} tg_slots;

typedef struct {
    uint32_t first, n, op;      /* op: as that of its instructions, of a chain TG_ADD whatever its links are */
    uint32_t terms;             /* of a many-operand row: operands of each, in pool one after the other from pool on */
    uint32_t pool;              /* and of the products of a chain, TG_PRODUCT each */
    uint32_t y[2];              /* of a guard: what it asks, as its instructions have it */
    uint32_t before;            /* how many instructions are in no group until there */
    tg_slots where, number;     /* of its instructions, as they have it; number: of guards. Lists without TG_RUNS */
    tg_slots operand[TG_FEW_TERMS][2];  /* those of a sum of many terms are in the pool alone; of a chain what is added
                                           to first, the numbers that are added, and the results */
    tg_slots factor[2][2][2];   /* of the products of a chain: of even links, then of odd ones, x and w in both
                                   numberings; TG_LISTED: see the pool */
    uint32_t stretches, n_stretches;    /* of a many-operand row: where in list the first element of each is, and
                                           behind the last the number of all elements, then for each the first
                                           one of its layer, see layers.c, or TG_NONE; 0: there are none */
    uint8_t chain;              /* which operand the sum until there is */
    uint8_t products;           /* of a chain, the links that add one: TG_EVEN, TG_ODD, both or none */
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

/* Instructions of a group, at least: calls of functions gain by less company. */
enum { TG_FEW_CALLS = 6 };
static inline uint32_t tg_least_group(uint32_t op)
{
    const int row = (int)(op & ~TG_QUIET);
    return row == TG_GUARD || tg_is_many(row) || tg_is_short(op) ? TG_GROUP : TG_FEW_CALLS;
}

void tg_free_groups(tg_wide *w);

/* The slot of element k. */
static inline uint32_t tg_slot(const tg_wide *w, const tg_slots *s, uint32_t k)
{
    return s->how == TG_SAME ? s->at : s->how == TG_SIDE_BY_SIDE ? s->at + k : w->list[s->at + k] & ~TG_RUNS;
}

/* The links of a chain: whether link k adds a product; whether those that do and others take turns; how many links of
   its kind are before it. */
static inline int tg_is_product(const tg_group *g, uint32_t k) { return g->products >> (k & 1) & 1; }
static inline int tg_is_mixed(const tg_group *g) { return g->products == TG_EVEN || g->products == TG_ODD; }
static inline uint32_t tg_of_its_kind(const tg_group *g, uint32_t k) { return tg_is_mixed(g) ? k / 2 : k; }

static inline int tg_is_same(const tg_slots *a, const tg_slots *b) { return a->how == b->how && a->at == b->at; }
static inline int tg_has_few(const tg_group *g) { return g->terms <= TG_FEW_TERMS; }

/* What a result counts for, where repeats are looked for, that is in use from one place of the function to another:
   what is used up soon belongs to the repeat that it is made in. */
enum { TG_SOON = 64 };
static inline int tg_weight_in_use(uint32_t made, uint32_t last) { return last - made < TG_SOON ? 2 : 1; }

/* The slot of operand i of the first of a stretch's n instructions, and the step to that of the next. */
typedef struct {
    uint32_t at;
    int32_t step;
} tg_stride;

static inline tg_stride tg_stride_of(const tg_program *p, const tg_group *g, uint32_t first, uint32_t n, uint32_t i,
                                 int numbering)
{
    const uint32_t *own = p->pool + 2 * (g->pool + (size_t)g->terms * first + i) + numbering;
    return (tg_stride){*own, n > 1 ? (int32_t)(own[2 * (size_t)g->terms] - *own) : 1};
}

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

/* Of instructions from .. to - 1 the part that comes first, or last, which is of one group or of none: where it ends,
   or where it begins. at: for the first part the group at from, for the last one more than that at to - 1. w: NULL
   where there are no groups. */
static inline uint32_t tg_first_part(const tg_wide *w, uint32_t *at, uint32_t from, uint32_t to, const tg_group **group)
{
    const tg_group *g = w && *at < w->n ? w->group + *at : NULL;
    const int within = g && g->first <= from;
    const uint32_t end = !g ? to : within ? g->first + g->n : g->first;
    *group = within ? g : NULL;
    *at += (uint32_t)within;
    return end < to ? end : to;
}

static inline uint32_t tg_last_part(const tg_wide *w, uint32_t *at, uint32_t from, uint32_t to, const tg_group **group)
{
    const tg_group *g;
    uint32_t start;
    while (*at && (*at > w->n || w->group[*at - 1].first >= to))
        --*at;
    g = *at ? w->group + *at - 1 : NULL;
    *group = g && g->first + g->n >= to ? g : NULL;
    start = !g ? 0 : *group ? g->first : g->first + g->n;
    return start > from ? start : from;
}

/* Where instruction k, which is in no group, is among those; at: the first group behind it, or how many there are. */
static inline uint32_t tg_place_alone(const tg_program *p, uint32_t at, uint32_t k)
{
    const tg_group *g = p->wide && at < p->wide->n ? p->wide->group + at : NULL;
    return g ? g->before - (g->first - k) : p->n_alone - (p->n_instr - k);
}

/* The halves of instruction k, likewise, and of those behind it. */
static inline tg_halves tg_alone(const tg_program *p, uint32_t at, uint32_t k)
{
    const uint32_t place = tg_place_alone(p, at, k);
    return (tg_halves){{p->alone[TG_KEPT] + place, p->alone[TG_LIVE] + place}};
}

/* Instructions from .. to - 1 one by one, whose halves these are: forward those of the numbering that primals are in,
   and of a guard those kept; back both. */
typedef void tg_narrow_replay(tg_job *j, tg_halves s, uint32_t from, uint32_t to);
/* The same of those that may be in groups, from the first to the last or the other way round. */
void tg_one_by_one(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow, int numbering);
void tg_one_by_one_back(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow);

/* Instructions from .. to - 1 of a group, for one row; narrow is for what is better done one by one. */
void tg_group_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow,
                      int numbering);
void tg_group_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);
void tg_group_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);
void tg_group_reverse_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow);

/* Elements from .. to - 1 of a group of many-operand rows: values of those that are in stretches, and of logsumexp,
   fsum and top however they are; what those pass on. See terms.c. */
static inline int tg_has_own_terms(const tg_group *g)
{
    return g->n_stretches || (g->terms && g->op != TG_DOT && g->op != TG_SUM && g->op != TG_WHERE);
}
void tg_terms_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering);
void tg_terms_reverse(tg_job *j, const tg_group *g, uint32_t from, uint32_t to);
/* Stretches first .. last of one layer. See layers.c. */
void tg_layer_forward(tg_job *j, const tg_group *g, uint32_t first, uint32_t last, int numbering);
void tg_layer_reverse(tg_job *j, const tg_group *g, uint32_t first, uint32_t last);
/* Of stretches alone. See terms_along.c. */
void tg_terms_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, tg_narrow_replay *narrow);
void tg_terms_reverse_tangents(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, tg_narrow_replay *narrow);

/* Elements from .. to - 1 of a group of a row that takes an instruction or two. See eights.c. */
void tg_eights_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering);
void tg_eights_reverse(tg_job *j, const tg_group *g, uint32_t from, uint32_t to);
/* The same of a chain, and what its links add, one after the other: primals, or tangents where along is not 0. See
   chains.c. */
void tg_chain_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, int numbering);
void tg_chain_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to);
void tg_chain_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to);
void tg_chain_terms(const tg_job *j, const tg_group *s, uint32_t from, uint32_t to, int numbering, int along,
                    double *terms);
/* Back over those of a total, each of which passes on the same number, and nothing to the one before. */
void tg_chain_pass(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, double passed);

/* All instructions from .. to - 1 of a job for one row: primals and tangents, and adjoints. */
void tg_forward_between(tg_job *j, uint32_t from, uint32_t to);
void tg_reverse_between(tg_job *j, uint32_t from, uint32_t to);
void tg_go_back(tg_job *j, uint32_t from, uint32_t to);     /* the latter where it is as flush.h has it already */
int tg_has_live_primals(const tg_job *j);       /* they are in live slots, else in kept ones */

#endif
