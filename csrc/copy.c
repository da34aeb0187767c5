/*  Copies of nodes, in one walk up: no recursion, and time by how many there are.  */
#include "tape.h"

typedef struct {
    const uint32_t *id, *copy;
    uint32_t n;                 /* of the first so many ids the copies are there */
} renaming;

/* The copy of a node, or the node itself. */
static uint32_t renamed(const renaming *r, uint32_t id)
{
    uint32_t low = 0, high = r->n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (r->id[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < r->n && r->id[low] == id ? r->copy[low] : id;
}

/* Append the copy of a node, for which there is room. */
static uint32_t copied(tg_tape *t, uint32_t id, const renaming *r)
{
    int op = t->op[id] & TG_OPCODE;
    if (op == TG_LEAF)
        tg_push(t, op, t->a[id], t->b[id], 0.0);
    else if (tg_is_many(op)) {
        uint32_t *to = tg_push_many(t, op, t->b[id]);
        for (uint32_t k = 0; k < t->b[id]; k++)
            to[k] = renamed(r, t->pool[t->a[id] + k]);
    } else
        tg_push(t, op, renamed(r, t->a[id]), renamed(r, t->b[id]), 0.0);
    t->data[t->len - 1] = t->data[id];
    t->grad[t->len - 1] = t->grad[id];
    return t->len - 1;
}

int tg_copy(tg_tape *t, const uint32_t *ids, uint32_t *into, uint32_t n)
{
    renaming r = {.id = ids, .copy = into};
    uint64_t words = 0;
    int code;
    for (uint32_t k = 0; k < n; k++) {
        if (ids[k] >= t->len || (k && ids[k] <= ids[k - 1]) || (into[k] != TG_NONE && into[k] >= t->len))
            return TG_BAD_ID;
        if (tg_is_many(t->op[ids[k]] & TG_OPCODE))
            words += t->b[ids[k]] + (uint64_t)1;
    }
    code = tg_grow(t, n, words);
    for (; !code && r.n < n; r.n++)
        if (into[r.n] == TG_NONE)
            into[r.n] = copied(t, ids[r.n], &r);
    return code;
}
