/*  Graphs: made from the tape or a program, swept, and counted.  */
#include "look/look.h"
#include "flush.h"
#include "ops.h"
#include "partials.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How many operands an instruction of few has; a passive one counts. */
static uint32_t arity(int op) { return tg_is_unary(op) ? 1 : 2; }

tg_graph *tg_new_graph(uint64_t n, uint64_t operands, uint64_t roots)
{
    uint64_t bytes = sizeof(tg_graph) + n * (3 * sizeof(double) + 3 * sizeof(uint32_t) + 2) +
                     (operands + roots + 1) * sizeof(uint32_t);
    tg_graph *g = n < TG_NONE && operands < TG_NONE && bytes <= SIZE_MAX ? tg_zeroed((size_t)bytes) : NULL;
    if (!g)
        return NULL;
    g->n = (uint32_t)n;
    g->n_operands = (uint32_t)operands;
    g->n_roots = (uint32_t)roots;
    g->value = (double *)(g + 1);
    g->adjoint = g->value + n;
    g->grad = g->adjoint + n;
    g->start = (uint32_t *)(g->grad + n);
    g->where = g->start + n + 1;
    g->id = g->where + n;
    g->root = g->id + n;
    g->operand = g->root + roots;
    g->op = (uint8_t *)(g->operand + operands);
    g->kind = g->op + n;
    return g;
}

void tg_free_graph(tg_graph *g) { free(g); }

/* ---- from the tape ---- */

tg_graph *tg_graph_of_tape(const tg_tape *t, const uint32_t *roots, uint32_t n_roots, int64_t *code)
{
    uint32_t *number = NULL, top = 0, n = 0, pair[2], count;
    uint64_t operands = 0;
    tg_graph *g = NULL;
    *code = TG_BAD_ID;
    for (uint32_t k = 0; k < n_roots; k++) {
        if (roots[k] >= t->len)
            return NULL;
        top = roots[k] + 1 > top ? roots[k] + 1 : top;
    }
    *code = TG_MEMORY;
    number = tg_zeroed(((size_t)top + 1) * sizeof *number);
    if (!number)
        return NULL;
    for (uint32_t k = 0; k < n_roots; k++)
        number[roots[k]] = 1;
    for (uint32_t i = top; i-- > 0;)
        if (number[i]) {
            const uint32_t *ids = tg_recorded(t, i, pair, &count);
            n++;
            operands += count;
            for (uint32_t k = 0; k < count; k++)
                number[ids[k]] = 1;
        }
    g = tg_new_graph(n, operands, n_roots);
    for (uint32_t i = 0, at = 0, next = 0; g && i < top; i++)
        if (number[i]) {
            const uint32_t *ids = tg_recorded(t, i, pair, &count);
            int ruled = tg_has_rule(t, i);
            number[i] = at;
            g->op[at] = t->op[i] & TG_OPCODE;
            g->kind[at] = g->op[at] != TG_LEAF ? TG_COMPUTED : t->owner[i] ? TG_GIVEN : TG_CONSTANT;
            if (ruled) {
                g->kind[at] |= TG_GRAPH_RULED;
                g->ruled = 1;
            }
            g->id[at] = i;
            g->value[at] = t->data[i];
            g->grad[at] = t->grad[i];
            for (uint32_t k = 0; k < count; k++)
                g->operand[next++] = number[ids[k]];
            g->start[++at] = next;
        }
    for (uint32_t k = 0; g && k < n_roots; k++)
        g->root[k] = number[roots[k]];
    free(number);
    return g;
}

void tg_graph_note(tg_graph *g, const uint32_t *ids, const uint32_t *where, uint32_t n)
{
    for (uint32_t i = 0, k = 0; i < g->n; i++) {
        while (k < n && ids[k] <= g->id[i])
            k++;
        g->where[i] = k && g->kind[i] != TG_CONSTANT && g->kind[i] != TG_GIVEN ? where[k - 1] : 0;
    }
}

int tg_all_finite(const tg_tape *t, const uint32_t *ids, uint32_t n)
{
    double sum = 0.0;
    uint32_t end = 0;
    for (uint32_t k = 0; k < n; k++) {
        if (ids[k] >= t->len)
            return TG_BAD_ID;
        sum += t->data[ids[k]] - t->data[ids[k]];       /* nan where one is infinite or nan */
        end = ids[k] + 1 > end ? ids[k] + 1 : end;
    }
    for (uint32_t i = 0; i < end; i++)
        sum += t->grad[i] - t->grad[i];
    return sum == 0.0;
}

/* ---- from a program ---- */

static double evaluated(const tg_graph *g, uint32_t i)
{
    const uint32_t *ids = g->operand + g->start[i], n = g->start[i + 1] - g->start[i];
    if (tg_is_many(g->op[i]))
        return tg_many_primal(g->op[i], g->value, ids, n);
    return n ? tg_primal(g->op[i], g->value[ids[0]], g->value[ids[n - 1]]) : g->value[i];
}

uint64_t tg_graph_operands(const tg_program *p, uint32_t first, uint32_t end)
{
    uint64_t operands = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = first; k < end; k++) {
        int op = tg_row(tg_at(&w, k));
        if (op == TG_CALL)
            continue;
        operands += op < TG_OPS && tg_is_many(op) ? tg_at(&w, k)->b : arity(op);
    }
    return operands;
}

void tg_graph_append(tg_graph *g, const tg_program *p, uint32_t first, uint32_t end, uint32_t *slot, uint32_t at,
                     int nan_errors)
{
    uint32_t next = g->start[at];
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = first; k < end; k++) {
        const tg_instr *s = tg_at(&w, k);
        const uint32_t i = at + k - first, *pool = p->pool + 2 * (size_t)s->a;
        int op = tg_row(s);
        g->op[i] = (uint8_t)(op < TG_OPS ? op : TG_OPS);
        g->kind[i] = op < TG_OPS ? TG_COMPUTED : TG_COMPARED;
        g->where[i] = s->where;
        g->id[i] = k;
        if (op < TG_OPS && tg_is_many(op)) {
            for (uint32_t j = 0; j < s->b; j++)
                g->operand[next + tg_place(op, j, s->b)] = slot[pool[2 * (size_t)j]];
            next += s->b;
        } else {
            g->operand[next++] = slot[s->a];
            if (arity(op) == 2)
                g->operand[next++] = slot[s->b < p->n_kept ? s->b : s->a];      /* a guard of one */
        }
        g->start[i + 1] = next;
        if (op >= TG_OPS)
            continue;
        g->value[i] = evaluated(g, i);
        if (nan_errors && !(s->op & TG_QUIET))
            g->value[i] = tg_nan_if_refused(op, g->value, g->operand + g->start[i], next - g->start[i], g->value[i]);
        slot[s->y] = i;
    }
}

/* ---- sweep ---- */

/* What a node of few operands with adjoint g passes on; of one operand *to_b is 0. */
TG_INLINE void passed(int op, double g, double a, double b, double y, double *to_a, double *to_b)
{
#define WEIGHED(partial) (TG_FLAT(partial) || g == 0.0 ? 0.0 : g * (partial))
    *to_a = *to_b = 0.0;
    switch (op) {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, primal, da, ...)                                         \
    case TG_##NAME: *to_a = WEIGHED(da); break;
#define TG_BINARY(NAME, method, aliases, symbol, refusal, doc, primal, da, db, ...)                                    \
    case TG_##NAME: *to_a = WEIGHED(da); *to_b = WEIGHED(db); break;
#include "ops.def"
    default: (void)a, (void)b, (void)y;
    }
#undef WEIGHED
}

int tg_graph_sweep(tg_graph *g, const double *seed)
{
    uint8_t *touched = tg_zeroed(((size_t)g->n >> TG_BLOCK) + 1);
    double *adj = g->adjoint;
    fp_mode mode;
    if (!touched)
        return TG_MEMORY;
    memset(adj, 0, g->n * sizeof *adj);
    for (uint32_t k = 0; k < g->n_roots; k++)
        adj[g->root[k]] += seed ? seed[k] : 1.0;
    mode = flush_to_zero();
    for (uint32_t i = g->n; i-- > 0;) {
        const uint32_t *ids = g->operand + g->start[i], n = g->start[i + 1] - g->start[i];
        if (adj[i] == 0.0 || !n || g->kind[i] != TG_COMPUTED)
            continue;
        if (tg_is_many(g->op[i]))
            tg_many_sweep(g->op[i], adj[i], g->value[i], g->value, ids, n, adj, touched);
        else {
            double to_a, to_b;
            passed(g->op[i], adj[i], g->value[ids[0]], g->value[ids[n - 1]], g->value[i], &to_a, &to_b);
            adj[ids[0]] += to_a;
            if (n > 1 && !tg_is_passive(g->op[i]))
                adj[ids[1]] += to_b;
        }
    }
    restore_fp(mode);
    free(touched);
    return TG_OK;
}

int tg_graph_passed(const tg_graph *graph, uint32_t i, double g, double *out)
{
    const uint32_t *ids = graph->operand + graph->start[i], n = graph->start[i + 1] - graph->start[i];
    const double *value = graph->value;
    double to_b, *local;
    uint32_t *own;
    if (!n)
        return TG_OK;
    if (!tg_is_many(graph->op[i]) || graph->kind[i] != TG_COMPUTED) {
        passed(graph->kind[i] == TG_COMPUTED ? graph->op[i] : TG_LEAF, g, value[ids[0]], value[ids[n - 1]],
               value[i], out, &to_b);
        if (n > 1)
            out[1] = tg_is_passive(graph->op[i]) ? 0.0 : to_b;
        return TG_OK;
    }
    local = tg_zeroed(n * (sizeof *local + sizeof *own) + (n >> TG_BLOCK) + 1);     /* each operand one of its own */
    if (!local)
        return TG_MEMORY;
    own = (uint32_t *)(local + n);
    for (uint32_t k = 0; k < n; k++) {
        local[k] = value[ids[k]];
        own[k] = k;
        out[k] = 0.0;
    }
    tg_many_sweep(graph->op[i], g, value[i], local, own, n, out, (uint8_t *)(own + n));
    free(local);
    return TG_OK;
}

uint32_t tg_graph_widest(const tg_graph *g)
{
    uint32_t most = 2;
    for (uint32_t i = 0; i < g->n; i++)
        if (g->start[i + 1] - g->start[i] > most)
            most = g->start[i + 1] - g->start[i];
    return most;
}

/* ---- counts ---- */

int64_t tg_graph_groups(const tg_graph *g, uint32_t *group, uint32_t *first, uint32_t n_first)
{
    enum { BITS = 16, ROOM = 1 << BITS };
    uint32_t *key = tg_realloc(NULL, 2 * ROOM * sizeof *key), n = 0;
    int placed = 0;
    if (!key)
        return TG_MEMORY;
    uint32_t *number = key + ROOM;
    memset(key, 0xFF, ROOM * sizeof *key);
    if (n_first > ROOM / 2)
        n_first = ROOM / 2;
    for (uint32_t i = 0; i < g->n && !placed; i++)
        placed = g->where[i] != 0;
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t of = placed ? g->where[i] : g->op[i], at = of * 2654435761u >> (32 - BITS);
        while (key[at] != TG_NONE && key[at] != of)
            at = (at + 1) % ROOM;
        if (key[at] == TG_NONE) {
            if (n < n_first) {
                key[at] = of;
                number[at] = n;
                first[n++] = i;
            } else {
                group[i] = n - 1;
                continue;
            }
        }
        group[i] = number[at];
    }
    free(key);
    return n;
}

int tg_graph_totals(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint64_t *nodes, uint64_t *operands,
                    double *weight, double *partial)
{
    double *each = tg_realloc(NULL, tg_graph_widest(g) * sizeof *each);
    if (!each)
        return TG_MEMORY;
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t at = group[i], n = g->start[i + 1] - g->start[i];
        if (at >= n_groups)
            continue;
        nodes[at]++;
        operands[at] += n;
        weight[at] += fabs(g->adjoint[i] * g->value[i]);
        if (g->kind[i] != TG_COMPUTED)
            continue;
        if (tg_graph_passed(g, i, 1.0, each)) {
            free(each);
            return TG_MEMORY;
        }
        for (uint32_t k = 0; k < n; k++)
            if (!(fabs(each[k]) <= partial[at]) && partial[at] == partial[at])
                partial[at] = fabs(each[k]);
    }
    free(each);
    return TG_OK;
}

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

void tg_graph_time(const tg_graph *g, double *ns)
{
    enum { SAMPLE = 256 };
    uint32_t sample[TG_OPS + 1][SAMPLE], seen[TG_OPS + 1] = {0}, count[TG_OPS + 1] = {0};
    double sink = 0.0;
    for (uint32_t i = 0; i < g->n; i++)
        if (g->start[i + 1] > g->start[i])
            count[g->op[i]]++;
    for (uint32_t i = 0; i < g->n; i++)
        if (g->start[i + 1] > g->start[i]) {            /* spread over the graph */
            uint32_t stride = count[g->op[i]] / SAMPLE + 1, at = seen[g->op[i]]++;
            if (at % stride == 0)
                sample[g->op[i]][at / stride] = i;
        }
    for (int op = 0; op <= TG_OPS; op++) {
        const uint32_t stride = count[op] / SAMPLE + 1, n = (count[op] + stride - 1) / stride;
        double best = 0.0, out[2];
        for (int turn = 0; n && turn < 8; turn++) {     /* the least: others run in between */
            uint64_t units = 0;
            double begin = now(), took;
            for (uint32_t s = 0; s < n * (SAMPLE / n); s++) {       /* many, for asking the clock takes time, too */
                const uint32_t i = sample[op][s % n], m = g->start[i + 1] - g->start[i];
                const uint32_t *ids = g->operand + g->start[i];
                if (op < TG_OPS && tg_is_many(op)) {
                    sink += tg_many_primal(op, g->value, ids, m);
                    units += m;
                } else {
                    sink += tg_primal(op, g->value[ids[0]], g->value[ids[m - 1]]);
                    passed(op, 1.0, g->value[ids[0]], g->value[ids[m - 1]], g->value[i], out, out + 1);
                    sink += out[0] + out[1];
                    units++;
                }
            }
            took = (now() - begin) / (double)units;
            best = turn && best < took ? best : took;
        }
        ns[op] = op < TG_OPS && tg_is_many(op) ? 2.0 * best : best;     /* there and back */
        ns[TG_OPS + 1] = sink;                          /* or the compiler leaves all of it out */
    }
}

void tg_graph_share(const tg_graph *g, const uint32_t *group, uint32_t n_groups, const double *ns, double *took)
{
    for (uint32_t i = 0; i < g->n; i++) {
        int op = g->op[i];
        uint32_t units = op < TG_OPS && tg_is_many(op) ? g->start[i + 1] - g->start[i] : 1;
        if (group[i] < n_groups && g->start[i + 1] > g->start[i])
            took[group[i]] += ns[op] * units;
    }
}

void tg_graph_weigh(const tg_graph *g, const uint32_t *group, uint32_t n_groups, const double *error,
                    const double *bound, double *signed_sum, double *size)
{
    for (uint32_t i = 0; i < g->n; i++)
        if (group[i] < n_groups && g->adjoint[i] != 0.0) {
            signed_sum[group[i]] += g->adjoint[i] * error[i];
            size[group[i]] += fabs(g->adjoint[i]) * (fabs(error[i]) + bound[i]);
        }
}

static uint32_t distance_row(uint32_t distance, uint32_t height)
{
    uint32_t row = (uint32_t)(16.0 * log2(distance));
    return row < height ? row : height - 1;
}

void tg_graph_raster(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint32_t width, uint32_t height,
                     uint32_t *nodes, uint32_t *reads)
{
    enum { KNOWN = 4096 };
    uint32_t row_of[KNOWN];
    for (uint32_t d = 1; d < KNOWN; d++)
        row_of[d] = distance_row(d, height);
    for (uint32_t i = 0; i < g->n; i++) {
        uint32_t x = (uint32_t)((uint64_t)i * width / g->n);
        uint32_t y = n_groups <= height ? group[i] : (uint32_t)((uint64_t)group[i] * height / n_groups);
        if (group[i] < n_groups)
            nodes[(size_t)y * width + x]++;
        for (uint32_t k = g->start[i]; k < g->start[i + 1]; k++) {
            uint32_t d = i - g->operand[k];
            reads[(size_t)(d < KNOWN ? row_of[d] : distance_row(d, height)) * width + x]++;
        }
    }
}

void tg_graph_shades(const uint32_t *count, uint32_t n, uint8_t *shade)
{
    for (uint32_t k = 0; k < n; k++) {
        double level = count[k] ? 1.0 + 16.0 * log2(count[k]) : 0.0;
        shade[k] = (uint8_t)(level < 255.0 ? level : 255.0);
    }
}

uint32_t tg_graph_sample(const tg_graph *g, const uint32_t *group, uint32_t of, uint32_t *out, uint32_t n)
{
    uint32_t all = 0, seen = 0, count = 0;
    for (uint32_t i = 0; i < g->n; i++)
        all += group[i] == of;
    for (uint32_t i = 0; i < g->n && count < n; i++)
        if (group[i] == of && seen++ >= (uint64_t)count * (all - 1) / (n > 1 ? n - 1 : 1))
            out[count++] = i;
    return count;
}

void tg_graph_regroup(const tg_graph *g, uint32_t *group, const uint32_t *to, uint32_t n_groups)
{
    for (uint32_t i = 0; i < g->n; i++)
        if (group[i] < n_groups)
            group[i] = to[group[i]];
}

int64_t tg_graph_fold(const tg_graph *g, const uint32_t *group, uint32_t n_groups, uint32_t *edges, uint32_t most)
{
    uint32_t *count, n = 0;
    if (n_groups > 4096)
        return TG_BAD_ID;
    count = tg_zeroed(((size_t)n_groups * n_groups + 1) * sizeof *count);
    if (!count)
        return TG_MEMORY;
    for (uint32_t i = 0; i < g->n; i++)
        for (uint32_t k = g->start[i]; k < g->start[i + 1]; k++) {
            uint32_t from = group[g->operand[k]], to = group[i];
            if (from < n_groups && to < n_groups)
                count[(size_t)from * n_groups + to]++;
        }
    for (uint32_t from = 0; from < n_groups; from++)
        for (uint32_t to = 0; to < n_groups; to++)
            if (count[(size_t)from * n_groups + to] && n < most) {
                edges[3 * n] = from;
                edges[3 * n + 1] = to;
                edges[3 * n++ + 2] = count[(size_t)from * n_groups + to];
            }
    free(count);
    return n;
}
