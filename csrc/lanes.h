/*  The replay of a block of LANES rows side by side: included by replay.c once for each width.

    Slot s of an array is the LANES doubles from s * LANES on. Each instruction is decoded once for the block, and the
    loop over its lanes is what the compiler vectorises: operands are read whether they count or not, and results go
    through a local array, which nothing aliases. No lane sees another, so a row has the same bits at any width.

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
#define IS(slot, mark) (LANES > 1 && j->shared && (slot) < n_fixed && j->shared[slot] & (mark))
#define SHARED(slot) IS(slot, TG_SHARED)
#define WEIGHT(slot) IS(slot, TG_WEIGHT)

/* Lanes that did not do as recorded are out from here on. */
static void NAME(out)(tg_job *j, uint32_t at, uint32_t lanes, const double *a, const double *b, const double *y)
{
    EACH if (lanes >> l & 1 && j->base + l < j->stop)
        tg_note_failure(j, l, at, a[l], b[l], y[l]);
}

static void NAME(check)(tg_job *j, uint32_t at, const double *a, const double *b, double *y)
{
    const tg_instr *s = j->program->instr + at;
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

static void NAME(check_terms)(tg_job *j, uint32_t at, const uint32_t *slot, double *y)
{
    double a[LANES], b[LANES];
    EACH tg_refused_terms(j->primal + l, slot, 2, j->program->instr[at].b, LANES, a + l, b + l);
    NAME(check)(j, at, a, b, y);
}

#include "each_lane.h"
#include "frequent.h"

static inline int NAME(finite)(const double *y)
{
    double sum = 0.0;
    EACH sum += y[l] - y[l];                            /* nan where one is infinite or nan */
    return sum == 0.0;
}

TG_INLINE void NAME(add_to)(double *to, const double *x) { EACH to[l] += x[l]; }
TG_INLINE void NAME(add_weighed)(double *to, const double *g, const double *partial)
{
    TG_TURNS_APART OF_PART to[l] += tg_passed_on(g[l], partial[l]);
}
TG_INLINE void NAME(add_scaled)(double *to, const double *g, double partial)
{
    TG_TURNS_APART OF_PART to[l] += tg_passed_on(g[l], partial);
}
/* The dot of weights and what is beside them, added to t; and what it passes on to that. */
TG_INLINE void NAME(add_weights)(double *restrict t, const tg_weight *w, uint32_t n, const double *v, int live)
{
    for (uint32_t i = 0; i < n; i++) {
        const double c = w[i].x, *x = AT(v, live ? w[i].live : w[i].kept);
        EACH t[l] += c * x[l];
    }
}
TG_INLINE void NAME(pass_weights)(const double *restrict g, const tg_weight *w, uint32_t n, double *adj,
                                  uint32_t n_const)
{
    for (uint32_t i = 0; i < n; i++) {
        const double c = w[i].x;
        double *restrict to = AT(adj, w[i].live);
        if (w[i].live < n_const)
            continue;
        EACH to[l] += tg_passed_on(g[l], c);
    }
}
TG_INLINE void NAME(top_of)(double *to, const double *x) { EACH to[l] = tg_max(to[l], x[l]); }

/* What `where` chooses, and what it passes on to what it has chosen from. to may be a or b. */
TG_INLINE void NAME(choose)(double *to, const double *c, const double *a, const double *b)
{
    double t[LANES];
    EACH t[l] = c[l] != 0.0 ? a[l] : b[l];
    EACH to[l] = t[l];
}
TG_INLINE void NAME(split)(const double *c, const double *g, double *ga, double *gb)
{
    EACH {
        ga[l] = c[l] != 0.0 ? g[l] : 0.0;
        gb[l] = c[l] != 0.0 ? 0.0 : g[l];
    }
}

/* Instructions from .. to - 1; live: over live slots, else over kept ones. */
TG_INLINE void NAME(forward)(tg_job *j, uint32_t from, uint32_t to, int live)
{
    const tg_program *p = j->program;
    const uint32_t n_fixed = p->n_const + p->n_in;
    double *v = j->primal, t[LANES], total[LANES];
    for (uint32_t k = from; k < to; k++) {
        const tg_instr *s = p->instr + k;
        const uint32_t *pool = p->pool + 2 * (size_t)s->a + (live ? 1 : 0);
        double *Y = AT(v, live ? s->live_y : s->y);
        if (LANES == 1 && is_frequent(s)) {
            k = (live ? frequent_values : frequent_primals)(p, v, k, to) - 1;
            continue;
        }
#define A AT(v, live ? s->live_a : s->a)
#define B AT(v, live ? s->live_b : s->b)
        switch (tg_row(s)) {
#define TG_FEW(NAME_, method, aliases, symbol, refusal, doc, primal, ...)                                              \
    case TG_##NAME_: {                                                                                                 \
        const double *xa = A, *xb = B;                                                                                 \
        if (IS_SHORT(TG_##NAME_))                                                                                      \
            PRIMALS_OF(NAME_, primal)                                                                                  \
        else                                                                                                           \
            NAME(long_primals)(TG_##NAME_, t, xa, xb);                                                                 \
        EACH Y[l] = t[l];                                                                                              \
        if (TG_REFUSE_##refusal != TG_REFUSE_NEVER && !NAME(finite)(t))                                                \
            NAME(check)(j, k, xa, xb, Y);                                                                              \
        break;                                                                                                         \
    }
#include "ops.def"
        case TG_DOT: {
            uint32_t n = s->b & ~1u;
            const double *bias = s->b % 2 ? AT(v, pool[2 * n]) : NULL;
            const tg_weight *weights = LANES > 1 ? tg_weights_of(j, k) : NULL;
            if (bias)                                   /* a choice by lane would read from nowhere, masked and slow */
                EACH t[l] = bias[l];
            else
                EACH t[l] = 0.0;
            if (weights)
                NAME(add_weights)(t, weights, n / 2, v, live);
            for (uint32_t i = 0; i < n && !weights; i += 2) {
                const double *x = AT(v, pool[2 * i]), *w = AT(v, pool[2 * i + 2]);
                if (WEIGHT(pool[2 * i + 2])) {
                    const double c = j->same[pool[2 * i + 2]];
                    EACH t[l] += x[l] * c;
                } else if (SHARED(pool[2 * i])) {
                    const double c = j->same[pool[2 * i]];
                    EACH t[l] += c * w[l];
                } else
                    EACH t[l] += x[l] * w[l];
            }
            EACH Y[l] = t[l];
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
                NAME(check_terms)(j, k, pool, Y);
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
            const double *xa = A, *xb = B;
            const uint32_t refuses = (s->y >> 1) - TG_REFUSES;
            const int as = (int)(refuses / TG_REFUSAL);
            uint32_t other = 0;
            switch (s->y >> 1) {
#define HOW(how, sign) case how: EACH other |= (uint32_t)(xa[l] sign xb[l]) << l; break;
            TG_COMPARISONS(HOW)
#undef HOW
            default: EACH {
                int code;
                tg_evaluate((int)(refuses % TG_REFUSAL), xa[l], xb[l], &code);
                other |= (uint32_t)(as ? code == TG_ZERO_DIVISION + 1 - as : code != TG_OK) << l;
            }
            }
            if (s->y & 1)
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
#undef A
#undef B
    }
}

TG_CLONES static void NAME(values)(tg_job *j, uint32_t from, uint32_t to) { NAME(forward)(j, from, to, 1); }
TG_CLONES static void NAME(primals)(tg_job *j, uint32_t from, uint32_t to) { NAME(forward)(j, from, to, 0); }

/* What the products of a dot get: n operands, two a product. */
TG_INLINE void NAME(pass_on_products)(tg_job *j, const uint32_t *pool, uint32_t n, const double *all)
{
    const uint32_t n_const = j->program->n_const, n_fixed = n_const + j->program->n_in;
    const double *v = j->primal;
    double *adj = j->adj;
    PARTS {
        double g[PART];
        OF_PART g[l] = all[q + l];
        for (uint32_t i = 0; i < n; i += 2, pool += 4) {
            const double *x = IN_PART(v, pool[0]), *w = IN_PART(v, pool[2]);
            if (WEIGHT(pool[0]) || WEIGHT(pool[2])) {
                const uint32_t own = WEIGHT(pool[0]) ? 0 : 2;
                if (pool[3 - own] >= n_const)
                    NAME(add_scaled)(IN_PART(adj, pool[3 - own]), g, j->same[pool[own]]);
                continue;
            }
            if (pool[1] >= n_const)
                NAME(add_weighed)(IN_PART(adj, pool[1]), g, w);
            if (pool[3] < n_const)
                continue;
            if (SHARED(pool[0]))
                NAME(add_scaled)(IN_PART(adj, pool[3]), g, j->same[pool[0]]);
            else
                NAME(add_weighed)(IN_PART(adj, pool[3]), g, x);
        }
        pool -= 2 * (size_t)n;
    }
}

/* Adjoints of the live slots, from instruction to - 1 down to from; those of constants are left out. */
TG_CLONES static void NAME(reverse)(tg_job *j, uint32_t from, uint32_t to)
{
    const tg_program *p = j->program;
    const uint32_t n_const = p->n_const;
    const double *v = j->primal;
    double *adj = j->adj, g[LANES], ga[LANES], gb[LANES];
    for (uint32_t k = to; k-- > from;) {
        const tg_instr *s = p->instr + k;
        const uint32_t *pool = p->pool + 2 * (size_t)s->a;
        double *G = AT(adj, s->live_y);
        if (LANES == 1 && is_frequent(s)) {
            k = frequent_reverse(p, v, adj, from, k + 1);
            continue;
        }
        if (tg_row(s) == TG_GUARD)
            continue;
        EACH g[l] = G[l];
        EACH G[l] = 0.0;                                /* of -0.0, too: the job may start again in native code */
        if (LANES == 1 && g[0] == 0.0)
            continue;
        switch (tg_row(s)) {
#define PASS(NAME_, live, short_partial, long_partial)                                                                 \
    if ((live) >= n_const) {                                                                                           \
        double *to = AT(adj, live);                                                                                    \
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
        PASS(NAME_, s->live_a, da, ga)
#define TG_UNARY(NAME_, method, aliases, symbol, refusal, doc, primal, da, ...) ROW(NAME_, da) break; }
#define TG_BINARY(NAME_, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                   \
        ROW(NAME_, da)                                                                                                 \
        PASS(NAME_, s->live_b, db, gb)                                                                                 \
        break;                                                                                                         \
    }
#include "ops.def"
#undef ROW
#undef PASS
        case TG_DOT: {
            const uint32_t n = s->b & ~1u;
            const tg_weight *weights = LANES > 1 ? tg_weights_of(j, k) : NULL;
            double *kept = LANES > 1 ? tg_kept_adjoint(j, k) : NULL;
            if (s->b % 2 && pool[2 * n + 1] >= n_const)
                NAME(add_to)(AT(adj, pool[2 * n + 1]), g);
            if (kept)
                EACH kept[l] = g[l];
            if (weights)
                NAME(pass_weights)(g, weights, n / 2, adj, n_const);
            else
                NAME(pass_on_products)(j, pool, n, g);
            break;
        }
        case TG_SUM:
        case TG_FSUM:
            for (uint32_t i = 0; i < s->b; i++)
                if (pool[2 * i + 1] >= n_const)
                    NAME(add_to)(AT(adj, pool[2 * i + 1]), g);
            break;
        case TG_WHERE:
            NAME(split)(AT(v, pool[0]), g, ga, gb);
            if (pool[3] >= n_const)
                NAME(add_to)(AT(adj, pool[3]), ga);
            if (pool[5] >= n_const)
                NAME(add_to)(AT(adj, pool[5]), gb);
            break;
        case TG_LOGSUMEXP:
            for (uint32_t i = 0; i < s->b; i++) {
                const double *x = AT(v, pool[2 * i]), *y = AT(v, s->y);
                if (pool[2 * i + 1] < n_const)
                    continue;
                EACH ga[l] = WEIGHED(g[l], tg_exp(x[l] - y[l]));
                NAME(add_to)(AT(adj, pool[2 * i + 1]), ga);
            }
            break;
        default: break;
        }
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
