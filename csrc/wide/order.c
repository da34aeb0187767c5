/*  Wide programs: the order in which instructions of one operation stand together.

    The function's own order is cut into tiles. Within a tile the level of an instruction is one more than the highest
    among those that it reads, so that none reads another of its level; a tile goes level by level, and within a level
    class by class: what is the same operation, keeps its result alike, and has its constants in the same places. What
    a function does over and over, to other operands each time, so becomes a few groups as long as there are repeats in
    a tile, whose working set stays in the second cache. A tile ends where the fewest results are used that were made
    before, which is where a repeat ends, and not within one: that costs shorter groups, and threads more waiting.

    Within a group they stand as in the function, or by their first operands, or by their second ones and those with
    the same one by their first: where most operands are what the instruction before has, or next to it, so
    that a replay reads them as they lie.

    Whether that pays is counted, and nothing else decides, so that the order is the same on every machine: half of a
    tile has to be in groups that are long enough, else it stays as it is. Where repeats are too long for a tile, larger
    tiles are tried.  */
#include "wide/order.h"
#include "ops.h"
#include "wide/wide.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAST = 256,                /* instructions of a program that is worth it */
    CLASSES = 256,              /* of a tile, at most */
    TABLE = 1024,
    RUN = 16,                   /* neighbours in a row that are worth another order */
    LATITUDE = 16,              /* the last of so many parts of a tile is where it may end */
    PART = 4                    /* one of so many instructions has to be in a tile that pays */
};
static const uint32_t tiles[] = {1u << 12, 1u << 16, 1u << 20};

/* ---- classes ---- */

static uint32_t class_of(const tg_draft *d, uint32_t id)
{
    const tg_draft_node *n = d->node + id;
    uint32_t own;
    if (n->op == TG_GUARD)
        own = d->kept[id];                              /* what is asked */
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
    const uint32_t *node;       /* of the program's instructions, in the draft's order */
    uint32_t *to;               /* which they are, in the new one */
    uint32_t *level, *by_class; /* of a tile, by its instructions */
    uint16_t *class;
    uint32_t *count;
    uint32_t *key[2];           /* of a group, in the function's order: where both operands are */
    struct keyed *sorted[2], *room;
} widening;

/* Of an operand: 0 of what was there before node first, as inputs always are, and of constants. */
static uint32_t level_of(const tg_draft *d, uint32_t id, uint32_t first) { return id < first ? 0 : d->kept[id]; }

/* The level of an instruction among those from node first on, noted where somebody may read it: one more. */
static inline uint32_t find_level(const widening *w, uint32_t id, uint32_t first)
{
    tg_draft *d = w->d;
    const tg_draft_node *n = d->node + id;
    uint32_t level = 0;
    if (n->op != TG_GUARD && tg_is_many(n->op))
        for (uint32_t m = 0; m < n->b; m++) {
            const uint32_t under = level_of(d, d->pool[n->a + m], first);
            level = under > level ? under : level;
        }
    else {
        const uint32_t a = level_of(d, n->a, first), b = level_of(d, n->b, first);
        level = a > b ? a : b;
    }
    if (n->op != TG_GUARD)
        d->kept[id] = level + 1;
    return level;
}

/* The levels of a tile's instructions, and how many there are. */
static uint32_t find_levels(const widening *w, uint32_t start, uint32_t n)
{
    const uint32_t first = w->node[start];
    uint32_t levels = 0;
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t level = w->level[k] = find_level(w, w->node[start + k], first);
        levels = level >= levels ? level + 1 : levels;
    }
    return levels;
}

/* Whether the whole has so many levels that no tiles pay, of whatever size: together they have as many at least, and
   one that pays has half as many as instructions, and one, at most. */
static int is_narrow(const widening *w, uint32_t n)
{
    const uint32_t spare = n / (2 * PART) - n / (tiles[0] - tiles[0] / LATITUDE - 1) - 3;
    uint32_t levels = 0;
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t level = find_level(w, w->node[k], w->node[0]);
        levels = level >= levels ? level + 1 : levels;
        if (k + 1 - levels >= spare)
            return 0;
    }
    return 1;
}

/* Where each of the numbers below n begins that are counted one place up. */
static void add_up(uint32_t *count, uint32_t n)
{
    for (uint32_t k = 1; k < n; k++)
        count[k] += count[k - 1];
}

/* ---- within a group ---- */

#define CONSTANT 0x80000000u
#define RESULT 0x40000000u      /* and where it is in the order, which is where its slot is */

static uint32_t key_of(const tg_draft *d, uint32_t id)
{
    const tg_draft_node *n = d->node + id;
    return n->op == TG_LEAF ? CONSTANT | d->live[id] : n->op == TG_INPUT ? n->a : RESULT | d->live[id];
}

typedef struct keyed {
    uint32_t key, at;
} keyed;

/* By key, equal ones as they are, a byte at a time. */
static void sort(keyed *x, keyed *room, uint32_t n)
{
    uint32_t low = TG_NONE, high = 0;
    keyed *from = x, *to = room, *other;
    for (uint32_t k = 0; k < n; k++) {
        low = x[k].key < low ? x[k].key : low;
        high = x[k].key > high ? x[k].key : high;
    }
    for (uint32_t shift = 0; shift < 32 && (high - low) >> shift; shift += 8) {
        uint32_t count[257] = {0};
        for (uint32_t k = 0; k < n; k++)
            count[((from[k].key - low) >> shift & 255) + 1]++;
        add_up(count, 256);
        for (uint32_t k = 0; k < n; k++)
            to[count[(from[k].key - low) >> shift & 255]++] = from[k];
        other = from;
        from = to;
        to = other;
    }
    if (from != x)
        memcpy(x, from, n * sizeof *x);
}

/* How many operands are what the one before is, or next to it, and how often one of an instruction's is not. Constants
   get their slots in the order of their use. */
static uint32_t neighbours(const widening *w, const keyed *order, uint32_t n, uint32_t *breaks)
{
    uint32_t found = 0;
    *breaks = 0;
    for (uint32_t k = 1; k < n; k++) {
        const uint32_t before = order ? order[k - 1].at : k - 1, at = order ? order[k].at : k;
        uint32_t near = 0;
        for (int m = 0; m < 2; m++) {
            const uint32_t last = w->key[m][before], own = w->key[m][at];
            near += own - last <= 1 || (own > last && last & CONSTANT);
        }
        found += near;
        *breaks += near < 2;
    }
    return found;
}

/* Put a group's instructions in their order; to has them in that of the function, which stays unless another one is
   much better. */
static void arrange(const widening *w, const uint32_t *node, uint32_t *to, uint32_t n)
{
    const tg_draft *d = w->d;
    const keyed *best = NULL;
    uint32_t most, breaks;
    for (uint32_t k = 0; k < n; k++) {
        const tg_draft_node *own = d->node + node[to[k]];
        const uint32_t many = own->op != TG_GUARD && tg_is_many(own->op);
        w->key[0][k] = key_of(d, many ? d->pool[own->a] : own->a);
        w->key[1][k] = key_of(d, many ? d->pool[own->a + (own->b > 1)] : own->b);
    }
    most = neighbours(w, NULL, n, &breaks);
    for (int m = 0; m < 2 && most < 2 * n - n / 4; m++) {
        keyed *x = w->sorted[m];
        uint32_t found;
        for (uint32_t k = 0; k < n; k++) {
            const uint32_t at = m ? w->sorted[0][k].at : k;
            x[k] = (keyed){w->key[m][at], at};
        }
        sort(x, w->room, n);
        found = neighbours(w, x, n, &breaks);
        if (found > most + n / 8 && breaks <= n / RUN) {
            most = found;
            best = x;
        }
    }
    if (!best)
        return;
    for (uint32_t k = 0; k < n; k++)
        w->room[k].at = to[best[k].at];
    for (uint32_t k = 0; k < n; k++)
        to[k] = w->room[k].at;
}

/* n instructions are where they are: from start on. */
static void settle(const widening *w, uint32_t start, const uint32_t *to, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t own = tg_ordered(w->d, to[k]);
        if (w->d->node[own].op != TG_GUARD)
            w->d->live[own] = start + k;
    }
}

/* ---- tiles ---- */

/* Where the instructions of the class and level of the one at from end. */
static uint32_t end_of(const widening *w, const uint32_t *to, uint32_t from, uint32_t n)
{
    uint32_t end = from + 1;
    while (end < n && w->level[to[end]] == w->level[to[from]] && w->class[to[end]] == w->class[to[from]])
        end++;
    return end;
}

/* The instructions of a tile level by level and class by class, by their number within it; 0 where that does not
   pay. */
static int sort_tile(const widening *w, uint32_t start, uint32_t n)
{
    const uint32_t levels = find_levels(w, start, n), *node = w->node + start;
    uint32_t grouped = 0, *to = w->to + start;
    classes c = {0};
    if (levels > n / 2 + 1)
        return 0;
    memset(w->count, 0, (CLASSES + 1) * sizeof *w->count);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t number = numbered(&c, class_of(w->d, node[k]));
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
    for (uint32_t from = 0, end; from < n; from = end) {
        end = end_of(w, to, from, n);
        grouped += end - from >= TG_GROUP ? end - from : 0;
    }
    return grouped >= n / 2;
}

/* Write the order of a tile that is sorted; all before it are settled. */
static void order_tile(const widening *w, uint32_t start, uint32_t n)
{
    const uint32_t *node = w->node + start;
    uint32_t *to = w->to + start;
    for (uint32_t from = 0, end; from < n; from = end) {
        end = end_of(w, to, from, n);
        if (end - from >= tg_least_group(w->d->node[node[to[from]]].op))
            arrange(w, node, to + from, end - from);
        for (uint32_t m = from; m < end; m++)
            to[m] = (start + to[m]) | (m == from ? TG_STARTS : 0);
        settle(w, start + from, to + from, end - from);
    }
}

/* Leave the instructions from .. to - 1 in the draft's order. */
static void leave(const widening *w, uint32_t from, uint32_t to)
{
    for (uint32_t k = from; k < to; k++)
        w->to[k] = k | TG_STARTS;
    settle(w, from, w->to + from, to - from);
}

/* Whether instruction k reads what belongs to a repeat of its own. */
static int is_local(const widening *w, uint32_t k)
{
    const tg_draft_node *n = w->d->node + w->node[k];
    return !tg_is_long(n->op, n->b);
}

/* Where a tile that begins at start ends. */
static uint32_t tile_end(const widening *w, uint32_t start, uint32_t tile, uint32_t n)
{
    const uint32_t last = n - start > tile ? start + tile : n, first = last - tile / LATITUDE - 1;
    uint32_t end = n;
    int64_t alive = 0, least = INT64_MAX;               /* results that are used later, but for those before first */
    for (uint32_t k = first; k < last && last < n; k++) {
        const tg_draft_node *own = w->d->node + w->node[k];
        const uint32_t *ids;
        uint32_t pair[2], m = tg_draft_operands(w->d, own, &ids, pair);
        for (uint32_t i = 0; i < m && is_local(w, k); i++)
            if (w->d->node[ids[i]].last == k && !tg_draft_is_fixed(w->d->node + ids[i]) &&
                (i == 0 || ids[i] != ids[i - 1]))
                alive -= tg_weight_in_use(ids[i], w->node[k]);
        if (own->op != TG_GUARD && own->last > k && is_local(w, own->last))
            alive += tg_weight_in_use(w->node[k], w->node[own->last]);
        if (alive <= least) {
            least = alive;
            end = k + 1;
        }
    }
    return end;
}

/* The order of all tiles of this size: how many instructions those have that pay. It is written if they are enough. */
static uint32_t order_tiles(const widening *w, uint32_t tile, uint32_t n)
{
    uint32_t paying = 0, settled = 0;
    for (uint32_t start = 0, len; start < n; start += len) {
        len = tile_end(w, start, tile, n) - start;
        if (!sort_tile(w, start, len))
            continue;
        leave(w, settled, start);
        order_tile(w, start, len);
        settled = start + len;
        paying += len;
    }
    if (paying >= n / PART)
        leave(w, settled, n);
    return paying;
}

/* ---- the whole ---- */

int tg_widen(tg_draft *d, uint32_t n, uint32_t **order)
{
    uint32_t paying = 0;
    widening w = {.d = d, .node = d->instr};
    *order = NULL;
    if (n < LEAST || is_narrow(&w, n))
        return TG_OK;
    w.to = tg_realloc(NULL, n * sizeof *w.to);
    for (size_t k = 0; w.to && k < sizeof tiles / sizeof *tiles && paying < n / PART; k++) {
        const uint32_t tile = tiles[k] < n ? tiles[k] : n;
        const size_t words = 5 * (size_t)tile + CLASSES + 2;
        keyed *room = tg_realloc(NULL, 3 * (size_t)tile * sizeof *room + words * sizeof *w.count +
                                       tile * sizeof *w.class);
        if (!room) {
            free(w.to);
            w.to = NULL;
            break;
        }
        w.room = room;
        w.sorted[0] = room + tile;
        w.sorted[1] = room + 2 * (size_t)tile;
        w.level = (uint32_t *)(room + 3 * (size_t)tile);
        w.by_class = w.level + tile;
        w.key[0] = w.level + 2 * (size_t)tile;
        w.key[1] = w.level + 3 * (size_t)tile;
        w.count = w.level + 4 * (size_t)tile;
        w.class = (uint16_t *)(w.level + words);
        paying = order_tiles(&w, tile, n);
        free(room);
        if (tile == n)
            break;
    }
    if (!w.to)
        return TG_MEMORY;
    if (paying < n / PART)
        free(w.to);
    else
        *order = w.to;
    return TG_OK;
}
