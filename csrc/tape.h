/*  The tape: a Wengert list of scalar operations in an arena.

    Node i is (op, a, b, data, grad, owner), kept as parallel arrays:

        op     1 byte    opcode in bits 0-6, TG_MARK
        a, b   2 x 4     operand ids; of one operand twice the same; for a many-operand node the pool index of the first
                         operand, and their count; for a leaf whether it was written as an int (x ** 2), and 0
        data   8         primal
        grad   8         accumulated derivative, what Python sees as .grad
        owner  8         0: nobody; even: the live handle; odd: what a dead handle left with the node (TG_LEFT)
                         = 33 bytes; 41.004 once a sweep has been (adjoint 8, 1 flag a block of 256), and a bit more
                         once there is a rule

    Invariant: operands have smaller ids than results, so walking ids downwards is a reverse topological order.
    A many-operand node keeps its operand ids in the pool, 4 bytes each, after one word with the id of the many-operand
    node before it; pool order is id order.

    Lifetime: a node goes when it is last and has no owner (tg_pop), or when no live handle depends on it (tg_slide);
    none while a program is being recorded.
    Ids change only in tg_slide and tg_forget, which the binding calls when no sweep is under way. The arrays move
    when the tape grows: no pointer into them is kept across a call that records.

    Errors are return codes; a refused call leaves the tape as it was. Nothing here locks: the binding lets one thread
    in at a time (the C handle by the GIL, the cffi handle by a lock). This file and all it calls know no Python.  */
#ifndef TG_TAPE_H
#define TG_TAPE_H

#include "compiled.h"

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
#define TG_NONE 0xFFFFFFFFu     /* no id, no slot */
#define TG_OPCODE 0x7Fu         /* the opcode in a byte of op */

enum {                      /* codes; Python's side of them is tapegrad/_refusals.py */
    TG_OK = 0,
    TG_MEMORY = -1,         /* an allocation failed */
    TG_FULL = -2,           /* 2^32 - 1 nodes or pool words */
    TG_RAISED = -3,         /* a rule failed, its exception is set */
    TG_BAD_ID = -4,         /* no such node or operation */
    TG_ZERO_DIVISION = -5,
    TG_DOMAIN = -6,
    TG_OVERFLOW = -7,
    TG_TOO_DEEP = -8,       /* rules that sweep, within rules that sweep, .. */
    TG_ELSEWHERE = -9,      /* a program's output is older than its recording, and no input */
    TG_RULED = -10,         /* a sweep is to be recorded through a rule */
};

typedef struct tg_tape {
    uint32_t len, room, cap;    /* nodes now; len at which recording takes the slow path; length of the arrays */
    uint32_t reclaim_at, pool_reclaim_at;   /* lengths at which a reclaim is due, unless a sweep or a
                                               recording is under way */
    uint8_t *op;
    uint32_t *a, *b;
    double *data, *grad;
    void **owner;
    uint32_t *pool, pool_len, pool_cap;
    uint32_t last_many;         /* the newest many-operand node */
    double *adj;                /* all zero between sweeps; adj_cap entries */
    uint8_t *touched;           /* one byte a block: some adjoint in it may not be zero */
    uint64_t adj_cap;
    int adj_busy;
    int rules;                  /* how many nodes have one */
    uint32_t recorders;         /* programs being recorded: every record takes the slow path, nodes and ids stay */
    struct tg_sweep *sweep;     /* the innermost sweep that is calling a rule */
    uint64_t reclaims;
    double reclaim_seconds;
    uint8_t *rule;              /* a bit a node: a Python rule stands in for the slope; NULL before the first */
    int taken;                  /* a handle is imported, of which a process has one */
} tg_tape;

/* A row as text; da is empty where no program has it, db where there is no second operand to differentiate. */
typedef struct tg_op_info {
    const char *name, *kind, *method, *aliases, *symbol, *refusal, *primal, *da, *db, *daa, *dab, *dbb, *doc;
} tg_op_info;

typedef int (*tg_rule)(void *context, uint32_t id);     /* 0, or TG_RAISED */

extern tg_tape tg_main;
extern const tg_op_info tg_ops[];
extern const int tg_op_count;

extern const char *const tg_compiler;
int tg_node_bytes(int swept);

/* Record one node and return its id, or a negative code. TG_POWK takes its passive exponent as any operand. */
int64_t tg_leaf(tg_tape *t, double data);
int64_t tg_record(tg_tape *t, int op, uint32_t a, uint32_t b);
/* The other operand is a number, a new leaf, and the first or the second; written_int shows in the symbol **k. */
int64_t tg_record_number(tg_tape *t, int op, uint32_t id, double k, int first, int written_int);
int64_t tg_record_many(tg_tape *t, int op, const uint32_t *ids, uint32_t n);    /* TG_NODE too: data is 0 then */
/* The primal alone, or the code that recording would have refused with, in *refusal. */
double tg_evaluate(int op, double a, double b, int *refusal);
double tg_value(int op, double a, double b);        /* where it is finite, nothing was refused */

/* Room for this many more nodes and pool words. Grows; never reclaims. */
int tg_grow(tg_tape *t, uint64_t nodes, uint64_t words);
/* The operands of a node, as differentiated: ids into out (n of them at most); returns how many there are. */
uint32_t tg_operands(const tg_tape *t, uint32_t id, uint32_t *out, uint32_t n);
/* Drop ownerless nodes from the end; none while a program is being recorded, which may need them. */
void tg_pop(tg_tape *t);
/* Drop the nodes from id len on, if there are any; nobody owns them. */
void tg_take_back(tg_tape *t, uint32_t len);
uint32_t tg_owners(const tg_tape *t);
uint64_t tg_bytes(const tg_tape *t);
void tg_clear_grads(tg_tape *t);

/* Reclaim in three steps: mark what is held, spread marks to operands, slide the marked down over the rest. seen is
   told of every marked node with an owner; it may mark more and returns the highest id it marked, or 0. dropped is
   given the owner of every owned node that goes; it must not call back. Both may be NULL. */
void tg_mark(tg_tape *t, uint32_t id);
void tg_mark_owned(tg_tape *t);
void tg_mark_operands(tg_tape *t, uint32_t (*seen)(void *, uint32_t), void *context);
int64_t tg_slide(tg_tape *t, void (*dropped)(void *, void *), void *context);   /* nodes freed, or TG_MEMORY */
/* Make every marked node a leaf, then slide. */
int64_t tg_forget(tg_tape *t, void (*dropped)(void *, void *), void *context);
void tg_set_reclaim_point(tg_tape *t);
/* Whether that much more calls for a reclaim first; never within a sweep or a recording, whose ids must stay. */
int tg_reclaim_due(const tg_tape *t, uint64_t nodes, uint64_t words);

/* Add d(root)/d(v) times seed to the grad of every v that root depends on; set root's grad to seed. */
int tg_backward(tg_tape *t, uint32_t root, double seed, tg_rule rule, void *context, uint64_t thread);
/* The adjoints of xs, a sweep from all roots at once with these seeds, or 1 each; only rules change grads. */
int tg_adjoints(tg_tape *t, const uint32_t *roots, const double *seeds, uint32_t n_roots, const uint32_t *xs,
                uint32_t n_xs, double *out, tg_rule rule, void *context, uint64_t thread);
/* Push grad[id] one step, to the grads of the operands. */
int tg_push_grad(tg_tape *t, uint32_t id, uint64_t thread);
/* Let a rule stand in for the slope of a node, or no more: TG_OK, TG_BAD_ID, or TG_MEMORY for the first. */
int tg_set_rule(tg_tape *t, uint32_t id, int on);
/* What .grad means for this thread now: the adjoint of the sweep whose rule is running, else the grad. */
double tg_read_grad(const tg_tape *t, uint32_t id, uint64_t thread);
void tg_write_grad(tg_tape *t, uint32_t id, uint64_t thread, double grad);

/* One optimizer step over leaves; see optim.c. buffer is NULL without momentum, top without amsgrad, mean where the
   rule is not centered. */
typedef struct tg_sgd_settings {
    double lr, momentum, dampening, weight_decay;
    int nesterov, maximize, first;
} tg_sgd_settings;
typedef struct tg_adam_settings {
    double lr, beta1, beta2, eps, weight_decay, step;
    int decoupled, maximize;
} tg_adam_settings;
typedef struct tg_rmsprop_settings {
    double lr, alpha, eps, weight_decay, momentum;
    int centered, maximize;
} tg_rmsprop_settings;
void tg_sgd(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_sgd_settings *r, double *buffer);
void tg_adam(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_adam_settings *r, double *m, double *v, double *top);
void tg_rmsprop(tg_tape *t, const uint32_t *ids, uint32_t n, const tg_rmsprop_settings *r, double *square, double *mean,
                double *buffer);

/* Copy nodes, ascending, with their data and grads, at the end of the tape: into[k] becomes the id of ids[k]'s copy,
   unless it is that of a node to be taken for the copy, and TG_NONE otherwise. Operands outside of ids are shared; a
   rule is not copied. */
int tg_copy(tg_tape *t, const uint32_t *ids, uint32_t *into, uint32_t n);

/* For tests: the n-th next allocation fails, once; 0: none does. */
void tg_fail_allocation(uint64_t n);
/* cdef: end */

enum {                      /* opcodes: a leaf, a node made by hand (operands, no slope of its own), the table */
    TG_LEAF,
    TG_NODE,
#define TG_FEW(NAME, ...) TG_##NAME,
#define TG_MANY(NAME, ...) TG_##NAME,
#include "ops.def"
    TG_OPS
};

#define TG_MARK 0x80u       /* within reclaim: held */
#define TG_BLOCK 8          /* log2 of the nodes that share a touched flag */

#define TG_LEFT(owner) ((uintptr_t)(owner) & 1)         /* left by a dead handle */
#define TG_LIVE(owner) ((owner) && !TG_LEFT(owner))

_Static_assert(TG_OPS <= TG_OPCODE + 1, "opcodes have seven bits");

/* Whether a node's operands are in the pool. */
static inline int tg_is_many(int op)
{
    switch (op) {
#define TG_MANY(NAME, ...) case TG_##NAME:
#include "ops.def"
    case TG_NODE: return 1;
    default: return 0;
    }
}

static inline int tg_is_passive(int op)
{
    switch (op) {
#define TG_PASSIVE(NAME, ...) case TG_##NAME: return 1;
#include "ops.def"
    default: return 0;
    }
}

static inline int tg_has_rule(const tg_tape *t, uint32_t id) { return t->rule && t->rule[id / 8] >> id % 8 & 1; }

/* Append a node. There must be room. */
TG_INLINE uint32_t tg_push_owned(tg_tape *t, int op, uint32_t a, uint32_t b, double data, void *owner)
{
    const uint32_t i = t->len;
    uint32_t *as = t->a, *bs = t->b;                    /* all read before the first write, which might be to t */
    double *primals = t->data, *grads = t->grad;
    void **owners = t->owner;
    t->op[i] = (uint8_t)op;
    as[i] = a;
    bs[i] = b;
    primals[i] = data;
    grads[i] = 0.0;
    owners[i] = owner;
    t->len = i + 1;
    return i;
}

TG_INLINE uint32_t tg_push(tg_tape *t, int op, uint32_t a, uint32_t b, double data)
{
    return tg_push_owned(t, op, a, b, data, NULL);
}

/* Append a many-operand node and return where its operand ids belong. There must be room for n + 1 words. */
static inline uint32_t *tg_push_many(tg_tape *t, int op, uint32_t n)
{
    uint32_t start = t->pool_len + 1;
    t->pool[t->pool_len] = t->last_many;
    t->pool_len = start + n;
    t->last_many = tg_push(t, op, start, n, 0.0);
    return t->pool + start;
}

/* The recorded operands, passive ones included: where they are, and how many. pair is room for two. */
uint32_t *tg_recorded(const tg_tape *t, uint32_t id, uint32_t *pair, uint32_t *n);

/* realloc and calloc, unless tg_fail_allocation said otherwise. Freed with free. */
void *tg_realloc(void *old, size_t bytes);
void *tg_zeroed(size_t bytes);
/* Twice the room and some in an array that is full, whose elements take so many bytes each: NULL without memory, or
   where they would be too many, then all is as it was. */
static inline void *tg_more(void *array, uint32_t *cap, uint32_t some, size_t each)
{
    const uint32_t more = 2 * *cap + some;
    void *grown = more > *cap ? tg_realloc(array, more * each) : NULL;
    if (grown)
        *cap = more;
    return grown;
}
void tg_free_adjoints(tg_tape *t);

double tg_seconds(void);        /* of the system's clock, which may be set */

#endif
