/*  What a program needs to know of its recording beyond the tape: what f asked of its numbers (comparisons, and what
    was refused), which line recorded which nodes, and what went past the tape.

    Recordings of one thread may lie within each other; the innermost is told. What another thread records meanwhile is
    marked as foreign: what that compared is not known here. While there is one anywhere, the tape has no room, so that
    every record takes the slow path, and keeps its nodes and their ids: what is dead may have been asked something.  */
#include "recording.h"

#include "frame.h"
#include "operands.h"

#include <pythread.h>
#include <stdlib.h>
#include <string.h>

/* What is known of an instruction. Its code is held by codes or skipped, so that no other comes to lie there. */
typedef struct {
    PyObject *code;             /* NULL: nothing yet */
    int at;                     /* f_lasti */
    uint32_t where;             /* or CALLER */
} instruction;

#define CALLER TG_FOREIGN       /* it stands for an operation: who called it counts */

typedef struct recording {
    struct recording *outer, *next;     /* of this thread; in the list of all */
    uint64_t thread;
    uint32_t first;             /* id of its first node */
    PyObject *codes;            /* code objects; their index is in where */
    PyObject *tables;           /* of each code: the line of each instruction, or None */
    PyObject *skipped;          /* code objects whose caller's line counts */
    PyObject *lines;            /* called with a code object: its table, or False for one that is skipped */
    PyObject *escaped;          /* called with what went past the tape: warns or raises */
    instruction *known;         /* open addressing; n_known of them, less than half of known_cap, a power of two or 0 */
    uint32_t n_known, known_cap;
    tg_comparison *asked;
    tg_event *event;
    tg_noted_call *call;        /* with ids of their own */
    uint32_t n_asked, asked_cap, n, cap, n_calls, call_cap;
    uint32_t quiet;             /* a sweep is being recorded */
    uint32_t asked_elsewhere;   /* another thread has asked something of its nodes */
    int grad_off;               /* how deep in no_grad it began: that is none of f's business */
} recording;

static THREAD_LOCAL recording *current;
static recording *all;

static THREAD_LOCAL int as_numbers;     /* how many functions are being differentiated in this thread */
int tg_as_numbers_anywhere;             /* they, and recordings */

int tg_as_numbers_here(void) { return as_numbers || current; }

void tg_note_sweep(int on)
{
    if (current)
        current->quiet = (uint32_t)on;
}

/* The index of a code object, added where it is new; 0 for one that stands for an operation, whose caller counts; or -1
   with an exception. */
static Py_ssize_t index_of(recording *r, PyObject *code)
{
    Py_ssize_t n = PyList_Size(r->codes), skipped = PyList_Size(r->skipped), k;
    PyObject *table;
    int failed;
    for (k = 1; k < n && PyList_GetItem(r->codes, k) != code; k++)
        ;
    if (k < n)
        return k;
    for (k = 0; k < skipped; k++)
        if (PyList_GetItem(r->skipped, k) == code)
            return 0;
    table = PyObject_CallFunctionObjArgs(r->lines, code, NULL);
    if (table == Py_False)
        failed = PyList_Append(r->skipped, code);
    else
        failed = !table || PyList_Append(r->tables, table) || PyList_Append(r->codes, code);
    k = failed ? -1 : table == Py_False ? 0 : PyList_Size(r->codes) - 1;
    Py_XDECREF(table);
    return k;
}

/* What is known of an instruction, or where it is to be put; there is room. */
static inline instruction *find(const recording *r, PyObject *code, int at)
{
    const uint32_t mask = r->known_cap - 1;
    uint32_t h = (uint32_t)(((uintptr_t)code + (uint32_t)at) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
    while (r->known[h & mask].code && (r->known[h & mask].code != code || r->known[h & mask].at != at))
        h++;
    return r->known + (h & mask);
}

/* Room for one more: 0, or -1 with an exception. */
static int grow_known(recording *r)
{
    const recording old = *r;
    if (2 * (r->n_known + 1) < r->known_cap)
        return 0;
    r->known_cap = old.known_cap ? 2 * old.known_cap : 64;
    r->known = tg_zeroed(r->known_cap * sizeof *r->known);
    if (!r->known) {
        r->known = old.known;
        r->known_cap = old.known_cap;
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t k = 0; k < old.known_cap; k++)
        if (old.known[k].code)
            *find(r, old.known[k].code, old.known[k].at) = old.known[k];
    free(old.known);
    return 0;
}

/* Find out where the instruction that a frame is at comes from: that, CALLER, 0, or -1 with an exception. May run
   Python code. */
static int64_t learn(recording *r, PyFrameObject *frame, PyObject *code, int at)
{
    const Py_ssize_t k = index_of(r, code);
    const uint32_t line = k > 0 ? tg_line_of(PyList_GetItem(r->tables, k), frame, at) : 0;
    const int named = k < (1 << (32 - TG_WHERE_LINE)) - 1 && line < 1u << TG_WHERE_LINE;
    const uint32_t where = k == 0 ? CALLER : named ? (uint32_t)k << TG_WHERE_LINE | line : 0;
    if (k < 0 || grow_known(r))
        return -1;
    r->n_known++;
    *find(r, code, at) = (instruction){code, at, where};
    return where;
}

/* Where the instruction that a frame is at comes from, or CALLER; or -1 with an exception. */
static inline int64_t place_of(recording *r, PyFrameObject *frame)
{
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    const int at = tg_instruction_of(frame);
    const instruction *of = find(r, code, at);
    const int64_t where = of->code ? (int64_t)of->where : learn(r, frame, code, at);
    Py_DECREF(code);
    return where;
}

/* The line of who called a frame that stands for an operation. */
static int64_t caller_of(recording *r, PyFrameObject *frame)
{
    PyObject *back = NULL;              /* a frame that is held */
    int64_t where = CALLER;
    while (where == CALLER) {
        frame = (PyFrameObject *)tg_back_of(frame);
        Py_XDECREF(back);
        back = (PyObject *)frame;
        where = !frame ? -1 : back == Py_None ? 0 : place_of(r, frame);
    }
    Py_XDECREF(back);
    return where;
}

/* The line that runs now: index of its code << TG_WHERE_LINE | line, 0: unknown, or -1 with an exception. */
static inline int64_t here(recording *r)
{
    PyFrameObject *frame = PyEval_GetFrame();
    const int64_t where = frame ? place_of(r, frame) : 0;
    return where == CALLER ? caller_of(r, frame) : where;
}

/* Room for one more element of an array, n of them being in use: 0, or -1 with an exception. */
static int grow(void *array, uint32_t n, uint32_t *cap, size_t size)
{
    void *old, *grown;
    if (n < *cap)
        return 0;
    memcpy(&old, array, sizeof old);
    grown = tg_more(old, cap, 64, size);
    if (!grown) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(array, &grown, sizeof grown);
    return 0;
}

/* From node id on nodes come from there. */
static int note_from(recording *r, uint32_t id, uint32_t where, uint32_t quiet)
{
    while (r->n && r->event[r->n - 1].id >= id)         /* popped since */
        r->n--;
    if (r->n && r->event[r->n - 1].where == where && r->event[r->n - 1].quiet == quiet)
        return 0;
    if (grow(&r->event, r->n, &r->cap, sizeof *r->event))
        return -1;
    r->event[r->n++] = (tg_event){id, where, quiet};
    return 0;
}

static inline int note_where(recording *r, uint32_t where)
{
    const tg_event *last = r->n ? r->event + r->n - 1 : NULL;
    const int goes_on = last && last->where == where && last->quiet == r->quiet && last->id < T->len;
    return goes_on ? 0 : note_from(r, T->len, where, r->quiet);
}

int tg_do_note_place(void)
{
    recording *r = current;
    int64_t where = 0;
    if (r) {
        const int off = tg_grad_off();
        if (off < 0 || (off && tg_note_escape("no_grad was on: what is computed is a constant of the program")))
            return -1;
        where = here(r);
        if (where < 0)
            return -1;
    }
    if (all != r || r->next) {          /* last: what ran until here may have let other threads note theirs */
        const uint64_t thread = (uint64_t)PyThread_get_thread_ident();
        for (recording *other = all; other; other = other->next)
            if (other->thread != thread && note_where(other, TG_FOREIGN))
                return -1;
    }
    return r ? note_where(r, (uint32_t)where) : 0;
}

static int add_question(recording *r, tg_comparison asked)
{
    if (grow(&r->asked, r->n_asked, &r->asked_cap, sizeof *r->asked))
        return -1;
    r->asked[r->n_asked++] = asked;
    return 0;
}

/* Whether a node was made by the recording's own thread. */
static int is_own(const recording *r, uint32_t id)
{
    uint32_t low = 0, high = r->n;
    while (low < high) {
        const uint32_t k = low + (high - low) / 2;
        if (r->event[k].id <= id)
            low = k + 1;
        else
            high = k;
    }
    return id != TG_NONE && id >= r->first && !(low && r->event[low - 1].where == TG_FOREIGN);
}

void tg_do_note_stranger(uint32_t a, uint32_t b)
{
    const uint64_t thread = (uint64_t)PyThread_get_thread_ident();
    for (recording *other = all; other; other = other->next)
        if (other->thread != thread && (is_own(other, a) || is_own(other, b)))
            other->asked_elsewhere = 1;
}

int tg_do_note_question(uint32_t a, uint32_t b, double k, uint32_t how, int outcome)
{
    recording *r = current;
    int64_t where = r ? here(r) : 0;
    if (all != r || r->next)
        tg_do_note_stranger(a, b);
    if (!r)
        return 0;
    return where < 0 ? -1 : add_question(r, (tg_comparison){a, b, k, how, (uint32_t)outcome, (uint32_t)where});
}

int tg_do_note_escape(const char *what)
{
    recording *r = current;
    PyObject *result;
    if (!r)
        return 0;
    current = r->outer;                                 /* what it does is no part of f */
    result = PyObject_CallFunction(r->escaped, "s", what);
    current = r;
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* A line of a program's as one of the recording's; or -1 with an exception. */
static int64_t where_here(recording *r, PyObject *codes, uint32_t where)
{
    const uint32_t line = where & ((1u << TG_WHERE_LINE) - 1);
    PyObject *code = PyList_GetItem(codes, where >> TG_WHERE_LINE);
    Py_ssize_t n = PyList_Size(r->codes), k;
    if (!code)
        return -1;
    for (k = 0; k < n && PyList_GetItem(r->codes, k) != code; k++)
        ;
    if (k == n && (PyList_Append(r->tables, Py_None) || PyList_Append(r->codes, code)))
        return -1;
    return k < (1 << (32 - TG_WHERE_LINE)) - 1 ? (int64_t)k << TG_WHERE_LINE | line : 0;
}

int tg_note_layout(const tg_program *p, PyObject *codes, const uint32_t *of, const uint32_t *a, const uint32_t *b)
{
    recording *r = current;
    uint32_t last = 0;
    int64_t where = 0;
    tg_window w;
    tg_open_window(&w, p);
    for (uint32_t k = 0; r && k < p->n_instr; k++) {
        const tg_instr *s = tg_at(&w, k);
        if (s->where != last) {
            last = s->where;
            where = last ? where_here(r, codes, last) : 0;
            if (where < 0)
                return -1;
        }
        if (tg_row(s) == TG_GUARD
                ? add_question(r, (tg_comparison){a[k], b[k], 0.0, s->y >> 1, s->y & 1, (uint32_t)where})
                : note_from(r, of[k], (uint32_t)where, (s->op & TG_QUIET) != 0))
            return -1;
    }
    return 0;
}

int tg_note_call(const tg_loop *loop, const uint32_t *ids, uint32_t n_in, uint32_t n_out)
{
    recording *r = current;
    const size_t n = (size_t)n_in + n_out;
    int64_t where;
    uint32_t *own;
    if (!r) {
        PyErr_SetString(PyExc_RuntimeError, "no program is being recorded in this thread");
        return -1;
    }
    where = here(r);
    if (where < 0 || grow(&r->call, r->n_calls, &r->call_cap, sizeof *r->call))
        return -1;
    own = tg_realloc(NULL, n * sizeof *own + 1);
    if (!own) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(own, ids, n * sizeof *own);
    r->call[r->n_calls++] = (tg_noted_call){loop, own, n_in, n_out, (uint32_t)where};
    return 0;
}

static PyObject *begin_recording(PyObject *module, PyObject *args)
{
    PyObject *escaped, *lines;
    recording *r;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &escaped, &lines))
        return NULL;
    r = calloc(1, sizeof *r);
    if (!r)
        return PyErr_NoMemory();
    r->codes = PyList_New(0);
    r->tables = PyList_New(0);
    r->skipped = PyList_New(0);
    if (!r->codes || !r->tables || !r->skipped || grow_known(r) || PyList_Append(r->codes, Py_None) ||
        PyList_Append(r->tables, Py_None) || (r->grad_off = tg_grad_off()) < 0 || tg_grad_off_by(-r->grad_off)) {
        Py_XDECREF(r->codes);
        Py_XDECREF(r->tables);
        Py_XDECREF(r->skipped);
        free(r->known);
        free(r);
        return NULL;
    }
    tg_find_instruction_of();
    Py_INCREF(escaped);
    r->escaped = escaped;
    Py_INCREF(lines);
    r->lines = lines;
    r->outer = current;
    current = r;
    r->next = all;
    all = r;
    r->thread = (uint64_t)PyThread_get_thread_ident();
    r->first = T->len;
    T->recorders++;
    tg_as_numbers_anywhere++;
    tg_grow(T, 0, 0);
    Py_RETURN_NONE;
}

/* What was recorded within a recording refuses nothing there, and what other threads did meanwhile is theirs. 0, or -1
   with an exception. */
static int note_within(recording *outer, const recording *r)
{
    int failed = note_from(outer, r->first, 0, 1);
    for (uint32_t k = 0; !failed && k < r->n; k++)
        failed = note_from(outer, r->event[k].id, r->event[k].where == TG_FOREIGN ? TG_FOREIGN : 0, 1);
    return failed;
}

static PyObject *end_recording(PyObject *module, PyObject *unused)
{
    recording *r = current;
    int failed = 0;
    (void)module, (void)unused;
    if (r) {
        recording **link = &all;
        while (*link != r)
            link = &(*link)->next;
        *link = r->next;
        current = r->outer;
        failed = tg_grad_off_by(r->grad_off);
        T->recorders--;
        tg_as_numbers_anywhere--;
        tg_grow(T, 0, 0);
        if (r->outer && note_within(r->outer, r))
            failed = -1;
        for (uint32_t k = 0; k < r->n_calls; k++)
            free((void *)(uintptr_t)r->call[k].id);
        free(r->call);
        Py_DECREF(r->codes);
        Py_DECREF(r->tables);
        Py_DECREF(r->skipped);
        Py_DECREF(r->lines);
        Py_DECREF(r->escaped);
        free(r->known);
        free(r->asked);
        free(r->event);
        free(r);
        tg_pop_dead();                  /* what the recording kept */
    }
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

#define FOREIGN "another thread computed a part of it: what that thread compared is no guard"
#define STRANGER "another thread asked something of its numbers: that is no guard, and == is identity there"

/* A program has taken Values for constants: of the recording around it, or where it is recorded while a function is
   being differentiated, which may be by them. */
static int note_captured(recording *r)
{
    int code;
    if (!r->outer)
        return tg_note_escape("a Value was taken for a constant within a function that is being differentiated: it has "
                              "no derivative by it; pass it as an argument, or in params");
    current = r->outer;
    code = tg_note_escape("a program recorded within took a Value for a constant: a replay does not see it");
    current = r;
    return code;
}

/* freeze(start, inputs, outputs): the address of the program, and the code objects that its lines are of. */
static PyObject *freeze(PyObject *module, PyObject *args)
{
    PyObject *start, *inputs, *outputs, *result = NULL;
    value_list in = {0}, out = {0};
    recording *r = current;
    tg_program *p = NULL;
    int64_t code = TG_OK;
    (void)module;
    if (!r || !PyArg_ParseTuple(args, "O!OO", tg_value_type, &start, &inputs, &outputs))
        return NULL;
    if (tg_gather_values(&in, inputs) && tg_gather_values(&out, outputs)) {
        const tg_recording rec = {
            .start = ((Value *)start)->id, .outer = r->outer ? r->outer->first : as_numbers ? 0 : TG_NONE,
            .in = in.id, .n_in = in.n, .out = out.id, .n_out = out.n,
            .compared = r->asked, .n_compared = r->n_asked, .event = r->event, .n_events = r->n,
            .call = r->call, .n_calls = r->n_calls,
        };
        p = tg_freeze(T, &rec, &code);
        if (p && !(p->foreign && tg_note_escape(FOREIGN)) && !(r->asked_elsewhere && tg_note_escape(STRANGER)) &&
            !(p->captured && note_captured(r)))
            result = Py_BuildValue("KO", (unsigned long long)(uintptr_t)p, r->codes);
        else if (!p)
            tg_raise(code, TG_LEAF, 0.0, 0.0);
        if (!result)
            tg_free_program(p);
    }
    Py_XDECREF(tg_let_go(&in, 1));
    Py_XDECREF(tg_let_go(&out, 1));
    return result;
}

/* Of older nodes that a program would take for constants, the ids to a list of Values: those from the first on, and
   those that are marked. 0, or -1 with an exception. */
static int older_of(const tg_recording *rec, uint32_t first, const uint8_t *marked, PyObject *list)
{
    int64_t n = tg_find_older(T, rec, NULL, 0);
    uint32_t *ids = n < 0 ? NULL : tg_realloc(NULL, (size_t)n * sizeof *ids + 1);
    int failed = 0;
    if (n >= 0 && ids)
        n = tg_find_older(T, rec, ids, (uint32_t)n);
    if (n < 0 || !ids) {
        tg_raise(n < 0 ? n : TG_MEMORY, TG_LEAF, 0.0, 0.0);
        failed = 1;
    }
    for (int64_t k = 0; !failed && k < n; k++)
        if (ids[k] >= first || marked[ids[k]]) {
            PyObject *v = tg_handle_of(ids[k]);
            failed = !v || PyList_Append(list, v);
            Py_XDECREF(v);
        }
    free(ids);
    return failed ? -1 : 0;
}

/* older(start, inputs, outputs, first, others): of the Values that freeze would take for constants those that are not
   older than the Value first, or among others. */
static PyObject *older(PyObject *module, PyObject *args)
{
    PyObject *start, *inputs, *outputs, *first, *others, *list = NULL;
    value_list in = {0}, out = {0}, by = {0};
    recording *r = current;
    uint8_t *marked = NULL;
    (void)module;
    if (!r || !PyArg_ParseTuple(args, "O!OOO!O", tg_value_type, &start, &inputs, &outputs, tg_value_type, &first,
                                &others))
        return NULL;
    if (tg_gather_values(&in, inputs) && tg_gather_values(&out, outputs) && tg_gather_values(&by, others)) {
        const tg_recording rec = {
            .start = ((Value *)start)->id, .outer = TG_NONE, .in = in.id, .n_in = in.n, .out = out.id, .n_out = out.n,
            .compared = r->asked, .n_compared = r->n_asked, .event = r->event, .n_events = r->n,
            .call = r->call, .n_calls = r->n_calls,
        };
        marked = tg_zeroed(T->len + (size_t)1);
        list = marked ? PyList_New(0) : PyErr_NoMemory();
        for (uint32_t k = 0; list && k < by.n; k++)
            marked[by.id[k]] = 1;
        if (list && older_of(&rec, ((Value *)first)->id, marked, list))
            Py_CLEAR(list);
    }
    free(marked);
    Py_XDECREF(tg_let_go(&in, 1));
    Py_XDECREF(tg_let_go(&out, 1));
    Py_XDECREF(tg_let_go(&by, 1));
    return list;
}

/* held_from(first): how many nodes from this id on have a live handle, but for those of other threads. */
static PyObject *held_from(PyObject *module, PyObject *first)
{
    const uint32_t from = (uint32_t)PyLong_AsUnsignedLong(first);
    const recording *r = current;
    uint32_t n = 0, k = 0, foreign = 0;
    (void)module;
    if (PyErr_Occurred())
        return NULL;
    for (uint32_t i = from; i < T->len; i++) {
        for (; r && k < r->n && r->event[k].id <= i; k++)
            foreign = r->event[k].where == TG_FOREIGN;
        n += !foreign && TG_LIVE(T->owner[i]) != 0;
    }
    return PyLong_FromUnsignedLong(n);
}

static PyObject *differentiating(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(as_numbers > 0);
}

static PyObject *as_numbers_by(PyObject *module, PyObject *step)
{
    int by = (int)PyLong_AsLong(step), before = tg_as_numbers_here();
    (void)module;
    if (PyErr_Occurred())
        return NULL;
    as_numbers += by;
    tg_as_numbers_anywhere += by;
    return PyBool_FromLong(before);
}

PyMethodDef tg_recording_functions[] = {
    {"begin_recording", begin_recording, METH_VARARGS, NULL},
    {"end_recording", end_recording, METH_NOARGS, NULL},
    {"freeze", freeze, METH_VARARGS, NULL},
    {"older", older, METH_VARARGS, NULL},
    {"held_from", held_from, METH_O, NULL},
    {"differentiating", differentiating, METH_NOARGS, NULL},
    {"as_numbers_by", as_numbers_by, METH_O,
     "Values answer ==, != and bool as numbers in this thread (1), or no more (-1); whether they did before."},
    {0},
};
