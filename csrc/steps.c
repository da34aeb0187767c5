/*  Steps walked in one lane, and graphs of them: programs one after the other on a state.  */
#include "steps.h"

#include <stdlib.h>
#include <string.h>

static double x_of(const tg_loop *o, const double *in, uint32_t i, int64_t step)
{
    return in[o->x_at[i] + (size_t)step * o->x_by[i]];
}

int64_t tg_walk(const tg_loop *o, const double *in, int64_t first, int64_t steps, double *state, uint8_t *path)
{
    const tg_job one = {.lanes = 1};
    const uint32_t n_own = o->n_state + o->n_x;
    uint8_t taken[TG_WIDEST] = {0}, asked[TG_WIDEST] = {0};
    char *memory = NULL, *whole = NULL;
    for (;;) {                          /* count what it takes, then lay it out */
        tg_stage s = {0}, until = {0};
        uint64_t used = 0;
        double *own[2] = {tg_carve(memory, &used, n_own, sizeof(double))};
        double *out[2] = {tg_carve(memory, &used, (uint64_t)o->n_state + o->n_y, sizeof(double))};
        double *params[2] = {tg_carve(memory, &used, o->n_params, sizeof(double))};
        int64_t k = 0;
        tg_lay_stage(&s, o->step, n_own, &one, memory, &used);
        if (o->until)
            tg_lay_stage(&until, o->until, o->n_state, &one, memory, &used);
        if (!memory) {
            whole = used < SIZE_MAX / 4 ? tg_zeroed((size_t)used + 64) : NULL;
            if (!whole)
                return TG_MEMORY;
            memory = (char *)(((uintptr_t)whole + 63) & ~(uintptr_t)63);
            continue;
        }
        memcpy(params[0], in + o->first_param, o->n_params * sizeof(double));
        tg_set_shared(&s, params, 1);
        if (o->until)
            tg_set_shared(&until, params, 1);
        for (; k < steps; k++) {
            int lost;
            memcpy(own[0], state, o->n_state * sizeof(double));
            lost = o->until && tg_go(&until, 1, asked, own, NULL, out);
            if (!lost && o->until && out[0][0] != 0.0)
                break;
            for (uint32_t i = 0; i < o->n_x; i++)
                own[0][o->n_state + i] = x_of(o, in, i, first + k);
            if (lost || tg_go(&s, 1, taken, own, NULL, out)) {
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

/* A graph that is being made: which nodes are the state now; by slot of a program, the node of its value. */
typedef struct {
    tg_graph *g;
    uint32_t at, *state, *slot;
} growth;

static void give(growth *w, double value, uint32_t id, int kind)
{
    tg_graph *g = w->g;
    g->kind[w->at] = (uint8_t)kind;
    g->value[w->at] = value;
    g->id[w->at] = id;
    g->start[w->at + 1] = g->start[w->at];
    w->at++;
}

static uint32_t moved(uint32_t where, const tg_codes *codes)
{
    const uint32_t code = where >> TG_WHERE_LINE, line = where & ((1u << TG_WHERE_LINE) - 1);
    return code < codes->n && codes->to[code] ? codes->to[code] << TG_WHERE_LINE | line : 0;
}

/* A program on the state and what of its own inputs comes after it, which is given from node x on. */
static void go_on(growth *w, const tg_loop *o, const tg_cell *cell, const tg_program *p, uint32_t x, uint32_t n_x,
                  const tg_codes *codes)
{
    const uint32_t n_own = o->n_state + n_x;
    for (uint32_t k = 0; k < p->n_const; k++) {
        w->slot[k] = w->at;
        give(w, p->constant[k], k, TG_CONSTANT);
    }
    for (uint32_t i = 0; i < p->n_in; i++)
        w->slot[p->n_const + i] = i < o->n_state ? w->state[i]
                                  : i < n_own    ? x + i - o->n_state
                                                 : o->n_state + cell->shared[i - n_own];
    tg_graph_append(w->g, p, w->slot, w->at, cell->nan_errors);
    for (uint32_t k = 0; k < p->n_instr; k++, w->at++)
        w->g->where[w->at] = moved(w->g->where[w->at], codes);
}

static uint64_t nodes_of(const tg_program *p) { return (uint64_t)p->n_const + p->n_instr; }

/* In the function's order, if it is not in it: programs that are made are the caller's to free, whatever it gives. */
static int plainly(const tg_cell *cell, const tg_program **plain)
{
    for (uint32_t k = 0; k < cell->n_paths; k++) {
        plain[k] = cell->program[k]->order ? tg_plain_program(cell->program[k]) : cell->program[k];
        if (!plain[k])
            return TG_MEMORY;
    }
    return TG_OK;
}

static void free_plain(const tg_cell *cell, const tg_program **plain)
{
    for (uint32_t k = 0; cell && k < cell->n_paths; k++)
        if (plain[k] != cell->program[k])
            tg_free_program((tg_program *)plain[k]);
}

tg_graph *tg_graph_of_steps(const tg_loop *o, const double *in, int64_t first, uint32_t steps, const double *state,
                            const uint8_t *path, int with_final, const tg_codes *code, uint32_t *begin)
{
    const tg_cell *final = with_final ? o->final : NULL;
    const uint32_t n_paths = o->step->n_paths + (final ? final->n_paths : 0);
    const tg_program **plain = tg_zeroed(n_paths * sizeof *plain), *last = NULL;
    uint64_t n = (uint64_t)o->n_state + o->n_params, operands = 0, slots = 1;
    growth w = {0};
    uint32_t *root;
    if (!plain || plainly(o->step, plain) || (final && plainly(final, plain + o->step->n_paths)))
        goto done;
    for (uint32_t k = 0; k < n_paths; k++)
        slots = plain[k]->n_kept > slots ? plain[k]->n_kept : slots;
    for (uint32_t k = 0; k < steps; k++) {
        n += o->n_x + nodes_of(plain[path[k]]);
        operands += tg_graph_operands(plain[path[k]]);
    }
    if (final) {
        last = plain[o->step->n_paths + path[steps]];
        n += nodes_of(last);
        operands += tg_graph_operands(last);
    }
    w.slot = tg_realloc(NULL, (size_t)(slots + o->n_state) * sizeof *w.slot);
    w.g = w.slot ? tg_new_graph(n, operands, o->n_state + (uint64_t)steps * o->n_y + (final != NULL)) : NULL;
    if (!w.g)
        goto done;
    w.state = w.slot + slots;
    for (uint32_t i = 0; i < o->n_state; i++) {
        w.state[i] = w.at;
        give(&w, state[i], i, TG_GIVEN);
    }
    for (uint32_t i = 0; i < o->n_params; i++)
        give(&w, in[o->first_param + i], o->first_param + i, TG_GIVEN);
    root = w.g->root + o->n_state;
    for (uint32_t k = 0; k < steps; k++) {
        const tg_program *p = plain[path[k]];
        const uint32_t x = begin[k] = w.at;
        for (uint32_t i = 0; i < o->n_x; i++)
            give(&w, x_of(o, in, i, first + k), o->n_state + i, TG_GIVEN);
        go_on(&w, o, o->step, p, x, o->n_x, code + path[k]);
        for (uint32_t i = 0; i < o->n_state; i++)
            w.state[i] = w.slot[p->out[2 * (size_t)i]];
        for (uint32_t i = 0; i < o->n_y; i++)
            *root++ = w.slot[p->out[2 * ((size_t)o->n_state + i)]];
    }
    begin[steps] = w.at;
    if (final) {
        go_on(&w, o, final, last, 0, 0, code + o->step->n_paths + path[steps]);
        *root = w.slot[last->out[0]];
    }
    memcpy(w.g->root, w.state, o->n_state * sizeof *w.state);
done:
    if (plain) {
        free_plain(o->step, plain);
        free_plain(final, plain + o->step->n_paths);
    }
    free(plain);
    free(w.slot);
    return w.g;
}
