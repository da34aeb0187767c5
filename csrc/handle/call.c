#include "call.h"
#include "crew.h"
#include "matrix.h"
#include "recording.h"
#include "wide/share.h"

#include <stdlib.h>
#include <string.h>

typedef struct tg_replay replay;

#define HELD_MOST (1u << 14)    /* additions that a replay takes without releasing the GIL: some 50 us */
#define KEPT_MOST (1u << 26)    /* bytes of a job that is kept; those of its instructions where they are more */

static const struct {
    int seed, tangents, keep, scalar, work;     /* of its job; whether of one number; about as many times what the value
                                                   takes, in each block of directions of a matrix */
} kinds[TG_KINDS] = {
    [TG_VALUE] = {0, 0, 0, 0, 1}, [TG_VALUE_AND_GRAD] = {1, 0, 0, 1, 3}, [TG_GRAD] = {1, 0, 0, 1, 3},
    [TG_JVP] = {0, 1, 0, 0, 2}, [TG_HVP] = {1, 1, 0, 1, 8},
    [TG_A_JACOBIAN] = {0, 0, 1, 0, 2}, [TG_A_HESSIAN] = {0, 0, 1, 1, 4},
};

static const double one = 1.0;

/* Inputs are written into the slots of a job, and derivatives are read there. */
struct tg_replay {
    replay *next;               /* of those that are idle */
    tg_path *path;
    tg_call_kind kind;
    tg_job job;
    uint32_t failed, lives;
    double *out;                /* the outputs, then their tangents where there are any; then kept primals */
};

/* ---- jobs ---- */

static void drop_replay(replay *r)
{
    tg_finish(&r->job);
    free(r->out);
    free(r);
}

/* An idle job, or a new one; NULL with an exception. */
static replay *take(tg_path *path, tg_call_kind kind, int nan_errors)
{
    const uint32_t n_out = path->program->n_out, n_kept = kinds[kind].keep ? path->program->n_kept : 0;
    replay *r = path->idle[kind];
    tg_job *j;
    if (r) {
        path->idle[kind] = r->next;
        return r;
    }
    r = tg_zeroed(sizeof *r);
    if (!r)
        return (replay *)PyErr_NoMemory();
    r->path = path;
    r->kind = kind;
    r->out = tg_zeroed((2 * (size_t)n_out + n_kept) * sizeof *r->out);
    j = &r->job;
    j->program = path->program;
    j->native = path->native;
    j->seed = kinds[kind].seed ? &one : NULL;
    j->out = r->out;
    j->out_tangent = kind == TG_JVP ? r->out + n_out : NULL;
    j->out_stride = j->out_tangent_stride = n_out;
    j->failed = &r->failed;
    j->stop = 1;
    j->tangents = kinds[kind].tangents;
    j->nan_errors = nan_errors;
    j->keep = r->out && kinds[kind].keep ? r->out + 2 * (size_t)n_out : NULL;
    j->lives = &r->lives;
    if (!r->out || tg_start(j)) {
        drop_replay(r);
        return (replay *)PyErr_NoMemory();
    }
    if (j->keep) {
        j->primal = j->keep;
        j->bytes += n_kept * sizeof *j->keep;
    }
    return r;
}

static void give_back(replay *r)
{
    tg_path *path = r->path;
    const uint64_t own = path->program->n_instr * (uint64_t)sizeof(tg_instr);
    if (r->job.bytes > (own > KEPT_MOST ? own : KEPT_MOST)) {
        drop_replay(r);
        return;
    }
    r->next = path->idle[r->kind];
    path->idle[r->kind] = r;
}

/* The slots of the inputs, of primals or of derivatives. */
static double *inputs(const replay *r, double *slots) { return slots + r->path->program->n_const; }

/* Whether so much work is done before another thread would get the GIL. */
static int is_short(const tg_path *path, uint64_t times) { return path->cost * times <= HELD_MOST; }

/* Carry out a job. 0; 1 + the instruction that would not do as recorded; -1 with an exception that a signal raised, and
   then the job is no good. */
static int64_t carry_out(replay *r)
{
    tg_job *j = &r->job;
    const size_t n = j->program->n_in;
    int more = 1;
    tg_again(j);
    r->failed = 0;
    if (kinds[r->kind].seed)                            /* what the last call left there */
        tg_copy_together(tg_threads(), inputs(r, j->adj), NULL, n);
    if (kinds[r->kind].seed && kinds[r->kind].tangents)
        tg_copy_together(tg_threads(), inputs(r, j->adj_tangent), NULL, n);
    if (is_short(r->path, (uint64_t)kinds[r->kind].work))
        tg_run(j, UINT64_MAX);
    else
        while (more) {
            Py_BEGIN_ALLOW_THREADS
            more = tg_run(j, r->path->slice);
            Py_END_ALLOW_THREADS
            if (more && PyErr_CheckSignals())
                return -1;
        }
    return r->failed;
}

/* ---- what is known of a program ---- */

void tg_let_go_known(tg_known *p)
{
    if (!p || --p->users)
        return;
    for (Py_ssize_t k = 0; k < p->n_paths; k++)
        for (int kind = 0; kind < TG_KINDS; kind++)
            while (p->path[k].idle[kind]) {
                replay *r = p->path[k].idle[kind];
                p->path[k].idle[kind] = r->next;
                drop_replay(r);
            }
    free(p->mapped);
    tg_drop_form(&p->args);
    tg_drop_form(&p->params);
    tg_drop_form(&p->out);
    free(p->path);
    free(p->first);
    Py_XDECREF(p->told);
    free(p);
}

static int make_forms(tg_known *p, PyObject *args, PyObject *params, PyObject *out)
{
    if (!tg_make_form(&p->args, args) || !tg_make_form(&p->params, params) || !tg_make_form(&p->out, out))
        return 0;
    p->first = tg_zeroed(((size_t)p->args.length + 1) * sizeof *p->first);
    if (!p->first) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t k = 0; k < p->args.length; k++)
        p->first[k + 1] = p->first[k] + tg_form_of(p, k)->size;
    return 1;
}

static int make_paths(tg_known *p, PyObject *paths)
{
    const Py_ssize_t n = PyTuple_Size(paths);
    p->path = tg_zeroed((size_t)n * sizeof *p->path + 1);
    if (!p->path) {
        PyErr_NoMemory();
        return 0;
    }
    for (p->n_paths = 0; p->n_paths < n; p->n_paths++) {
        tg_path *path = p->path + p->n_paths;
        unsigned long long program, native, cost, slice;
        if (!PyArg_ParseTuple(PyTuple_GetItem(paths, p->n_paths), "KKKK", &program, &native, &cost, &slice))
            return 0;
        path->program = (const tg_program *)(uintptr_t)program;
        path->native = (const tg_native *)(uintptr_t)native;
        path->cost = cost;
        path->slice = slice;
        if (p->args.size + p->params.size != path->program->n_in || p->out.size != path->program->n_out) {
            PyErr_SetString(PyExc_ValueError, "the forms do not have the numbers of the program");
            return 0;
        }
    }
    return 1;
}

/* How it is mapped over rows, where it is. */
static int make_mapped(tg_known *p, PyObject *mapped)
{
    const Py_ssize_t n = p->args.length;
    PyObject *each;
    if (mapped == Py_None)
        return 1;
    p->mapped = tg_zeroed((size_t)n + 1);
    if (!p->mapped) {
        PyErr_NoMemory();
        return 0;
    }
    if (!PyArg_ParseTuple(mapped, "O!iK", &PyTuple_Type, &each, &p->reduce, &p->threads) || PyTuple_Size(each) != n)
        return 0;
    for (Py_ssize_t k = 0; k < n; k++)
        p->mapped[k] = PyTuple_GetItem(each, k) == Py_True;
    return 1;
}

tg_known *tg_make_known(PyObject *told)
{
    PyObject *holds, *paths, *args, *params, *out, *mapped;
    tg_known *p = tg_zeroed(sizeof *p);
    if (!p)
        return (tg_known *)PyErr_NoMemory();
    p->users = 1;
    Py_INCREF(told);
    p->told = told;
    if (PyArg_ParseTuple(told, "OO!O!nO!O!O!pOOOO", &holds, &PyTuple_Type, &paths, &PyList_Type, &p->compiled,
                         &p->n_compiled, &PyList_Type, &p->paths, &PyDict_Type, &p->children, &PyList_Type, &p->values,
                         &p->nan_errors, &args, &params, &out, &mapped) &&
        make_forms(p, args, params, out) && make_paths(p, paths) && make_mapped(p, mapped))
        return p;
    tg_let_go_known(p);
    return NULL;
}

/* The path that goes on where path k stops: -1 where none is known here, or with an exception. */
static Py_ssize_t way_on(const tg_known *p, Py_ssize_t k, int64_t at)
{
    PyObject *key = Py_BuildValue("nL", k, (long long)at), *child;
    child = key ? PyDict_GetItemWithError(p->children, key) : NULL;
    k = child ? PyLong_AsSsize_t(child) : -1;
    Py_XDECREF(key);
    return k < p->n_paths ? k : -1;
}

/* ---- numbers in ---- */

/* v of `hvp` stands between the arguments. */
static PyObject *argument(tg_call_kind kind, PyObject *const *given, Py_ssize_t k)
{
    return given[k + (kind == TG_HVP && k > 0)];
}

int tg_read_params(const tg_known *p, double *to)
{
    const Py_ssize_t n = p->params.length;
    int values;
    if (PyList_Size(p->values) != n || (n && (T->recorders || tg_as_numbers())))    /* who is told that they are read */
        return 0;
    values = n && is_value(PyList_GetItem(p->values, 0));
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *x = PyList_GetItem(p->values, k);
        if (values ? !is_value(x) || ((Value *)x)->id == TG_NONE : !PyFloat_CheckExact(x))
            return 0;
        to[k] = values ? T->data[((Value *)x)->id] : PyFloat_AsDouble(x);
    }
    return 1;
}

static int read_args(const tg_known *p, tg_call_kind kind, PyObject *const *given, double *to)
{
    if (kind == TG_JVP)
        return tg_read_form(&p->args, given[0], to);
    for (Py_ssize_t k = 0; k < p->args.length; k++)
        if (!tg_read_form(tg_form_of(p, k), argument(kind, given, k), to + p->first[k]))
            return 0;
    return 1;
}

/* What the derivatives are along. */
static int read_tangents(const tg_known *p, tg_call_kind kind, PyObject *const *given, Py_ssize_t by, double *to)
{
    if (!kinds[kind].tangents)
        return 1;
    memset(to, 0, (p->args.size + p->params.size) * sizeof *to);
    return kind == TG_JVP ? tg_read_form(&p->args, given[1], to)
                          : tg_read_form(tg_form_of(p, by), given[1], to + p->first[by]);
}

/* ---- results out ---- */

Py_ssize_t tg_chosen(const tg_known *p, PyObject *argnum)
{
    const Py_ssize_t n = p->args.length;
    Py_ssize_t k = n;
    if (PyLong_CheckExact(argnum)) {
        k = PyLong_AsSsize_t(argnum);
        if (k == -1 && PyErr_Occurred()) {              /* too large */
            PyErr_Clear();
            return -1;
        }
        if (k < -n || k >= n)
            return -1;
        k = k < 0 ? k + n : k;
    } else if (!PyUnicode_CheckExact(argnum) || PyUnicode_CompareWithASCIIString(argnum, "params") || !p->params.length)
        return -1;
    return tg_form_of(p, k)->kind == TG_A_STATIC ? -1 : k;
}

int tg_can_choose(const tg_known *p, PyObject *argnums)
{
    if (!PyTuple_CheckExact(argnums))
        return tg_chosen(p, argnums) >= 0;
    for (Py_ssize_t k = 0; k < PyTuple_Size(argnums); k++)
        if (tg_chosen(p, PyTuple_GetItem(argnums, k)) < 0)
            return 0;
    return 1;
}

/* The derivatives by what argnums names, as the arguments came. */
static PyObject *derivatives(const tg_known *p, tg_call_kind kind, PyObject *argnums, PyObject *const *given,
                             const double *by_input)
{
    PyObject *made;
    if (!PyTuple_CheckExact(argnums)) {
        const Py_ssize_t k = tg_chosen(p, argnums);
        PyObject *x = k < p->args.length ? argument(kind, given, k) : NULL;
        return tg_build_form(tg_form_of(p, k), x, by_input + p->first[k]);
    }
    made = PyTuple_New(PyTuple_Size(argnums));
    for (Py_ssize_t k = 0; made && k < PyTuple_Size(argnums); k++) {
        PyObject *part = derivatives(p, kind, PyTuple_GetItem(argnums, k), given, by_input);
        if (!part || PyTuple_SetItem(made, k, part))
            Py_CLEAR(made);
    }
    return made;
}

PyObject *tg_both(PyObject *a, PyObject *b)
{
    PyObject *both = a && b ? PyTuple_New(2) : NULL;
    if (!both) {
        Py_XDECREF(a);
        Py_XDECREF(b);
        return NULL;
    }
    PyTuple_SetItem(both, 0, a);
    PyTuple_SetItem(both, 1, b);
    return both;
}

/* Fill a matrix. 0; -1 with an exception. */
static int carry_out_matrix(const tg_path *path, tg_matrix *m, int work)
{
    const uint64_t blocks = 1 + (uint64_t)m->count / (uint64_t)tg_lanes, slice = path->slice / (uint64_t)tg_lanes;
    int more = 1;
    if (tg_matrix_start(m)) {
        PyErr_NoMemory();
        return -1;
    }
    if (is_short(path, (uint64_t)work * blocks))
        more = tg_matrix_run(m, UINT64_MAX);
    while (more) {
        Py_BEGIN_ALLOW_THREADS
        more = tg_matrix_run(m, slice ? slice : 1);
        Py_END_ALLOW_THREADS
        if (more && PyErr_CheckSignals())
            break;
    }
    tg_matrix_finish(m);
    return more ? -1 : 0;
}

/* The derivatives, by what argnums names, of the outputs, or of the gradient by it, at the point of a job. */
static PyObject *matrix(const tg_known *p, tg_call_kind kind, const replay *r, PyObject *argnums,
                        PyObject *const *given)
{
    const Py_ssize_t by = tg_chosen(p, argnums);
    const tg_form *f = tg_form_of(p, by);
    PyObject *x = by < p->args.length ? given[by] : NULL, *made = NULL;
    const int second = kind == TG_A_HESSIAN, in_reverse = second || p->out.size <= f->size;
    tg_rows rows = {.out = second ? f : &p->out, .by = f, .like_out = second ? x : NULL, .like_by = x};
    tg_feed feed = {.first = (uint32_t)p->first[by], .count = (uint32_t)f->size, .grad_stride = (int64_t)f->size};
    tg_matrix m = {
        .program = r->path->program, .primal = r->job.primal, .seed = &one, .how = TG_HESSIAN, .first = feed.first,
        .count = feed.count, .feed = &feed, .n_feeds = in_reverse, .out_stride = feed.grad_stride,
    };
    if (!second)
        m.how = in_reverse ? TG_ROWS : TG_COLUMNS;
    if (m.how == TG_ROWS) {
        m.first = 0;
        m.count = (uint32_t)p->out.size;
    }
    if (!tg_open_rows(&rows))
        return NULL;
    m.out = feed.grad = rows.entries;
    if (!carry_out_matrix(r->path, &m, kinds[kind].work))
        made = tg_build_rows(&rows);
    tg_close_rows(&rows);
    return made;
}

/* A value that is an array is written where it is to stay: 1, and close them if there are entries; 0 with an exception,
   and without one where NumPy is not there. */
static int open_out(const tg_known *p, tg_call_kind kind, tg_rows *rows)
{
    static const tg_form number = {.kind = TG_A_NUMBER, .size = 1};
    rows->entries = NULL;
    if (kind != TG_VALUE || p->out.kind != TG_AN_ARRAY || !p->out.size)
        return 1;
    rows->out = &p->out;
    rows->by = &number;
    rows->like_out = rows->like_by = NULL;
    return tg_open_rows(rows);
}

static PyObject *result(const tg_known *p, tg_call_kind kind, const replay *r, PyObject *argnums,
                        PyObject *const *given)
{
    PyObject *first = kind > TG_JVP || kind == TG_GRAD ? NULL : tg_build_form(&p->out, NULL, r->out);
    switch (kind) {
    case TG_VALUE: return first;
    case TG_JVP: return first ? tg_both(first, tg_build_form(&p->out, NULL, r->out + p->out.size)) : NULL;
    case TG_HVP: return derivatives(p, kind, argnums, given, inputs(r, r->job.adj_tangent));
    case TG_GRAD: return derivatives(p, kind, argnums, given, inputs(r, r->job.adj));
    case TG_A_JACOBIAN:
    case TG_A_HESSIAN: return matrix(p, kind, r, argnums, given);
    default: return first ? tg_both(first, derivatives(p, kind, argnums, given, inputs(r, r->job.adj))) : NULL;
    }
}

/* ---- the call ---- */

/* A job of path k with its inputs from one of another path, which is given back, or as they were given. NULL with an
   exception, and without one where this is not for here. */
static replay *ready(tg_known *p, Py_ssize_t k, replay *before, tg_call_kind kind, PyObject *const *given,
                     Py_ssize_t by)
{
    replay *r = take(p->path + k, kind == TG_GRAD ? TG_VALUE_AND_GRAD : kind, p->nan_errors);
    const size_t bytes = (p->args.size + p->params.size) * sizeof(double);
    double *in = r ? inputs(r, r->job.primal) : NULL, *tangent = r ? inputs(r, r->job.tangent) : NULL;
    if (before) {
        if (r)
            memcpy(in, inputs(before, before->job.primal), bytes);
        if (r && kinds[kind].tangents)
            memcpy(tangent, inputs(before, before->job.tangent), bytes);
        give_back(before);
    } else if (r && !(read_args(p, kind, given, in) && tg_read_params(p, in + p->args.size) &&
                      read_tangents(p, kind, given, by, tangent))) {
        give_back(r);
        r = NULL;
    }
    return r;
}

PyObject *tg_call(tg_known *p, tg_call_kind kind, PyObject *const *given, Py_ssize_t n, PyObject *argnums)
{
    const int one_alone = kind == TG_HVP || kinds[kind].keep;       /* of argnums */
    const Py_ssize_t by = one_alone ? tg_chosen(p, argnums) : 0;
    PyObject *made = NULL;
    replay *r = NULL;
    tg_rows out;
    if (n != (kind == TG_JVP ? 2 : p->args.length + (kind == TG_HVP)) || by < 0 ||
        (kinds[kind].scalar && p->out.kind != TG_A_NUMBER) || (kinds[kind].seed && !tg_can_choose(p, argnums)) ||
        (kinds[kind].keep && (!p->out.size || !tg_form_of(p, by)->size)))
        return NULL;
    if (!open_out(p, kind, &out))
        return NULL;
    for (Py_ssize_t k = 0; k >= 0 && (r = ready(p, k, r, kind, given, by)) != NULL;) {
        int64_t stopped;
        r->job.out = out.entries ? out.entries : r->out;
        stopped = carry_out(r);
        if (stopped < 0) {
            drop_replay(r);
            r = NULL;
            break;
        }
        if (!stopped) {
            made = out.entries ? tg_build_rows(&out) : result(p, kind, r, argnums, given);
            break;
        }
        k = way_on(p, k, stopped - 1);
    }
    if (r)
        give_back(r);
    if (out.entries)
        tg_close_rows(&out);
    return made;
}
