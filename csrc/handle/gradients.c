#include "gradients.h"

#include "attributes.h"
#include "gradient.h"
#include "held.h"
#include "look/look.h"
#include "operands.h"
#include "recording.h"

#include <pythread.h>
#include <stdlib.h>

/* What the three functions take: roots, a seed for each or None, xs. */
typedef struct {
    value_list roots, xs;
    operand_list seeds;
} arguments;

/* Gather them: 1, or 0 with an exception. Ids are to be read again: reading the later ones may have moved the first. */
static int gather(arguments *a, const char *function, PyObject *const *args, Py_ssize_t n)
{
    if (n != 3)
        PyErr_Format(PyExc_TypeError, "%s() takes roots, seeds and xs", function);
    else if (tg_gather_values(&a->roots, args[0]) && (args[1] == Py_None || tg_gather(&a->seeds, args[1]) >= 0) &&
             tg_gather_values(&a->xs, args[2])) {
        if (args[1] == Py_None || a->seeds.n == a->roots.n)
            return 1;
        PyErr_Format(PyExc_ValueError, "%u Values but %u seeds", a->roots.n, a->seeds.n);
    }
    return 0;
}

static PyObject *let_go(arguments *a, PyObject *out)
{
    tg_release(&a->seeds);
    Py_XDECREF(tg_let_go(&a->roots, out != NULL));
    Py_XDECREF(tg_let_go(&a->xs, out != NULL));
    return out;
}

static PyObject *module_adjoints(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    arguments a = {0};
    PyObject *out = NULL;
    double *x = NULL;
    (void)module;
    if (!gather(&a, "adjoints", args, n))
        return let_go(&a, NULL);
    if (a.seeds.numbers < a.seeds.n)
        PyErr_SetString(PyExc_TypeError, "seeds of adjoints are numbers, not 'Value'");
    else if (!(x = tg_realloc(NULL, (a.xs.n + (size_t)1) * sizeof *x)))
        PyErr_NoMemory();
    else {
        int code;
        tg_read_ids(&a.roots);
        tg_read_ids(&a.xs);
        code = tg_adjoints(T, a.roots.id, a.seeds.number, a.roots.n, a.xs.id, a.xs.n, x, tg_call_rule, NULL,
                           (uint64_t)PyThread_get_thread_ident());
        out = code ? tg_raise(code, TG_LEAF, 0.0, 0.0) : tg_float_list(x, a.xs.n);
    }
    free(x);
    return let_go(&a, out);
}

static PyObject *module_record_sweep(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    arguments a = {0};
    PyObject *out = NULL;
    uint32_t *ids = NULL;
    (void)module;
    if (!gather(&a, "record_sweep", args, n))
        return let_go(&a, NULL);
    ids = tg_realloc(NULL, (a.xs.n + (size_t)a.seeds.n + 1) * sizeof *ids);
    out = ids ? tg_bare_list(a.xs.n) : PyErr_NoMemory();
    tg_note_sweep(1);
    if (out && !tg_make_room(a.seeds.n, 0))
        Py_CLEAR(out);
    tg_note_sweep(0);
    if (out) {
        uint32_t *seeds = args[1] == Py_None ? NULL : ids + a.xs.n;
        int code;
        tg_read_ids(&a.roots);
        tg_read_ids(&a.xs);
        if (seeds)
            tg_ids_of(&a.seeds, seeds);
        code = tg_record_sweep(T, a.roots.id, seeds, a.roots.n, a.xs.id, a.xs.n, ids);
        if (code) {
            Py_CLEAR(out);
            tg_raise(code, TG_LEAF, 0.0, 0.0);
        }
        for (uint32_t k = 0; out && k < a.xs.n; k++)
            own((Value *)PyList_GetItem(out, k), ids[k]);
        if (out)
            PyObject_GC_Track(out);
    }
    free(ids);
    return let_go(&a, out);
}

static PyObject *module_depends_on_older(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    value_list roots = {0}, xs = {0};
    uint32_t first = T->len;
    int answer = -1;
    (void)module;
    if (n != 2)
        PyErr_SetString(PyExc_TypeError, "depends_on_older() takes roots and xs");
    else if (tg_gather_values(&roots, args[0]) && tg_gather_values(&xs, args[1])) {
        tg_read_ids(&roots);
        for (uint32_t k = 0; k < xs.n; k++)
            first = xs.id[k] < first ? xs.id[k] : first;
        answer = tg_depends_on_older(T, roots.id, roots.n, first);
        if (answer < 0)
            tg_raise(answer, TG_LEAF, 0.0, 0.0);
    }
    Py_XDECREF(tg_let_go(&roots, 1));
    Py_XDECREF(tg_let_go(&xs, 1));
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

static PyObject *module_graph(PyObject *module, PyObject *values)
{
    value_list list = {0};
    int64_t code = TG_OK;
    tg_graph *g = NULL;
    (void)module;
    if (tg_gather_values(&list, values)) {
        g = tg_graph_of_tape(T, list.id, list.n, &code);
        if (!g)
            tg_raise(code, TG_LEAF, 0.0, 0.0);
    }
    Py_XDECREF(tg_let_go(&list, 1));
    return g ? PyLong_FromVoidPtr(g) : NULL;
}

static PyObject *module_all_finite(PyObject *module, PyObject *values)
{
    value_list list = {0};
    int answer = -1;
    (void)module;
    if (tg_gather_values(&list, values)) {
        answer = tg_all_finite(T, list.id, list.n);
        if (answer < 0)
            tg_raise(answer, TG_LEAF, 0.0, 0.0);
    }
    Py_XDECREF(tg_let_go(&list, 1));
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

#define FUNCTION(name) (PyCFunction)(void (*)(void))module_##name, METH_FASTCALL

PyMethodDef tg_gradient_functions[] = {
    {"adjoints", FUNCTION(adjoints),
     "adjoints($module, roots, seeds, xs, /)\n--\n\n"
     "d(seeds . roots)/dx for every x, seeds being 1 each where they are None."},
    {"record_sweep", FUNCTION(record_sweep),
     "record_sweep($module, roots, seeds, xs, /)\n--\n\nAs `adjoints`, but recorded: a list of Values."},
    {"depends_on_older", FUNCTION(depends_on_older),
     "depends_on_older($module, roots, xs, /)\n--\n\nWhether a root depends on what is older than all xs."},
    {"all_finite", module_all_finite, METH_O,
     "all_finite($module, values, /)\n--\n\n"
     "Whether their data are finite, and the grads of all nodes up to the last of them."},
    {"graph", module_graph, METH_O,
     "graph($module, values, /)\n--\n\nThe address of a tg_graph of what they depend on."},
    {0},
};
