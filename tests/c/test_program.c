/*  Freezing and replay alone, without Python: made to run under the sanitizers, valgrind and with two threads. Prints
    what fails; exit 1 then.  */
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "matrix.h"
#include "program.h"
#include "wide/wide.h"

#define ROWS 97                 /* three blocks and some */
#define INPUTS 3
#define OUTPUTS 6

static int same(double a, double b) { return !memcmp(&a, &b, sizeof a) || (a != a && b != b); }
static int close_to(double a, double b) { return fabs(a - b) <= 1e-11 * (1.0 + fabs(a) + fabs(b)); }

/* A piece of tape over three inputs, with every row of the table in it; the code of the record that was refused. */
static int64_t everything(tg_tape *t, const uint32_t in[INPUTS], uint32_t out[OUTPUTS], uint32_t compared[2])
{
    uint32_t five[5] = {in[0], in[1], in[2], in[0], in[1]}, y, above_one, all[128], n = 0;
    int64_t code;
    uint32_t unit;                                      /* within 0.2 .. 0.8, where every operation is defined */
#define TRY(id, call)                                                                                                  \
    do {                                                                                                               \
        if ((code = (call)) < 0)                                                                                       \
            return code;                                                                                               \
        id = (uint32_t)code;                                                                                           \
    } while (0)
    TRY(y, tg_record_many(t, TG_SUM, in, 3));
    TRY(y, tg_record(t, TG_SIGMOID, y, y));
    TRY(y, tg_record_number(t, TG_MUL, y, 0.6, 0, 0));
    TRY(unit, tg_record_number(t, TG_ADD, y, 0.2, 1, 0));
    TRY(above_one, tg_record_number(t, TG_DIV, unit, 1.0, 1, 0));
    compared[0] = unit;
    for (int o = TG_NODE + 1; o < TG_OPS; o++) {
        if (tg_is_passive(o))
            TRY(all[n], tg_record_number(t, o, unit, o == TG_POWK ? 2.5 : 1.0, 0, 0));
        else if (!tg_is_many(o))
            TRY(all[n], tg_record(t, o, o == TG_ACOSH ? above_one : unit,
                                  o == TG_POW || o == TG_DIV ? unit : tg_can_refuse(o) ? above_one : in[o % 3]));
        else if (o == TG_TOP) {                         /* without a slope: of what does not move */
            uint32_t below[3] = {unit, unit, unit};
            TRY(below[1], tg_leaf(t, 0.9));
            TRY(all[n], tg_record_many(t, o, below, 3));
        } else
            TRY(all[n], tg_record_many(t, o, o == TG_CROSS_ENTROPY ? five : five + 1,
                                       o == TG_CROSS_ENTROPY ? 5 : o == TG_WHERE ? 3 : 4));
        n++;
    }
    TRY(y, tg_record(t, TG_ADD, all[0], all[1]));
    TRY(compared[1], tg_record(t, TG_MUL, y, y));
    for (uint32_t k = 0; k < 20; k++) {                 /* a sum of products, used once each */
        uint32_t product;
        TRY(product, tg_record(t, TG_MUL, all[k], all[(k * 7 + 3) % n]));
        TRY(y, k % 2 ? tg_record(t, TG_ADD, y, product) : tg_record(t, TG_ADD, product, y));
    }
    out[0] = y;
    TRY(out[1], tg_record_many(t, TG_SUM, all, n));
    TRY(out[2], tg_record_many(t, TG_LOGSUMEXP, all, n));
    out[3] = in[1];                                     /* an input, */
    TRY(out[4], tg_leaf(t, 42.0));                      /* a constant, */
    out[5] = out[0];                                    /* and one twice */
    return TG_OK;
#undef TRY
}

static void inputs_of(int row, double x[INPUTS])
{
    for (int k = 0; k < INPUTS; k++)
        x[k] = sin(1.3 * row + k) + 0.01 * k;
}

/* The program that everything() is, recorded at row 0. */
static tg_program *program_of_everything(tg_tape *t, int guards, int64_t *code)
{
    uint32_t in[INPUTS], out[OUTPUTS], compared[2];
    double x[INPUTS];
    tg_comparison c[3];
    tg_event event[2];
    inputs_of(0, x);
    for (int k = 0; k < INPUTS; k++)
        if ((*code = tg_leaf(t, x[k])) < 0)
            return NULL;
        else
            in[k] = (uint32_t)*code;
    if ((*code = everything(t, in, out, compared)) < 0)
        return NULL;
    c[0] = (tg_comparison){compared[0], TG_NONE, 0.9, 0, 1, 7};     /* unit < 0.9: always */
    c[1] = (tg_comparison){compared[0], compared[0], 0.0, 3, 1, 8};
    c[2] = (tg_comparison){in[0], in[1], 0.0, 2, x[0] > x[1], 9};
    event[0] = (tg_event){0, 5, 0};
    event[1] = (tg_event){out[0], 6, 0};
    return tg_freeze(t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = INPUTS, .out = out,
                                        .n_out = OUTPUTS, .compared = c, .n_compared = guards ? 3 : 2, .event = event,
                                        .n_events = 2}, code);
}

/* The program of one input, nothing compared. */
static tg_program *frozen(const tg_tape *t, uint32_t start, uint32_t in, const uint32_t *out, uint32_t n, int64_t *code)
{
    return tg_freeze(t, &(tg_recording){.start = start, .outer = TG_NONE, .in = &in, .n_in = 1, .out = out, .n_out = n},
                     code);
}

typedef struct {
    double out[ROWS * OUTPUTS], grad[ROWS * INPUTS], out_tangent[ROWS * OUTPUTS], grad_tangent[ROWS * INPUTS];
    uint32_t failed[ROWS];
    uint64_t failures;
} result;

static const double seeds[OUTPUTS] = {1.0, -0.5, 2.0, 0.25, 3.0, 0.125}, direction[INPUTS] = {1.0, -2.0, 0.5};

static int replay(const tg_program *p, result *r, int start, int stop, uint64_t budget, int tangents, int reverse)
{
    double x[ROWS * INPUTS];
    tg_feed feed = {.first = 0, .count = INPUTS, .in = x, .in_stride = INPUTS};
    tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .start = start, .stop = stop, .tangents = tangents};
    int code;
    for (int row = 0; row < ROWS; row++)
        inputs_of(row, x + INPUTS * row);
    feed.tangent = direction;
    feed.grad = r->grad;
    feed.grad_tangent = r->grad_tangent;
    feed.grad_stride = feed.grad_tangent_stride = INPUTS;
    job.seed = reverse ? seeds : NULL;
    job.out = r->out;
    job.out_tangent = tangents ? r->out_tangent : NULL;
    job.out_stride = job.out_tangent_stride = OUTPUTS;
    job.failed = r->failed;
    code = tg_start(&job);
    if (code)
        return code;
    while (tg_run(&job, budget))
        ;
    tg_finish(&job);
    r->failures += job.failures;
    return TG_OK;
}

static void a_replay_is_the_tape_again(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 0, &code);
    static result r;
    CHECK(p && code == TG_OK && !tg_check_program(p));
    CHECK(p->n_in == INPUTS && p->n_out == OUTPUTS && p->fused > 0 && p->n_guards == 2);
    CHECK(replay(p, &r, 0, ROWS, UINT64_MAX, 0, 1) == TG_OK && r.failures == 0);
    for (int row = 0; row < ROWS; row++) {
        tg_tape again = new_tape();
        uint32_t in[INPUTS], out[OUTPUTS], compared[2];
        double x[INPUTS], sum[INPUTS] = {0};
        inputs_of(row, x);
        for (int k = 0; k < INPUTS; k++)
            in[k] = leaf(&again, x[k]);
        CHECK(everything(&again, in, out, compared) == TG_OK);
        for (int k = 0; k < OUTPUTS; k++) {
            CHECK(same(r.out[row * OUTPUTS + k], again.data[out[k]]));
            tg_clear_grads(&again);
            CHECK(tg_backward(&again, out[k], 1.0, NULL, NULL, 0) == TG_OK);
            for (int i = 0; i < INPUTS; i++)
                sum[i] += seeds[k] * again.grad[in[i]];
        }
        for (int i = 0; i < INPUTS; i++)
            CHECK(close_to(r.grad[row * INPUTS + i], sum[i]));
        free_tape(&again);
    }
    tg_free_program(p);
    free_tape(&t);
}

/* The same over and over, of inputs that are moved a little each time: wide in every row of the table. */
static tg_program *wide_program_of_everything(tg_tape *t, int64_t *code)
{
    enum { REPEATS = 70 };
    uint32_t in[INPUTS], moved[INPUTS], out[OUTPUTS], all[OUTPUTS][REPEATS], compared[2];
    tg_comparison c[2 * REPEATS];
    double x[INPUTS];
    inputs_of(0, x);
    for (int k = 0; k < INPUTS; k++)
        if ((*code = tg_leaf(t, x[k])) < 0)
            return NULL;
        else
            in[k] = (uint32_t)*code;
    for (int r = 0; r < REPEATS; r++) {
        for (int k = 0; k < INPUTS; k++)
            if ((*code = tg_record_number(t, TG_ADD, in[k], 0.01 * r, 1, 0)) < 0)
                return NULL;
            else
                moved[k] = (uint32_t)*code;
        if ((*code = everything(t, moved, out, compared)) < 0)
            return NULL;
        c[2 * r] = (tg_comparison){compared[0], TG_NONE, 0.9, 0, 1, 7};
        c[2 * r + 1] = (tg_comparison){compared[0], compared[0], 0.0, 3, 1, 8};
        for (int k = 0; k < OUTPUTS; k++)
            all[k][r] = out[k];
    }
    for (int k = 0; k < OUTPUTS; k++) {                 /* some sums as a chain, some on the other side of it */
        *code = k % 3 ? all[k][0] : tg_record_many(t, TG_SUM, all[k], REPEATS);
        for (int r = 1; r < REPEATS && k % 3 && *code >= 0; r++)
            *code = tg_record(t, TG_ADD, k % 3 == 1 ? (uint32_t)*code : all[k][r],
                              k % 3 == 1 ? all[k][r] : (uint32_t)*code);
        if (*code < 0)
            return NULL;
        out[k] = (uint32_t)*code;
    }
    return tg_freeze(t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = INPUTS, .out = out,
                                        .n_out = OUTPUTS, .compared = c, .n_compared = 2 * REPEATS}, code);
}

static void check_bits(const tg_program *p);

static void the_bits_depend_on_the_row_alone(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 0, &code);
    CHECK(p && !p->order);
    check_bits(p);
    tg_free_program(p);
    free_tape(&t);
}

/* How many groups of a wide program are in stretches. */
static uint32_t stretched(const tg_program *p)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < p->wide->n; k++)
        n += p->wide->group[k].n_stretches > 0;
    return n;
}

/* One row goes group by group, several one instruction after the other. */
static void wide_programs_have_these_bits_too(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = wide_program_of_everything(&t, &code);
    CHECK(p && p->order && p->n_groups > TG_OPS - 10 && p->grouped > p->n_instr / 2 && !tg_check_program(p));
    CHECK(p && p->wide && stretched(p) > 2);
    check_bits(p);
    tg_free_program(p);
    free_tape(&t);
}

/* Whatever is in their lines and their guards' numbers; read from either end, and anyhow. at: where each instruction is
   in the function's order. */
static void check_made(const tg_program *p, const uint32_t *at, uint32_t lines)
{
    const uint32_t n = p->n_instr;
    tg_instr *stored = tg_zeroed(2 * n * sizeof *stored + 1), *made = stored + n;
    tg_program *q = tg_new_program(p->n_const, p->n_in, p->n_out, n, p->n_pool);
    tg_window w;
    CHECK(stored && q && !tg_set_order(q, at));
    tg_copy_instructions(p, stored);
    for (uint32_t k = 0; k < n; k++) {
        stored[k].where = lines < 2 ? TG_FOREIGN + lines * k : lines == 2 ? k / 40 * 7 : k * 2654435761u;
        if (tg_row(stored + k) == TG_GUARD)
            stored[k].live_y = lines == 2 ? n - k : stored[k].live_y * (lines + 1) << (lines ? 16 : 0);
    }
    memcpy(q->instr, stored, n * sizeof *stored);
    if (p->n_pool)
        memcpy(q->pool, p->pool, 2 * p->n_pool * sizeof *p->pool);
    q->n_kept = p->n_kept;
    q->n_live = p->n_live;
    CHECK(!tg_group_program(q) && q->n_alone < n / 2);
    for (int packed = 0; packed < 2; packed++) {
        tg_copy_instructions(q, made);
        CHECK(!memcmp(stored, made, n * sizeof *stored));
        tg_open_window(&w, q);
        for (uint32_t k = n; k-- > 0;) {
            const uint32_t other = k * 7919 % n;
            const tg_instr alone = tg_instruction(q, other);
            CHECK(!memcmp(stored + k, tg_at(&w, k), sizeof *stored) && !memcmp(stored + other, &alone, sizeof alone));
            if (k % 5 == 0)
                CHECK(!memcmp(stored + other, tg_at(&w, other), sizeof *stored));
        }
        CHECK(packed || (tg_pack_program(q) == TG_OK && !q->instr));
    }
    tg_free_program(q);
    free(stored);
}

/* x0 + x1 + x2 .., then each of them added to that from the other side, then squares and numbers in turn. */
static tg_program *three_chains(tg_tape *t, int64_t *code)
{
    enum { N = 100 };
    uint32_t in[N], y;
    for (int k = 0; k < N; k++)
        in[k] = leaf(t, k);
    y = op(t, TG_MUL, in[0], in[1]);
    for (int k = 1; k < 2 * N; k++)
        y = k < N ? op(t, TG_ADD, y, in[k]) : op(t, TG_ADD, in[k - N], y);
    for (int k = 0; k < N; k++)
        y = op(t, TG_ADD, op(t, TG_ADD, y, op(t, TG_MUL, in[k], in[k])), in[N - 1 - k]);
    return tg_freeze(t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = N, .out = &y, .n_out = 1},
                     code);
}

static void groups_make_the_instructions_that_they_are_of(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *wide = wide_program_of_everything(&t, &code), *chains = three_chains(&t, &code);
    uint32_t at[500];
    for (uint32_t k = 0; k < 500; k++)
        at[k] = k;
    CHECK(wide && chains && !chains->order && chains->n_instr < 500);
    for (uint32_t lines = 0; wide && chains && lines < 4; lines++) {
        check_made(wide, wide->order, lines);
        check_made(chains, at, lines);
    }
    tg_free_program(wide);
    tg_free_program(chains);
    free_tape(&t);
}

/* -(-x), where every result but the first lies where the operand of the instruction before lay: a group may not do any
   of these again. */
static void results_may_lie_where_operands_lay(void)
{
    enum { N = 33 };
    tg_program *p = tg_new_program(0, N, N, 2 * N, 0);
    uint32_t order[2 * N], failed;
    double x[N], out[N], grad[N], seed[N];
    tg_feed feed = {.count = N, .in = x, .grad = grad, .in_stride = N, .grad_stride = N};
    tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .out = out, .out_stride = N, .failed = &failed};
    if (!p)
        return;
    for (uint32_t k = 0; k < N; k++) {
        const uint32_t operand[] = {k, N + 1 + k}, result[] = {N + 1 + k, N + k};
        for (uint32_t i = 0; i < 2; i++) {
            p->instr[i * N + k] = (tg_instr){TG_NEG, result[i], operand[i], operand[i], result[i], operand[i],
                                             operand[i], 0};
            order[i * N + k] = i * N + k;
        }
        p->out[2 * k] = p->out[2 * k + 1] = N + k;
        x[k] = 1.0 + k;
        seed[k] = 3.0 + k;
        grad[k] = 0.0;
    }
    p->n_kept = p->n_live = 2 * N + 1;
    CHECK(!tg_check_program(p) && !tg_set_order(p, order) && !tg_group_program(p) && p->n_groups &&
          !tg_pack_program(p));
    for (int reverse = 0; reverse < 2; reverse++) {
        job.seed = reverse ? seed : NULL;
        CHECK(tg_start(&job) == TG_OK);
        while (tg_run(&job, 1000))
            ;
        tg_finish(&job);
        for (uint32_t k = 0; k < N; k++)
            CHECK(out[k] == x[k] && grad[k] == (reverse ? seed[k] : 0.0));
    }
    tg_free_program(p);
}

/* Of every width, in slices of every size, forward, backward and both. */
static void check_bits(const tg_program *p)
{
    const int stops[] = {0, 1, 2, tg_lanes - 1, tg_lanes, tg_lanes + 1, 2 * tg_lanes + 1, ROWS};
    const int wide = p && p->order;     /* and long: less often */
    static result whole, r;
    memset(&whole, 0, sizeof whole);
    CHECK(p && replay(p, &whole, 0, ROWS, UINT64_MAX, 1, 1) == TG_OK);
    for (size_t s = wide; p && s < sizeof stops / sizeof *stops; s += wide ? 3 : 1)
        for (int mode = 0; mode < 4; mode++)
            for (uint64_t budget = wide ? 61 : 1; budget < 200; budget = 3 * budget + 1) {
                int tangents = mode & 1, reverse = mode >> 1;
                memset(&r, 0, sizeof r);
                CHECK(replay(p, &r, 0, stops[s], budget, tangents, reverse) == TG_OK && r.failures == 0);
                for (int k = 0; k < stops[s] * OUTPUTS; k++)
                    CHECK(same(r.out[k], whole.out[k]) && (!tangents || same(r.out_tangent[k], whole.out_tangent[k])));
                for (int k = 0; k < stops[s] * INPUTS; k++)
                    CHECK((!reverse || same(r.grad[k], whole.grad[k])) &&
                          (mode < 3 || same(r.grad_tangent[k], whole.grad_tangent[k])));
                for (int k = stops[s] * OUTPUTS; k < ROWS * OUTPUTS; k++)
                    CHECK(r.out[k] == 0.0);
            }
    for (int row = 0; p && row < ROWS; row++) {         /* J v against v J, and H v against differences */
        double left = 0.0, right = 0.0;
        for (int k = 0; k < OUTPUTS; k++)
            left += seeds[k] * whole.out_tangent[row * OUTPUTS + k];
        for (int i = 0; i < INPUTS; i++)
            right += direction[i] * whole.grad[row * INPUTS + i];
        CHECK(close_to(left, right));
    }
}

static void second_derivatives_are_differences_of_first_ones(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 0, &code);
    const double h = 1e-6;
    for (int row = 0; p && row < ROWS; row++) {
        double x[INPUTS], grad[2][INPUTS], second[INPUTS], out[OUTPUTS];
        uint32_t failed = 0;
        for (int side = 0; side < 3; side++) {
            tg_feed feed = {.first = 0, .count = INPUTS, .in = x, .in_stride = INPUTS, .grad_stride = INPUTS};
            tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .seed = seeds, .out = out,
                          .out_stride = OUTPUTS, .failed = &failed, .tangents = side == 2};
            inputs_of(row, x);
            for (int k = 0; side < 2 && k < INPUTS; k++)
                x[k] += (side ? -h : h) * direction[k];
            feed.tangent = direction;
            feed.grad = side < 2 ? grad[side] : NULL;
            feed.grad_tangent = side < 2 ? NULL : second;
            feed.grad_tangent_stride = INPUTS;
            CHECK(tg_start(&job) == TG_OK);
            while (tg_run(&job, 1000))
                ;
            tg_finish(&job);
        }
        for (int k = 0; k < INPUTS; k++) {
            double difference = (grad[0][k] - grad[1][k]) / (2 * h);
            CHECK(fabs(second[k] - difference) < 1e-5 * (1 + fabs(second[k])));
        }
    }
    tg_free_program(p);
    free_tape(&t);
}

/* The primals of the row at x, to be freed, or NULL without memory. */
static double *kept_at(const tg_program *p, const double *x, uint32_t *failed)
{
    uint32_t lives;
    double *kept = malloc(p->n_kept * sizeof *kept);
    tg_feed feed = {.first = 0, .count = INPUTS, .in = x, .in_stride = INPUTS};
    tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .failed = failed, .keep = kept,
                  .lives = &lives};
    if (!kept || tg_start(&job)) {
        free(kept);
        return NULL;
    }
    while (tg_run(&job, 7))
        ;
    tg_finish(&job);
    return kept;
}

static int fill(const tg_program *p, const double *kept, int how, uint32_t count, tg_feed *feed, double *to,
                uint64_t budget)
{
    tg_matrix m = {.program = p, .primal = kept, .how = how, .count = count, .feed = feed, .n_feeds = 1, .out = to,
                   .out_stride = INPUTS, .seed = seeds};
    int code;
    feed->grad = to;
    code = tg_matrix_start(&m);
    while (!code && tg_matrix_run(&m, budget))
        ;
    tg_matrix_finish(&m);
    return code;
}

static void matrices_have_the_bits_of_one_direction_after_the_other(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 0, &code);
    for (int row = 0; p && row < 9; row++) {
        double x[INPUTS], rows[OUTPUTS * INPUTS], columns[OUTPUTS * INPUTS], hessian[INPUTS * INPUTS];
        tg_feed feed = {.first = 0, .count = INPUTS, .in = x, .in_stride = INPUTS, .grad_stride = INPUTS,
                        .grad_tangent_stride = INPUTS};
        uint32_t failed = 0, lives = 1;
        double *kept;
        inputs_of(row, x);
        kept = kept_at(p, x, &failed);
        CHECK(kept);
        CHECK(fill(p, kept, TG_ROWS, OUTPUTS, &feed, rows, 7) == TG_OK);
        CHECK(fill(p, kept, TG_COLUMNS, INPUTS, &feed, columns, 1) == TG_OK);
        CHECK(fill(p, kept, TG_HESSIAN, INPUTS, &feed, hessian, 1000) == TG_OK);
        for (int k = 0; k < OUTPUTS; k++) {             /* the sweep is carried out again at the same primals */
            double seed[OUTPUTS] = {0.0}, grad[INPUTS];
            tg_job again = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .keep = kept, .lives = &lives,
                            .again = 1, .seed = seed};
            seed[k] = 1.0;
            feed.grad = grad;
            CHECK(tg_start(&again) == TG_OK);
            while (tg_run(&again, 7))
                ;
            tg_finish(&again);
            for (int i = 0; i < INPUTS; i++) {
                CHECK(same(grad[i] + 0.0, rows[k * INPUTS + i] + 0.0));
                CHECK(close_to(grad[i], columns[k * INPUTS + i]));
            }
        }
        free(kept);
        for (int k = 0; k < INPUTS; k++) {
            double unit[INPUTS] = {0.0}, along[INPUTS], out[OUTPUTS], column[OUTPUTS];
            tg_job one = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .failed = &failed, .seed = seeds,
                          .tangents = 1, .out = out, .out_stride = OUTPUTS, .out_tangent = column,
                          .out_tangent_stride = OUTPUTS};
            unit[k] = 1.0;
            feed.tangent = unit;
            feed.grad = NULL;
            feed.grad_tangent = along;
            CHECK(tg_start(&one) == TG_OK);
            while (tg_run(&one, 1000))
                ;
            tg_finish(&one);
            for (int i = 0; i < INPUTS; i++)
                CHECK(same(along[i] + 0.0, hessian[k * INPUTS + i] + 0.0));
            for (int i = 0; i < OUTPUTS; i++)
                CHECK(same(column[i] + 0.0, columns[i * INPUTS + k] + 0.0));
        }
    }
    tg_free_program(p);
    free_tape(&t);
}

static void kept_rows_are_swept_again(void)
{
    tg_tape t = new_tape();
    int64_t code;
    static result whole, again;
    static double x[ROWS * INPUTS];
    static uint32_t lives[ROWS];
    tg_program *p = program_of_everything(&t, 1, &code);
    tg_feed feed = {.first = 0, .count = INPUTS, .in = x, .in_stride = INPUTS, .grad_stride = INPUTS};
    double *keep = malloc((ROWS + 15) / 16 * 16 * (p ? p->n_kept : 1) * sizeof *keep);
    tg_job kept = {.program = p, .feed = &feed, .n_feeds = 1, .stop = ROWS, .failed = again.failed, .keep = keep,
                   .lives = lives};
    tg_job job = kept;
    job.again = 1;
    job.seed = seeds;
    for (int row = 0; row < ROWS; row++)
        inputs_of(row, x + INPUTS * row);
    CHECK(replay(p, &whole, 0, ROWS, 1000, 0, 1) == TG_OK && whole.failures > 0);
    CHECK(tg_start(&kept) == TG_OK);
    while (tg_run(&kept, 50))
        ;
    tg_finish(&kept);
    for (int k = 0; k < 2; k++) {
        memset(again.grad, 0, sizeof again.grad);
        feed.grad = again.grad;
        CHECK(tg_start(&job) == TG_OK);
        while (tg_run(&job, 50))
            ;
        tg_finish(&job);
        CHECK(!memcmp(whole.grad, again.grad, sizeof whole.grad));
    }
    CHECK(kept.failures == whole.failures && !memcmp(whole.failed, again.failed, sizeof whole.failed));
    free(keep);
    tg_free_program(p);
    free_tape(&t);
}

static void rows_on_another_branch_are_told_and_write_nothing(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 1, &code);
    static result r;
    uint64_t other = 0;
    CHECK(p && p->n_guards == 3 && replay(p, &r, 0, ROWS, 17, 1, 1) == TG_OK);
    for (int row = 0; p && row < ROWS; row++) {
        double x[INPUTS], first[INPUTS];
        inputs_of(row, x);
        inputs_of(0, first);
        if ((x[0] > x[1]) == (first[0] > first[1])) {
            CHECK(r.failed[row] == 0 && r.out[row * OUTPUTS + 4] == 42.0);
            continue;
        }
        other++;
        CHECK(r.failed[row] > 0 && r.failed[row] <= p->n_instr);
        CHECK(tg_instruction(p, r.failed[row] - 1).op == TG_GUARD && tg_instruction(p, r.failed[row] - 1).where == 9);
        for (int k = 0; k < OUTPUTS; k++)
            CHECK(r.out[row * OUTPUTS + k] == 0.0 && r.out_tangent[row * OUTPUTS + k] == 0.0);
        for (int k = 0; k < INPUTS; k++)
            CHECK(r.grad[row * INPUTS + k] == 0.0 && r.grad_tangent[row * INPUTS + k] == 0.0);
    }
    CHECK(other > 0 && other < ROWS && r.failures == other);
    tg_free_program(p);
    free_tape(&t);
}

/* Also after rows that stopped on the way. */
static void a_job_that_is_done_starts_again_in_its_memory(void)
{
    tg_tape t = new_tape();
    int64_t code;
    tg_program *p = program_of_everything(&t, 1, &code);
    double x[INPUTS];
    static result again;
    tg_feed feed = {.count = INPUTS, .in = x, .tangent = direction, .grad = again.grad, .in_stride = INPUTS,
                    .grad_tangent = again.grad_tangent, .grad_stride = INPUTS, .grad_tangent_stride = INPUTS};
    tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .tangents = 1, .seed = seeds, .out = again.out,
                  .out_tangent = again.out_tangent, .out_stride = OUTPUTS, .out_tangent_stride = OUTPUTS,
                  .failed = again.failed};
    CHECK(p && tg_start(&job) == TG_OK);
    for (int row = 0; p && row < ROWS; row++) {
        static result alone;
        memset(&alone, 0, sizeof alone);
        memset(&again, 0, sizeof again);
        inputs_of(row, x);
        tg_again(&job);
        while (tg_run(&job, 5))
            ;
        again.failures = job.failures;
        CHECK(replay(p, &alone, row, row + 1, 5, 1, 1) == TG_OK);
        CHECK(again.failures == alone.failures && again.failed[0] == alone.failed[row]);
        CHECK(!memcmp(again.out, alone.out + row * OUTPUTS, OUTPUTS * sizeof(double)));
        CHECK(!memcmp(again.out_tangent, alone.out_tangent + row * OUTPUTS, OUTPUTS * sizeof(double)));
        CHECK(!memcmp(again.grad, alone.grad + row * INPUTS, INPUTS * sizeof(double)));
        CHECK(!memcmp(again.grad_tangent, alone.grad_tangent + row * INPUTS, INPUTS * sizeof(double)));
    }
    tg_finish(&job);
    tg_free_program(p);
    free_tape(&t);
}

static void refusals_fail_or_become_nan(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 1.0), out[2] = {op(&t, TG_LOG, x, x), op(&t, TG_ADD, x, x)}, failed[3] = {0};
    int64_t code;
    tg_program *p = frozen(&t, x, x, out, 2, &code);
    const double rows[3] = {1.0, -1.0, 0.0};
    for (int nan_errors = 0; p && nan_errors < 2; nan_errors++) {
        double got[6] = {0}, grad = 0.0;
        const double one[2] = {1.0, 1.0};
        tg_feed feed = {.count = 1, .in = rows, .in_stride = 1, .grad = &grad};
        tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 3, .out = got, .out_stride = 2,
                      .seed = one, .failed = failed, .nan_errors = nan_errors};
        CHECK(tg_start(&job) == TG_OK && tg_run(&job, 1000) == 0);
        tg_finish(&job);
        CHECK(got[0] == 0.0 && got[1] == 2.0);
        if (nan_errors)
            CHECK(job.failures == 0 && isnan(got[2]) && got[3] == -2.0 && isnan(got[4]) && got[5] == 0.0);
        else
            CHECK(job.failures == 2 && failed[0] == 0 && failed[1] == failed[2] && job.fail_a == -1.0 && grad == 3.0);
        memset(failed, 0, sizeof failed);
    }
    tg_free_program(p);
    free_tape(&t);
}

static void freezing_refuses_what_is_not_there(void)
{
    tg_tape t = new_tape();
    uint32_t old = leaf(&t, 1.0), x = leaf(&t, 2.0), y = op(&t, TG_MUL, x, old), none = 99;
    int64_t code = TG_OK;
    tg_comparison c = {99, TG_NONE, 0.0, 0, 0, 0};
    tg_program *p;
    CHECK(!frozen(&t, x, x, &old, 1, &code) && code == TG_ELSEWHERE);
    CHECK(!frozen(&t, x, none, &y, 1, &code) && code == TG_BAD_ID);
    CHECK(!frozen(&t, x, x, &none, 1, &code) && code == TG_BAD_ID);
    CHECK(!tg_freeze(&t, &(tg_recording){.start = x, .outer = TG_NONE, .compared = &c, .n_compared = 1}, &code) &&
          code == TG_BAD_ID);
    p = frozen(&t, x, old, &old, 1, &code);    /* an older input may be an output */
    CHECK(p && p->n_instr == 0 && !tg_check_program(p));
    tg_free_program(p);
    free_tape(&t);
}

/* The program of x that f was recorded as at x0: log(x), dead, and these questions of x and 0; returns x + x. */
static tg_program *asked_at(double x0, const tg_comparison *asked, uint32_t n, int with_log, int quiet)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, x0), y;
    const tg_event event = {0, 0, (uint32_t)quiet};
    tg_comparison of_x[8];
    int64_t code;
    tg_program *p;
    for (uint32_t k = 0; k < n; k++) {
        of_x[k] = asked[k];
        of_x[k].a = asked[k].a == TG_NONE ? TG_NONE : x;
        of_x[k].b = asked[k].b == TG_NONE ? TG_NONE : x;
    }
    if (with_log)
        op(&t, TG_LOG, x, x);
    y = op(&t, TG_ADD, x, x);
    p = tg_freeze(&t, &(tg_recording){.start = x, .outer = TG_NONE, .in = &x, .n_in = 1, .out = &y, .n_out = 1,
                                      .compared = of_x, .n_compared = n, .event = &event, .n_events = 1}, &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

/* By row: which of 40 values from x on stop a replay, in lanes and, of the first, alone. */
static uint64_t stopped(const tg_program *p, const double *x, int stop)
{
    double in[40], out[40];
    uint32_t failed[40] = {0};
    uint64_t rows = 0;
    tg_feed feed = {.count = 1, .in = in, .in_stride = 1};
    tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = stop, .out = out, .out_stride = 1,
                  .failed = failed};
    for (int k = 0; k < 40; k++)
        in[k] = x[k % 5];
    CHECK(tg_start(&job) == TG_OK);
    while (tg_run(&job, 1))
        ;
    tg_finish(&job);
    for (int k = 0; k < stop; k++)
        rows |= (uint64_t)(failed[k] != 0) << k;
    return rows;
}

static void every_question_stops_the_rows_that_answer_otherwise(void)
{
    const double x[5] = {0.0, -0.0, -1.0, 2.0, NAN};
    const struct { uint32_t a, b, how; double k, x0; uint64_t stops; } rows[] = {
        {0, TG_NONE, 4, 0.0, 0.0, 0x1C}, {0, TG_NONE, 5, 0.0, 1.0, 0x3}, {0, 0, 4, 0.0, 1.0, 0x10},
        {0, 0, TG_REFUSES + TG_LOG, 0.0, -1.0, 0x18}, {TG_NONE, 0, TG_REFUSES + TG_DIV, 3.0, 0.0, 0x1C},
        {0, TG_NONE, TG_REFUSES + TG_POWK, -0.5, -1.0, 0x18}, {TG_NONE, 0, TG_REFUSES + TG_POW, -1.0, 0.5, 0x1F},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const tg_comparison asked = {rows[k].a, rows[k].b, rows[k].k, rows[k].how, 1, 0};
        tg_program *p = asked_at(rows[k].x0, &asked, 1, 0, 0);
        uint64_t stops = 0;
        for (int n = 0; n < 40; n += 5)
            stops |= rows[k].stops << n;
        CHECK(p->n_guards == 1 && p->n_instr == 2);
        CHECK(stopped(p, x, 40) == stops && stopped(p, x, 1) == (stops & 1));
        tg_free_program(p);
    }
}

static void what_is_dead_and_can_refuse_stays(void)
{
    const double x[5] = {1.0, -1.0, 2.0, 0.0, NAN};
    tg_program *p = asked_at(2.0, NULL, 0, 1, 0), *q = asked_at(2.0, NULL, 0, 1, 1);
    CHECK(p->n_instr == 2 && stopped(p, x, 5) == 0xA);
    CHECK(q->n_instr == 1 && stopped(q, x, 5) == 0);
    tg_free_program(p);
    tg_free_program(q);
}

static void guards_that_nobody_can_answer_are_refused(void)
{
    const tg_comparison asked = {0, 0, 0.0, TG_REFUSES + TG_LOG, 1, 0};
    tg_program *p = asked_at(-1.0, &asked, 1, 0, 0);
    const uint32_t bad[] = {(TG_REFUSES + TG_LOG) * 2, (TG_REFUSES + TG_ADD) * 2 + 1, (TG_REFUSES + TG_LEAF) * 2 + 1,
                            (TG_REFUSES + TG_OPS) * 2 + 1, TG_NONE};
    CHECK(!tg_check_program(p));
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        p->alone[TG_KEPT][0].y = bad[k];
        CHECK(tg_check_program(p) == TG_BAD_ID);
    }
    tg_free_program(p);
}

/* Twice the same 40 thousand nodes over one input, in either order of their operands: no node is there twice. */
static void equal_nodes_are_found_among_many(void)
{
    enum { N = 20000 };
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 0.5), *ends = malloc(2 * N * sizeof *ends), y;
    int64_t code;
    tg_program *p;
    for (uint32_t k = 0; k < 2 * N; k++) {
        uint32_t c = leaf(&t, (double)(k % N)), z = k < N ? op(&t, TG_MUL, x, c) : op(&t, TG_MUL, c, x);
        ends[k] = op(&t, TG_SIN, z, z);
    }
    y = (uint32_t)tg_record_many(&t, TG_SUM, ends, 2 * N);
    p = frozen(&t, x, x, &y, 1, &code);
    CHECK(p && p->n_instr == 2 * N + 1 && p->shared == 2 * N && p->n_const == N && !tg_check_program(p));
    tg_free_program(p);
    free(ends);
    free_tape(&t);
}

static void a_chain_needs_few_slots(void)
{
    tg_tape t = new_tape();
    uint32_t x = leaf(&t, 0.5), y = x, c = leaf(&t, 1.5);
    int64_t code;
    tg_program *p;
    for (int k = 0; k < 100000; k++)
        y = op(&t, TG_SUB, c, y);
    p = frozen(&t, x, x, &y, 1, &code);
    CHECK(p && p->n_instr == 100000 && p->n_live <= 4 && p->n_kept <= 5);
    tg_free_program(p);
    free_tape(&t);
}

/* A link of y, and of a and b. */
static uint32_t link_of(tg_tape *t, int kind, uint32_t y, uint32_t a, uint32_t b)
{
    switch (kind) {
    case 0: return op(t, TG_ADD, op(t, TG_MUL, y, a), b);
    case 1: return op(t, TG_ADD, b, op(t, TG_MUL, a, y));
    case 2: return op(t, TG_ADD, op(t, TG_MUL, a, b), y);
    case 3: return op(t, TG_ADD, op(t, TG_MUL, y, a), y);
    case 4: return op(t, TG_SUB, a, y);
    case 5: return op(t, TG_SUB, y, b);
    case 6: return op(t, TG_MUL, y, a);
    case 7: return op(t, TG_MUL, b, y);
    case 8: return op(t, TG_MUL, y, y);
    default: return op(t, TG_SUB, y, y);
    }
}

enum { KINDS = 10, LINKS = 12 };

/* Of links of two kinds that take turns, then of one. */
static tg_program *program_of_links(int kind, int other)
{
    tg_tape t = new_tape();
    uint32_t in[3], y;
    int64_t code;
    tg_program *p;
    for (int k = 0; k < 3; k++)
        in[k] = leaf(&t, 0.5);
    y = op(&t, TG_TANH, in[0], in[0]);
    for (int k = 0; k < LINKS; k++)
        y = link_of(&t, k % 2 ? other : kind, y, in[1], k % 3 ? in[2] : y);
    y = op(&t, TG_SIN, y, y);
    for (int k = 0; k < LINKS; k++)
        y = link_of(&t, kind, y, in[2], in[1]);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = 3, .out = &y, .n_out = 1},
                  &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

/* Value alone, value again and three adjoints at a point. */
static void links_at(const tg_program *p, const double *x, uint64_t budget, double *to)
{
    const double seed = 1.5;
    uint32_t failed = 0;
    for (int sweep = 0; sweep < 2; sweep++) {
        tg_feed feed = {.count = 3, .in = x, .in_stride = 3, .grad = sweep ? to + 2 : NULL, .grad_stride = 3};
        tg_job job = {.program = p, .feed = &feed, .n_feeds = 1, .stop = 1, .out = to + sweep, .out_stride = 1,
                      .seed = sweep ? &seed : NULL, .failed = &failed};
        CHECK(tg_start(&job) == TG_OK);
        while (tg_run(&job, budget))
            ;
        tg_finish(&job);
    }
}

/* A number, whatever kind of nan it may be. */
static int is_same(double a, double b) { return isnan(a) ? isnan(b) : !memcmp(&a, &b, sizeof a); }

static void links_have_the_bits_of_other_instructions(void)
{
    const double at[] = {0.5, 1.25, -0.75, 0.0, -0.0, INFINITY, 1e-320, 3.0};
    uint32_t marked = 0;
    for (int pair = 0; pair < KINDS * KINDS; pair++) {
        tg_program *p = program_of_links(pair / KINDS, pair % KINDS), *q = program_of_links(pair / KINDS, pair % KINDS);
        for (uint32_t k = 0; k < q->n_alone; k++) {
            marked += (p->alone[TG_KEPT][k].op & TG_LINK) != 0;
            CHECK(p->alone[TG_KEPT][k].op == p->alone[TG_LIVE][k].op);
            q->alone[TG_KEPT][k].op &= ~TG_LINK;
            q->alone[TG_LIVE][k].op &= ~TG_LINK;
        }
        for (uint32_t k = 0; k < p->n_instr; k++)
            CHECK(!(tg_instruction(p, k).op & TG_LINK));
        for (int k = 0; k < 8 * 8 * 8; k++) {
            const double x[3] = {at[k / 64], at[k / 8 % 8], at[k % 8]};
            double one[5], other[5];
            links_at(p, x, k % 2 ? 1 + (uint64_t)k % 7 : 1000, one);
            links_at(q, x, 1000, other);
            for (int i = 0; i < 5; i++)
                CHECK(is_same(one[i], other[i]));
        }
        CHECK(tg_check_program(p) == TG_OK);
        tg_free_program(p);
        p = tg_plain_program(q);
        CHECK(p && tg_check_program(p) == TG_OK);
        p->instr[pair % p->n_instr].op |= TG_LINK;      /* as if somebody else had marked it */
        CHECK(tg_check_program(p) == TG_BAD_ID);
        tg_free_program(p);
        tg_free_program(q);
    }
    CHECK(marked > KINDS * KINDS * LINKS);
}

/* Fail each allocation in turn: a code comes back, nothing is lost, and the next try is good. */
static int hessian_of(const tg_program *p, result *r)
{
    double x[INPUTS], hessian[INPUTS * INPUTS], *kept;
    tg_feed feed = {.first = 0, .count = INPUTS, .grad_stride = INPUTS};
    int code;
    inputs_of(0, x);
    kept = kept_at(p, x, r->failed);
    code = kept ? fill(p, kept, TG_HESSIAN, INPUTS, &feed, hessian, 1000) : TG_MEMORY;
    free(kept);
    return code;
}

static void every_allocation_may_fail(void)
{
    uint64_t n = 0;
    int64_t code = TG_MEMORY;
    while (code < 0) {
        tg_tape t = new_tape();
        static result r;
        tg_program *p;
        tg_fail_allocation(++n);
        p = program_of_everything(&t, 1, &code);
        CHECK(p ? code == TG_OK : code == TG_MEMORY);
        if (p)
            code = replay(p, &r, 0, ROWS, 1000, 1, 1);
        if (code == TG_OK)
            code = hessian_of(p, &r);
        if (code == TG_OK) {
            tg_program *wide = wide_program_of_everything(&t, &code), *plain = wide ? tg_plain_program(wide) : NULL;
            CHECK(wide ? code == TG_OK : code == TG_MEMORY);
            if (!plain)
                code = TG_MEMORY;
            tg_free_program(plain);
            tg_free_program(wide);
        }
        CHECK(code == TG_OK || code == TG_MEMORY);
        tg_free_program(p);
        if (code < 0) {
            int64_t again;
            tg_program *q = program_of_everything(&t, 1, &again);
            CHECK(q && again == TG_OK && replay(q, &r, 0, 1, 1000, 1, 1) == TG_OK);
            tg_free_program(q);
        }
        tg_fail_allocation(0);
        free_tape(&t);
    }
    CHECK(n > 10);
}

struct task {
    const tg_program *program;
    result r;
};

static void *replay_often(void *context)
{
    struct task *task = context;
    for (int k = 0; k < 20; k++) {
        memset(&task->r, 0, sizeof task->r);
        if (replay(task->program, &task->r, 0, ROWS, 50, 1, 1))
            return context;
    }
    return NULL;
}

static void two_threads_replay_one_program(void)
{
    tg_tape t = new_tape();
    int64_t code;
    static struct task tasks[2];
    static result r;
    pthread_t threads[2];
    tg_program *p = program_of_everything(&t, 1, &code);
    free_tape(&t);
    CHECK(p && replay(p, &r, 0, ROWS, 50, 1, 1) == TG_OK);
    for (int k = 0; k < 2; k++) {
        tasks[k].program = p;
        CHECK(!pthread_create(threads + k, NULL, replay_often, tasks + k));
    }
    for (int k = 0; k < 2; k++) {
        void *failed = tasks;
        CHECK(!pthread_join(threads[k], &failed) && !failed);
        CHECK(!memcmp(&r, &tasks[k].r, sizeof r));
    }
    tg_free_program(p);
}

int main(void)
{
    a_replay_is_the_tape_again();
    the_bits_depend_on_the_row_alone();
    wide_programs_have_these_bits_too();
    groups_make_the_instructions_that_they_are_of();
    results_may_lie_where_operands_lay();
    second_derivatives_are_differences_of_first_ones();
    matrices_have_the_bits_of_one_direction_after_the_other();
    kept_rows_are_swept_again();
    rows_on_another_branch_are_told_and_write_nothing();
    a_job_that_is_done_starts_again_in_its_memory();
    refusals_fail_or_become_nan();
    freezing_refuses_what_is_not_there();
    every_question_stops_the_rows_that_answer_otherwise();
    what_is_dead_and_can_refuse_stays();
    guards_that_nobody_can_answer_are_refused();
    equal_nodes_are_found_among_many();
    a_chain_needs_few_slots();
    links_have_the_bits_of_other_instructions();
    every_allocation_may_fail();
    two_threads_replay_one_program();
    return summary();
}
