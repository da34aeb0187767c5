/*  What each operation of a graph lost to rounding: exactly where it can be known, else from long double, where that is
    longer, with a bound of the rest. See Langlois, "Automatic linear correction of rounding errors", BIT 41 (2001).  */
#include "look/look.h"
#include "ops.h"

#include <float.h>

/* Of s = a + b: a + b - s, exactly. Knuth, TAOCP 2, 4.2.2. */
static double of_sum(double a, double b, double s)
{
    double t = s - a;
    return (a - (s - t)) + (b - t);
}

static double of_product(double a, double b, double y) { return fma(a, b, -y); }

/* What y is with more digits, or y itself; of the operations that are not exact. */
static long double longer(int op, long double a, long double b, long double y)
{
    switch (op) {
    case TG_POW: case TG_POWK: return powl(a, b);
    case TG_ATAN2: return atan2l(a, b);
    case TG_HYPOT: return hypotl(a, b);
    case TG_TANH: return tanhl(a);
    case TG_SIGMOID: return a < 0 ? expl(a) / (1 + expl(a)) : 1 / (1 + expl(-a));
    case TG_SOFTPLUS: return (a > 0 ? a : 0) + log1pl(expl(-fabsl(a)));
    case TG_EXP: return expl(a);
    case TG_EXPM1: return expm1l(a);
    case TG_LOG: return logl(a);
    case TG_LOG1P: return log1pl(a);
    case TG_LOG2: return log2l(a);
    case TG_LOG10: return log10l(a);
    case TG_SIN: return sinl(a);
    case TG_COS: return cosl(a);
    case TG_TAN: return tanl(a);
    case TG_ASIN: return asinl(a);
    case TG_ACOS: return acosl(a);
    case TG_ATAN: return atanl(a);
    case TG_SINH: return sinhl(a);
    case TG_COSH: return coshl(a);
    case TG_ERF: return erfl(a);
    default: return y;
    }
}

static int is_exact(int op)
{
    switch (op) {
    case TG_MAX: case TG_MIN: case TG_NEG: case TG_ABS: case TG_RELU: case TG_COPY: case TG_LESS: case TG_LESS_EQUAL:
    case TG_GREATER: case TG_GREATER_EQUAL: case TG_EQUAL: case TG_NOT_EQUAL: case TG_WHERE: return 1;
    default: return 0;
    }
}

/* Of a chain of additions, one after the other as the core does them. */
static double of_many(const tg_graph *g, uint32_t i)
{
    const uint32_t *ids = g->operand + g->start[i], n = g->start[i + 1] - g->start[i], half = n / 2;
    const double *v = g->value;
    double y = 0.0, lost = 0.0;
    if (g->op[i] == TG_SUM)
        for (uint32_t k = 0; k < n; k++) {
            double s = y + v[ids[k]];
            lost += of_sum(y, v[ids[k]], s);
            y = s;
        }
    else {
        y = n % 2 ? v[ids[n - 1]] : 0.0;
        for (uint32_t k = 0; k < half; k++) {
            double p = v[ids[k]] * v[ids[half + k]], s = y + p;
            lost += of_product(v[ids[k]], v[ids[half + k]], p) + of_sum(y, p, s);
            y = s;
        }
    }
    return lost;
}

void tg_graph_rounding(const tg_graph *g, double *error, double *bound)
{
    for (uint32_t i = 0; i < g->n; i++) {
        const uint32_t *ids = g->operand + g->start[i], n = g->start[i + 1] - g->start[i];
        const int op = g->op[i];
        double a, b, y = g->value[i];
        error[i] = bound[i] = 0.0;
        if (!n || g->kind[i] != TG_COMPUTED || is_exact(op) || !isfinite(y))
            continue;
        a = g->value[ids[0]];
        b = g->value[ids[n - 1]];
        switch (op) {
        case TG_ADD: error[i] = of_sum(a, b, y); break;
        case TG_SUB: error[i] = of_sum(a, -b, y); break;
        case TG_MUL: case TG_WEIGH: error[i] = of_product(a, b, y); break;
        case TG_DIV: error[i] = -of_product(y, b, a) / b; break;
        case TG_SQRT: error[i] = y == 0.0 ? 0.0 : -of_product(y, y, a) / (2.0 * y); break;
        case TG_SUM: case TG_DOT: error[i] = of_many(g, i); break;
        default:
            if (tg_is_many(op)) {
                bound[i] = n * DBL_EPSILON * fabs(y);
                break;
            }
            if ((op == TG_POW || op == TG_POWK) && b == 2.0) {
                error[i] = of_product(a, a, y);
                break;
            }
            error[i] = (double)(longer(op, a, b, y) - y);
            const int is_longer = LDBL_MANT_DIG > DBL_MANT_DIG && error[i] != 0.0;
            bound[i] = fabs(y) * (is_longer ? 2.0 * LDBL_EPSILON : 2.5 * DBL_EPSILON);
        }
        if (!isfinite(error[i]))
            error[i] = 0.0;
    }
}
