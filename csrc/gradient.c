/*  The sweep, recorded: adjoints as nodes of the tape, which can be used, swept, recorded and frozen like any others.

    Partials are followed step by step: see partials.h. Of a choice both sides are recorded, and the one that is not
    chosen passes nothing on; but where a number decides, that one is not recorded. Numbers stay numbers as long as they
    meet no node.

    Nodes made here refuse nothing: where a slope is infinite the sweep gives infinity, and so do they. A product with
    an adjoint is a WEIGH, which is 0 where the adjoint is: as in the sweep, an infinite partial turns no 0 into nan.
    Adjoints are added in the order of the sweep.  */
#include "gradient.h"
#include "ops.h"
#include "partials.h"

#include <stdlib.h>
#include <string.h>

enum { NEEDED = 1, MOVES = 2 };     /* marks: a root depends on it; it depends on an x */

typedef tg_scalar term;

#define KNOWN_SIZE 64u

typedef struct {
    tg_tape *t;
    uint32_t first, before;     /* the lowest x; the tape's length before */
    uint8_t *mark;              /* of id - first */
    uint32_t *adj;              /* of id - first: the adjoint's id + 1, or 0 */
    uint32_t *order, len, cap;  /* the needed nodes from first on, downwards */
    uint32_t *ids, widest;      /* the operands of one of them */
    uint32_t *below;            /* as many */
    int older;                  /* a root depends on nodes before first */
    struct {
        double k;
        uint32_t id;            /* + 1 */
    } known[KNOWN_SIZE];        /* leaves that hold numbers, by their bits */
} recorded_sweep;

static int moves(const recorded_sweep *s, uint32_t id) { return id >= s->first && s->mark[id - s->first] & MOVES; }

static uint32_t leaf_of(recorded_sweep *s, double k)
{
    uint64_t bits;
    uint32_t at;
    memcpy(&bits, &k, sizeof bits);
    at = (uint32_t)((bits * 0x9E3779B97F4A7C15u) >> 58) % KNOWN_SIZE;
    if (!s->known[at].id || memcmp(&s->known[at].k, &k, sizeof k)) {
        s->known[at].k = k;
        s->known[at].id = tg_push(s->t, TG_LEAF, 0, 0, k) + 1;
    }
    return s->known[at].id - 1;
}

static uint32_t id_of(recorded_sweep *s, term x) { return x.is_node ? x.id : leaf_of(s, x.k); }
static double value_of(const recorded_sweep *s, term x) { return x.is_node ? s->t->data[x.id] : x.k; }
/* y = op(a, b), which refuses nothing; b is a where op takes one. */
static term apply(void *to, int op, term a, term b)
{
    recorded_sweep *s = to;
    double y = tg_primal(op, value_of(s, a), value_of(s, b));
    uint32_t ia, ib;
    if (!a.is_node && !b.is_node)
        return tg_number(y);
    if (op == TG_MUL && (tg_is_number(a, 1.0) || tg_is_number(b, 1.0)))
        return a.is_node ? a : b;
    ia = id_of(s, a);
    ib = id_of(s, b);
    return tg_node(tg_push(s->t, op, ia, ib, y));
}

static term many(recorded_sweep *s, int op, const uint32_t *ids, uint32_t n)
{
    uint32_t *to = tg_push_many(s->t, op, n), id = s->t->len - 1;
    memcpy(to, ids, n * sizeof *ids);
    s->t->data[id] = tg_many_primal(op, s->t->data, to, n);
    return tg_node(id);
}

/* Where c is not 0, a, else b; c is a node. */
static term choose(void *to, term c, term a, term b)
{
    recorded_sweep *s = to;
    uint32_t ids[3];
    ids[0] = c.id;
    ids[1] = id_of(s, a);
    ids[2] = id_of(s, b);
    return many(s, TG_WHERE, ids, 3);
}

static const tg_maker maker = {apply, choose};

/* How many steps partial k of a row has. */
static uint32_t steps(int op, int k)
{
    uint32_t count;
    tg_partial(op, k, &count);
    return count;
}

static term partial(recorded_sweep *s, int op, int k, const term named[3])
{
    return tg_follow(&maker, s, op, k, named);
}

static term weighed(recorded_sweep *s, term g, term partial) { return tg_weighed(&maker, s, g, partial); }

/* What an entry of adj stands for: a leaf of ours is a number. */
static term adjoint(const recorded_sweep *s, uint32_t entry)
{
    const uint32_t id = entry - 1;
    return id >= s->before && s->t->op[id] == TG_LEAF ? tg_number(s->t->data[id]) : tg_node(id);
}

static void add_to(recorded_sweep *s, uint32_t id, term g)
{
    uint32_t *adj = s->adj + (id - s->first);
    if (!moves(s, id) || tg_is_number(g, 0.0))
        return;
    *adj = id_of(s, *adj ? apply(s, TG_ADD, adjoint(s, *adj), g) : g) + 1;
}

/* What a row of many operands passes on, by the partials that its row names: of operands in pairs the one by the other,
   a last one without a partner as it is. */
static void pass_many(recorded_sweep *s, int op, const uint32_t *ids, uint32_t n, term y, term g)
{
    const int in_pairs = steps(op, 1) > 0;
    const uint32_t half = in_pairs ? n / 2 : n;
    if (in_pairs && n % 2)
        add_to(s, ids[n - 1], g);
    for (uint32_t k = 0; k < half; k++) {
        const term named[] = {tg_node(ids[k]), tg_node(ids[in_pairs ? half + k : k]), y};
        if (moves(s, ids[k]))
            add_to(s, ids[k], weighed(s, g, partial(s, op, 0, named)));
        if (in_pairs && moves(s, ids[half + k]))
            add_to(s, ids[half + k], weighed(s, g, partial(s, op, 1, named)));
    }
}

/* What logits get of a cross-entropy, apart from the target's own. */
static void pass_cross_entropy(recorded_sweep *s, uint32_t *ids, uint32_t n, term g)
{
    const term top = many(s, TG_TOP, ids, n);
    uint32_t *below = s->below;
    term total;
    for (uint32_t k = 0; k < n; k++)
        below[k] = id_of(s, apply(s, TG_SUB, tg_node(ids[k]), top));
    total = many(s, TG_LOGSUMEXP, below, n);
    for (uint32_t k = 0; k < n; k++)
        if (moves(s, ids[k])) {
            const term named[] = {tg_node(below[k]), tg_node(below[k]), total};
            add_to(s, ids[k], weighed(s, g, partial(s, TG_LOGSUMEXP, 0, named)));
        }
}

/* Of rows whose partials are not in the table: what their sweeps in ops.c do. ids is a copy: the pool moves. */
static void pass_apart(recorded_sweep *s, uint32_t i, int op, uint32_t *ids, uint32_t n, term g)
{
    const uint32_t half = n / 2;
    const term zero = tg_number(0.0);
    switch (op) {
    case TG_WHERE:
        if (moves(s, ids[1]))
            add_to(s, ids[1], choose(s, tg_node(ids[0]), g, zero));
        if (moves(s, ids[2]))
            add_to(s, ids[2], choose(s, tg_node(ids[0]), zero, g));
        break;
    case TG_CROSS_ENTROPY:
        pass_cross_entropy(s, ids, n - 1, g);
        if (moves(s, ids[n - 1]))
            add_to(s, ids[n - 1], apply(s, TG_NEG, g, g));
        break;
    case TG_MSE:
        g = apply(s, TG_MUL, g, tg_number(2.0 / half));
        for (uint32_t k = 0; k < half; k++)
            if (moves(s, ids[k]) || moves(s, ids[half + k])) {
                term d = weighed(s, g, apply(s, TG_SUB, tg_node(ids[k]), tg_node(ids[half + k])));
                add_to(s, ids[k], d);
                if (moves(s, ids[half + k]))
                    add_to(s, ids[half + k], apply(s, TG_NEG, d, d));
            }
        break;
    case TG_HINGE:
        g = apply(s, TG_DIV, g, tg_number(half));
        g = apply(s, TG_NEG, g, g);
        for (uint32_t k = 0; k < half; k++)
            if (moves(s, ids[k]) || moves(s, ids[half + k])) {
                const uint32_t pair[] = {ids[k], ids[half + k]};
                term margin = apply(s, TG_MUL, tg_node(pair[1]), tg_node(pair[0])), inside;
                margin = apply(s, TG_SUB, tg_number(1.0), margin);
                inside = choose(s, apply(s, TG_GREATER, margin, zero), g, zero);
                pass_many(s, TG_DOT, pair, 2, margin, inside);
            }
        break;
    default: pass_many(s, op, ids, n, tg_node(i), g);
    }
}

/* ---- which nodes ---- */

/* List what the roots need from s->first on, downwards; older says whether they need anything older. */
static int reach(recorded_sweep *s, const uint32_t *roots, uint32_t n_roots)
{
    const tg_tape *t = s->t;
    const uint32_t base = s->first >> TG_BLOCK;         /* of the first block */
    uint32_t top = 0, block;
    uint8_t *touched;
    for (uint32_t k = 0; k < n_roots; k++)
        top = roots[k] >= top ? roots[k] + 1 : top;
    if (top <= s->first) {
        s->older = n_roots > 0;
        return TG_OK;
    }
    block = ((top - 1) >> TG_BLOCK) - base + 1;
    s->mark = tg_zeroed(top - s->first);
    touched = tg_zeroed(block);
    if (!s->mark || !touched) {
        free(touched);
        return TG_MEMORY;
    }
#define NEED(id)                                                                                                       \
    do {                                                                                                               \
        if ((id) >= s->first) {                                                                                        \
            s->mark[(id) - s->first] |= NEEDED;                                                                        \
            touched[((id) >> TG_BLOCK) - base] = 1;                                                                    \
        } else                                                                                                         \
            s->older = 1;                                                                                              \
    } while (0)
    for (uint32_t k = 0; k < n_roots; k++)
        NEED(roots[k]);
    while ((block = tg_flagged_below(touched, block)) != TG_NONE) {
        const uint32_t low = (base + block) << TG_BLOCK, first = low > s->first ? low : s->first;
        const uint64_t end = ((uint64_t)low + (1u << TG_BLOCK)) < top ? (uint64_t)low + (1u << TG_BLOCK) : top;
        for (uint32_t i = (uint32_t)end; i-- > first;) {
            const int op = t->op[i] & TG_OPCODE;
            if (!s->mark[i - s->first])
                continue;
            if (s->len == s->cap) {
                uint32_t cap = s->cap ? 2 * s->cap : 256;
                uint32_t *grown = tg_realloc(s->order, cap * sizeof *grown);
                if (!grown) {
                    free(touched);
                    return TG_MEMORY;
                }
                s->order = grown;
                s->cap = cap;
            }
            s->order[s->len++] = i;
            if (op == TG_LEAF)
                continue;
            if (!tg_is_many(op)) {
                NEED(t->a[i]);
                if (t->b[i] != t->a[i] && !tg_is_passive(op))
                    NEED(t->b[i]);
                continue;
            }
            s->widest = t->b[i] > s->widest ? t->b[i] : s->widest;
            for (uint32_t k = 0; k < t->b[i]; k++)
                NEED(t->pool[t->a[i] + k]);
        }
    }
#undef NEED
    free(touched);
    return TG_OK;
}

/* Find out which of them depend on an x, and make room for what is recorded of these. */
static int survey(recorded_sweep *s, const uint32_t *xs, uint32_t n_xs, uint32_t n_roots)
{
    tg_tape *t = s->t;
    uint64_t nodes = KNOWN_SIZE + (uint64_t)n_xs + 2 * (uint64_t)n_roots, words = 0;
    for (uint32_t k = 0; s->len && k < n_xs; k++)
        if (xs[k] <= s->order[0])
            s->mark[xs[k] - s->first] |= MOVES;
    for (uint32_t k = s->len; k-- > 0;) {
        const uint32_t i = s->order[k];
        const int op = t->op[i] & TG_OPCODE;
        int moved = 0;
        if (op == TG_LEAF)
            continue;
        if (tg_is_many(op)) {
            for (uint32_t m = 0; m < t->b[i]; m++)
                moved |= moves(s, t->pool[t->a[i] + m]);
            nodes += moved ? 8 * (uint64_t)t->b[i] + 8 : 0;
            words += moved ? 5 * (uint64_t)t->b[i] + 16 : 0;
        } else {
            moved = moves(s, t->a[i]) || (!tg_is_passive(op) && moves(s, t->b[i]));
            nodes += moved ? 2 * ((uint64_t)steps(op, 0) + steps(op, 1)) + 8 : 0;
            words += moved ? 4 * ((uint64_t)steps(op, 0) + steps(op, 1)) : 0;
        }
        if (moved && tg_has_rule(t, i))
            return TG_RULED;
        if (moved)
            s->mark[i - s->first] |= MOVES;
    }
    s->adj = tg_zeroed(s->len ? (s->order[0] - s->first + (size_t)1) * sizeof *s->adj : 1);
    s->ids = tg_realloc(NULL, 2 * (size_t)s->widest * sizeof *s->ids + 1);
    s->below = s->ids ? s->ids + s->widest : NULL;
    return s->adj && s->ids ? tg_grow(t, nodes, words) : TG_MEMORY;
}

static void sweep(recorded_sweep *s)
{
    tg_tape *t = s->t;
    for (uint32_t k = 0; k < s->len; k++) {
        const uint32_t i = s->order[k], adj = s->adj[i - s->first];
        const int op = t->op[i] & TG_OPCODE;
        term g, named[3];
        if (!adj || op == TG_LEAF || op == TG_NODE || !moves(s, i))
            continue;
        g = adjoint(s, adj);
        if (tg_is_many(op)) {
            memcpy(s->ids, t->pool + t->a[i], t->b[i] * sizeof *s->ids);
            pass_apart(s, i, op, s->ids, t->b[i], g);
            continue;
        }
        named[0] = tg_node(t->a[i]);
        named[1] = tg_is_passive(op) ? tg_number(t->data[t->b[i]]) : tg_node(t->b[i]);
        named[2] = tg_node(i);
        for (int side = 0; side < 2; side++) {
            const uint32_t operand = side ? t->b[i] : t->a[i];
            if (steps(op, side) && moves(s, operand))
                add_to(s, operand, weighed(s, g, partial(s, op, side, named)));
        }
    }
}

/* The adjoint as a node of its own: the caller may write to it. */
static uint32_t result(recorded_sweep *s, uint32_t adj)
{
    const term g = adj ? adjoint(s, adj) : tg_number(0.0);
    return g.is_node ? tg_push(s->t, TG_COPY, g.id, g.id, s->t->data[g.id]) : tg_push(s->t, TG_LEAF, 0, 0, g.k);
}

int tg_record_sweep(tg_tape *t, const uint32_t *roots, const uint32_t *seeds, uint32_t n_roots, const uint32_t *xs,
                    uint32_t n_xs, uint32_t *out)
{
    recorded_sweep s = {.t = t, .first = t->len, .before = t->len};
    int code = TG_OK;
    for (uint32_t k = 0; k < n_roots; k++)
        if (roots[k] >= t->len || (seeds && seeds[k] >= t->len))
            return TG_BAD_ID;
    for (uint32_t k = 0; k < n_xs; k++) {
        if (xs[k] >= t->len)
            return TG_BAD_ID;
        s.first = xs[k] < s.first ? xs[k] : s.first;
    }
    code = reach(&s, roots, n_roots);
    if (!code)
        code = survey(&s, xs, n_xs, n_roots);
    if (!code) {
        for (uint32_t k = 0; k < n_roots; k++)
            if (roots[k] >= s.first)
                add_to(&s, roots[k], seeds ? tg_node(seeds[k]) : tg_number(1.0));
        sweep(&s);
        for (uint32_t k = 0; k < n_xs; k++)
            out[k] = result(&s, s.len && xs[k] <= s.order[0] ? s.adj[xs[k] - s.first] : 0);
    }
    free(s.mark);
    free(s.adj);
    free(s.order);
    free(s.ids);
    return code;
}

int tg_depends_on_older(tg_tape *t, const uint32_t *roots, uint32_t n_roots, uint32_t first)
{
    recorded_sweep s = {.t = t, .first = first};
    int code = TG_OK;
    for (uint32_t k = 0; k < n_roots; k++)
        if (roots[k] >= t->len)
            return TG_BAD_ID;
    code = reach(&s, roots, n_roots);
    free(s.mark);
    free(s.order);
    return code ? code : s.older;
}
