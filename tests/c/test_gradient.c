/*  Sweeps for functions of functions, without Python: adjoints as numbers and as nodes. Prints what fails, exits 1.  */
#include "check.h"
#include "gradient.h"

static int adjoint(tg_tape *t, uint32_t root, const uint32_t *xs, uint32_t n, double *out)
{
    return tg_adjoints(t, &root, NULL, 1, xs, n, out, NULL, NULL, 0);
}

/* The same number, but for the sign of zero; nan is like nan. */
static int alike(double x, double y) { return x == y || (x != x && y != y); }

static void every_row_has_the_sweeps_slopes(void)
{
    static const double at[][2] = {{0.4, 0.7}, {0.4, -0.7}, {-0.3, 0.7}, {0.5, 0.5}, {0.0, 2.0}, {0.0, 0.0}};
    for (int o = TG_NODE + 1; o < TG_OPS; o++)
        for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
            tg_tape t = new_tape();
            uint32_t xs[4] = {leaf(&t, at[k][0]), leaf(&t, at[k][1]), leaf(&t, 0.25), leaf(&t, 0.75)}, out[4];
            double slope[4];
            const int many = tg_is_many(o);
            const uint32_t n = many ? (o == TG_WHERE ? 3 : 4) : 2;
            int64_t y = many ? tg_record_many(&t, o, xs, n) : tg_record(&t, o, xs[0], xs[1]);
            if (y >= 0) {
                uint32_t root = op(&t, TG_NEG, (uint32_t)y, (uint32_t)y);
                CHECK(adjoint(&t, root, xs, n, slope) == TG_OK);
                CHECK(tg_record_sweep(&t, &root, NULL, 1, xs, n, out) == TG_OK);
                for (uint32_t i = 0; i < n; i++) {
                    CHECK(alike(t.data[out[i]], slope[i]));
                    CHECK(out[i] > root && !t.owner[out[i]] && t.grad[out[i]] == 0.0);
                }
            }
            free_tape(&t);
        }
}

static void seeds_weigh_roots_and_are_nodes_of_a_recorded_sweep(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 3.0), roots[2] = {op(&t, TG_MUL, x, x), x}, out, by;
    uint32_t seeds[2] = {leaf(&t, 2.0), leaf(&t, 5.0)};
    double slope;
    CHECK(tg_adjoints(&t, roots, (double[]){2.0, 5.0}, 2, &x, 1, &slope, NULL, NULL, 0) == TG_OK && slope == 17.0);
    CHECK(tg_record_sweep(&t, roots, seeds, 2, &x, 1, &out) == TG_OK && t.data[out] == 17.0);
    CHECK(adjoint(&t, out, seeds, 1, &slope) == TG_OK && slope == 6.0);     /* J^T u is linear in u */
    CHECK(tg_record_sweep(&t, &out, NULL, 1, &x, 1, &by) == TG_OK && t.data[by] == 4.0);
    CHECK(tg_adjoints(&t, NULL, NULL, 0, &x, 1, &slope, NULL, NULL, 0) == TG_OK && slope == 0.0);
    CHECK(tg_record_sweep(&t, NULL, NULL, 0, &x, 1, &out) == TG_OK && t.data[out] == 0.0);
    CHECK(tg_record_sweep(&t, roots, NULL, 2, NULL, 0, NULL) == TG_OK);
    for (uint32_t i = 0; i < t.len; i++)
        CHECK(t.grad[i] == 0.0);
    for (uint64_t k = 0; k < t.adj_cap; k++)
        if (t.adj[k] != 0.0)
            CHECK(!"adjoints are zero between sweeps");
    free_tape(&t);
}

static void bad_ids_are_refused(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 3.0), y = op(&t, TG_MUL, x, x), bad = y + 1, out, n;
    double slope;
    n = t.len;
    CHECK(adjoint(&t, bad, &x, 1, &slope) == TG_BAD_ID);
    CHECK(adjoint(&t, y, &bad, 1, &slope) == TG_BAD_ID);
    CHECK(tg_record_sweep(&t, &bad, NULL, 1, &x, 1, &out) == TG_BAD_ID);
    CHECK(tg_record_sweep(&t, &y, &bad, 1, &x, 1, &out) == TG_BAD_ID);
    CHECK(tg_record_sweep(&t, &y, NULL, 1, &bad, 1, &out) == TG_BAD_ID);
    CHECK(tg_depends_on_older(&t, &bad, 1, 0) == TG_BAD_ID);
    CHECK(t.len == n && t.pool_len == 0);
    free_tape(&t);
}

static void rules_on_the_way_are_refused(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 3.0), other = leaf(&t, 2.0), y = op(&t, TG_MUL, x, x), z = op(&t, TG_ADD, y, other), out, n;
    CHECK(tg_set_rule(&t, y, 1) == TG_OK);
    n = t.len;
    CHECK(tg_record_sweep(&t, &z, NULL, 1, &x, 1, &out) == TG_RULED && t.len == n);
    CHECK(tg_record_sweep(&t, &z, NULL, 1, &other, 1, &out) == TG_OK && t.data[out] == 1.0);
    free_tape(&t);
}

static void what_is_older_is_told(void)
{
    tg_tape t = new_tape();
    uint32_t old = leaf(&t, 1.0), x = leaf(&t, 2.0), y = op(&t, TG_MUL, x, x), z = op(&t, TG_ADD, y, old);
    uint32_t many[3] = {y, x, old}, sum = (uint32_t)tg_record_many(&t, TG_SUM, many, 2);
    uint32_t all = (uint32_t)tg_record_many(&t, TG_SUM, many, 3), power = op(&t, TG_POWK, y, x);
    CHECK(tg_depends_on_older(&t, &y, 1, x) == 0 && tg_depends_on_older(&t, &z, 1, x) == 1);
    CHECK(tg_depends_on_older(&t, &sum, 1, x) == 0 && tg_depends_on_older(&t, &all, 1, x) == 1);
    CHECK(tg_depends_on_older(&t, &power, 1, x) == 0 && tg_depends_on_older(&t, &power, 1, y) == 1);
    CHECK(tg_depends_on_older(&t, (uint32_t[]){y, z}, 2, x) == 1 && tg_depends_on_older(&t, &old, 1, x) == 1);
    CHECK(tg_depends_on_older(&t, NULL, 0, x) == 0 && tg_depends_on_older(&t, &all, 1, old) == 0);
    free_tape(&t);
}

/* x, then so many others, then y: blocks that nothing touches lie in between, whole ones and parts of them. */
static void wide_gaps_of_ids_are_skipped(void)
{
    static const uint32_t gaps[] = {0, 1, 253, 254, 255, 256, 257, 511, 512, 5000, 300000};
    for (size_t k = 0; k < sizeof gaps / sizeof *gaps; k++) {
        tg_tape t = new_tape();
        uint32_t before = leaf(&t, 7.0), x = leaf(&t, 3.0), y, z, out[2];
        double slope[2];
        for (uint32_t i = 0; i < gaps[k]; i++)
            leaf(&t, 1.0);
        y = op(&t, TG_MUL, x, x);
        z = op(&t, TG_MUL, y, before);
        CHECK(adjoint(&t, z, (uint32_t[]){x, before}, 2, slope) == TG_OK && slope[0] == 42.0 && slope[1] == 9.0);
        CHECK(tg_record_sweep(&t, &z, NULL, 1, (uint32_t[]){x, before}, 2, out) == TG_OK);
        CHECK(t.data[out[0]] == 42.0 && t.data[out[1]] == 9.0);
        CHECK(tg_record_sweep(&t, &z, NULL, 1, &y, 1, out) == TG_OK && t.data[out[0]] == 7.0);
        CHECK(tg_record_sweep(&t, &x, NULL, 1, &z, 1, out) == TG_OK && t.data[out[0]] == 0.0);
        free_tape(&t);
    }
}

static void a_long_chain_is_recorded_again_and_again(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 1.0), y = x, c = leaf(&t, 1.0);
    for (int k = 0; k < 20000; k++)
        y = op(&t, TG_MUL, op(&t, TG_SIN, y, y), c);
    for (int order = 1; order <= 2; order++) {
        double slope;
        uint32_t next;
        CHECK(adjoint(&t, y, &x, 1, &slope) == TG_OK);
        CHECK(tg_record_sweep(&t, &y, NULL, 1, &x, 1, &next) == TG_OK);
        CHECK(fabs(t.data[next] - slope) <= 1e-12 * fabs(slope));
        y = next;
    }
    free_tape(&t);
}

/* Every row at once, so that whatever a sweep needs room for is needed. */
static uint32_t of_everything(tg_tape *t, uint32_t x[4])
{
    uint32_t y = x[0];
    for (int o = TG_NODE + 1; o < TG_OPS; o++) {
        int64_t z = tg_is_many(o) ? tg_record_many(t, o, x, o == TG_WHERE ? 3 : 4) : tg_record(t, o, x[0], x[1]);
        if (z >= 0)
            z = tg_record(t, TG_ADD, y, (uint32_t)z);
        y = z < 0 ? y : (uint32_t)z;
    }
    return y;
}

/* Fail each allocation in turn: a code comes back, nothing is recorded, and the next call goes well. */
static void every_allocation_may_fail(void)
{
    for (int which = 0; which < 3; which++) {
        uint64_t n = 0;
        int code = TG_MEMORY;
        while (code == TG_MEMORY) {
            tg_tape t = new_tape();
            uint32_t x[4] = {leaf(&t, 0.4), leaf(&t, 0.7), leaf(&t, 0.2), leaf(&t, 0.3)}, y, out[4] = {0}, len, words;
            double slope[4];
            for (int k = 0; k < 300; k++)               /* the order that nodes are listed in grows, too */
                x[0] = op(&t, TG_SIN, x[0], x[0]);
            y = of_everything(&t, x);
            t.cap = t.len;                              /* no room is left */
            t.pool_cap = t.pool_len;
            len = t.len;
            words = t.pool_len;
            tg_fail_allocation(++n);
            code = which == 0 ? tg_record_sweep(&t, &y, NULL, 1, x, 4, out)
                 : which == 1 ? tg_depends_on_older(&t, &y, 1, 0) : adjoint(&t, y, x, 4, slope);
            tg_fail_allocation(0);
            if (code) {
                CHECK(code == TG_MEMORY && t.len == len && t.pool_len == words);
                CHECK(tg_record_sweep(&t, &y, NULL, 1, x, 4, out) == TG_OK && adjoint(&t, y, x, 4, slope) == TG_OK);
                for (int k = 0; k < 4; k++)
                    CHECK(alike(t.data[out[k]], slope[k]));
            }
            free_tape(&t);
        }
        CHECK(code == TG_OK && n > 2);
    }
}

int main(void)
{
    every_row_has_the_sweeps_slopes();
    seeds_weigh_roots_and_are_nodes_of_a_recorded_sweep();
    bad_ids_are_refused();
    rules_on_the_way_are_refused();
    what_is_older_is_told();
    wide_gaps_of_ids_are_skipped();
    a_long_chain_is_recorded_again_and_again();
    every_allocation_may_fail();
    return summary();
}
