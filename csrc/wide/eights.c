/*  Groups of the rows that take an instruction or two, EIGHT of their instructions at a time: from where operands lie
    to where results do. Memory is what such rows cost, so nothing is copied that need not be: of eight operands that
    are not side by side the numbers are gathered first. Less than eight that are left go with some of those before,
    which are done again; where adjoints are added, which may not be done twice, they go by themselves.

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
                TG_TURNS_APART EACH room[l] = v[list[l] & ~TG_RUNS];
        }
    if (rest) {
        double *room = p->room + EIGHT * whole;
        p->at[whole] = room;
        EACH room[l] = v[tg_slot(w, s, at + EIGHT * whole + ((uint32_t)l < rest ? (uint32_t)l : 0))];
    }
}

/* The operands of a group: EIGHT of them from element k on are at x + k, at x for all k, or in a list. */
typedef struct {
    const double *x;
    const uint32_t *list;       /* NULL: none */
    uint32_t mask;              /* of k */
    double room[EIGHT];
} operands;

TG_INLINE void find(const tg_wide *w, const tg_slots *s, const double *v, uint32_t from, uint32_t n, operands *o)
{
    o->list = s->how == TG_LISTED && n >= EIGHT ? w->list + s->at + from : NULL;
    o->mask = s->how == TG_SIDE_BY_SIDE && n >= EIGHT ? ~0u : 0;
    o->x = o->mask ? v + s->at + from : o->room;
    if (s->how == TG_SAME) {
        const double x = v[s->at];
        EACH o->room[l] = x;
    } else if (n < EIGHT)
        EACH o->room[l] = v[tg_slot(w, s, from + ((uint32_t)l < n ? (uint32_t)l : 0))];
}

/* Not in line, as there are so many places. */
TG_CLONES TG_OUTSIDE const double *gathered(const double *v, const uint32_t *list, double *room)
{
    TG_TURNS_APART EACH room[l] = v[list[l] & ~TG_RUNS];
    return room;
}

TG_INLINE const double *eight_of(operands *o, const double *v, uint32_t k)
{
    if (!o->list)
        return o->x + (k & o->mask);
    return o->list[k] & TG_RUNS ? v + (o->list[k] & ~TG_RUNS) : gathered(v, o->list + k, o->room);
}

/* Results of elements from .. to - 1 that are refused: they are out, or become nan. */
static void check(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering)
{
    const tg_wide *w = j->program->wide;
    const double *v = j->primal;
    double *y = j->primal + g->y[numbering];
    uint64_t odd = 0, each[EIGHT] = {0};
    uint32_t k = from;
    for (; to - k >= EIGHT; k += EIGHT)
        EACH each[l] |= tg_is_infinite_or_nan(y[k + (uint32_t)l]);
    for (; k < to; k++)
        odd |= tg_is_infinite_or_nan(y[k]);
    EACH odd |= each[l];
    for (k = from; odd && !(g->op & TG_QUIET) && k < to; k++) {
        const double a = v[tg_slot(w, &g->operand[0][numbering], k)], b = v[tg_slot(w, &g->operand[1][numbering], k)];
        if (isfinite(y[k]) || !tg_refusal((int)g->op, a, b, y[k]))
            continue;
        if (j->nan_errors)
            y[k] = NAN;
        else
            tg_note_failure(j, 0, g->first + k, a, b, y[k]);
    }
}

/* The last EIGHT may go back over some of those before: operands are still there. */
TG_CLONES void tg_eights_forward(tg_job *j, const tg_group *g, uint32_t from, uint32_t to, int numbering)
{
    const tg_slots *sa = &g->operand[0][numbering], *sb = &g->operand[1][numbering];
    const uint32_t n = to - from, last = n < EIGHT ? 0 : n - EIGHT;
    const double *v = j->primal;
    double *y = j->primal + g->y[numbering] + from, few[EIGHT], *to_y = n < EIGHT ? few : y;
    operands a, b;
    const int once = tg_is_same(sa, sb);
    find(j->program->wide, sa, v, from, n, &a);
    find(j->program->wide, sb, v, from, n, &b);
#define ALL_EIGHTS(NAME_, primal, ...)                                                                                 \
    for (uint32_t k = 0;; k = k + EIGHT < last ? k + EIGHT : last) {                                                   \
        double *Y = to_y + k;                                                                                          \
        const double *xa, *xb;                                                                                         \
        __VA_ARGS__                                                                                                    \
        PUT_OF(NAME_, primal)                                                                                          \
        if (k == last)                                                                                                 \
            break;                                                                                                     \
    }
    switch (g->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, ...)                                              \
    case TG_##NAME_:                                                                                                   \
        if (IS_SHORT(TG_##NAME_) && !a.list && !b.list)                                                                \
            ALL_EIGHTS(NAME_, primal, xa = a.x + (k & a.mask); xb = b.x + (k & b.mask);)                               \
        else if (IS_SHORT(TG_##NAME_))                                                                                 \
            ALL_EIGHTS(NAME_, primal, xa = eight_of(&a, v, k); xb = once ? xa : eight_of(&b, v, k);)                   \
        break;
#include "ops.def"
    default: break;
    }
#undef ALL_EIGHTS
    for (uint32_t l = 0; n < EIGHT && l < n; l++)
        y[l] = few[l];
    if (tg_can_refuse((int)(g->op & ~TG_QUIET)))
        check(j, g, from, to, numbering);
}

/* Where EIGHT adjoints of an operand from element at on are side by side, or NULL. */
TG_INLINE double *beside(const tg_wide *w, const tg_slots *s, double *adj, uint32_t at, uint32_t n)
{
    if (n < EIGHT || s->how == TG_SAME || (s->how == TG_LISTED && !(w->list[s->at + at] & TG_RUNS)))
        return NULL;
    return adj + tg_slot(w, s, at);
}

/* Add n adjoints, EIGHT or what is left of less, that are not side by side, from the last to the first. */
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
    } else
        for (uint32_t l = n; l-- > 0;)
            adj[tg_slot(w, s, at + l)] += x[l];
}

/* Read and clear m adjoints, BLOCK at most, and zeros up to a whole number of EIGHT; whether any is not 0. */
TG_INLINE int take(double *restrict from, uint32_t m, double *restrict to)
{
    uint64_t any = 0;
    if (m == BLOCK)
        for (uint32_t l = 0; l < BLOCK; l++) {
            any |= tg_bits(from[l]) << 1;
            to[l] = from[l];
            from[l] = 0.0;
        }
    else {
        for (uint32_t l = 0; l < m; l++) {
            any |= tg_bits(from[l]) << 1;
            to[l] = from[l];
            from[l] = 0.0;
        }
        for (uint32_t l = m; l % EIGHT; l++)
            to[l] = 0.0;
    }
    return any != 0;
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
    const int in_turn = s->moves == 3 && !s->apart && !sides, b_first = s->moves == 3 && !s->apart;
    double *adj = j->adj, own[BLOCK];
    places a, b, y;
    for (uint32_t k = 0; k < BLOCK / EIGHT; k++)
        a.at[k] = b.at[k] = y.at[k] = nothing;
    for (uint32_t at, m; to > from; to = at) {
        m = to - from < BLOCK ? to - from : BLOCK;
        at = to - m;
        if (!take(adj + s->y[TG_LIVE] + at, m, own))
            continue;
        if (s->names & TG_NAMES_A)
            look(w, &s->operand[0][TG_KEPT], v, at, m, &a);
        if (s->names & TG_NAMES_B)
            look(w, &s->operand[1][TG_KEPT], v, at, m, &b);
        if (s->names & TG_NAMES_Y)
            look(w, &results, v, at, m, &y);
#define EIGHTS                                                                                                         \
    for (uint32_t q = (m + EIGHT - 1) / EIGHT; q-- > 0;) {                                                             \
        const double *g = own + q * EIGHT, *xa = a.at[q], *xb = b.at[q], *xy = y.at[q];                                \
        const uint32_t first = at + q * EIGHT, n = m - q * EIGHT < EIGHT ? m - q * EIGHT : EIGHT;
#define PASS_TO(NAME_, slots, partial)                                                                                 \
    EIGHTS                                                                                                             \
        double *to = beside(w, slots, adj, first, n), t[EIGHT];                                                        \
        if (to)                                                                                                        \
            ADDED_OF(NAME_, partial)                                                                                   \
        else {                                                                                                         \
            EACH {                                                                                                     \
                double a = xa[l], b = xb[l], y = xy[l];                                                                \
                (void)a, (void)b, (void)y;                                                                             \
                t[l] = PASSED(TG_##NAME_, g[l], partial);                                                              \
            }                                                                                                          \
            add(w, slots, adj, first, n, t);                                                                           \
        }                                                                                                              \
    }
        switch (s->op & ~TG_QUIET) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
        case TG_##NAME_:                                                                                               \
            if (IS_SHORT(TG_##NAME_) && in_turn)                                                                       \
                EIGHTS                                                                                                 \
                    double ga[EIGHT], gb[EIGHT];                                                                       \
                    PARTIALS_OF(NAME_, da, db)                                                                         \
                    for (uint32_t l = n; l-- > 0;) {                                                                   \
                        adj[tg_slot(w, sa, first + l)] += ga[l];                                                       \
                        adj[tg_slot(w, sb, first + l)] += gb[l];                                                       \
                    }                                                                                                  \
                }                                                                                                      \
            else if (IS_SHORT(TG_##NAME_))                                                                             \
                for (int turn = 0; turn < 2; turn++) {                                                                 \
                    if (turn == b_first && s->moves & 1)                                                               \
                        PASS_TO(NAME_, sa, da)                                                                         \
                    if (turn != b_first && s->moves & 2)                                                               \
                        PASS_TO(NAME_, sb, db)                                                                         \
                }                                                                                                      \
            break;
#include "ops.def"
        default: break;
        }
#undef PASS_TO
#undef EIGHTS
    }
}
