/*  A program laid out on the tape, as if the function that it was recorded from had run there.

    Slots are shared one after the other, so which node a slot stands for changes as the instructions go by. Constants
    become leaves.  */
#include "lay_out.h"
#include "ops.h"

#include <stdlib.h>

int tg_lay_out(tg_tape *t, const tg_program *p, const uint32_t *in, int nan_errors, uint32_t *of, uint32_t *a,
               uint32_t *b, uint32_t *out)
{
    uint32_t *id;                   /* of each live slot now */
    uint64_t words = 0;
    int code;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; k < p->n_in; k++)
        if (in[k] >= t->len)
            return TG_BAD_ID;
    for (uint32_t k = 0; k < p->n_instr; k++)
        words += tg_is_many(tg_row(tg_at(&w, k))) ? tg_at(&w, k)->b + (uint64_t)1 : 0;
    code = tg_grow(t, (uint64_t)p->n_const + p->n_instr, words);
    id = code ? NULL : tg_realloc(NULL, (p->n_live + (size_t)1) * sizeof *id);
    if (!id)
        return code ? code : TG_MEMORY;
    for (uint32_t k = 0; k < p->n_const; k++)
        id[k] = tg_push(t, TG_LEAF, 0, 0, p->constant[k]);
    for (uint32_t k = 0; k < p->n_in; k++)
        id[p->n_const + k] = in[k];
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        const int op = tg_row(s);
        uint32_t pair[2], *ids = pair, n = 2;
        of[k] = TG_NONE;
        if (op == TG_GUARD) {
            a[k] = id[s->live_a];
            b[k] = id[s->live_b];
            continue;
        }
        if (tg_is_many(op)) {
            n = s->b;
            ids = tg_push_many(t, op, n);
            of[k] = t->len - 1;
            for (uint32_t m = 0; m < n; m++)
                ids[tg_place(op, m, n)] = id[p->pool[2 * (size_t)(s->a + m) + 1]];
            t->data[of[k]] = tg_many_primal(op, t->data, ids, n);
        } else {
            pair[0] = id[s->live_a];
            pair[1] = id[s->live_b];
            of[k] = tg_push(t, op, pair[0], pair[1], tg_primal(op, t->data[pair[0]], t->data[pair[1]]));
        }
        if (nan_errors && !(s->op & TG_QUIET))
            t->data[of[k]] = tg_nan_if_refused(op, t->data, ids, n, t->data[of[k]]);
        id[s->live_y] = of[k];
    }
    for (uint32_t k = 0; k < p->n_out; k++)
        out[k] = id[p->out[2 * (size_t)k + 1]];
    free(id);
    return TG_OK;
}
