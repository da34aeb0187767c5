/*  The loops of a row of one or two operands over its lanes: primals, tangents, what is passed on in the sweep, and the
    tangents of that. Included by lanes.h, once for each width, by wide/groups.c and by wide/eights.c.

    Rows that take an instruction or two have their loops where they are met; those of the others are in functions
    apart, where their constants do not take the registers of all; who has SHORT_ROWS_ALONE has none of those.  */

#define WEIGHED(g, partial) ((g) == 0.0 || TG_FLAT(partial) ? 0.0 : (g) * (partial))

/* The same of a row, in lanes by bits: of two choices by one number compilers make a branch, and no vectors. Where the
   partial is a number, or a choice itself, they make them, but not of two such choices that are added. */
#define IS_CHOICE(row) ((row) == TG_MAX || (row) == TG_MIN)
#define PASSED(row, g, partial)                                                                                        \
    (LANES > 1 && !TG_KNOWN(partial) && !IS_CHOICE(row) ? tg_passed_on(g, partial) : WEIGHED(g, partial))

/* Forward a partial of 0 passes nothing on either: its adjoint would be 0. */
#define SLOPE(t, partial) ((partial) == 0.0 ? 0.0 : WEIGHED(t, partial))

/* A loop that is told what the texts may take for granted: see tg_near_only, and squares are common enough among powers
   to be worth a loop of their own. */
#define IS_CIRCULAR(row) ((row) == TG_SIN || (row) == TG_COS)
#define IS_POWER(row) ((row) == TG_POW || (row) == TG_POWK)
#define LANE_B (all_squares ? 2.0 : xb[l])
#define EACH_OF(row, ...) {                                                                                            \
        enum { all_squares = 0 };                                                                                      \
        if (IS_POWER(row) && NAME(squares)(xb))                                                                        \
            EACH {                                                                                                     \
                enum { all_squares = 1 };                                                                              \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
        else                                                                                                           \
            EACH {                                                                                                     \
                enum { tg_near_only = LANES > 1 };                                                                     \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
        if (LANES > 1 && IS_CIRCULAR(row))                                                                             \
            EACH if (tg_is_far(xa[l])) { __VA_ARGS__ }                                                                 \
    }

static inline int NAME(squares)(const double *b)
{
    int others = 0;
    EACH others += b[l] != 2.0;
    return !others;
}

#define IS_SHORT(row)                                                                                                  \
    ((row) == TG_ADD || (row) == TG_SUB || (row) == TG_MUL || (row) == TG_DIV || (row) == TG_NEG ||                    \
     (row) == TG_COPY || (row) == TG_MAX || (row) == TG_MIN || (row) == TG_ABS || (row) == TG_RELU ||                  \
     (row) == TG_SQRT || (row) == TG_WEIGH || (row) == TG_LESS || (row) == TG_LESS_EQUAL ||                            \
     (row) == TG_GREATER || (row) == TG_GREATER_EQUAL || (row) == TG_EQUAL || (row) == TG_NOT_EQUAL ||                 \
     (row) == TG_SIGN)
#define PRIMALS_OF(NAME_, primal)                                                                                      \
    EACH_OF(TG_##NAME_,                                                                                                \
        double a = xa[l], b = LANE_B;                                                                                  \
        (void)b;                                                                                                       \
        t[l] = (primal);)
#define PARTIALS(of) { const double a = xa[l], b = xb[l], y = xy[l]; (void)a, (void)b, (void)y; partial[l] = (of); }
#define TANGENTS_OF(NAME_, da, db) {                                                                                   \
        if (LANES > 1 && IS_CHOICE(TG_##NAME_)) {                                                                      \
            double partial[LANES];                                                                                     \
            EACH PARTIALS(da)                                                                                          \
            EACH t[l] = tg_unless_0(partial[l], tg_passed_on(ta[l], partial[l]));                                      \
            EACH PARTIALS(db)                                                                                          \
            EACH t[l] += tg_unless_0(partial[l], tg_passed_on(tb[l], partial[l]));                                     \
        } else                                                                                                         \
            EACH_OF(TG_##NAME_,                                                                                        \
                double a = xa[l], b = LANE_B, y = xy[l];                                                               \
                (void)a, (void)b, (void)y, (void)tb;                                                                   \
                t[l] = SLOPE(ta[l], da) + SLOPE(tb[l], db);)                                                           \
    }
#define PARTIALS_OF(NAME_, da, db)                                                                                     \
    EACH_OF(TG_##NAME_,                                                                                                \
        double a = xa[l], b = LANE_B, y = xy[l];                                                                       \
        (void)a, (void)b, (void)y;                                                                                     \
        ga[l] = PASSED(TG_##NAME_, g[l], da);                                                                          \
        gb[l] = PASSED(TG_##NAME_, g[l], db);)

/* Primals of a short row to where they belong, and what it passes on to where that is added. Neither comes to memory on
   its way: who reads it next would wait twice. */
#define PUT_OF(NAME_, primal)                                                                                          \
    TG_TURNS_APART EACH {                                                                                              \
        double a = xa[l], b = xb[l];                                                                                   \
        (void)b;                                                                                                       \
        Y[l] = (primal);                                                                                               \
    }
#define ADDED_OF(NAME_, partial)                                                                                       \
    TG_TURNS_APART EACH {                                                                                              \
        double a = xa[l], b = xb[l], y = xy[l];                                                                        \
        (void)a, (void)b, (void)y;                                                                                     \
        to[l] += PASSED(TG_##NAME_, g[l], partial);                                                                    \
    }

#define BENT(partial, t) (TG_FLAT(partial) ? 0.0 : tg_bent_along(partial, t))
#define BENDS_OF(NAME_, da, db, daa, dab, dbb)                                                                         \
    EACH_OF(TG_##NAME_,                                                                                                \
        double a = xa[l], b = LANE_B, y = xy[l];                                                                       \
        (void)a, (void)b, (void)y, (void)ta, (void)tb;                                                                 \
        ga[l] = PASSED(TG_##NAME_, g[l], da);                                                                          \
        gb[l] = PASSED(TG_##NAME_, g[l], db);                                                                          \
        ha[l] = PASSED(TG_##NAME_, h[l], da) +                                                                         \
                PASSED(TG_##NAME_, g[l], BENT(daa, ta[l]) + BENT(dab, tb[l]));                                         \
        hb[l] = PASSED(TG_##NAME_, h[l], db) +                                                                         \
                PASSED(TG_##NAME_, g[l], BENT(dab, ta[l]) + BENT(dbb, tb[l]));)

#ifndef SHORT_ROWS_ALONE
#define LONG(NAME_, ...)                                                                                               \
    case TG_##NAME_:                                                                                                   \
        if (!IS_SHORT(TG_##NAME_))                                                                                     \
            __VA_ARGS__                                                                                                \
        break;
TG_CLONES TG_OUTSIDE void NAME(long_primals)(int row, double *restrict t, const double *xa, const double *xb)
{
    switch (row) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, ...) LONG(NAME_, PRIMALS_OF(NAME_, primal))
#include "ops.def"
    default: break;
    }
}

TG_CLONES TG_OUTSIDE void NAME(long_tangents)(int row, double *restrict t, const double *xa, const double *xb,
                                              const double *xy, const double *ta, const double *tb)
{
    switch (row) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
    LONG(NAME_, TANGENTS_OF(NAME_, da, db))
#include "ops.def"
    default: break;
    }
}

TG_CLONES TG_OUTSIDE void NAME(long_partials)(int row, double *restrict ga, double *restrict gb,
                                              const double *g, const double *xa, const double *xb,
                                              const double *xy)
{
    switch (row) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                      \
    LONG(NAME_, PARTIALS_OF(NAME_, da, db))
#include "ops.def"
    default: break;
    }
}

TG_CLONES TG_OUTSIDE void NAME(long_bends)(int row, double *restrict ga, double *restrict gb,
                                           double *restrict ha, double *restrict hb, const double *g,
                                           const double *h, const double *xa, const double *xb, const double *xy,
                                           const double *ta, const double *tb)
{
    switch (row) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                            \
    LONG(NAME_, BENDS_OF(NAME_, da, db, daa, dab, dbb))
#include "ops.def"
    default: break;
    }
}
#undef LONG
#endif
