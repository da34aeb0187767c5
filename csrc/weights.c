/*  Finding the weights of a batch, and their adjoints as products of what is kept: see weights.h.  */
#include "weights.h"
#include "compiled.h"
#include "flush.h"
#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define LANES 16
#define PART 8                  /* of the lanes, in a register */
#define EACH for (int l = 0; l < PART; l++)

enum {
    WORTH = 2048,               /* weights: their lanes fill a good part of a second cache */
    KEPT = TG_HELD * LANES,     /* numbers, of a dot or a factor */
    TILE = 64                   /* weights whose sums lie side by side */
};

/* How often each input is read, 2 being often; by kept slot. */
static void count_reads(const tg_program *p, uint8_t *reads)
{
    const uint32_t fixed = p->n_const + p->n_in;
    tg_window w;
    tg_open_window(&w, p);
#define READ(slot)                                                                                                     \
    if ((slot) < fixed)                                                                                                \
        reads[slot] = (uint8_t)(reads[slot] + (reads[slot] < 2));
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        if (tg_row(s) == TG_GUARD || !tg_is_many(tg_row(s))) {
            READ(s->a)
            READ(s->b)
        } else
            for (uint32_t m = 0; m < s->b; m++)
                READ(p->pool[2 * (size_t)(s->a + m)])
    }
    for (uint32_t k = 0; k < p->n_out; k++)
        READ(p->out[2 * (size_t)k])
#undef READ
}

enum { OFTEN = 2, READS = 3, WANTED = 4 };

/* Where rows have a gradient each, or some have another number, an input is no weight. */
static void count_feeds(const tg_job *j, uint8_t *reads)
{
    const uint32_t n_const = j->program->n_const;
    memset(reads, OFTEN, n_const);
    for (const tg_feed *f = j->feed; f < j->feed + j->n_feeds; f++)
        for (uint32_t slot = n_const + f->first; slot < n_const + f->first + f->count; slot++)
            reads[slot] = f->in_stride || (f->grad && f->grad_stride)
                              ? OFTEN
                              : (uint8_t)(reads[slot] | (f->grad && j->seed ? WANTED : 0));
}

/* Of a pair the one that is a weight: 0 or 2; else TG_NONE. */
static uint32_t weight_of(const uint8_t *reads, uint32_t fixed, const uint32_t *pair)
{
    for (uint32_t k = 0; k < 4; k += 2)
        if (pair[k] < fixed && (reads[pair[k]] & READS) == 1)
            return k;
    return TG_NONE;
}

/* Find the weights, and number the dots and the factors where one's adjoint is wanted; numbers: by kept slot, 0. */
static void list_weights(tg_weights *w, const tg_job *j, const uint8_t *reads, uint32_t *numbers)
{
    const tg_program *p = j->program;
    const uint32_t fixed = p->n_const + p->n_in;
    tg_window at_hand;
    tg_open_window(&at_hand, p);
    for (uint32_t k = 0; k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&at_hand, k);
        tg_weighted *of = w->of + k;
        int wanted = 0;
        of->first = w->n;
        for (uint32_t m = 0; tg_row(s) == TG_DOT && m + 1 < s->b; m += 2) {
            const uint32_t *pair = p->pool + 2 * (size_t)(s->a + m), at = weight_of(reads, fixed, pair);
            if (at == TG_NONE)
                continue;
            w->input[w->n] = pair[at] - p->n_const;
            w->weight[w->n++] = (tg_weight){0.0, pair[2 - at], pair[3 - at]};
            wanted |= reads[pair[at]] & WANTED;
        }
        of->n = w->n - of->first;
        of->dot = wanted ? ++w->n_dots : 0;
        for (uint32_t m = of->first; wanted && m < w->n; m++) {
            const uint32_t input = w->input[m];
            uint32_t *number = numbers + w->weight[m].kept;
            if (!*number) {
                w->factor[w->n_factors] = w->weight[m].kept;
                *number = ++w->n_factors;
            }
            w->beside[input] = *number - 1;
            w->dot[input] = of->dot;
        }
    }
}

/* Room for the weights of a program; NULL without memory. */
static tg_weights *new_weights(const tg_program *p)
{
    const size_t inputs = p->n_in;
    tg_weights *w = tg_zeroed(sizeof *w + p->n_instr * sizeof *w->of +
                              inputs * (sizeof *w->weight + 3 * sizeof *w->input) + p->n_kept * sizeof *w->factor);
    if (w) {
        w->weight = (tg_weight *)(w + 1);
        w->of = (tg_weighted *)(w->weight + inputs);
        w->input = (uint32_t *)(w->of + p->n_instr);
        w->dot = w->input + inputs;
        w->beside = w->dot + inputs;
        w->factor = w->beside + inputs;
    }
    return w;
}

/* Room for what is kept. */
static int make_room(tg_weights *w)
{
    const size_t dots = (size_t)w->n_dots * KEPT, factors = (size_t)w->n_factors * KEPT;
    if (!w->n_dots)
        return TG_OK;
    w->memory = tg_zeroed((dots + factors) * sizeof(double) + 64);
    if (!w->memory)
        return TG_MEMORY;
    w->adjoint = (double *)(((uintptr_t)w->memory + 63) & ~(uintptr_t)63);
    w->beside_it = w->adjoint + dots;
    return TG_OK;
}

/* Whether there are many, and what is kept takes at most twice the memory that their lanes would, of two kinds. */
static int are_worth(const tg_weights *w)
{
    return w->n >= WORTH && ((uint64_t)w->n_dots + w->n_factors) * TG_HELD <= 4 * (uint64_t)w->n;
}

int tg_find_weights(tg_job *j)
{
    const tg_program *p = j->program;
    const int may_be_worth = j->lanes == LANES && p->n_in >= WORTH && !j->tangents && !j->native && !j->keep &&
                             !p->n_calls;
    uint8_t *reads;
    uint32_t *numbers;
    int code;
    j->weights = NULL;
    if (!may_be_worth)
        return TG_OK;
    reads = tg_zeroed((size_t)p->n_const + p->n_in);
    numbers = tg_zeroed(p->n_kept * sizeof *numbers);
    j->weights = reads && numbers ? new_weights(p) : NULL;
    code = j->weights ? TG_OK : TG_MEMORY;
    if (!code) {
        count_reads(p, reads);
        count_feeds(j, reads);
        list_weights(j->weights, j, reads, numbers);
        code = are_worth(j->weights) ? make_room(j->weights) : TG_OK;
    }
    free(reads);
    free(numbers);
    if (code || !are_worth(j->weights))
        tg_free_weights(j);
    return code;
}

void tg_mark_weights(tg_job *j)
{
    const uint32_t n_const = j->program->n_const;
    for (uint32_t k = 0; j->weights && k < j->weights->n; k++) {
        const uint32_t slot = n_const + j->weights->input[k];
        j->shared[slot] |= TG_WEIGHT;
        j->weights->weight[k].x = j->same[slot];
    }
}

void tg_free_weights(tg_job *j)
{
    if (j->weights)
        free(j->weights->memory);
    free(j->weights);
    j->weights = NULL;
}

/* ---- the products ---- */

static void keep_factors(tg_job *j)
{
    tg_weights *w = j->weights;
    double *to = w->beside_it + (size_t)w->n_held * LANES;
    for (uint32_t k = 0; k < w->n_factors; k++, to += KEPT)
        memcpy(to, j->primal + (size_t)w->factor[k] * LANES, LANES * sizeof *to);
    w->n_held++;
}

/* Add what is kept to the lanes of n inputs from `first` on that are weights: to, whatever these are where they begin
   with 0. */
TG_CLONES static void multiply(const tg_weights *w, uint32_t first, uint32_t n, int from_zero, double *restrict to)
{
    for (uint32_t k = first; k < first + n; k++, to += LANES) {
        const double *g = w->adjoint + (size_t)(w->dot[k] - 1) * KEPT, *x = w->beside_it + (size_t)w->beside[k] * KEPT;
        if (!w->dot[k])
            continue;
        for (int part = 0; part < LANES; part += PART) {
            double t[PART];
            if (from_zero)
                EACH t[l] = 0.0;
            else
                EACH t[l] = to[part + l];
            for (size_t m = 0; m < w->n_held; m++)
                EACH t[l] += tg_passed_on(g[m * LANES + part + l], x[m * LANES + part + l]);
            EACH to[part + l] = t[l];
        }
    }
}

TG_CLONES static void add_up(const tg_weights *w, uint32_t first, uint32_t n, const double *lanes, double *to)
{
    for (uint32_t k = 0; k < n; k++)
        if (w->dot[first + k])
            to[k] += tg_sum_of_lanes(lanes + (size_t)k * LANES);
}

void tg_collect_weights(tg_job *j, int last_block)
{
    tg_weights *w = j->weights;
    if (!w || !w->n_dots)
        return;
    if (j->alive)
        keep_factors(j);
    if (w->n_held < TG_HELD && !last_block)
        return;
    for (const tg_feed *f = j->feed; f < j->feed + j->n_feeds; f++)
        for (uint32_t k = 0, n; f->grad && !f->grad_stride && k < f->count; k += n) {
            double room[TILE * LANES], *own = j->adj + ((size_t)j->program->n_const + f->first + k) * LANES;
            double *lanes = last_block && !w->spilled ? room : own;
            const fp_mode mode = flush_to_zero();
            n = f->count - k < TILE ? f->count - k : TILE;
            multiply(w, f->first + k, n, !w->spilled, lanes);
            restore_fp(mode);
            if (last_block)
                add_up(w, f->first + k, n, lanes, f->grad + k);
        }
    w->spilled = !last_block;
    w->n_held = 0;
}
