/*  Functions of doubles that the C library does not have, and those of Python that differ from its own: what rows of
    ops.def name, in terms of elementary.h and the C library. Included by scalar.h.

    Written from the formulas: Abramowitz and Stegun (A&S), Handbook of Mathematical Functions, by number; Wichura,
    "Algorithm AS 241", Applied Statistics 37 (1988). Outside its domain a function is nan.  */
#ifndef TG_SPECIAL_H
#define TG_SPECIAL_H

#include <string.h>

#define TG_1_SQRT2PI 0.3989422804014327
#define TG_SQRT_2_PI 0.7978845608028654
#define TG_SQRTPI 1.772453850905516
#define TG_1_SQRT2 0.7071067811865476
#define TG_PI 3.141592653589793

/* ---- remainders and rounding, as Python has them ---- */

/* a % b has the sign of b; a // b is the quotient that goes with it. */
static inline double tg_mod(double a, double b)
{
    double m = fmod(a, b);
    return m == 0.0 ? copysign(0.0, b) : (b < 0.0) != (m < 0.0) ? m + b : m;
}
static inline double tg_floordiv(double a, double b)
{
    double m = fmod(a, b), q = (a - m) / b, whole;
    if (m != 0.0 && (b < 0.0) != (m < 0.0))
        q -= 1.0;
    if (q == 0.0)
        return copysign(0.0, a / b);
    whole = floor(q);
    return q - whole > 0.5 ? whole + 1.0 : whole;
}

/* round(a, digits), |digits| <= 22: powers of ten that are exact, and what rounding loses decides ties. */
static inline double tg_round(double a, double digits)
{
    double p = 1.0, q, lost, r;
    if (!(fabs(digits) <= 22.0) || digits != floor(digits))
        return NAN;
    for (int k = (int)fabs(digits); k > 0; k--)
        p *= 10.0;
    q = digits < 0.0 ? a / p : a * p;
    if (!(fabs(q) < 9007199254740992.0))            /* no digits there to lose */
        return a;
    lost = digits < 0.0 ? fma(-q, p, a) : fma(a, p, -q);
    r = rint(q);
    if (q - r == 0.5 && lost > 0.0)
        r += 1.0;
    if (q - r == -0.5 && lost < 0.0)
        r -= 1.0;
    return copysign(digits < 0.0 ? r * p : r / p, a);
}

/* ---- the normal distribution ---- */

/* exp(c a^2), c = 1 or -1/2, without what rounding a^2 costs: a = high + low, and high^2 is exact. */
static inline double tg_exp_square(double c, double a)
{
    double high = rint(a * 16.0) / 16.0;
    return tg_exp(c * high * high) * tg_exp(c * (a - high) * (a + high));
}

/* exp(a^2) erfc(a) for a >= 0: from 10 on A&S 7.1.23. */
static inline double tg_erfcx(double a)
{
    double sum = 1.0, term = 1.0;
    if (a < 10.0)
        return tg_exp_square(1.0, a) * erfc(a);
    for (int k = 1; k < 16; k++) {
        term *= -(2.0 * k - 1.0) / (2.0 * a) / a;
        sum += term;
    }
    return sum / a / TG_SQRTPI;
}

static inline double tg_ndtr(double a)
{
    if (a >= -1.0)
        return 0.5 * erfc(-a * TG_1_SQRT2);
    return a < -39.0 ? 0.0 : 0.5 * tg_exp_square(-0.5, a) * tg_erfcx(-a * TG_1_SQRT2);
}

static inline double tg_log_ndtr(double a)
{
    if (a > 0.0)
        return tg_log1p(-tg_ndtr(-a));
    return a >= -1.0 ? tg_log(tg_ndtr(a)) : -0.5 * a * a + tg_log(0.5 * tg_erfcx(-a * TG_1_SQRT2));
}

/* The normal density over the distribution: the slope of log_ndtr. */
static inline double tg_mills(double a)
{
    if (a > 0.0)
        return TG_1_SQRT2PI * tg_exp_square(-0.5, a < 40.0 ? a : 40.0) / tg_ndtr(a);
    return a == -INFINITY ? INFINITY : TG_SQRT_2_PI / tg_erfcx(-a * TG_1_SQRT2);
}

/* a + mills(a); below -5 by the continued fraction A&S 26.2.14, where the terms nearly cancel. */
static inline double tg_mills_gap(double a)
{
    double t = -a;
    if (!(a < -5.0))
        return a + tg_mills(a);
    for (int k = 40; k > 1; k--)
        t = -a + k / t;
    return 1.0 / t;
}

static inline double tg_horner(const double *c, int n, double x)
{
    double y = c[0];
    for (int k = 1; k < n; k++)
        y = y * x + c[k];
    return y;
}

/* AS 241, and in the tails a step of Newton's method on log_ndtr. */
static inline double tg_ndtri(double p)
{
    static const double
        middle[] = {2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4,
                    4.5921953931549871457e+4, 1.3731693765509461125e+4, 1.9715909503065514427e+3,
                    1.3314166789178437745e+2, 3.3871328727963666080e+0},
        under_middle[] = {5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4,
                          2.1213794301586595867e+4, 5.3941960214247511077e+3, 6.8718700749205790830e+2,
                          4.2313330701600911252e+1, 1.0},
        outer[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                   1.27045825245236838258e+0, 3.64784832476320460504e+0, 5.76949722146069140550e+0,
                   4.63033784615654529590e+0, 1.42343711074968357734e+0},
        under_outer[] = {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
                         1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e+0,
                         2.05319162663775882187e+0, 1.0},
        far[] = {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                 2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e+0,
                 5.46378491116411436990e+0, 6.65790464350110377720e+0},
        under_far[] = {2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
                       7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
                       5.99832206555887937690e-1, 1.0};
    double q = p - 0.5, r, tail, y;
    if (p == 0.0 || p == 1.0)
        return p == 0.0 ? -INFINITY : INFINITY;
    if (!(p > 0.0 && p < 1.0))
        return NAN;
    if (fabs(q) <= 0.425) {
        r = 0.180625 - q * q;
        return tg_horner(middle, 8, r) * q / tg_horner(under_middle, 8, r);
    }
    tail = q < 0.0 ? p : 1.0 - p;
    r = sqrt(-tg_log(tail));
    if (r <= 5.0)
        y = -tg_horner(outer, 8, r - 1.6) / tg_horner(under_outer, 8, r - 1.6);
    else
        y = -tg_horner(far, 8, r - 5.0) / tg_horner(under_far, 8, r - 5.0);
    y -= (tg_log_ndtr(y) - tg_log(tail)) / tg_mills(y);
    return q < 0.0 ? y : -y;
}

/* ---- logistic ---- */

static inline double tg_expit(double a) { return tg_sigmoid(a); }
static inline double tg_logit(double p)
{
    return p < 0.25 ? tg_log(p) - tg_log1p(-p)
         : p < 0.5 ? -tg_log1p((1.0 - 2.0 * p) / p) : tg_log1p((2.0 * p - 1.0) / (1.0 - p));
}
static inline double tg_logaddexp(double a, double b)
{
    double top = a > b || a != a ? a : b;
    return isinf(top) ? top : top + tg_softplus(-fabs(a - b));
}
static inline double tg_xlogy(double a, double b) { return a == 0.0 && b == b ? 0.0 : a * tg_log(b); }

/* ---- gamma ---- */

static inline int tg_is_pole(double a) { return a <= 0.0 && a == floor(a) && !isinf(a); }
static inline double tg_gamma(double a) { return tg_is_pole(a) || a == -INFINITY ? NAN : tgamma(a); }

/* lgamma() of POSIX writes a global, signgam, which threads would race for; strict C11 does not declare the other. */
extern double lgamma_r(double, int *);
static inline double tg_log_gamma(double a)
{
    int sign;
    return lgamma_r(a, &sign);
}
static inline double tg_lgamma(double a) { return tg_is_pole(a) ? NAN : tg_log_gamma(a); }

/* The Hurwitz zeta function of s > 1 and z >= 10 + s by the formula of Euler and Maclaurin, where term is z ** -s; its
   z ** s-fold where that is 1. c: B(2k) / (2k)!. */
static inline double tg_hurwitz_tail(double s, double z, double term)
{
    static const double c[] = {8.333333333333333e-02,  -1.388888888888889e-03,  3.306878306878307e-05,
                               -8.267195767195768e-07, 2.08767569878681e-08,    -5.284190138687493e-10,
                               1.3382536530684679e-11, -3.3896802963225827e-13, 8.586062056277845e-15,
                               -2.174868698558062e-16, 5.5090028283602295e-18,  -1.3954464685812522e-19};
    double tail = term * (z / (s - 1.0) + 0.5);
    term *= s / z;
    for (int k = 0; k < 12; k++) {
        tail += c[k] * term;
        term *= (s + 2.0 * k + 1.0) / z * ((s + 2.0 * k + 2.0) / z);
    }
    return tail;
}

/* n! times the Hurwitz zeta function of n + 1 and a > 0. */
static inline double tg_hurwitz(int n, double a)
{
    const double s = n + 1.0;
    double factor = 1.0, sum = 0.0, z = a, term;
    for (; z < 10.0 + s; z += 1.0)
        sum += tg_pow(z, -s);
    term = tg_pow(z, -s);
    if (term < 1e-290) {                            /* digits get lost: n! / a ** s by its factors, z being a */
        factor = tg_hurwitz_tail(s, a, 1.0) / a;
        for (int k = 1; k <= n; k++)
            factor *= k / a;
        return factor;
    }
    for (int k = 2; k <= n; k++)
        factor *= k;
    return factor * (sum + tg_hurwitz_tail(s, z, term));
}

/* For a > 0: about its zero by its Taylor series there, else A&S 6.3.18 after 6.3.5. */
static inline double tg_digamma(double a)
{
    static const double at_zero[] = {-0.007204534386356869, 0.010538791616612175, -0.01542476590494896,
                                     0.022597648232218104,  -0.03316112647484736, 0.04880428816414311,
                                     -0.07219956125645471,  0.10782405069126237,  -0.16394270544240652,
                                     0.258499760955651,     -0.4427631689835921,  0.9676722454476212, 0.0},
                        c[] = {-0.4432598039215686, 0.08333333333333333, -0.021092796092796094, 0.007575757575757576,
                               -0.004166666666666667, 0.003968253968253968, -0.008333333333333333, 0.08333333333333333};
    double d = a - 1.4616321449683622 - 9.549995429965697e-17, below = 0.0;
    if (fabs(d) < 0.1)
        return tg_horner(at_zero, 13, d);
    for (; a < 10.0; a += 1.0)
        below += 1.0 / a;
    return tg_log(a) - 0.5 / a - tg_horner(c, 8, 1.0 / a / a) / a / a - below;
}

/* The derivative n + 1 of lgamma: below 0 by A&S 6.4.7, where the derivatives of cot are polynomials in it. */
static inline double tg_polygamma(double a, double n)
{
    double factor, cot, p[104] = {0.0, 1.0}, x = a - rint(a);
    const int order = n >= 0.0 && n <= 100.0 && n == floor(n) ? (int)n : -1;
    if (order < 0 || a != a || tg_is_pole(a) || a == -INFINITY)
        return order < 0 || a == a ? NAN : a;
    if (a > 0.0) {
        if (isinf(a))
            return order ? 0.0 : a;
        return !order ? tg_digamma(a) : order % 2 ? tg_hurwitz(order, a) : -tg_hurwitz(order, a);
    }
    /* about -n - 1/2 it is near 0, and at it 0 */
    cot = fabs(x) > 0.25 ? copysign(tan(TG_PI * (0.5 - fabs(x))), x) : 1.0 / tan(TG_PI * x);
    x = 0.0;
    for (int k = 0; k < order; k++) {               /* dp/da / pi = -(1 + cot^2) dp/dcot */
        double q[104] = {0.0};
        for (int m = 1; m <= k + 1; m++) {
            q[m - 1] -= m * p[m];
            q[m + 1] -= m * p[m];
        }
        memcpy(p, q, sizeof p);
    }
    for (int m = order + 1; m >= 0; m--)
        x = x * cot + p[m];
    for (int k = 0; k <= order; k++)
        x *= TG_PI;
    factor = tg_polygamma(1.0 - a, n);
    return (order % 2 ? -factor : factor) - x;
}

/* What Stirling's formula leaves of lgamma(a), a >= 10: A&S 6.1.41. */
static inline double tg_stirling(double a)
{
    static const double c[] = {-0.029550653594771242, 0.00641025641025641, -0.0019175269175269176,
                               0.0008417508417508417, -0.0005952380952380953, 0.0007936507936507937,
                               -0.002777777777777778, 0.08333333333333333};
    return tg_horner(c, 8, 1.0 / a / a) / a;
}

/* lgamma(a) + lgamma(b) - lgamma(a + b); by Stirling's formula where the last two nearly cancel. */
static inline double tg_betaln(double a, double b)
{
    double low = a < b ? a : b, high = a < b ? b : a;
    if (!(high >= 10.0 && low + high >= 10.0 && low > -0.5 * high))
        return tg_lgamma(low) + tg_lgamma(high) - tg_lgamma(low + high);
    return tg_lgamma(low) - low * tg_log(high) - (low + high - 0.5) * tg_log1p(low / high) + low +
           (tg_stirling(high) - tg_stirling(low + high));
}

#endif
