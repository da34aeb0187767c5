/*  The reverse sweep.

    Adjoints live in an array of their own that is all zero between sweeps. A block of 256 nodes has a flag that says
    whether some adjoint in it may not be zero: unflagged blocks are skipped, so a sweep costs what the root depends on
    and a look at one byte for every 256 nodes below it.

    Two kinds of sweep share the step from a node to its operands:
      quick    no rule on the tape: read, clear, add to grad, step. It cannot fail once its arrays are there.
      careful  rules may run, so everything may happen in between: they record, sweep, drop nodes above the root, raise.
               Adjoints stay until the whole sweep is done, then they are added to the grads; if a rule fails they are
               thrown away, and the grads that sweeps within the rules have changed are put back (the undo list).

    Adjoints below the smallest normal number count as 0: see flush.h.  */
#include "compiled.h"
#define TG_ELEMENTARY TG_OUTSIDE
#include "flush.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define DEEPEST 200u            /* sweeps within rules; each has its frames on the C stack */
#define BLOCK_SIZE (1u << TG_BLOCK)

struct undo {
    uint32_t id;
    double grad;
};

struct tg_sweep {
    struct tg_sweep *outer;         /* the sweep that was running when this one began, of any thread */
    uint64_t thread;
    uint32_t root, depth;
    double *adj;
    uint8_t *touched;
    int shared;                     /* adj and touched are the tape's */
    struct undo *undo;              /* what sweeps within rules changed, oldest first; kept by the thread's outermost */
    size_t undo_len, undo_cap;
};

/* Pass g, the adjoint of node i, on to its operands in adj. */
TG_INLINE void step(const tg_tape *t, uint32_t i, double g, double *adj, uint8_t *touched)
{
    const double *data = t->data;
    uint32_t ia = t->a[i], ib = t->b[i];
    double y = data[i];
    switch (t->op[i] & TG_OPCODE) {
    case TG_LEAF:
    case TG_NODE: break;
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, primal, da, ...)                                         \
    case TG_##NAME: {                                                                                                  \
        double a = data[ia], b = data[ib];                                                                             \
        (void)a, (void)b;                                                                                              \
        if (!TG_FLAT(da))                                                                                              \
            tg_add_adjoint(adj, touched, ia, g * (da));                                                                \
        break;                                                                                                         \
    }
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
    case TG_##NAME: {                                                                                                  \
        double a = data[ia], b = data[ib], ga = g * (da), gb = g * (db);                                               \
        (void)a, (void)b;                                                                                              \
        if (!TG_FLAT(da))                                                                                              \
            tg_add_adjoint(adj, touched, ia, ga);                                                                      \
        if (!TG_FLAT(db))                                                                                              \
            tg_add_adjoint(adj, touched, ib, gb);                                                                      \
        break;                                                                                                         \
    }
#define TG_MANY(NAME, method, aliases, symbol, refusal, doc, primal, sweep, da, db)                                    \
    case TG_##NAME: sweep(g, y, data, t->pool + ia, ib, adj, touched); break;
#include "ops.def"
    default: break;
    }
}

static void one_step(const tg_tape *t, uint32_t i, double g, double *adj, uint8_t *touched)
{
    step(t, i, g, adj, touched);
}

static inline uint32_t last_in(uint32_t block, uint32_t root)
{
    uint32_t last = (block << TG_BLOCK) + (BLOCK_SIZE - 1);
    return last < root ? last : root;
}

static void quick(tg_tape *t, uint32_t root, double *adj, uint8_t *touched)
{
    const tg_tape view = *t;                            /* a copy: no store through adj or touched can change it */
    uint32_t block = (root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(touched, block)) != TG_NONE) {
        uint32_t first = block << TG_BLOCK;
        for (uint32_t i = last_in(block, root) + 1; i-- > first;) {
            double g = adj[i];
            if (g == 0.0)
                continue;
            adj[i] = 0.0;
            view.grad[i] += g;
            step(&view, i, g, adj, touched);
        }
        touched[block] = 0;
    }
}

/* As quick, down to node low, and the adjoints stay. */
static void quick_down_to(const tg_tape *t, uint32_t root, uint32_t low, double *adj, uint8_t *touched)
{
    const tg_tape view = *t;
    uint32_t block = (root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(touched, block)) != TG_NONE && block >= low >> TG_BLOCK) {
        uint32_t first = block << TG_BLOCK > low ? block << TG_BLOCK : low;
        for (uint32_t i = last_in(block, root) + 1; i-- > first;)
            if (adj[i] != 0.0)
                step(&view, i, adj[i], adj, touched);
    }
}

static int propagate(tg_tape *t, struct tg_sweep *s, tg_rule rule, void *context, fp_mode mode)
{
    uint32_t block = (s->root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(s->touched, block)) != TG_NONE) {
        uint32_t first = block << TG_BLOCK;
        for (uint32_t i = last_in(block, s->root) + 1; i-- > first;) {
            double g = s->adj[i];
            if (g == 0.0)
                continue;
            if (tg_has_rule(t, i)) {
                int code;
                restore_fp(mode);
                code = rule(context, i);
                flush_to_zero();
                if (code)
                    return code;
            } else
                one_step(t, i, g, s->adj, s->touched);
        }
    }
    return TG_OK;
}

/* Empty the adjoints, into grad where they are wanted. */
static void settle(tg_tape *t, struct tg_sweep *s, int wanted)
{
    uint32_t block = (s->root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(s->touched, block)) != TG_NONE) {
        uint32_t first = block << TG_BLOCK, last = last_in(block, s->root);
        for (uint32_t i = first; wanted && i <= last; i++)
            if (s->adj[i] != 0.0)                       /* flush-to-zero is on: no other grad may pass through here */
                t->grad[i] += s->adj[i];
        memset(s->adj + first, 0, (last - first + (size_t)1) * sizeof *s->adj);
        s->touched[block] = 0;
    }
}

/* The sweep of this thread that is running a rule: the innermost, or the outermost. */
static struct tg_sweep *within(const tg_tape *t, uint64_t thread, int outermost)
{
    struct tg_sweep *found = NULL;
    for (struct tg_sweep *s = t->sweep; s; s = s->outer)
        if (s->thread == thread) {
            found = s;
            if (!outermost)
                break;
        }
    return found;
}

/* Add the grads that settling s will change to the undo list of `in`: TG_OK, or TG_MEMORY with the list as it was. A
   rule may sweep many times: the list doubles, so that this takes time in proportion. */
static int remember(const tg_tape *t, const struct tg_sweep *s, struct tg_sweep *in)
{
    size_t most = 0;
    uint32_t block = (s->root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(s->touched, block)) != TG_NONE)
        most += BLOCK_SIZE;
    if (in->undo_len + most > in->undo_cap) {
        size_t cap = 2 * in->undo_cap + most;
        struct undo *grown = tg_realloc(in->undo, cap * sizeof *grown);
        if (!grown)
            return TG_MEMORY;
        in->undo = grown;
        in->undo_cap = cap;
    }
    block = (s->root >> TG_BLOCK) + 1;
    while ((block = tg_flagged_below(s->touched, block)) != TG_NONE)
        for (uint32_t i = block << TG_BLOCK; i <= last_in(block, s->root); i++)
            if (s->adj[i] != 0.0 || i == s->root)
                in->undo[in->undo_len++] = (struct undo){i, t->grad[i]};
    return TG_OK;
}

/* A sweep whose rules may run. Its adjoints stay for the caller to settle, unless it fails: then every grad is as it
   was. */
static int careful(tg_tape *t, struct tg_sweep *s, int wanted, tg_rule rule, void *context, fp_mode mode)
{
    struct tg_sweep *outermost = within(t, s->thread, 1), **link;
    size_t mark = outermost ? outermost->undo_len : 0;
    int code;
    s->outer = t->sweep;
    t->sweep = s;
    tg_grow(t, 0, 0);                                   /* no reclaim while rules run */
    code = propagate(t, s, rule, context, mode);
    for (link = &t->sweep; *link != s;)                 /* another thread's sweep may have begun later and still run */
        link = &(*link)->outer;
    *link = s->outer;
    tg_grow(t, 0, 0);
    if (!code && outermost && wanted)
        code = remember(t, s, outermost);
    if (code) {
        struct tg_sweep *keeper = outermost ? outermost : s;
        for (size_t k = keeper->undo_len; k-- > mark;)
            if (keeper->undo[k].id < t->len)
                t->grad[keeper->undo[k].id] = keeper->undo[k].grad;
        keeper->undo_len = mark;
        settle(t, s, 0);
    }
    return code;
}

/* Adjoints for a sweep from s->root: the tape's own arrays, or where a rule is running within them, new ones. */
static int take(tg_tape *t, struct tg_sweep *s)
{
    uint64_t n, blocks;
    s->shared = !t->adj_busy;
    n = s->shared ? t->cap : s->root + (uint64_t)1;
    blocks = (n + BLOCK_SIZE - 1) >> TG_BLOCK;
    if (s->shared && s->root < t->adj_cap) {
        s->adj = t->adj;
        s->touched = t->touched;
    } else {
        if (s->shared)                                  /* all zero: nothing to carry over */
            tg_free_adjoints(t);
        n = blocks << TG_BLOCK;
        s->adj = tg_zeroed(n * sizeof *s->adj);
        s->touched = tg_zeroed(blocks);
        if (!s->adj || !s->touched) {
            free(s->adj);
            free(s->touched);
            return TG_MEMORY;
        }
        if (s->shared) {
            t->adj = s->adj;
            t->touched = s->touched;
            t->adj_cap = n;
        }
    }
    t->adj_busy |= s->shared;
    return TG_OK;
}

static void give_back(tg_tape *t, struct tg_sweep *s)
{
    if (s->shared)
        t->adj_busy = 0;
    else {
        free(s->adj);
        free(s->touched);
    }
    free(s->undo);
}

int tg_backward(tg_tape *t, uint32_t root, double seed, tg_rule rule, void *context, uint64_t thread)
{
    struct tg_sweep s = {.thread = thread, .root = root};
    fp_mode mode;
    int code;
    if (root >= t->len)
        return TG_BAD_ID;
    s.depth = t->sweep ? t->sweep->depth + 1 : 0;
    if (s.depth > DEEPEST)
        return TG_TOO_DEEP;
    code = take(t, &s);
    if (code)
        return code;
    s.adj[root] = seed;
    s.touched[root >> TG_BLOCK] = 1;
    mode = flush_to_zero();
    if (t->rules || t->sweep) {
        code = careful(t, &s, 1, rule, context, mode);
        if (!code) {
            t->grad[root] = 0.0;
            s.adj[root] = seed;
            settle(t, &s, 1);
        }
    } else {
        t->grad[root] = 0.0;
        quick(t, root, s.adj, s.touched);
    }
    restore_fp(mode);
    give_back(t, &s);
    return code;
}

int tg_adjoints(tg_tape *t, const uint32_t *roots, const double *seeds, uint32_t n_roots, const uint32_t *xs,
                uint32_t n_xs, double *out, tg_rule rule, void *context, uint64_t thread)
{
    struct tg_sweep s = {.thread = thread};
    uint32_t low = t->len;
    fp_mode mode;
    int code;
    for (uint32_t k = 0; k < n_roots; k++) {
        if (roots[k] >= t->len)
            return TG_BAD_ID;
        s.root = roots[k] > s.root ? roots[k] : s.root;
    }
    for (uint32_t k = 0; k < n_xs; k++) {
        if (xs[k] >= t->len)
            return TG_BAD_ID;
        low = xs[k] < low ? xs[k] : low;
    }
    s.depth = t->sweep ? t->sweep->depth + 1 : 0;
    if (s.depth > DEEPEST)
        return TG_TOO_DEEP;
    if (!n_roots) {
        memset(out, 0, n_xs * sizeof *out);
        return TG_OK;
    }
    code = take(t, &s);
    if (code)
        return code;
    mode = flush_to_zero();
    for (uint32_t k = 0; k < n_roots; k++)
        tg_add_adjoint(s.adj, s.touched, roots[k], seeds ? seeds[k] : 1.0);
    if (t->rules || t->sweep)
        code = careful(t, &s, 0, rule, context, mode);
    else
        quick_down_to(t, s.root, low, s.adj, s.touched);
    if (!code) {
        for (uint32_t k = 0; k < n_xs; k++)
            out[k] = xs[k] <= s.root ? s.adj[xs[k]] : 0.0;
        settle(t, &s, 0);
    }
    restore_fp(mode);
    give_back(t, &s);
    return code;
}

int tg_push_grad(tg_tape *t, uint32_t id, uint64_t thread)
{
    struct tg_sweep own = {.root = id}, *s = within(t, thread, 0);
    double g;
    int code;
    if (id >= t->len)
        return TG_BAD_ID;
    g = tg_read_grad(t, id, thread);
    if (g == 0.0)
        return TG_OK;
    if (s && id <= s->root) {
        one_step(t, id, g, s->adj, s->touched);
        return TG_OK;
    }
    code = take(t, &own);
    if (code)
        return code;
    one_step(t, id, g, own.adj, own.touched);
    settle(t, &own, 1);
    give_back(t, &own);
    return TG_OK;
}

double tg_read_grad(const tg_tape *t, uint32_t id, uint64_t thread)
{
    const struct tg_sweep *s = within(t, thread, 0);
    return s && id <= s->root ? s->adj[id] : t->grad[id];
}

void tg_write_grad(tg_tape *t, uint32_t id, uint64_t thread, double grad)
{
    struct tg_sweep *s = within(t, thread, 0);
    if (s && id <= s->root) {
        s->adj[id] = grad;
        s->touched[id >> TG_BLOCK] = 1;
    } else
        t->grad[id] = grad;
}
