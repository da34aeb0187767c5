/*  The functions that the rows of ops.def name, and the primal of an operation as one inline switch.

    Everything is a pure function of doubles. Values are what the C library gives for the same name, except tanh.  */
#ifndef TG_OPS_H
#define TG_OPS_H

#include <math.h>
#include "tape.h"

#if defined(_MSC_VER)
#define TG_INLINE static __forceinline
#else
#define TG_INLINE static inline __attribute__((always_inline))
#endif

#define TG_1_LN2 1.4426950408889634
#define TG_1_LN10 0.4342944819032518
#define TG_2_SQRTPI 1.1283791670955126

/* Within 2.5 ulp, odd, monotone to exactly +-1. expm1 keeps the digits near 0; from 0.55 on 1 - 2/(e^2x + 1) loses
   none, and is the correctly rounded one at the tutorials' inputs, which glibc's tanh misses by an ulp. */
static inline double tg_tanh(double a)
{
    double s = fabs(a), y;
    if (s >= 22.0)
        y = 1.0;
    else if (s < 0.55) {
        double e = expm1(2.0 * s);
        y = e / (e + 2.0);
    } else
        y = 1.0 - 2.0 / (exp(2.0 * s) + 1.0);
    return copysign(y, a);
}

static inline double tg_relu(double a) { return a < 0.0 ? 0.0 : a; }
static inline double tg_sign(double a) { return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a == 0.0 ? 0.0 : a; }

static inline double tg_sigmoid(double a)
{
    double e = exp(-fabs(a));
    return a < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}

static inline double tg_softplus(double a) { return (a > 0.0 ? a : a == a ? 0.0 : a) + log1p(exp(-fabs(a))); }
static inline double tg_max(double a, double b) { return a > b || a != a ? a : b; }
static inline double tg_min(double a, double b) { return a < b || a != a ? a : b; }
static inline double tg_first(double a, double b) { return a > b ? 1.0 : a == b ? 0.5 : a < b ? 0.0 : a + b; }
static inline double tg_share(double a, double y) { return y == 0.0 ? 0.0 : a / y; }

/* d(a ** b)/da; 0 for b = 0, also at a = 0. */
static inline double tg_pow_da(double a, double b)
{
    return b == 0.0 ? 0.0 : b == 2.0 ? 2.0 * a : b * pow(a, b - 1.0);
}

/* d(a ** b)/db; 0 at a = 0, where a ** b does not move with b >= 0. */
static inline double tg_pow_db(double a, double b, double y) { return a == 0.0 && b >= 0.0 ? 0.0 : y * log(a); }

/* The primals and slopes of the many-operand rows: n operand ids, x[k] is data[ids[k]]. */
#define TG_MANY_SWEEP(name)                                                                                            \
    void name(double g, double y, const double *data, const uint32_t *ids, uint32_t n, double *adj, uint8_t *touched)
#define TG_MANY(NAME, method, aliases, symbol, refusal, primal, sweep, doc)                                            \
    double primal(const double *data, const uint32_t *ids, uint32_t n);                                                \
    TG_MANY_SWEEP(sweep);
#include "ops.def"

double tg_many_primal(int op, const double *data, const uint32_t *ids, uint32_t n);     /* 0 for TG_NODE */

/* Adjoints are added in one place only, so that no write forgets its block's flag. */
static inline void tg_add_adjoint(double *adj, uint8_t *touched, uint32_t id, double g)
{
    adj[id] += g;
    touched[id >> TG_BLOCK] = 1;
}

/* The primal of a row of one or two operands; op is a constant where this is meant to be fast. */
TG_INLINE double tg_primal(int op, double a, double b)
{
    switch (op) {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, primal, ...) case TG_##NAME: return primal;
#define TG_BINARY(NAME, method, aliases, symbol, refusal, primal, ...) case TG_##NAME: return primal;
#define TG_PASSIVE(NAME, method, aliases, symbol, refusal, primal, ...) case TG_##NAME: return primal;
#include "ops.def"
    default: (void)b; return 0.0;
    }
}

enum { TG_REFUSE_NEVER, TG_REFUSE_MATH, TG_REFUSE_POLE, TG_REFUSE_DIVIDE, TG_REFUSE_POWER };

/* The code that y = op(a, b) is refused with, by the rules of ops.def. */
TG_INLINE int tg_refusal(int op, double a, double b, double y)
{
    int rule;
    switch (op) {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, ...) case TG_##NAME: rule = TG_REFUSE_##refusal; break;
#define TG_BINARY(NAME, method, aliases, symbol, refusal, ...) case TG_##NAME: rule = TG_REFUSE_##refusal; break;
#define TG_PASSIVE(NAME, method, aliases, symbol, refusal, ...) case TG_##NAME: rule = TG_REFUSE_##refusal; break;
#include "ops.def"
    default: rule = TG_REFUSE_NEVER;
    }
    if (rule == TG_REFUSE_NEVER || isfinite(y))
        return TG_OK;
    if (rule == TG_REFUSE_DIVIDE)
        return b == 0.0 ? TG_ZERO_DIVISION : TG_OK;
    if (rule == TG_REFUSE_POWER) {
        if (!isfinite(a) || !isfinite(b))
            return TG_OK;
        return a == 0.0 ? TG_ZERO_DIVISION : isnan(y) ? TG_DOMAIN : TG_OVERFLOW;
    }
    if (isnan(a) || (isinf(a) && isinf(y)))
        return TG_OK;
    return isnan(y) || rule == TG_REFUSE_POLE ? TG_DOMAIN : TG_OVERFLOW;
}

#endif
