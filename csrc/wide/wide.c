/*  The groups of a wide program: found in its instructions, whoever put them in order.  */
#include "wide/wide.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

void tg_free_groups(tg_wide *w)
{
    if (!w)
        return;
    free(w->group);
    free(w->list);
    free(w);
}

/* The last operand, of all groups', that had a slot, and in which of the group's instructions first. */
typedef struct {
    uint32_t operand, first;
} meeting;

typedef struct {
    const tg_program *p;
    tg_wide *w;
    uint32_t *made;             /* by kept slot: 1 + the instruction that gave what is in it */
    uint32_t *seen[2];          /* by slot of either numbering: 1 + the last instruction of a short row that read it */
    meeting *met;            /* by live slot */
    uint32_t stamp;             /* of the last operand */
    uint32_t alike;             /* a bit for each of operands a and b that all have had since the group began */
    uint32_t cap, cap_list;
    uint8_t named[TG_NAMED];
} finding;

/* Whether a group may have it at all. */
static int grouped(const tg_instr *s)
{
    switch (tg_row(s)) {
    case TG_GUARD: return s->y >> 1 < TG_REFUSES;
    case TG_FSUM: return !(s->op & TG_QUIET);           /* whose groups are known by the row alone */
    case TG_DOT: case TG_SUM: case TG_LOGSUMEXP: case TG_TOP: case TG_WHERE: return 1;
    default: return !tg_is_many(tg_row(s));
    }
}

static uint32_t operands(const tg_instr *s)
{
    return tg_row(s) != TG_GUARD && tg_is_many(tg_row(s)) ? s->b : 0;
}

/* So many instructions that have an operand in common stay a group of their own: it need not be listed. */
enum { ALIKE = 128 };

/* The operands of one or two that two instructions have in common, a bit each. */
static uint32_t in_common(const tg_instr *s, const tg_instr *t)
{
    return (s->a == t->a && s->live_a == t->live_a ? 1 : 0) | (s->b == t->b && s->live_b == t->live_b ? 2 : 0);
}

/* Whether instruction k goes on with a group that begins at first. */
static int goes_on(finding *f, uint32_t first, uint32_t k)
{
    const tg_program *p = f->p;
    const tg_instr *s = p->instr + first, *t = p->instr + k;
    const uint32_t step = k - first, n = operands(s);
    if (t->op != s->op || operands(t) != n)
        return 0;
    if (tg_row(s) == TG_GUARD ? t->y != s->y : t->y != s->y + step || t->live_y != s->live_y + step)
        return 0;
    for (uint32_t m = 0; m < n; m++)
        if (f->made[p->pool[2 * (size_t)(t->a + m)]] > first)
            return 0;
    if (n)
        return t->a == s->a + step * n;
    if (tg_is_short(t->op)) {
        const uint32_t before = step == 1 ? 3 : f->alike;
        f->alike = before & in_common(s, t);
        if (f->alike != before && step >= ALIKE)
            return 0;
        if (f->seen[TG_KEPT][t->y] > first || f->seen[TG_LIVE][t->live_y] > first)
            return 0;
    }
    return f->made[t->a] <= first && f->made[t->b] <= first && (t->a < p->n_const) == (s->a < p->n_const) &&
           (t->b < p->n_const) == (s->b < p->n_const);
}

/* The slot of operand m of instruction k. What is no slot comes last. */
enum { RESULT = TG_FEW_TERMS, WHERE, NUMBER };
static uint32_t slot_of(const tg_program *p, uint32_t k, uint32_t m, int numbering)
{
    const tg_instr *s = p->instr + k;
    if (m == WHERE || m == NUMBER)
        return m == WHERE ? s->where : s->live_y;
    if (m == RESULT)
        return numbering == TG_LIVE ? s->live_y : s->y;
    if (operands(s))
        return p->pool[2 * (size_t)(s->a + m) + (size_t)numbering];
    return m == 0 ? numbering == TG_LIVE ? s->live_a : s->a : numbering == TG_LIVE ? s->live_b : s->b;
}

/* n more words at the end of the list. */
static int lengthen(finding *f, uint32_t n)
{
    tg_wide *w = f->w;
    if (n > f->cap_list - w->n_list) {
        const uint64_t cap = 2 * (uint64_t)f->cap_list + n;
        uint32_t *list = cap > TG_NONE ? NULL : tg_realloc(w->list, (size_t)cap * sizeof *list);
        if (!list)
            return TG_MEMORY;
        w->list = list;
        f->cap_list = (uint32_t)cap;
    }
    w->n_list += n;
    return TG_OK;
}

/* How many of n instructions, every so many from first on, have operand m in the same slot, or side by side. */
static uint32_t in_step(const finding *f, uint32_t first, uint32_t every, uint32_t n, uint32_t m, int numbering,
                        tg_slots *found)
{
    const uint32_t start = slot_of(f->p, first, m, numbering);
    const uint32_t second = n > 1 ? slot_of(f->p, first + every, m, numbering) : start;
    uint32_t step = second - start, k = n < 2 || step > 1 ? 1 : 2;
    if (step <= 1)
        while (k < n && slot_of(f->p, first + every * k, m, numbering) == start + k * step)
            k++;
    *found = (tg_slots){step ? TG_SIDE_BY_SIDE : TG_SAME, start};
    return k;
}

/* Where operand m of n instructions is, every so many from first on; a list has TG_OK or TG_MEMORY as its code. */
static int find_slots(finding *f, uint32_t first, uint32_t every, uint32_t n, uint32_t m, int numbering,
                      tg_slots *found)
{
    tg_wide *w = f->w;
    if (in_step(f, first, every, n, m, numbering, found) == n)
        return TG_OK;
    *found = (tg_slots){TG_LISTED, w->n_list};
    if (lengthen(f, n))
        return TG_MEMORY;
    for (uint32_t run = 0, next = 0; n-- > 0;) {
        const uint32_t slot = slot_of(f->p, first + every * n, m, numbering);
        run = next == slot + 1 ? run + 1 : 1;
        next = slot;
        w->list[found->at + n] = slot | (run >= TG_RUN && m < WHERE ? TG_RUNS : 0);
    }
    return TG_OK;
}

/* Both numberings of an operand, one list where they are the same. */
static int find_both(finding *f, uint32_t first, uint32_t every, uint32_t n, uint32_t m, tg_slots *found)
{
    tg_wide *w = f->w;
    int code = find_slots(f, first, every, n, m, TG_KEPT, found);
    if (!code)
        code = find_slots(f, first, every, n, m, TG_LIVE, found + 1);
    if (!code && found[0].how == TG_LISTED && found[1].how == TG_LISTED &&
        !memcmp(w->list + found[0].at, w->list + found[1].at, n * sizeof *w->list)) {
        w->n_list = found[1].at;
        found[1] = found[0];
    }
    return code;
}

/* Whether each instruction of a group has one operand, or the same one twice. */
static int read_one(const tg_program *p, const tg_group *g)
{
    for (const tg_instr *s = p->instr + g->first; s < p->instr + g->first + g->n; s++)
        if (s->a != s->b || s->live_a != s->live_b)
            return 0;
    return 1;
}

/* Whether the terms of each sum of the group are side by side. */
static int terms_are_straight(const finding *f, const tg_group *g)
{
    const uint32_t width = tg_row(f->p->instr + g->first) == TG_DOT ? 2 : 1, *pair = f->p->pool + 2 * (size_t)g->pool;
    for (uint32_t k = 0; k < g->n; k++, pair += 2 * (size_t)g->terms)
        for (uint32_t m = width; m < g->terms / width * width; m++)
            for (int numbering = 0; numbering < 2; numbering++)
                if (pair[2 * (size_t)m + numbering] != pair[2 * (size_t)(m - width) + numbering] + 1)
                    return 0;
    return 1;
}

/* Whether an operand is not a constant throughout. */
static int moves(const finding *f, const tg_group *g, uint32_t m)
{
    const tg_slots *s = &g->operand[m][TG_LIVE];
    for (uint32_t k = 0; k < (s->how == TG_SAME ? 1 : g->n); k++)
        if (tg_slot(f->w, s, k) >= f->p->n_const)
            return 1;
    return 0;
}

/* Whether the adjoints of operand after operand may be added, of each from the last instruction to the first, where
   they should be of instruction after instruction: where what the operand that comes first adds to a slot is never of
   an earlier instruction than what another one adds there. */
static int are_apart(finding *f, const tg_group *g, uint32_t n)
{
    const tg_wide *w = f->w;
    const uint32_t stamp = f->stamp + 1, biased = g->op == TG_DOT && n % 2;
    f->stamp += n;
    for (uint32_t turn = 0; turn < n; turn++) {         /* a bias comes before all others */
        const uint32_t m = !biased ? turn : turn ? turn - 1 : n - 1;
        const tg_slots *s = &g->operand[m][TG_LIVE];
        if (!(g->moves >> m & 1))
            continue;
        for (uint32_t k = s->how == TG_SAME ? g->n - 1 : 0; k < g->n; k++) {
            const meeting *met = f->met + tg_slot(w, s, k);
            if (met->operand >= stamp && met->first < k)
                return 0;
        }
        for (uint32_t k = s->how == TG_SAME ? 1 : g->n; k-- > 0;)
            f->met[tg_slot(w, s, k)] = (meeting){stamp + m, k};
    }
    return 1;
}

/* ---- stretches ---- */

/* Whether element k goes on as the two from first on do: by the same steps in both numberings, constants or none. */
static int keeps_step(const finding *f, const tg_group *g, uint32_t first, uint32_t k)
{
    const uint32_t words = 2 * g->terms, *start = f->p->pool + 2 * (size_t)g->pool + (size_t)words * first;
    const uint32_t *own = start + (size_t)words * (k - first), *before = own - words;
    for (uint32_t i = 0; i < words; i += 2) {
        const uint32_t step = start[words + i] - start[i];
        if (own[i] - before[i] != step || own[i + 1] - before[i + 1] != step ||
            (own[i + 1] < f->p->n_const) != (start[i + 1] < f->p->n_const))
            return 0;
    }
    return 1;
}

/* Whether a slot of the group's results is among those of an operand's. */
static int meets_results(const tg_group *g, tg_stride x, uint32_t n, int numbering)
{
    const uint32_t last = x.at + (uint32_t)x.step * (n - 1);
    const uint32_t low = x.step < 0 ? last : x.at, high = x.step < 0 ? x.at : last;
    return low < g->y[numbering] + g->n && high >= g->y[numbering];
}

/* Whether what a stretch passes on may be added in the order of terms.c: to operands that step, one after the other,
   each from the last element to the first, then to those that do not, each by itself. */
static int is_apart(finding *f, const tg_group *g, uint32_t first, uint32_t n)
{
    const uint32_t stamp = f->stamp + 1, biased = g->op == TG_DOT && g->terms % 2;
    if (g->terms >= TG_NONE - f->stamp)
        return 0;
    f->stamp += g->terms;
    for (int still = 0; still < 2; still++)
        for (uint32_t turn = 0; turn < g->terms; turn++) {      /* a bias comes before all others */
            const uint32_t i = !biased ? turn : turn ? turn - 1 : g->terms - 1;
            const tg_stride x = tg_stride_of(f->p, g, first, n, i, TG_LIVE);
            if (meets_results(g, x, n, TG_LIVE) ||
                meets_results(g, tg_stride_of(f->p, g, first, n, i, TG_KEPT), n, TG_KEPT))
                return 0;
            if ((x.step == 0) != still || x.at < f->p->n_const)
                continue;
            for (uint32_t k = 0; k < (still ? 1 : n); k++) {
                meeting *met = f->met + (uint32_t)(x.at + (uint32_t)x.step * k);
                if (met->operand >= stamp && (still || met->first < k))
                    return 0;
                *met = (meeting){stamp + turn, k};
            }
        }
    return 1;
}

/* The stretches of a group, where they are long and apart. */
static int find_stretches(finding *f, tg_group *g)
{
    tg_wide *w = f->w;
    const uint32_t start = w->n_list;
    uint32_t n = 0;
    int apart = 1;
    for (uint32_t k = 0, end; k < g->n && apart && n <= g->n / TG_GROUP; k = end, n++) {
        for (end = k + 1; end < g->n && keeps_step(f, g, k, end); end++)
            ;
        apart = is_apart(f, g, k, end - k);
        if (lengthen(f, 1))
            return TG_MEMORY;
        w->list[w->n_list - 1] = k;
    }
    if (!apart || n > g->n / TG_GROUP) {
        w->n_list = start;
        return TG_OK;
    }
    if (lengthen(f, 1))
        return TG_MEMORY;
    w->list[w->n_list - 1] = g->n;
    g->stretches = start;
    g->n_stretches = n;
    return TG_OK;
}

/* ---- layers ---- */

/* Whether a stretch is a neuron over rows: of each pair the one on this side is the same for all, as a bias is, and the
   others lie side by side. */
static int is_neuron(const finding *f, const tg_group *g, uint32_t first, uint32_t n, uint32_t side)
{
    for (uint32_t i = 0; i < g->terms; i++)
        for (int numbering = 0; numbering < 2; numbering++)
            if (tg_stride_of(f->p, g, first, n, i, numbering).step != (i % 2 != side && (i | 1) < g->terms))
                return 0;
    return n >= TG_GROUP;
}

/* Whether a neuron sees the rows that another one does, and has constants where that has. */
static int sees_the_same(const finding *f, const tg_group *g, uint32_t first, uint32_t other, uint32_t side)
{
    const uint32_t *own = f->p->pool + 2 * (g->pool + (size_t)g->terms * first);
    const uint32_t *its = f->p->pool + 2 * (g->pool + (size_t)g->terms * other);
    for (uint32_t i = 0; i < g->terms; i++, own += 2, its += 2)
        if (i % 2 != side && (i | 1) < g->terms ? own[0] != its[0] || own[1] != its[1]
                                                : (own[1] < f->p->n_const) != (its[1] < f->p->n_const))
            return 0;
    return 1;
}

/* Whether no slot of a neuron's weights has come up since the last stamp, and of its rows where they are new. */
static int are_new(finding *f, const tg_group *g, uint32_t first, uint32_t n, uint32_t side, int rows)
{
    for (uint32_t i = 0; i < g->terms; i++) {
        const int steps = i % 2 != side && (i | 1) < g->terms;
        const tg_stride x = tg_stride_of(f->p, g, first, n, i, TG_LIVE);
        for (uint32_t k = 0; x.at >= f->p->n_const && (!steps || rows) && k < (steps ? n : 1); k++) {
            meeting *met = f->met + x.at + k;
            if (met->operand == f->stamp)
                return 0;
            met->operand = f->stamp;
        }
    }
    return 1;
}

/* Which stretches go together as a layer: of each the first one, in list behind the stretches. */
static int find_layers(finding *f, const tg_group *g)
{
    const uint32_t *first;
    uint32_t begun = TG_NONE, side = 0;
    if (lengthen(f, g->n_stretches))
        return TG_MEMORY;
    first = f->w->list + g->stretches;
    for (uint32_t k = 0; k < g->n_stretches; k++) {
        const uint32_t n = first[k + 1] - first[k], started = begun;
        const uint32_t own = tg_stride_of(f->p, g, first[k], n, 0, TG_LIVE).step != 0;
        begun = TG_NONE;
        if (g->op == TG_DOT && f->stamp < TG_NONE - 1 && is_neuron(f, g, first[k], n, own)) {
            if (started != TG_NONE && own == side && n == first[started + 1] - first[started] &&
                sees_the_same(f, g, first[k], first[started], side) && are_new(f, g, first[k], n, side, 0))
                begun = started;
            else if (f->stamp++, are_new(f, g, first[k], n, own, 1))
                begun = k;
            side = own;
        }
        f->w->list[g->stretches + g->n_stretches + 1 + k] = begun;
    }
    return TG_OK;
}

/* ---- chains ---- */

enum { NO_LINK, NUMBER_ADDED, PRODUCT_ADDED };

/* What an instruction may add as a link: to something else. */
static int adds(const tg_program *p, const tg_instr *s)
{
    const uint32_t *x;
    if (s->op == TG_ADD)
        return s->a != s->b && s->live_a != s->live_b ? NUMBER_ADDED : NO_LINK;
    if (s->op != TG_DOT || s->b != TG_PRODUCT)
        return NO_LINK;
    x = p->pool + 2 * (size_t)s->a;
    return x[0] != x[4] && x[1] != x[5] && x[2] != x[4] && x[3] != x[5] ? PRODUCT_ADDED : NO_LINK;
}

/* Which operand of it is the sum until there. */
static uint32_t sum_of(const tg_instr *s, int chain) { return operands(s) ? TG_PRODUCT - 1 : chain == TG_CHAIN_B; }

/* Where the links end that follow instruction first: each of the kind of the one before the last. */
static uint32_t end_of_chain(const tg_program *p, uint32_t first, int chain)
{
    int kind[2] = {adds(p, p->instr + first), NO_LINK};
    uint32_t k = first + 1;
    for (; kind[0] && k < p->n_instr; k++) {
        const tg_instr *s = p->instr + k, *before;
        const uint32_t n = k - first, sum = sum_of(s, chain);
        const int own = adds(p, s);
        if (n == 1)
            kind[1] = own;
        before = kind[0] == kind[1] ? s - 1 : n > 1 ? s - 2 : NULL;     /* of the same kind */
        if (!own || own != kind[n % 2] || slot_of(p, k, sum, TG_KEPT) != s[-1].y ||
            slot_of(p, k, sum, TG_LIVE) != s[-1].live_y ||
            (own == PRODUCT_ADDED && before && s->a != before->a + TG_PRODUCT))
            break;
    }
    return k;
}

/* The factors of every other link that adds a product. What is neither the same nor side by side is in the pool. */
static void find_factors(finding *f, tg_group *g)
{
    for (uint32_t odd = 0; odd < 2; odd++)
        for (uint32_t m = 0; g->products >> odd & 1 && m < 2; m++)
            for (int numbering = 0; numbering < 2; numbering++) {
                tg_slots *found = &g->factor[odd][m][numbering];
                const uint32_t n = (g->n - odd + 1) / 2;
                if (in_step(f, g->first + odd, 2, n, m, numbering, found) < n)
                    found->how = TG_LISTED;
            }
}

/* What the links of a chain add, and to what. */
static int find_links(finding *f, tg_group *g)
{
    const tg_instr *s = f->p->instr + g->first;
    const uint32_t first = g->first, every = operands(s) == operands(s + 1) ? 1 : 2;
    int code = find_both(f, first, 1, 1, sum_of(s, g->chain), g->operand[0]);
    g->products = (uint8_t)((operands(s) ? TG_EVEN : 0) | (operands(s + 1) ? TG_ODD : 0));
    g->pool = !g->products ? 0 : s[operands(s) ? 0 : 1].a;
    find_factors(f, g);
    if (!code && g->products != (TG_EVEN | TG_ODD)) {
        const uint32_t from = operands(s) ? 1 : 0;
        code = find_both(f, first + from, every, (g->n - from + every - 1) / every, g->chain == TG_CHAIN_A,
                         g->operand[1]);
    }
    return code ? code : find_both(f, first, 1, g->n, RESULT, g->operand[2]);
}

/* ---- the whole ---- */

static int is_listed(const tg_group *g)
{
    int listed = 0;
    for (uint32_t i = 0; i < g->terms; i++)
        listed |= g->operand[i][TG_KEPT].how == TG_LISTED || g->operand[i][TG_LIVE].how == TG_LISTED;
    return listed;
}

static int add_group(finding *f, uint32_t first, uint32_t n, int chain)
{
    const tg_instr *s = f->p->instr + first;
    const int row = tg_row(s);
    tg_wide *w = f->w;
    tg_group *g;
    int code = TG_OK;
    if (w->n == f->cap) {
        tg_group *group = tg_more(w->group, &f->cap, 16, sizeof *group);
        if (!group)
            return TG_MEMORY;
        w->group = group;
    }
    g = w->group + w->n;
    *g = (tg_group){.first = first, .n = n, .op = s->op, .terms = operands(s), .pool = s->a, .y = {s->y, s->live_y}};
    if (chain) {
        g->op = TG_ADD;
        g->terms = 0;
        g->chain = (uint8_t)chain;
        code = find_links(f, g);
    } else if (tg_has_few(g)) {
        const uint32_t n = g->terms ? g->terms : 2;
        for (uint32_t m = 0; m < n && !code; m++) {
            if (m == 1 && !g->terms && read_one(f->p, g))
                memcpy(g->operand[1], g->operand[0], sizeof g->operand[0]);
            else
                code = find_both(f, first, 1, g->n, m, g->operand[m]);
            g->moves |= (uint8_t)(!code && moves(f, g, m) && !(m == 1 && !g->terms && !tg_passes_to_b(row))) << m;
        }
        if (!code && row != TG_GUARD) {
            g->names = (uint8_t)(g->terms ? 0 : tg_names(row, tg_moving(f->p, s), f->named));
            g->apart = (uint8_t)are_apart(f, g, n);
        }
    } else
        g->straight = (uint8_t)terms_are_straight(f, g);
    if (!code && g->terms && row != TG_WHERE && (!tg_has_few(g) || is_listed(g)))
        code = find_stretches(f, g);
    if (!code && g->n_stretches)
        code = find_layers(f, g);
    if (!code)
        code = find_slots(f, first, 1, n, WHERE, TG_KEPT, &g->where);
    if (!code && row == TG_GUARD)
        code = find_slots(f, first, 1, n, NUMBER, TG_KEPT, &g->number);
    w->n += !code;
    return code;
}

/* What grew has room to spare. */
static void shrink(finding *f)
{
    tg_group *group = tg_realloc(f->w->group, f->w->n * sizeof *group + 1);
    uint32_t *list = tg_realloc(f->w->list, f->w->n_list * sizeof *list + 1);
    if (group) {
        f->w->group = group;
        f->cap = f->w->n;
    }
    if (list) {
        f->w->list = list;
        f->cap_list = f->w->n_list;
    }
}

/* Leave those that are in no group. */
static void leave_alone(tg_program *p)
{
    tg_wide *w = p->wide;
    uint32_t n = 0, from = 0;
    for (uint32_t at = 0; at <= w->n; at++) {
        const uint32_t to = at < w->n ? w->group[at].first : p->n_instr;
        memmove(p->instr + n, p->instr + from, (to - from) * sizeof *p->instr);
        n += to - from;
        if (at == w->n)
            break;
        w->group[at].before = n;
        from = to + w->group[at].n;
    }
    p->n_alone = n;
}

/* Note what instruction k made and read. */
static void note(finding *f, uint32_t k)
{
    const tg_instr *s = f->p->instr + k;
    if (tg_row(s) != TG_GUARD)
        f->made[s->y] = k + 1;
    if (tg_is_short(s->op)) {
        f->seen[TG_KEPT][s->a] = f->seen[TG_KEPT][s->b] = k + 1;
        f->seen[TG_LIVE][s->live_a] = f->seen[TG_LIVE][s->live_b] = k + 1;
    }
}

int tg_group_program(tg_program *p)
{
    finding f = {.p = p};
    uint32_t first = 0, chains = 0;
    int code;
    f.w = tg_zeroed(sizeof *f.w);
    f.made = tg_zeroed(p->n_kept * sizeof *f.made + 1);
    f.met = tg_zeroed(p->n_live * sizeof *f.met + 1);
    f.seen[TG_KEPT] = tg_zeroed(p->n_kept * sizeof *f.seen[TG_KEPT] + 1);
    f.seen[TG_LIVE] = tg_zeroed(p->n_live * sizeof *f.seen[TG_LIVE] + 1);
    code = f.w && f.made && f.met && f.seen[TG_KEPT] && f.seen[TG_LIVE] ? TG_OK : TG_MEMORY;
    for (uint32_t k = 0; !code && k <= p->n_instr && p->n_kept < TG_RUNS && p->n_live < TG_RUNS; k++) {
        if (k == p->n_instr || !grouped(p->instr + k) || (k > first && !goes_on(&f, first, k))) {
            uint32_t end = k;
            if (grouped(p->instr + first) && k - first >= tg_least_group(p->instr[first].op)) {
                code = add_group(&f, first, k - first, TG_NO_CHAIN);
                p->grouped += k - first;
            } else {
                int chain = TG_NO_CHAIN;
                while (k == first + 1 && chain < TG_CHAIN_B && end - first < TG_GROUP)
                    end = end_of_chain(p, first, ++chain);
                if (end - first >= TG_GROUP) {
                    code = add_group(&f, first, end - first, chain);
                    chains++;
                } else
                    end = k;
            }
            for (first = end; k < end; k++)
                note(&f, k);
        }
        if (k < p->n_instr)
            note(&f, k);
    }
    free(f.made);
    free(f.met);
    free(f.seen[TG_KEPT]);
    free(f.seen[TG_LIVE]);
    if (code) {
        tg_free_groups(f.w);
        return code;
    }
    p->wide = f.w;
    p->n_groups = f.w->n - chains;
    shrink(&f);
    leave_alone(p);
    p->bytes += sizeof *f.w + f.cap * sizeof *f.w->group + f.cap_list * sizeof *f.w->list;
    return TG_OK;
}
