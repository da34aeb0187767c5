/*  Groups of the rows that take an instruction or two, EIGHT of their instructions at a time: from where operands lie
    to where results do. Memory is what such rows cost, so nothing is copied that need not be: of eight operands that
    are not side by side the numbers are gathered first, and so are what is left of less than eight.

    The order in which adjoints are added is that of groups.c, within eight instructions as within a block.  */
#include "wide/wide.h"
#include "compiled.h"
#include "failing.h"
#include "ops.h"

#include <math.h>
#include <string.h>

#define LANES 8
#define NAME(x) eights_##x
#define EACH for (int l = 0; l < LANES; l++)
#define SHORT_ROWS_ALONE
#include "each_lane.h"

enum { EIGHT = 8, BLOCK = 64 };

int tg_is_short(uint32_t op)
{
    const int row = (int)(op & ~TG_QUIET);
    return IS_SHORT(row);
}

/* Where the operands of each eight of a block are. */
typedef struct {
    const double *at[BLOCK / EIGHT];
    double room[BLOCK];
} places;

static const double nothing[EIGHT];

/* Elements at .. at + m - 1 of an operand, m up to BLOCK; of what is behind them numbers that are there. */
TG_INLINE void look(const tg_wide *w, const tg_slots *s, const double *v, uint32_t at, uint32_t m, places *p)
{
    const uint32_t whole = m / EIGHT, rest = m % EIGHT;
    if (s->how == TG_SAME) {
        const double x = v[s->at];
        EACH p->room[l] = x;
        for (uint32_t q = 0; q < BLOCK / EIGHT; q++)
            p->at[q] = p->room;
        return;
    }
    if (s->how == TG_SIDE_BY_SIDE)
        for (uint32_t q = 0; q < whole; q++)
            p->at[q] = v + s->at + at + EIGHT * q;
    else
        for (uint32_t q = 0; q < whole; q++) {
            const uint32_t *list = w->list + s->at + at + EIGHT * q;
            double *room = p->room + EIGHT * q;
            p->at[q] = *list & TG_RUNS ? v + (*list & ~TG_RUNS) : room;
            if (!(*list & TG_RUNS))
                EACH room[l] = v[list[l] & ~TG_RUNS];
        }
    if (rest) {
        double *room = p->room + EIGHT * whole;
        p->at[whole] = room;
        EACH room[l] = v[tg_slot(w, s, at + EIGHT * whole + ((uint32_t)l < rest ? (uint32_t)l : 0))];
    }
}

/* Results that are refused: they are out, or become nan. */
static void check(tg_job *j, const tg_group *g, uint32_t at, uint32_t m, const places *a, const places *b, double *y)
{
    uint64_t odd = 0, each[EIGHT] = {0};
    const double *z = y;
    uint32_t left = m;
    for (; left >= EIGHT; left -= EIGHT, z += EIGHT)
        EACH each[l] |= tg_is_infinite_or_nan(z[l]);
    while (left)
        odd |= tg_is_infinite_or_nan(z[--left]);
    EACH odd |= each[l];
    for (uint32_t l = 0; odd && !(g->op & TG_QUIET) && l < m; l++) {
        const double xa = a->at[l / EIGHT][l % EIGHT], xb = b->at[l / EIGHT][l % EIGHT];
        if (isfinite(y[l]) || !tg_refusal((int)g->op, xa, xb, y[l]))
            continue;
        if (j->nan_errors)
            y[l] = NAN;
        else
            tg_note_failure(j, 0, g->first + at + l, xa, xb, y[l]);
    }
}

TG_CLONES void tg_eights_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering)
{
    const tg_wide *w = j->program->wide;
    double *v = j->primal, tail[EIGHT];
    const tg_slots *sa = &g->operand[0][numbering], *sb = &g->operand[1][numbering];
    places a, own;
    const places *b = tg_is_same(sa, sb) ? &a : &own;
    for (uint32_t at = from, m; at < to; at += m) {
        double *y = v + g->y[numbering] + at;
        m = to - at < BLOCK ? to - at : BLOCK;
        look(w, sa, v, at, m, &a);
        if (b == &own)
            look(w, sb, v, at, m, &own);
        switch (g->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, ...)                                              \
        case TG_##NAME_:                                                                                               \
            for (uint32_t q = 0; q * EIGHT < m && IS_SHORT(TG_##NAME_); q++) {                                         \
                const double *xa = a.at[q], *xb = b->at[q];                                                            \
                double t[EIGHT], *to = (q + 1) * EIGHT <= m ? y + q * EIGHT : tail;                                    \
                PRIMALS_OF(NAME_, primal)                                                                              \
                EACH to[l] = t[l];                                                                                     \
            }                                                                                                          \
            break;
#include "ops.def"
        default: break;
        }
        for (uint32_t l = m / EIGHT * EIGHT; l < m; l++)
            y[l] = tail[l % EIGHT];
        if (tg_can_refuse((int)(g->op & ~TG_QUIET)))
            check(j, g, at, m, &a, b, y);
    }
}

/* Add n adjoints, EIGHT or what is left of less, from the last to the first. */
TG_INLINE void add(const tg_wide *w, const tg_slots *s, double *adj, uint32_t at, uint32_t n, const double *x)
{
    if (s->how == TG_SAME) {
        double sum = adj[s->at];
        if (n == EIGHT)
            for (uint32_t l = EIGHT; l-- > 0;)
                sum += x[l];
        else
            for (uint32_t l = n; l-- > 0;)
                sum += x[l];
        adj[s->at] = sum;
    } else if (n == EIGHT && (s->how == TG_SIDE_BY_SIDE || w->list[s->at + at] & TG_RUNS)) {
        double *to = adj + tg_slot(w, s, at);
        EACH to[l] += x[l];
    } else
        for (uint32_t l = n; l-- > 0;)
            adj[tg_slot(w, s, at + l)] += x[l];
}

/* Whether all of m adjoints are 0; those that are 0 are so without a sign afterwards. */
TG_INLINE int are_zero(double *x, uint32_t m)
{
    uint64_t any = 0, each[EIGHT] = {0};
    const double *z = x;
    uint32_t left = m;
    for (; left >= EIGHT; left -= EIGHT, z += EIGHT)
        EACH each[l] |= tg_bits(z[l]) << 1;
    while (left)
        any |= tg_bits(z[--left]) << 1;
    EACH any |= each[l];
    if (!any)
        memset(x, 0, m * sizeof *x);
    return !any;
}

/* Read and clear n adjoints, and zeros up to EIGHT. */
TG_INLINE void take(double *from, uint32_t n, double *to)
{
    if (n == EIGHT) {
        EACH to[l] = from[l];
        EACH from[l] = 0.0;
    } else
        for (uint32_t l = 0; l < EIGHT; l++) {
            to[l] = l < n ? from[l] : 0.0;
            if (l < n)
                from[l] = 0.0;
        }
}

TG_CLONES void tg_eights_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal;
    const tg_slots results = {TG_SIDE_BY_SIDE, s->y[TG_KEPT]};
    const tg_slots *sa = &s->operand[0][TG_LIVE], *sb = &s->operand[1][TG_LIVE];
    /* What of one instruction goes to a comes first, then to b, then what is of the one before. Where one operand may
       have all of a block before the other has, it does: an adjoint that both add to is not waited for. */
    const int sides = sa->how == TG_SIDE_BY_SIDE && sb->how == TG_SIDE_BY_SIDE;
    const int both = s->moves == 3, in_turn = both && !s->apart && !sides;
    const tg_slots *first = s->moves & 1 && (!both || s->apart) ? sa : sb, *second = first == sa ? sb : sa;
    double *adj = j->adj, g[EIGHT], to_a[BLOCK], to_b[BLOCK];
    places a, b, y;
    for (uint32_t k = 0; k < BLOCK / EIGHT; k++)
        a.at[k] = b.at[k] = y.at[k] = nothing;
    for (uint32_t at, m; to > from; to = at) {
        double *G;
        m = to - from < BLOCK ? to - from : BLOCK;
        at = to - m;
        G = adj + s->y[TG_LIVE] + at;
        if (are_zero(G, m))
            continue;
        if (!s->moves) {
            memset(G, 0, m * sizeof *G);
            continue;
        }
        if (s->names & TG_NAMES_A)
            look(w, &s->operand[0][TG_KEPT], v, at, m, &a);
        if (s->names & TG_NAMES_B)
            look(w, &s->operand[1][TG_KEPT], v, at, m, &b);
        if (s->names & TG_NAMES_Y)
            look(w, &results, v, at, m, &y);
        for (uint32_t q = (m + EIGHT - 1) / EIGHT; q-- > 0;) {
            const double *xa = a.at[q], *xb = b.at[q], *xy = y.at[q];
            const uint32_t n = m - q * EIGHT < EIGHT ? m - q * EIGHT : EIGHT;
            double *ga = to_a + q * EIGHT, *gb = to_b + q * EIGHT;
            take(G + q * EIGHT, n, g);
            switch (s->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
            case TG_##NAME_:                                                                                           \
                if (IS_SHORT(TG_##NAME_))                                                                              \
                    PARTIALS_OF(NAME_, da, db)                                                                         \
                break;
#include "ops.def"
            default: break;
            }
            if (!in_turn)
                add(w, first, adj, at + q * EIGHT, n, first == sa ? ga : gb);
            else
                for (uint32_t l = n; l-- > 0;) {
                    adj[tg_slot(w, sa, at + q * EIGHT + l)] += ga[l];
                    adj[tg_slot(w, sb, at + q * EIGHT + l)] += gb[l];
                }
        }
        for (uint32_t q = both && !in_turn ? (m + EIGHT - 1) / EIGHT : 0; q-- > 0;)
            add(w, second, adj, at + q * EIGHT, m - q * EIGHT < EIGHT ? m - q * EIGHT : EIGHT,
                (second == sa ? to_a : to_b) + q * EIGHT);
    }
}

/* ---- chains ---- */

void tg_chain_forward(tg_job *j, const tg_group *s, uint32_t from, uint32_t to, int numbering)
{
    const tg_wide *w = j->program->wide;
    const tg_slots *results = &s->operand[2][numbering];
    double *v = j->primal, sum = v[from ? tg_slot(w, results, from - 1) : s->operand[0][numbering].at];
    for (uint32_t k = from; k < to; k++) {
        sum += v[tg_slot(w, &s->operand[1][numbering], k)];
        v[tg_slot(w, results, k)] = sum;
    }
}

void tg_chain_reverse(tg_job *j, const tg_group *s, uint32_t from, uint32_t to)
{
    const tg_wide *w = j->program->wide;
    const tg_slots *results = &s->operand[2][TG_LIVE];
    double *adj = j->adj, g = adj[tg_slot(w, results, to - 1)];
    for (uint32_t k = to; k-- > from;) {
        const uint32_t below = k ? tg_slot(w, results, k - 1) : s->operand[0][TG_LIVE].at;
        const double passed = g;
        adj[tg_slot(w, results, k)] = 0.0;
        g = adj[below] + passed;
        adj[tg_slot(w, &s->operand[1][TG_LIVE], k)] += passed;
        if (k == from)
            adj[below] = g;
    }
}
