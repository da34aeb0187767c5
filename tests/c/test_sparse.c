/*  Sparse derivatives without Python: every way gives the same numbers, whichever allocation fails. Prints what fails;
    exit 1 then.  */
#include <string.h>

#include "check.h"
#include "sparse/colouring.h"
#include "sparse/nonzeros.h"

#define N 6u

/* Outputs that meet in most rows of many operands and some of few, and a guard. */
static tg_program *recorded(void)
{
    tg_tape t = new_tape();
    uint32_t x[N], out[4], a, b, ids[4];
    tg_program *p;
    int64_t code;
    for (uint32_t k = 0; k < N; k++)
        x[k] = leaf(&t, 0.3 + 0.1 * k);
    a = op(&t, TG_SIN, x[0], x[0]);
    b = op(&t, TG_MUL, a, x[1]);
    ids[0] = a, ids[1] = b, ids[2] = x[2], ids[3] = b;
    out[0] = (uint32_t)tg_record_many(&t, TG_DOT, ids, 4);
    out[1] = (uint32_t)tg_record_many(&t, TG_LOGSUMEXP, ids, 4);
    out[2] = op(&t, TG_DIV, (uint32_t)tg_record_many(&t, TG_WHERE, ids, 3), op(&t, TG_EXP, x[3], x[3]));
    out[3] = op(&t, TG_POW, op(&t, TG_MUL, x[4], x[4]), x[5]);
    {
        const tg_comparison compared = {.a = x[4], .b = TG_NONE, .k = 0.0, .how = 2, .outcome = 1};
        const tg_recording rec = {.start = N, .outer = TG_NONE, .n_in = N, .n_out = 4, .n_compared = 1, .in = x,
                                  .out = out, .compared = &compared};
        p = tg_freeze(&t, &rec, &code);
    }
    free_tape(&t);
    return p;
}

static int run(const tg_program *p, const double *in, double *out)
{
    const tg_feed feed = {.count = p->n_in, .in = in};
    uint32_t failed = 0;
    tg_job j = {.program = p, .feed = &feed, .n_feeds = 1, .out = out, .out_stride = 1, .stop = 1, .failed = &failed};
    if (tg_start(&j))
        return 0;
    while (tg_run(&j, 1u << 20))
        continue;
    tg_finish(&j);
    return !failed;
}

enum { ROWS, COLUMNS, EDGES, COLOURS, WAYS };

/* The derivative in one way, as a full matrix at a point: TG_OK or what went wrong. */
static int derived(const tg_program *p, int way, const double *in, double *full)
{
    const int second = way >= EDGES;
    const uint32_t weights = second ? p->n_out : 0;
    int64_t code, colours = 0;
    uint32_t row[N * N], col[N * N], colour[N], n = 0;
    double values[N * N];
    tg_program *q = NULL;
    tg_nonzeros *s = NULL;
    if (way == COLOURS) {
        s = tg_open_nonzeros(p, 0, N, weights, N, &code);
        if (s)
            code = tg_hessian_probe(s, UINT64_MAX);
        if (s && !code) {
            n = tg_nonzeros_count(s);
            tg_nonzeros_pattern(s, row, col);
            colours = tg_star_colours(N, row, col, n, UINT64_MAX, colour);
        }
        tg_close_nonzeros(s);
        if (code || colours < 0)
            return TG_MEMORY;
    }
    s = tg_open_nonzeros(p, 0, N, weights, N, &code);
    if (s)
        code = way == ROWS ? tg_jacobian_rows(s, UINT64_MAX, 0) : way == COLUMNS ? tg_jacobian_columns(s, UINT64_MAX, 0)
               : way == EDGES ? tg_hessian_edges(s, UINT64_MAX)
               : tg_hessian_colours(s, colour, (uint32_t)colours, row, col, n, UINT64_MAX, 0);
    if (s && !code) {
        n = tg_nonzeros_count(s);
        tg_nonzeros_pattern(s, row, col);
        q = tg_nonzeros_program(s, row, col, n, &code);
    }
    tg_close_nonzeros(s);
    if (q && !code) {
        CHECK(tg_check_program(q) != TG_BAD_ID);
        memset(full, 0, N * N * sizeof *full);
        if (run(q, in, values))
            for (uint32_t k = 0; k < n; k++)
                full[row[k] * N + col[k]] = values[k];
        else
            code = TG_MEMORY;
    }
    tg_free_program(q);
    return (int)code;
}

static int alike(const double *x, const double *y)
{
    for (uint32_t k = 0; k < N * N; k++)
        if (fabs(x[k] - y[k]) > 1e-13 * (1.0 + fabs(y[k])))
            return 0;
    return 1;
}

static void every_way_gives_the_same_whichever_allocation_fails(void)
{
    static const double in[] = {0.3, -0.4, 0.5, 0.6, 0.7, 0.8, 1.0, -2.0, 0.5, 3.0};    /* and the weights */
    double full[WAYS][N * N], again[N * N];
    tg_program *p = recorded();
    CHECK(p != NULL);
    for (int way = 0; p && way < WAYS; way++) {
        int code = TG_MEMORY;
        CHECK(derived(p, way, in, full[way]) == TG_OK);
        for (uint64_t n = 1; code && n < 200; n++) {
            tg_fail_allocation(n);
            code = derived(p, way, in, again);
            CHECK(code == TG_OK || code == TG_MEMORY);
            CHECK(n > 3 || code == TG_MEMORY);
        }
        tg_fail_allocation(0);
        CHECK(code == TG_OK && alike(again, full[way]));
    }
    CHECK(alike(full[COLUMNS], full[ROWS]) && alike(full[COLOURS], full[EDGES]));
    CHECK(full[ROWS][3 * N + 4] != 0.0 && full[EDGES][4 * N + 5] == full[EDGES][5 * N + 4] && full[EDGES][1] != 0.0);
    tg_free_program(p);
}

static void a_budget_is_kept_to(void)
{
    tg_program *p = recorded();
    int64_t code;
    for (int way = 0; p && way < 4; way++) {
        tg_nonzeros *s = tg_open_nonzeros(p, 0, N, 0, N, &code);
        CHECK(s != NULL);
        CHECK((way == 0 ? tg_jacobian_rows(s, 3, 0) : way == 1 ? tg_jacobian_columns(s, 3, 1)
               : way == 2 ? tg_hessian_edges(s, 3) : tg_hessian_probe(s, 3)) == TG_OVER);
        CHECK(tg_nonzeros_work(s) >= 3 && tg_nonzeros_links(s) > 3);
        tg_close_nonzeros(s);
    }
    tg_free_program(p);
}

static void bad_ranges_and_patterns_are_refused(void)
{
    tg_program *p = recorded();
    int64_t code;
    const uint32_t none[] = {0};
    tg_nonzeros *s;
    CHECK(!tg_open_nonzeros(p, N + 1, 0, 0, N, &code) && code == TG_BAD_ID);
    CHECK(!tg_open_nonzeros(p, 1, N, 0, N, &code) && code == TG_BAD_ID);
    CHECK(!tg_open_nonzeros(p, 0, N, 3, N, &code) && code == TG_BAD_ID);
    CHECK(!tg_open_nonzeros(p, 0, N, 0, N + 1, &code) && code == TG_BAD_ID);
    s = tg_open_nonzeros(p, 0, N, 0, N, &code);
    CHECK(s && tg_jacobian_rows(s, UINT64_MAX, 0) == TG_OK);
    CHECK(!tg_nonzeros_program(s, none, none, 1, &code) && code == TG_BAD_ID);
    tg_close_nonzeros(s);
    tg_free_program(p);
}

/* Operands are in a pool that is longer than all nodes together. */
static void a_sum_of_few_inputs_many_times_is_derived(void)
{
    static const double in[] = {0.3, -0.4, 0.5, 0.6, 0.7, 0.8};
    double full[2][N * N];
    uint32_t x[N], ids[2000], sums[3];
    tg_tape t = new_tape();
    tg_program *p;
    int64_t code;
    for (uint32_t k = 0; k < N; k++)
        x[k] = leaf(&t, in[k]);
    for (uint32_t m = 0; m < 3; m++) {
        for (uint32_t k = 0; k < 2000; k++)
            ids[k] = x[(m + k * k) % N];
        sums[m] = (uint32_t)tg_record_many(&t, TG_SUM, ids, 2000);
    }
    for (uint32_t m = 0; m < 3; m++)
        sums[m] = op(&t, TG_MUL, sums[m], sums[m]);
    {
        const tg_recording rec = {.start = N, .outer = TG_NONE, .n_in = N, .n_out = 3, .in = x, .out = sums};
        p = tg_freeze(&t, &rec, &code);
    }
    free_tape(&t);
    CHECK(p != NULL);
    CHECK(p && derived(p, ROWS, in, full[0]) == TG_OK && derived(p, COLUMNS, in, full[1]) == TG_OK);
    CHECK(alike(full[0], full[1]) && full[0][0] != 0.0);
    tg_free_program(p);
}

/* No instructions, or not even inputs. */
static void an_empty_program_has_an_empty_derivative(void)
{
    for (uint32_t n = 0; n < 2; n++)
        for (int way = 0; way < 5; way++) {
            tg_program *p = tg_new_program(1, n, 1, 0, 0), *q;
            const uint32_t none[] = {0};
            uint32_t colour[1] = {0};
            int64_t code;
            tg_nonzeros *s;
            p->constant[0] = 1.0;
            p->n_kept = p->n_live = 1 + n;
            s = tg_open_nonzeros(p, n, 0, way > 1, n, &code);
            CHECK(s && tg_star_colours(0, none, none, 0, 100, colour) == 0);
            CHECK((way == 0 ? tg_jacobian_rows(s, 100, 0) : way == 1 ? tg_jacobian_columns(s, 100, 0)
                   : way == 2 ? tg_hessian_edges(s, 100) : way == 3 ? tg_hessian_probe(s, 100)
                   : tg_hessian_colours(s, colour, 0, none, none, 0, 100, 0)) == TG_OK);
            CHECK(tg_nonzeros_count(s) == 0);
            q = tg_nonzeros_program(s, none, none, 0, &code);
            CHECK(q && q->n_out == 0 && q->n_in == n + (way > 1));
            tg_free_program(q);
            tg_close_nonzeros(s);
            tg_free_program(p);
        }
}

int main(void)
{
    every_way_gives_the_same_whichever_allocation_fails();
    a_budget_is_kept_to();
    bad_ranges_and_patterns_are_refused();
    a_sum_of_few_inputs_many_times_is_derived();
    an_empty_program_has_an_empty_derivative();
    return summary();
}
