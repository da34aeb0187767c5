/*  The replay of a block of LANES rows side by side: included by replay.c once for each width.

    Slot s of an array is the LANES doubles from s * LANES on. Each instruction is decoded once for the block, and the
    loop over its lanes is what the compiler vectorises: operands are read whether they count or not. Results of
    short rows go where they belong at once, others through a local array. No lane sees another, so a row has the same
    bits at any width.

    A lane whose adjoint is 0 passes nothing on, as on the tape: an infinite partial must not turn it into nan.

    One lane has rows that most programs are made of in frequent.h.  */

#define AT(array, slot) ((array) + (size_t)(slot) * LANES)
#define OF_ALL for (int l = 0; l < LANES; l++)
#define EACH OF_ALL

/* As many lanes as fit a register, from q on: what is computed of them stays there from operand to operand. */
#define PART (LANES < 8 ? LANES : 8)
#define PARTS for (int q = 0; q < LANES; q += PART)
#define OF_PART for (int l = 0; l < PART; l++)
#define IN_PART(array, slot) (AT(array, slot) + q)

/* A dot reads an operand that all rows share as one number beside others: the weights of a layer crowd caches less. */
#define IS(slot, mark) (LANES > 1 && j->same && (slot) < n_fixed && j->shared[slot] & (mark))
#define SHARED(slot) IS(slot, TG_SHARED)
#define WEIGHT(slot) IS(slot, TG_WEIGHT)

/* Whether anybody asks for the adjoint of a slot. */
#define IS_WANTED(slot)                                                                                                \
    (LANES == 1 ? (slot) >= n_const : (slot) >= n_fixed || ((slot) >= n_const && !(idle && idle[slot] & TG_IDLE)))

/* Lanes that did not do as recorded are out from here on. */
static void NAME(out)(tg_job *j, uint32_t at, uint32_t lanes, const double *a, const double *b, const double *y)
{
    EACH if (lanes >> l & 1 && j->base + l < j->stop)
        tg_note_failure(j, l, at, a[l], b[l], y[l]);
}

static void NAME(check)(tg_job *j, const tg_half *s, uint32_t at, const double *a, const double *b, double *y)
{
    uint32_t refused = 0;
    if (s->op & TG_QUIET)
        return;
    EACH if (!isfinite(y[l]) && tg_refusal(tg_row(s), a[l], b[l], y[l])) {
        refused |= 1u << l;
        if (j->nan_errors)
            y[l] = NAN;
    }
    if (refused && !j->nan_errors)
        NAME(out)(j, at, refused, a, b, y);
}

static void NAME(check_terms)(tg_job *j, const tg_half *s, uint32_t at, const uint32_t *slot, double *y)
{
    double a[LANES], b[LANES];
    EACH tg_refused_terms(j->primal + l, slot, 2, s->b, LANES, a + l, b + l);
    NAME(check)(j, s, at, a, b, y);
}

#include "each_lane.h"
#include "frequent.h"

TG_INLINE int NAME(finite)(const double *y)
{
    double t[LANES];
    EACH t[l] = y[l] - y[l];                            /* nan where it is infinite or nan */
    return (LANES > 1 ? tg_sum_of_lanes(t) : t[0]) == 0.0;
}

TG_INLINE void NAME(add_to)(double *to, const double *x)
{
    TG_TURNS_APART EACH to[l] += x[l];
}
TG_INLINE void NAME(add_weighed)(double *to, const double *g, const double *partial)
{
    TG_TURNS_APART EACH to[l] += tg_passed_on(g[l], partial[l]);
}
TG_INLINE void NAME(add_scaled)(double *to, const double *g, double partial)
{
    TG_TURNS_APART EACH to[l] += tg_passed_on(g[l], partial);
}
/* The dot of weights and what is beside them, added to t; and what it passes on to that. */
TG_INLINE void NAME(add_weights)(double *restrict t, const tg_weight *w, uint32_t n, const double *v,
                             int numbering)
{
    for (uint32_t i = 0; i < n; i++) {
        const double c = w[i].x, *x = AT(v, numbering == TG_LIVE ? w[i].live : w[i].kept);
        EACH t[l] += c * x[l];
    }
}
TG_INLINE void NAME(pass_weights)(const tg_job *j, const double *restrict g, const tg_weight *w, uint32_t n)
{
    const uint32_t n_const = j->program->n_const, n_fixed = n_const + j->program->n_in;
    const uint8_t *idle = j->shared;
    for (uint32_t i = 0; i < n; i++) {
        const double c = w[i].x;
        double *restrict to = AT(j->adj, w[i].live);
        if (!IS_WANTED(w[i].live))
            continue;
        EACH to[l] += tg_passed_on(g[l], c);
    }
}
TG_INLINE void NAME(top_of)(double *to, const double *x) { EACH to[l] = tg_max(to[l], x[l]); }

/* What `where` chooses, and what it passes on to what it has chosen from. to may be a or b. */
TG_INLINE void NAME(choose)(double *to, const double *c, const double *a, const double *b)
{
    TG_TURNS_APART EACH to[l] = c[l] != 0.0 ? a[l] : b[l];
}
TG_INLINE void NAME(split)(const double *c, const double *g, double *ga, double *gb)
{
    EACH {
        ga[l] = c[l] != 0.0 ? g[l] : 0.0;
        gb[l] = c[l] != 0.0 ? 0.0 : g[l];
    }
}

TG_INLINE void NAME(add_chosen)(double *to, const double *c, const double *g, int other)
{
    TG_TURNS_APART EACH to[l] += other ? (c[l] != 0.0 ? 0.0 : g[l]) : (c[l] != 0.0 ? g[l] : 0.0);
}

/* sum and the product of a pair of a dot, to where that may stand, too. */
TG_INLINE void NAME(add_product)(const tg_job *j, double *to, const double *sum, const uint32_t *pair)
{
    const uint32_t n_fixed = j->program->n_const + j->program->n_in;
    const double *x = AT(j->primal, pair[0]), *w = AT(j->primal, pair[2]);
    if (WEIGHT(pair[2])) {
        const double c = j->same[pair[2]];
        TG_TURNS_APART EACH to[l] = sum[l] + x[l] * c;
    } else if (SHARED(pair[0])) {
        const double c = j->same[pair[0]];
        TG_TURNS_APART EACH to[l] = sum[l] + c * w[l];
    } else
        TG_TURNS_APART EACH to[l] = sum[l] + x[l] * w[l];
}

/* Instructions from .. to - 1, over the slots of a numbering. */
TG_CLONES static void NAME(forward)(tg_job *j, tg_halves halves, uint32_t from, uint32_t to, int numbering)
{
    const tg_program *p = j->program;
    const tg_half *s = halves.of[numbering];
    const uint32_t *const pools = p->pool + numbering;
    static const double zeros[LANES];
    double *v = j->primal, t[LANES], total[LANES];
    for (uint32_t k = from; k < to; k++, s++) {
        const uint32_t *pool = pools + 2 * (size_t)s->a;
        double *Y = AT(v, s->y);
        if (LANES == 1 && is_frequent(s)) {
            const tg_half *last = frequent_forward(pools, v, s, s + (to - k)) - 1;
            k += (uint32_t)(last - s);
            s = last;
            continue;
        }
        switch (tg_row(s)) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, ...)                                              \
    case TG_##NAME_: {                                                                                                 \
        const double *xa = AT(v, s->a), *xb = AT(v, s->b);                                                             \
        if (IS_SHORT(TG_##NAME_))                                                                                      \
            PUT_OF(NAME_, primal)                                                                                      \
        else                                                                                                           \
            NAME(long_primals)(TG_##NAME_, Y, xa, xb);                                                                 \
        if (TG_REFUSE_##refusal != TG_REFUSE_NEVER && !NAME(finite)(Y))                                                \
            NAME(check)(j, s, k, xa, xb, Y);                                                                           \
        break;                                                                                                         \
    }
#include "ops.def"
        case TG_DOT: {
            const uint32_t n = s->b & ~1u;
            const double *bias = s->b % 2 ? AT(v, pool[2 * n]) : zeros;
            const tg_weight *weights = LANES > 1 ? tg_weights_of(j, k, s->b / 2) : NULL;
            double sum[LANES];
            if (weights || !n)
                TG_TURNS_APART EACH Y[l] = bias[l];
            if (weights)
                NAME(add_weights)(Y, weights, n / 2, v, numbering);
            else if (n == 2)
                NAME(add_product)(j, Y, bias, pool);
            else if (n) {
                NAME(add_product)(j, sum, bias, pool);
                for (uint32_t i = 2; i + 2 < n; i += 2)
                    NAME(add_product)(j, sum, sum, pool + 2 * i);
                NAME(add_product)(j, Y, sum, pool + 2 * (n - 2));
            }
            break;
        }
        case TG_SUM:
            EACH t[l] = 0.0;
            for (uint32_t i = 0; i < s->b; i++)
                NAME(add_to)(t, AT(v, pool[2 * i]));
            EACH Y[l] = t[l];
            break;
        case TG_FSUM:
            EACH {
                double sum = 0.0, c = 0.0, d = 0.0;
                for (uint32_t i = 0; i < s->b; i++)
                    tg_fsum_add(&sum, &c, &d, AT(v, pool[2 * i])[l]);
                Y[l] = tg_fsum_total(sum, c, d);
            }
            if (!NAME(finite)(Y))
                NAME(check_terms)(j, s, k, pool, Y);
            break;
        case TG_LOGSUMEXP:
            EACH t[l] = -INFINITY;
            for (uint32_t i = 0; i < s->b; i++)
                NAME(top_of)(t, AT(v, pool[2 * i]));
            EACH total[l] = 0.0;
            for (uint32_t i = 0; i < s->b; i++) {
                const double *x = AT(v, pool[2 * i]);
                EACH total[l] += tg_exp(x[l] - t[l]);
            }
            EACH t[l] = isfinite(t[l]) ? t[l] + tg_log(total[l]) : t[l];
            EACH Y[l] = t[l];
            break;
        case TG_TOP:
            EACH t[l] = -INFINITY;
            for (uint32_t i = 0; i < s->b; i++)
                NAME(top_of)(t, AT(v, pool[2 * i]));
            EACH Y[l] = isfinite(t[l]) ? t[l] : 0.0;
            break;
        case TG_WHERE: NAME(choose)(Y, AT(v, pool[0]), AT(v, pool[2]), AT(v, pool[4])); break;
        case TG_GUARD: {
            const double *xa = AT(v, s->a), *xb = AT(v, s->b);
            const uint32_t asks = halves.of[TG_KEPT][k - from].y, refuses = (asks >> 1) - TG_REFUSES;
            const int as = (int)(refuses / TG_REFUSAL);
            uint32_t other = 0;
            switch (asks >> 1) {
#define HOW(how, sign) case how: EACH other |= (uint32_t)(xa[l] sign xb[l]) << l; break;
            TG_COMPARISONS(HOW)
#undef HOW
            default: EACH {
                int code;
                tg_evaluate((int)(refuses % TG_REFUSAL), xa[l], xb[l], &code);
                other |= (uint32_t)(as ? code == TG_ZERO_DIVISION + 1 - as : code != TG_OK) << l;
            }
            }
            if (asks & 1)
                other = ~other;
            if (other & (p->order ? ~0u : j->alive)) {
                NAME(out)(j, k, other, xa, xb, xa);
                if (!j->alive && !p->order)
                    return;
            }
            break;
        }
        default: break;
        }
    }
}

static void NAME(values)(tg_job *j, tg_halves s, uint32_t from, uint32_t to)
{
    NAME(forward)(j, s, from, to, TG_LIVE);
}

static void NAME(primals)(tg_job *j, tg_halves s, uint32_t from, uint32_t to)
{
    NAME(forward)(j, s, from, to, TG_KEPT);
}

/* What the products of a dot get: n operands, two a product. */
TG_INLINE void NAME(pass_on_products)(tg_job *j, const uint32_t *pool, uint32_t n, const double *g)
{
    const uint32_t n_const = j->program->n_const, n_fixed = n_const + j->program->n_in;
    const int any_shared = LANES > 1 && j->same;
    const uint8_t *idle = j->shared;
    const double *v = j->primal;
    double *adj = j->adj;
    for (uint32_t i = 0; i < n; i += 2, pool += 4) {
        if (any_shared && (WEIGHT(pool[0]) || WEIGHT(pool[2]))) {
            const uint32_t own = WEIGHT(pool[0]) ? 0 : 2;
            if (IS_WANTED(pool[3 - own]))
                NAME(add_scaled)(AT(adj, pool[3 - own]), g, j->same[pool[own]]);
            continue;
        }
        if (IS_WANTED(pool[1]))
            NAME(add_weighed)(AT(adj, pool[1]), g, AT(v, pool[2]));
        if (!IS_WANTED(pool[3]))
            continue;
        if (any_shared && SHARED(pool[0]))
            NAME(add_scaled)(AT(adj, pool[3]), g, j->same[pool[0]]);
        else
            NAME(add_weighed)(AT(adj, pool[3]), g, AT(v, pool[0]));
    }
}

/* Adjoints of the live slots, from instruction to - 1 down to from; those of constants are left out. */
TG_CLONES static void NAME(reverse)(tg_job *j, tg_halves halves, uint32_t from, uint32_t to)
{
    const tg_half *s = halves.of[TG_KEPT] + (to - from), *live = halves.of[TG_LIVE] + (to - from);
    const tg_program *p = j->program;
    const uint32_t n_const = p->n_const, n_fixed = n_const + p->n_in;
    const uint8_t *idle = j->shared;
    const double *v = j->primal;
    double *adj = j->adj, ga[LANES], gb[LANES];
    const double zero = tg_zero();
    for (uint32_t k = to; k-- > from;) {
        s--;
        live--;
        const uint32_t *pool = p->pool + 2 * (size_t)s->a;
        if (LANES == 1 && is_frequent(s)) {
            const tg_half *left = frequent_reverse(p, v, adj, s - (k - from), s + 1, live + 1);
            k -= (uint32_t)(s - left);
            live -= s - left;
            s = left;
            continue;
        }
        double *own = AT(adj, live->y), one[1] = {0.0};
        const double *g = LANES > 1 ? own : one;        /* no operand has that slot */
        if (tg_row(s) == TG_GUARD)
            continue;
        if (LANES == 1) {
            one[0] = own[0];
            own[0] = 0.0;
            if (one[0] == 0.0)
                continue;
        }
        switch (tg_row(s)) {
#define PASS(NAME_, slot, short_partial, long_partial)                                                                 \
    if (IS_WANTED(slot)) {                                                                                             \
        double *to = AT(adj, slot);                                                                                    \
        if (IS_SHORT(TG_##NAME_))                                                                                      \
            ADDED_OF(NAME_, short_partial)                                                                             \
        else                                                                                                           \
            NAME(add_to)(to, long_partial);                                                                            \
    }
#define ROW(NAME_, da)                                                                                                 \
    case TG_##NAME_: {                                                                                                 \
        const double *xa = AT(v, s->a), *xb = AT(v, s->b), *xy = AT(v, s->y);                                          \
        if (!IS_SHORT(TG_##NAME_))                                                                                     \
            NAME(long_partials)(TG_##NAME_, ga, gb, g, xa, xb, xy);                                                    \
        PASS(NAME_, live->a, da, ga)
#define TG_UNARY(NAME_, method, aliases, symbol, refusal, doc, primal, da, ...) ROW(NAME_, da) break; }
#define TG_BINARY(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                   \
        ROW(NAME_, da)                                                                                                 \
        PASS(NAME_, live->b, db, gb)                                                                                   \
        break;                                                                                                         \
    }
#include "ops.def"
#undef ROW
#undef PASS
        case TG_DOT: {
            const uint32_t n = s->b & ~1u;
            const tg_weight *weights = LANES > 1 ? tg_weights_of(j, k, s->b / 2) : NULL;
            double *kept = LANES > 1 ? tg_kept_adjoint(j, k) : NULL;
            if (s->b % 2 && IS_WANTED(pool[2 * n + 1]))
                NAME(add_to)(AT(adj, pool[2 * n + 1]), g);
            if (kept)
                TG_TURNS_APART EACH kept[l] = g[l];
            if (weights)
                NAME(pass_weights)(j, g, weights, n / 2);
            else
                NAME(pass_on_products)(j, pool, n, g);
            break;
        }
        case TG_SUM:
        case TG_FSUM:
            for (uint32_t i = 0; i < s->b; i++)
                if (IS_WANTED(pool[2 * i + 1]))
                    NAME(add_to)(AT(adj, pool[2 * i + 1]), g);
            break;
        case TG_WHERE:
            if (IS_WANTED(pool[3]))
                NAME(add_chosen)(AT(adj, pool[3]), AT(v, pool[0]), g, 0);
            if (IS_WANTED(pool[5]))
                NAME(add_chosen)(AT(adj, pool[5]), AT(v, pool[0]), g, 1);
            break;
        case TG_LOGSUMEXP:
            for (uint32_t i = 0; i < s->b; i++) {
                const double *x = AT(v, pool[2 * i]), *y = AT(v, s->y);
                if (!IS_WANTED(pool[2 * i + 1]))
                    continue;
                EACH ga[l] = WEIGHED(g[l], tg_exp(x[l] - y[l]));
                NAME(add_to)(AT(adj, pool[2 * i + 1]), ga);
            }
            break;
        default: break;
        }
        if (LANES > 1)                                  /* of -0.0, too: the job may start again in native code */
            TG_TURNS_APART EACH own[l] = zero;
    }
}

#include "lanes_along.h"

/* ---- between arrays of rows and slots ---- */

TG_CLONES static void NAME(read)(tg_job *j, const double *from, int64_t stride, uint32_t first, uint32_t count,
                                 double *to)
{
    const double *x[LANES];
    const uint32_t paired = LANES > 1 ? count & ~1u : 0, n_fixed = j->program->n_const + j->program->n_in;
    for (uint32_t i = 0; !stride && i < count; i++) {
        double same = from[i];
        if (!WEIGHT(first + i))
            EACH AT(to, first + i)[l] = same;
    }
    if (!stride)
        return;
    EACH x[l] = from + stride * tg_row_of(j, l);
    for (uint32_t i = 0; i < paired; i += TG_TILE)
        for (int l = 0; l + 1 < LANES; l += 2)
            for (uint32_t m = i; m < i + TG_TILE && m < paired; m += 2)
                tg_cross(x[l] + m, x[l + 1] + m, AT(to, first + m) + l, AT(to, first + m + 1) + l);
    for (uint32_t i = paired; i < count; i++)
        EACH AT(to, first + i)[l] = x[l][i];
}

static void NAME(load)(tg_job *j, int first_block)
{
    int64_t left = j->stop - j->base;
    j->alive = left < LANES ? (1u << left) - 1 : (uint32_t)((1ull << LANES) - 1);
    for (uint32_t k = 0; k < j->n_feeds; k++) {
        const tg_feed *f = j->feed + k;
        uint32_t slot = j->program->n_const + f->first;
        if (first_block || f->in_stride)
            NAME(read)(j, f->in, f->in_stride, slot, f->count, j->primal);
        if (j->tangents && f->tangent && (first_block || f->tangent_stride))
            NAME(read)(j, f->tangent, f->tangent_stride, slot, f->count, j->tangent);
    }
}

/* What the alive lanes have in slot after slot, to a row of its own each or added to one; slots holds pairs. */
static void NAME(write)(tg_job *j, const double *from, const uint32_t *slots, uint32_t n, double *to, int64_t stride)
{
    for (int l = 0; l < LANES; l++) {
        double *own = stride ? to + stride * tg_row_of(j, l) : to;
        uint32_t i = 0;
        if (!(j->alive >> l & 1))
            continue;
        for (const uint32_t *s = slots; stride && n - i >= 4; i += 4, s += 8) {     /* which take as long as two */
            const double w = AT(from, s[0])[l], x = AT(from, s[2])[l], y = AT(from, s[4])[l], z = AT(from, s[6])[l];
            own[i] = w;
            own[i + 1] = x;
            own[i + 2] = y;
            own[i + 3] = z;
        }
        for (; i < n; i++) {
            const double x = AT(from, slots[2 * (size_t)i])[l];
            own[i] = stride ? x : own[i] + x;
        }
    }
}

static void NAME(seeds)(tg_job *j)
{
    const tg_program *p = j->program;
    for (int l = 0; l < LANES; l++) {
        const double *seed = j->seed + (j->seed_stride ? j->seed_stride * tg_row_of(j, l) : 0);
        if (j->alive >> l & 1)
            for (uint32_t i = 0; i < p->n_out; i++)
                AT(j->adj, p->out[2 * i + 1])[l] += seed[i];
    }
}

/* The adjoints of count inputs, from x on, to a row of each alive lane. */
TG_CLONES static void NAME(collect_rows)(tg_job *j, const double *x, uint32_t count, double *to, int64_t stride)
{
    const uint32_t all = (uint32_t)((1ull << LANES) - 1), paired = LANES > 1 && j->alive == all ? count & ~1u : 0;
    double *own[LANES];
    EACH own[l] = to + stride * tg_row_of(j, l);
    for (uint32_t i = 0; i < paired; i += TG_TILE)
        for (int l = 0; l + 1 < LANES; l += 2)
            for (uint32_t m = i; m < i + TG_TILE && m < paired; m += 2)
                tg_cross(AT(x, m) + l, AT(x, m + 1) + l, own[l] + m, own[l + 1] + m);
    EACH if (j->alive >> l & 1)
        for (uint32_t i = paired; i < count; i++)
            own[l][i] = AT(x, i)[l];
}

/* The sums of count inputs, from slot `first` on, to where they are added up; none of weights. */
TG_CLONES static void NAME(collect_sums)(const tg_job *j, double *x, uint32_t first, uint32_t count, double *to)
{
    const uint32_t n_fixed = j->program->n_const + j->program->n_in;
    for (uint32_t i = 0; i < count; i++, x += LANES) {
        if (WEIGHT(first + i))
            continue;
        if (to)
            to[i] += LANES > 1 ? tg_sum_of_lanes(x) : x[0];
        EACH x[l] = 0.0;
    }
}

/* The adjoints of the inputs, which are 0 again afterwards; what is added up over rows stays until the last block, and
   what weights have is not here. */
static void NAME(collect)(tg_job *j, int last_block, double *adj, grad_of_feed *grad)
{
    for (uint32_t k = 0; k < j->n_feeds; k++) {
        const tg_feed *f = j->feed + k;
        const uint32_t first = j->program->n_const + f->first;
        int64_t stride;
        double *to = grad(f, &stride), *x = AT(adj, first);
        if (!stride && !last_block)
            continue;
        if (to && stride)
            NAME(collect_rows)(j, x, f->count, to, stride);
        if (stride)
            memset(x, 0, (size_t)f->count * LANES * sizeof *x);
        else
            NAME(collect_sums)(j, x, first, f->count, to);
    }
}

static const width NAME(width) = {
    .load = NAME(load), .values = NAME(values), .primals = NAME(primals), .tangents = NAME(tangents),
    .seeds = NAME(seeds), .reverse = NAME(reverse), .reverse_tangents = NAME(reverse_tangents), .write = NAME(write),
    .collect = NAME(collect),
};

#undef IS_WANTED
#undef WEIGHT
#undef SHARED
#undef IS
#undef IN_PART
#undef OF_PART
#undef PARTS
#undef PART
#undef AT
#undef EACH
#undef OF_ALL
