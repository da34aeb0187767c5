/*  Wide programs: the order in which instructions of one operation stand together.

    The function's own order is cut into tiles. Within a tile the level of an instruction is one more than the highest
    among those that it reads, so that none reads another of its level; a tile goes level by level, and within a level
    class by class: what is the same operation, keeps its result alike, and has its constants in the same places. What
    a function does over and over, to other operands each time, so becomes a few groups as long as there are repeats in
    a tile, whose working set stays in the second cache; that a tile ends within a repeat costs two shorter groups.

    Whether that pays is counted, and nothing else decides, so that the order is the same on every machine: half of a
    tile has to be in groups that are long enough, else it stays as it is. Where repeats are too long for a tile, larger
    tiles are tried.  */
#include "order.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAST = 256,                /* instructions of a program that is worth it */
    CLASSES = 256,              /* of a tile, at most */
    TABLE = 1024
};
static const uint32_t tiles[] = {1u << 12, 1u << 16, 1u << 20};

/* ---- classes ---- */

static uint32_t class_of(const tg_draft *d, const tg_draft_node *n)
{
    uint32_t own;
    if (n->op == TG_GUARD)
        own = n->kept;                                  /* what is asked */
    else if (tg_is_many(n->op))
        own = n->b;
    else
        own = (tg_draft_is_constant(d, n->a) ? 1 : 0) | (tg_draft_is_constant(d, n->b) ? 2 : 0) |
              (n->op == TG_POWK ? n->b << 2 : 0);
    return own << 9 | (uint32_t)(n->quiet && n->op != TG_GUARD && tg_can_refuse(n->op)) << 8 |
           (uint32_t)n->retained << 7 | n->op;
}

typedef struct {
    uint32_t n, key[TABLE];             /* key + 1, so that 0 is free */
    uint16_t number[TABLE];
} classes;

/* The number of a class, in the order in which they come up; CLASSES where there are too many. */
static uint32_t numbered(classes *c, uint32_t key)
{
    uint32_t at = key * 0x9E3779B1u >> 22;
    key++;
    for (; c->key[at] && c->key[at] != key; at = (at + 1) % TABLE)
        ;
    if (!c->key[at]) {
        if (c->n == CLASSES)
            return CLASSES;
        c->key[at] = key;
        c->number[at] = (uint16_t)c->n++;
    }
    return c->number[at];
}

/* ---- a tile ---- */

typedef struct {
    tg_draft *d;
    const uint32_t *node;       /* of the program, in the draft's order */
    uint32_t *to;               /* in the new one */
    uint32_t *level, *by_class; /* of a tile, by its instructions */
    uint16_t *class;
    uint32_t *count;
} widening;

static uint32_t level_of(const tg_draft *d, uint32_t id, uint32_t first)
{
    const tg_draft_node *n = d->node + id;
    return id < first || n->op == TG_LEAF || n->op == TG_INPUT ? 0 : n->kept;
}

/* The levels of a tile's instructions, and how many there are. */
static uint32_t find_levels(const widening *w, uint32_t start, uint32_t n)
{
    const uint32_t first = w->node[start];
    uint32_t levels = 0;
    for (uint32_t k = 0; k < n; k++) {
        tg_draft_node *node = w->d->node + w->node[start + k];
        uint32_t level = 0;
        if (node->op != TG_GUARD && tg_is_many(node->op))
            for (uint32_t m = 0; m < node->b; m++) {
                const uint32_t under = level_of(w->d, w->d->pool[node->a + m], first);
                level = under > level ? under : level;
            }
        else {
            const uint32_t a = level_of(w->d, node->a, first), b = level_of(w->d, node->b, first);
            level = a > b ? a : b;
        }
        w->level[k] = level;
        level++;
        if (node->op != TG_GUARD)                       /* whom nobody reads */
            node->kept = level;
        levels = level > levels ? level : levels;
    }
    return levels;
}

/* Where each of the numbers below n begins that are counted one place up. */
static void add_up(uint32_t *count, uint32_t n)
{
    for (uint32_t k = 1; k < n; k++)
        count[k] += count[k - 1];
}

/* Write the order of a tile; whether it pays, else it is the draft's. */
static int order_tile(const widening *w, uint32_t start, uint32_t n)
{
    const uint32_t levels = find_levels(w, start, n), *node = w->node + start;
    uint32_t grouped = 0, begun = 0, *to = w->to + start;
    classes c = {0};
    for (uint32_t k = 0; k < n; k++)
        to[k] = node[k] | TG_STARTS;
    if (levels > n / 2 + 1)
        return 0;
    memset(w->count, 0, (CLASSES + 1) * sizeof *w->count);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t number = numbered(&c, class_of(w->d, w->d->node + node[k]));
        if (number == CLASSES)
            return 0;
        w->class[k] = (uint16_t)number;
        w->count[number + 1]++;
    }
    add_up(w->count, c.n);
    for (uint32_t k = 0; k < n; k++)
        w->by_class[w->count[w->class[k]]++] = k;
    memset(w->count, 0, (levels + 1) * sizeof *w->count);
    for (uint32_t k = 0; k < n; k++)
        w->count[w->level[k] + 1]++;
    add_up(w->count, levels);
    for (uint32_t m = 0; m < n; m++) {
        const uint32_t k = w->by_class[m];
        to[w->count[w->level[k]]++] = k;
    }
    for (uint32_t m = 0, level = TG_NONE, class = 0; m < n; m++) {
        const uint32_t k = to[m];
        const int starts = w->level[k] != level || w->class[k] != class;
        if (starts) {
            grouped += m - begun >= TG_GROUP ? m - begun : 0;
            begun = m;
        }
        level = w->level[k];
        class = w->class[k];
        to[m] = node[k] | (starts ? TG_STARTS : 0);
    }
    grouped += n - begun >= TG_GROUP ? n - begun : 0;
    if (grouped >= n / 2)
        return 1;
    for (uint32_t k = 0; k < n; k++)
        to[k] = node[k] | TG_STARTS;
    return 0;
}

/* ---- the whole ---- */

int tg_widen(tg_draft *d, uint32_t n, uint32_t **order)
{
    uint32_t *node, at = 0, paying = 0;
    widening w = {.d = d};
    *order = NULL;
    if (n < LEAST)
        return TG_OK;
    node = tg_realloc(NULL, n * sizeof *node);
    w.to = tg_realloc(NULL, n * sizeof *w.to);
    for (uint32_t i = 0; node && i < d->len; i++)
        if (d->node[i].op != TG_GONE && d->node[i].op != TG_LEAF && d->node[i].op != TG_INPUT)
            node[at++] = i;
    w.node = node;
    for (size_t k = 0; node && w.to && k < sizeof tiles / sizeof *tiles && paying < n / 4; k++) {
        const uint32_t tile = tiles[k] < n ? tiles[k] : n;
        uint32_t *room = tg_realloc(NULL, ((3 * (size_t)tile) + CLASSES + 2) * sizeof *room + tile * sizeof *w.class);
        if (!room) {
            free(w.to);
            w.to = NULL;
            break;
        }
        w.level = room;
        w.by_class = room + tile;
        w.count = room + 2 * (size_t)tile;
        w.class = (uint16_t *)(w.count + tile + CLASSES + 2);
        paying = 0;
        for (uint32_t start = 0; start < n; start += tile) {
            const uint32_t len = n - start < tile ? n - start : tile;
            paying += order_tile(&w, start, len) ? len : 0;
        }
        free(room);
        if (tile == n)
            break;
    }
    free(node);
    if (!node || !w.to) {
        free(w.to);
        return TG_MEMORY;
    }
    if (paying < n / 4)
        free(w.to);
    else
        *order = w.to;
    return TG_OK;
}
