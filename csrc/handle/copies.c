#include "copies.h"

#include "held.h"
#include "operands.h"
#include "recording.h"

#include <stdlib.h>

typedef struct {
    uint32_t *id, n, cap;
} id_list;

static int by_id(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

/* Append a node that is not there yet; its mark says whether it is. 0, or TG_MEMORY. */
static int find(id_list *found, uint32_t id)
{
    if (T->op[id] & TG_MARK)
        return 0;
    if (found->n == found->cap) {
        uint64_t cap = found->cap ? 2 * (uint64_t)found->cap : 16;
        uint32_t *grown = cap < TG_NONE ? tg_realloc(found->id, cap * sizeof *grown) : NULL;
        if (!grown)
            return TG_MEMORY;
        found->id = grown;
        found->cap = (uint32_t)cap;
    }
    T->op[id] |= TG_MARK;
    found->id[found->n++] = id;
    return 0;
}

/* Whether memo has something for the handle of a node: 1, 0, or -1 with an exception. */
static int is_known(PyObject *memo, uint32_t id)
{
    void *owner = T->owner[id];
    PyObject *key = TG_LIVE(owner) ? PyLong_FromVoidPtr(owner) : NULL;
    int known = key ? PyDict_Contains(memo, key) : TG_LIVE(owner) ? -1 : 0;
    Py_XDECREF(key);
    return known;
}

/* The ids of what a Value depends on, ascending, to free: 1, or 0 with an exception. */
static int find_history(PyObject *value, PyObject *memo, id_list *found)
{
    int known = 0, code = 0;
    if (!has_node((Value *)value))
        return 0;
    T->recorders++;                                 /* ids stay, whatever the keys in memo do when they are compared */
    code = find(found, ((Value *)value)->id);
    for (uint32_t k = 0; !code && known >= 0 && k < found->n; k++) {
        uint32_t pair[2], n, *operands = tg_recorded(T, found->id[k], pair, &n);
        known = is_known(memo, found->id[k]);
        for (uint32_t i = 0; !code && known == 0 && i < n; i++)
            code = find(found, operands[i]);
    }
    for (uint32_t k = 0; k < found->n; k++)
        T->op[found->id[k]] &= (uint8_t)~TG_MARK;
    T->recorders--;
    if (code)
        tg_raise(code, TG_LEAF, 0.0, 0.0);
    if (code || known < 0)
        return 0;
    qsort(found->id, found->n, sizeof *found->id, by_id);
    return 1;
}

/* history(value, memo): the Values that it depends on, in the order of their making; itself comes last. What memo has
   by its id() is not looked into. */
static PyObject *module_history(PyObject *module, PyObject *args)
{
    PyObject *value, *memo, *list = NULL;
    id_list found = {0}, again = {0};
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!", tg_value_type, &value, &PyDict_Type, &memo))
        return NULL;
    if (find_history(value, memo, &found))
        list = PyList_New(found.n);                 /* may run Python code: look again */
    if (list && (!find_history(value, memo, &again) || again.n != found.n)) {
        Py_CLEAR(list);
        if (!PyErr_Occurred())
            list = module_history(module, args);
    } else
        for (uint32_t k = 0; list && k < again.n; k++) {
            PyObject *v = tg_handle_of(again.id[k]);
            if (v)
                PyList_SetItem(list, k, v);
            else
                Py_CLEAR(list);
        }
    free(found.id);
    free(again.id);
    return list;
}

/* A handle without a node, of the class of v and with its attributes, or NULL with an exception. */
static Value *twin(const Value *v)
{
    Value *w;
    if (tg_has_rule(T, v->id) && tg_operands(T, v->id, NULL, 0)) {
        PyErr_SetString(PyExc_TypeError, "a Value whose _backward was set cannot be copied: its rule is about the "
                                         "operands that it was written for; use v.data");
        return NULL;
    }
    w = tg_new_of(Py_TYPE((PyObject *)v));
    if (w && v->dict && PyDict_Size(v->dict)) {
        w->dict = PyDict_Copy(v->dict);
        if (!w->dict || tg_set_attribute(w, tg_rule_name, NULL)) {      /* a leaf's has nowhere to push to */
            Py_DECREF((PyObject *)w);
            return NULL;
        }
    }
    return w;
}

/* The twins of the values that are not known, known ones as they are; those with attributes in attributed, too. NULL
   with an exception. */
static PyObject *twins(PyObject *values, PyObject *known, PyObject *attributed)
{
    Py_ssize_t n = PyTuple_Size(values);
    PyObject *list = PyList_New(n);
    if (list)
        PyObject_GC_UnTrack(list);                  /* until it is full */
    for (Py_ssize_t k = 0; list && k < n; k++) {
        PyObject *v = PyTuple_GetItem(values, k), *w = PyTuple_GetItem(known, k);
        if (w == Py_None) {
            w = has_node((Value *)v) ? (PyObject *)twin((Value *)v) : NULL;
            if (w && ((Value *)w)->dict && PyList_Append(attributed, w))
                Py_CLEAR(w);
        } else if (is_value(w) && has_node((Value *)w))
            Py_INCREF(w);
        else
            w = PyErr_Occurred() ? NULL : tg_wrong_type("this takes Values", w);
        if (w)
            PyList_SetItem(list, k, w);
        else
            Py_CLEAR(list);
    }
    if (list)
        PyObject_GC_Track(list);
    return list;
}

/* Make nodes for the twins that have none: 1, or 0 with an exception. */
static int copy_nodes(PyObject *values, PyObject *copies)
{
    uint32_t n = (uint32_t)PyTuple_Size(values), *ids = tg_realloc(NULL, 2 * (n + (size_t)1) * sizeof *ids);
    uint32_t *into = ids + n;
    int64_t code = ids ? TG_OK : TG_MEMORY;
    if (ids && !tg_make_room(n, 0))
        code = TG_RAISED;
    for (uint32_t k = 0; !code && k < n; k++) {
        ids[k] = ((Value *)PyTuple_GetItem(values, k))->id;
        into[k] = ((Value *)PyList_GetItem(copies, k))->id;
    }
    if (!code)
        code = tg_copy(T, ids, into, n);
    for (uint32_t k = 0; !code && k < n; k++)
        own((Value *)PyList_GetItem(copies, k), into[k]);
    free(ids);
    if (code)
        tg_raise(code, TG_LEAF, 0.0, 0.0);
    return !code;
}

/* copies(values, known): a copy of each of the values, which are in the order of their making, or in its stead what is
   known and not None; and a list of the new ones that have attributes, which are shared. Operands among the values
   become their copies. */
static PyObject *module_copies(PyObject *module, PyObject *args)
{
    PyObject *values, *known, *attributed, *copies = NULL, *result = NULL;
    value_list list;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &values, &known) ||
        tg_note_escape(".data was read: a replay does not see it"))
        return NULL;
    known = PySequence_Tuple(known);
    attributed = PyList_New(0);
    if (tg_gather_values(&list, values) && known && attributed) {
        if (PyTuple_Size(known) == (Py_ssize_t)list.n)
            copies = twins(list.tuple, known, attributed);
        else
            PyErr_SetString(PyExc_ValueError, "copies: something else is known than the values");
        if (copies && copy_nodes(list.tuple, copies))
            result = PyTuple_Pack(2, copies, attributed);
    }
    Py_XDECREF(copies);
    Py_XDECREF(attributed);
    Py_XDECREF(known);
    Py_XDECREF(tg_let_go(&list, 1));
    return result;
}

PyMethodDef tg_copies_functions[] = {
    {"history", module_history, METH_VARARGS, NULL},
    {"copies", module_copies, METH_VARARGS, NULL},
    {0},
};
