/*  The replay of groups for one row: BLOCK instructions side by side, as lanes.h has rows; of what is left, FEW.

    Operands that lie side by side are read where they are, others are gathered first; then the loop over a block is
    what the compiler vectorises. No element sees another, and adjoints are added up in the order in which one
    instruction after the other, from the last to the first, would add them; where that shows nowhere, in any other.
    So all bits are those of one instruction after the other, as lanes.h has it.

    Rows that take an instruction or two forward and back, and those of many operands, are in files of their own.  */
#include "wide/wide.h"
#include "compiled.h"
#include "failing.h"
#include "ops.h"

#include <math.h>

#define EACH for (int l = 0; l < LANES; l++)
#define LANES 16
#define NAME(x) few_##x
#include "each_lane.h"
#undef LANES
#undef NAME
#define LANES 64
#define NAME(x) group_##x
#include "each_lane.h"

enum { BLOCK = LANES, FEW = 16 };
#define ALL for (uint32_t l = 0; l < n; l++)            /* of n elements, BLOCK or FEW, which the compiler knows */

/* ---- operands ---- */

typedef struct {
    double x[LANES];
    uint32_t filled;            /* how many, with what is the same throughout the group */
} block;
static const double nothing[LANES];

TG_INLINE void empty(block *rooms)
{
    for (int k = 0; k < TG_FEW_TERMS; k++)
        rooms[k].filled = 0;
}

/* Elements at .. at + m - 1 of an operand, and numbers of it up to n. */
TG_INLINE const double *read(const tg_wide *w, const tg_slots *s, const double *v, uint32_t at, uint32_t m,
                             const uint32_t n, block *room)
{
    if (s->how == TG_SIDE_BY_SIDE) {
        const double *x = v + s->at + at;
        if (m == n)
            return x;
        ALL room->x[l] = x[l < m ? l : 0];
        return room->x;
    }
    if (s->how == TG_SAME) {
        const double x = v[s->at];
        if (room->filled < n)
            ALL room->x[l] = x;
        room->filled = n;
        return room->x;
    }
    {
        const uint32_t *list = w->list + s->at + at;
        if (m == n)
            for (uint32_t l = 0; l < n; l += TG_RUN)
                if (list[l] & TG_RUNS) {
                    const double *x = v + (list[l] & ~TG_RUNS);
                    TG_TURNS_APART for (uint32_t e = 0; e < TG_RUN; e++)    /* else it is a call of memcpy */
                        room->x[l + e] = x[e];
                } else
                    for (uint32_t e = l; e < l + TG_RUN; e++)
                        room->x[e] = v[list[e] & ~TG_RUNS];
        else
            ALL room->x[l] = v[list[l < m ? l : 0] & ~TG_RUNS];
        return room->x;
    }
}

TG_INLINE int are_finite(const double *y, const uint32_t n)
{
    uint64_t odd = 0;
    ALL odd |= tg_is_infinite_or_nan(y[l]);
    return !odd;
}

static void out(tg_job *j, uint32_t at, double a, double b, double y)
{
    tg_note_failure(j, 0, at, a, b, y);
}

static void check(tg_job *j, uint32_t op, uint32_t first, uint32_t m, const double *a, const double *b, double *y)
{
    if (op & TG_QUIET)
        return;
    for (uint32_t l = 0; l < m; l++)
        if (!isfinite(y[l]) && tg_refusal((int)op, a[l], b[l], y[l])) {
            if (j->nan_errors)
                y[l] = NAN;
            else
                out(j, first + l, a[l], b[l], y[l]);
        }
}

/* ---- forward ---- */

/* The first m elements of n; of all of them the compiler knows the length. */
TG_INLINE void put(double *restrict to, const double *restrict x, uint32_t m, const uint32_t n)
{
    if (m == n)
        ALL to[l] = x[l];
    else
        for (uint32_t l = 0; l < m; l++)
            to[l] = x[l];
}

/* t[l] += the dots of n pairs each, four chains of additions at a time. */
TG_INLINE void dots(const double *v, const uint32_t *pair, uint32_t stride, uint32_t m, uint32_t n, double *t,
                    int straight)
{
#define X(p, i) v[straight ? (size_t)(p)[0] + (i) : (p)[4 * (size_t)(i)]]
#define W(p, i) v[straight ? (size_t)(p)[2] + (i) : (p)[4 * (size_t)(i) + 2]]
    for (; m >= 4; m -= 4, pair += 4 * (size_t)stride, t += 4) {
        const uint32_t *second = pair + stride, *third = second + stride, *fourth = third + stride;
        double t0 = t[0], t1 = t[1], t2 = t[2], t3 = t[3];
        for (uint32_t i = 0; i < n; i++) {
            t0 += X(pair, i) * W(pair, i);
            t1 += X(second, i) * W(second, i);
            t2 += X(third, i) * W(third, i);
            t3 += X(fourth, i) * W(fourth, i);
        }
        t[0] = t0;
        t[1] = t1;
        t[2] = t2;
        t[3] = t3;
    }
    for (; m; m--, pair += stride, t++) {
        double sum = *t;
        for (uint32_t i = 0; i < n; i++)
            sum += X(pair, i) * W(pair, i);
        *t = sum;
    }
#undef X
#undef W
}

/* The sums of n instructions of few terms from at on. */
TG_INLINE void few(const tg_job *j, const tg_group *s, uint32_t at, const uint32_t n, int numbering, block *rooms,
                   double *restrict t)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal;
    const uint32_t terms = s->op == TG_DOT ? s->terms & ~1u : s->terms;
    const double *sum = terms < s->terms ? read(w, &s->operand[terms][numbering], v, at, n, n, rooms + terms) : nothing;
    for (uint32_t i = 0; i < terms; i++) {
        const double *x = read(w, &s->operand[i][numbering], v, at, n, n, rooms + i);
        if (s->op == TG_DOT) {
            const double *y = read(w, &s->operand[i + 1][numbering], v, at, n, n, rooms + i + 1);
            i++;
            TG_TURNS_APART ALL t[l] = sum[l] + x[l] * y[l];
        } else
            TG_TURNS_APART ALL t[l] = sum[l] + x[l];
        sum = t;
    }
}

/* The sums of m instructions from at on. */
TG_INLINE void sums(const tg_job *j, const tg_group *s, uint32_t at, uint32_t m, int numbering, double *t)
{
    const double *v = j->primal;
    const uint32_t stride = 2 * s->terms, n = s->op == TG_DOT ? s->terms & ~1u : s->terms;
    const uint32_t *pool = j->program->pool + 2 * (size_t)s->pool + (size_t)stride * at + numbering;
    for (uint32_t l = 0; l < m; l++)
        t[l] = n < s->terms ? v[pool[(size_t)stride * l + 2 * n]] : 0.0;
    if (s->op == TG_SUM)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t l = 0; l < m; l++)
                t[l] += v[pool[(size_t)stride * l + 2 * i]];
    else if (s->straight)
        dots(v, pool, stride, m, n / 2, t, 1);
    else
        dots(v, pool, stride, m, n / 2, t, 0);
}

TG_INLINE void ask(tg_job *j, const tg_group *g, uint32_t first, uint32_t m, const uint32_t n, const double *xa,
                   const double *xb)
{
    const uint32_t asked = g->y[TG_KEPT];
    uint8_t holds[LANES];
    uint32_t other = 0;
    switch (asked >> 1) {
#define HOW(how, sign) case how: ALL holds[l] = (uint8_t)(xa[l] sign xb[l]); break;
    TG_COMPARISONS(HOW)
#undef HOW
    default: return;
    }
    for (uint32_t l = 0; l < m; l++)
        other |= holds[l] ^ (asked & 1);
    for (uint32_t l = 0; other && l < m; l++)
        if (holds[l] != (asked & 1))
            out(j, first + l, xa[l], xb[l], xa[l]);
}

/* How many elements are next of those that are left: calls of functions and sums of few terms go by FEW where they are
   no block. */
static inline uint32_t next(const tg_group *s, uint32_t left)
{
    return left >= BLOCK ? BLOCK : left > FEW && tg_has_few(s) && s->op != TG_WHERE && s->op != TG_GUARD ? FEW : left;
}

/* m instructions from k on, of n. */
TG_INLINE void forward(tg_job *j, const tg_group *s, uint32_t k, uint32_t m, const uint32_t n,
                       tg_narrow_replay *narrow, int numbering, block *rooms)
{
    const tg_wide *w = j->program->wide;
    const int row = (int)(s->op & ~TG_QUIET);
    const uint32_t at = k - s->first;
    double *v = j->primal, *Y = v + s->y[numbering] + at, t[LANES];
    const double *xa, *xb;
    if (s->terms && s->op != TG_WHERE) {
        if (tg_has_few(s) && s->terms > 1 && m == n)
            few(j, s, at, n, numbering, rooms, t);
        else
            sums(j, s, at, m, numbering, t);
        put(Y, t, m, n);
        return;
    }
    if (!s->terms && s->op != TG_GUARD && m < TG_FEW_CALLS) {
        tg_one_by_one(j, k, k + m, narrow, numbering);
        return;
    }
    xa = read(w, &s->operand[0][numbering], v, at, m, n, rooms);
    xb = xa;
    if (!tg_is_same(&s->operand[0][numbering], &s->operand[1][numbering]))
        xb = read(w, &s->operand[1][numbering], v, at, m, n, rooms + 1);
    if (s->op == TG_GUARD) {
        ask(j, s, k, m, n, xa, xb);
        return;
    }
    if (s->op == TG_WHERE) {
        const double *xc = read(w, &s->operand[2][numbering], v, at, m, n, rooms + 2);
        ALL t[l] = xa[l] != 0.0 ? xb[l] : xc[l];
    } else {
        (n == FEW ? few_long_primals : group_long_primals)(row, t, xa, xb);
        if (tg_can_refuse(row) && !are_finite(t, n))
            check(j, s->op, k, m, xa, xb, t);
    }
    put(Y, t, m, n);
}

TG_CLONES void tg_group_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow,
                                int numbering)
{
    block rooms[TG_FEW_TERMS];
    empty(rooms);
    if (s->chain) {
        tg_chain_forward(j, s, from - s->first, to - s->first, numbering);
        return;
    }
    if (tg_has_own_terms(s)) {
        tg_terms_forward(j, s, from - s->first, to - s->first, numbering);
        return;
    }
    if (tg_is_short(s->op)) {
        tg_eights_forward(j, s, from - s->first, to - s->first, numbering);
        return;
    }
    for (uint32_t k = from, m; k < to; k += m) {
        m = next(s, to - k);
        if (m > FEW)
            forward(j, s, k, m, BLOCK, narrow, numbering, rooms);
        else
            forward(j, s, k, m, FEW, narrow, numbering, rooms);
    }
}

/* Those of its operands and results that its partials name; the others may be anything. */
#define READ_NAMED                                                                                                     \
    const double *xa = s->names & TG_NAMES_A ? read(w, &s->operand[0][TG_KEPT], v, at, m, n, rooms) : nothing;         \
    const double *xb = s->names & TG_NAMES_B ? read(w, &s->operand[1][TG_KEPT], v, at, m, n, rooms + 1) : nothing;     \
    const double *xy = s->names & TG_NAMES_Y ? read(w, &results, v, at, m, n, rooms + 2) : nothing;
#define READ_TANGENTS                                                                                                  \
    const double *ta = read(w, &s->operand[0][TG_KEPT], d, at, m, n, rooms + 3);                                       \
    const double *tb = read(w, &s->operand[1][TG_KEPT], d, at, m, n, rooms + 4);

TG_CLONES void tg_group_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal;
    const tg_slots results = {TG_SIDE_BY_SIDE, s->y[TG_KEPT]};
    const uint32_t n = BLOCK;
    double *d = j->tangent, t[LANES];
    block rooms[TG_FEW_TERMS];
    empty(rooms);
    if (s->n_stretches)
        tg_terms_tangents(j, s, from - s->first, to - s->first, narrow);
    else if (s->chain)
        tg_chain_tangents(j, s, from - s->first, to - s->first);
    else if (s->terms)
        tg_one_by_one(j, from, to, narrow, TG_KEPT);
    if (s->terms || s->chain || s->op == TG_GUARD)
        return;
    for (uint32_t k = from, m, at; k < to; k += m) {
        m = to - k < BLOCK ? to - k : BLOCK;
        at = k - s->first;
        READ_NAMED
        READ_TANGENTS
        switch (s->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
        case TG_##NAME_:                                                                                               \
            if (!IS_SHORT(TG_##NAME_) && m < BLOCK / 2) {                                                              \
                tg_one_by_one(j, k, k + m, narrow, TG_KEPT);                                                           \
                continue;                                                                                              \
            }                                                                                                          \
            if (IS_SHORT(TG_##NAME_))                                                                                  \
                TANGENTS_OF(NAME_, da, db)                                                                             \
            else                                                                                                       \
                NAME(long_tangents)(TG_##NAME_, t, xa, xb, xy, ta, tb);                                                \
            break;
#include "ops.def"
        default: continue;
        }
        put(d + s->y[TG_KEPT] + at, t, m, n);
    }
}

/* ---- reverse ---- */

/* Add to the adjoints of one operand, from the last element to the first. */
TG_INLINE void add(const tg_wide *w, const tg_slots *s, double *restrict adj, uint32_t at, uint32_t m,
                   const double *restrict x)
{
    if (s->how == TG_SIDE_BY_SIDE) {
        double *to = adj + s->at + at;
        if (m == BLOCK)
            EACH to[l] += x[l];
        else
            for (uint32_t l = 0; l < m; l++)
                to[l] += x[l];
    } else if (s->how == TG_SAME) {
        double sum = adj[s->at];
        for (uint32_t l = m; l-- > 0;)
            sum += x[l];
        adj[s->at] = sum;
    } else {
        const uint32_t *list = w->list + s->at + at;
        uint32_t l = m;
        for (; l % TG_RUN; l--)
            adj[list[l - 1] & ~TG_RUNS] += x[l - 1];
        for (; l; l -= TG_RUN)
            if (list[l - TG_RUN] & TG_RUNS) {
                double *to = adj + (list[l - TG_RUN] & ~TG_RUNS);
                for (uint32_t e = 0; e < TG_RUN; e++)
                    to[e] += x[l - TG_RUN + e];
            } else
                for (uint32_t e = l; e-- > l - TG_RUN;)
                    adj[list[e] & ~TG_RUNS] += x[e];
    }
}

/* The same of both, of each instruction a first. */
TG_INLINE void add_both(const tg_wide *w, const tg_group *g, double *restrict adj, uint32_t at, uint32_t m,
                        const double *restrict ga, const double *restrict gb)
{
    const tg_slots *a = &g->operand[0][TG_LIVE], *b = &g->operand[1][TG_LIVE];
    const int sides = a->how == TG_SIDE_BY_SIDE && b->how == TG_SIDE_BY_SIDE;
    if (!(g->moves & 2)) {
        if (g->moves)
            add(w, a, adj, at, m, ga);
    } else if (!(g->moves & 1))
        add(w, b, adj, at, m, gb);
    else if (g->apart) {
        add(w, a, adj, at, m, ga);
        add(w, b, adj, at, m, gb);
    } else if (sides) {
        add(w, b, adj, at, m, gb);
        add(w, a, adj, at, m, ga);
    } else
        for (uint32_t l = m; l-- > 0;) {
            adj[tg_slot(w, a, at + l)] += ga[l];
            adj[tg_slot(w, b, at + l)] += gb[l];
        }
}

/* to[k] += g * x[k], of which g is not 0. */
TG_INLINE void spread(double *restrict to, double g, const double *restrict x, uint32_t n)
{
    uint32_t k = 0;
    for (; n - k >= 8; k += 8) {
        double t[8];
        for (uint32_t e = 0; e < 8; e++)
            t[e] = g * x[k + e];
        for (uint32_t e = 0; e < 8; e++)
            to[k + e] += t[e];
    }
    for (; k < n; k++)
        to[k] += g * x[k];
}

TG_INLINE void sums_reverse(tg_job *j, const tg_group *s, uint32_t at, uint32_t m, const double *g)
{
    const uint32_t n_const = j->program->n_const, stride = 2 * s->terms;
    const uint32_t n = s->op == TG_DOT ? s->terms & ~1u : s->terms;
    const uint32_t *pair = j->program->pool + 2 * (size_t)s->pool + (size_t)stride * (at + m);
    const double *v = j->primal;
    double *adj = j->adj;
    for (uint32_t l = m; l-- > 0;) {
        const double own = g[l];
        pair -= stride;
        if (own == 0.0)
            continue;
        if (n < s->terms && pair[2 * n + 1] >= n_const)
            adj[pair[2 * n + 1]] += own;
        if (s->op == TG_SUM)
            for (uint32_t i = 0; i < n; i++) {
                if (pair[2 * i + 1] >= n_const)
                    adj[pair[2 * i + 1]] += own;
            }
        else if (s->straight) {
            const uint32_t x = pair[1], w = pair[3];
            if (x >= w)                                 /* of what meets in a slot, x's is of an earlier term */
                spread(adj + x, own, v + pair[2], n / 2);
            spread(adj + w, own, v + pair[0], n / 2);
            if (x < w)
                spread(adj + x, own, v + pair[2], n / 2);
        } else
            for (uint32_t i = 0; i < n; i += 2) {
                const double a = v[pair[2 * i]], b = v[pair[2 * i + 2]];
                if (pair[2 * i + 1] >= n_const)
                    adj[pair[2 * i + 1]] += own * b;
                if (pair[2 * i + 3] >= n_const)
                    adj[pair[2 * i + 3]] += own * a;
            }
    }
}

TG_INLINE void few_reverse(tg_job *j, const tg_group *s, uint32_t at, const uint32_t n, block *rooms, const double *g)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal;
    const uint32_t terms = s->op == TG_DOT ? s->terms & ~1u : s->terms;
    double *adj = j->adj, ga[LANES];
    if (terms < s->terms && s->moves >> terms & 1)
        add(w, &s->operand[terms][TG_LIVE], adj, at, n, g);
    for (uint32_t i = 0; i < terms; i++) {
        if (!(s->moves >> i & 1))
            continue;
        if (s->op == TG_DOT) {
            const uint32_t other = i ^ 1;
            const double *x = read(w, &s->operand[other][TG_KEPT], v, at, n, n, rooms + other);
            ALL ga[l] = tg_passed_on(g[l], x[l]);
            add(w, &s->operand[i][TG_LIVE], adj, at, n, ga);
        } else
            add(w, &s->operand[i][TG_LIVE], adj, at, n, g);
    }
}

/* Read and clear the adjoints of the results. */
TG_INLINE void take(double *restrict from, uint32_t m, const uint32_t n, double *restrict to)
{
    put(to, from, m, n);
    if (m == n)
        ALL from[l] = 0.0;
    else
        ALL {
            if (l < m)
                from[l] = 0.0;
            else
                to[l] = 0.0;
        }
}

TG_INLINE int are_zero(const double *x, const uint32_t n)
{
    uint64_t any = 0;
    ALL any |= tg_bits(x[l]) << 1;
    return !any;
}

/* What WHERE passes on, c having been xc. */
static inline void choose(const tg_job *j, const tg_group *s, uint32_t at, uint32_t m, const double *xc,
                          const double *g, double *adj)
{
    const tg_wide *w = j->program->wide;
    for (uint32_t l = m; l-- > 0;) {
        const uint32_t a = tg_slot(w, &s->operand[1][TG_LIVE], at + l), b = tg_slot(w, &s->operand[2][TG_LIVE], at + l);
        if (a >= j->program->n_const)
            adj[a] += xc[l] != 0.0 ? g[l] : 0.0;
        if (b >= j->program->n_const)
            adj[b] += xc[l] != 0.0 ? 0.0 : g[l];
    }
}

/* m instructions before k, of n. */
TG_INLINE void reverse(tg_job *j, const tg_group *s, uint32_t k, uint32_t m, const uint32_t n, tg_narrow_replay *narrow,
                       block *rooms)
{
    const tg_wide *w = j->program->wide;
    const uint32_t at = k - m - s->first;
    const double *v = j->primal;
    const tg_slots results = {TG_SIDE_BY_SIDE, s->y[TG_KEPT]};
    double *adj = j->adj, g[LANES], ga[LANES], gb[LANES];
    if (!s->terms && m < TG_FEW_CALLS) {
        tg_one_by_one_back(j, k - m, k, narrow);
        return;
    }
    take(adj + s->y[TG_LIVE] + at, m, n, g);
    if (are_zero(g, n))
        return;
    if (s->op == TG_WHERE)
        choose(j, s, at, m, read(w, &s->operand[0][TG_KEPT], v, at, m, n, rooms), g, adj);
    else if (s->terms && tg_has_few(s) && s->apart && m == n)
        few_reverse(j, s, at, n, rooms, g);
    else if (s->terms)
        sums_reverse(j, s, at, m, g);
    else {
        READ_NAMED
        (n == FEW ? few_long_partials : group_long_partials)((int)(s->op & ~TG_QUIET), ga, gb, g, xa, xb, xy);
        add_both(w, s, adj, at, m, ga, gb);
    }
}

TG_CLONES void tg_group_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    block rooms[TG_FEW_TERMS];
    empty(rooms);
    if (s->op == TG_GUARD)
        return;
    if (s->chain) {
        tg_chain_reverse(j, s, from - s->first, to - s->first);
        return;
    }
    if (tg_has_own_terms(s)) {
        tg_terms_reverse(j, s, from - s->first, to - s->first);
        return;
    }
    if (tg_is_short(s->op)) {
        tg_eights_reverse(j, s, from - s->first, to - s->first);
        return;
    }
    for (uint32_t k = to, m; k > from; k -= m) {
        m = next(s, k - from);
        if (m > FEW)
            reverse(j, s, k, m, BLOCK, narrow, rooms);
        else
            reverse(j, s, k, m, FEW, narrow, rooms);
    }
}

TG_CLONES void tg_group_reverse_tangents(tg_job *j, const tg_group *s, uint32_t from, uint32_t to,
                                         tg_narrow_replay *narrow)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal, *d = j->tangent;
    const tg_slots results = {TG_SIDE_BY_SIDE, s->y[TG_KEPT]};
    const uint32_t n = BLOCK;
    double *adj = j->adj, *adt = j->adj_tangent, g[LANES], h[LANES];
    double ga[LANES], gb[LANES], ha[LANES], hb[LANES];
    block rooms[TG_FEW_TERMS];
    empty(rooms);
    if (s->op == TG_GUARD)
        return;
    if (s->n_stretches) {
        tg_terms_reverse_tangents(j, s, from - s->first, to - s->first, narrow);
        return;
    }
    if (s->terms || s->chain) {
        tg_one_by_one_back(j, from, to, narrow);
        return;
    }
    for (uint32_t k = to, m, at; k > from; k -= m) {
        m = k - from < BLOCK ? k - from : BLOCK;
        at = k - m - s->first;
        if (m < BLOCK / 2 && !tg_is_short(s->op)) {
            tg_one_by_one_back(j, k - m, k, narrow);
            continue;
        }
        take(adj + s->y[TG_LIVE] + at, m, n, g);
        take(adt + s->y[TG_LIVE] + at, m, n, h);
        if (are_zero(g, n) && are_zero(h, n))
            continue;
        READ_NAMED
        READ_TANGENTS
        switch (s->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                            \
        case TG_##NAME_:                                                                                               \
            if (IS_SHORT(TG_##NAME_))                                                                                  \
                BENDS_OF(NAME_, da, db, daa, dab, dbb)                                                                 \
            else                                                                                                       \
                NAME(long_bends)(TG_##NAME_, ga, gb, ha, hb, g, h, xa, xb, xy, ta, tb);                                \
            break;
#include "ops.def"
        default: continue;
        }
        add_both(w, s, adj, at, m, ga, gb);
        add_both(w, s, adt, at, m, ha, hb);
    }
}
