/*  Jacobians by cones: a recorded sweep of each output visits what that output depends on and nothing else, one of each
    input forward what depends on it.

    No colours are needed: two columns that meet in no output meet in no node that matters, so a sweep for both of them
    visits what one for each visits.  */
#include "sparse/nonzeros.h"

static tg_scalar at(const tg_nonzeros *s, uint32_t node) { return tg_held(s, s->adj[node] - 1); }

static void row(tg_nonzeros *s, uint32_t r, int dry)
{
    uint32_t i;
    tg_add_at(s, s->out[r], tg_number(1.0));
    while ((i = tg_agenda_take(&s->agenda, 1)) != TG_NONE) {
        const tg_scalar g = at(s, i);
        const uint32_t node = s->adj[i] - 1;
        uint32_t n;
        s->adj[i] = 0;
        if (s->code || tg_is_number(g, 0.0))
            continue;
        if (tg_is_input(s, i)) {
            tg_entry(s, r, i - s->first, node);
            continue;
        }
        n = tg_ports(s, i);
        if (!tg_goes_on(s, n))
            continue;
        for (uint32_t k = 0; k < n; k++)
            if (dry)
                tg_mark_at(s, s->port[k].id);
            else
                tg_add_at(s, s->port[k].id, tg_passed(s, i, s->port + k, g));
    }
}

int tg_jacobian_rows(tg_nonzeros *s, uint64_t budget, int dry)
{
    s->budget = budget;
    for (uint32_t r = 0; r < s->n_out && !s->code; r++)
        if (s->moves[s->out[r]])
            row(s, r, dry);
    return s->code ? s->code : tg_order_entries(s);
}

static void column(tg_nonzeros *s, uint32_t c, const uint32_t *first_out, const uint32_t *next_out, int dry)
{
    uint32_t i;
    tg_add_at(s, s->first + c, tg_number(1.0));
    while ((i = tg_agenda_take(&s->agenda, 0)) != TG_NONE) {
        const tg_scalar g = at(s, i);
        const uint32_t node = s->adj[i] - 1;
        s->adj[i] = 0;
        if (s->code || tg_is_number(g, 0.0))
            continue;
        for (uint32_t r = first_out[i]; r != TG_NONE; r = next_out[r])
            tg_entry(s, r, c, node);
        if (!tg_goes_on(s, s->use_start[i + 1] - s->use_start[i]))
            continue;
        for (uint32_t u = s->use_start[i]; u < s->use_start[i + 1]; u++) {
            tg_port p;
            if (!tg_port_of(s, s->use_node[u], s->use_k[u], &p))
                continue;
            if (dry)
                tg_mark_at(s, s->use_node[u]);
            else
                tg_add_at(s, s->use_node[u], tg_passed(s, s->use_node[u], &p, g));
        }
    }
}

int tg_jacobian_columns(tg_nonzeros *s, uint64_t budget, int dry)
{
    uint32_t *first_out = tg_realloc(NULL, ((size_t)s->n + s->n_out + 1) * sizeof *first_out);
    uint32_t *next_out = first_out ? first_out + s->n : NULL;
    s->budget = budget;
    s->code = first_out ? tg_uses(s) : TG_MEMORY;
    if (!s->code) {
        for (uint32_t i = 0; i < s->n; i++)             /* which outputs a node is */
            first_out[i] = TG_NONE;
        for (uint32_t r = s->n_out; r-- > 0;) {
            next_out[r] = first_out[s->out[r]];
            first_out[s->out[r]] = r;
        }
        for (uint32_t c = 0; c < s->count && !s->code; c++)
            column(s, c, first_out, next_out, dry);
    }
    free(first_out);
    return s->code ? s->code : tg_order_entries(s);
}
