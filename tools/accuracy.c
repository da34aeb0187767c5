/*  Measures csrc/elementary.h, and the C library beside it: for each function the largest error in units of the last
    place and where, ours and the library's, and how often a step of x leads back where it should not. tools/accuracy.py
    runs it and checks what it found against mpmath.

    accuracy N M: N points a decade from 1e-20 to 1e4, M in each of the others; of either sign. The reference is long
    double, and __float128 where that shows more than was known.  */
#include "elementary.h"

#include <quadmath.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const char *name;
    double (*ours)(double), (*library)(double);
    long double (*longer)(long double);
    __float128 (*longest)(__float128);
    double least;               /* x above this alone */
    int monotone;
} function;

static double sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return x < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}
static long double sigmoidl(long double x) { return x < 0 ? expl(x) / (1 + expl(x)) : 1 / (1 + expl(-x)); }
static __float128 sigmoidq(__float128 x) { return x < 0 ? expq(x) / (1 + expq(x)) : 1 / (1 + expq(-x)); }
static double softplus(double x) { return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x))); }
static long double softplusl(long double x) { return (x > 0 ? x : 0) + log1pl(expl(-fabsl(x))); }
static __float128 softplusq(__float128 x) { return (x > 0 ? x : 0) + log1pq(expq(-fabsq(x))); }

#define FUNCTIONS(X)                                                                                                   \
    X(exp, -INFINITY, 1) X(expm1, -INFINITY, 1) X(log, 0.0, 1) X(log1p, -1.0, 1) X(tanh, -INFINITY, 1)                 \
    X(sigmoid, -INFINITY, 1) X(softplus, -INFINITY, 1) X(sin, -INFINITY, 0) X(cos, -INFINITY, 0) X(erf, -INFINITY, 1)  \
    X(sinh, -INFINITY, 1) X(cosh, -INFINITY, 0)
#define OURS(name, least, monotone) static double ours_##name(double x) { return tg_##name(x); }
FUNCTIONS(OURS)
static const function functions[] = {
#define ROW(name, least, monotone) {#name, ours_##name, name, name##l, name##q, least, monotone},
    FUNCTIONS(ROW)
};

static uint64_t state = 11;

static double drawn(void)       /* 0 .. 1 */
{
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double last_place(double y)
{
    int e;
    frexp(y, &e);
    return ldexp(1.0, (e < -1021 ? -1021 : e) - 53);
}

/* A result that is beyond doubles has to be infinite. */
static double off(double y, __float128 exact)
{
    if (fabsq(exact) > DBL_MAX)
        return isinf(y) || fabsq(exact) < DBL_MAX + 1e292Q ? 0.0 : INFINITY;
    return isfinite(y) ? (double)(fabsq(y - exact) / last_place((double)exact)) : INFINITY;
}

typedef struct {
    double error, x, y;
} worst;

static void judge(worst *w, double y, long double longer, double x)
{
    const double place = last_place((double)longer);
    w->y = y;
    if (!(fabsl(y - longer) <= (w->error - 0.005) * place))
        w->x = x;               /* to be looked at */
    else
        w->x = NAN;
}

static void measure(const function *f, int n, int m)
{
    worst known[2] = {{0}}, now[2];
    unsigned long points = 0, back = 0;
    state = 11;
    for (int decade = -308; decade < 309; decade++)
        for (int k = decade >= -20 && decade < 4 ? n : m; k > 0; k--) {
            const double size = pow(10.0, decade + drawn()), x = drawn() < 0.5 ? -size : size;
            double y;
            long double longer;
            if (!(x > f->least) || isinf(x))
                continue;
            points++;
            y = f->ours(x);
            longer = f->longer(x);
            for (int which = 0; which < 2; which++) {
                now[which] = known[which];
                judge(now + which, which ? f->library(x) : y, longer, x);
                if (now[which].x == x) {
                    const double error = off(now[which].y, f->longest(x));
                    if (error > known[which].error)
                        known[which] = (worst){error, x, now[which].y};
                }
            }
            back += f->monotone && f->ours(nextafter(x, INFINITY)) < y;
        }
    printf("%s %lu %.17g %.17g %.17g %.17g %lu\n", f->name, points, known[0].error, known[0].x, known[1].error,
           known[1].x, back);
    fflush(stdout);
}

/* x of all sizes, y such that the result is a double. */
static void measure_pow(unsigned long n)
{
    double error[2] = {0}, x[2] = {0}, y[2] = {0};
    for (unsigned long k = 0; k < n; k++) {
        const double r = drawn(), a = r < 0.4 ? pow(2.0, drawn() * 2100.0 - 1074.0)
                                    : r < 0.7 ? 1.0 + (drawn() - 0.5) * pow(10.0, -15.0 * drawn()) : 10.0 * drawn();
        const double l = a == 1.0 ? 1.0 : log(a);
        const double b = drawn() < 0.3 ? 20.0 * (drawn() - 0.5) : (1454.0 * drawn() - 745.0) / l;
        const long double longer = powl(a, b);
        if (!(longer > 0) || longer > DBL_MAX)
            continue;
        for (int which = 0; which < 2; which++) {
            const double z = which ? pow(a, b) : tg_pow(a, b);
            if (!(fabsl(z - longer) <= (error[which] - 0.005) * last_place((double)longer))) {
                const double e = off(z, powq(a, b));
                if (e > error[which])
                    error[which] = e, x[which] = a, y[which] = b;
            }
        }
    }
    printf("pow %lu %.17g %.17g %.17g %.17g 0 %.17g %.17g\n", n, error[0], x[0], error[1], x[1], y[0], y[1]);
}

int main(int argc, char **argv)
{
    const int n = argc > 1 ? atoi(argv[1]) : 10000, m = argc > 2 ? atoi(argv[2]) : 100;
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++)
        measure(functions + k, n, m);
    measure_pow(20ul * (unsigned long)n);
    return 0;
}
