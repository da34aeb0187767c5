/*  Instructions one by one; those of groups are not stored, but made from their group for who reads them.  */
#include "wide/wide.h"
#include "compiled.h"

/* The words of half an instruction, and how those of a group go on: by a step each, or by a list. */
enum { OP, Y, A, B, WORDS };
_Static_assert(sizeof(tg_half) == WORDS * sizeof(uint32_t), "half an instruction is its words");

typedef struct {
    uint32_t at[WORDS], by[WORDS], every[WORDS], mask[WORDS];
    const uint32_t *list[WORDS];        /* NULL: there is none */
} course;

/* A word is what slots are, of every so many elements from `from` on. */
static void follow(course *c, int word, const tg_wide *w, tg_slots s, uint32_t from, uint32_t every, uint32_t mask)
{
    if (s.how == TG_LISTED) {
        c->list[word] = w->list + s.at + from;
        c->every[word] = every;
        c->mask[word] = mask;
    } else {
        c->by[word] = s.how == TG_SIDE_BY_SIDE ? every : 0;
        c->at[word] = s.how == TG_SIDE_BY_SIDE ? s.at + from : s.at;
    }
}

/* n halves that go on by steps, words apart. */
TG_CLONES static void step(const uint32_t *at, const uint32_t *by, uint32_t n, uint32_t words, uint32_t *restrict to)
{
    for (uint32_t k = 0; k < n; k++, to += words)
        for (int i = 0; i < WORDS; i++)
            to[i] = at[i] + k * by[i];
}

/* n halves, words apart. */
static void put(const course *c, uint32_t n, uint32_t words, uint32_t *to)
{
    step(c->at, c->by, n, words, to);
    for (int i = 0; i < WORDS; i++)
        for (uint32_t k = 0; c->list[i] && k < n; k++)
            to[words * k + i] = c->list[i][c->every[i] * k] & c->mask[i];
}

/* Halves of n links of a chain from element `from` on: those of one kind after those of the other. */
static void make_links(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, int numbering, tg_half *made)
{
    const tg_wide *w = p->wide;
    const int sum_is_b = g->chain == TG_CHAIN_B;
    const uint32_t every = tg_is_mixed(g) ? 2 : 1;
    for (uint32_t k = 0; k < every && k < n; k++) {
        const int product = tg_is_product(g, from + k);
        const uint32_t at = tg_of_its_kind(g, from + k);
        course c = {.at = {[OP] = product ? TG_DOT : TG_ADD}};
        follow(&c, Y, w, g->operand[2][numbering], from + k, every, ~TG_RUNS);
        if (product) {
            c.at[A] = g->pool + TG_PRODUCT * at;
            c.by[A] = c.at[B] = TG_PRODUCT;
        } else
            follow(&c, sum_is_b ? A : B, w, g->operand[1][numbering], at, 1, ~TG_RUNS);
        put(&c, (n - k + every - 1) / every, WORDS * every, (uint32_t *)(made + k));
    }
    for (uint32_t k = 0, sum; k < n; k++) {             /* each adds to the result of the one before */
        if (tg_is_product(g, from + k))
            continue;
        sum = k ? made[k - 1].y : from ? tg_slot(w, &g->operand[2][numbering], from - 1) : g->operand[0][numbering].at;
        *(sum_is_b ? &made[k].b : &made[k].a) = sum;
    }
}

/* Halves of n instructions of a group from element `from` on. */
static void make(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, int numbering, tg_half *made)
{
    const tg_wide *w = p->wide;
    course c = {.at = {[OP] = g->op, [Y] = g->y[TG_KEPT]}};
    if (g->chain) {
        make_links(p, g, from, n, numbering, made);
        return;
    }
    if (g->op != TG_GUARD)
        follow(&c, Y, w, (tg_slots){TG_SIDE_BY_SIDE, g->y[numbering]}, from, 1, ~TG_RUNS);
    else if (numbering == TG_LIVE)
        follow(&c, Y, w, g->number, from, 1, ~0u);
    if (g->terms) {
        c.at[A] = g->pool + g->terms * from;
        c.by[A] = c.at[B] = g->terms;
    } else {
        follow(&c, A, w, g->operand[0][numbering], from, 1, ~TG_RUNS);
        follow(&c, B, w, g->operand[1][numbering], from, 1, ~TG_RUNS);
    }
    put(&c, n, WORDS, (uint32_t *)made);
}

/* The halves of some instructions of a group. */
typedef struct {
    tg_half of[2][TG_WINDOW];
} room;

/* Those of n instructions from element `from` on, in the numberings first .. last; of a guard the kept ones, too. */
static tg_halves make_halves(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, int first, int last,
                             room *made)
{
    for (int numbering = g->op == TG_GUARD ? TG_KEPT : first; numbering <= last; numbering++)
        make(p, g, from, n, numbering, made->of[numbering]);
    return (tg_halves){{made->of[TG_KEPT], made->of[TG_LIVE]}};
}

/* An instruction of its halves. */
static tg_instr joined(const tg_half *kept, const tg_half *live, uint32_t where)
{
    const int pooled = tg_is_pooled(tg_row(kept));
    return (tg_instr){kept->op & ~TG_LINK, kept->y, kept->a, kept->b, live->y, pooled ? 0 : live->a,
                      pooled ? 0 : live->b, where};
}

/* n instructions of a group from element `from` on, TG_WINDOW at most. */
static void make_whole(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, tg_instr *made)
{
    const tg_slots *s = &g->where;
    room r;
    make_halves(p, g, from, n, TG_KEPT, TG_LIVE, &r);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t where = s->how == TG_LISTED ? p->wide->list[s->at + from + k] :
                               s->at + (s->how == TG_SIDE_BY_SIDE ? from + k : 0);
        made[k] = joined(r.of[TG_KEPT] + k, r.of[TG_LIVE] + k, where);
    }
}

/* Instructions from .. to - 1, which are in no group; at as tg_place_alone has it. Where they are stored, or made. */
static const tg_instr *whole(const tg_program *p, uint32_t at, uint32_t from, uint32_t to, tg_instr *made)
{
    const uint32_t place = tg_place_alone(p, at, from);
    for (uint32_t k = place; !p->instr && k < place + (to - from); k++)
        *made++ = joined(p->alone[TG_KEPT] + k, p->alone[TG_LIVE] + k, p->where[k]);
    return p->instr ? p->instr + place : made - (to - from);
}

/* The group that instruction k is in, or NULL; at: the first that ends behind it. */
static const tg_group *group_of(const tg_program *p, uint32_t k, uint32_t *at)
{
    *at = p->wide ? tg_group_at(p->wide, k) : 0;
    return p->wide && *at < p->wide->n && p->wide->group[*at].first <= k ? p->wide->group + *at : NULL;
}

void tg_move_window(tg_window *w, uint32_t k)
{
    const tg_program *p = w->program;
    uint32_t at, start, end;
    const tg_group *g = group_of(p, k, &at);
    if (g) {
        start = g->first;
        end = start + g->n;
    } else {
        start = at ? p->wide->group[at - 1].first + p->wide->group[at - 1].n : 0;
        end = p->wide && at < p->wide->n ? p->wide->group[at].first : p->n_instr;
    }
    w->first = start + (k - start) / TG_WINDOW * TG_WINDOW;
    w->n = end - w->first < TG_WINDOW ? end - w->first : TG_WINDOW;
    w->instr = w->made;
    if (g)
        make_whole(p, g, w->first - start, w->n, w->made);
    else
        w->instr = whole(p, at, w->first, w->first + w->n, w->made);
}

tg_instr tg_instruction(const tg_program *p, uint32_t k)
{
    uint32_t at;
    const tg_group *g = group_of(p, k, &at);
    tg_instr made;
    if (!g)
        return *whole(p, at, k, k + 1, &made);
    make_whole(p, g, k - g->first, 1, &made);
    return made;
}

void tg_copy_instructions(const tg_program *p, tg_instr *to)
{
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++)
        to[k] = *tg_at(&w, k);
}

void tg_one_by_one(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow, int numbering)
{
    const tg_program *p = j->program;
    const tg_group *g;
    uint32_t at = tg_group_at(p->wide, from);
    room made;
    for (uint32_t end; from < to; from = end) {
        end = tg_first_part(p->wide, &at, from, to, &g);
        if (!g)
            narrow(j, tg_alone(p, at, from), from, end);
        for (uint32_t k = from, n; g && k < end; k += n) {
            n = end - k < TG_WINDOW ? end - k : TG_WINDOW;
            narrow(j, make_halves(p, g, k - g->first, n, numbering, numbering, &made), k, k + n);
        }
    }
}

void tg_one_by_one_back(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    const tg_program *p = j->program;
    const tg_group *g;
    uint32_t at = to ? tg_group_at(p->wide, to - 1) + 1 : 0;
    room made;
    for (uint32_t start; to > from; to = start) {
        start = tg_last_part(p->wide, &at, from, to, &g);
        if (!g)
            narrow(j, tg_alone(p, at, start), start, to);
        for (uint32_t end = to, n; g && end > start; end -= n) {
            n = end - start < TG_WINDOW ? end - start : TG_WINDOW;
            narrow(j, make_halves(p, g, end - n - g->first, n, TG_KEPT, TG_LIVE, &made), end - n, end);
        }
    }
}
