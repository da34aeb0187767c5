/*  Elementary functions of our own: the same bits on every machine, compiler, C library and vector width.

    Each is text without branches, of additions, multiplications, divisions, selections and bits of doubles, each of
    which IEEE 754 rounds in one way only: no fused multiply-add (-ffp-contract=off), rounding to nearest. In a loop
    over lanes compilers make vectors of it; a selection takes both sides, so that what is not chosen may be anything.
    A pair is a number high + low, unevaluated: it is rounded once, at the end.

    Sources: Cody and Waite, Software Manual for the Elementary Functions (1980): reduction by a constant in parts.
    Tang, "Table-driven implementation of the exponential function", ACM TOMS 15 (1989), and "of the logarithm",
    16 (1990): what the last steps keep. Muller et al., Handbook of Floating-Point Arithmetic (2018), and Muller,
    Elementary Functions (2016): pairs, whole numbers by a large one, errors. Payne and Hanek, "Radian reduction for
    trigonometric functions", SIGNUM 18 (1983). Shibata and Petrogalli, "SLEEF", IEEE TPDS 31 (2020), and Sibidanov,
    Zimmermann, Glondu, "The CORE-MATH project", ARITH (2022): what is to be expected of such functions, and how to
    measure it. Coefficients and constants: tools/polynomials.py. Errors: docs/accuracy.md.  */
#ifndef TG_ELEMENTARY_H
#define TG_ELEMENTARY_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "compiled.h"

/* How the functions of the list above are made: text in loops over lanes, calls where a file says so, for a switch over
   all operations keeps its registers only if their constants are elsewhere. */
#ifndef TG_ELEMENTARY
#define TG_ELEMENTARY TG_INLINE
#endif

/* ---- bits and pairs ---- */

typedef struct {
    double high, low;
} tg_pair;

TG_INLINE uint64_t tg_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
TG_INLINE double tg_of_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* y >= 0 with the sign of x. */
TG_INLINE double tg_with_sign(double y, double x) { return tg_of_bits(tg_bits(y) | (tg_bits(x) & 1ull << 63)); }

/* The first 26 bits of x, towards 0: products of two such are exact. */
TG_INLINE double tg_short(double x) { return tg_of_bits(tg_bits(x) & ~0x7ffffffull); }

/* Added to |x| < 2^31, this leaves the nearest whole number in the last bits: 1.5 * 2^52. */
#define TG_WHOLE 6755399441055744.0
TG_INLINE double tg_nearest(double x) { return (x + TG_WHOLE) - TG_WHOLE; }

/* 2^k for a whole k, -1022 .. 1023; and y 2^k for -2044 .. 2046, rounded once. */
TG_INLINE double tg_power_of_2(double k) { return tg_of_bits((tg_bits(k + TG_WHOLE) << 52) + (1023ull << 52)); }
TG_INLINE double tg_scaled(double y, double k)
{
    const double half = tg_nearest(0.5 * k);
    return y * tg_power_of_2(half) * tg_power_of_2(k - half);
}

/* a + b exactly; the second where |a| >= |b|, or a = 0. */
TG_INLINE tg_pair tg_two_sum(double a, double b)
{
    const double s = a + b, t = s - a;
    return (tg_pair){s, (a - (s - t)) + (b - t)};
}
TG_INLINE tg_pair tg_fast_sum(double a, double b)
{
    const double s = a + b;
    return (tg_pair){s, b - (s - a)};
}

/* a b exactly, as long as nothing underflows: Dekker's. */
TG_INLINE tg_pair tg_product(double a, double b)
{
    const double p = a * b, a1 = tg_short(a), a2 = a - a1, b1 = tg_short(b), b2 = b - b1;
    return (tg_pair){p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2};
}

/* x^2 in the 52 bits of the first part of x, and the rest. */
TG_INLINE tg_pair tg_square(double x)
{
    const double first = tg_short(x);
    return (tg_pair){first * first, (x - first) * (x + first)};
}

/* n / d. The first 26 bits of the quotient come first, then what is left, which is exact up to there. */
TG_INLINE tg_pair tg_quotient(tg_pair n, tg_pair d)
{
    const double inverse = 1.0 / d.high, q = tg_short(n.high * inverse), first = tg_short(d.high);
    const double left = (n.high - q * first) - q * (d.high - first);
    return (tg_pair){q, (left + (n.low - q * d.low)) * inverse};
}

/* c[0] + c[1] z + ..: pairs of terms first, that no step waits for all earlier ones. */
TG_INLINE double tg_series_4(const double *c, double z) { return (c[0] + c[1] * z) + (c[2] + c[3] * z) * (z * z); }
TG_INLINE double tg_series_5(const double *c, double z)
{
    const double z2 = z * z;
    return (c[0] + c[1] * z) + ((c[2] + c[3] * z) + c[4] * z2) * z2;
}
TG_INLINE double tg_series_6(const double *c, double z)
{
    const double z2 = z * z;
    return (c[0] + c[1] * z) + ((c[2] + c[3] * z) + (c[4] + c[5] * z) * z2) * z2;
}
TG_INLINE double tg_series_8(const double *c, double z)
{
    const double z2 = z * z;
    return tg_series_4(c, z) + tg_series_4(c + 4, z) * (z2 * z2);
}
TG_INLINE double tg_series_9(const double *c, double z)
{
    const double z2 = z * z, z4 = z2 * z2;
    return tg_series_4(c, z) + (tg_series_4(c + 4, z) + c[8] * z4) * z4;
}
TG_INLINE double tg_series_14(const double *c, double z)
{
    const double z2 = z * z, z4 = z2 * z2;
    return tg_series_8(c, z) + tg_series_6(c + 8, z) * (z4 * z4);
}
TG_INLINE double tg_series_16(const double *c, double z)
{
    const double z2 = z * z, z4 = z2 * z2;
    return tg_series_8(c, z) + tg_series_8(c + 8, z) * (z4 * z4);
}

/* ---- exponentials ---- */

#define TG_1_LN2 1.4426950408889634
#define TG_LN2_HIGH 0.6931471805598903
#define TG_LN2_LOW 5.497923018708371e-14

static const double tg_sinh_series[] = {
    0.16666666666666669, 0.008333333333330063, 0.0001984126986304708, 2.755726847015456e-06, 2.5100380663793766e-08};
static const double tg_cosh_series[] = {
    0.041666666666666664, 0.0013888888888886554, 2.480158731713983e-05, 2.755728297680364e-07,
    2.091123317983727e-09};

/* x + low = k ln 2 + r + rest, |r| < 0.3467. Of r + rest: sinh is r + odd, cosh 1 + even, exp 1 + r + power. */
typedef struct {
    double k, r, odd, even, power;
} tg_exponent;

TG_INLINE tg_exponent tg_reduced(double x, double low)
{
    const double k = tg_nearest(x * TG_1_LN2);
    const double left = x - k * TG_LN2_HIGH, lost = k * TG_LN2_LOW - low;
    const double r = left - lost, rest = (left - r) - lost, z = r * r;
    const double odd = r * z * tg_series_5(tg_sinh_series, z), even = z * z * tg_series_5(tg_cosh_series, z);
    return (tg_exponent){k, r, odd + rest, 0.5 * z + (even + r * rest), (0.5 * z + (rest + r * rest)) + (odd + even)};
}

/* e^(x + low) = 2^k (high + low), for |x| < 1e5. */
typedef struct {
    double k;
    tg_pair m;
} tg_scaled_pair;

TG_INLINE tg_scaled_pair tg_exp_pair(double x, double low)
{
    const tg_exponent e = tg_reduced(x, low);
    const tg_pair one = tg_fast_sum(1.0, e.r);
    return (tg_scaled_pair){e.k, tg_fast_sum(one.high, one.low + e.power)};
}

/* e^x - 1, -60 <= x <= 0. */
TG_INLINE tg_pair tg_expm1_below(double x)
{
    const tg_exponent e = tg_reduced(x, 0.0);
    const double p = tg_power_of_2(e.k);
    const tg_pair whole = tg_fast_sum(-1.0, p), m = tg_fast_sum(whole.high, p * e.r);
    return tg_fast_sum(m.high, (m.low + whole.low) + p * e.power);
}

/* Beyond the ends the result is infinite, or 0, anyway. */
TG_INLINE double tg_within(double x, double low, double high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

TG_ELEMENTARY double tg_exp(double x)
{
    const tg_exponent e = tg_reduced(tg_within(x, -746.0, 710.0), 0.0);
    const tg_pair one = tg_fast_sum(1.0, e.r);
    return tg_scaled(one.high + (one.low + e.power), e.k);
}

/* 2^k ((1 - 2^-k) + (e^r - 1)). */
TG_ELEMENTARY double tg_expm1(double x)
{
    const tg_exponent e = tg_reduced(tg_within(x, -60.0, 710.0), 0.0);
    const double p = tg_power_of_2(-(e.k > 1000.0 ? 1000.0 : e.k)), top = p > 1.0 ? p : 1.0, other = p > 1.0 ? 1.0 : p;
    const double whole = 1.0 - p, lost = (top - fabs(whole)) - other;
    const tg_pair m = tg_fast_sum(whole, e.r);
    const double y = m.high + ((m.low + (p > 1.0 ? -lost : lost)) + e.power);
    return x == 0.0 ? x : tg_scaled(y, e.k);
}

/* Of expm1(-2 |x|): odd, and 1 from 19.07 on. */
TG_ELEMENTARY double tg_tanh(double x)
{
    const double s = fabs(x);
    const tg_pair e = tg_expm1_below(-2.0 * (s > 20.0 ? 20.0 : s)), d = tg_fast_sum(2.0, e.high);
    const tg_pair y = tg_quotient((tg_pair){-e.high, -e.low}, (tg_pair){d.high, d.low + e.low});
    return tg_with_sign(fabs(y.high + y.low), x);
}

/* With e = e^-|x|: 1 / (1 + e), or e / (1 + e) below 0. */
TG_ELEMENTARY double tg_sigmoid(double x)
{
    const double s = fabs(x);
    const tg_scaled_pair e = tg_exp_pair(-(s > 746.0 ? 746.0 : s), 0.0);
    const double k = e.k < -1000.0 ? -1000.0 : e.k, p = tg_power_of_2(k), tiny = tg_power_of_2(e.k - k);
    const tg_pair d = tg_fast_sum(1.0, p * e.m.high);
    const tg_pair n = {x < 0.0 ? e.m.high : 1.0, x < 0.0 ? e.m.low : 0.0};
    const tg_pair y = tg_quotient(n, (tg_pair){d.high, d.low + p * e.m.low});
    return x < 0.0 ? (y.high + y.low) * p * tiny : y.high + y.low;
}

/* ---- hyperbolic ---- */

/* cosh and sinh of k ln 2 + r, k >= 0, are 2^(k - 1) times sums of 1 + 4^-k and 1 - 4^-k times those of r. */
TG_ELEMENTARY double tg_sinh(double x)
{
    const double s = fabs(x);
    const tg_exponent e = tg_reduced(s > 711.0 ? 711.0 : s, 0.0);
    const double p = tg_power_of_2(-2.0 * (e.k > 500.0 ? 500.0 : e.k)), less = 1.0 - p, more = 1.0 + p;
    const tg_pair first = tg_fast_sum(less, e.r), m = tg_fast_sum(first.high, p * e.r);
    const double low = (m.low + first.low) + (((1.0 - less) - p) + (less * e.even + more * e.odd));
    return tg_with_sign(fabs(tg_scaled(m.high + low, e.k - 1.0)), x);
}

TG_ELEMENTARY double tg_cosh(double x)
{
    const double s = fabs(x);
    const tg_exponent e = tg_reduced(s > 711.0 ? 711.0 : s, 0.0);
    const double p = tg_power_of_2(-2.0 * (e.k > 500.0 ? 500.0 : e.k)), less = 1.0 - p, more = 1.0 + p;
    const tg_pair first = tg_fast_sum(more, e.r), m = tg_fast_sum(first.high, -p * e.r);
    const double low = (m.low + first.low) + (((1.0 - more) + p) + (more * e.even + less * e.odd));
    return tg_scaled(m.high + low, e.k - 1.0);
}

/* ---- logarithms ---- */

static const double tg_atanh_series[] = {
    0.6666666666666666, 0.4000000000000088, 0.2857142857080323, 0.2222222239180047, 0.18181795630884753,
    0.15386240205813478, 0.13268759668560612, 0.13086767009948175};

/* u = 2^k (1 + f), u > 0, with 1 + f between the roots of 1/2 and 2. */
typedef struct {
    double k, f;
} tg_split;

TG_INLINE tg_split tg_split_of(double u)
{
    const double tiny = u < DBL_MIN ? 54.0 : 0.0, normal = u < DBL_MIN ? u * 18014398509481984.0 : u;
    const uint64_t bits = tg_bits(normal) + 0x95f619980c433ull;            /* 1 less the root of 1/2, in bits */
    const double k = tg_of_bits(bits >> 52 | 0x4330000000000000ull) - 4503599627371519.0 - tiny;
    return (tg_split){k, tg_of_bits((bits & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull) - 1.0};
}

/* log(u) + ratio. log(1 + f) = 2 atanh(s), s = f / (2 + f), which is f - (f^2 / 2 - s (f^2 / 2 + s^2 series)); the
   square is exact in two parts, f and what is subtracted first are exact, too. */
TG_INLINE tg_pair tg_log_pair(double u, double ratio)
{
    const tg_split v = tg_split_of(u);
    const double s = v.f / (2.0 + v.f), w = s * s;
    const tg_pair z = tg_square(v.f);
    const double bent = s * (0.5 * (z.high + z.low) + w * tg_series_8(tg_atanh_series, w));
    const tg_pair a = tg_fast_sum(v.k * TG_LN2_HIGH, v.f), b = tg_fast_sum(a.high, -0.5 * z.high);
    return (tg_pair){b.high, (bent - 0.5 * z.low) + ((v.k * TG_LN2_LOW + ratio) + (a.low + b.low))};
}

/* y is what it should be for 0 < x < inf. */
TG_INLINE double tg_log_ends(double x, double y)
{
    y = x > 0.0 ? y : x == 0.0 ? -INFINITY : NAN;
    return x < INFINITY ? y : x;
}

TG_ELEMENTARY double tg_log(double x)
{
    const tg_pair y = tg_log_pair(x, 0.0);
    return tg_log_ends(x, y.high + y.low);
}

TG_ELEMENTARY double tg_log1p(double x)
{
    const tg_pair u = tg_two_sum(1.0, x), y = tg_log_pair(u.high, u.low / u.high);
    return x == 0.0 ? x : tg_log_ends(1.0 + x, y.high + y.low);
}

static const double tg_log_cosh_series[] = {
    -0.005208333333333328, 0.0003472222222213546, -2.6351686484732228e-05, 2.1356920003041695e-06,
    -1.8032174535156602e-07, 1.565679310923704e-08, -1.3820689479066357e-09, 1.185375494467507e-10,
    -7.642438018564932e-12};
static const double tg_log1p_series[] = {
    0.3333333333333333, -0.24999999999995504, 0.1999999999920232, -0.16666666610708383, 0.14285712228826905,
    -0.12499954486596024, 0.11110454565131042, -0.0999351691916886, 0.09045755719939441, -0.08107719908327565,
    0.06877614156626952, -0.050157149094777156, 0.026557913335690974, -0.007273681247831436};

/* Above 1 and below -1 this is max(x, 0) + log(1 + t), t = e^-|x|; in between log(2) + x / 2 + log(cosh(x / 2)), for
   there a step of x is less than what t is rounded by. power is 2^(k + 64), which no t makes too small. */
TG_ELEMENTARY double tg_softplus(double x)
{
    const double size = fabs(x), w = x * x;
    const tg_pair z = tg_square(x);
    const tg_exponent e = tg_reduced(-(size > 746.0 ? 746.0 : size), 0.0);
    const tg_pair one = tg_fast_sum(1.0, e.r);
    const double power = tg_of_bits(tg_bits(tg_power_of_2(e.k)) + (64ull << 52)), least = 1.0 / 18446744073709551616.0;
    const double p = power * least;
    const double low = one.low + e.power, m = one.high + low;
    const double t = p * m, q = m * t, lost = (one.high - m) + low;
    const double bent = q * (t * tg_series_14(tg_log1p_series, t)) - (0.5 * q + t * lost);
    const tg_pair y = tg_fast_sum(x, p * one.high);
    const double above = y.high + (y.low + p * (low + bent)), below = (one.high + (low + bent)) * power * least;
    const tg_pair inner = tg_fast_sum(TG_LN2_HIGH, 0.5 * x);
    const tg_pair bend = tg_fast_sum(inner.high, 0.125 * z.high);
    const double curve = w * w * tg_series_9(tg_log_cosh_series, w) + (0.125 * z.low + TG_LN2_LOW);
    const double near = bend.high + ((inner.low + bend.low) + curve);
    return size < 1.0 ? near : x < 0.0 ? below : x < INFINITY ? above : x;
}

/* ---- powers ---- */

#define TG_TWO_THIRDS_HIGH 0.6666666567325592
#define TG_TWO_THIRDS_LOW 9.934107462565104e-09

static const double tg_atanh_tail[] = {
    0.4, 0.28571428571429364, 0.22222222221655885, 0.18181818335392802, 0.1538459496251843, 0.1333480469384731,
    0.11706236339491206, 0.11723178623876518};

/* log(u) to some 64 bits. s = f / (2 + f) in a first part of 26 bits and a rest, as is s^2 (2/3 + ..), so that what
   counts is exact: 2 s, and the first part of its product with that. */
TG_INLINE tg_pair tg_log_wide(double u)
{
    const tg_split v = tg_split_of(u);
    const tg_pair s = tg_quotient((tg_pair){v.f, 0.0}, tg_fast_sum(2.0, v.f));
    const double square = s.high * s.high, rest = (2.0 * s.high + s.low) * s.low, w = square + rest;
    const double w1 = tg_short(w), w2 = (square - w1) + rest;
    const double tail = w1 * TG_TWO_THIRDS_LOW + (w2 * (2.0 / 3.0) + w * w * tg_series_8(tg_atanh_tail, w));
    const double first = w1 * TG_TWO_THIRDS_HIGH, t = first + tail, t1 = tg_short(t), t2 = (first - t1) + tail;
    const double small = 2.0 * s.low + (s.high * t2 + s.low * t);
    const tg_pair a = tg_fast_sum(v.k * TG_LN2_HIGH, 2.0 * s.high), b = tg_fast_sum(a.high, s.high * t1);
    return tg_fast_sum(b.high, (a.low + b.low) + (small + v.k * TG_LN2_LOW));
}

/* y >= 0 to the nearest whole number, also where all numbers are. */
TG_INLINE double tg_whole(double y)
{
    return y < 4503599627370496.0 ? (y + 4503599627370496.0) - 4503599627370496.0 : y;
}

/* e^(y log |x|), and the ends as Annex F of C has them. */
TG_ELEMENTARY double tg_general_pow(double x, double y)
{
    const double size = fabs(x), much = fabs(y), bound = tg_within(y, -1e21, 1e21);
    const tg_pair log = tg_log_wide(size), p = tg_product(bound, log.high);
    const double exponent = tg_within(p.high, -746.0, 710.0);
    const tg_exponent e = tg_reduced(exponent, exponent == p.high ? p.low + bound * log.low : 0.0);
    const tg_pair one = tg_fast_sum(1.0, e.r);
    const int is_whole = tg_whole(much) == much, is_odd = is_whole & (tg_whole(0.5 * much) != 0.5 * much);
    double z = tg_scaled(one.high + (one.low + e.power), e.k);
    z = size == 0.0 ? (y < 0.0 ? INFINITY : y > 0.0 ? 0.0 : y) : z;
    z = size < INFINITY ? z : size == INFINITY ? (y < 0.0 ? 0.0 : y > 0.0 ? INFINITY : y) : x;
    z = x < 0.0 && size < INFINITY && !is_whole ? NAN : z;
    z = is_odd ? tg_of_bits(tg_bits(z) ^ (tg_bits(x) & 1ull << 63)) : z;
    return y == 0.0 || x == 1.0 ? 1.0 : z;
}

/* The square is rounded once. */
TG_INLINE double tg_pow(double x, double y) { return y == 2.0 ? x * x : tg_general_pow(x, y); }

/* ---- circular ---- */

#define TG_2_PI 0.6366197723675814
#define TG_HALF_PI_1 1.5707963267341256
#define TG_HALF_PI_2 6.077100506303966e-11
#define TG_HALF_PI_3 2.0222662487111665e-21
#define TG_HALF_PI_4 8.4784276603689e-32
#define TG_HALF_PI_HIGH 1.5707963267948966
#define TG_HALF_PI_LOW 6.123233995736766e-17

static const double tg_sin_series[] = {
    -0.16666666666666666, 0.008333333333330948, -0.00019841269836756774, 2.7557316101617874e-06,
    -2.505113165023518e-08, 1.5918115263265974e-10};
static const double tg_cos_series[] = {
    0.041666666666666664, -0.0013888888888887398, 2.480158729876456e-05, -2.7557317271145144e-07,
    2.087614614655861e-09, -1.1382623647474604e-11};

/* sin of quadrant right angles and r.high + r.low, |r| < 0.7855. */
TG_INLINE double tg_sin_of(uint64_t quadrant, tg_pair r)
{
    const double x = r.high, z = x * x;
    const tg_pair square = tg_square(x), c = tg_fast_sum(1.0, -0.5 * square.high);
    const double sine = x + (x * z * tg_series_6(tg_sin_series, z) + r.low * (1.0 - 0.5 * z));
    const double bent = z * z * tg_series_6(tg_cos_series, z) - 0.5 * square.low;
    const double cosine = c.high + (c.low + (bent - x * r.low));
    const uint64_t odd = 0 - (quadrant & 1);
    return tg_of_bits(((tg_bits(sine) & ~odd) | (tg_bits(cosine) & odd)) ^ (quadrant & 2) << 62);
}

/* Up to here a multiple of a right angle has so few bits that products with the parts are exact: 2^20 of them. */
#define TG_NEAR 1647000.0
TG_INLINE double tg_near_sin_of(double s, uint64_t ahead)
{
    const double whole = s * TG_2_PI + TG_WHOLE, k = whole - TG_WHOLE;
    const tg_pair a = tg_two_sum(s - k * TG_HALF_PI_1, -k * TG_HALF_PI_2), b = tg_two_sum(a.high, -k * TG_HALF_PI_3);
    return tg_sin_of(tg_bits(whole) + ahead, tg_fast_sum(b.high, (a.low + b.low) - k * TG_HALF_PI_4));
}

static const uint32_t tg_two_over_pi[] = {
    0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561, 0xb7246e3a,
    0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e, 0xe88235f5, 0x2ebb4484, 0xe99c7026, 0xb45f7e41,
    0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b, 0x1ff897ff, 0xde05980f, 0xef2f118b, 0x5a0a6d1f, 0x6d367ecf,
    0x27cb09b7, 0x4f463f66, 0x9e5fea2d, 0x7527bac7, 0xebe5f17b, 0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08,
    0x56033046, 0xfc7b6bab};

/* Payne and Hanek's, for s beyond TG_NEAR, s = m 2^e with a whole m: of 2 / pi = sum of word[i] 2^(-32 (i + 1)) the
   words before first make multiples of four right angles, and seven from there on leave an error below 2^-137. */
static double tg_far_sin_of(double s, uint64_t ahead)
{
    const int e = (int)(tg_bits(s) >> 52) - 1075, first = e < 2 ? 0 : (e - 2) / 32, point = 32 * (first + 7) - e;
    const uint64_t m = (tg_bits(s) & 0xfffffffffffffull) | 1ull << 52, m0 = m & 0xffffffff, m1 = m >> 32;
    uint32_t p[10] = {0}, part[5], negative;
    double x[4];
    tg_pair r, t;
    for (int j = 0; j < 7; j++) {                   /* p = m times the words, the lowest first */
        const uint64_t w = tg_two_over_pi[first + 6 - j], low = p[j] + m0 * w;
        const uint64_t high = p[j + 1] + m1 * w + (low >> 32);
        p[j] = (uint32_t)low;
        p[j + 1] = (uint32_t)high;
        p[j + 2] = (uint32_t)(high >> 32);
    }
    for (int j = 0; j < 5; j++) {                   /* two bits before the point, and 158 behind it */
        const int at = point + 2 - 32 * (j + 1), word = at / 32, shift = at % 32;
        part[j] = (uint32_t)((((uint64_t)p[word + 1] << 32 | p[word]) >> shift) & 0xffffffff);
    }
    negative = 0 - (part[0] >> 29 & 1);             /* from half a right angle on, the next one less something */
    ahead += (part[0] >> 30) + (part[0] >> 29 & 1);
    x[0] = (double)((part[0] ^ negative) & 0x3fffffff);
    for (int j = 1; j < 4; j++)
        x[j] = (double)(part[j] ^ negative);
    r = tg_fast_sum(x[0] * 9.313225746154785e-10, x[1] * 2.168404344971009e-19);                /* 2^-30, 2^-62 */
    t = tg_fast_sum(x[2] * 5.048709793414476e-29, x[3] * 1.1754943508222875e-38);               /* 2^-94, 2^-126 */
    t = tg_fast_sum(r.high, r.low + t.high);
    r = tg_product(t.high, TG_HALF_PI_HIGH);
    r = tg_fast_sum(r.high, r.low + (t.high * TG_HALF_PI_LOW + t.low * TG_HALF_PI_HIGH));
    return tg_sin_of(ahead, negative ? (tg_pair){-r.high, -r.low} : r);
}

TG_INLINE int tg_is_far(double x) { return fabs(x) > TG_NEAR && fabs(x) < INFINITY; }
TG_INLINE double tg_near_sin(double x)
{
    return tg_of_bits(tg_bits(tg_near_sin_of(fabs(x), 0)) ^ (tg_bits(x) & 1ull << 63));
}
TG_INLINE double tg_near_cos(double x) { return tg_near_sin_of(fabs(x), 1); }

TG_ELEMENTARY double tg_sin(double x)
{
    return tg_is_far(x) ? tg_far_sin_of(fabs(x), x < 0.0 ? 2 : 0) : tg_near_sin(x);
}
TG_ELEMENTARY double tg_cos(double x) { return tg_is_far(x) ? tg_far_sin_of(fabs(x), 1) : tg_near_cos(x); }

/* The one text of these two that has a branch: a loop over lanes says enum { tg_near_only = 1 } for itself, and carries
   out the lanes that are far once more where it is 0. */
enum { tg_near_only = 0 };
#define tg_sin(x) (tg_near_only ? tg_near_sin(x) : (tg_sin)(x))
#define tg_cos(x) (tg_near_only ? tg_near_cos(x) : (tg_cos)(x))

/* ---- error function ---- */

#define TG_ERF_MIDDLE_HIGH 0.7840750610598597
#define TG_ERF_MIDDLE_LOW -3.204544978890348e-17
#define TG_ERF_MIDDLE_SLOPE 0.5247450321912766

static const double tg_erf_inner[] = {
    0.12837916709551256, -0.37612638903183476, 0.11283791670925353, -0.026866170632887928, 0.00522397737302147,
    -0.0008548297753674966, 0.00012053335124353741, -1.4845849259707869e-05, 1.4725865480556744e-06};
static const double tg_erf_middle[] = {
    1.3098871667031857e-08, -0.4591519146288797, 0.09292360177013168, 0.11239656243519582, -0.06721587738354487,
    -0.010367785746102403, 0.018595726776546008, -0.001846146844702263, -0.0032568630602110263, 0.000898154554720203,
    0.0003900574815317413, -0.00019296201033667192, -2.907003058779479e-05, 2.9034736521955245e-05,
    3.7600239271841626e-07, -3.236125300667372e-06};
static const double tg_erf_outer[] = {
    1.9263166859209862e-07, 0.5641709692570664, 1.6934039233390359, 4.772546756538635, 13.132297417072026,
    24.83883524089381, 129.92873583317981, -368.6678751648176, 3131.145824931937, -13295.664874957793,
    43788.33525479614, -102089.98712718018, 130060.23578030562, -43406.53673957373, -77484.14567613143,
    67652.21963240937};

/* x + x times a series of x^2 up to 0.5; up to 1.25 a series about 0.875, whose first two terms are exact; from there
   on 1 - e^(-x^2) times a series of 1 / (x + 3). So what is rounded stays below what a step of x makes. */
TG_ELEMENTARY double tg_erf(double x)
{
    const double s = fabs(x), z = s * s;
    const double inner = s + s * tg_series_9(tg_erf_inner, z);
    const double d = s - 0.875, d1 = tg_short(d), bent = d * tg_series_16(tg_erf_middle, d);
    const tg_pair line = tg_fast_sum(TG_ERF_MIDDLE_HIGH, d1 * TG_ERF_MIDDLE_SLOPE);
    const double middle = line.high + (line.low + (bent + ((d - d1) * TG_ERF_MIDDLE_SLOPE + TG_ERF_MIDDLE_LOW)));
    const double bound = s > 6.0 ? 6.0 : s;
    const tg_exponent e = tg_reduced(-bound * bound, 0.0);
    const double power = tg_power_of_2(e.k) * (1.0 + (e.r + e.power));
    const double outer = 1.0 - power * tg_series_16(tg_erf_outer, 1.0 / (bound + 3.0));
    return tg_with_sign(s < 0.5 ? inner : s < 1.25 ? middle : outer, x);
}

#endif
