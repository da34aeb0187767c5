/*  The operations as the compiler sees them: the primal of a row as one inline switch, what is refused, and the
    many-operand rows.  */
#ifndef TG_OPS_H
#define TG_OPS_H

#include <string.h>

#include "scalar.h"
#include "tape.h"

/* The primals and slopes of the many-operand rows: n operand ids, x[k] is data[ids[k]]. */
#define TG_MANY_SWEEP(name)                                                                                            \
    void name(double g, double y, const double *data, const uint32_t *ids, uint32_t n, double *adj, uint8_t *touched)
#define TG_MANY(NAME, method, aliases, symbol, refusal, doc, primal, sweep, da, db)                                    \
    double primal(const double *data, const uint32_t *ids, uint32_t n);                                                \
    TG_MANY_SWEEP(sweep);
#include "ops.def"

/* What a sum of n terms that is not finite is refused for: an infinity and a later one of the other sign, or what was
   added up and the term that made it infinite; nan where it is not. Term k is v[slot[step * k] * width]. */
void tg_refused_terms(const double *v, const uint32_t *slot, size_t step, uint32_t n, size_t width, double *a,
                      double *b);
double tg_many_primal(int op, const double *data, const uint32_t *ids, uint32_t n);     /* 0 for TG_NODE */
/* y, what op gives of n operands as on the tape; nan where that is refused. */
double tg_nan_if_refused(int op, const double *data, const uint32_t *ids, uint32_t n, double y);
void tg_many_sweep(int op, double g, double y, const double *data, const uint32_t *ids, uint32_t n, double *adj,
                   uint8_t *touched);

/* Which primals the partials of a row name, first and second, by what moves, which are those of its operands that are
   no constants: that of a, of b, of the result. known is zero at first and keeps what was read, for reading takes the
   row's text. */
enum { TG_NAMES_A = 1, TG_NAMES_B = 2, TG_NAMES_Y = 4, TG_NAMES_READ = 8, TG_NAMED = 4 * TG_OPS };
int tg_names(int op, int moving, uint8_t *known);

/* Adjoints are added in one place only, so that no write forgets its block's flag. */
static inline void tg_add_adjoint(double *adj, uint8_t *touched, uint32_t id, double g)
{
    adj[id] += g;
    touched[id >> TG_BLOCK] = 1;
}

/* The highest flagged block below end, or TG_NONE. */
static inline uint32_t tg_flagged_below(const uint8_t *touched, uint32_t end)
{
    while (end > 0) {
        uint64_t eight;
        if (end % 8 == 0) {
            memcpy(&eight, touched + end - 8, sizeof eight);
            if (!eight) {
                end -= 8;
                continue;
            }
        }
        if (touched[--end])
            return end;
    }
    return TG_NONE;
}

/* Whether a partial is the table's literal 0.0: then nothing is passed on, not even an infinite adjoint. */
#if defined(__GNUC__)
#define TG_KNOWN(partial) __builtin_constant_p(partial)
#else
#define TG_KNOWN(partial) 0
#endif
#define TG_FLAT(partial) (TG_KNOWN(partial) && (partial) == 0.0)

/* y unless x is 0, by bits, and what an adjoint or a tangent passes on then: where such numbers are summed, compilers
   make branches of choices. */
TG_INLINE double tg_unless_0(double x, double y) { return tg_of_bits(tg_bits(y) & (0 - (uint64_t)(x != 0.0))); }
TG_INLINE double tg_passed_on(double g, double partial) { return tg_unless_0(g, g * partial); }

/* A second partial along a tangent: where one of them is 0, an infinite other one does not count. */
TG_INLINE double tg_bent_along(double partial, double t) { return tg_unless_0(partial, tg_passed_on(t, partial)); }
/* The tangent of a product x w. */
TG_INLINE double tg_product_along(double x, double dx, double w, double dw)
{
    return tg_bent_along(w, dx) + tg_bent_along(x, dw);
}

/* By bits, for vectors. */
TG_INLINE uint64_t tg_is_infinite_or_nan(double y)
{
    return (tg_bits(y) & 0x7ff0000000000000u) == 0x7ff0000000000000u;
}

/* The primal of a row of one or two operands; op is a constant where this is meant to be fast. */
TG_INLINE double tg_primal(int op, double a, double b)
{
    switch (op) {
#define TG_FEW(NAME, method, aliases, symbol, refusal, doc, primal, ...) case TG_##NAME: return primal;
#include "ops.def"
    default: (void)b; return 0.0;
    }
}

enum { TG_REFUSE_NEVER, TG_REFUSE_MATH, TG_REFUSE_POLE, TG_REFUSE_DIVIDE, TG_REFUSE_POWER, TG_REFUSE_PAIR,
       TG_REFUSE_TERMS };

static inline int tg_can_refuse(int op)
{
    switch (op) {
#define TG_FEW(NAME, method, aliases, symbol, refusal, ...)                                                            \
    case TG_##NAME: return TG_REFUSE_##refusal != TG_REFUSE_NEVER;
#define TG_MANY TG_FEW
#include "ops.def"
    default: return 0;
    }
}

/* Whether adjoints go to operand b, too. */
static inline int tg_passes_to_b(int op)
{
    switch (op) {
#define TG_UNARY(...)
#define TG_BINARY(NAME, ...) case TG_##NAME:
#include "ops.def"
        return 1;
    default: return 0;
    }
}

/* The code that y = op(a, b) is refused with, by the rules of ops.def; of TERMS, a being what was added up before b. */
TG_INLINE int tg_refusal(int op, double a, double b, double y)
{
    int how;
    switch (op) {
#define TG_FEW(NAME, method, aliases, symbol, refusal, ...) case TG_##NAME: how = TG_REFUSE_##refusal; break;
#define TG_MANY TG_FEW
#include "ops.def"
    default: how = TG_REFUSE_NEVER;
    }
    if (how == TG_REFUSE_NEVER || isfinite(y))
        return TG_OK;
    if (how == TG_REFUSE_DIVIDE)
        return b == 0.0 ? TG_ZERO_DIVISION : TG_OK;
    if (how == TG_REFUSE_PAIR)
        return tg_refuses_pair(a, b, y) ? TG_DOMAIN : TG_OK;
    if (how == TG_REFUSE_TERMS)
        return isfinite(a) && isfinite(b) ? TG_OVERFLOW : isinf(a) && isinf(b) && a != b ? TG_DOMAIN : TG_OK;
    if (how == TG_REFUSE_POWER)
        return !tg_refuses_power(a, b, y) ? TG_OK : a == 0.0 ? TG_ZERO_DIVISION : isnan(y) ? TG_DOMAIN : TG_OVERFLOW;
    return !tg_refuses_math(a, y) ? TG_OK : isnan(y) || how == TG_REFUSE_POLE ? TG_DOMAIN : TG_OVERFLOW;
}

#endif
