/*  Running totals, found, and what they add: see totals.h.  */
#include "wide/totals.h"
#include "compiled.h"
#include "flush.h"
#include "ops.h"
#include "wide/wide.h"

#include <stdlib.h>

enum {
    FEWEST = 2,                 /* pieces that add to a total, and more: else it is carried */
    IN_A_ROW = 4                /* additions, on average: to stop for fewer costs more than it saves */
};

/* ---- what is a total ---- */

enum { USED_ONCE = 1, USED_OFTEN = 2, ADDS = 4, TO_B = 8, SEEN = 16 };     /* TO_B: the total is its operand b */

typedef struct {
    const tg_program *p;
    tg_pieces *made;
    uint32_t fixed, *in_slot;   /* by kept slot: the value in it, a fixed slot or an instruction behind those */
    uint8_t *marks, mark;       /* by value */
    uint8_t *kind;              /* by value */
    uint32_t *before;           /* by instruction: the addition before it in its total, or TG_NONE */
    uint32_t *length;           /* by instruction: how many those are, with itself */
    uint32_t *total;            /* by instruction: 1 + the total that it belongs to, or 0 */
    uint32_t cap, spans, rows;  /* of totals, and how many of the others there may be */
} finding;

/* Whether it adds something, one thing after the other, to what one of its operands gives. */
static int adds(const tg_instr *s)
{
    return tg_row(s) == TG_ADD || tg_row(s) == TG_SUB || (tg_row(s) == TG_DOT && s->b % 2 && s->b > 1);
}

static uint32_t terms_of(const tg_instr *s) { return tg_row(s) == TG_DOT ? s->b / 2 : 1; }

/* The operand of an addition that is the total until there, as the pair of its slots. */
static void total_before(const tg_program *p, const tg_instr *s, int to_b, uint32_t *pair)
{
    const uint32_t *bias = p->pool + 2 * (s->a + (size_t)s->b - 1);
    const int many = tg_is_many(tg_row(s));
    pair[TG_KEPT] = many ? bias[0] : to_b ? s->b : s->a;
    pair[TG_LIVE] = many ? bias[1] : to_b ? s->live_b : s->live_a;
}

static void use(finding *f, uint32_t value)
{
    f->kind[value] = f->kind[value] & USED_ONCE ? (uint8_t)((f->kind[value] ^ USED_ONCE) | USED_OFTEN)
                     : f->kind[value] & USED_OFTEN ? f->kind[value] : f->kind[value] | USED_ONCE;
}

/* How many additions come before this operand, with the one that gives it. */
static uint32_t length_of(const finding *f, uint32_t value)
{
    return value >= f->fixed && f->kind[value] & ADDS ? f->length[value - f->fixed] : 0;
}

/* Count who uses what, and follow the longest row of additions up to each. */
static void survey(finding *f)
{
    const tg_program *p = f->p;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < f->fixed; k++)
        f->in_slot[k] = k;
    for (uint32_t k = 0, sum = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        const uint32_t own = f->fixed + k, n = tg_is_many(tg_row(s)) ? s->b : 2;
        const int is_long = sum < f->made->n_sums && f->made->sum[sum].at == k;
        uint32_t pair[2];
        for (uint32_t m = 0; m < n; m++)
            use(f, f->in_slot[tg_is_many(tg_row(s)) ? p->pool[2 * (size_t)(s->a + m)] : m ? s->b : s->a]);
        sum += (uint32_t)is_long;
        f->before[k] = TG_NONE;
        f->length[k] = 0;
        if (tg_row(s) == TG_GUARD)
            continue;
        if (adds(s) && !is_long) {
            uint32_t n_before;
            f->kind[own] |= ADDS;
            if (tg_row(s) == TG_ADD && length_of(f, f->in_slot[s->b]) > length_of(f, f->in_slot[s->a]))
                f->kind[own] |= TO_B;
            total_before(p, s, f->kind[own] & TO_B, pair);
            n_before = length_of(f, f->in_slot[pair[TG_KEPT]]);
            f->before[k] = n_before ? f->in_slot[pair[TG_KEPT]] - f->fixed : TG_NONE;
            f->length[k] = n_before + 1;
        }
        f->in_slot[s->y] = own;
    }
    for (uint32_t k = 0; k < p->n_out; k++)
        f->kind[f->in_slot[p->out[2 * (size_t)k]]] |= USED_OFTEN;
}

/* Whether the addition before this one goes on with it, and with nothing else. */
static int goes_on(const finding *f, uint32_t k)
{
    return f->before[k] != TG_NONE && (f->kind[f->fixed + f->before[k]] & (USED_ONCE | USED_OFTEN)) == USED_ONCE;
}

/* Have the additions up to this one, the last, be a total, if that is worth it. piece: where the last one is. */
static int choose(finding *f, uint32_t last, uint32_t piece)
{
    tg_pieces *s = f->made;
    uint32_t n = 1, rows = 1, pieces = 1, k = last, own = piece;
    for (; f->kind[f->fixed + k] |= SEEN, goes_on(f, k); k = f->before[k], n++) {
        rows += f->before[k] != k - 1;
        while (s->start[own] > f->before[k])
            own--;
        pieces += own < piece;
        piece = own;
    }
    if (pieces <= FEWEST || n / IN_A_ROW < rows)
        return TG_OK;
    if (s->n_totals == f->cap) {
        tg_total *more = tg_more(s->total, &f->cap, 8, sizeof *more);
        if (!more)
            return TG_MEMORY;
        s->total = more;
    }
    s->total[s->n_totals++] = (tg_total){.last = last};
    f->spans += pieces;
    f->rows += rows + pieces;
    for (k = last;; k = f->before[k]) {
        f->total[k] = s->n_totals;
        if (!goes_on(f, k))
            return TG_OK;
        f->marks[f->fixed + f->before[k]] |= f->mark;
    }
}

static int choose_all(finding *f)
{
    uint32_t piece = f->made->n_pieces - 1;
    int code = TG_OK;
    for (uint32_t k = f->p->n_instr; k-- > 0 && !code;) {
        while (f->made->start[piece] > k)
            piece--;
        if ((f->kind[f->fixed + k] & (ADDS | SEEN)) == ADDS)
            code = choose(f, k, piece);
    }
    return code;
}

/* ---- what each piece has to do ---- */

/* The total that an addition belongs to goes on with it; open: by total, its last span. */
static void add_link(finding *f, uint32_t piece, uint32_t k, const tg_instr *s, uint32_t *open)
{
    tg_pieces *made = f->made;
    const uint32_t t = f->total[k] - 1;
    tg_span *a = made->span + open[t];
    tg_links *l = made->links + made->n_links - 1;
    if (open[t] == TG_NONE || open[t] < made->first_span[piece]) {
        const uint32_t before = open[t] == TG_NONE ? TG_NONE : made->total[t].piece;
        a = made->span + (open[t] = made->n_spans++);
        *a = (tg_span){.total = t, .first = k, .n = before == TG_NONE, .before = before};
        made->total[t].piece = piece;
    }
    if (made->n_links == made->first_links[piece] || l->span != open[t] || l->at + l->n != k) {
        l = made->links + made->n_links++;
        *l = (tg_links){.at = k, .span = open[t], .room = a->n};
        total_before(f->p, s, f->kind[f->fixed + k] & TO_B, l->slot);
    }
    l->n++;
    a->n += terms_of(s);
    a->last = k;
}

static int lay(finding *f)
{
    tg_pieces *s = f->made;
    uint32_t *open = tg_realloc(NULL, s->n_totals * sizeof *open + 1);
    tg_window w;
    tg_open_window(&w, f->p);
    s->span = tg_realloc(NULL, f->spans * sizeof *s->span + 1);
    s->links = tg_realloc(NULL, f->rows * sizeof *s->links + 1);
    s->first_span = tg_zeroed((s->n_pieces + (size_t)1) * sizeof *s->first_span);
    s->first_links = tg_zeroed((s->n_pieces + (size_t)1) * sizeof *s->first_links);
    if (!open || !s->span || !s->links || !s->first_span || !s->first_links) {
        free(open);
        return TG_MEMORY;
    }
    for (uint32_t t = 0; t < s->n_totals; t++)
        open[t] = TG_NONE;
    for (uint32_t u = 0; u < s->n_pieces; u++) {
        uint32_t room = 0;
        for (uint32_t k = s->start[u]; k < s->start[u + 1] && s->n_totals; k++)
            if (f->total[k])
                add_link(f, u, k, tg_at(&w, k), open);
        for (tg_span *a = s->span + s->first_span[u]; a < s->span + s->n_spans; a++) {
            a->room = room;
            room += a->n;
        }
        s->n_room = room > s->n_room ? room : s->n_room;
        s->first_span[u + 1] = s->n_spans;
        s->first_links[u + 1] = s->n_links;
    }
    free(open);
    return TG_OK;
}

int tg_find_totals(const tg_program *p, tg_pieces *s, uint32_t *in_slot, uint8_t *marks, uint8_t mark)
{
    finding f = {.p = p, .made = s, .fixed = p->n_const + p->n_in, .in_slot = in_slot, .marks = marks, .mark = mark};
    int code = TG_MEMORY;
    f.kind = tg_zeroed(f.fixed + (size_t)p->n_instr + 1);
    f.before = tg_realloc(NULL, p->n_instr * sizeof *f.before + 1);
    f.length = tg_realloc(NULL, p->n_instr * sizeof *f.length + 1);
    f.total = tg_zeroed(p->n_instr * sizeof *f.total + 1);
    if (f.kind && f.before && f.length && f.total) {
        survey(&f);
        code = choose_all(&f);
        code = code ? code : lay(&f);
    }
    free(f.kind);
    free(f.before);
    free(f.length);
    free(f.total);
    return code;
}

/* ---- what is added, forward ---- */

tg_running *tg_make_running(const tg_pieces *s)
{
    tg_running *r = tg_zeroed(sizeof *r);
    if (!r)
        return NULL;
    r->pieces = s;
    r->added = tg_zeroed(s->n_pieces * sizeof *r->added);
    r->given = tg_zeroed(s->n_totals * sizeof *r->given + 1);
    r->sum[0] = tg_zeroed(2 * (size_t)s->n_totals * sizeof **r->sum + 1);
    if (!r->added || !r->given || !r->sum[0]) {
        tg_free_running(r);
        return NULL;
    }
    r->sum[1] = r->sum[0] + s->n_totals;
    return r;
}

void tg_free_running(tg_running *r)
{
    if (!r)
        return;
    free(r->added);
    free(r->given);
    free(r->sum[0]);
    free(r);
}

void tg_begin_running(tg_running *r)
{
    for (uint32_t k = 0; k < r->pieces->n_pieces; k++)
        tg_set_progress(r->added + k, 0);
    for (uint32_t k = 0; k < r->pieces->n_totals; k++)
        tg_set_progress(r->given + k, 0);
}

/* What an addition to the total in this slot adds; returns how many numbers that is. x: primals v, or tangents. */
TG_INLINE uint32_t hold(const tg_program *p, const tg_instr *s, uint32_t total, int live, const double *v,
                        const double *x, double *to)
{
    const int row = tg_row(s), to_b = row == TG_ADD && s->a != total, along = x != v;
    const uint32_t *pair = p->pool + 2 * (size_t)s->a + live;
    if (row != TG_DOT) {
        const double y = x[to_b ? live ? s->live_a : s->a : live ? s->live_b : s->b];
        *to = along && y == 0.0 ? 0.0 : row == TG_SUB && y == y ? -y : y;
        return 1;
    }
    for (uint32_t i = 0; i + 1 < s->b; i += 2, pair += 4) {
        const uint32_t a = pair[0], b = pair[2];
        to[i / 2] = along ? tg_product_along(v[a], x[a], v[b], x[b]) : v[a] * v[b];
    }
    return s->b / 2;
}

/* The number of numbers that additions from .. to - 1 add. */
static uint32_t count_terms(const tg_program *p, uint32_t from, uint32_t to)
{
    uint32_t n = 0;
    for (; from < to; from++) {
        const tg_instr s = tg_instruction(p, from);
        n += terms_of(&s);
    }
    return n;
}

/* What additions from .. to - 1 of a row add, primals or tangents. */
static void hold_terms(const tg_job *j, const tg_links *l, uint32_t from, uint32_t to, int along, double *room)
{
    const tg_program *p = j->program;
    const tg_wide *w = p->wide;
    const int live = tg_has_live_primals(j);
    const double *v = j->primal, *x = along ? j->tangent : v;
    uint32_t total = l->slot[TG_KEPT], at = tg_group_at(w, from);
    const tg_group *g;
    tg_window at_hand;
    tg_open_window(&at_hand, p);
    room += l->room + count_terms(p, l->at, from);
    if (from > l->at)
        total = tg_instruction(p, from - 1).y;
    for (uint32_t end; from < to; from = end) {
        end = tg_first_part(w, &at, from, to, &g);
        if (g && g->chain) {
            /* Where a total joins a chain, it may be what links add, and what they add to is its term. */
            const uint32_t k = from - g->first, turned =
                !tg_is_product(g, k) && tg_slot(w, &g->operand[1][TG_KEPT], tg_of_its_kind(g, k)) == total;
            if (turned) {
                const double y = x[k ? tg_slot(w, &g->operand[2][live], k - 1) : g->operand[0][live].at];
                *room = along && y == 0.0 ? 0.0 : y;
            }
            tg_chain_terms(j, g, k + turned, end - g->first, live, along, room + turned);
            room += end - from;
            total = tg_slot(w, &g->operand[2][TG_KEPT], end - 1 - g->first);
        } else
            for (uint32_t k = from; k < end; k++) {
                const tg_instr *s = tg_at(&at_hand, k);
                room += hold(p, s, total, live, v, x, room);
                total = s->y;
            }
    }
}

/* A total goes on by what a span adds, once that of the piece before has; where it is the last, to its result. */
static void add_span(tg_running *r, tg_job *j, const tg_span *a, uint32_t piece, const double *room)
{
    const tg_total *total = r->pieces->total + a->total;
    const uint32_t begun = a->before == TG_NONE;
    double y, dy = 0.0;
    if (!begun)
        tg_wait_for_progress(r->added + a->before, 1);
    room += a->room;
    y = begun ? *room : r->sum[0][a->total];
    for (uint32_t k = begun; k < a->n; k++)
        y += room[k];
    if (j->tangents) {
        const fp_mode mode = flush_to_zero();
        room += r->pieces->n_room;
        dy = begun ? *room : r->sum[1][a->total];
        for (uint32_t k = begun; k < a->n; k++)
            dy += room[k];
        restore_fp(mode);
    }
    if (total->piece == piece) {
        const tg_instr s = tg_instruction(j->program, total->last);
        j->primal[tg_has_live_primals(j) ? s.live_y : s.y] = y;
        if (j->tangents)
            j->tangent[s.y] = dy;
    } else {
        r->sum[0][a->total] = y;
        r->sum[1][a->total] = dy;
    }
}

/* Keep what additions from .. to - 1 of a row add, and what their total begins with if they are the first. */
static void hold_links(const tg_running *r, const tg_job *j, const tg_links *l, uint32_t from, uint32_t to,
                       double *room)
{
    const tg_span *a = r->pieces->span + l->span;
    room += a->room;
    if (a->before == TG_NONE && a->first == from)
        *room = j->primal[l->slot[tg_has_live_primals(j)]];
    hold_terms(j, l, from, to, 0, room);
    if (j->tangents) {
        const fp_mode mode = flush_to_zero();
        room += r->pieces->n_room;
        if (a->before == TG_NONE && a->first == from)
            *room = j->tangent[l->slot[TG_KEPT]];
        hold_terms(j, l, from, to, 1, room);
        restore_fp(mode);
    }
}

void tg_forward_running(tg_running *r, tg_job *j, double *room, uint32_t piece, uint32_t from, uint32_t to)
{
    const tg_pieces *s = r->pieces;
    const tg_links *const end = s->links + s->first_links[piece + 1];
    for (const tg_links *l = s->links + s->first_links[piece]; l < end && l->at < to; l++) {
        const uint32_t first = l->at > from ? l->at : from, behind = l->at + l->n < to ? l->at + l->n : to;
        const tg_span *a = s->span + l->span;
        if (behind <= from)
            continue;
        tg_forward_between(j, from, first);
        hold_links(r, j, l, first, behind, room);
        if (behind == s->total[a->total].last + 1)
            add_span(r, j, a, piece, room);
        from = behind;
    }
    tg_forward_between(j, from, to);
}

void tg_add_spans(tg_running *r, tg_job *j, const double *room, uint32_t piece)
{
    const tg_pieces *s = r->pieces;
    for (uint32_t k = s->first_span[piece]; k < s->first_span[piece + 1]; k++)
        if (s->total[s->span[k].total].piece != piece)
            add_span(r, j, s->span + k, piece, room);
    tg_set_progress(r->added + piece, 1);
}

/* ---- what is passed on, back ---- */

/* Additions from .. to - 1 of a row, one after the other. What the first of them has passed on to the total before it
   is known there, but for what that begins with. */
static void pass_in_turn(const tg_running *r, tg_job *j, const tg_links *l, uint32_t from, uint32_t to)
{
    const tg_span *a = r->pieces->span + l->span;
    const uint32_t before = from > l->at ? tg_instruction(j->program, from - 1).live_y : l->slot[TG_LIVE];
    tg_reverse_between(j, from, to);
    if (a->before == TG_NONE && a->first == from)
        return;
    j->adj[before] = 0.0;
    if (j->tangents)
        j->adj_tangent[before] = 0.0;
}

/* The last addition of a total passes on what has come to it, and tells what all others do. */
static void pass_last(tg_running *r, tg_job *j, const tg_links *l, uint32_t t)
{
    const uint32_t last = r->pieces->total[t].last, at = tg_instruction(j->program, last).live_y;
    r->sum[0][t] = 0.0 + j->adj[at];                    /* as it comes to the addition before: added to 0 */
    if (j->tangents)
        r->sum[1][t] = 0.0 + j->adj_tangent[at];
    tg_set_progress(r->given + t, 1);
    pass_in_turn(r, j, l, last, last + 1);
}

/* Additions from .. to - 1 of a row, none of which is the last of its total. Where that joins a chain, it may be what
   the first link adds. */
static void pass_links(const tg_running *r, tg_job *j, const tg_links *l, uint32_t from, uint32_t to)
{
    const tg_wide *w = j->program->wide;
    const uint32_t t = r->pieces->span[l->span].total;
    const tg_group *g;
    tg_wait_for_progress(r->given + t, 1);
    for (uint32_t at = tg_group_at(w, to - 1) + 1, start, last; to > from; to = start) {
        start = tg_last_part(w, &at, from, to, &g);
        if (g && g->chain && !j->tangents) {
            tg_chain_pass(j, g, start + 1 - g->first, to - g->first, r->sum[0][t]);
            to = start + 1;
        }
        last = tg_instruction(j->program, to - 1).live_y;
        j->adj[last] = r->sum[0][t];
        if (j->tangents)
            j->adj_tangent[last] = r->sum[1][t];
        pass_in_turn(r, j, l, start, to);
    }
}

void tg_reverse_running(tg_running *r, tg_job *j, uint32_t piece, uint32_t from, uint32_t to)
{
    const tg_pieces *s = r->pieces;
    for (const tg_links *l = s->links + s->first_links[piece + 1]; l-- > s->links + s->first_links[piece];) {
        const uint32_t t = s->span[l->span].total, first = l->at > from ? l->at : from;
        uint32_t behind = l->at + l->n < to ? l->at + l->n : to;
        if (first >= behind)
            continue;
        tg_reverse_between(j, behind, to);
        if (s->total[t].last == behind - 1) {
            pass_last(r, j, l, t);
            behind--;
        }
        if (first < behind)
            pass_links(r, j, l, first, behind);
        to = first;
    }
    tg_reverse_between(j, from, to);
}
