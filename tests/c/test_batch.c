/*  The crew and batches alone, without Python: several callers, forks, threads that cannot be made, memory that runs
    out. Prints what fails; exit 1 then.  */
#define _DEFAULT_SOURCE
#include <fenv.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "batch.h"
#include "check.h"
#include "crew.h"
#include "weights.h"

#define ROWS 1003
#define WEIGHTS 5
#define MANY 2100               /* weights that are worth what weights.h does with them */
#define WIDTH 30
#define FEW 2                   /* in a dot, for which that is not worth it */

/* sum(w[k] * x) * x, then its logarithm: of x and five weights. */
static tg_program *polynomial(void)
{
    tg_tape t = new_tape();
    uint32_t in[WEIGHTS + 1], y = 0;
    int64_t code;
    tg_program *p;
    for (int k = 0; k <= WEIGHTS; k++)
        in[k] = leaf(&t, 1.0 + 0.1 * k);
    for (int k = 1; k <= WEIGHTS; k++)
        y = k > 1 ? op(&t, TG_ADD, y, op(&t, TG_MUL, in[k], in[0])) : op(&t, TG_MUL, in[k], in[0]);
    y = op(&t, TG_LOG, op(&t, TG_MUL, y, in[0]), y);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = WEIGHTS + 1, .out = &y,
                                      .n_out = 1}, &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

/* The sum of tanh(w * (x, x + x, ..)) over rows of w, each so long. */
static tg_program *layer(int width)
{
    tg_tape t = new_tape();
    static uint32_t in[MANY + 1], pair[2 * WIDTH], each[MANY / FEW];
    uint32_t y;
    int64_t code;
    tg_program *p;
    for (int k = 0; k <= MANY; k++)
        in[k] = leaf(&t, sin(k));
    for (int k = 0; k < width; k++)
        pair[width + k] = k ? op(&t, TG_ADD, pair[width + k - 1], in[0]) : in[0];
    for (int k = 0; k < MANY / width; k++) {
        memcpy(pair, in + 1 + k * width, (size_t)width * sizeof *pair);
        each[k] = (uint32_t)tg_record_many(&t, TG_DOT, pair, 2 * (uint32_t)width);
        each[k] = op(&t, TG_TANH, each[k], each[k]);
    }
    y = (uint32_t)tg_record_many(&t, TG_SUM, each, (uint32_t)(MANY / width));
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = MANY + 1, .out = &y,
                                      .n_out = 1}, &code);
    CHECK(p && !tg_check_program(p));
    free_tape(&t);
    return p;
}

typedef struct {
    double value, by_weights[MANY], by_row[ROWS];
    uint32_t failed[ROWS];
    uint64_t failures;
} result;

/* The sum over rows, and its gradient; rows whose number is a multiple of bad are refused. */
static int sweep(const tg_program *p, result *r, int threads, int64_t step, uint64_t budget, int bad)
{
    static const double one = 1.0;
    const uint32_t n = p->n_in - 1;
    const int rows = n > WEIGHTS ? 200 : ROWS;
    double *x = malloc((ROWS + MANY) * sizeof *x), *weights = x + ROWS;
    tg_feed feeds[2] = {{.count = 1, .in = x, .in_stride = 1, .grad = r->by_row, .grad_stride = 1},
                        {.first = 1, .count = n, .in = weights, .grad = r->by_weights}};
    tg_job job = {.program = p, .feed = feeds, .n_feeds = 2, .seed = &one, .out = &r->value, .stop = rows,
                  .failed = r->failed};
    tg_batch b = {.job = &job, .step = step, .threads = threads, .budget = budget, .seconds = budget < 100 ? 1e-5 : 1.0};
    int code;
    memset(r, 0, sizeof *r);
    for (int k = 0; k < ROWS; k++)
        x[k] = bad && k % bad == 0 ? 0.0 : 1.0 + sin(k);
    for (uint32_t k = 0; k < n; k++)
        weights[k] = n > WEIGHTS ? 0.01 * sin(k) : 0.1 + 0.2 * k;
    code = tg_start_batch(&b);
    for (code = code ? code : 1; code > 0;)
        code = tg_run_batch(&b);
    tg_finish_batch(&b);
    tg_finish_batch(&b);
    r->failures = b.failures;
    free(x);
    return code;
}

static void the_bits_depend_on_rows_and_chunks_alone(void)
{
    tg_program *p = polynomial();
    const int64_t steps[] = {16, 48, 512, 2048};
    static result one, other;
    for (int s = 0; s < 4; s++) {
        CHECK(sweep(p, &one, 1, steps[s], 1u << 20, 0) == TG_OK && one.failures == 0 && one.value != 0.0);
        for (int threads = 1; threads < 6; threads++)
            for (uint64_t budget = 3; budget < 100000; budget *= 40)
                CHECK(sweep(p, &other, threads, steps[s], budget, 0) == TG_OK && !memcmp(&one, &other, sizeof one));
    }
    tg_free_program(p);
}

static void rows_that_are_refused_are_told_whoever_has_them(void)
{
    tg_program *p = polynomial();
    static result one, other;
    CHECK(sweep(p, &one, 1, 16, 1u << 20, 7) == TG_OK && one.failures == (ROWS + 6) / 7);
    CHECK(sweep(p, &other, 3, 16, 1u << 20, 7) == TG_OK && !memcmp(&one, &other, sizeof one));
    for (int k = 0; k < ROWS; k++)
        CHECK((one.failed[k] != 0) == (k % 7 == 0) && (one.by_row[k] == 0.0) == (k % 7 == 0));
    tg_free_program(p);
}

static void threads_calculate_as_their_caller_does(void)
{
    tg_program *p = polynomial();
    static result nearest, down, again;
    volatile double one = 1.0, ten = 10.0, tenth = one / ten;
    int rounds;                                         /* under valgrind it does not */
    CHECK(sweep(p, &nearest, 2, 16, 1u << 20, 0) == TG_OK);
    fesetround(FE_DOWNWARD);
    rounds = one / ten != tenth;
    CHECK(sweep(p, &down, 1, 16, 1u << 20, 0) == TG_OK && sweep(p, &again, 3, 16, 1u << 20, 0) == TG_OK);
    fesetround(FE_TONEAREST);
    CHECK(!memcmp(&down, &again, sizeof down) && (!rounds || memcmp(&down, &nearest, sizeof down)));
    CHECK(sweep(p, &again, 3, 16, 1u << 20, 0) == TG_OK && !memcmp(&nearest, &again, sizeof again));
    tg_free_program(p);
}

typedef struct {
    const tg_program *program;
    const result *expected;
} task;

static void *sweep_often(void *context)
{
    const task *t = context;
    result r;
    for (int k = 0; k < 30; k++)
        if (sweep(t->program, &r, 1 + k % 4, 64, k % 3 ? 1u << 20 : 7, 0) || memcmp(&r, t->expected, sizeof r))
            return context;
    return NULL;
}

static void several_callers_share_the_crew(void)
{
    tg_program *p = polynomial();
    static result expected;
    task t = {p, &expected};
    pthread_t callers[3];
    CHECK(sweep(p, &expected, 1, 64, 1u << 20, 0) == TG_OK);
    for (int k = 0; k < 3; k++)
        CHECK(!pthread_create(callers + k, NULL, sweep_often, &t));
    for (int k = 0; k < 20; k++) {                      /* threads that are let go are made anew */
        tg_dismiss_crew();
        usleep(1000);
    }
    for (int k = 0; k < 3; k++) {
        void *failed = &t;
        CHECK(!pthread_join(callers[k], &failed) && !failed);
    }
    tg_free_program(p);
}

static pthread_barrier_t both;
static void meet(void *unused) { (void)unused, pthread_barrier_wait(&both); }
static void meet_within(void *unused) { (void)unused, tg_together(2, meet, NULL); }

/* Neither comes back unless both are there. */
static void a_call_has_two_threads_at_once_and_again_after_a_fork(void)
{
    int status = 1;
    pid_t child;
    CHECK(!pthread_barrier_init(&both, NULL, 2));
    tg_together(2, meet, NULL);
    fflush(stdout);
    child = fork();
    if (!child) {
        alarm(60);
        tg_together(2, meet, NULL);
        tg_dismiss_crew();
        _exit(0);
    }
    tg_together(2, meet, NULL);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    tg_together(1, meet_within, NULL);
    CHECK(!pthread_barrier_destroy(&both));
}

static void count(void *n) { tg_lock_crew(), ++*(int *)n, tg_unlock_crew(); }

static void without_threads_the_caller_works_alone(void)
{
    int n = 0;
    tg_dismiss_crew();
    tg_fail_allocation(1);                              /* the table of threads */
    tg_together(4, count, &n);
    tg_fail_allocation(0);
    CHECK(n == 1);
    tg_together(4, count, &n);
    CHECK(n >= 2 && n <= 5);
}

/* Blocks are kept until there are eight, or the chunk ends; the sums are of rows, as a program knows no others. */
static void weights_have_the_sums_of_their_rows(int width)
{
    tg_program *p = layer(width);
    static result all, other;
    static double sums[MANY];
    memset(sums, 0, sizeof sums);
    CHECK(sweep(p, &all, 1, 16, 1u << 20, 0) == TG_OK);
    for (int64_t step = 16; step < 500; step *= 2)
        for (int threads = 1; threads < 4; threads += 2) {
            CHECK(sweep(p, &other, threads, step, threads > 1 ? 1000 : 1u << 20, 0) == TG_OK);
            CHECK(!memcmp(all.by_row, other.by_row, sizeof all.by_row) && fabs(all.value - other.value) < 1e-12);
            for (int k = 0; k < MANY; k++)
                CHECK(fabs(all.by_weights[k] - other.by_weights[k]) <= 1e-12 * (1.0 + fabs(all.by_weights[k])));
        }
    for (int row = 0; row < 200; row++) {               /* of a layer, in closed form */
        const double x = 1.0 + sin(row);
        for (int k = 0; k < MANY; k += width) {
            double h = 0.0;
            for (int m = 0; m < width; m++)
                h += 0.01 * sin(k + m) * (m + 1) * x;
            for (int m = 0; m < width; m++)
                sums[k + m] += (1.0 - tanh(h) * tanh(h)) * (m + 1) * x;
        }
    }
    for (int k = 0; k < MANY; k++)
        CHECK(fabs(all.by_weights[k] - sums[k]) <= 1e-10 * (1.0 + fabs(sums[k])));
    tg_free_program(p);
}

/* Whether a job for two rows keeps what its weights meet. */
static int has_weights(int width)
{
    static double x[2], weights[MANY], grad[MANY];
    static const double one = 1.0;
    tg_program *p = layer(width);
    tg_feed feeds[2] = {{.count = 1, .in = x, .in_stride = 1},
                        {.first = 1, .count = MANY, .in = weights, .grad = grad}};
    uint32_t failed[2];
    tg_job job = {.program = p, .feed = feeds, .n_feeds = 2, .seed = &one, .stop = 2, .failed = failed};
    int has;
    CHECK(tg_start(&job) == TG_OK);
    has = job.weights != NULL;
    tg_finish(&job);
    tg_free_program(p);
    return has;
}

/* Fail each allocation in turn: there are fewer threads, or a code comes back, and the next try is good. */
static void every_allocation_may_fail(tg_program *p, int threads)
{
    static result expected, r;
    int refused = 0;
    CHECK(sweep(p, &expected, 1, 16, 1u << 20, 0) == TG_OK);
    for (int n = 1; n < (p->n_in > WEIGHTS + 1 ? 14 : 40); n++) {
        int code;
        tg_dismiss_crew();
        tg_fail_allocation((uint64_t)n);
        code = sweep(p, &r, threads, 16, 1u << 20, 0);
        tg_fail_allocation(0);
        refused += code == TG_MEMORY;
        CHECK(code == TG_MEMORY || (code == TG_OK && !memcmp(&r, &expected, sizeof r)));
        CHECK(sweep(p, &r, threads, 16, 1u << 20, 0) == TG_OK && !memcmp(&r, &expected, sizeof r));
    }
    CHECK(refused >= 2);
    tg_free_program(p);
}

int main(void)
{
    the_bits_depend_on_rows_and_chunks_alone();
    rows_that_are_refused_are_told_whoever_has_them();
    threads_calculate_as_their_caller_does();
    several_callers_share_the_crew();
    a_call_has_two_threads_at_once_and_again_after_a_fork();
    without_threads_the_caller_works_alone();
    weights_have_the_sums_of_their_rows(WIDTH);
    weights_have_the_sums_of_their_rows(FEW);
    CHECK(has_weights(WIDTH) && !has_weights(FEW));
    for (int threads = 1; threads < 4; threads += 2) {
        every_allocation_may_fail(polynomial(), threads);
        every_allocation_may_fail(layer(WIDTH), threads);
    }
    tg_dismiss_crew();
    return summary();
}
