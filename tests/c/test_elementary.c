/*  The bits of csrc/elementary.h, which are to be the same for every compiler, option, C library and width: a sum over
    many arguments of each function, one at a time and in lanes, compared with the one that is written down.

    With "print" for an argument it prints elementary_sums.h: a change there is one of results that users see.  */
#include "elementary.h"

#include <stdio.h>

#define LANES 16
#define NEAR_BY 12000           /* arguments of everyday size, and of any bits at all */
#define ANY 4000

static uint64_t state;

static uint64_t drawn(void)
{
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* Of 2^-36 .. 2^11, both signs; squares and small whole numbers among them, for powers. */
static double everyday(void)
{
    const uint64_t bits = drawn(), e = 1023 - 36 + drawn() % 48;
    const double whole[] = {0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -3.0, 10.0};
    return drawn() % 16 ? tg_of_bits((bits & ~(0x7ffull << 52)) | e << 52) : whole[bits % 10];
}

static double argument(int k) { return k < NEAR_BY ? everyday() : tg_of_bits(drawn()); }

/* Of a nan the sign and the payload are the machine's. */
static uint64_t added(uint64_t sum, double y)
{
    return (sum ^ (y != y ? 0x7ff8000000000000ull : tg_bits(y))) * 0x100000001b3ull + (sum >> 29);
}

#define FUNCTIONS(X)                                                                                                   \
    X(exp, tg_exp(a)) X(expm1, tg_expm1(a)) X(log, tg_log(a)) X(log1p, tg_log1p(a)) X(tanh, tg_tanh(a))                \
    X(sigmoid, tg_sigmoid(a)) X(softplus, tg_softplus(a)) X(sin, tg_sin(a)) X(cos, tg_cos(a)) X(erf, tg_erf(a))        \
    X(sinh, tg_sinh(a)) X(cosh, tg_cosh(a)) X(pow, tg_pow(a, b))

#define EACH for (int l = 0; l < LANES; l++)
#define FUNCTION(name, text)                                                                                           \
    static void one_##name(double *y, const double *x, const double *z)                                                \
    {                                                                                                                  \
        const double a = *x, b = *z;                                                                                   \
        (void)b;                                                                                                       \
        *y = text;                                                                                                     \
    }                                                                                                                  \
    static void wide_##name(double *y, const double *x, const double *z)                                               \
    {                                                                                                                  \
        EACH {                                                                                                         \
            enum { tg_near_only = 1 };                                                                                 \
            const double a = x[l], b = z[l];                                                                           \
            (void)b;                                                                                                   \
            y[l] = text;                                                                                               \
        }                                                                                                              \
        EACH if (tg_is_far(x[l])) one_##name(y + l, x + l, z + l);                                                     \
    }
FUNCTIONS(FUNCTION)

static const struct {
    const char *name;
    void (*one)(double *, const double *, const double *);
    void (*wide)(double *, const double *, const double *);
    uint64_t sum;
} functions[] = {
#define ROW(name, text) {#name, one_##name, wide_##name, SUM_##name},
#include "elementary_sums.h"
    FUNCTIONS(ROW)
};

int main(int argc, char **argv)
{
    static double x[NEAR_BY + ANY], z[NEAR_BY + ANY], one[NEAR_BY + ANY], wide[NEAR_BY + ANY];
    const int n = NEAR_BY + ANY, print = argc > 1 && !strcmp(argv[1], "print");
    int failed = 0;
    for (int k = 0; k < n; k++)
        x[k] = argument(k), z[k] = argument(k);
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        uint64_t sum = 0, apart = 0;
        for (int k = 0; k < n; k++)
            functions[f].one(one + k, x + k, z + k);
        for (int k = 0; k < n; k += LANES)
            functions[f].wide(wide + k, x + k, z + k);
        for (int k = 0; k < n; k++) {
            sum = added(sum, one[k]);
            apart += added(0, one[k]) != added(0, wide[k]);
        }
        if (print)
            printf("#define SUM_%s 0x%016llxull\n", functions[f].name, (unsigned long long)sum);
        else if (apart || sum != functions[f].sum) {
            printf("%s: %llu lanes differ, sum 0x%016llx instead of 0x%016llx\n", functions[f].name,
                   (unsigned long long)apart, (unsigned long long)sum, (unsigned long long)functions[f].sum);
            failed = 1;
        }
    }
    if (!print)
        printf("%s\n", failed ? "other bits" : "the same bits");
    return failed;
}
