/*  The partials of the table, from their texts to steps for a stack: read once, and followed by who records a sweep.

    A function of one row's primal becomes that row, a formula of formulas.def what it says; `?:` becomes a choice. A
    text that is not understood becomes nan, which no test of a row takes for its slope.  */
#include "partials.h"
#include "ops.h"

#include <ctype.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PARTS 4096

static tg_part parts[MOST_PARTS + 1];  /* the first is nan: that of a text that was not understood */
static uint16_t first_part[TG_OPS][TG_PARTIALS], part_count[TG_OPS][TG_PARTIALS];
static uint16_t n_parts;            /* 0 until the table was read */
static int misread;

static const struct {
    const char *name, *text;
} formulas[] = {
#define TG_FORMULA1(name, a, text) {#name, #a "=" #text},
#define TG_FORMULA2(name, a, b, text) {#name, #a #b "=" #text},
#define TG_FORMULA3(name, a, b, y, text) {#name, #a #b #y "=" #text},
#include "formulas.def"
};

/* What is left to read, and what a, b and y of it stand for. */
typedef struct {
    const char *at;
    char stands[3];
} reader;

static void expression(reader *r);
static void whole(reader *r);

static int ahead(reader *r, const char *token)
{
    size_t n = strlen(token);
    while (isspace((unsigned char)*r->at))
        r->at++;
    if (strncmp(r->at, token, n))
        return 0;
    r->at += n;
    return 1;
}

static void expect(reader *r, const char *token) { misread |= !ahead(r, token); }

static void put(int what, int op, double k)
{
    if (n_parts < MOST_PARTS)
        parts[n_parts++] = (tg_part){.what = (uint8_t)what, .op = (uint8_t)op, .k = k};
    else
        misread = 1;
}

/* The place of a, b or y in stands. */
static int place(char letter)
{
    misread |= letter != 'a' && letter != 'b' && letter != 'y';
    return letter == 'a' ? 0 : letter == 'b' ? 1 : 2;
}

int tg_is_unary(int op)
{
    switch (op) {
#define TG_UNARY(NAME, ...) case TG_##NAME: return 1;
#define TG_PASSIVE(NAME, ...)
#include "ops.def"
    default: return 0;
    }
}

/* The row whose primal is name(a) or name(a, b), or 0. */
static int row_of(const char *name, size_t n)
{
    for (int op = TG_NODE + 1; op < TG_OPS; op++) {
        const char *primal = tg_ops[op].primal;
        if (!tg_is_many(op) && !strncmp(primal, name, n) &&
            (!strcmp(primal + n, "(a)") || !strcmp(primal + n, "(a, b)")))
            return op;
    }
    return 0;
}

static void call(reader *r, const char *name, size_t n)
{
    int op = row_of(name, n);
    if (op) {
        expression(r);
        while (ahead(r, ","))
            expression(r);
        expect(r, ")");
        put(TG_PART_ROW, op, 0.0);
        return;
    }
    for (size_t k = 0; k < sizeof formulas / sizeof *formulas; k++)
        if (strlen(formulas[k].name) == n && !memcmp(formulas[k].name, name, n)) {
            const char *takes = formulas[k].text, *text = strchr(takes, '=') + 1;
            reader inner = {text, {0}};
            for (; *takes != '='; takes++) {            /* its operands are a, b or y of ours */
                while (isspace((unsigned char)*r->at))
                    r->at++;
                inner.stands[place(*takes)] = r->stands[place(*r->at)];
                r->at += *r->at != 0;
                if (takes[1] != '=')
                    expect(r, ",");
            }
            expect(r, ")");
            whole(&inner);
            return;
        }
    misread = 1;
}

/* Digits with a point, which strtod takes as the locale writes it. */
static double digits(reader *r)
{
    const char *point = localeconv()->decimal_point;
    char text[64];
    size_t n = 0;
    for (; isdigit((unsigned char)*r->at) || *r->at == '.'; r->at++) {
        size_t more = *r->at == '.' ? strlen(point) : 1;
        if (n + more >= sizeof text) {
            misread = 1;
            return 0.0;
        }
        memcpy(text + n, *r->at == '.' ? point : r->at, more);
        n += more;
    }
    text[n] = 0;
    return strtod(text, NULL);
}

static void primary(reader *r)
{
    const char *start;
    size_t n = 0;
    if (ahead(r, "(")) {
        expression(r);
        expect(r, ")");
        return;
    }
    start = r->at;
    if (isdigit((unsigned char)*start)) {
        put(TG_PART_NUMBER, 0, digits(r));
        return;
    }
    while (isalnum((unsigned char)start[n]) || start[n] == '_')
        n++;
    r->at += n;
    if (n == 1)
        put(TG_PART_OPERAND, r->stands[place(*start)], 0.0);
    else if (ahead(r, "("))
        call(r, start, n);
    else
        misread = 1;
}

static void negated(reader *r)
{
    if (ahead(r, "-")) {
        negated(r);
        put(TG_PART_ROW, TG_NEG, 0.0);
    } else
        primary(r);
}

static void product(reader *r)
{
    negated(r);
    for (;;) {
        int op = ahead(r, "*") ? TG_MUL : ahead(r, "/") ? TG_DIV : 0;
        if (!op)
            return;
        negated(r);
        put(TG_PART_ROW, op, 0.0);
    }
}

static void sum(reader *r)
{
    product(r);
    for (;;) {
        int op = ahead(r, "+") ? TG_ADD : ahead(r, "-") ? TG_SUB : 0;
        if (!op)
            return;
        product(r);
        put(TG_PART_ROW, op, 0.0);
    }
}

static void comparison(reader *r)
{
    int op;
    sum(r);
    op = ahead(r, "<=") ? TG_LESS_EQUAL : ahead(r, ">=") ? TG_GREATER_EQUAL : ahead(r, "<") ? TG_LESS
       : ahead(r, ">") ? TG_GREATER : ahead(r, "==") ? TG_EQUAL : ahead(r, "!=") ? TG_NOT_EQUAL : 0;
    if (op) {
        sum(r);
        put(TG_PART_ROW, op, 0.0);
    }
}

static void both(reader *r)
{
    comparison(r);
    while (ahead(r, "&&")) {
        comparison(r);
        put(TG_PART_ROW, TG_MUL, 0.0);
    }
}

static void either(reader *r)
{
    both(r);
    while (ahead(r, "||")) {
        both(r);
        put(TG_PART_ROW, TG_MAX, 0.0);
    }
}

static void expression(reader *r)
{
    either(r);
    if (ahead(r, "?")) {
        tg_part *test = parts + n_parts;
        put(TG_PART_TEST, 0, 0.0);
        expression(r);
        test->yes = (uint16_t)(parts + n_parts - test - 1);
        expect(r, ":");
        expression(r);
        test->no = (uint16_t)(parts + n_parts - test - 1 - test->yes);
        put(TG_PART_CHOICE, 0, 0.0);
    }
}

static void whole(reader *r)
{
    expression(r);
    misread |= *r->at != 0;
}

/* Whether steps leave one result, and the stack holds what they need on the way. */
static int fit(const tg_part *p, const tg_part *end)
{
    int n = 0;
    for (; p < end; p++) {
        n += p->what == TG_PART_CHOICE ? -2 : p->what == TG_PART_ROW ? -!tg_is_unary(p->op) : p->what != TG_PART_TEST;
        if (n < 1 || n > TG_DEEPEST_PARTIAL)
            return 0;
    }
    return n == 1;
}

void tg_read_partials(void)
{
    if (n_parts)
        return;
    put(TG_PART_NUMBER, 0, NAN);
    for (int op = TG_NODE + 1; op < TG_OPS; op++)
        for (int k = 0; k < TG_PARTIALS && op != TG_WHERE; k++) {
            const tg_op_info *row = tg_ops + op;
            const char *const texts[TG_PARTIALS] = {row->da, row->db, row->daa, row->dab, row->dbb};
            reader r = {texts[k], {0, 1, 2}};
            const uint16_t first = n_parts;
            misread = 0;
            if (!*r.at)
                continue;
            whole(&r);
            if (misread || !fit(parts + first, parts + n_parts))
                n_parts = first;
            first_part[op][k] = n_parts > first ? first : 0;
            part_count[op][k] = n_parts > first ? n_parts - first : 1;
        }
}

const tg_part *tg_partial(int op, int k, uint32_t *count)
{
    tg_read_partials();
    *count = part_count[op][k];
    return parts + first_part[op][k];
}

/* ---- followed ---- */

static tg_scalar follow(const tg_maker *m, void *to, const tg_part *p, const tg_part *end, const tg_scalar named[3])
{
    tg_scalar stack[TG_DEEPEST_PARTIAL];
    int n = 0;
    for (; p < end; p++)
        switch (p->what) {
        case TG_PART_NUMBER: stack[n++] = tg_number(p->k); break;
        case TG_PART_OPERAND: stack[n++] = named[p->op]; break;
        case TG_PART_TEST:
            if (!stack[n - 1].is_node) {
                const tg_part *yes = p + 1, *no = yes + p->yes, *choice = no + p->no;
                stack[n - 1] = stack[n - 1].k != 0.0 ? follow(m, to, yes, no, named) : follow(m, to, no, choice, named);
                p = choice;
            }
            break;
        case TG_PART_CHOICE:
            n -= 2;
            stack[n - 1] = m->choose(to, stack[n - 1], stack[n], stack[n + 1]);
            break;
        default:
            n -= !tg_is_unary(p->op);
            stack[n - 1] = m->apply(to, p->op, stack[n - 1], stack[tg_is_unary(p->op) ? n - 1 : n]);
        }
    return stack[0];
}

tg_scalar tg_follow(const tg_maker *m, void *to, int op, int partial, const tg_scalar named[3])
{
    uint32_t count;
    const tg_part *first = tg_partial(op, partial, &count);
    return follow(m, to, first, first + count, named);
}

tg_scalar tg_weighed(const tg_maker *m, void *to, tg_scalar g, tg_scalar partial)
{
    if (tg_is_number(partial, 1.0) || tg_is_number(partial, 0.0))
        return partial.k == 0.0 ? partial : g;
    if (tg_is_number(partial, -1.0))
        return m->apply(to, TG_NEG, g, g);
    return m->apply(to, !g.is_node || (!partial.is_node && isfinite(partial.k)) ? TG_MUL : TG_WEIGH, g, partial);
}
