/*  Graphs to look at, without Python: made from the tape and a program, swept, diagnosed; allocations that fail.  */
#include "check.h"
#include "look/look.h"

#include <math.h>
#include <stdlib.h>

static tg_tape t;

/* sqrt(x * x) + log(y) at x = 0. */
static uint32_t recorded(uint32_t *x, uint32_t *y)
{
    uint32_t square, root, logarithm;
    free_tape(&t);
    *x = leaf(&t, 0.0);
    *y = leaf(&t, 2.0);
    square = op(&t, TG_MUL, *x, *x);
    root = op(&t, TG_SQRT, square, square);
    logarithm = op(&t, TG_LOG, *y, *y);
    return op(&t, TG_ADD, root, logarithm);
}

static void a_cone_has_what_the_root_needs_and_its_adjoints(void)
{
    uint32_t x, y, root = recorded(&x, &y), way[8];
    int64_t code;
    tg_origin origin;
    tg_graph *g = tg_graph_of_tape(&t, &root, 1, &code);
    CHECK(g && g->n == 6 && g->n_roots == 1 && g->root[0] == 5);
    CHECK(tg_graph_sweep(g, NULL) == TG_OK);
    CHECK(g->adjoint[1] == 0.5 && isnan(g->adjoint[0]));
    CHECK(tg_graph_bad_value(g, 5, 0, &origin, way, 8) == TG_OK && origin.count == 0);
    CHECK(tg_graph_bad_adjoint(g, (uint32_t[]){0, 1}, 2, 0, &origin, way, 8) == TG_OK);
    CHECK(origin.count == 1 && g->op[origin.node] == TG_SQRT && origin.operand == 0 && origin.n_way == 3);
    tg_free_graph(g);
}

static void an_id_that_is_none_is_refused(void)
{
    uint32_t none = t.len + 1;
    int64_t code = TG_OK;
    CHECK(!tg_graph_of_tape(&t, &none, 1, &code) && code == TG_BAD_ID);
}

static void every_allocation_may_fail(void)
{
    uint32_t x, y, root = recorded(&x, &y), way[8], group[8], first[8], edges[30];
    uint64_t nodes[8] = {0}, operands[8] = {0};
    double weight[8] = {0}, partial[8] = {0};
    tg_origin origin;
    int64_t code = TG_OK;
    tg_graph *g = tg_graph_of_tape(&t, &root, 1, &code);
    for (uint64_t n = 1; n <= 2; n++) {
        tg_fail_allocation(n);
        CHECK(!tg_graph_of_tape(&t, &root, 1, &code) && code == TG_MEMORY);
    }
    tg_fail_allocation(1);
    CHECK(tg_graph_sweep(g, NULL) == TG_MEMORY);
    CHECK(tg_graph_sweep(g, NULL) == TG_OK);
    for (uint64_t n = 1; n <= 2; n++) {
        tg_fail_allocation(n);
        CHECK(tg_graph_bad_adjoint(g, (uint32_t[]){0}, 1, 0, &origin, way, 8) == TG_MEMORY);
    }
    g->value[5] = NAN;
    tg_fail_allocation(1);
    CHECK(tg_graph_bad_value(g, 5, 0, &origin, way, 8) == TG_MEMORY);
    tg_fail_allocation(1);
    CHECK(tg_graph_groups(g, group, first, 8) == TG_MEMORY);
    CHECK(tg_graph_groups(g, group, first, 8) == 5);
    tg_fail_allocation(1);
    CHECK(tg_graph_totals(g, group, 5, nodes, operands, weight, partial) == TG_MEMORY);
    tg_fail_allocation(1);
    CHECK(tg_graph_fold(g, group, 5, edges, 10) == TG_MEMORY);
    CHECK(tg_graph_fold(g, group, 5, edges, 10) == 5);
    tg_fail_allocation(0);
    tg_free_graph(g);
}

static void groups_beyond_the_room_are_one(void)
{
    uint32_t x, y, root = recorded(&x, &y), group[8], first[2];
    int64_t code;
    tg_graph *g = tg_graph_of_tape(&t, &root, 1, &code);
    CHECK(tg_graph_groups(g, group, first, 2) == 2);
    for (int i = 0; i < 6; i++)
        CHECK(group[i] == (i > 1));
    tg_free_graph(g);
}

int main(void)
{
    t = new_tape();
    a_cone_has_what_the_root_needs_and_its_adjoints();
    an_id_that_is_none_is_refused();
    every_allocation_may_fail();
    groups_beyond_the_room_are_one();
    free_tape(&t);
    return summary();
}
