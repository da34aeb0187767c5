/*  A draft: a program in the making.

    Nodes are added in order, operands first. Constants are folded and equal nodes shared as they come, so that an
    operation gives a constant or an old node where it can. tg_finish_draft then drops what nobody uses, makes dots of
    sums of products, and gives out slots.

    Room is asked for before: tg_draft_room grows, the others do not look. The arrays move when it does.  */
#ifndef TG_DRAFT_H
#define TG_DRAFT_H

#include "ops.h"
#include "program.h"

#include <string.h>

enum { TG_INPUT = TG_CALL + 1, TG_RESULT, TG_GONE };   /* results of a call come right behind it */

typedef struct {
    uint32_t a, b, where;       /* an input has its number in a */
    union {
        uint32_t uses;          /* until sums are fused: by nodes, and as an output */
        uint32_t last;          /* then the instruction that uses it last; its own where there is none */
    };
    uint8_t op;                 /* a constant is a TG_LEAF whose operands are the halves of its number */
    uint8_t is_out, retained, quiet;
} tg_draft_node;                /* a pass over the draft takes as long as its bytes */

typedef struct {
    tg_draft_node *node;        /* inputs are the first ones */
    double *value;              /* NULL where nobody asks for values of nodes: those of constants are in them */
    uint32_t *pool;
    union {                     /* by node, until all are there: the first in the list of those made of it, and the next
                                   in the list that it is in, a node + 1; then slots of its result. Of a guard, whom
                                   nobody looks for, always what tg_instr has in y and live_y */
        struct { uint32_t *first, *next; };
        struct { uint32_t *kept, *live; };
    };
    uint32_t *bucket;           /* lists of the others, by hash: cap of them */
    uint32_t *sieve;            /* by node */
    uint32_t *constant, *instr; /* while it is finished, in place of these: the nodes that are constants and
                                   instructions, in order */
    uint32_t len, cap, pool_len, pool_cap;
    uint32_t used;              /* how many nodes are */
    uint32_t folded, shared, fused, captured, foreign;
    uint8_t named[TG_NAMED];    /* see tg_names */
    uint8_t quiet;              /* what comes is of a recorded sweep */
    uint8_t valued;             /* set before there is room: values are asked for */
    void *memory;
} tg_draft;

/* Room for this many more nodes and words of the pool: TG_OK, TG_MEMORY or TG_FULL. */
int tg_draft_room(tg_draft *d, uint64_t nodes, uint64_t words);
void tg_free_draft(tg_draft *d);

/* Add a node without looking for its equal: an input, or a guard that asks so and has this number. */
uint32_t tg_draft_add(tg_draft *d, tg_draft_node node, double value);
void tg_draft_guard(tg_draft *d, uint32_t a, uint32_t b, uint32_t where, uint32_t asked, uint32_t number);
uint32_t tg_draft_constant(tg_draft *d, double value);
/* y = op of n nodes; those of a dot are in pairs x0 w0 x1 w1 .., and a bias. */
uint32_t tg_draft_many(tg_draft *d, int op, const uint32_t *ids, uint32_t n, double value, uint32_t where);

/* y = op of the last n words of the pool, which are taken back where it is nothing new. */
uint32_t tg_draft_pooled(tg_draft *d, int op, uint32_t n, double value, uint32_t where);

/*  Nodes are found again in lists, each of them in one. Most operations are of what was made just now: they are in the
    list of their later operand, constants not counted, so that what is looked at stands near it and is in the cache.
    That operand has a sieve, too: a bit of it is set for each of them, by the other operand, so that most that are new
    are known to be so without a look at the others. Once such a list gets long, its nodes are in lists by hash, with
    those that have no such operand, and all bits of the sieve are set.  */
#define TG_SPREAD TG_NONE       /* as the first of a list: they are in others */

/* Two operands: in the order in which they are kept; in whose list an operation of them is, a constant only where both
   are, and the other one. */
typedef struct {
    uint32_t a, b, own, other;
} tg_two;

static inline int tg_draft_is_constant(const tg_draft *d, uint32_t i) { return d->node[i].op == TG_LEAF; }

/* Whether it has its slot from the start. */
static inline int tg_draft_is_fixed(const tg_draft_node *n) { return n->op == TG_LEAF || n->op == TG_INPUT; }

static inline double tg_draft_number(const tg_draft *d, uint32_t constant)
{
    const uint32_t half[2] = {d->node[constant].a, d->node[constant].b};
    double value;
    memcpy(&value, half, sizeof value);
    return value;
}

/* Both operands at once. */
static inline uint64_t tg_pair_of(uint32_t a, uint32_t b)
{
    const uint32_t both[2] = {a, b};
    uint64_t pair;
    memcpy(&pair, both, sizeof pair);
    return pair;
}

/* Add a node that is used by nobody yet. What is read in one piece, as operands are, is written in one: else reading
   has to wait. */
TG_INLINE uint32_t tg_draft_push(tg_draft *d, int op, uint64_t pair, double value, uint32_t where, uint32_t *list)
{
    const uint32_t i = d->len;
    tg_draft_node *n = d->node + i;
    memcpy(&n->a, &pair, sizeof pair);
    n->where = where;
    n->uses = 0;
    n->op = (uint8_t)op;
    n->is_out = n->retained = 0;
    n->quiet = d->quiet;
    d->first[i] = d->sieve[i] = 0;
    d->next[i] = *list;
    *list = i + 1;
    if (d->value)
        d->value[i] = value;
    d->len = i + 1;
    return i;
}

/* The bit of an operation in the sieve of its operand. Others often come in even steps, which this keeps apart better
   than what mixes more. */
static inline uint32_t tg_sieve_bit(int op, const tg_two *two)
{
    return 1u << ((two->other ^ two->other >> 5 ^ two->other >> 10 ^ (uint32_t)op) & 31);
}

/* The same of an operation of two operands, which it uses. */
TG_INLINE uint32_t tg_draft_push_two(tg_draft *d, int op, const tg_two *two, double value, uint32_t where,
                                     uint32_t *list)
{
    tg_draft_node *own = d->node + two->own, *other = d->node + two->other;
    const uint32_t differ = own != other;
    d->sieve[two->own] |= tg_sieve_bit(op, two);
    d->used += !own->uses + (differ & !other->uses);
    own->uses++;
    other->uses += differ;
    return tg_draft_push(d, op, tg_pair_of(two->a, two->b), value, where, list);
}

TG_INLINE tg_two tg_two_of(const tg_draft *d, int op, uint32_t a, uint32_t b)
{
    const tg_draft_node *const node = d->node;
    const int turned = a > b && (op == TG_ADD || op == TG_MUL);
    const uint32_t low = turned ? b : a, high = turned ? a : b;
    const int of_b = node[low].op == TG_LEAF || (high > low && node[high].op != TG_LEAF);
    return (tg_two){low, high, of_b ? high : low, of_b ? low : high};
}

/* y = op(a, b), whose value is known where both are constants. */
uint32_t tg_draft_two(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where);

/* The same, for who has a whole tape of them: without a call where it is new by the sieve. */
TG_INLINE uint32_t tg_draft_quickly(tg_draft *d, int op, uint32_t a, uint32_t b, double value, uint32_t where)
{
    const tg_two two = tg_two_of(d, op, a, b);
    return tg_draft_is_constant(d, two.own) || d->sieve[two.own] & tg_sieve_bit(op, &two)
               ? tg_draft_two(d, op, a, b, value, where)
               : tg_draft_push_two(d, op, &two, value, where, d->first + two.own);
}

/* The operands of a node: how many, and where they are, in pair or in the pool. */
static inline uint32_t tg_draft_operands(const tg_draft *d, const tg_draft_node *n, const uint32_t **ids,
                                         uint32_t *pair)
{
    *ids = pair;
    if (n->op == TG_LEAF || n->op >= TG_INPUT)          /* or TG_GONE */
        return 0;
    if (!tg_is_many(n->op) && n->op != TG_CALL) {
        pair[0] = n->a;
        pair[1] = n->b;
        return n->a == n->b && n->op != TG_GUARD ? 1 : 2;
    }
    *ids = d->pool + n->a;
    return n->b;
}

/* The program whose outputs are these nodes, of which there are no more to come; NULL without memory. */
tg_program *tg_finish_draft(tg_draft *d, const uint32_t *out, uint32_t n_out);

#endif
