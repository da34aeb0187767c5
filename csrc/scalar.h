/*  The functions that the rows of ops.def name: pure functions of doubles, in terms of the C library alone.

    Values are what the C library gives for the same name, except tanh. What the C library does not have is in
    special.h, what can be said in terms of rows in formulas.def. Compiled programs carry a copy of the three texts.  */
#ifndef TG_SCALAR_H
#define TG_SCALAR_H

#include <math.h>

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

static inline double tg_sigmoid(double a)
{
    double e = exp(-fabs(a));
    return a < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}

static inline double tg_softplus(double a) { return (a > 0.0 ? a : a == a ? 0.0 : a) + log1p(exp(-fabs(a))); }
static inline double tg_weigh(double a, double b) { return a == 0.0 ? 0.0 : a * b; }
static inline double tg_max(double a, double b) { return a > b || a != a ? a : b; }
static inline double tg_min(double a, double b) { return a < b || a != a ? a : b; }

/* Whether y = op(a, b) is refused: for the words MATH and POLE, and for POWER, of ops.def. */
static inline int tg_refuses_math(double a, double y) { return !isfinite(y) && !isnan(a) && !(isinf(a) && isinf(y)); }
static inline int tg_refuses_pair(double a, double b, double y)
{
    return !isfinite(y) && !isnan(a) && !isnan(b) && !(isinf(y) && (isinf(a) || isinf(b)));
}
static inline int tg_refuses_power(double a, double b, double y)
{
    return !isfinite(y) && isfinite(a) && isfinite(b);
}

/* Second partials of a ** b. As with the first, the power alone decides at a = 0. */
static inline double tg_pow_daa(double a, double b)
{
    return b == 0.0 || b == 1.0 ? 0.0 : b == 2.0 ? 2.0 : b * (b - 1.0) * pow(a, b - 2.0);
}
static inline double tg_pow_dab(double a, double b)
{
    return a == 0.0 && b > 1.0 ? 0.0 : pow(a, b - 1.0) * (1.0 + b * log(a));
}
static inline double tg_pow_dbb(double a, double b, double y)
{
    return a == 0.0 && b >= 0.0 ? 0.0 : y * log(a) * log(a);
}

/* Of atan2(a, b): d2y/da2 = -d2y/db2, and d2y/(da db). Of hypot: p q / y^3. Of asin: a / (1 - a^2)^(3/2). */
static inline double tg_spin(double a, double b) { return -2.0 * a * b / ((a * a + b * b) * (a * a + b * b)); }
static inline double tg_turn(double a, double b) { return (a * a - b * b) / ((a * a + b * b) * (a * a + b * b)); }
static inline double tg_bend(double p, double q, double y) { return y == 0.0 ? 0.0 : p / y * (q / y) / y; }
static inline double tg_arc(double a) { return a / ((1.0 - a) * (1.0 + a) * sqrt((1.0 - a) * (1.0 + a))); }

static inline double tg_sign(double a) { return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a == 0.0 ? 0.0 : a; }

/* A sum s + c + d in threefold precision takes one more: Ogita, Rump, Oishi, "Accurate sum and dot product", SIAM J.
   Sci. Comput. 26 (2005). Once s is not finite the rest is nothing. */
static inline void tg_fsum_add(double *s, double *c, double *d, double x)
{
    double t = *s + x, z = t - *s, e = (*s - (t - z)) + (x - z), u = *c + e;
    z = u - *c;
    *d += (*c - (u - z)) + (e - z);
    *s = t;
    *c = u;
}
static inline double tg_fsum_total(double s, double c, double d)
{
    double t = s + c, z = t - s;
    return s - s == 0.0 ? t + (((s - (t - z)) + (c - z)) + d) : s;
}

#include "special.h"
#include "formulas.def"

#endif
