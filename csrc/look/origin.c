/*  Where what is not finite comes from: from the bad result back to the first cause, along what is bad alone, so that
    nothing that was masked on the way is ever met.  */
#include "look/look.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

static int bad(double x, int how) { return how & TG_LOOK_NAN ? isnan(x) : !isfinite(x); }

/* Whether operand k had no part in the value of node i: it was not chosen. */
static int unused(const tg_graph *g, uint32_t i, uint32_t k)
{
    const uint32_t *ids = g->operand + g->start[i];
    const double *v = g->value;
    switch (g->op[i]) {
    case TG_WHERE: return k && k != (v[ids[0]] != 0.0 ? 1u : 2u);
    case TG_MAX: case TG_MIN:
        return isnan(v[i]) ? !isnan(v[ids[k]]) : v[ids[k]] != v[i];
    default: return 0;
    }
}

/* Mark what made the value of node i bad, going down from there: *lowest and *count of the marked without a bad
   operand. next leads from a node to the one that it made bad. */
static void mark_causes(const tg_graph *g, uint32_t i, int how, uint8_t *mark, uint32_t *next, uint32_t *lowest,
                        uint32_t *count)
{
    for (mark[i] |= 1; ; i--) {
        if (mark[i] & 1) {
            int first = 1;
            for (uint32_t k = 0; k < g->start[i + 1] - g->start[i]; k++) {
                uint32_t from = g->operand[g->start[i] + k];
                if (!bad(g->value[from], how) || unused(g, i, k))
                    continue;
                first = 0;
                if (!(mark[from] & 1)) {
                    mark[from] |= 1;
                    next[from] = i;
                }
            }
            if (first) {
                *lowest = i;
                ++*count;
            }
        }
        if (!i)
            return;
    }
}

/* The nodes from i on, at most n_way: how many. */
static uint32_t follow(const uint32_t *next, uint32_t i, uint32_t *way, uint32_t n_way)
{
    uint32_t n = 0;
    for (; i != TG_NONE && n < n_way; i = next[i])
        way[n++] = i;
    return n;
}

int tg_graph_bad_value(const tg_graph *g, uint32_t root, int how, tg_origin *out, uint32_t *way, uint32_t n_way)
{
    uint32_t *next;
    uint8_t *mark;
    memset(out, 0, sizeof *out);
    out->operand = TG_NONE;
    if (root >= g->n || !bad(g->value[root], how))
        return TG_OK;
    next = tg_realloc(NULL, g->n * (sizeof *next + 1));
    if (!next)
        return TG_MEMORY;
    mark = (uint8_t *)(next + g->n);
    memset(next, 0xFF, g->n * sizeof *next);
    memset(mark, 0, g->n);
    mark_causes(g, root, how, mark, next, &out->node, &out->count);
    out->n_way = follow(next, out->node, way, n_way);
    free(next);
    return TG_OK;
}

/* Which primals the partial of node i by operand k names are bad: into causes, how many. */
static int bad_primals(const tg_graph *g, uint32_t i, uint32_t k, int how, uint8_t *known, uint32_t *causes)
{
    const uint32_t *ids = g->operand + g->start[i], n = g->start[i + 1] - g->start[i];
    const int named = tg_names(g->op[i], TG_NAMES_A | TG_NAMES_B, known);
    int count = 0;
    if (bad(g->value[i], how) && (named & TG_NAMES_Y || tg_is_many(g->op[i])))
        causes[count++] = i;                            /* a bad result has its own cause; it may be a bad operand */
    if (tg_is_many(g->op[i])) {
        if (g->op[i] == TG_DOT && k < n / 2 * 2) {
            uint32_t other = ids[k < n / 2 ? k + n / 2 : k - n / 2];
            if (bad(g->value[other], how))
                causes[count++] = other;
        } else if (g->op[i] != TG_DOT && g->op[i] != TG_SUM && bad(g->value[ids[k]], how))
            causes[count++] = ids[k];
        return count;
    }
    if (named & TG_NAMES_A && (g->op[i] != TG_MUL || k == 1) && bad(g->value[ids[0]], how))
        causes[count++] = ids[0];
    if (named & TG_NAMES_B && n > 1 && (g->op[i] != TG_MUL || k == 0) && bad(g->value[ids[1]], how))
        causes[count++] = ids[1];
    return count;
}

typedef struct {
    uint32_t *next;                     /* from a cause to what it made bad; values first, then adjoints */
    uint8_t *mark;                      /* 1: a bad value, 2: a bad adjoint, that did harm */
    double *each;
    uint8_t known[TG_NAMED];
} search;

/* Look at all that pass something on to the marked adjoints: ascending, for who reads a node comes after it. An origin
   is an edge, or a node whose contributions are finite; the highest comes first. Bad values among the partials are
   causes before any adjoint: into values. */
static int from_adjoints(const tg_graph *g, search *s, int how, tg_origin *out, uint32_t *values, uint32_t *n_values)
{
    uint8_t *reached = tg_zeroed((size_t)g->n + 1);
    if (!reached)
        return TG_MEMORY;
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t n = g->start[i + 1] - g->start[i], causes[3];
        int wanted = 0;
        if (!g->adjoint[i] || g->kind[i] == TG_COMPARED)
            continue;
        for (uint32_t k = 0; k < n && !wanted; k++)
            wanted = s->mark[g->operand[g->start[i] + k]] & 2;
        if (!wanted)
            continue;
        if (g->kind[i] & TG_GRAPH_RULED)
            continue;
        if (tg_graph_passed(g, i, g->adjoint[i], s->each)) {
            free(reached);
            return TG_MEMORY;
        }
        for (uint32_t k = 0; k < n; k++) {
            uint32_t to = g->operand[g->start[i] + k];
            int count;
            if (!(s->mark[to] & 2) || !bad(s->each[k], how))
                continue;
            reached[to] = 1;
            if (bad(g->adjoint[i], how)) {
                if (!(s->mark[i] & 2)) {
                    s->mark[i] |= 2;
                    s->next[i] = to;
                }
                continue;
            }
            count = bad_primals(g, i, k, how, s->known, causes);
            for (int c = 0; c < count; c++) {
                if (!(s->mark[causes[c]] & 4)) {
                    s->mark[causes[c]] |= 4;
                    values[(*n_values)++] = causes[c];
                }
                s->next[g->n + causes[c]] = to;
            }
            if (!count) {
                out->node = i;
                out->operand = k;
                out->sum = 0;
                out->count++;
            }
        }
    }
    for (uint32_t i = 0; i < g->n; i++)
        if (s->mark[i] & 2 && !reached[i]) {            /* it overflows in the sum, or is a seed */
            out->count++;
            if (out->count == 1 || i > out->node) {
                out->node = i;
                out->operand = TG_NONE;
                out->sum = 1;
            }
        }
    free(reached);
    return TG_OK;
}

int tg_graph_bad_adjoint(const tg_graph *g, const uint32_t *by, uint32_t n_by, int how, tg_origin *out, uint32_t *way,
                         uint32_t n_way)
{
    const uint32_t most = tg_graph_widest(g);
    uint32_t n_values = 0, *values;
    search s;
    int code, any = 0;
    memset(out, 0, sizeof *out);
    memset(&s, 0, sizeof s);
    s.each = tg_realloc(NULL, most * sizeof *s.each + (size_t)g->n * (3 * sizeof(uint32_t) + 1));
    if (!s.each)
        return TG_MEMORY;
    s.next = (uint32_t *)(s.each + most);
    values = s.next + 2 * (size_t)g->n;
    s.mark = (uint8_t *)(values + g->n);
    memset(s.next, 0xFF, 2 * (size_t)g->n * sizeof *s.next);
    memset(s.mark, 0, g->n);
    for (uint32_t k = 0; k < n_by; k++)
        if (by[k] < g->n && bad(g->adjoint[by[k]], how)) {
            s.mark[by[k]] |= 2;
            any = 1;
        }
    code = any ? from_adjoints(g, &s, how, out, values, &n_values) : TG_OK;
    if (!code && n_values) {                            /* a value comes before every adjoint */
        uint32_t top = 0, lowest = 0, made = 0;
        for (uint32_t k = 0; k < n_values; k++) {
            s.mark[values[k]] |= 1;
            top = values[k] > top ? values[k] : top;
        }
        mark_causes(g, top, how, s.mark, s.next + g->n, &lowest, &made);
        out->node = lowest;
        out->operand = TG_NONE;
        out->sum = 0;
        out->count += made;
        for (uint32_t i = lowest; i != TG_NONE && out->n_way < n_way; ) {
            way[out->n_way++] = i;
            i = i < g->n && s.mark[i] & 4 ? TG_NONE : s.next[g->n + i];
        }
        if (out->n_way && s.mark[way[out->n_way - 1]] & 4 && out->n_way < n_way)
            out->n_way += follow(s.next, s.next[g->n + way[out->n_way - 1]], way + out->n_way, n_way - out->n_way);
    } else if (!code && out->count) {
        uint32_t to = out->operand == TG_NONE ? out->node : g->operand[g->start[out->node] + out->operand];
        uint32_t at = out->operand != TG_NONE && n_way;
        if (at)
            way[0] = out->node;
        out->n_way = at + follow(s.next, to, way + at, n_way - at);
    }
    free(s.each);
    return code;
}
