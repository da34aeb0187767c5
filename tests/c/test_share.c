/*  Wide programs for one sample on several threads: the bits, the failures and the signals' turns of one thread; memory
    that runs out, forks, several callers. Prints what fails; exit 1 then.  */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "crew.h"
#include "wide/pieces.h"
#include "wide/share.h"

enum { INPUTS = 2400, SUMS = 3, EVERY = 60, OUTPUTS = SUMS + INPUTS / EVERY };

/* What is done over and over, to neighbours and to two numbers that all share: three sums, one of which goes through
   the function and one of which steps from repeat to repeat; and results here and there, an input among them. */
static tg_program *repeats(int64_t *code)
{
    tg_tape t = new_tape();
    uint32_t in[INPUTS], out[OUTPUTS], sum[SUMS], all[INPUTS - 3];
    static tg_comparison asked[INPUTS];
    tg_program *p;
    for (int k = 0; k < INPUTS; k++)
        in[k] = leaf(&t, 0.3 + 0.2 * sin(k));
    for (int k = 0; k < SUMS; k++)
        sum[k] = in[k];
    for (uint32_t k = 2; k < INPUTS - 1; k++) {
        const uint32_t a = in[k], b = in[k + 1];
        uint32_t d = op(&t, TG_SUB, b, op(&t, TG_MUL, a, a)), e;
        asked[k - 2] = (tg_comparison){d, TG_NONE, -9.0, 2, 1, k};
        e = op(&t, TG_MUL, op(&t, TG_TANH, d, d), in[0]);
        e = op(&t, TG_ADD, e, op(&t, TG_LOG, op(&t, TG_ADD, op(&t, TG_MUL, d, d), in[1]), 0));
        e = op(&t, TG_ADD, e, op(&t, TG_MUL, op(&t, TG_SIN, a, a), op(&t, TG_SUB, a, b)));
        all[k - 2] = e;
        sum[0] = op(&t, TG_ADD, sum[0], op(&t, TG_MUL, e, e));
        sum[1] = op(&t, TG_ADD, op(&t, TG_MUL, sum[1], in[1]), e);
        if (k % EVERY == 7)
            out[SUMS + k / EVERY] = k == 7 ? in[5] : op(&t, TG_MUL, e, all[k / 2]);
    }
    sum[2] = (uint32_t)tg_record_many(&t, TG_SUM, all, INPUTS - 3);
    memcpy(out, sum, sizeof sum);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = INPUTS, .out = out,
                                      .n_out = OUTPUTS, .compared = asked, .n_compared = INPUTS - 3}, code);
    free_tape(&t);
    return p;
}

/* Two sums of what many pieces make, one of them of products, and nobody else wants their terms. */
static tg_program *two_sums(int64_t *code)
{
    tg_tape t = new_tape();
    uint32_t in[INPUTS], out[2], term[INPUTS];
    tg_program *p;
    for (int k = 0; k < INPUTS; k++)
        in[k] = leaf(&t, 0.3 + 0.2 * sin(k));
    out[0] = leaf(&t, 0.25);
    for (int k = 0; k < INPUTS; k++) {
        const uint32_t a = in[k], b = in[k ? k - 1 : 5];
        const uint32_t d = op(&t, TG_TANH, op(&t, TG_SUB, b, op(&t, TG_MUL, a, a)), 0), rest = op(&t, TG_SIN, d, 0);
        uint32_t e = d, f;
        for (int m = 0; m < 9; m++)
            e = op(&t, TG_SUB, op(&t, TG_SIN, e, 0), op(&t, TG_MUL, d, in[0]));
        f = op(&t, TG_SUB, d, e);
        term[k] = op(&t, TG_SUB, f, rest);
        out[0] = op(&t, TG_ADD, out[0], op(&t, TG_MUL, f, e));
        out[0] = op(&t, TG_ADD, out[0], op(&t, TG_MUL, term[k], term[k]));
    }
    out[1] = (uint32_t)tg_record_many(&t, TG_SUM, term, INPUTS);
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = INPUTS, .out = out,
                                      .n_out = 2}, code);
    free_tape(&t);
    return p;
}

enum { FIRST, SECOND, DIFFERENCE, PRODUCTS, IN_TURN, ASKED, READ, DECAYING, BEGUN_AGAIN, TURNED, SHAPES };
static int shape;

/* A running total of this shape through many pieces. */
static tg_program *running(int64_t *code)
{
    tg_tape t = new_tape();
    uint32_t in[INPUTS], out[OUTPUTS], n_asked = 0, other;
    static tg_comparison asked[INPUTS];
    tg_program *p;
    for (int k = 0; k < INPUTS; k++)
        in[k] = leaf(&t, 0.3 + 0.2 * sin(k));
    for (int k = 0; k < OUTPUTS; k++)
        out[k] = in[k];
    other = in[3];
    for (int k = 0; k < INPUTS; k++) {
        const uint32_t a = in[k], b = in[k ? k - 1 : 5], d = op(&t, TG_SUB, b, op(&t, TG_MUL, a, a));
        uint32_t e = d, f, *total = out, three = leaf(&t, 3.0);
        for (int m = 0; m < 4; m++)
            e = op(&t, TG_SUB, op(&t, TG_SIN, e, 0), op(&t, TG_MUL, d, in[0]));
        f = op(&t, TG_TANH, e, 0);
        if (shape == SECOND)
            *total = op(&t, TG_ADD, f, *total);
        else if (shape == DIFFERENCE)
            *total = op(&t, TG_SUB, *total, f);
        else
            *total = op(&t, TG_ADD, *total, f);
        if (shape == PRODUCTS || shape == READ)
            *total = op(&t, TG_ADD, op(&t, TG_ADD, *total, op(&t, TG_MUL, e, three)), op(&t, TG_ADD, a, f));
        if (shape == IN_TURN)                           /* products and numbers */
            *total = op(&t, TG_ADD, *total, op(&t, TG_MUL, e, three));
        if (shape == TURNED && k % 20 == 19)            /* behind an older operand: the first of a chain */
            *total = op(&t, TG_ADD, in[3], *total);
        if (shape == ASKED && k % EVERY == 11)
            asked[n_asked++] = (tg_comparison){*total, TG_NONE, 1e9, 0, 1, (uint32_t)k};
        if (shape == READ && k % EVERY == 11)
            out[2 + k / EVERY] = op(&t, TG_MUL, *total, e);
        if (shape == DECAYING)
            out[1] = other = op(&t, TG_ADD, op(&t, TG_MUL, other, in[1]), e);
        if (shape == BEGUN_AGAIN && k == INPUTS / 2)
            other = *total;
        if (shape == BEGUN_AGAIN && k > INPUTS / 2)
            out[1] = op(&t, TG_ADD, op(&t, TG_MUL, other, e), out[1]);
    }
    p = tg_freeze(&t, &(tg_recording){.start = in[0], .outer = TG_NONE, .in = in, .n_in = INPUTS, .out = out,
                                      .n_out = OUTPUTS, .compared = asked, .n_compared = n_asked}, code);
    free_tape(&t);
    return p;
}

/* It is shared whether that pays or not. */
static tg_program *shared(tg_program *p)
{
    tg_pieces *s = p ? (tg_pieces *)tg_pieces_of(p) : NULL;
    CHECK(s && s->n_pieces);
    if (s)
        s->pays[0] = s->pays[1] = 1;
    return p;
}

typedef struct {
    double out[OUTPUTS], out_tangent[OUTPUTS], grad[INPUTS], grad_tangent[INPUTS];
    uint32_t failed[2];
    uint64_t failures;
    int64_t fail_row;
    double fail[3];
} result;

static double seeds[OUTPUTS];

/* For valgrind and ThreadSanitizer, which are slow and want each access once: three threads, then four, in each mode,
   and one allocation in three. ASan and its search for leaks have all of them. */
static int few;

/* Row 1 of two, of which one is replayed; odd: an input that is another number there. */
static int replay(const tg_program *p, result *r, int threads, uint64_t budget, int mode, int odd, double number)
{
    double *x = malloc(2 * 2 * INPUTS * sizeof *x);
    const int tangents = mode & 1, reverse = mode >> 1 & 1;
    tg_feed feed = {.count = INPUTS, .in = x, .in_stride = INPUTS, .tangent = x + 2 * INPUTS};
    tg_job j = {.program = p, .feed = &feed, .n_feeds = 1, .start = 1, .stop = 2, .tangents = tangents};
    int code;
    memset(r, 0, sizeof *r);
    for (int k = 0; k < INPUTS; k++) {
        x[k] = NAN;
        x[INPUTS + k] = 0.4 + 0.3 * cos(3 * k);
        x[2 * INPUTS + k] = sin(5 * k);
    }
    if (odd)
        x[INPUTS + odd] = number;
    feed.grad = r->grad;
    feed.grad_tangent = r->grad_tangent;
    j.seed = reverse ? seeds : NULL;
    j.out = r->out;
    j.out_tangent = tangents ? r->out_tangent : NULL;
    j.failed = r->failed;
    tg_set_threads(threads);
    code = tg_start(&j);
    for (int again = 0; !code && again < 2; again++) {
        if (again) {                                    /* in the same memory, on other threads */
            memset(r, 0, sizeof *r);
            tg_set_threads(mode & 4 ? threads + 1 : threads);
            tg_again(&j);
        }
        while (tg_run(&j, budget))
            ;
    }
    if (!code)
        tg_finish(&j);
    tg_set_threads(1);
    r->failures = j.failures;
    r->fail_row = j.fail_row;
    r->fail[0] = j.fail_a;
    r->fail[1] = j.fail_b;
    r->fail[2] = j.fail_y;
    free(x);
    return code;
}

static void any_number_of_threads_gives_the_same_bits(void)
{
    int64_t code;
    tg_program *p = shared(repeats(&code));
    static result one, other;
    CHECK(p && p->order && p->n_instr > 1 << 14);
    for (int mode = few ? 4 : 0; p && mode < 8; mode++) {
        CHECK(replay(p, &one, 1, UINT64_MAX, mode, 0, 0.0) == TG_OK && one.failures == 0 && one.out[0] != 0.0);
        for (int threads = 2 + few; threads < 5 - few; threads++)
            for (uint64_t budget = 1000; budget < 1u << 20; budget *= 100)
                CHECK(replay(p, &other, threads, budget, mode, 0, 0.0) == TG_OK && !memcmp(&one, &other, sizeof one));
    }
    CHECK(p && p->pieces && p->pieces->n_pieces >= 4 && p->pieces->n_carried >= 8);
    tg_free_program(p);
}

static void sums_of_what_many_pieces_make_have_the_same_bits(void)
{
    int64_t code;
    tg_program *p = shared(two_sums(&code));
    static result one, other;
    for (int mode = few ? 4 : 0; p && mode < 8; mode++) {
        CHECK(replay(p, &one, 1, UINT64_MAX, mode, 0, 0.0) == TG_OK && one.out[0] != 0.0 && one.out[1] != 0.0);
        for (int threads = 2 + few; threads < 5 - few; threads++)
            for (uint64_t budget = 1000; budget < 1u << 20; budget *= 1000)
                CHECK(replay(p, &other, threads, budget, mode, 0, 0.0) == TG_OK && !memcmp(&one, &other, sizeof one));
    }
    CHECK(p && p->pieces && p->pieces->n_sums == 2);
    CHECK(p && p->pieces->n_carried < INPUTS / 2);
    tg_free_program(p);
}

static void running_totals_have_the_same_bits(void)
{
    for (shape = 0; shape < SHAPES; shape++) {
        int64_t code;
        tg_program *p = shared(running(&code));
        static result one, other;
        for (int mode = few ? 4 : 0; p && mode < 8; mode++) {
            CHECK(replay(p, &one, 1, UINT64_MAX, mode, 0, 0.0) == TG_OK && one.out[0] != 0.0);
            for (int threads = 2 + few; threads < 5 - few; threads++)
                for (uint64_t budget = 1000; budget < 1u << 20; budget *= 1000)
                    CHECK(replay(p, &other, threads, budget, mode, 0, 0.0) == TG_OK &&
                          !memcmp(&one, &other, sizeof one));
        }
        CHECK(p && (p->pieces->n_totals || shape == ASKED || shape == READ || shape == DECAYING));
        tg_free_program(p);
    }
}

static void the_first_failure_is_told_whoever_has_it(void)
{
    int64_t code;
    tg_program *p = shared(repeats(&code));
    static result one, other;
    const struct { int odd; double number; } bad[] = {{900, 1e3}, {3, INFINITY}, {1, -5.0}, {2398, NAN}, {700, -1e200}};
    for (size_t k = 0; p && k < sizeof bad / sizeof *bad; k++) {
        CHECK(replay(p, &one, 1, UINT64_MAX, 2, bad[k].odd, bad[k].number) == TG_OK && one.failures == 1);
        for (int threads = 2; threads < 4; threads++) {
            CHECK(replay(p, &other, threads, 30000, 2, bad[k].odd, bad[k].number) == TG_OK);
            CHECK(other.failures == 1 && one.failed[1] == other.failed[1] && one.fail_row == 1 && other.fail_row == 1);
            CHECK(!memcmp(one.fail, other.fail, sizeof one.fail) && !memcmp(one.grad, other.grad, sizeof one.grad));
        }
    }
    tg_free_program(p);
}

typedef struct {
    const tg_program *program;
    const result *expected;
} task;

static void *replay_often(void *context)
{
    const task *t = context;
    result *r = malloc(sizeof *r);
    int bad = 0;
    for (int k = 0; k < 10; k++)
        bad |= replay(t->program, r, 1 + k % 3, k % 3 ? 1u << 20 : 5000, 2, 0, 0.0) ||
               memcmp(r, t->expected, sizeof *r);
    free(r);
    return bad ? context : NULL;
}

/* The pieces are found by whoever comes first. */
static void several_callers_share_a_program(void)
{
    int64_t code;
    tg_program *p = repeats(&code);
    static result expected;
    task t = {p, &expected};
    pthread_t callers[3];
    CHECK(replay(p, &expected, 1, UINT64_MAX, 2, 0, 0.0) == TG_OK);
    for (int k = 0; k < 3; k++)
        CHECK(!pthread_create(callers + k, NULL, replay_often, &t));
    for (int k = 0; k < 3; k++) {
        void *failed = &t;
        CHECK(!pthread_join(callers[k], &failed) && !failed);
    }
    tg_free_program(p);
}

static void a_fork_has_threads_of_its_own(void)
{
    int64_t code;
    tg_program *p = shared(repeats(&code));
    static result one, other;
    int status = 1;
    pid_t child;
    CHECK(replay(p, &one, 1, UINT64_MAX, 2, 0, 0.0) == TG_OK);
    CHECK(replay(p, &other, 2, UINT64_MAX, 2, 0, 0.0) == TG_OK && !memcmp(&one, &other, sizeof one));
    fflush(stdout);
    child = fork();
    if (!child) {
        alarm(60);
        status = replay(p, &other, 2, UINT64_MAX, 2, 0, 0.0) || memcmp(&one, &other, sizeof one);
        tg_dismiss_crew();
        tg_free_program(p);
        _exit(status);
    }
    CHECK(replay(p, &other, 2, UINT64_MAX, 2, 0, 0.0) == TG_OK && !memcmp(&one, &other, sizeof one));
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    tg_free_program(p);
}

/* Fail each allocation in turn: it goes on fewer threads, or a code comes back, and the next try is good. */
static void every_allocation_may_fail(tg_program *make(int64_t *code))
{
    int64_t code;
    tg_program *p = shared(make(&code));
    static result one, other;
    CHECK(replay(p, &one, 1, UINT64_MAX, 3, 0, 0.0) == TG_OK);
    for (int n = 1; n < 60; n += 1 + 2 * few) {
        tg_program *fresh = n % 4 ? p : make(&code);
        tg_fail_allocation((uint64_t)n);
        code = replay(fresh, &other, 3, UINT64_MAX, 3, 0, 0.0);
        tg_fail_allocation(0);
        CHECK(n == 1 ? code == TG_MEMORY : code == TG_OK && !memcmp(&one, &other, sizeof one));
        if (fresh != p)
            tg_free_program(fresh);
    }
    tg_free_program(p);
}

int main(int argc, char **argv)
{
    few = argc > 1 && !strcmp(argv[1], "few");
    for (int k = 0; k < OUTPUTS; k++)
        seeds[k] = 1.0 + 0.1 * k;
    any_number_of_threads_gives_the_same_bits();
    sums_of_what_many_pieces_make_have_the_same_bits();
    running_totals_have_the_same_bits();
    the_first_failure_is_told_whoever_has_it();
    several_callers_share_a_program();
    a_fork_has_threads_of_its_own();
    every_allocation_may_fail(repeats);
    every_allocation_may_fail(two_sums);
    shape = READ;
    every_allocation_may_fail(running);
    tg_dismiss_crew();
    return summary();
}
