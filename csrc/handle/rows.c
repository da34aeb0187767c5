#include "rows.h"
#include "batch.h"

#include <stdlib.h>

/* An argument, or the params: where it is read, and where derivatives by it go. An array of rows is used where it is,
   and one of derivatives is written where it stays; what all rows share is copied, and its derivatives are added up. */
typedef struct {
    Py_buffer in, by;           /* of arrays of rows; obj: NULL where there is none */
    PyObject *slopes;           /* the array of derivatives */
    tg_feed feed;
    int wanted;
} part;

typedef struct {
    const tg_known *known;
    Py_ssize_t rows, n;         /* rows: -1 until an array is there; n: parts */
    part *parts;
    double *shared;             /* by input: what is shared, then sums of derivatives, then of the outputs */
    uint32_t *failed;
    PyObject *values;           /* the array of them, where they are not reduced */
    Py_buffer out;
} call;

/* ---- in ---- */

/* The parts that are wanted; 0: one of them more than once, or not as one number or array a row. */
static int note_wanted(call *c, PyObject *argnums)
{
    const int several = PyTuple_CheckExact(argnums);
    for (Py_ssize_t i = 0; i < (several ? PyTuple_Size(argnums) : 1); i++) {
        const Py_ssize_t k = tg_chosen(c->known, several ? PyTuple_GetItem(argnums, i) : argnums);
        if (k < 0 || c->parts[k].wanted || (!c->known->reduce && (k == c->n - 1 || !c->known->mapped[k])))
            return 0;
        c->parts[k].wanted = 1;
    }
    return 1;
}

/* Read what was given: 1; 0 where this is not for here. */
static int read_parts(call *c, PyObject *const *given)
{
    const tg_known *p = c->known;
    for (Py_ssize_t k = 0; k < c->n; k++) {
        const tg_form *f = tg_form_of(p, k);
        part *one = c->parts + k;
        double *to = c->shared + p->first[k];
        one->feed = (tg_feed){.first = (uint32_t)p->first[k], .count = (uint32_t)f->size, .in = to};
        if (k == p->args.length) {
            if (!tg_read_params(p, to))
                return 0;
        } else if (!p->mapped[k]) {
            if (!tg_read_form(f, given[k], to))
                return 0;
        } else {
            if (!tg_open_array_of(f, given[k], &one->in))
                return 0;
            if (c->rows >= 0 && one->in.shape[0] != c->rows)
                return 0;
            c->rows = one->in.shape[0];
            one->feed.in = one->in.buf;
            one->feed.in_stride = (int64_t)f->size;
        }
    }
    return c->rows > 0;
}

/* ---- out ---- */

/* Arrays for what there is of each row: 1; 0 with an exception, and without one where this is not for here. */
static int make_arrays(call *c)
{
    const tg_known *p = c->known;
    if (!p->reduce && !(c->values = tg_new_array_of(&p->out, c->rows, &c->out)))
        return 0;
    for (Py_ssize_t k = 0; k < c->n; k++) {
        part *one = c->parts + k;
        if (!one->wanted)
            continue;
        one->feed.grad = c->shared + p->args.size + p->params.size + p->first[k];
        if (k < p->args.length && p->mapped[k]) {
            one->slopes = tg_new_array_of(tg_form_of(p, k), c->rows, &one->by);
            if (!one->slopes)
                return 0;
            one->feed.grad = one->by.buf;
            one->feed.grad_stride = one->feed.in_stride;
        }
    }
    return 1;
}

static PyObject *slopes(const call *c, PyObject *argnum, PyObject *const *given)
{
    const Py_ssize_t k = tg_chosen(c->known, argnum);
    const part *one = c->parts + k;
    if (one->slopes)
        return Py_NewRef(one->slopes);
    return tg_build_form(tg_form_of(c->known, k), k < c->n - 1 ? given[k] : NULL, one->feed.grad);
}

static PyObject *all_slopes(const call *c, PyObject *argnums, PyObject *const *given)
{
    PyObject *made;
    if (!PyTuple_CheckExact(argnums))
        return slopes(c, argnums, given);
    made = PyTuple_New(PyTuple_Size(argnums));
    for (Py_ssize_t i = 0; made && i < PyTuple_Size(argnums); i++) {
        PyObject *one = slopes(c, PyTuple_GetItem(argnums, i), given);
        if (!one || PyTuple_SetItem(made, i, one))
            Py_CLEAR(made);
    }
    return made;
}

static PyObject *result(const call *c, tg_call_kind kind, double *out, PyObject *argnums, PyObject *const *given)
{
    const tg_known *p = c->known;
    PyObject *value;
    if (kind == TG_GRAD)
        return all_slopes(c, argnums, given);
    for (size_t k = 0; p->reduce > 1 && k < p->out.size; k++)
        out[k] /= (double)c->rows;
    value = p->reduce ? tg_build_form(&p->out, NULL, out) : Py_NewRef(c->values);
    return kind == TG_VALUE || !value ? value : tg_both(value, all_slopes(c, argnums, given));
}

/* ---- the call ---- */

/* Carry out a job, whose failures are counted. 0; -1 with an exception. */
static int carry_out(call *c, tg_job *j, uint64_t *failures)
{
    const tg_path *path = c->known->path;
    const uint64_t slice = path->slice / (uint64_t)tg_lanes;
    tg_batch b = {.job = j, .budget = slice ? slice : 1, .seconds = tg_chunks.seconds};
    int code;
    tg_share_rows(&b, j->program, (uint64_t)c->rows, path->cost, c->known->threads);
    code = tg_start_batch(&b) ? TG_MEMORY : 1;
    while (code == 1) {
        Py_BEGIN_ALLOW_THREADS
        code = tg_run_batch(&b);
        Py_END_ALLOW_THREADS
        if (code == 1 && PyErr_CheckSignals())
            break;
    }
    tg_finish_batch(&b);
    *failures = b.failures;
    if (code && code != 1)
        PyErr_NoMemory();
    return code ? -1 : 0;
}

/* What the rows give, or NULL: as tg_call_rows. */
static PyObject *replay(call *c, tg_call_kind kind, PyObject *argnums, PyObject *const *given)
{
    const tg_known *p = c->known;
    const size_t n_in = p->args.size + p->params.size;
    const double seed = p->reduce > 1 ? 1.0 / (double)c->rows : 1.0;
    double *out = p->reduce ? c->shared + 2 * n_in : c->out.buf;
    tg_feed *feeds = tg_zeroed((size_t)c->n * sizeof *feeds);
    tg_job j = {
        .program = p->path->program, .native = p->path->native, .feed = feeds, .out = out, .failed = c->failed,
        .seed = kind == TG_VALUE ? NULL : &seed, .out_stride = p->reduce ? 0 : (int64_t)p->out.size,
        .stop = c->rows, .nan_errors = p->nan_errors,
    };
    uint64_t failures = 0;
    int code;
    if (!feeds)
        return PyErr_NoMemory();
    for (Py_ssize_t k = 0; k < c->n; k++)
        if (c->parts[k].feed.count)
            feeds[j.n_feeds++] = c->parts[k].feed;
    code = carry_out(c, &j, &failures);
    free(feeds);
    return code || failures ? NULL : result(c, kind, out, argnums, given);
}

static void finish(call *c)
{
    for (Py_ssize_t k = 0; c->parts && k < c->n; k++) {
        if (c->parts[k].in.obj)
            PyBuffer_Release(&c->parts[k].in);
        if (c->parts[k].slopes)
            PyBuffer_Release(&c->parts[k].by);
        Py_XDECREF(c->parts[k].slopes);
    }
    if (c->values)
        PyBuffer_Release(&c->out);
    Py_XDECREF(c->values);
    free(c->parts);
    free(c->shared);
    free(c->failed);
}

PyObject *tg_call_rows(tg_known *p, tg_call_kind kind, PyObject *const *given, Py_ssize_t n, PyObject *argnums)
{
    call c = {.known = p, .rows = -1, .n = p->args.length + 1};
    PyObject *made = NULL;
    if (kind > TG_GRAD || n != p->args.length ||        /* another kind: of Program's method, by hand */
        (!p->reduce && p->out.kind != TG_A_NUMBER && p->out.kind != TG_AN_ARRAY) ||
        (kind != TG_VALUE && (p->out.kind != TG_A_NUMBER || !tg_can_choose(p, argnums))))
        return NULL;
    c.parts = tg_zeroed((size_t)c.n * sizeof *c.parts);
    c.shared = tg_zeroed((2 * (p->args.size + p->params.size) + p->out.size + 1) * sizeof *c.shared);
    if (!c.parts || !c.shared)
        PyErr_NoMemory();
    else if ((kind == TG_VALUE || note_wanted(&c, argnums)) && read_parts(&c, given)) {
        c.failed = tg_zeroed((size_t)c.rows * sizeof *c.failed);
        if (!c.failed)
            PyErr_NoMemory();
        else if (make_arrays(&c))
            made = replay(&c, kind, argnums, given);
    }
    finish(&c);
    return made;
}
