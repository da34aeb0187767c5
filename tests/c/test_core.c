/*  The core alone, without Python: made to run under the sanitizers and valgrind. Prints what fails; exit 1 then.  */
#include "check.h"
#include "kept.h"

static int token;                       /* owners are opaque to the core: any even address */
#define OWNER ((void *)&token)

static int sweep(tg_tape *t, uint32_t root) { return tg_backward(t, root, 1.0, NULL, NULL, 0); }

static void each_slope_is_the_central_difference(void)
{
    tg_tape t = new_tape();
    for (int o = TG_NODE + 1; o < TG_OPS; o++) {
        double x = o == TG_ACOSH ? 1.4 : 0.4, z = tg_is_passive(o) && o != TG_POWK ? 1.0 : 0.7, h = 1e-6, slope;
        uint32_t a, b, y;
        int bad;
        if (tg_is_many(o))
            continue;
        a = leaf(&t, x), b = leaf(&t, z), y = op(&t, o, a, b);
        slope = (tg_evaluate(o, x + h, z, &bad) - tg_evaluate(o, x - h, z, &bad)) / (2 * h);
        CHECK(sweep(&t, y) == TG_OK);
        CHECK(fabs(t.grad[a] - slope) < 1e-7 * (1 + fabs(slope)));
        slope = tg_ops[o].kind[0] == 'b'
                    ? (tg_evaluate(o, x, z + h, &bad) - tg_evaluate(o, x, z - h, &bad)) / (2 * h) : 0.0;
        CHECK(fabs(t.grad[b] - slope) < 1e-7 * (1 + fabs(slope)));
    }
    free_tape(&t);
}

static void refusals_record_nothing(void)
{
    tg_tape t = new_tape();
    uint32_t zero = leaf(&t, 0.0), big = leaf(&t, 1e200), minus = leaf(&t, -8.0), n = t.len;
    CHECK(tg_record(&t, TG_DIV, big, zero) == TG_ZERO_DIVISION);
    CHECK(tg_record(&t, TG_LOG, zero, zero) == TG_DOMAIN);
    CHECK(tg_record(&t, TG_SQRT, minus, minus) == TG_DOMAIN);
    CHECK(tg_record(&t, TG_EXP, big, big) == TG_OVERFLOW);
    CHECK(tg_record_number(&t, TG_POWK, big, 2.0, 0, 1) == TG_OVERFLOW);
    CHECK(tg_record_number(&t, TG_POWK, minus, 1.0 / 3.0, 0, 0) == TG_DOMAIN);
    CHECK(tg_record_number(&t, TG_POWK, zero, -1.0, 0, 0) == TG_ZERO_DIVISION);
    CHECK(tg_record(&t, TG_MUL, 99, 0) == TG_BAD_ID);
    CHECK(tg_record(&t, TG_OPS, 0, 0) == TG_BAD_ID);
    CHECK(tg_record(&t, TG_DOT, 0, 0) == TG_BAD_ID);
    CHECK(tg_record(&t, -1, 0, 0) == TG_BAD_ID);
    CHECK(tg_record_many(&t, TG_SUM, &(uint32_t){7}, 1) == TG_BAD_ID);
    CHECK(tg_backward(&t, 99, 1.0, NULL, NULL, 0) == TG_BAD_ID);
    CHECK(tg_push_grad(&t, 99, 0) == TG_BAD_ID);
    CHECK(t.len == n && t.pool_len == 0);
    free_tape(&t);
}

static void a_long_chain_sweeps_and_pops(void)
{
    tg_tape t = new_tape();
    uint32_t x0 = leaf(&t, 1.0), x = x0, b = leaf(&t, 1e-9);
    for (int k = 0; k < 300000; k++)
        x = op(&t, TG_ADD, x, b);
    for (int again = 1; again <= 2; again++) {
        CHECK(sweep(&t, x) == TG_OK);
        CHECK(t.grad[x0] == again && t.grad[b] == 300000.0 * again && t.grad[x] == 1.0);
    }
    for (uint64_t k = 0; k < t.adj_cap; k++)
        if (t.adj[k] != 0.0)
            CHECK(!"adjoints are zero between sweeps");
    t.owner[x0] = OWNER;
    tg_pop(&t);
    CHECK(t.len == 1);
    t.owner[x0] = NULL;
    tg_pop(&t);
    CHECK(t.len == 0);
    free_tape(&t);
}

static void adjoints_below_normal_count_as_zero(void)
{
    tg_tape t = new_tape();
    uint32_t x0 = leaf(&t, 1.0), c = leaf(&t, 0.5), x = x0;
    for (int k = 0; k < 1100; k++)
        x = op(&t, TG_MUL, x, c);
    CHECK(sweep(&t, x) == TG_OK);
#if defined(__SSE2__) || defined(__aarch64__)
    CHECK(t.grad[x0] == 0.0);
    volatile double tiny = 1e-308;
    CHECK(tiny / 16.0 != 0.0);
#endif
    free_tape(&t);
}

/* A program with every kind of node in it; what it computes must survive any reclaim. */
static uint32_t mixed(tg_tape *t, uint32_t leaves[3])
{
    uint32_t dot[5] = {leaves[0], leaves[1], leaves[2], leaves[0], leaves[1]}, many[3], y;
    for (int k = 0; k < 300; k++)                       /* garbage in between */
        op(t, TG_ADD, leaves[0], leaves[1]);
    many[0] = (uint32_t)tg_record_many(t, TG_DOT, dot, 5);
    tg_record_many(t, TG_SUM, dot, 5);
    many[1] = (uint32_t)tg_record_number(t, TG_POWK, many[0], 3.0, 0, 1);
    many[2] = (uint32_t)tg_record_many(t, TG_LOGSUMEXP, leaves, 3);
    y = (uint32_t)tg_record_many(t, TG_SUM, many, 3);
    return op(t, TG_TANH, y, y);
}

static void reclaim_keeps_what_is_held(void)
{
    tg_tape t = new_tape(), still = new_tape();
    uint32_t l[3] = {leaf(&t, 0.1), leaf(&t, 0.2), leaf(&t, -0.3)};
    uint32_t m[3] = {leaf(&still, 0.1), leaf(&still, 0.2), leaf(&still, -0.3)}, y = mixed(&t, l), z = mixed(&still, m);
    uint32_t n, ids[2];
    t.owner[y] = OWNER;
    tg_mark_owned(&t);
    tg_mark_operands(&t, NULL, NULL);
    CHECK(tg_slide(&t, NULL, NULL) > 300);
    CHECK(t.len == 9 && t.owner[8] == OWNER && t.data[8] == still.data[z]);
    CHECK(sweep(&t, 8) == TG_OK && sweep(&still, z) == TG_OK);
    for (int k = 0; k < 3; k++)
        CHECK(t.grad[k] == still.grad[m[k]]);
    n = tg_operands(&t, 8, ids, 2);
    CHECK(n == 1 && ids[0] == 7);
    tg_mark_owned(&t);
    CHECK(tg_forget(&t, NULL, NULL) == 8);
    CHECK(t.len == 1 && t.op[0] == TG_LEAF && t.pool_len == 0);
    free_tape(&t);
    free_tape(&still);
}

struct rule_state {
    tg_tape *t;
    uint32_t node, operand;
    int fail, nest;
};

/* y = operand ** 2 by hand; records, drops, and on demand sweeps or fails on the way. */
static int square_rule(void *context, uint32_t id)
{
    struct rule_state *s = context;
    double g = tg_read_grad(s->t, id, 1);
    CHECK(id == s->node);
    for (int k = 0; k < 5000; k++)
        leaf(s->t, k);                                  /* the arrays move */
    if (s->nest)
        CHECK(tg_backward(s->t, s->operand, 1.0, square_rule, context, 1) == TG_OK);
    tg_pop(s->t);
    tg_write_grad(s->t, s->operand, 1, tg_read_grad(s->t, s->operand, 1) + 2 * s->t->data[s->operand] * g);
    return s->fail ? TG_RAISED : TG_OK;
}

static void rules_run_in_the_sweep(void)
{
    for (int variant = 0; variant < 4; variant++) {
        tg_tape t = new_tape();
        uint32_t x = leaf(&t, 3.0), w = op(&t, TG_NEG, x, x), y = (uint32_t)tg_record_many(&t, TG_NODE, &w, 1),
                 z = op(&t, TG_EXP, x, x), root;
        struct rule_state s = {&t, y, w, variant & 1, variant & 2};
        double grad[4] = {10.0, 20.0, 30.0, 40.0};
        t.data[y] = 9.0;
        root = op(&t, TG_ADD, y, z);
        for (uint32_t i = 0; i < 4; i++)
            t.grad[i] = grad[i];
        t.owner[root] = OWNER;
        CHECK(tg_set_rule(&t, y, 1) == TG_OK);
        CHECK(tg_backward(&t, root, 1.0, square_rule, &s, 1) == (s.fail ? TG_RAISED : TG_OK));
        if (s.fail)
            for (uint32_t i = 0; i < 4; i++)
                CHECK(t.grad[i] == grad[i]);
        else {
            CHECK(fabs(t.grad[x] - (10.0 + 6.0 + exp(3.0) - (s.nest ? 1.0 : 0.0))) < 1e-12);
            CHECK(t.grad[w] == (s.nest ? 1.0 : 20.0) - 6.0);
            CHECK(t.grad[root] == 1.0);
        }
        CHECK(!t.sweep && !t.adj_busy);
        free_tape(&t);
    }
}

static void rules_move_and_go_with_their_nodes(void)
{
    tg_tape t = new_tape();
    uint32_t gone = leaf(&t, 0.0), x = leaf(&t, 3.0), y = op(&t, TG_NEG, x, x);
    CHECK(tg_set_rule(&t, gone, 1) == TG_OK && tg_set_rule(&t, y, 1) == TG_OK && tg_set_rule(&t, 3, 1) == TG_BAD_ID);
    for (int k = 0; k < 3000; k++)                      /* the arrays grow */
        x = op(&t, TG_NEG, x, x);
    CHECK(tg_has_rule(&t, gone) && !tg_has_rule(&t, 1) && tg_has_rule(&t, y) && !tg_has_rule(&t, x));
    t.owner[y] = OWNER;
    tg_mark_owned(&t);
    tg_mark_operands(&t, NULL, NULL);
    CHECK(tg_slide(&t, NULL, NULL) == 3001 && t.len == 2);
    CHECK(!tg_has_rule(&t, 0) && tg_has_rule(&t, 1) && !tg_has_rule(&t, 2) && t.rules);
    t.owner[1] = NULL;
    t.owner[0] = OWNER;
    tg_pop(&t);
    y = op(&t, TG_NEG, 0, 0);
    CHECK(y == 1 && !tg_has_rule(&t, y));
    CHECK(tg_set_rule(&t, y, 1) == TG_OK && tg_set_rule(&t, y, 0) == TG_OK && !tg_has_rule(&t, y));
    free_tape(&t);
}

/* Fail each allocation in turn: a code comes back, and the tape goes on. */
static void every_allocation_may_fail(void)
{
    uint64_t n = 0;
    int64_t code = TG_MEMORY;
    while (code < 0) {
        tg_tape t = new_tape();
        uint32_t l[3], y, len;
        tg_fail_allocation(++n);
        code = tg_leaf(&t, 0.1);
        for (int k = 0; k < 3 && code >= 0; k++) {
            code = tg_leaf(&t, 0.1 * k);
            l[k] = (uint32_t)code;
        }
        for (int k = 0; k < 4000 && code >= 0; k++)
            code = tg_record_many(&t, TG_SUM, l, 3);
        y = (uint32_t)code;
        if (code >= 0)
            code = sweep(&t, y);
        if (code >= 0) {
            t.owner[y] = OWNER;
            tg_mark_owned(&t);
            tg_mark_operands(&t, NULL, NULL);
            code = tg_slide(&t, NULL, NULL);
        }
        len = t.len;
        if (code < 0)
            CHECK(code == TG_MEMORY && tg_leaf(&t, 5.0) == len && sweep(&t, len) == TG_OK && t.grad[len] == 1.0);
        tg_fail_allocation(0);
        free_tape(&t);
    }
    CHECK(n > 10);
}

/* What was given back is lent again where it is large enough and was worth keeping; each an allocation that fails. */
static void memory_is_kept_up_to_a_size(void)
{
    static tg_kept kept;
    char *first = tg_borrow(&kept, 1000), *second = tg_borrow(&kept, 1000), *again;
    CHECK(first && second && first != second && (uintptr_t)first % _Alignof(max_align_t) == 0);
    memset(first, 1, 1000);
    memset(second, 2, 1000);
    tg_give_back(&kept, first);
    tg_give_back(&kept, second);
    tg_give_back(&kept, NULL);
    again = tg_borrow(&kept, 10);
    CHECK(again && again[0] == 2);                      /* the second one, or what a sanitizer moved it to */
    tg_give_back(&kept, again);
    tg_fail_allocation(1);
    CHECK(!tg_borrow(&kept, 10));
    tg_fail_allocation(0);
    again = tg_borrow(&kept, 10);
    CHECK(again);
    tg_give_back(&kept, again);
    again = tg_borrow(&kept, TG_KEPT_BYTES + 1);        /* what was there is too small */
    CHECK(again && !kept.block);
    again[TG_KEPT_BYTES] = 3;
    tg_give_back(&kept, again);
    CHECK(!kept.block);
    CHECK(!tg_borrow(&kept, SIZE_MAX));
}

int main(void)
{
    each_slope_is_the_central_difference();
    refusals_record_nothing();
    a_long_chain_sweeps_and_pops();
    adjoints_below_normal_count_as_zero();
    reclaim_keeps_what_is_held();
    rules_run_in_the_sweep();
    rules_move_and_go_with_their_nodes();
    every_allocation_may_fail();
    memory_is_kept_up_to_a_size();
    return summary();
}
