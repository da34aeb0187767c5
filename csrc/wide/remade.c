/*  Instructions one by one; those of groups are not stored, but made from their group for who reads them.  */
#include "wide/wide.h"
#include "compiled.h"

/* The words of an instruction, and how those of a group go on: by a step each, or by a list. */
enum { OP, Y, A, B, LIVE_Y, LIVE_A, LIVE_B, WHERE, WORDS };
_Static_assert(sizeof(tg_instr) == WORDS * sizeof(uint32_t), "an instruction is its words");

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

/* n instructions that go on by steps, words apart. */
TG_CLONES static void step(const uint32_t *at, const uint32_t *by, uint32_t n, uint32_t words, uint32_t *restrict to)
{
    for (uint32_t k = 0; k < n; k++, to += words)
        for (int i = 0; i < WORDS; i++)
            to[i] = at[i] + k * by[i];
}

/* n instructions, words apart. */
static void put(const course *c, uint32_t n, uint32_t words, uint32_t *to)
{
    step(c->at, c->by, n, words, to);
    for (int i = 0; i < WORDS; i++)
        for (uint32_t k = 0; c->list[i] && k < n; k++)
            to[words * k + i] = c->list[i][c->every[i] * k] & c->mask[i];
}

/* n links of a chain from element `from` on: those of one kind after those of the other. */
static void make_links(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, uint32_t *to)
{
    const tg_wide *w = p->wide;
    const int sum = g->chain == TG_CHAIN_B ? B : A, added = g->chain == TG_CHAIN_B ? A : B;
    const uint32_t every = tg_is_mixed(g) ? 2 : 1;
    for (uint32_t k = 0; k < every && k < n; k++) {
        const int product = tg_is_product(g, from + k);
        const uint32_t at = tg_of_its_kind(g, from + k);
        course c = {.at = {[OP] = product ? TG_DOT : TG_ADD}};
        follow(&c, WHERE, w, g->where, from + k, every, ~0u);
        for (int live = 0; live < 2; live++) {
            const int of = live ? LIVE_Y - Y : 0;
            follow(&c, Y + of, w, g->operand[2][live], from + k, every, ~TG_RUNS);
            if (!product)
                follow(&c, added + of, w, g->operand[1][live], at, 1, ~TG_RUNS);
        }
        if (product) {
            c.at[A] = g->pool + TG_PRODUCT * at;
            c.by[A] = c.at[B] = TG_PRODUCT;
        }
        put(&c, (n - k + every - 1) / every, WORDS * every, to + WORDS * k);
    }
    for (int live = 0; live < 2; live++) {              /* each adds to the result of the one before */
        const int of = live ? LIVE_Y - Y : 0;
        if (!tg_is_product(g, from))
            to[sum + of] = from ? tg_slot(w, &g->operand[2][live], from - 1) : g->operand[0][live].at;
        for (uint32_t k = 1; k < n; k++)
            if (!tg_is_product(g, from + k))
                to[WORDS * k + sum + of] = to[WORDS * (k - 1) + Y + of];
    }
}

/* n instructions of a group from element `from` on, TG_WINDOW at most. */
static void make(const tg_program *p, const tg_group *g, uint32_t from, uint32_t n, tg_instr *made)
{
    const tg_wide *w = p->wide;
    const int guard = g->op == TG_GUARD;
    course c = {.at = {[OP] = g->op, [Y] = g->y[TG_KEPT]}};
    if (g->chain) {
        make_links(p, g, from, n, (uint32_t *)made);
        return;
    }
    follow(&c, WHERE, w, g->where, from, 1, ~0u);
    if (guard)
        follow(&c, LIVE_Y, w, g->number, from, 1, ~0u);
    for (int live = 0; live < 2; live++) {
        const int of = live ? LIVE_Y - Y : 0;
        if (!guard)
            follow(&c, Y + of, w, (tg_slots){TG_SIDE_BY_SIDE, g->y[live]}, from, 1, ~TG_RUNS);
        if (!g->terms) {
            follow(&c, A + of, w, g->operand[0][live], from, 1, ~TG_RUNS);
            follow(&c, B + of, w, g->operand[1][live], from, 1, ~TG_RUNS);
        }
    }
    if (g->terms) {
        c.at[A] = g->pool + g->terms * from;
        c.by[A] = c.at[B] = g->terms;
    }
    put(&c, n, WORDS, (uint32_t *)made);
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
    uint32_t at;
    const tg_group *g = group_of(p, k, &at);
    if (g) {
        const uint32_t from = (k - g->first) / TG_WINDOW * TG_WINDOW;
        w->first = g->first + from;
        w->n = g->n - from < TG_WINDOW ? g->n - from : TG_WINDOW;
        w->instr = w->made;
        make(p, g, from, w->n, w->made);
        return;
    }
    w->first = at ? p->wide->group[at - 1].first + p->wide->group[at - 1].n : 0;
    w->n = (p->wide && at < p->wide->n ? p->wide->group[at].first : p->n_instr) - w->first;
    w->instr = tg_alone(p, at, w->first);
}

tg_instr tg_instruction(const tg_program *p, uint32_t k)
{
    uint32_t at;
    const tg_group *g = group_of(p, k, &at);
    tg_instr made;
    if (g)
        make(p, g, k - g->first, 1, &made);
    else
        made = *tg_alone(p, at, k);
    made.op &= ~TG_LINK;
    return made;
}

void tg_copy_instructions(const tg_program *p, tg_instr *to)
{
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        to[k] = *tg_at(&w, k);
        to[k].op &= ~TG_LINK;
    }
}

void tg_one_by_one(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    tg_window w;
    tg_open_window(&w, j->program);
    for (uint32_t end; from < to; from = end) {
        const tg_instr *s = tg_at(&w, from);
        end = w.first + w.n < to ? w.first + w.n : to;
        narrow(j, s, from, end);
    }
}

void tg_one_by_one_back(tg_job *j, uint32_t from, uint32_t to, tg_narrow_replay *narrow)
{
    tg_window w;
    tg_open_window(&w, j->program);
    for (uint32_t start; to > from; to = start) {
        tg_at(&w, to - 1);
        start = w.first > from ? w.first : from;
        narrow(j, tg_at(&w, start), start, to);
    }
}
