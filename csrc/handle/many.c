#include "many.h"

#include "held.h"
#include "operands.h"
#include "recording.h"

#include <stdlib.h>
#include <string.h>

/*  The quick way: where all operands are Values and floats in lists and tuples, nothing that is read runs Python code:
    ids go straight to the pool and nothing has to be held. Where it finds anything else it takes back what it has
    recorded and returns NULL without an exception, and the general way starts over.  */

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) ((void)(p))
#endif

/* The length of a list or tuple, or -1. */
static Py_ssize_t plain_size(PyObject *o)
{
    return PyList_CheckExact(o) ? PyList_Size(o) : PyTuple_CheckExact(o) ? PyTuple_Size(o) : -1;
}

/* How many leaves a list or tuple may need: none if it starts with a Value. */
static Py_ssize_t plain_leaves(PyObject *o)
{
    Py_ssize_t n = plain_size(o);
    return n < 1 || is_value(PyList_CheckExact(o) ? PyList_GetItem(o, 0) : PyTuple_GetItem(o, 0)) ? 0 : n;
}

/* The id of a Value, or of a new leaf for a float while there are fewer than so many nodes: 1, or 0. */
static inline int plain_id(PyObject *item, uint32_t *id, uint32_t most)
{
    if (is_value(item)) {
        *id = ((Value *)item)->id;
        return *id != TG_NONE;
    }
    if (!PyFloat_CheckExact(item) || T->len >= most)
        return 0;
    *id = tg_push(T, TG_LEAF, 0, 0, PyFloat_AsDouble(item));
    return 1;
}

/* The ids of n items: 1, or 0. */
static int plain_ids(PyObject *o, Py_ssize_t n, uint32_t *ids, uint32_t most)
{
    PyObject *(*get)(PyObject *, Py_ssize_t) = PyList_CheckExact(o) ? PyList_GetItem : PyTuple_GetItem;
    PyObject *ahead[16];                /* the handles of a long list are in no cache: ask for some at a time */
    if (plain_size(o) != n)             /* making room may have run Python code */
        return 0;
    for (Py_ssize_t k = 0, m; k < n; k += m) {
        m = n - k < 16 ? n - k : 16;
        for (Py_ssize_t i = 0; i < m; i++) {
            ahead[i] = get(o, k + i);
            PREFETCH(ahead[i]);
        }
        for (Py_ssize_t i = 0; i < m; i++)
            if (!plain_id(ahead[i], ids + k + i, most))
                return 0;
    }
    return 1;
}

/* Record the node whose operands are xs, then ys and last where they are not NULL. */
static PyObject *record_plain(int op, PyObject *xs, PyObject *ys, PyObject *last)
{
    Py_ssize_t n = plain_size(xs), m = ys ? plain_size(ys) : 0;
    uint64_t total = (uint64_t)n + (uint64_t)m + (last != NULL), leaves;
    uint32_t *ids, before, most;
    Value *v;
    if (n < 1 || m < 0 || total >= TG_NONE || tg_grad_off())      /* or with an exception */
        return NULL;
    leaves = (uint64_t)plain_leaves(xs) + (uint64_t)(ys ? plain_leaves(ys) : 0) + (last != NULL);
    if (!tg_make_room(leaves + 1, total + 1))
        return NULL;
    v = tg_new_handle();
    if (!v)
        return NULL;
    ids = T->pool + T->pool_len + 1;    /* where tg_push_many will have them */
    before = T->len;
    most = T->len + (uint32_t)leaves;
    if (plain_ids(xs, n, ids, most) && (!ys || plain_ids(ys, m, ids + n, most)) &&
        (!last || plain_id(last, ids + n + m, most))) {
        tg_push_many(T, op, (uint32_t)total);
        T->data[T->len - 1] = tg_many_primal(op, T->data, ids, (uint32_t)total);
        return own(v, T->len - 1);
    }
    tg_take_back(T, before);
    Py_DECREF((PyObject *)v);
    return NULL;
}

/* Record the many-operand node of a list; without operands, a leaf. */
static PyObject *record_list(int op, const operand_list *list)
{
    uint32_t *ids = tg_realloc(NULL, (list->n + (size_t)1) * sizeof *ids);
    int off = tg_grad_off();
    Value *v = NULL;
    if (!ids)
        return PyErr_NoMemory();
    if (off >= 0 && tg_make_room((uint64_t)list->numbers + 1, (uint64_t)list->n + 1))
        v = tg_new_handle();
    if (v && list->n) {
        uint32_t before = T->len;
        tg_ids_of(list, ids);
        tg_record_many(T, op, ids, list->n);
        if (off) {
            double y = T->data[T->len - 1];
            tg_take_back(T, before);
            tg_push(T, TG_LEAF, 0, 0, y);
        }
        own(v, T->len - 1);
    } else if (v)
        own(v, tg_push(T, TG_LEAF, 0, 0, 0.0));
    free(ids);
    return (PyObject *)v;
}

static PyObject *module_dot(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"xs", "ys", "bias", NULL};
    PyObject *given[3] = {NULL, NULL, Py_None}, *node = NULL;
    operand_list list = {0};
    int64_t n, m = -1;
    (void)module;
    if (!tg_arguments("dot", names, 2, args, count, keywords, given))
        return NULL;
    if (plain_size(given[0]) == plain_size(given[1]))
        node = record_plain(TG_DOT, given[0], given[1], given[2] == Py_None ? NULL : given[2]);
    if (node || PyErr_Occurred())
        return node;
    n = tg_gather(&list, given[0]);
    if (n >= 0)
        m = tg_gather(&list, given[1]);
    if (m >= 0 && n != m)
        PyErr_Format(PyExc_ValueError, "dot: %lld xs but %lld ys", (long long)n, (long long)m);
    else if (m >= 0 && (given[2] == Py_None || tg_append(&list, given[2])))
        node = record_list(TG_DOT, &list);
    tg_release(&list);
    return node;
}

/* The one argument of a function of an iterable, or NULL: its operands are easily given one by one instead. */
static PyObject *one_iterable(const char *name, PyObject *const *args, Py_ssize_t count)
{
    if (count == 1)
        return args[0];
    return PyErr_Format(PyExc_TypeError, "%s() takes one iterable, not %zd arguments: %s([a, b, ..])", name, count,
                        name);
}

static PyObject *module_sum(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    operand_list list = {0};
    PyObject *xs = one_iterable("sum", args, count), *node;
    (void)module;
    if (!xs)
        return NULL;
    node = record_plain(TG_SUM, xs, NULL, NULL);
    if (!node && !PyErr_Occurred() && tg_gather(&list, xs) >= 0)
        node = record_list(TG_SUM, &list);
    tg_release(&list);
    return node;
}

/* many(op, xs, ys=()): the node of any many-operand row. Whether its operands fit is for the caller to know. */
static PyObject *module_many(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    static const char *const names[] = {"op", "xs", "ys", NULL};
    PyObject *given[3] = {NULL}, *node;
    operand_list list = {0};
    long op;
    (void)module;
    if (!tg_arguments("many", names, 2, args, count, NULL, given))
        return NULL;
    op = PyLong_AsLong(given[0]);
    if (op == -1 && PyErr_Occurred())
        return NULL;
    if (op <= TG_NODE || op >= TG_OPS || !tg_is_many((int)op))
        return tg_raise(TG_BAD_ID, TG_LEAF, 0.0, 0.0);
    node = record_plain((int)op, given[1], given[2], NULL);
    if (!node && !PyErr_Occurred() && tg_gather(&list, given[1]) >= 0 && (!given[2] || tg_gather(&list, given[2]) >= 0))
        node = record_list((int)op, &list);
    tg_release(&list);
    return node;
}

/* Give the m nodes with these ids to the handles of a bare list; all from before on were recorded for them. */
static PyObject *own_all(PyObject *outputs, uint32_t *ids, uint32_t m, uint32_t before)
{
    int off = tg_grad_off();
    if (off < 0) {
        tg_pop(T);
        Py_DECREF(outputs);
        return NULL;
    }
    if (off) {                              /* only their data stays */
        double *data = tg_realloc(NULL, (m + (size_t)1) * sizeof *data);
        if (!data) {
            tg_take_back(T, before);
            Py_DECREF(outputs);
            return PyErr_NoMemory();
        }
        for (uint32_t i = 0; i < m; i++)
            data[i] = T->data[ids[i]];
        tg_take_back(T, before);
        for (uint32_t i = 0; i < m; i++)
            ids[i] = tg_push(T, TG_LEAF, 0, 0, data[i]);
        free(data);
    }
    for (uint32_t i = 0; i < m; i++)
        own((Value *)PyList_GetItem(outputs, i), ids[i]);
    PyObject_GC_Track(outputs);
    return outputs;
}

/* The opcode of a named unary row that refuses nothing, 0 for None, or -1 with an exception. */
static int activation_op(PyObject *name)
{
    if (name == Py_None)
        return 0;
    for (int op = 0; PyUnicode_Check(name) && op < TG_OPS; op++)
        if (!strcmp(tg_ops[op].kind, "unary") && !strcmp(tg_ops[op].refusal, "NEVER") &&
            PyUnicode_CompareWithASCIIString(name, tg_ops[op].method) == 0)
            return op;
    PyErr_Format(PyExc_ValueError, "activation must be None, 'relu', 'tanh', 'sigmoid' or 'softplus', not %R", name);
    return -1;
}

/* affine, where W, b and x are lists, and all in them Values but for floats in x. */
static PyObject *affine_plain(PyObject *W, PyObject *b, PyObject *x, int op)
{
    Py_ssize_t m = PyList_CheckExact(W) ? PyList_Size(W) : -1, n = PyList_CheckExact(x) ? PyList_Size(x) : -1;
    int biased = b != Py_None;
    uint32_t width = (uint32_t)(2 * n + biased), *ids, before = TG_NONE;
    PyObject *outputs;
    if (m < 1 || n < 1 || m >= (1 << 24) || n >= (1 << 24) ||
        (biased && (!PyList_CheckExact(b) || PyList_Size(b) != m)))
        return NULL;
    outputs = tg_grad_off() ? NULL : tg_bare_list((uint32_t)m);
    if (!outputs)
        return NULL;
    ids = tg_realloc(NULL, (size_t)n * sizeof *ids);
    if (!ids || !tg_make_room((uint64_t)n + 2 * (uint64_t)m, (uint64_t)m * (width + (uint64_t)1)))
        goto failed;
    before = T->len;
    if (PyList_Size(W) != m || PyList_Size(x) != n || (biased && PyList_Size(b) != m))
        goto failed;
    for (Py_ssize_t k = 0; k < n; k++)
        if (!plain_id(PyList_GetItem(x, k), ids + k, T->len + 1))
            goto failed;
    for (Py_ssize_t i = 0; i < m; i++) {
        PyObject *row = PyList_GetItem(W, i);
        uint32_t *operands = tg_push_many(T, TG_DOT, width), dot = T->len - 1;
        if (!plain_ids(row, n, operands, 0) || (biased && !plain_id(PyList_GetItem(b, i), operands + 2 * n, 0)))
            goto failed;
        memcpy(operands + n, ids, (size_t)n * sizeof *ids);
        T->data[dot] = tg_dot(T->data, operands, width);
        own((Value *)PyList_GetItem(outputs, i), op ? tg_push(T, op, dot, dot, tg_primal(op, T->data[dot], 0.0)) : dot);
    }
    free(ids);
    PyObject_GC_Track(outputs);
    return outputs;
failed:
    free(ids);
    Py_DECREF(outputs);
    tg_take_back(T, before);
    return NULL;
}

static PyObject *module_affine(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    static const char *const names[] = {"W", "b", "x", "activation", NULL};
    PyObject *given[4] = {NULL, NULL, NULL, Py_None}, *W, *b, *x, *rows = NULL, *outputs = NULL;
    operand_list list = {0};
    uint32_t *ids = NULL, *out, m, width, before;
    int64_t n;
    int op;
    (void)module;
    if (!tg_arguments("affine", names, 3, args, count, keywords, given))
        return NULL;
    W = given[0];
    b = given[1];
    x = given[2];
    op = activation_op(given[3]);
    if (op < 0)
        return NULL;
    outputs = affine_plain(W, b, x, op);
    if (outputs || PyErr_Occurred())
        return outputs;
    rows = PySequence_Tuple(W);
    if (!rows)
        return NULL;
    m = (uint32_t)PyTuple_Size(rows);
    n = tg_gather(&list, x);                               /* the list: x, the rows of W, then b */
    if (n < 0)
        goto out;
    for (uint32_t i = 0; i < m; i++) {
        int64_t length = tg_gather(&list, PyTuple_GetItem(rows, i));
        if (length >= 0 && length != n)
            PyErr_Format(PyExc_ValueError, "affine: row %u of W has %lld elements, x has %lld", i, (long long)length,
                         (long long)n);
        if (length != n)
            goto out;
    }
    if (b != Py_None) {
        int64_t length = tg_gather(&list, b);
        if (length >= 0 && length != m)
            PyErr_Format(PyExc_ValueError, "affine: b has %lld elements, W has %u rows", (long long)length, m);
        if (length != m)
            goto out;
    }
    width = (uint32_t)(2 * n + (b != Py_None));
    ids = tg_realloc(NULL, (list.n + width + m + (size_t)1) * sizeof *ids);
    if (!ids) {
        PyErr_NoMemory();
        goto out;
    }
    outputs = tg_bare_list(m);
    if (!outputs || !tg_make_room((uint64_t)list.numbers + 2 * (uint64_t)m, m * (width + (uint64_t)1))) {
        Py_CLEAR(outputs);
        goto out;
    }
    before = T->len;
    tg_ids_of(&list, ids);
    out = ids + list.n + width;
    for (uint32_t i = 0; i < m; i++) {
        uint32_t *operands = tg_push_many(T, TG_DOT, width), dot = T->len - 1;
        memcpy(operands, ids + n * (i + 1), (size_t)n * sizeof *ids);
        memcpy(operands + n, ids, (size_t)n * sizeof *ids);
        if (b != Py_None)
            operands[2 * n] = ids[n * (m + (int64_t)1) + i];
        T->data[dot] = tg_dot(T->data, operands, width);
        out[i] = op ? tg_push(T, op, dot, dot, tg_primal(op, T->data[dot], 0.0)) : dot;
    }
    outputs = own_all(outputs, out, m, before);
out:
    Py_DECREF(rows);
    tg_release(&list);
    free(ids);
    return outputs;
}

static PyObject *module_softmax(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    operand_list list = {0};
    PyObject *outputs = NULL, *xs = one_iterable("softmax", args, count);
    uint32_t *ids = NULL, total, top, before;
    (void)module;
    if (!xs || tg_gather(&list, xs) < 0)
        goto out;
    if (!list.n) {
        outputs = PyList_New(0);
        goto out;
    }
    ids = tg_realloc(NULL, (list.n + (size_t)1) * sizeof *ids);
    if (!ids) {
        PyErr_NoMemory();
        goto out;
    }
    outputs = tg_bare_list(list.n);
    if (!outputs)
        goto out;
    tg_note_sweep(1);                   /* no exp of what is below 0 is refused: those that f drops may go */
    if (!tg_make_room(list.numbers + 3 * (uint64_t)list.n + 2, 2 * (uint64_t)list.n + 2))
        Py_CLEAR(outputs);
    tg_note_sweep(0);
    if (!outputs)
        goto out;
    before = T->len;
    tg_ids_of(&list, ids);
    top = (uint32_t)tg_record_many(T, TG_TOP, ids, list.n);
    for (uint32_t k = 0; k < list.n; k++)
        ids[k] = tg_push(T, TG_SUB, ids[k], top, T->data[ids[k]] - T->data[top]);
    total = (uint32_t)tg_record_many(T, TG_LOGSUMEXP, ids, list.n);
    for (uint32_t k = 0; k < list.n; k++) {
        double below = T->data[ids[k]] - T->data[total];
        uint32_t difference = tg_push(T, TG_SUB, ids[k], total, below);
        ids[k] = tg_push(T, TG_EXP, difference, difference, tg_exp(below));
    }
    outputs = own_all(outputs, ids, list.n, before);
out:
    tg_release(&list);
    free(ids);
    return outputs;
}

PyMethodDef tg_many_functions[] = {
    {"dot", (PyCFunction)(void (*)(void))module_dot, METH_FASTCALL | METH_KEYWORDS,
     "dot($module, /, xs, ys, bias=None)\n--\n\n"
     "bias + xs[0] * ys[0] + xs[1] * ys[1] + .., as one node.\n\n"
     "Args:\n    xs, ys: iterables of Values and numbers, of the same length n.\n"
     "    bias: where the sum starts: a Value or a number; 0.0 without.\n\n"
     "Returns:\n    A Value whose operands are xs, then ys, then bias.\n\n"
     "Raises:\n    ValueError: the lengths differ.\n    TypeError: an element is no Value and no number.\n\n"
     ">>> dot([Value(1.0), 2.0], [3.0, 4.0], bias=5.0)\nValue(data=16.0, grad=0.0)"},
    {"sum", (PyCFunction)(void (*)(void))module_sum, METH_FASTCALL,
     "sum($module, xs, /)\n--\n\nxs[0] + xs[1] + .., left to right from 0.0, as one node.\n\n"
     "Args:\n    xs: an iterable of Values and numbers.\n\nReturns:\n    A Value; a leaf 0.0 where xs is empty.\n\n"
     ">>> tapegrad.sum([Value(1.0), 2.0, 3.0])\nValue(data=6.0, grad=0.0)"},
    {"affine", (PyCFunction)(void (*)(void))module_affine, METH_FASTCALL | METH_KEYWORDS,
     "affine($module, /, W, b, x, activation=None)\n--\n\n"
     "activation(W x + b): a list of m Values, one dot node a row and one activation node.\n\n"
     "Args:\n    W: m rows of n Values and numbers.\n    b: m Values and numbers, or None.\n"
     "    x: n Values and numbers; a number becomes one leaf for all rows.\n"
     "    activation: None or the name of an operation of one operand that refuses nothing,\n"
     "        as 'relu', 'tanh', 'sigmoid'.\n\n"
     "Returns:\n    The m results; each sum starts from its b and goes from left to right.\n\n"
     "Raises:\n    ValueError: the lengths do not fit, or there is no such activation.\n\n"
     ">>> affine([[Value(1.0), 2.0], [3.0, -4.0]], [0.5, 0.5], [1.0, 1.0], \"relu\")\n"
     "[Value(data=3.5, grad=0.0), Value(data=0.0, grad=0.0)]"},
    {"softmax", (PyCFunction)(void (*)(void))module_softmax, METH_FASTCALL,
     "softmax($module, xs, /)\n--\n\nA list of exp(xs[k]) / (exp(xs[0]) + exp(xs[1]) + ..), without overflow.\n\n"
     "Args:\n    xs: an iterable of Values and numbers.\n\nReturns:\n    As many Values.\n\n"
     ">>> softmax([Value(0.0), 0.0])\n[Value(data=0.5, grad=0.0), Value(data=0.5, grad=0.0)]"},
    {"many", (PyCFunction)(void (*)(void))module_many, METH_FASTCALL, NULL},
    {0},
};
