/*  Steps walked in one lane; and graphs of programs, one after the other on a state, or within one another.  */
#include "look/steps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double x_of(const tg_loop *o, const double *in, uint32_t i, int64_t step)
{
    return in[o->x_at[i] + (size_t)step * o->x_by[i]];
}

/* A cell as it is in this mode of nan_errors. */
static tg_cell in_mode(const tg_cell *cell, int nan_errors)
{
    tg_cell c = *cell;
    c.nan_errors = nan_errors;
    return c;
}

/* The mode of a cell that is carried out where another mode may be asked for. */
static int mode_of(const tg_cell *cell, int nan_errors)
{
    return cell->nan_errors == TG_NAN ? TG_NAN : nan_errors ? nan_errors : cell->nan_errors;
}

/* A cell that is carried out as f is, and if that is refused, as well as a cell that gives nan then. */
typedef struct {
    tg_cell cell[2];
    tg_stage stage[2];
} tries;

static void lay_tries(tries *t, const tg_cell *cell, uint32_t n_own, int nan_errors, char *memory, uint64_t *used)
{
    const tg_job one = {.lanes = 1};
    const int mode = mode_of(cell, nan_errors), n = mode == TG_NAN_UNCAUGHT ? 2 : 1;
    *t = (tries){.cell = {in_mode(cell, mode == TG_NAN), in_mode(cell, TG_NAN)}};
    for (int k = 0; k < n; k++)
        tg_lay_stage(t->stage + k, t->cell + k, n_own, &one, memory, used);
}

static void set_tries(tries *t, double *const params[2])
{
    for (int k = 0; k < 2 && t->stage[k].cell; k++)
        tg_set_shared(t->stage + k, params, 1);
}

/* Whether it found no path; else taken is which. */
static int go(tries *t, uint8_t *taken, double *const in[2], double *const out[2])
{
    if (!tg_go(t->stage, 1, taken, in, NULL, out))
        return 0;
    *taken = (uint8_t)t->stage->stopped_on;
    return !t->stage[1].cell || tg_go(t->stage + 1, 1, taken, in, NULL, out);
}

int64_t tg_walk(const tg_loop *o, const double *in, int64_t first, int64_t steps, double *state, int nan_errors,
                uint8_t *path)
{
    const uint32_t n_own = o->n_state + o->n_x;
    uint8_t taken[TG_WIDEST] = {0}, asked[TG_WIDEST] = {0};
    char *memory = NULL, *whole = NULL;
    for (;;) {                          /* count what it takes, then lay it out */
        tries s, until;
        uint64_t used = 0;
        double *own[2] = {tg_carve(memory, &used, n_own, sizeof(double))};
        double *out[2] = {tg_carve(memory, &used, (uint64_t)o->n_state + o->n_y, sizeof(double))};
        double *params[2] = {tg_carve(memory, &used, o->n_params, sizeof(double))};
        int64_t k = 0;
        lay_tries(&s, o->step, n_own, nan_errors, memory, &used);
        if (o->until)
            lay_tries(&until, o->until, o->n_state, nan_errors, memory, &used);
        if (!memory) {
            whole = used < SIZE_MAX / 4 ? tg_zeroed((size_t)used + 64) : NULL;
            if (!whole)
                return TG_MEMORY;
            memory = (char *)(((uintptr_t)whole + 63) & ~(uintptr_t)63);
            continue;
        }
        memcpy(params[0], in + o->first_param, o->n_params * sizeof(double));
        set_tries(&s, params);
        if (o->until)
            set_tries(&until, params);
        for (; k < steps; k++) {
            int lost;
            memcpy(own[0], state, o->n_state * sizeof(double));
            lost = o->until && go(&until, asked, own, out);
            if (!lost && o->until && out[0][0] != 0.0)
                break;
            for (uint32_t i = 0; i < o->n_x; i++)
                own[0][o->n_state + i] = x_of(o, in, i, first + k);
            if (lost || go(&s, taken, own, out)) {
                k = TG_BAD_ID;
                break;
            }
            path[k] = taken[0];
            memcpy(state, out[0], o->n_state * sizeof(double));
        }
        free(whole);
        return k;
    }
}

/* ---- as a graph ---- */

/* A graph that is being made: how far it is, and for how much there is room. */
typedef struct {
    tg_graph *g;
    uint32_t at;
    uint64_t nodes, operands;
} growth;

static int begin_graph(growth *w, uint64_t nodes, uint64_t operands, uint64_t roots)
{
    *w = (growth){.g = tg_new_graph(nodes, operands, roots), .nodes = nodes, .operands = operands};
    return w->g ? TG_OK : TG_MEMORY;
}

/* It has what it was to have, or, if it failed, is gone. */
static tg_graph *end_graph(growth *w, int failed)
{
    if (!failed) {
        w->g->n = w->at;
        w->g->n_operands = w->g->start[w->at];
        return w->g;
    }
    tg_free_graph(w->g);
    return NULL;
}

static uint64_t enough(uint64_t room, uint64_t wanted)
{
    const uint64_t most = TG_NONE - 1, twice = 2 * room < most ? 2 * room : most;
    return wanted <= room ? room : wanted < twice ? twice : wanted;
}

/* Room for more. */
static int reserve(growth *w, uint64_t nodes, uint64_t operands)
{
    const tg_graph *old = w->g;
    const uint64_t n = enough(w->nodes, w->at + nodes), m = enough(w->operands, old->start[w->at] + operands);
    growth wider;
    if (n == w->nodes && m == w->operands)
        return TG_OK;
    if (begin_graph(&wider, n, m, old->n_roots))
        return TG_MEMORY;
    memcpy(wider.g->value, old->value, w->at * sizeof *old->value);
    memcpy(wider.g->start, old->start, (w->at + (size_t)1) * sizeof *old->start);
    memcpy(wider.g->where, old->where, w->at * sizeof *old->where);
    memcpy(wider.g->id, old->id, w->at * sizeof *old->id);
    memcpy(wider.g->operand, old->operand, old->start[w->at] * sizeof *old->operand);
    memcpy(wider.g->root, old->root, old->n_roots * sizeof *old->root);
    memcpy(wider.g->op, old->op, w->at);
    memcpy(wider.g->kind, old->kind, w->at);
    wider.at = w->at;
    tg_free_graph(w->g);
    *w = wider;
    return TG_OK;
}

static uint32_t give(growth *w, double value, uint32_t id, int kind)
{
    tg_graph *g = w->g;
    g->kind[w->at] = (uint8_t)kind;
    g->value[w->at] = value;
    g->id[w->at] = id;
    g->start[w->at + 1] = g->start[w->at];
    return w->at++;
}

static uint32_t moved(uint32_t where, const tg_codes *codes)
{
    const uint32_t code = where >> TG_WHERE_LINE, line = where & ((1u << TG_WHERE_LINE) - 1);
    if (!codes)
        return where;
    return code < codes->n && codes->to[code] ? codes->to[code] << TG_WHERE_LINE | line : 0;
}

/* Programs that are carried out one after the other: by path, in the function's order; the nodes of the inputs of one;
   by slot of it, the node of its value. */
typedef struct {
    const tg_cell *cell[2];             /* the second NULL where there is none */
    const tg_program **plain;
    uint32_t *node, *slot;
} line;

/* To be ended, whatever it gives. */
static int begin_line(line *l, const tg_cell *first, const tg_cell *second)
{
    const uint32_t n_paths = first->n_paths + (second ? second->n_paths : 0);
    uint64_t slots = 1, inputs = 1;
    *l = (line){.cell = {first, second}, .plain = tg_zeroed(n_paths * sizeof *l->plain)};
    for (uint32_t k = 0; l->plain && k < n_paths; k++) {
        const tg_program *p = k < first->n_paths ? first->program[k] : second->program[k - first->n_paths];
        l->plain[k] = p->order ? tg_plain_program(p) : p;
        if (!l->plain[k])
            return TG_MEMORY;
        slots = l->plain[k]->n_kept > slots ? l->plain[k]->n_kept : slots;
        inputs = p->n_in > inputs ? p->n_in : inputs;
    }
    l->node = l->plain ? tg_realloc(NULL, (size_t)(inputs + slots) * sizeof *l->node) : NULL;
    l->slot = l->node ? l->node + inputs : NULL;
    return l->node ? TG_OK : TG_MEMORY;
}

static void end_line(line *l)
{
    for (int which = 0, at = 0; l->plain && which < 2; which++)
        for (uint32_t k = 0; l->cell[which] && k < l->cell[which]->n_paths; k++, at++)
            if (l->plain[at] != l->cell[which]->program[k])
                tg_free_program((tg_program *)l->plain[at]);
    free(l->plain);
    free(l->node);
}

static int lay_call(growth *w, const tg_program *p, const tg_instr *s, uint32_t *slot, int nan_errors,
                    const tg_codes *codes);

static int lay_constants(growth *w, const tg_program *p, uint32_t *slot)
{
    if (reserve(w, p->n_const, 0))
        return TG_MEMORY;
    for (uint32_t k = 0; k < p->n_const; k++)
        slot[k] = give(w, p->constant[k], k, TG_CONSTANT);
    return TG_OK;
}

/* The instructions of a program. */
static int lay(growth *w, const tg_program *p, uint32_t *slot, int nan_errors, const tg_codes *codes)
{
    tg_window at_hand;
    tg_open_window(&at_hand, p);
    for (uint32_t k = 0;; k++) {
        const uint32_t first = k;
        while (k < p->n_instr && tg_row(tg_at(&at_hand, k)) != TG_CALL)
            k++;
        if (reserve(w, k - first, tg_graph_operands(p, first, k)))
            return TG_MEMORY;
        tg_graph_append(w->g, p, first, k, slot, w->at, nan_errors);
        for (const uint32_t end = w->at + (k - first); w->at < end; w->at++)
            w->g->where[w->at] = moved(w->g->where[w->at], codes);
        if (k == p->n_instr)
            return TG_OK;
        if (lay_call(w, p, tg_at(&at_hand, k), slot, nan_errors, codes))
            return TG_MEMORY;
    }
}

/* The program of a line, with these inputs. */
static int lay_next(growth *w, const line *l, const tg_program *p, int nan_errors, const tg_codes *codes)
{
    if (lay_constants(w, p, l->slot))
        return TG_MEMORY;
    memcpy(l->slot + p->n_const, l->node, p->n_in * sizeof *l->node);
    return lay(w, p, l->slot, nan_errors, codes);
}

/* The steps of a loop that an instruction carries out, or what it gives as given. */
static int lay_call(growth *w, const tg_program *p, const tg_instr *s, uint32_t *slot, int nan_errors,
                    const tg_codes *codes)
{
    const tg_called *c = p->call + s->y;
    const tg_loop *o = c->loop;
    const uint32_t *from = p->pool + 2 * (size_t)s->a, *to = from + 2 * (size_t)c->n_in;
    const uint32_t n_own = o->n_state + o->n_x;
    const int nan_within = mode_of(o->step, nan_errors);
    double *in = NULL;
    uint8_t *path = NULL;
    int code = TG_MEMORY;
    line l = {0};
    if (!codes) {
        if (reserve(w, c->n_out, 0))
            return TG_MEMORY;
        for (uint32_t i = 0; i < c->n_out; i++)
            slot[to[2 * (size_t)i]] = give(w, NAN, i, TG_GIVEN);
        return TG_OK;
    }
    if (o->length >= TG_NONE || begin_line(&l, o->step, NULL))
        goto done;
    in = tg_realloc(NULL, ((size_t)c->n_in + o->n_state + 1) * sizeof *in);
    path = tg_zeroed((size_t)o->length + 1);
    if (!in || !path)
        goto done;
    for (uint32_t i = 0; i < c->n_in; i++)
        in[i] = w->g->value[slot[from[2 * (size_t)i]]];
    memcpy(in + c->n_in, in, o->n_state * sizeof *in);
    if (tg_walk(o, in, 0, o->length, in + c->n_in, nan_errors, path) == TG_MEMORY)
        goto done;
    for (uint32_t i = 0; i < o->n_state; i++)
        l.node[i] = slot[from[2 * (size_t)i]];
    for (uint32_t i = n_own; i < o->step->program[0]->n_in; i++)
        l.node[i] = slot[from[2 * ((size_t)o->first_param + o->step->shared[i - n_own])]];
    for (int64_t k = 0; k < o->length; k++) {
        const tg_program *step = l.plain[path[k]];
        for (uint32_t i = 0; i < o->n_x; i++)
            l.node[o->n_state + i] = slot[from[2 * (o->x_at[i] + (size_t)k * o->x_by[i])]];
        if (lay_next(w, &l, step, nan_within, codes->within[s->y] + path[k]))
            goto done;
        for (uint32_t i = 0; i < o->n_state; i++)
            l.node[i] = l.slot[step->out[2 * (size_t)i]];
        for (uint32_t i = 0; i < o->n_y; i++)
            slot[to[2 * (size_t)(o->y_at[i] + k * o->y_by[i])]] = l.slot[step->out[2 * ((size_t)o->n_state + i)]];
    }
    for (uint32_t i = 0; i < o->n_state; i++)
        slot[to[2 * (size_t)i]] = l.node[i];
    code = TG_OK;
done:
    end_line(&l);
    free(in);
    free(path);
    return code;
}

static uint64_t nodes_of(const tg_program *p) { return (uint64_t)p->n_const + p->n_instr; }

tg_graph *tg_graph_of_steps(const tg_loop *o, const double *in, int64_t first, uint32_t steps, const double *state,
                            const uint8_t *path, int with_final, const tg_codes *code, uint32_t *begin)
{
    const tg_cell *final = with_final ? o->final : NULL;
    const uint32_t n_own = o->n_state + o->n_x, step_in = o->step->program[0]->n_in;
    const tg_program *last;
    uint64_t n = (uint64_t)o->n_state + o->n_params, operands = 0;
    growth w = {0};
    line l;
    int failed = begin_line(&l, o->step, final);
    uint32_t root = o->n_state;
    if (failed)
        goto done;
    last = final ? l.plain[o->step->n_paths + path[steps]] : NULL;
    for (uint32_t k = 0; k < steps + (last != NULL); k++) {
        const tg_program *p = k < steps ? l.plain[path[k]] : last;
        n += (k < steps ? o->n_x : 0) + nodes_of(p);
        operands += tg_graph_operands(p, 0, p->n_instr);
    }
    failed = begin_graph(&w, n, operands, o->n_state + (uint64_t)steps * o->n_y + (final != NULL));
    for (uint32_t i = 0; !failed && i < o->n_state; i++)
        l.node[i] = give(&w, state[i], i, TG_GIVEN);
    for (uint32_t i = 0; !failed && i < o->n_params; i++)
        give(&w, in[o->first_param + i], o->first_param + i, TG_GIVEN);
    for (uint32_t k = 0; !failed && k < steps; k++) {
        const tg_program *p = l.plain[path[k]];
        begin[k] = w.at;
        failed = reserve(&w, o->n_x, 0);
        for (uint32_t i = 0; !failed && i < o->n_x; i++)
            l.node[o->n_state + i] = give(&w, x_of(o, in, i, first + k), o->n_state + i, TG_GIVEN);
        for (uint32_t i = n_own; i < step_in; i++)
            l.node[i] = o->n_state + o->step->shared[i - n_own];
        failed = failed || lay_next(&w, &l, p, o->step->nan_errors, code + path[k]);
        for (uint32_t i = 0; !failed && i < o->n_state + o->n_y; i++)
            *(i < o->n_state ? l.node + i : w.g->root + root++) = l.slot[p->out[2 * (size_t)i]];
    }
    begin[steps] = w.at;
    if (failed)
        goto done;
    memcpy(w.g->root, l.node, o->n_state * sizeof *l.node);
    if (last) {
        for (uint32_t i = o->n_state; i < last->n_in; i++)
            l.node[i] = o->n_state + final->shared[i - o->n_state];
        failed = lay_next(&w, &l, last, final->nan_errors, code + o->step->n_paths + path[steps]);
        if (!failed)
            w.g->root[root] = l.slot[last->out[0]];
    }
done:
    end_line(&l);
    return end_graph(&w, failed);
}

tg_graph *tg_graph_of_program(const tg_program *p, const double *in, int nan_errors, const tg_codes *code)
{
    const tg_program *const given = p;
    const tg_cell cell = {.n_paths = 1, .program = &given};
    growth w = {0};
    line l;
    int failed = begin_line(&l, &cell, NULL);
    if (!failed) {
        p = l.plain[0];                 /* as the function has them */
        failed = begin_graph(&w, nodes_of(p) + p->n_in, tg_graph_operands(p, 0, p->n_instr), p->n_out) ||
                 lay_constants(&w, p, l.slot);
        for (uint32_t i = 0; !failed && i < p->n_in; i++)
            l.slot[p->n_const + i] = give(&w, in[i], i, TG_GIVEN);
        failed = failed || lay(&w, p, l.slot, nan_errors, code);
        for (uint32_t k = 0; !failed && k < p->n_out; k++)
            w.g->root[k] = l.slot[p->out[2 * (size_t)k]];
    }
    end_line(&l);
    return end_graph(&w, failed);
}
