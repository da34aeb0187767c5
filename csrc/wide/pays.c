/*  Whether pieces pay: what two threads would take, by about what things cost, beside one.  */
#include "wide/pieces.h"
#include "ops.h"
#include "wide/wide.h"

#include <stdlib.h>

/* An addition in a group is one. */
enum {
    CALL = 8,                   /* in a group */
    LINK = 2,                   /* of a chain, or a term of a sum */
    ALONE = 6,                  /* in no group */
    STEP = 60,                  /* with its waits, and groups that it cuts */
    MOVE = 8,                   /* and one and a half for each number */
    BACK = 2,                   /* times as much as forward */
    LESS = 8                    /* the part of the time that is to be saved, at least */
};

static uint64_t cost_of(const tg_program *p, uint32_t from, uint32_t to)
{
    const tg_group *g;
    uint32_t at = tg_group_at(p->wide, from);
    uint64_t cost = 0;
    for (uint32_t end; from < to; from = end) {
        end = tg_first_part(p->wide, &at, from, to, &g);
        if (g)
            cost += (uint64_t)(end - from) * (g->terms ? g->terms : g->chain ? LINK :
                                              g->op == TG_GUARD || tg_is_short(g->op) ? 1 : CALL);
        else
            for (const tg_half *s = tg_alone(p, at, from).of[TG_KEPT], *stop = s + (end - from); s < stop; s++)
                cost += ALONE + (tg_row(s) != TG_GUARD && tg_is_many(tg_row(s)) ? s->b : 0);
    }
    return cost;
}

/* What a piece adds to long sums and totals, which goes from piece to piece; those that end here were counted as if
   they were made here, all of them. */
static uint64_t terms_of(const tg_program *p, const tg_pieces *s, uint32_t piece, uint64_t *counted)
{
    uint64_t n = 0;
    *counted = 0;
    for (uint32_t k = s->first_part[piece]; k < s->first_part[piece + 1]; k++) {
        const tg_long_sum *sum = s->sum + s->part[k].sum;
        n += s->part[k].n;
        *counted += sum->piece == piece ? tg_instruction(p, sum->at).b : 0;
    }
    for (uint32_t k = s->first_span[piece]; k < s->first_span[piece + 1]; k++)
        n += s->span[k].n;
    return n;
}

static uint64_t until(const tg_pieces *s, int ways, const uint64_t *done, uint64_t now, uint32_t wait, uint32_t end)
{
    const tg_way *way = s->way + ways;
    for (; wait < end; wait++) {
        const tg_wait *w = way->wait + wait;
        const uint32_t turn = ways == TG_UPWARDS ? w->piece : s->n_pieces - 1 - w->piece;
        const uint64_t then = done[way->first[turn] + w->steps - 1];
        now = then > now ? then : now;
    }
    return now;
}

static uint64_t moves_cost(const tg_way *way, uint32_t move, uint32_t end)
{
    uint64_t cost = 0;
    for (; move < end; move++)
        cost += MOVE + way->move[move].n + way->move[move].n / 2;
    return cost;
}

/* How long two threads take one way; done: room for a number for each of its steps. */
static uint64_t time_of_two(const tg_program *p, const tg_pieces *s, int ways, uint64_t *done)
{
    const tg_way *way = s->way + ways;
    uint64_t free_at[2] = {0}, added = 0;
    for (uint32_t k = 0; k < s->n_pieces; k++) {
        uint64_t *own = free_at + (free_at[1] < free_at[0]), now = *own, terms, counted;
        terms = terms_of(p, s, ways == TG_UPWARDS ? k : s->n_pieces - 1 - k, &counted);
        for (uint32_t m = way->first[k]; m < way->first[k + 1]; m++) {
            const tg_step *t = way->step + m;
            uint64_t cost = cost_of(p, t->from, t->to);
            cost -= cost < counted ? cost : counted;
            counted = 0;
            now = until(s, ways, done, now, t->wait, t->wait_out);
            now += STEP + cost + moves_cost(way, t->move, t->move_out);
            now = until(s, ways, done, now, t->wait_out, t[1].wait);
            done[m] = now += moves_cost(way, t->move_out, t[1].move);
        }
        if (terms && ways == TG_UPWARDS)
            now = added = (added > now ? added : now) + LINK * terms;
        *own = ways == TG_UPWARDS ? now : now + terms;
    }
    return free_at[0] > free_at[1] ? free_at[0] : free_at[1];
}

int tg_find_pays(const tg_program *p, tg_pieces *s)
{
    const uint32_t n = s->n_pieces, up = s->way[TG_UPWARDS].first[n], down = s->way[TG_DOWNWARDS].first[n];
    uint64_t *done = tg_realloc(NULL, ((size_t)up + down) * sizeof *done), one, both, back;
    if (!done)
        return TG_MEMORY;
    one = cost_of(p, 0, p->n_instr);
    both = time_of_two(p, s, TG_UPWARDS, done);
    back = BACK * time_of_two(p, s, TG_DOWNWARDS, done);
    s->pays[0] = both < one - one / LESS;
    s->pays[1] = both + back < (1 + BACK) * (one - one / LESS);
    free(done);
    return TG_OK;
}
