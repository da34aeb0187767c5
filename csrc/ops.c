/*  The table as data, the many-operand primals and sweeps, and recording by opcode for callers outside C.  */
#include "ops.h"

#include <ctype.h>
#include <string.h>

#undef tg_sin                       /* texts are as they stand in the table */
#undef tg_cos

const tg_op_info tg_ops[] = {
    {"LEAF", "leaf", "", "", "", "NEVER", "", "", "", "", "", "", "a number"},
    {"NODE", "node", "", "", "", "NEVER", "", "", "", "", "", "", "made by hand: Value(data, (a, b), 'op')"},
#define TG_ROW(NAME, kind, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                       \
    {#NAME, kind, #method, aliases, symbol, #refusal, #primal, #da, #db, #daa, #dab, #dbb, doc},
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, primal, da, daa)                                         \
    TG_ROW(NAME, "unary", method, aliases, symbol, refusal, doc, primal, da, , daa, , )
#define TG_BINARY(NAME, ...) TG_ROW(NAME, "binary", __VA_ARGS__)
#define TG_PASSIVE(NAME, method, aliases, symbol, refusal, doc, primal, da, daa)                                       \
    TG_ROW(NAME, "passive", method, aliases, symbol, refusal, doc, primal, da, , daa, , )
#define TG_MANY(NAME, method, aliases, symbol, refusal, doc, primal, sweep, da, db)                                    \
    TG_ROW(NAME, "many", method, aliases, symbol, refusal, doc, primal, da, db, , , )
#include "ops.def"
};

const int tg_op_count = TG_OPS;
_Static_assert(sizeof tg_ops / sizeof tg_ops[0] == TG_OPS, "a row an opcode");

/* Whether c is a name of one letter in the text that begins at start. */
static int is_letter(const char *start, const char *c)
{
    return (c == start || !(isalnum((unsigned char)c[-1]) || c[-1] == '_' || c[-1] == '.')) &&
           !(isalnum((unsigned char)c[1]) || c[1] == '_');
}

static int named_in(const tg_op_info *row, int moving)
{
    const struct { const char *text; int of; } partial[] = {
        {row->da, TG_NAMES_A}, {row->db, TG_NAMES_B}, {row->daa, TG_NAMES_A},
        {row->dab, TG_NAMES_A | TG_NAMES_B}, {row->dbb, TG_NAMES_B},
    };
    int named = 0;
    for (int k = 0; k < 5; k++) {
        const char *text = partial[k].text;
        for (const char *c = text; *c && partial[k].of & moving; c++)
            if (is_letter(text, c))
                named |= *c == 'a' ? TG_NAMES_A : *c == 'b' ? TG_NAMES_B : *c == 'y' ? TG_NAMES_Y : 0;
        if (k > 1 && text[0] && strcmp(text, "0.0") && (partial[k].of & moving) == partial[k].of)
            named |= partial[k].of;                     /* it meets their tangents */
    }
    return named;
}

int tg_names(int op, int moving, uint8_t *known)
{
    uint8_t *own = known + TG_OPS * moving + op;
    if (!*own)
        *own = (uint8_t)(TG_NAMES_READ | named_in(tg_ops + op, moving));
    return *own;
}

/* ids: xs, then ys, then the bias where n is odd. */
double tg_dot(const double *data, const uint32_t *ids, uint32_t n)
{
    uint32_t half = n / 2;
    double y = n % 2 ? data[ids[n - 1]] : 0.0;
    for (uint32_t k = 0; k < half; k++)
        y += data[ids[k]] * data[ids[half + k]];
    return y;
}

TG_MANY_SWEEP(tg_dot_sweep)
{
    uint32_t half = n / 2;
    (void)y;
    if (n % 2)
        tg_add_adjoint(adj, touched, ids[n - 1], g);
    for (uint32_t k = 0; k < half; k++) {
        double x = data[ids[k]];
        tg_add_adjoint(adj, touched, ids[k], g * data[ids[half + k]]);
        tg_add_adjoint(adj, touched, ids[half + k], g * x);
    }
}

double tg_sum(const double *data, const uint32_t *ids, uint32_t n)
{
    double y = 0.0;
    for (uint32_t k = 0; k < n; k++)
        y += data[ids[k]];
    return y;
}

double tg_fsum(const double *data, const uint32_t *ids, uint32_t n)
{
    double s = 0.0, c = 0.0, d = 0.0;
    for (uint32_t k = 0; k < n; k++)
        tg_fsum_add(&s, &c, &d, data[ids[k]]);
    return tg_fsum_total(s, c, d);
}

/* As Python's fsum, which forgets what it has at a term that is not finite, and refuses infinities at the end. */
void tg_refused_terms(const double *v, const uint32_t *slot, size_t step, uint32_t n, size_t width, double *a,
                      double *b)
{
    double sum = 0.0, infinity = 0.0;
    *a = *b = NAN;
    for (uint32_t k = 0; k < n; k++) {
        const double x = v[slot[step * k] * width];
        if (isfinite(x) && !isfinite(sum + x)) {
            *a = sum;
            *b = x;
            return;
        }
        sum = isfinite(x) ? sum + x : 0.0;
        if (isinf(x) && infinity == -x) {
            *a = infinity;
            *b = x;
        } else if (isinf(x))
            infinity = x;
    }
}

double tg_nan_if_refused(int op, const double *data, const uint32_t *ids, uint32_t n, double y)
{
    double a, b;
    if (isfinite(y) || !n || !tg_can_refuse(op))
        return y;
    a = data[ids[0]];
    b = data[ids[n - 1]];
    if (tg_is_many(op))
        tg_refused_terms(data, ids, 1, n, 1, &a, &b);
    return tg_refusal(op, a, b, y) == TG_OK ? y : NAN;
}

TG_MANY_SWEEP(tg_sum_sweep)
{
    (void)y, (void)data;
    for (uint32_t k = 0; k < n; k++)
        tg_add_adjoint(adj, touched, ids[k], g);
}

/* ids: c, a, b. */
double tg_where(const double *data, const uint32_t *ids, uint32_t n)
{
    (void)n;
    return data[ids[data[ids[0]] != 0.0 ? 1 : 2]];
}

TG_MANY_SWEEP(tg_where_sweep)
{
    (void)y, (void)n;
    tg_add_adjoint(adj, touched, ids[data[ids[0]] != 0.0 ? 1 : 2], g);
}

/* Shifted by the largest operand: see Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax
   functions", IMA J. Numer. Anal. 41 (2021). */
double tg_logsumexp(const double *data, const uint32_t *ids, uint32_t n)
{
    double top = -INFINITY, y = 0.0;
    for (uint32_t k = 0; k < n; k++)
        top = tg_max(top, data[ids[k]]);
    if (isinf(top) || isnan(top))
        return top;
    for (uint32_t k = 0; k < n; k++)
        y += tg_exp(data[ids[k]] - top);
    return top + tg_log(y);
}

TG_MANY_SWEEP(tg_logsumexp_sweep)
{
    for (uint32_t k = 0; k < n; k++)
        tg_add_adjoint(adj, touched, ids[k], g * tg_exp(data[ids[k]] - y));
}

double tg_top(const double *data, const uint32_t *ids, uint32_t n)
{
    double top = -INFINITY;
    for (uint32_t k = 0; k < n; k++)
        top = tg_max(top, data[ids[k]]);
    return isfinite(top) ? top : 0.0;
}

TG_MANY_SWEEP(tg_top_sweep) { (void)g, (void)y, (void)data, (void)ids, (void)n, (void)adj, (void)touched; }

/* The logsumexp of what is left of the operands above their top, which does not grow with them: log n at most. */
static double log_total(const double *data, const uint32_t *ids, uint32_t n, double top)
{
    double total = 0.0;
    for (uint32_t k = 0; k < n; k++)
        total += tg_exp(data[ids[k]] - top);
    return tg_log(total);
}

/* ids: the logits, then once more the target's. */
double tg_cross_entropy(const double *data, const uint32_t *ids, uint32_t n)
{
    const double top = tg_top(data, ids, n - 1);
    return log_total(data, ids, n - 1, top) - (data[ids[n - 1]] - top);
}

TG_MANY_SWEEP(tg_cross_entropy_sweep)
{
    const double top = tg_top(data, ids, n - 1), total = log_total(data, ids, n - 1, top);
    (void)y;                            /* y + data[target] would lose digits, and miss what was written since */
    for (uint32_t k = 0; k < n - 1; k++)
        tg_add_adjoint(adj, touched, ids[k], g * tg_exp((data[ids[k]] - top) - total));
    tg_add_adjoint(adj, touched, ids[n - 1], -g);
}

/* ids: the predictions, then the targets; so with hinge. */
double tg_mse(const double *data, const uint32_t *ids, uint32_t n)
{
    uint32_t half = n / 2;
    double y = 0.0;
    for (uint32_t k = 0; k < half; k++) {
        double d = data[ids[k]] - data[ids[half + k]];
        y += d * d;
    }
    return y / half;
}

TG_MANY_SWEEP(tg_mse_sweep)
{
    uint32_t half = n / 2;
    (void)y;
    for (uint32_t k = 0; k < half; k++) {
        double d = g * (2.0 / half) * (data[ids[k]] - data[ids[half + k]]);
        tg_add_adjoint(adj, touched, ids[k], d);
        tg_add_adjoint(adj, touched, ids[half + k], -d);
    }
}

double tg_hinge(const double *data, const uint32_t *ids, uint32_t n)
{
    uint32_t half = n / 2;
    double y = 0.0;
    for (uint32_t k = 0; k < half; k++)
        y += tg_relu(1.0 - data[ids[half + k]] * data[ids[k]]);
    return y / half;
}

TG_MANY_SWEEP(tg_hinge_sweep)
{
    uint32_t half = n / 2;
    (void)y;
    for (uint32_t k = 0; k < half; k++) {
        double score = data[ids[k]], target = data[ids[half + k]];
        if (1.0 - target * score > 0.0) {
            tg_add_adjoint(adj, touched, ids[k], -(g / half) * target);
            tg_add_adjoint(adj, touched, ids[half + k], -(g / half) * score);
        }
    }
}

double tg_many_primal(int op, const double *data, const uint32_t *ids, uint32_t n)
{
    switch (op) {
#define TG_MANY(NAME, method, aliases, symbol, refusal, doc, primal, ...) case TG_##NAME: return primal(data, ids, n);
#include "ops.def"
    default: return 0.0;
    }
}

void tg_many_sweep(int op, double g, double y, const double *data, const uint32_t *ids, uint32_t n, double *adj,
                   uint8_t *touched)
{
    switch (op) {
#define TG_MANY(NAME, method, aliases, symbol, refusal, doc, primal, sweep, ...)                                       \
    case TG_##NAME: sweep(g, y, data, ids, n, adj, touched); break;
#include "ops.def"
    default: break;
    }
}

double tg_value(int op, double a, double b) { return op == TG_FSUM ? a + b : tg_primal(op, a, b); }

double tg_evaluate(int op, double a, double b, int *refusal)
{
    double y = tg_value(op, a, b);
    *refusal = tg_refusal(op, a, b, y);
    return y;
}

int64_t tg_leaf(tg_tape *t, double data)
{
    int code = tg_grow(t, 1, 0);
    return code ? code : (int64_t)tg_push(t, TG_LEAF, 0, 0, data);
}

int64_t tg_record(tg_tape *t, int op, uint32_t a, uint32_t b)
{
    int code;
    double y;
    if (op <= TG_NODE || op >= TG_OPS || tg_is_many(op) || a >= t->len || b >= t->len)
        return TG_BAD_ID;
    y = tg_evaluate(op, t->data[a], t->data[b], &code);
    if (!code)
        code = tg_grow(t, 1, 0);
    return code ? code : (int64_t)tg_push(t, op, a, b, y);
}

int64_t tg_record_number(tg_tape *t, int op, uint32_t id, double k, int first, int written_int)
{
    int code;
    uint32_t leaf;
    double y;
    if (op <= TG_NODE || op >= TG_OPS || tg_is_many(op) || id >= t->len)
        return TG_BAD_ID;
    y = first ? tg_evaluate(op, k, t->data[id], &code) : tg_evaluate(op, t->data[id], k, &code);
    if (!code)
        code = tg_grow(t, 2, 0);
    if (code)
        return code;
    leaf = tg_push(t, TG_LEAF, (uint32_t)written_int, 0, k);
    return tg_push(t, op, first ? leaf : id, first ? id : leaf, y);
}

int64_t tg_record_many(tg_tape *t, int op, const uint32_t *ids, uint32_t n)
{
    int code;
    uint32_t *operands, id;
    if (op >= TG_OPS || !tg_is_many(op))
        return TG_BAD_ID;
    for (uint32_t k = 0; k < n; k++)
        if (ids[k] >= t->len)
            return TG_BAD_ID;
    code = tg_grow(t, 1, (uint64_t)n + 1);
    if (code)
        return code;
    operands = tg_push_many(t, op, n);
    id = t->len - 1;
    for (uint32_t k = 0; k < n; k++)
        operands[k] = ids[k];
    t->data[id] = tg_many_primal(op, t->data, operands, n);
    return id;
}
