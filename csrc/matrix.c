/*  Jacobians and Hessians at one point: the primals are there, and DIRECTIONS tangents or adjoints go side by side.

    At a point an instruction is linear: a sum of terms, slope * operand or slope * a + slope * b each. They are written
    down once, and for a Hessian also how slopes bend and the adjoints of the one sweep. Then every block of directions
    is a walk over terms, without an operation's partial in it.

    What no direction of a block moves is passed over, so a sparse matrix costs what its blocks do that are not 0. That
    is what lanes.h computes as 0: where an adjoint is not finite, 0 times it is not, and the instruction stays. The
    numbers are those of lanes.h, term by term, for the same bits. A group of a wide program is passed over at once:
    where its operands lie side by side, so do the marks of what moves.  */
#include "matrix.h"
#include "compiled.h"
#include "flush.h"
#include "ops.h"
#include "wide/wide.h"

#include <stdlib.h>
#include <string.h>

#define DIRECTIONS 16
#define EACH for (int l = 0; l < DIRECTIONS; l++)
#define AT(array, slot) ((array) + (size_t)(slot) * DIRECTIONS)

enum phase { SLOPES, BENDS, SEEDS, FORWARD, REVERSE, WRITE };

enum { STRAIGHT, BENT, WILD };              /* WILD: by an adjoint that is not finite, so that 0 times it counts */

struct tg_line {
    uint32_t y, live_y, first;              /* y: TG_NONE of a guard; first: its terms start there */
    uint32_t how;
};

/* Adjoints go to operands that are live: TG_NONE is none. */
struct tg_term {
    uint32_t kept[2], live[2];
    double slope[2];
};

/* The second partials of a term; of a SHARE, that of a logsumexp, aa is it, and kept[1] of the term is the result. */
enum { NO_BEND, BEND, SHARE };
struct tg_bend {
    double aa, ab, bb;
    int what;
};

/* ---- what a row is at a point ---- */

/* First partials; returns 1 where a gets something, plus 2 where b does. */
static int slopes_of(int op, double a, double b, double y, double *to)
{
    (void)a, (void)b, (void)y;
    switch (op) {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, primal, da, daa)                                         \
    case TG_##NAME: to[0] = da; return TG_FLAT(da) ? 0 : 1;
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
    case TG_##NAME: to[0] = da; to[1] = db; return (TG_FLAT(da) ? 0 : 1) + (TG_FLAT(db) ? 0 : 2);
#include "ops.def"
    default: return 0;
    }
}

static struct tg_bend bend_of(int op, double a, double b, double y)
{
    (void)a, (void)b, (void)y;
    switch (op) {
#define TG_FEW(NAME, method, aliases, symbol, refusal, doc, primal, da, db, daa, dab, dbb)                             \
    case TG_##NAME:                                                                                                    \
        return (struct tg_bend){daa, dab, dbb, TG_FLAT(daa) && TG_FLAT(dab) && TG_FLAT(dbb) ? NO_BEND : BEND};
#include "ops.def"
    default: return (struct tg_bend){0.0, 0.0, 0.0, NO_BEND};
    }
}

static uint64_t terms_of(const tg_instr *s)
{
    const int op = tg_row(s);
    if (op == TG_GUARD || op == TG_TOP)
        return 0;
    return op == TG_WHERE || !tg_is_many(op) ? 1 : op == TG_DOT ? s->b / 2 + s->b % 2 : s->b;
}

/* Constants are none's operands, for nothing moves them. */
static void put(const tg_program *p, struct tg_term *e, int k, const uint32_t *pair, double slope)
{
    e->kept[k] = pair[0];
    e->live[k] = pair[1] < p->n_const ? TG_NONE : pair[1];
    e->slope[k] = slope;
}

/* The terms of instruction k, s. */
static void write_terms(tg_matrix *m, uint32_t k, const tg_instr *s)
{
    const tg_program *p = m->program;
    const double *v = m->primal;
    const uint32_t n = tg_is_many(tg_row(s)) ? s->b : 0, *pool = p->pool + 2 * (size_t)s->a;
    struct tg_line *line = m->line + k;
    struct tg_term *e = m->term + line->first, none = {{0, 0}, {TG_NONE, TG_NONE}, {0.0, 0.0}};
    line->y = tg_row(s) == TG_GUARD ? TG_NONE : s->y;
    line->live_y = s->live_y;
    line->how = STRAIGHT;
    *e = none;                              /* there is one behind the last */
    switch (tg_row(s)) {
    case TG_GUARD:
    case TG_TOP: break;
    case TG_DOT:
        if (n % 2)
            put(p, e++, 0, pool + 2 * (size_t)(n - 1), 1.0);
        for (uint32_t i = 0; i + 1 < n; i += 2, e++) {
            const uint32_t *x = pool + 2 * (size_t)i, *w = x + 2;
            *e = none;
            put(p, e, 0, x, v[w[0]]);
            put(p, e, 1, w, v[x[0]]);
        }
        break;
    case TG_SUM:
    case TG_FSUM:
    case TG_LOGSUMEXP:
        for (uint32_t i = 0; i < n; i++, e++) {
            const uint32_t *x = pool + 2 * (size_t)i;
            *e = none;
            put(p, e, 0, x, tg_row(s) == TG_LOGSUMEXP ? tg_exp(v[x[0]] - v[s->y]) : 1.0);
            e->kept[1] = s->y;
        }
        break;
    case TG_WHERE:
        put(p, e++, 0, pool + (v[pool[0]] != 0.0 ? 2 : 4), 1.0);
        break;
    default: {
        double slope[2] = {0.0, 0.0};
        const uint32_t a[2] = {s->a, s->live_a}, b[2] = {s->b, s->live_b};
        const int which = slopes_of(tg_row(s), v[s->a], v[s->b], v[s->y], slope);
        if (which & 1)
            put(p, e, 0, a, slope[0]);
        if (which & 2)
            put(p, e, 1, b, slope[1]);
        e++;
    }
    }
    m->line[k + 1].first = (uint32_t)(e - m->term);
}

/* The adjoint of instruction k, s, goes on to its operands, one lane wide, and bends its slopes. */
static void write_bends(tg_matrix *m, uint32_t k, const tg_instr *s)
{
    struct tg_line *line = m->line + k;
    const double *v = m->primal, g = line->y == TG_NONE ? 0.0 : m->adjoint[line->live_y];
    m->weight[k] = g;
    if (line->y == TG_NONE)
        return;
    m->adjoint[line->live_y] = 0.0;
    for (uint32_t i = line->first; i < line[1].first; i++) {
        struct tg_term *e = m->term + i;
        struct tg_bend *bend = m->bend + i;
        *bend = (struct tg_bend){0.0, 0.0, 0.0, NO_BEND};
        if (g == 0.0)
            continue;
        for (int side = 0; side < 2; side++)
            if (e->live[side] != TG_NONE)
                m->adjoint[e->live[side]] += g * e->slope[side];
        if (tg_row(s) == TG_DOT)
            *bend = (struct tg_bend){0.0, 1.0, 0.0, s->b % 2 && i == line->first ? NO_BEND : BEND};
        else if (tg_row(s) == TG_LOGSUMEXP)
            *bend = (struct tg_bend){e->slope[0], 0.0, 0.0, SHARE};
        else if (!tg_is_many(tg_row(s)))
            *bend = bend_of(tg_row(s), v[s->a], v[s->b], v[s->y]);
        if (bend->what == NO_BEND)
            continue;
        if (!isfinite(g))
            line->how = WILD;
        else if (line->how == STRAIGHT && (bend->aa != 0.0 || bend->ab != 0.0 || bend->bb != 0.0))
            line->how = BENT;
    }
}

/* ---- groups ---- */

static int any(const uint8_t *mark, size_t n)
{
    size_t k = 0;
    for (uint64_t eight; k + 8 <= n; k += 8) {
        memcpy(&eight, mark + k, sizeof eight);
        if (eight)
            return 1;
    }
    for (; k < n; k++)
        if (mark[k])
            return 1;
    return 0;
}

/* Whether anything moves a group's operands, as far as is easily seen: those of sums of many terms, and of chains, may
   always move. */
static int may_move(const tg_matrix *m, const tg_group *g)
{
    const tg_wide *w = m->program->wide;
    if (g->chain || !tg_has_few(g))
        return 1;
    for (uint32_t i = 0; i < (g->terms ? g->terms : 2) && g->op != TG_GUARD; i++) {
        const tg_slots *s = &g->operand[i][TG_KEPT];
        if (s->how == TG_SIDE_BY_SIDE && any(m->moves + s->at, g->n))
            return 1;
        for (uint32_t k = 0; s->how != TG_SIDE_BY_SIDE && k < (s->how == TG_SAME ? 1 : g->n); k++)
            if (m->moves[tg_slot(w, s, k)])
                return 1;
    }
    return 0;
}

/* How the lines of each group are, to bends. */
static void note_bends(tg_matrix *m)
{
    const tg_wide *w = m->program->wide;
    for (uint32_t i = 0; w && i < w->n; i++) {
        m->bends[i] = STRAIGHT;
        for (uint32_t k = w->group[i].first; k < w->group[i].first + w->group[i].n; k++)
            if (m->line[k].how > m->bends[i])
                m->bends[i] = (uint8_t)m->line[k].how;
    }
}

/* Whether it may pass anything on. */
static int may_pass_on(const tg_matrix *m, const tg_group *g)
{
    const int bends = m->how == TG_HESSIAN ? m->bends[g - m->program->wide->group] : STRAIGHT;
    if (g->op == TG_GUARD)
        return 0;
    return g->chain || bends == WILD || any(m->counts + g->y[TG_LIVE], g->n) || (bends == BENT && may_move(m, g));
}

/* ---- a block of directions ---- */

/* Whether anything moves an operand of a line. */
TG_INLINE int moves_any(const tg_matrix *m, const struct tg_line *line)
{
    uint8_t moves = 0;
    for (const struct tg_term *e = m->term + line->first; e < m->term + line[1].first; e++)
        moves |= m->moves[e->kept[0]] | m->moves[e->kept[1]];
    return moves;
}

/* Add the tangent of a term to a line's, or begin that with it; whether there is one. */
TG_INLINE int add_term(const tg_matrix *m, const struct tg_term *e, double *to, int begun)
{
    const int a = e->live[0] != TG_NONE && m->moves[e->kept[0]] && e->slope[0] != 0.0;
    const int b = e->live[1] != TG_NONE && m->moves[e->kept[1]] && e->slope[1] != 0.0;
    const double *x = AT(m->tangent, e->kept[a ? 0 : 1]), *z = AT(m->tangent, e->kept[1]);
    const double c = e->slope[a ? 0 : 1], d = e->slope[1];
    if (a && b && begun)
        TG_TURNS_APART EACH to[l] += tg_weigh(x[l], c) + tg_weigh(z[l], d);
    else if (a && b)
        TG_TURNS_APART EACH to[l] = 0.0 + (tg_weigh(x[l], c) + tg_weigh(z[l], d));
    else if ((a || b) && begun)
        TG_TURNS_APART EACH to[l] += tg_weigh(x[l], c);
    else if (a || b)
        TG_TURNS_APART EACH to[l] = 0.0 + tg_weigh(x[l], c);
    return begun || a || b;
}

TG_CLONES static void forward(tg_matrix *m, uint32_t from, uint32_t to)
{
    for (uint32_t k = from; k < to; k++) {
        const struct tg_line *line = m->line + k;
        int moved = 0;
        if (line->y == TG_NONE)
            continue;
        if (moves_any(m, line))
            for (uint32_t i = line->first; i < line[1].first; i++)
                moved = add_term(m, m->term + i, AT(m->tangent, line->y), moved);
        m->moves[line->y] = (uint8_t)moved;
    }
}

TG_INLINE void add_to(tg_matrix *m, uint32_t live, const double *x)
{
    double *to = AT(m->adjoint, live);
    if (m->counts[live])
        EACH to[l] += x[l];
    else
        EACH to[l] = 0.0 + x[l];
    m->counts[live] = 1;
}

/* Adjoints; of a Hessian their derivatives along the tangents. */
TG_CLONES static void reverse(tg_matrix *m, uint32_t from, uint32_t to)
{
    const double still[DIRECTIONS] = {0.0};
    double h[DIRECTIONS], x[DIRECTIONS], z[DIRECTIONS];
    for (uint32_t k = to; k-- > from;) {
        const struct tg_line *line = m->line + k;
        const int counts = line->y != TG_NONE && m->counts[line->live_y];
        if (line->y == TG_NONE || (!counts && line->how == STRAIGHT))
            continue;
        if (counts)
            EACH h[l] = AT(m->adjoint, line->live_y)[l];
        else
            EACH h[l] = 0.0;
        m->counts[line->live_y] = 0;
        for (uint32_t i = line->first; i < line[1].first; i++) {
            const struct tg_term *e = m->term + i;
            const double c = e->slope[0], d = e->slope[1];
            if (!counts && line->how == BENT && !m->moves[e->kept[0]] && !m->moves[e->kept[1]])
                continue;
            if (line->how == STRAIGHT || m->bend[i].what == NO_BEND) {
                if (e->live[0] != TG_NONE) {
                    EACH x[l] = tg_weigh(h[l], c);
                    add_to(m, e->live[0], x);
                }
                if (e->live[1] != TG_NONE) {
                    EACH x[l] = tg_weigh(h[l], d);
                    add_to(m, e->live[1], x);
                }
                continue;
            }
            const struct tg_bend bend = m->bend[i];
            const double g = m->weight[k];
            const double *ta = m->moves[e->kept[0]] ? AT(m->tangent, e->kept[0]) : still;
            const double *tb = m->moves[e->kept[1]] ? AT(m->tangent, e->kept[1]) : still;
            if (bend.what == SHARE)
                EACH x[l] = tg_weigh(h[l], c) + g * (bend.aa * (ta[l] - tb[l]));
            else
                EACH {
                    const double a = ta[l], b = tb[l];
                    x[l] = tg_weigh(h[l], c) + g * (tg_bent_along(bend.aa, a) + tg_bent_along(bend.ab, b));
                    z[l] = tg_weigh(h[l], d) + g * (tg_bent_along(bend.ab, a) + tg_bent_along(bend.bb, b));
                }
            if (e->live[0] != TG_NONE)
                add_to(m, e->live[0], x);
            if (e->live[1] != TG_NONE)
                add_to(m, e->live[1], z);
        }
    }
}

/* Both of them, group by group where there are some. */
static void upwards(tg_matrix *m, uint32_t from, uint32_t to)
{
    const tg_wide *w = m->program->wide;
    const tg_group *g;
    for (uint32_t at = w ? tg_group_at(w, from) : 0, end; from < to; from = end) {
        end = tg_first_part(w, &at, from, to, &g);
        if (!g || end - from < g->n || may_move(m, g))
            forward(m, from, end);
        else if (g->op != TG_GUARD)
            memset(m->moves + g->y[TG_KEPT], 0, g->n);
    }
}

static void downwards(tg_matrix *m, uint32_t from, uint32_t to)
{
    const tg_wide *w = m->program->wide;
    const tg_group *g;
    for (uint32_t at = w && to ? tg_group_at(w, to - 1) + 1 : 0, start; to > from; to = start) {
        start = tg_last_part(w, &at, from, to, &g);
        if (!g || to - start < g->n || may_pass_on(m, g))
            reverse(m, start, to);
    }
}

static uint32_t in_block(const tg_matrix *m)
{
    return m->count - m->done < DIRECTIONS ? m->count - m->done : DIRECTIONS;
}

static void seeds(tg_matrix *m)
{
    const tg_program *p = m->program;
    const uint32_t n = in_block(m), first = p->n_const + m->first + m->done;
    double unit[DIRECTIONS];
    for (uint32_t i = 0; i < p->n_in && m->how != TG_ROWS; i++)
        m->moves[p->n_const + i] = 0;
    for (uint32_t k = 0; k < n; k++) {
        EACH unit[l] = l == (int)k ? 1.0 : 0.0;
        if (m->how == TG_ROWS)
            add_to(m, p->out[2 * (size_t)(m->first + m->done + k) + 1], unit);
        else {
            memcpy(AT(m->tangent, first + k), unit, sizeof unit);
            m->moves[first + k] = 1;
        }
    }
}

static void write_columns(tg_matrix *m)
{
    const tg_program *p = m->program;
    const uint32_t n = in_block(m);
    for (uint32_t i = 0; i < p->n_out; i++) {
        const uint32_t y = p->out[2 * (size_t)i];
        double *to = m->out + m->out_stride * (int64_t)i + m->done;
        if (m->moves[y] && n == DIRECTIONS)
            memcpy(to, AT(m->tangent, y), DIRECTIONS * sizeof *to);
        else if (m->moves[y])
            memcpy(to, AT(m->tangent, y), n * sizeof *to);
        else
            memset(to, 0, n * sizeof *to);
    }
}

/* Turned, eight inputs at a time, for a row of the result is a lane; nothing counts afterwards. */
static void write_rows(tg_matrix *m)
{
    const uint32_t n_const = m->program->n_const, n = in_block(m);
    for (uint32_t f = 0; f < m->n_feeds; f++) {
        const tg_feed *feed = m->feed + f;
        const uint32_t first = n_const + feed->first;
        for (uint32_t i = 0; i < feed->count; i += 8) {
            const uint32_t end = feed->count - i < 8 ? feed->count : i + 8;
            for (uint32_t l = 0; l < n; l++) {
                double *row = feed->grad + feed->grad_stride * (int64_t)(m->done + l);
                for (uint32_t c = i; c < end; c++)
                    row[c] = m->counts[first + c] ? AT(m->adjoint, first + c)[l] : 0.0;
            }
        }
    }
    memset(m->counts + n_const, 0, m->program->n_in);
}

/* ---- the machine ---- */

int tg_matrix_start(tg_matrix *m)
{
    const tg_program *p = m->program;
    const int second = m->how == TG_HESSIAN;
    const size_t kept = m->how == TG_ROWS ? 0 : p->n_kept * (size_t)DIRECTIONS;
    const size_t live = m->how == TG_COLUMNS ? 0 : p->n_live * (size_t)DIRECTIONS;
    const uint32_t groups = second && p->wide ? p->wide->n : 0;
    uint64_t terms = 1, bytes;
    char *at;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++)
        terms += terms_of(tg_at(&w, k));
    bytes = 64 + (kept + live) * sizeof(double) + terms * (sizeof *m->term + (second ? sizeof *m->bend : 0)) +
            (second ? p->n_instr * sizeof(double) : 0) + (p->n_instr + (uint64_t)1) * sizeof *m->line +
            p->n_kept + p->n_live + groups;
    m->memory = terms < TG_NONE && bytes <= SIZE_MAX ? tg_realloc(NULL, (size_t)bytes) : NULL;
    if (!m->memory)
        return TG_MEMORY;
    at = (char *)(((uintptr_t)m->memory + 63) & ~(uintptr_t)63);
#define TAKE(member, count) (m->member = (void *)at, at += (count) * sizeof *m->member)
    TAKE(tangent, kept);
    TAKE(adjoint, live);
    TAKE(term, terms);
    TAKE(bend, second ? terms : 0);
    TAKE(weight, second ? p->n_instr : 0);
    TAKE(line, p->n_instr + (size_t)1);
    TAKE(moves, p->n_kept);
    TAKE(counts, p->n_live);
    TAKE(bends, groups);
#undef TAKE
    memset(m->moves, 0, (size_t)p->n_kept + p->n_live);
    m->line[0].first = 0;
    m->phase = m->count ? SLOPES : WRITE;
    m->at = m->done = 0;
    return TG_OK;
}

void tg_matrix_finish(tg_matrix *m)
{
    free(m->memory);
    m->memory = NULL;
}

static void start_bends(tg_matrix *m)
{
    const tg_program *p = m->program;
    memset(m->adjoint, 0, p->n_live * sizeof *m->adjoint);
    for (uint32_t k = 0; k < p->n_out; k++)
        m->adjoint[p->out[2 * (size_t)k + 1]] += m->seed[k];
}

/* The step of the machine, as replay.c has one. */
static uint32_t advance(tg_matrix *m, uint64_t budget)
{
    const uint32_t n = m->program->n_instr, from = m->at;
    const uint32_t step = n - from < budget ? n - from : (uint32_t)budget, to = from + step;
    const int over = to == n;
    tg_window w;
    tg_open_window(&w, m->program);
    m->at = over ? 0 : to;
    switch ((enum phase)m->phase) {
    case SLOPES:
        for (uint32_t k = from; k < to; k++)
            write_terms(m, k, tg_at(&w, k));
        if (over && m->how == TG_HESSIAN)
            start_bends(m);
        if (over)
            m->phase = m->how == TG_HESSIAN ? BENDS : SEEDS;
        break;
    case BENDS:                                 /* at counts from the end */
        for (uint32_t k = n - from; k-- > n - to;)
            write_bends(m, k, tg_at(&w, k));
        if (over) {
            note_bends(m);
            m->phase = SEEDS;
        }
        break;
    case SEEDS:
        seeds(m);
        m->phase = m->how == TG_ROWS ? REVERSE : FORWARD;
        m->at = 0;
        return 1;
    case FORWARD:
        upwards(m, from, to);
        if (over)
            m->phase = m->how == TG_HESSIAN ? REVERSE : WRITE;
        break;
    case REVERSE:
        downwards(m, n - to, n - from);
        if (over)
            m->phase = WRITE;
        break;
    case WRITE:
        if (m->how == TG_COLUMNS)
            write_columns(m);
        else
            write_rows(m);
        m->done += in_block(m);
        m->phase = SEEDS;
        m->at = 0;
        return 1;
    }
    return step;
}

int tg_matrix_run(tg_matrix *m, uint64_t budget)
{
    const fp_mode mode = flush_to_zero();
    while (m->done < m->count && budget > 0) {
        const uint32_t took = advance(m, budget);
        budget -= took < budget ? took : budget;
    }
    restore_fp(mode);
    return m->done < m->count;
}
