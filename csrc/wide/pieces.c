/*  Cutting a wide program into pieces, and what is carried between them: see pieces.h.  */
#include "wide/pieces.h"
#include "crew.h"
#include "ops.h"
#include "wide/spread.h"
#include "wide/totals.h"
#include "wide/wide.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 3000,               /* instructions, at least: fewer than any tile, more than half of one */
    TILES = 4,                  /* in a piece, where there are PIECES all the same, and those pay: to begin one takes
                                   its time, but others begin sooner with what waits for it */
    PIECES = 64,
    FEWEST = 4,                 /* pieces that are worth it */
    NEIGHBOURS = 64,
    STEPS = 16,                 /* of a piece that would have many */
    NEAR = 8                    /* pieces that may be under way together: what they wait for is carried at once */
};

/* What a piece has to do with a value that crosses: one after the other of each value, who makes it first. */
typedef struct {
    uint32_t piece, first, last;        /* its first and last instruction that touches it */
    uint32_t passed;                    /* how often adjoints are added to it, at most */
    uint32_t place, origin;             /* origin: the first touch of the value */
    uint32_t before, after;             /* those next to it, or TG_NONE */
    uint32_t told[TG_WAYS];             /* after so many steps others see what this piece has to say */
    int output;                         /* of an origin */
} touch;

enum { OUT, IN };
typedef struct {
    uint32_t at;                /* how many instructions of the piece come before it */
    uint32_t how, touch;
    uint32_t on;                /* a touch that is waited for, or TG_NONE */
    uint32_t place;
} carry;

typedef struct {
    const tg_program *p;
    tg_pieces *made;
    uint32_t tiles, fixed;      /* tiles: in a piece, at most */
    uint32_t *in_slot;          /* by kept slot: the value in it, a fixed slot or an instruction behind those */
    uint32_t *last;             /* by value: its last touch */
    uint8_t *crosses;           /* by value */
    touch *touch;
    uint32_t n_touches, cap;
    carry *carried;             /* of a piece */
    uint32_t n_carried;
    uint32_t *met;              /* by piece: 1 + the last wait for it */
    uint32_t n_steps, n_waits, n_moves;
} cutting;
enum { READ_ELSEWHERE = 1, IS_OUTPUT = 2, CROSSES = READ_ELSEWHERE | IS_OUTPUT, IS_TERM = 4, IS_TOTAL = 8 };
enum { NOT_WORTH = 1 };         /* a code: too few pieces, or too much to carry */

typedef int on_operand(cutting *c, uint32_t value, uint32_t piece, uint32_t k, const tg_instr *s);
typedef int on_result(cutting *c, uint32_t piece, uint32_t k);

/* Tell of all operands and results but constants, terms of long sums that other pieces make, and running totals before
   they are done; stops where what is told says so. */
static int walk(cutting *c, on_operand *operand, on_result *result)
{
    const tg_program *p = c->p;
    uint32_t sum = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < c->fixed; k++)
        c->in_slot[k] = k;
    for (uint32_t u = 0; u < c->made->n_pieces; u++)
        for (uint32_t k = c->made->start[u]; k < c->made->start[u + 1]; k++) {
            const tg_instr *s = tg_at(&w, k);
            const int row = tg_row(s), many = row != TG_GUARD && tg_is_many(row);
            const uint32_t pair[2] = {s->a, s->b};
            const uint32_t n = many ? s->b : s->a == s->b && row != TG_GUARD && !tg_passes_to_b(row) ? 1 : 2;
            const int is_long = sum < c->made->n_sums && c->made->sum[sum].at == k;
            for (uint32_t m = is_long ? c->made->sum[sum++].own : 0; m < n; m++) {
                const uint32_t value = c->in_slot[many ? p->pool[2 * (size_t)(s->a + m)] : pair[m]];
                const int untold = value < p->n_const || c->crosses[value] & IS_TOTAL;
                const int code = untold ? TG_OK : operand(c, value, u, k, s);
                if (code)
                    return code;
            }
            if (row != TG_GUARD) {
                const int code = c->crosses[c->fixed + k] & IS_TOTAL ? TG_OK : result(c, u, k);
                if (code)
                    return code;
                c->in_slot[s->y] = c->fixed + k;
            }
        }
    return TG_OK;
}

/* ---- pieces ---- */

static int pass_by(cutting *c, uint32_t piece, uint32_t k)
{
    (void)c, (void)piece, (void)k;
    return TG_OK;
}

/* What goes through much of the program does not keep in use what it reads. */
static int note_use(cutting *c, uint32_t value, uint32_t piece, uint32_t k, const tg_instr *s)
{
    (void)piece;
    c->last[value] = tg_is_long(tg_row(s), s->b) && value >= c->fixed ? value - c->fixed : k;
    return TG_OK;
}

static int32_t weight(const cutting *c, uint32_t k)
{
    const uint32_t *order = c->p->order;
    return tg_weight_in_use(order[k], order[c->last[c->fixed + k]]);
}

/* Find where pieces begin: not within what the order mixes, and of neighbouring places where the fewest results are
   used that were made before. alive: room for a number for each instruction, zero. */
static void cut(cutting *c, int32_t *alive)
{
    const tg_program *p = c->p;
    tg_pieces *s = c->made;
    uint32_t begun = 0, highest = 0, met = 0, best = 0;     /* best: of places from met on, which is 0 before */
    const uint32_t each = p->n_instr / PIECES, most = c->tiles * PIECE;
    const uint32_t len = each < PIECE ? PIECE : each < most ? each : most;
    int32_t n = 0, least = 0;
    s->n_pieces = 1;
    s->start[0] = 0;
    s->start[1] = p->n_instr;
    for (uint32_t k = 0; k < p->n_instr; k++)
        c->last[c->fixed + k] = k;
    walk(c, note_use, pass_by);
    for (uint32_t k = 0; k < p->n_instr; k++)
        alive[c->last[c->fixed + k]] -= weight(c, k);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const int whole = k && highest == k - 1;
        if (met && (!whole || k - met == NEIGHBOURS)) {
            s->start[s->n_pieces++] = begun = best;
            met = 0;
        }
        if (whole && k - begun >= len && (!met || n < least)) {
            met = met ? met : k;
            best = k;
            least = n;
        }
        highest = p->order[k] > highest ? p->order[k] : highest;
        n += weight(c, k) + alive[k];
    }
    s->start[s->n_pieces] = p->n_instr;
}

/* ---- what crosses ---- */

static int note_crossing(cutting *c, uint32_t value, uint32_t piece, uint32_t k, const tg_instr *s)
{
    (void)k, (void)s;
    if (value < c->fixed + c->made->start[piece])
        c->crosses[value] |= READ_ELSEWHERE;
    return TG_OK;
}

static int add_touch(cutting *c, uint32_t value, uint32_t piece, uint32_t k)
{
    const uint32_t before = c->last[value], at = c->n_touches;
    touch *t;
    if (at > 2 * (uint64_t)c->p->n_instr)
        return NOT_WORTH;
    if (at == c->cap) {
        touch *more = tg_more(c->touch, &c->cap, 1024, sizeof *more);
        if (!more)
            return TG_MEMORY;
        c->touch = more;
    }
    t = c->touch + c->n_touches++;
    *t = (touch){.piece = piece, .first = k, .last = k, .before = before, .after = TG_NONE, .origin = at};
    if (before != TG_NONE) {
        c->touch[before].after = at;
        t->origin = c->touch[before].origin;
        t->place = c->touch[before].place;
    } else {
        t->place = value < c->fixed ? value : c->fixed + c->made->n_carried++;
        t->output = c->crosses[value] & IS_OUTPUT;
    }
    c->last[value] = at;
    return TG_OK;
}

static int touch_operand(cutting *c, uint32_t value, uint32_t piece, uint32_t k, const tg_instr *s)
{
    if (!(c->crosses[value] & CROSSES))
        return TG_OK;
    if (c->last[value] == TG_NONE || c->touch[c->last[value]].piece != piece) {
        const int code = add_touch(c, value, piece, k);
        if (code)
            return code;
    }
    c->touch[c->last[value]].last = k;
    c->touch[c->last[value]].passed += tg_row(s) != TG_GUARD;
    return TG_OK;
}

static int touch_result(cutting *c, uint32_t piece, uint32_t k)
{
    return c->crosses[c->fixed + k] & CROSSES ? add_touch(c, c->fixed + k, piece, k) : TG_OK;
}

/* The touches of all pieces, one piece after the other. */
static int find_touches(cutting *c)
{
    const tg_program *p = c->p;
    tg_pieces *s = c->made;
    int code;
    walk(c, note_crossing, pass_by);
    for (uint32_t k = 0; k < p->n_out; k++)
        c->crosses[s->out_place[k] = c->in_slot[p->out[2 * (size_t)k]]] |= IS_OUTPUT;
    for (uint32_t v = c->fixed; s->n_sums && v < c->fixed + p->n_instr; v++)
        if (c->crosses[v] & IS_TERM && c->crosses[v] & CROSSES) {
            s->n_sums = 0;                              /* somebody else wants a term: all are carried */
            memset(s->first_part, 0, (s->n_pieces + (size_t)1) * sizeof *s->first_part);
            walk(c, note_crossing, pass_by);
        }
    for (uint32_t v = 0; v < c->fixed + p->n_instr; v++)
        c->last[v] = TG_NONE;
    code = walk(c, touch_operand, touch_result);
    for (uint32_t k = 0; !code && k < p->n_out; k++) {
        const uint32_t value = s->out_place[k];
        s->out_piece[k] = s->n_pieces;
        if (value >= c->fixed) {
            const touch *origin = c->touch + c->touch[c->last[value]].origin;
            s->out_piece[k] = origin->piece;
            s->out_place[k] = origin->place;
        }
    }
    return code;
}

/* ---- steps ---- */

static int is_made(const cutting *c, const touch *t) { return t->before == TG_NONE && t->place >= c->fixed; }

/* The next piece, or the last one, that adds to its adjoint. */
static uint32_t adds_after(const cutting *c, uint32_t t)
{
    do
        t = c->touch[t].after;
    while (t != TG_NONE && !c->touch[t].passed);
    return t;
}

/* The one before, or the one that makes it. */
static uint32_t asks_before(const cutting *c, uint32_t t)
{
    do
        t = c->touch[t].before;
    while (t != TG_NONE && !c->touch[t].passed && !is_made(c, c->touch + t));
    return t;
}

static int are_near(const cutting *c, uint32_t t, uint32_t other)
{
    const uint32_t a = c->touch[t].piece, b = other == TG_NONE ? TG_NONE : c->touch[other].piece;
    return other != TG_NONE && (a < b ? b - a : a - b) <= NEAR;
}

/* Where the group with instruction k begins or ends in the piece: nothing is carried within one. */
static uint32_t edge(const cutting *c, uint32_t piece, uint32_t k, int end)
{
    const tg_wide *w = c->p->wide;
    const uint32_t at = tg_group_at(w, k), start = c->made->start[piece], stop = c->made->start[piece + 1];
    uint32_t first = k, last = k + 1;
    if (at < w->n && w->group[at].first <= k) {
        first = w->group[at].first;
        last = first + w->group[at].n;
    }
    return end ? (last < stop ? last : stop) : first > start ? first : start;
}

static void add_carry(cutting *c, uint32_t at, uint32_t how, uint32_t t, uint32_t on)
{
    c->carried[c->n_carried++] = (carry){at, how, t, on, c->touch[t].place};
}

static void carry_upwards(cutting *c, uint32_t t)
{
    const touch *own = c->touch + t;
    const uint32_t start = c->made->start[own->piece], end = c->made->start[own->piece + 1];
    if (is_made(c, own)) {
        if (own->after != TG_NONE)
            add_carry(c, (are_near(c, t, own->after) ? edge(c, own->piece, own->first, 1) : end) - start, OUT, t,
                      TG_NONE);
    } else if (own->place < c->fixed)
        add_carry(c, 0, IN, t, TG_NONE);
    else
        add_carry(c, are_near(c, t, own->origin) ? edge(c, own->piece, own->first, 0) - start : 0, IN, t, own->origin);
}

static void carry_downwards(cutting *c, uint32_t t)
{
    const touch *own = c->touch + t;
    const uint32_t start = c->made->start[own->piece], end = c->made->start[own->piece + 1], after = adds_after(c, t);
    const int output = c->touch[own->origin].output, begins = after == TG_NONE && !output;
    const int alone = begins || own->passed == 1;       /* begins with 0 */
    if (is_made(c, own)) {
        if (!begins)
            add_carry(c, are_near(c, t, after) ? end - edge(c, own->piece, own->last, 1) : 0, IN, t, after);
    } else if (own->passed) {
        const uint32_t before = asks_before(c, t);
        const int soon = are_near(c, t, before) && !(alone && own->place < c->fixed);
        if (!alone)
            add_carry(c, are_near(c, t, after) ? end - edge(c, own->piece, own->last, 1) : 0, IN, t, after);
        add_carry(c, end - (soon ? edge(c, own->piece, own->first, 0) : start), OUT, t, alone ? after : TG_NONE);
    }
}

static int in_turn(const void *a, const void *b)
{
    const carry *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    if (x->how != y->how)
        return x->how < y->how ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* In turn; where that makes too many steps, some come earlier, and are there later for others, than they might. */
static void sort_carries(cutting *c, uint32_t len)
{
    const uint32_t each = len / STEPS + 1;
    uint32_t changes = 0;
    qsort(c->carried, c->n_carried, sizeof *c->carried, in_turn);
    for (uint32_t k = 1; k < c->n_carried; k++)
        changes += c->carried[k].at != c->carried[k - 1].at;
    if (changes <= 2 * STEPS)
        return;
    for (carry *e = c->carried; e < c->carried + c->n_carried; e++) {
        const uint32_t down = e->at - e->at % each, up = e->at == down ? down : down + each;
        e->at = e->how == IN ? down : up < len ? up : len;
    }
    qsort(c->carried, c->n_carried, sizeof *c->carried, in_turn);
}

static void open_step(cutting *c, tg_way *way)
{
    way->step[c->n_steps++] = (tg_step){.wait = c->n_waits, .move = c->n_moves};
}

/* The step has instructions from .. to - 1 of the piece, as they are carried out, and its moves before it. */
static void close_step(cutting *c, tg_way *way, uint32_t from, uint32_t to)
{
    tg_step *s = way->step + c->n_steps - 1;
    s->from = from;
    s->to = to;
    s->wait_out = c->n_waits;
    s->move_out = c->n_moves;
}

/* One more move, and what it waits for, behind those from here on that go together with it. */
static void add_move(cutting *c, tg_way *way, const carry *e, int ways, uint32_t first_wait, uint32_t first_move)
{
    const uint32_t origin = c->touch[c->touch[e->touch].origin].first, place = e->place;
    const tg_instr s = tg_instruction(c->p, origin);
    const uint32_t kept = place < c->fixed ? place : s.y, live = place < c->fixed ? place : s.live_y;
    if (e->on != TG_NONE) {
        const touch *on = c->touch + e->on;
        const uint32_t known = c->met[on->piece], steps = on->told[ways];
        if (known > first_wait) {
            if (steps > way->wait[known - 1].steps)
                way->wait[known - 1].steps = steps;
        } else {
            way->wait[c->n_waits++] = (tg_wait){on->piece, steps};
            c->met[on->piece] = c->n_waits;
        }
    }
    if (c->n_moves > first_move) {
        tg_move *last = way->move + c->n_moves - 1;
        if (place == last->place + last->n && kept == last->kept + last->n && live == last->live + last->n &&
            place != c->fixed) {
            last->n++;
            return;
        }
    }
    way->move[c->n_moves++] = (tg_move){kept, live, place, 1};
}

/* The steps of a piece from what it carries. */
static void lay_steps(cutting *c, int ways, uint32_t piece)
{
    const uint32_t start = c->made->start[piece], len = c->made->start[piece + 1] - start, first = c->n_steps;
    tg_way *way = c->made->way + ways;
    uint32_t begun = 0, closed = 0;                     /* closed: where the step ends, if that is known */
    sort_carries(c, len);
    open_step(c, way);
    for (const carry *e = c->carried; e < c->carried + c->n_carried; e++) {
        if (closed && (e->how == IN || e->at > closed)) {
            open_step(c, way);
            begun = closed;
            closed = 0;
        }
        if (!closed && e->how == IN && e->at > begun) {
            close_step(c, way, begun, e->at);
            open_step(c, way);
            begun = e->at;
        }
        if (e->how == IN)
            add_move(c, way, e, ways, way->step[c->n_steps - 1].wait, way->step[c->n_steps - 1].move);
        else {
            if (!closed)
                close_step(c, way, begun, closed = e->at);
            add_move(c, way, e, ways, way->step[c->n_steps - 1].wait_out, way->step[c->n_steps - 1].move_out);
            c->touch[e->touch].told[ways] = c->n_steps - first;
        }
    }
    if (closed && closed < len) {
        open_step(c, way);
        begun = closed;
        closed = 0;
    }
    if (!closed)
        close_step(c, way, begun, len);
    for (tg_step *s = way->step + first; s < way->step + c->n_steps; s++) {
        const uint32_t from = s->from, to = s->to;
        s->from = ways == TG_UPWARDS ? start + from : start + len - to;
        s->to = ways == TG_UPWARDS ? start + to : start + len - from;
    }
}

static void *shrunk(void *array, size_t bytes)
{
    void *smaller = tg_realloc(array, bytes + 1);
    return smaller ? smaller : array;
}

static int lay_way(cutting *c, int ways)
{
    tg_way *way = c->made->way + ways;
    const uint32_t n = c->made->n_pieces;
    const size_t most = 2 * (size_t)c->n_touches, most_steps = most + n + 1;
    way->first = tg_realloc(NULL, (n + (size_t)1) * sizeof *way->first);
    way->step = tg_realloc(NULL, most_steps * sizeof *way->step);
    way->wait = tg_realloc(NULL, most * sizeof *way->wait + 1);
    way->move = tg_realloc(NULL, most * sizeof *way->move + 1);
    if (!way->first || !way->step || !way->wait || !way->move)
        return TG_MEMORY;
    c->n_steps = c->n_waits = c->n_moves = 0;
    for (uint32_t k = 0; k < n; k++)
        c->met[k] = 0;
    for (uint32_t k = 0, next = ways == TG_UPWARDS ? 0 : c->n_touches; k < n; k++) {
        const uint32_t piece = ways == TG_UPWARDS ? k : n - 1 - k;
        way->first[k] = c->n_steps;
        c->n_carried = 0;
        if (ways == TG_UPWARDS)
            for (; next < c->n_touches && c->touch[next].piece == piece; next++)
                carry_upwards(c, next);
        else
            for (; next && c->touch[next - 1].piece == piece; next--)
                carry_downwards(c, next - 1);
        lay_steps(c, ways, piece);
    }
    way->first[n] = c->n_steps;
    open_step(c, way);
    way->step = shrunk(way->step, c->n_steps * sizeof *way->step);
    way->wait = shrunk(way->wait, c->n_waits * sizeof *way->wait);
    way->move = shrunk(way->move, c->n_moves * sizeof *way->move);
    return TG_OK;
}

/* ---- the whole ---- */

/* What one piece carries, at most. */
static uint32_t most_carried(const cutting *c)
{
    uint32_t most = 0, n = 0;
    for (uint32_t k = 0; k < c->n_touches; k++) {
        n = k && c->touch[k].piece == c->touch[k - 1].piece ? n + 1 : 1;
        most = n > most ? n : most;
    }
    return 2 * most;
}

/* TG_OK, TG_MEMORY, or NOT_WORTH. */
static int split(cutting *c)
{
    const tg_program *p = c->p;
    tg_pieces *s = c->made;
    const size_t values = c->fixed + (size_t)p->n_instr;
    const uint32_t most = p->n_instr / PIECE + 2;
    int32_t *alive = tg_zeroed(p->n_instr * sizeof *alive + 1);
    int code = TG_MEMORY;
    s->start = tg_realloc(NULL, most * sizeof *s->start);
    s->out_piece = tg_realloc(NULL, p->n_out * sizeof *s->out_piece + 1);
    s->out_place = tg_realloc(NULL, p->n_out * sizeof *s->out_place + 1);
    c->in_slot = tg_realloc(NULL, p->n_kept * sizeof *c->in_slot + 1);
    c->last = tg_realloc(NULL, values * sizeof *c->last + 1);
    c->crosses = tg_zeroed(values + 1);
    c->met = tg_realloc(NULL, most * sizeof *c->met);
    if (alive && s->start && s->out_piece && s->out_place && c->in_slot && c->last && c->crosses && c->met) {
        cut(c, alive);
        code = s->n_pieces < FEWEST ? NOT_WORTH : tg_find_long_sums(p, s, c->in_slot, c->crosses, IS_TERM);
        code = code ? code : tg_find_totals(p, s, c->in_slot, c->crosses, IS_TOTAL);
        code = code ? code : find_touches(c);
    }
    free(alive);
    if (!code) {
        c->carried = tg_realloc(NULL, most_carried(c) * sizeof *c->carried + 1);
        code = c->carried ? lay_way(c, TG_UPWARDS) : TG_MEMORY;
    }
    if (!code)
        code = lay_way(c, TG_DOWNWARDS);
    free(c->in_slot);
    free(c->last);
    free(c->crosses);
    free(c->met);
    free(c->touch);
    free(c->carried);
    return code;
}

/* Of so many tiles each, at most. A code as split has it. */
static int make_pieces_of(const tg_program *p, uint32_t tiles, tg_pieces **made)
{
    cutting c = {.p = p, .tiles = tiles, .fixed = p->n_const + p->n_in, .made = tg_zeroed(sizeof *c.made)};
    int code = c.made ? split(&c) : TG_MEMORY;
    code = code ? code : tg_find_pays(p, c.made);
    if (code) {
        tg_free_pieces(c.made);
        c.made = NULL;
    }
    *made = c.made;
    return code;
}

static tg_pieces *make_pieces(const tg_program *p)
{
    tg_pieces *large = NULL, *small = NULL;
    int code = p->wide && !p->n_calls ? make_pieces_of(p, TILES, &large) : NOT_WORTH;
    if (!code && !large->pays[1])
        code = make_pieces_of(p, 1, &small);
    if (code == NOT_WORTH && !large)
        return tg_zeroed(sizeof *large);
    if (code == TG_MEMORY || (small && (small->pays[1] || !large->pays[0]))) {
        tg_free_pieces(large);
        return small;
    }
    tg_free_pieces(small);
    return large;
}

const tg_pieces *tg_pieces_of(const tg_program *p)
{
    tg_pieces *made;
    tg_lock_crew();
    made = p->pieces;
    tg_unlock_crew();
    if (made)
        return made;
    made = make_pieces(p);
    tg_lock_crew();
    if (!p->pieces)
        ((tg_program *)p)->pieces = made;                /* the one thing of it that is made later */
    else {                                              /* another thread was faster */
        tg_free_pieces(made);
        made = p->pieces;
    }
    tg_unlock_crew();
    return made;
}

void tg_free_pieces(tg_pieces *s)
{
    if (!s)
        return;
    for (tg_way *way = s->way; way < s->way + TG_WAYS; way++) {
        free(way->first);
        free(way->step);
        free(way->wait);
        free(way->move);
    }
    free(s->sum);
    free(s->first_part);
    free(s->part);
    free(s->start);
    free(s->total);
    free(s->first_span);
    free(s->span);
    free(s->first_links);
    free(s->links);
    free(s->out_piece);
    free(s->out_place);
    free(s);
}
