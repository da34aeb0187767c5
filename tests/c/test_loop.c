/*  Loops without Python: the bits for every number of states that is kept, in lanes, on threads; how many steps are
    repeated, against the binomial formula; calls of them in programs; memory that runs out. Prints what fails; exit 1
    then.  */
#include <string.h>

#include "batch.h"
#include "loops/call.h"
#include "check.h"
#include "crew.h"
#include "loops/hoist.h"
#include "loops/loop.h"
#include "loops/looping.h"
#include "loops/schedule.h"
#include "loops/stretch.h"
#include "look/steps.h"

#define STEPS 60
#define ROWS 37

/* Of a, b, x, w: a > 0 ? (b, a * w + x) : (b + a * a, x - a); and y, the sine of the second. */
static tg_program *step_where(int positive)
{
    tg_tape t = new_tape();
    uint32_t in[4], out[3];
    int64_t code;
    tg_comparison asked = {.b = TG_NONE, .k = 0.0, .how = 2, .outcome = (uint32_t)positive};
    tg_program *p;
    for (int k = 0; k < 4; k++)
        in[k] = leaf(&t, k ? 0.5 : positive ? 1.0 : -1.0);
    asked.a = in[0];
    out[0] = positive ? in[1] : op(&t, TG_ADD, in[1], op(&t, TG_MUL, in[0], in[0]));
    out[1] = positive ? op(&t, TG_ADD, op(&t, TG_MUL, in[0], in[3]), in[2]) : op(&t, TG_SUB, in[2], in[0]);
    out[2] = op(&t, TG_SIN, out[1], out[1]);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = 4, .out = out, .n_out = 3,
                                      .compared = &asked, .n_compared = 1}, &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

/* Of a, b, w: what is given at the end, a * b * w, or before each step, whether it is time: b > w. */
static tg_program *of_state(int at_end)
{
    tg_tape t = new_tape();
    uint32_t in[3], y;
    int64_t code;
    tg_program *p;
    for (int k = 0; k < 3; k++)
        in[k] = leaf(&t, 0.5 + k);
    y = at_end ? op(&t, TG_MUL, op(&t, TG_MUL, in[0], in[1]), in[2]) : op(&t, TG_GREATER, in[1], in[2]);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = 3, .out = &y, .n_out = 1},
                  &code);
    CHECK(p);
    free_tape(&t);
    return p;
}

/* Of a, b, x, w: (x / b, a * r + x), and y, r times the second; r, the root of w times w, is the same in all steps. */
static tg_program *step_of_root(void)
{
    tg_tape t = new_tape();
    uint32_t in[4], out[3], r;
    int64_t code;
    tg_program *p;
    for (int k = 0; k < 4; k++)
        in[k] = leaf(&t, 0.5 + k);
    out[0] = op(&t, TG_DIV, in[2], in[1]);
    r = op(&t, TG_MUL, op(&t, TG_SQRT, in[3], in[3]), in[3]);
    out[1] = op(&t, TG_ADD, op(&t, TG_MUL, in[0], r), in[2]);
    out[2] = op(&t, TG_MUL, out[1], r);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = 4, .out = out, .n_out = 3},
                  &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

typedef struct {
    double value[ROWS], by_state[2 * ROWS], by_x[STEPS * ROWS], by_w[ROWS];
    uint32_t failed[ROWS];
    uint64_t failures, advanced;
} result;

typedef struct {
    const tg_program *step[2], *final, *until;
    int n_paths, ends;
    int64_t length, states;
    int threads;                        /* 0: no batch */
    uint64_t budget;
    const tg_program *stretch;
    uint32_t n_stretch;
} setting;

static void inputs_of(int row, double state[2], double x[STEPS])
{
    state[0] = sin(1.0 + row);
    state[1] = cos(3.0 * row);
    for (int k = 0; k < STEPS; k++)
        x[k] = 0.3 * sin(7.0 * row + k);
}

static double weight = 0.9;

/* cells: room for three. */
static tg_loop loop_of(const setting *s, tg_cell *cells)
{
    static const uint32_t shared[1] = {0}, way[3] = {0, 0, 1}, x_at[1] = {2}, x_by[1] = {1}, y_at[1] = {2};
    static const uint32_t y_by[1] = {1};
    static const tg_native *const none[2] = {NULL, NULL};
    cells[0] = (tg_cell){.n_paths = (uint32_t)s->n_paths, .n_ways = s->n_paths > 1, .program = s->step, .native = none,
                         .way = way, .shared = shared, .stretch = s->stretch, .n_stretch = s->n_stretch};
    cells[1] = (tg_cell){.n_paths = 1, .program = &s->final, .native = none, .shared = shared};
    cells[2] = (tg_cell){.n_paths = 1, .program = &s->until, .native = none, .shared = shared};
    return (tg_loop){.step = cells, .final = cells + 1, .until = s->ends ? cells + 2 : NULL, .n_state = 2, .n_x = 1,
                     .n_y = 1, .n_params = 1, .first_param = 2 + (uint32_t)s->length, .x_at = x_at, .x_by = x_by,
                     .y_at = y_at, .y_by = y_by, .length = s->length, .states = s->states, .total = 1};
}

static int carry_out(const setting *s, result *r, int start, int stop)
{
    static const double one = 1.0;
    tg_cell cells[3];
    const tg_loop loop = loop_of(s, cells);
    const tg_program outside = {.n_in = 3 + (uint32_t)s->length, .n_out = 1};
    static double state[2 * ROWS], x[STEPS * ROWS];
    const tg_feed feeds[3] = {
        {.count = 2, .in = state, .in_stride = 2, .grad = r->by_state, .grad_stride = 2},
        {.first = 2, .count = (uint32_t)s->length, .in = x, .in_stride = STEPS, .grad = r->by_x, .grad_stride = STEPS},
        {.first = 2 + (uint32_t)s->length, .count = 1, .in = &weight, .grad = r->by_w, .grad_stride = 1}};
    tg_job job = {.program = &outside, .loop = &loop, .feed = feeds, .n_feeds = 3, .seed = &one, .out = r->value,
                  .out_stride = 1, .start = start, .stop = stop, .failed = r->failed};
    int code;
    for (int row = 0; row < ROWS; row++)
        inputs_of(row, state + 2 * row, x + STEPS * row);
    if (s->threads) {
        tg_batch b = {.job = &job, .step = 16, .threads = s->threads, .budget = s->budget, .seconds = 1.0};
        code = tg_start_batch(&b);
        for (code = code ? code : 1; code > 0;)
            code = tg_run_batch(&b);
        tg_finish_batch(&b);
        r->failures += b.failures;
        return code;
    }
    code = tg_start(&job);
    if (code)
        return code;
    while (tg_run(&job, s->budget))
        ;
    r->advanced = tg_advanced(&job);
    r->failures += job.failures;
    if (job.failures && stop - start == 1)
        CHECK(tg_where_stopped(&job).cell == 0 && tg_where_stopped(&job).in[3] == weight);
    tg_finish(&job);
    return code;
}

static setting made(void)
{
    return (setting){.step = {step_where(1), step_where(0)}, .final = of_state(1), .until = of_state(0), .n_paths = 2,
                     .length = STEPS, .states = STEPS, .budget = 1u << 20};
}

static void unmade(setting *s)
{
    tg_free_program((tg_program *)s->step[0]);
    tg_free_program((tg_program *)s->step[1]);
    tg_free_program((tg_program *)s->final);
    tg_free_program((tg_program *)s->until);
}

/* The same in plain C: the value, and its derivatives by the first state and by w. */
static double plainly(int row, int64_t steps, double by_state[2], double *by_w)
{
    double s[2], x[STEPS], kept[STEPS + 1][2], g[2], total = 0.0;
    inputs_of(row, s, x);
    for (int64_t k = 0; k < steps; k++) {
        const double a = s[0], b = s[1];
        kept[k][0] = a;
        kept[k][1] = b;
        s[0] = a > 0 ? b : b + a * a;
        s[1] = a > 0 ? a * weight + x[k] : x[k] - a;
        total += tg_sin(s[1]);
    }
    kept[steps][1] = s[1];
    g[0] = s[1] * weight;
    g[1] = s[0] * weight;
    *by_w = s[0] * s[1];
    total += s[0] * s[1] * weight;
    for (int64_t k = steps; k-- > 0;) {
        const double a = kept[k][0], h = g[1] + cos(kept[k + 1][1]), top = g[0];
        *by_w += a > 0 ? h * a : 0.0;
        g[0] = a > 0 ? h * weight : 2 * a * top - h;
        g[1] = top;
    }
    memcpy(by_state, g, sizeof g);
    return total;
}

static int near(double a, double b) { return fabs(a - b) <= 1e-11 * (1.0 + fabs(a) + fabs(b)); }

static void gradients_are_those_of_plain_code(void)
{
    setting s = made();
    static result r;
    for (s.length = 0; s.length <= STEPS; s.length += s.length < 4 ? 1 : 28) {
        memset(&r, 0, sizeof r);
        CHECK(carry_out(&s, &r, 0, ROWS) == TG_OK && r.failures == 0);
        for (int row = 0; row < ROWS; row++) {
            double g[2], w, value = plainly(row, s.length, g, &w);
            CHECK(near(r.value[row], value) && near(r.by_w[row], w));
            CHECK(near(r.by_state[2 * row], g[0]) && near(r.by_state[2 * row + 1], g[1]));
        }
    }
    unmade(&s);
}

static void no_bit_depends_on_what_is_kept_on_lanes_or_threads(void)
{
    setting s = made();
    static result all, other;
    for (s.ends = 0; s.ends < 2; s.ends++) {
        memset(&all, 0, sizeof all);
        s.states = STEPS;
        s.threads = 0;
        CHECK(carry_out(&s, &all, 0, ROWS) == TG_OK && all.failures == 0);
        all.advanced = 0;
        for (s.states = 1; s.states < STEPS; s.states += s.states < 6 ? 1 : 17)
            for (s.threads = 0; s.threads < 4; s.threads++) {
                memset(&other, 0, sizeof other);
                s.budget = s.threads ? 100 : 7;
                CHECK(carry_out(&s, &other, 0, ROWS) == TG_OK);
                other.advanced = 0;
                CHECK(!memcmp(&all, &other, sizeof all));
            }
        s.threads = 0;
        for (int row = 0; row < ROWS; row++) {
            s.states = 1 + row;
            memset(&other, 0, sizeof other);
            CHECK(carry_out(&s, &other, row, row + 1) == TG_OK);
            CHECK(!memcmp(all.value + row, other.value + row, sizeof *all.value) &&
                  !memcmp(all.by_state + 2 * row, other.by_state + 2 * row, 2 * sizeof *all.by_state) &&
                  !memcmp(all.by_w + row, other.by_w + row, sizeof *all.by_w) &&
                  !memcmp(all.by_x + STEPS * row, other.by_x + STEPS * row, STEPS * sizeof *all.by_x));
        }
    }
    unmade(&s);
}

/* r n - b(s + 1, r - 1), where r is the least with n <= b(s, r): Griewank, Walther. */
static double formula(double n, double s)
{
    double reach = 1, before = 1, r = 0;                /* b(s, r) and b(s + 1, r - 1) */
    while (reach < n) {
        r++;
        before = r > 1 ? before * (s + r) / (r - 1) : 1;
        reach = reach * (s + r) / r;
    }
    return r ? r * n - before : 0;
}

static void steps_are_repeated_as_often_as_the_formula_says(void)
{
    setting s = made();
    static result r;
    for (s.length = 1; s.length <= STEPS; s.length++)
        for (s.states = 1; s.states <= 12; s.states++) {
            CHECK(carry_out(&s, &r, 0, 2) == TG_OK);
            CHECK((double)r.advanced == formula((double)s.length, (double)s.states));
        }
    unmade(&s);
}

/* As loop.c goes, without the steps. */
static double repeated(int64_t end, int64_t states)
{
    static int64_t kept[TG_MOST_STATES];
    int64_t n = 1;
    double count = 0;
    for (kept[0] = 0; end > 0;) {
        int64_t at = kept[n - 1];
        while (at < end - 1) {
            const int64_t m = tg_next_kept(end - at, states - n + 1);
            CHECK(m >= 1 && m < end - at);
            count += (double)m;
            at += m;
            if (at < end - 1)
                kept[n++] = at;
        }
        n -= kept[n - 1] == --end;
        n += n == 0;
    }
    return count;
}

static void long_loops_are_repeated_as_the_formula_says(void)
{
    static const int64_t sizes[][2] = {{100000, 3}, {100000, 40}, {200000, 1000}, {30000, 29999}, {30000, 1 << 22}};
    for (int k = 0; k < 5; k++)
        CHECK(repeated(sizes[k][0], sizes[k][1]) == formula((double)sizes[k][0], (double)sizes[k][1]));
    CHECK(formula(1e8, 1000) / 1e8 < 3.0 && formula(1e8, 1000) / 1e8 > 2.99);
    for (int64_t s = 1; s <= TG_MOST_STATES; s = 3 * s + 1) {    /* no overflow */
        const int64_t m = tg_next_kept(TG_MOST_STEPS, s);
        CHECK(m > 0 && m < TG_MOST_STEPS);
    }
}

static void a_row_that_leaves_the_known_paths_is_told(void)
{
    setting s = made();
    static result one, two;
    s.n_paths = 1;
    CHECK(carry_out(&s, &one, 0, ROWS) == TG_OK && one.failures > 0);
    s.threads = 2;
    s.budget = 10;
    CHECK(carry_out(&s, &two, 0, ROWS) == TG_OK && two.failures == one.failures);
    CHECK(!memcmp(one.failed, two.failed, sizeof one.failed));
    s.threads = 0;
    for (int row = 0; row < ROWS; row++) {
        memset(&two, 0, sizeof two);
        CHECK(carry_out(&s, &two, row, row + 1) == TG_OK && two.failures == one.failed[row]);
    }
    unmade(&s);
}

/* Machine code to which so many chunks of steps go well. */
enum { LONG = 200, NOTED = 2000 };
static int well, refused, swept;

static int some_steps(const double *v, const double *x, double *noted, double *state, int64_t steps)
{
    (void)v, (void)x, (void)state;
    memset(noted, 0, (size_t)steps * NOTED * sizeof *noted);
    refused += well == 0;
    return well-- == 0;
}

static void some_steps_back(const double *v, double *noted, double *adj, double *state, const double *weights,
                            int64_t by, double *amount, int64_t steps)
{
    (void)v, (void)noted, (void)adj, (void)state, (void)weights, (void)by, (void)amount;
    swept += (int)steps;
}

static void a_row_whose_xs_change_while_it_is_swept_is_told(void)
{
    static const tg_chain chain = {NOTED, {some_steps, some_steps}, {some_steps_back, some_steps_back}};
    static const double one = 1.0, state[2], x[LONG];
    const tg_program outside = {.n_in = 3 + LONG, .n_out = 1};
    setting s = made();
    tg_cell cells[3];
    s.n_paths = 1;
    s.length = LONG;
    for (s.states = 1; s.states <= 3; s.states++)
        for (int chunks = (LONG + TG_TILED - 1) / TG_TILED; chunks < 100; chunks += 3) {
            const tg_loop loop = loop_of(&s, cells);
            double value, by[3 + LONG];
            uint32_t failed[1] = {0};
            const tg_feed feeds[3] = {{.count = 2, .in = state, .grad = by},
                                      {.first = 2, .count = LONG, .in = x, .grad = by + 2},
                                      {.first = 2 + LONG, .count = 1, .in = &weight, .grad = by + 2 + LONG}};
            tg_job job = {.program = &outside, .loop = &loop, .feed = feeds, .n_feeds = 3, .seed = &one, .out = &value,
                          .stop = 1, .failed = failed};
            cells[0].chain = &chain;
            memset(by, 0, sizeof by);
            well = chunks;
            refused = swept = 0;
            CHECK(tg_start(&job) == TG_OK);
            while (tg_run(&job, s.budget))
                ;
            CHECK(job.failures == (uint64_t)refused && failed[0] == (uint32_t)refused);
            CHECK(refused || swept == LONG);
            tg_finish(&job);
        }
    unmade(&s);
}

/* The loss and its gradient by way of graphs of so many steps each, as carry_out has them: whether memory was there. */
static int in_graphs(const setting *s, int row, int64_t each, double *value, double g[2], double *by_w)
{
    static const uint32_t nowhere[1] = {0};
    const tg_codes codes[3] = {{1, nowhere, NULL}, {1, nowhere, NULL}, {1, nowhere, NULL}};
    tg_cell cells[3];
    const tg_loop loop = loop_of(s, cells);
    double in[3 + STEPS], state[STEPS + 1][2], seed[STEPS + 3];
    uint8_t path[STEPS + 1] = {0};
    inputs_of(row, in, in + 2);
    in[2 + s->length] = weight;
    memcpy(state[0], in, sizeof state[0]);
    for (int64_t k = 0; k < s->length; k++) {
        memcpy(state[k + 1], state[k], sizeof state[0]);
        const int modes[] = {0, TG_NAN, TG_NAN_UNCAUGHT};
        if (tg_walk(&loop, in, k, 1, state[k + 1], modes[k % 3], path + k) != 1)
            return TG_MEMORY;
    }
    *value = *by_w = g[0] = g[1] = 0.0;
    for (int64_t end = s->length, first; end >= 0; end = first) {
        uint32_t begin[STEPS + 1];
        tg_graph *graph;
        uint8_t taken[STEPS + 1] = {0};
        const int last = end == s->length;
        first = end > each ? end - each : 0;
        memcpy(taken, path + first, (size_t)(end - first));
        graph = tg_graph_of_steps(&loop, in, first, (uint32_t)(end - first), state[first], taken, last, codes, begin);
        if (!graph)
            return TG_MEMORY;
        for (uint32_t k = 0; k < graph->n_roots; k++) {
            seed[k] = k < 2 ? g[k] : 1.0;
            *value += k < 2 ? 0.0 : graph->value[graph->root[k]];
        }
        CHECK(graph->n_roots == 2 + end - first + last && begin[0] == 3);
        CHECK(!memcmp(&graph->value[graph->root[0]], &state[end][0], sizeof(double)));
        if (tg_graph_sweep(graph, seed)) {
            tg_free_graph(graph);
            return TG_MEMORY;
        }
        memcpy(g, graph->adjoint, 2 * sizeof *g);
        *by_w += graph->adjoint[2];
        tg_free_graph(graph);
        if (!first)
            break;
    }
    return TG_OK;
}

static void graphs_of_steps_have_the_numbers_of_plain_code(void)
{
    setting s = made();
    for (s.length = 0; s.length <= STEPS; s.length += s.length < 4 ? 1 : 28)
        for (int64_t each = 1; each <= STEPS; each += 13) {
            double g[2], w, value, by[2], by_w, found;
            CHECK(in_graphs(&s, 5, each, &found, by, &by_w) == TG_OK);
            value = plainly(5, s.length, g, &w);
            CHECK(near(found, value) && near(by_w, w) && near(by[0], g[0]) && near(by[1], g[1]));
        }
    s.length = 3;
    for (int n = 1, code = TG_MEMORY; code; n++) {
        double g[2], w, value;
        tg_fail_allocation((uint64_t)n);
        code = in_graphs(&s, 5, 2, &value, g, &w);
        tg_fail_allocation(0);
        CHECK(code == TG_OK || code == TG_MEMORY);
        CHECK(n < 100);
    }
    s.n_paths = 1;                      /* and a step may find none */
    {
        tg_cell cells[3];
        const tg_loop loop = loop_of(&s, cells);
        double in[3 + STEPS], state[2] = {-1.0, 1.0};
        uint8_t path[3];
        inputs_of(5, in, in + 2);
        in[5] = weight;
        CHECK(tg_walk(&loop, in, 0, 3, state, TG_NAN, path) == TG_BAD_ID);
        CHECK(tg_walk(&loop, in, 0, 3, state, TG_NAN_UNCAUGHT, path) == TG_BAD_ID);
    }
    unmade(&s);
}

static void what_is_hoisted_gives_the_same_bits_and_fails_where_the_function_does(void)
{
    setting s = made();
    static result plain, hoisted, other;
    const tg_program *const step = step_of_root();
    const tg_instr root = tg_instruction(step, 1);
    tg_program *first = NULL;
    CHECK(root.op == TG_SQRT && tg_instruction(step, 0).op == TG_DIV);
    CHECK(tg_hoist(s.step[0], 3, &first) == TG_OK && !first);
    for (int n = 1; !first; n++) {
        tg_fail_allocation((uint64_t)n);
        CHECK(tg_hoist(step, 3, &first) == (first ? TG_OK : TG_MEMORY) && n < 10);
        tg_fail_allocation(0);
    }
    CHECK(first->n_hoisted == 2 && tg_instruction(first, 0).op == TG_SQRT && !tg_check_program(first));
    tg_free_program((tg_program *)s.step[0]);
    s.n_paths = 1;
    for (int k = 0; k < 2; k++) {
        memset(k ? &hoisted : &plain, 0, sizeof plain);
        s.step[0] = k ? first : step;
        CHECK(carry_out(&s, k ? &hoisted : &plain, 0, ROWS) == TG_OK);
    }
    CHECK(!plain.failures && !hoisted.failures && !memcmp(plain.value, hoisted.value, sizeof plain.value));
    for (int row = 0; row < ROWS; row++)
        CHECK(near(plain.by_w[row], hoisted.by_w[row]) && near(plain.by_state[2 * row], hoisted.by_state[2 * row]));
    for (s.states = 1; s.states < STEPS; s.states += 17) {
        memset(&other, 0, sizeof other);
        for (int row = 0; row < ROWS; row++)            /* one by one */
            CHECK(carry_out(&s, &other, row, row + 1) == TG_OK);
        CHECK(!memcmp(other.by_w, hoisted.by_w, sizeof other.by_w) &&
              !memcmp(other.by_x, hoisted.by_x, sizeof other.by_x));
    }
    weight = INFINITY;                  /* then what is hoisted is swept in each step */
    for (int k = 0; k < 2; k++) {
        memset(k ? &hoisted : &plain, 0, sizeof plain);
        s.step[0] = k ? first : step;
        CHECK(carry_out(&s, k ? &hoisted : &plain, 0, ROWS) == TG_OK);
    }
    CHECK(!memcmp(plain.value, hoisted.value, sizeof plain.value));
    for (int row = 0; row < ROWS; row++)
        CHECK(!isfinite(plain.by_w[row]) && !isfinite(hoisted.by_w[row]) &&
              isnan(plain.by_w[row]) == isnan(hoisted.by_w[row]));
    weight = -1.0;
    memset(&other, 0, sizeof other);
    CHECK(carry_out(&s, &other, 0, ROWS) == TG_OK && other.failures == ROWS);
    s.length = 0;
    CHECK(carry_out(&s, &other, 0, ROWS) == TG_OK && other.failures == ROWS);     /* no more than there were */
    weight = 0.9;
    tg_free_program((tg_program *)step);
    s.step[0] = first;
    unmade(&s);
}

/* What a loop gives with a stretch of its step, in so many rows at once, against what it gives without. */
static void check_stretched(setting s, const tg_program *stretch, uint32_t steps, int rows)
{
    static result alone, together;
    memset(&alone, 0, sizeof alone);
    memset(&together, 0, sizeof together);
    for (int row = 0; row < ROWS; row += rows) {
        const int end = row + rows < ROWS ? row + rows : ROWS;
        CHECK(carry_out(&s, &alone, row, end) == TG_OK);
    }
    s.stretch = stretch;
    s.n_stretch = steps;
    for (int row = 0; row < ROWS; row += rows) {
        const int end = row + rows < ROWS ? row + rows : ROWS;
        CHECK(carry_out(&s, &together, row, end) == TG_OK);
    }
    alone.advanced = together.advanced = 0;
    CHECK(!memcmp(&alone, &together, sizeof alone));
}

static void stretches_have_the_bits_of_steps_and_fail_where_they_do(void)
{
    static const int64_t lengths[] = {0, 1, 2, 15, 16, 17, 47, STEPS};
    static const double weights[] = {0.9, 0.0, -1.0, 1e200};
    tg_program *const root = step_of_root();
    tg_program *hoisted = NULL;
    setting s = made();
    const tg_program *steps[] = {s.step[0], root, NULL};
    CHECK(tg_hoist(root, 3, &hoisted) == TG_OK && hoisted);
    steps[2] = hoisted;
    s.n_paths = 1;
    for (int k = 0; k < 3; k++) {
        tg_program *stretch = NULL;
        uint32_t n = 0;
        s.step[0] = steps[k];
        for (uint64_t m = 1; !stretch; m++) {
            tg_fail_allocation(m);
            CHECK(tg_stretch(steps[k], 2, 1, &stretch, &n) == (stretch ? TG_OK : TG_MEMORY) && m < 10);
            tg_fail_allocation(0);
        }
        CHECK(n == 16 && stretch->n_out == 3 * n && stretch->n_in == 2 + n + 1 + steps[k]->n_hoisted);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
            for (size_t l = 0; l < sizeof weights / sizeof *weights; l++)
                for (int rows = 1; rows <= ROWS; rows += ROWS - 1) {
                    s.length = lengths[i];
                    weight = weights[l];
                    check_stretched(s, stretch, n, rows);
                    s.states = 1 + lengths[i] / 20;
                    check_stretched(s, stretch, n, rows);
                    s.states = STEPS;
                }
        tg_free_program(stretch);
    }
    weight = 0.9;
    s.step[0] = steps[0];
    tg_free_program(root);
    tg_free_program(hoisted);
    unmade(&s);
}

static void every_allocation_may_fail(void)
{
    setting s = made();
    static result r;
    for (s.threads = 0; s.threads < 3; s.threads++)
        for (int n = 1, code = TG_MEMORY; code; n++) {
            memset(&r, 0, sizeof r);
            tg_fail_allocation((uint64_t)n);
            code = carry_out(&s, &r, 0, ROWS);
            tg_fail_allocation(0);
            CHECK(code == TG_OK || code == TG_MEMORY);
            CHECK(n < 100);
        }
    s.threads = 0;
    s.length = (int64_t)1 << 60;        /* more than there is */
    s.states = s.length;
    CHECK(carry_out(&s, &r, 0, 1) == TG_MEMORY);
    s.length = s.states = (int64_t)1 << 59;             /* so many states have 2^64 numbers in lanes */
    s.n_paths = 1;
    CHECK(carry_out(&s, &r, 0, ROWS) == TG_MEMORY);
    unmade(&s);
}

/* The program of a, b and w that gives the sum of the ys of the loop, which is called; NULL where that allocation
   failed. */
static tg_program *calling(const tg_loop *loop, int64_t *code, uint64_t failing)
{
    tg_tape t = new_tape();
    uint32_t in[3], ids[2 * STEPS + 5], out;
    const uint32_t n_in = 3 + STEPS, n_out = 2 + STEPS;
    const tg_noted_call call = {loop, ids, n_in, n_out, 0};
    tg_program *p;
    double state[2], x[STEPS];
    inputs_of(0, state, x);
    for (int k = 0; k < 3; k++)
        in[k] = leaf(&t, k == 2 ? weight : state[k]);
    ids[0] = in[0];
    ids[1] = in[1];
    for (int k = 0; k < STEPS; k++)
        ids[2 + k] = leaf(&t, x[k]);
    ids[2 + STEPS] = in[2];
    for (uint32_t k = 0; k < n_out; k++)
        ids[n_in + k] = leaf(&t, 0.25 * k);             /* what they are counts where all is constant alone */
    out = (uint32_t)tg_record_many(&t, TG_SUM, ids + n_in + 2, STEPS);
    tg_fail_allocation(failing);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = 3, .out = &out, .n_out = 1,
                                      .call = &call, .n_calls = 1}, code);
    tg_fail_allocation(0);
    free_tape(&t);
    return p;
}

static void calls_have_the_bits_of_their_loops(void)
{
    static const uint32_t shared[1] = {0}, way[3] = {0, 0, 1}, x_at[1] = {2}, x_by[1] = {1}, y_at[1] = {2};
    static const double one = 1.0;
    static const tg_native *const none[2] = {NULL, NULL};
    setting s = made();
    const tg_cell step = {.n_paths = 2, .n_ways = 1, .program = s.step, .native = none, .way = way, .shared = shared};
    tg_loop loop = {.step = &step, .n_state = 2, .n_x = 1, .n_y = 1, .n_params = 1, .first_param = 2 + STEPS,
                    .x_at = x_at, .x_by = x_by, .y_at = y_at, .y_by = x_by, .length = STEPS, .states = 5, .total = 1};
    const tg_program outside = {.n_in = 3 + STEPS, .n_out = 1};
    double in[ROWS][3 + STEPS], expected[ROWS][4 + STEPS], given[ROWS][3], grad[ROWS][3], value[ROWS];
    uint32_t failed[ROWS] = {0};
    const tg_feed feed = {.count = 3 + STEPS, .in = in[0], .in_stride = 3 + STEPS, .grad = expected[0] + 1,
                          .grad_stride = 4 + STEPS};
    const tg_feed outer = {.count = 3, .in = given[0], .in_stride = 3, .grad = grad[0], .grad_stride = 3};
    tg_job job = {.program = &outside, .loop = &loop, .feed = &feed, .n_feeds = 1, .seed = &one, .out = expected[0],
                  .out_stride = 4 + STEPS, .stop = ROWS, .failed = failed};
    int64_t code = TG_MEMORY;
    tg_program *p, *plain;
    for (int row = 0; row < ROWS; row++) {
        double x[STEPS];
        inputs_of(row, in[row], x);
        inputs_of(0, given[row], in[row] + 2);          /* of all rows the constants that the first has */
        in[row][2 + STEPS] = given[row][2] = weight;
        given[row][0] = in[row][0];
        given[row][1] = in[row][1];
    }
    CHECK(tg_start(&job) == TG_OK);
    while (tg_run(&job, 100))
        ;
    tg_finish(&job);
    loop.total = 0;
    p = calling(&loop, &code, 0);
    CHECK(p && !code && p->n_calls == 1 && p->depth == 1 && !tg_check_program(p));
    plain = tg_plain_program(p);
    CHECK(plain && !tg_check_program(plain) && !tg_pack_program(plain));
    CHECK(tg_cost(p) > STEPS * tg_cost(s.step[0]));
    for (int width = 0; width < 4; width++) {           /* rows by themselves, lanes, the plain one, one instruction */
        for (int from = 0; from < ROWS; from += width == 0 ? 1 : ROWS) {
            tg_job j = {.program = width == 2 ? plain : p, .feed = &outer, .n_feeds = 1, .seed = &one, .out = value,
                        .out_stride = 1, .start = from, .stop = width == 0 ? from + 1 : ROWS, .failed = failed};
            tg_fail_allocation(1);
            CHECK(tg_start(&j) == TG_MEMORY);
            tg_fail_allocation(0);
            CHECK(tg_start(&j) == TG_OK);
            while (tg_run(&j, width == 3 ? 1 : 1000))
                ;
            CHECK(!j.failures);
            tg_finish(&j);
        }
        for (int row = 0; row < ROWS; row++) {
            CHECK(value[row] == expected[row][0]);
            CHECK(grad[row][0] == expected[row][1] && grad[row][1] == expected[row][2]);
            CHECK(grad[row][2] == expected[row][3 + STEPS]);
        }
        memset(value, 0, sizeof value);
        memset(grad, 0, sizeof grad);
    }
    tg_free_program(plain);
    plain = NULL;
    for (uint64_t n = 1; !plain && n < 100; n++) {
        plain = calling(&loop, &code, n);
        CHECK(plain ? n > 5 : code == TG_MEMORY);
    }
    tg_free_program(plain);
    tg_free_program(p);
    unmade(&s);
}

int main(void)
{
    gradients_are_those_of_plain_code();
    no_bit_depends_on_what_is_kept_on_lanes_or_threads();
    steps_are_repeated_as_often_as_the_formula_says();
    long_loops_are_repeated_as_the_formula_says();
    a_row_that_leaves_the_known_paths_is_told();
    a_row_whose_xs_change_while_it_is_swept_is_told();
    graphs_of_steps_have_the_numbers_of_plain_code();
    what_is_hoisted_gives_the_same_bits_and_fails_where_the_function_does();
    stretches_have_the_bits_of_steps_and_fail_where_they_do();
    calls_have_the_bits_of_their_loops();
    every_allocation_may_fail();
    tg_dismiss_crew();                                  /* for valgrind */
    return summary();
}
