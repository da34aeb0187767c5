/*  What the tests of the core share: checks that count, tapes of their own, records by short names.  */
#include <stdio.h>
#include <stdlib.h>

#include "ops.h"

static int failures, checks;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                     \
        }                                                                                                              \
    } while (0)

static tg_tape new_tape(void)
{
    return (tg_tape){.last_many = TG_NONE, .reclaim_at = 1u << 20, .pool_reclaim_at = 1u << 22};
}

static void free_tape(tg_tape *t)
{
    free(t->op), free(t->a), free(t->b), free(t->data), free(t->grad), free(t->owner), free(t->rule), free(t->pool);
    tg_free_adjoints(t);
    *t = new_tape();
}

static uint32_t leaf(tg_tape *t, double x) { return (uint32_t)tg_leaf(t, x); }
static uint32_t op(tg_tape *t, int o, uint32_t a, uint32_t b) { return (uint32_t)tg_record(t, o, a, b); }

/* Say how it went; the exit status. */
static int summary(void)
{
    printf("%d passed, %d failed\n", checks - failures, failures);
    return failures != 0;
}
