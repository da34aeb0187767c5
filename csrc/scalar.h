/*  The functions that the rows of ops.def name: pure functions of doubles.

    Elementary functions are in elementary.h; those of no tg_ before their name are the C library's. What the C library
    does not have is in special.h, what can be said in terms of rows in formulas.def. Compiled programs carry a copy of
    these texts.  */
#ifndef TG_SCALAR_H
#define TG_SCALAR_H

#include <math.h>

#include "elementary.h"

#define TG_1_LN10 0.4342944819032518
#define TG_2_SQRTPI 1.1283791670955126

static inline double tg_relu(double a) { return a < 0.0 ? 0.0 : a; }
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
