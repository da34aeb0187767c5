/*  The functions beside the C handle: many operands at once, optimizer steps, the tape as a whole.  */
#include "handle.h"

#include <stdlib.h>
#include <string.h>

/*  The quick way: where all operands are Values in lists and tuples, nothing that is read runs Python code, so ids go
    straight to the pool and nothing has to be held. Where it finds anything else it takes back what it has recorded
    and returns NULL without an exception, and the general way starts over.  */

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

static int plain_id(PyObject *item, uint32_t *id)
{
    if (!is_value(item) || ((Value *)item)->id == TG_NONE)
        return 0;
    *id = ((Value *)item)->id;
    return 1;
}

/* The ids of its n items if all of them are Values: 1, or 0. */
static int plain_ids(PyObject *o, Py_ssize_t n, uint32_t *ids)
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
            if (!plain_id(ahead[i], ids + k + i))
                return 0;
    }
    return 1;
}

/* Record the node whose operands are xs, then ys and last where they are not NULL. */
static PyObject *record_plain(int op, PyObject *xs, PyObject *ys, PyObject *last)
{
    Py_ssize_t n = plain_size(xs), m = ys ? plain_size(ys) : 0;
    uint64_t total = (uint64_t)n + (uint64_t)m + (last != NULL);
    uint32_t *ids;
    Value *v;
    if (n < 1 || m < 0 || total >= TG_NONE || tg_passive() || !tg_make_room(1, total + 1))
        return NULL;
    v = tg_new_handle();
    if (!v)
        return NULL;
    ids = tg_push_many(T, op, (uint32_t)total);
    if (plain_ids(xs, n, ids) && (!ys || plain_ids(ys, m, ids + n)) && (!last || plain_id(last, ids + n + m))) {
        T->data[T->len - 1] = tg_many_primal(op, T->data, ids, (uint32_t)total);
        return own(v, T->len - 1);
    }
    tg_pop(T);
    Py_DECREF(v);
    return NULL;
}

/* Record the many-operand node of a list; without operands, a leaf. */
static PyObject *record_list(int op, const operand_list *list)
{
    uint32_t *ids = tg_realloc(NULL, (list->n + (size_t)1) * sizeof *ids);
    Value *v = NULL;
    if (!ids)
        return PyErr_NoMemory();
    if (tg_make_room((uint64_t)list->numbers + 1, (uint64_t)list->n + 1))
        v = tg_new_handle();
    if (v && list->n) {
        tg_ids_of(list, 0, list->n, ids);
        tg_record_many(T, op, ids, list->n);
        if (tg_passive()) {
            double y = T->data[T->len - 1];
            tg_pop(T);
            tg_push(T, TG_LEAF, 0, 0, y);
        }
        own(v, T->len - 1);
    } else if (v)
        own(v, tg_push(T, TG_LEAF, 0, 0, 0.0));
    free(ids);
    return (PyObject *)v;
}

static PyObject *module_dot(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"xs", "ys", "bias", NULL};
    PyObject *xs, *ys, *bias = Py_None, *node = NULL;
    operand_list list = {0};
    int64_t n, m = -1;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:dot", names, &xs, &ys, &bias))
        return NULL;
    if (plain_size(xs) == plain_size(ys))
        node = record_plain(TG_DOT, xs, ys, bias == Py_None ? NULL : bias);
    if (node || PyErr_Occurred())
        return node;
    n = tg_gather(&list, xs);
    if (n >= 0)
        m = tg_gather(&list, ys);
    if (m >= 0 && n != m)
        PyErr_Format(PyExc_ValueError, "dot: %lld xs but %lld ys", (long long)n, (long long)m);
    else if (m >= 0 && (bias == Py_None || tg_append(&list, bias)))
        node = record_list(TG_DOT, &list);
    tg_release(&list);
    return node;
}

static PyObject *module_sum(PyObject *module, PyObject *xs)
{
    operand_list list = {0};
    PyObject *node = record_plain(TG_SUM, xs, NULL, NULL);
    (void)module;
    if (!node && !PyErr_Occurred() && tg_gather(&list, xs) >= 0)
        node = record_list(TG_SUM, &list);
    tg_release(&list);
    return node;
}

static PyObject *module_logsumexp(PyObject *module, PyObject *xs)
{
    operand_list list = {0};
    PyObject *node = NULL;
    int64_t n = tg_gather(&list, xs);
    (void)module;
    if (n > 0)
        node = record_list(TG_LOGSUMEXP, &list);
    else if (n == 0)
        PyErr_SetString(PyExc_ValueError, "logsumexp of no operands");
    tg_release(&list);
    return node;
}

static PyObject *module_cross_entropy(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"logits", "target", NULL};
    PyObject *logits, *index, *node = NULL;
    Py_ssize_t target;
    operand_list list = {0};
    int64_t n;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:cross_entropy", names, &logits, &index))
        return NULL;
    target = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (target == -1 && PyErr_Occurred())
        return NULL;
    n = tg_gather(&list, logits);
    if (n >= 0 && (target < 0 || target >= n))
        PyErr_Format(PyExc_IndexError, "cross_entropy: target %zd of %lld logits", target, (long long)n);
    else if (n > 0 && tg_repeat(&list, (uint32_t)target))
        node = record_list(TG_CROSS_ENTROPY, &list);
    tg_release(&list);
    return node;
}

/* A loss of n scores against n targets. */
static PyObject *paired(int op, const char *name, PyObject *args, PyObject *kwargs, char **names)
{
    PyObject *scores, *targets, *node = NULL;
    operand_list list = {0};
    int64_t n, m = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO", names, &scores, &targets))
        return NULL;
    n = tg_gather(&list, scores);
    if (n >= 0)
        m = tg_gather(&list, targets);
    if (m >= 0 && n != m)
        PyErr_Format(PyExc_ValueError, "%s: %lld %s but %lld targets", name, (long long)n, names[0], (long long)m);
    else if (m == 0)
        PyErr_Format(PyExc_ValueError, "%s of no %s", name, names[0]);
    else if (m > 0)
        node = record_list(op, &list);
    tg_release(&list);
    return node;
}

static PyObject *module_mse(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"predictions", "targets", NULL};
    (void)module;
    return paired(TG_MSE, "mse", args, kwargs, names);
}

static PyObject *module_hinge(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"scores", "targets", NULL};
    (void)module;
    return paired(TG_HINGE, "hinge", args, kwargs, names);
}

/* A list of m handles without nodes, out of sight of gc.get_objects() until they have them: track it then. */
static PyObject *bare_list(uint32_t m)
{
    PyObject *list = PyList_New(m);
    for (uint32_t i = 0; list && i < m; i++) {
        Value *v = tg_new_handle();
        if (v)
            PyList_SetItem(list, i, (PyObject *)v);
        else
            Py_CLEAR(list);
    }
    if (list)
        PyObject_GC_UnTrack(list);
    return list;
}

/* Give the m nodes with these ids, the last that were recorded among them, to the handles of a bare list. */
static PyObject *own_all(PyObject *outputs, uint32_t *ids, uint32_t m)
{
    if (tg_passive()) {                    /* only their data stays */
        double *data = tg_realloc(NULL, (m + (size_t)1) * sizeof *data);
        if (!data) {
            tg_pop(T);
            Py_DECREF(outputs);
            return PyErr_NoMemory();
        }
        for (uint32_t i = 0; i < m; i++)
            data[i] = T->data[ids[i]];
        tg_pop(T);
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
    uint32_t width = (uint32_t)(2 * n + biased), *ids;
    PyObject *outputs;
    if (m < 1 || n < 1 || m >= (1 << 24) || n >= (1 << 24) || (biased && (!PyList_CheckExact(b) || PyList_Size(b) != m)))
        return NULL;
    outputs = tg_passive() ? NULL : bare_list((uint32_t)m);
    if (!outputs)
        return NULL;
    ids = tg_realloc(NULL, (size_t)n * sizeof *ids);
    if (!ids || !tg_make_room((uint64_t)n + 2 * (uint64_t)m, (uint64_t)m * (width + (uint64_t)1)))
        goto failed;
    if (PyList_Size(W) != m || PyList_Size(x) != n || (biased && PyList_Size(b) != m))
        goto failed;
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PyList_GetItem(x, k);
        if (PyFloat_Check(item))
            ids[k] = tg_push(T, TG_LEAF, 0, 0, PyFloat_AsDouble(item));
        else if (!plain_id(item, ids + k))
            goto failed;
    }
    for (Py_ssize_t i = 0; i < m; i++) {
        PyObject *row = PyList_GetItem(W, i);
        uint32_t *operands = tg_push_many(T, TG_DOT, width), dot = T->len - 1;
        if (!plain_ids(row, n, operands) || (biased && !plain_id(PyList_GetItem(b, i), operands + 2 * n)))
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
    tg_pop(T);
    return NULL;
}

static PyObject *module_affine(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"W", "b", "x", "activation", NULL};
    PyObject *W, *b, *x, *activation = Py_None, *rows = NULL, *outputs = NULL;
    operand_list list = {0};
    uint32_t *ids = NULL, *out, m, width;
    int64_t n;
    int op;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|O:affine", names, &W, &b, &x, &activation))
        return NULL;
    op = activation_op(activation);
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
    outputs = bare_list(m);
    if (!outputs || !tg_make_room((uint64_t)list.numbers + 2 * (uint64_t)m, m * (width + (uint64_t)1))) {
        Py_CLEAR(outputs);
        goto out;
    }
    tg_ids_of(&list, 0, list.n, ids);
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
    outputs = own_all(outputs, out, m);
out:
    Py_DECREF(rows);
    tg_release(&list);
    free(ids);
    return outputs;
}

static PyObject *module_softmax(PyObject *module, PyObject *xs)
{
    operand_list list = {0};
    PyObject *outputs = NULL;
    uint32_t *ids = NULL, total;
    (void)module;
    if (tg_gather(&list, xs) < 0)
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
    outputs = bare_list(list.n);
    if (!outputs)
        goto out;
    if (!tg_make_room(list.numbers + 2 * (uint64_t)list.n + 1, (uint64_t)list.n + 1)) {
        Py_CLEAR(outputs);
        goto out;
    }
    tg_ids_of(&list, 0, list.n, ids);
    total = (uint32_t)tg_record_many(T, TG_LOGSUMEXP, ids, list.n);
    for (uint32_t k = 0; k < list.n; k++) {
        double below = T->data[ids[k]] - T->data[total];
        uint32_t difference = tg_push(T, TG_SUB, ids[k], total, below);
        ids[k] = tg_push(T, TG_EXP, difference, difference, exp(below));
    }
    outputs = own_all(outputs, ids, list.n);
out:
    tg_release(&list);
    free(ids);
    return outputs;
}

static PyObject *floats(PyObject *values, int grads)
{
    value_list list;
    PyObject *out = NULL;
    double *x = NULL;
    if (tg_gather_values(&list, values)) {
        x = tg_realloc(NULL, (list.n + (size_t)1) * sizeof *x);
        for (uint32_t k = 0; x && k < list.n; k++)
            x[k] = grads ? tg_read_grad(T, list.id[k], tg_thread()) : T->data[list.id[k]];
        out = x ? PyList_New(list.n) : PyErr_NoMemory();
        for (uint32_t k = 0; out && k < list.n; k++) {
            PyObject *item = PyFloat_FromDouble(x[k]);
            if (!item || PyList_SetItem(out, k, item))
                Py_CLEAR(out);
        }
    }
    free(x);
    Py_XDECREF(tg_let_go(&list, out != NULL));
    return out;
}

static PyObject *module_data(PyObject *module, PyObject *values)
{
    (void)module;
    return tg_note_escape("data() was called: a replay does not see it") ? NULL : floats(values, 0);
}

static PyObject *module_grads(PyObject *module, PyObject *values)
{
    (void)module;
    return tg_note_escape("grads() was called: a replay does not see it") ? NULL : floats(values, 1);
}

/* Write the numbers of an iterable to the data or the grads of as many Values. */
static PyObject *write_all(PyObject *values, PyObject *numbers, int grads)
{
    operand_list list = {0};
    value_list to = {0};
    int64_t count;
    int good = 0;
    count = tg_gather(&list, numbers);
    if (count >= 0 && list.numbers < list.n)
        PyErr_Format(PyExc_TypeError, "%s are numbers, not 'Value'", grads ? "grads" : "data");
    else if (count >= 0 && tg_gather_values(&to, values)) {
        good = to.n == count;
        if (!good)
            PyErr_Format(PyExc_ValueError, "%u Values but %lld numbers", to.n, (long long)count);
        for (uint32_t k = 0; good && k < to.n; k++) {
            if (grads)
                tg_write_grad(T, to.id[k], tg_thread(), list.number[k]);
            else
                T->data[to.id[k]] = list.number[k];
        }
    }
    tg_release(&list);
    return tg_let_go(&to, good);
}

static PyObject *module_set_data(PyObject *module, PyObject *args)
{
    PyObject *values, *numbers;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &values, &numbers) ||
        tg_note_escape("set_data() was called: a replay does not see it"))
        return NULL;
    return write_all(values, numbers, 0);
}

static PyObject *module_set_grads(PyObject *module, PyObject *args)
{
    PyObject *values, *numbers;
    (void)module;
    return PyArg_ParseTuple(args, "OO", &values, &numbers) ? write_all(values, numbers, 1) : NULL;
}

static PyObject *module_zero_grad(PyObject *module, PyObject *values)
{
    value_list list;
    int good = tg_gather_values(&list, values);
    (void)module;
    for (uint32_t k = 0; good && k < list.n; k++)
        tg_write_grad(T, list.id[k], tg_thread(), 0.0);
    return tg_let_go(&list, good);
}

/* The doubles of a bytearray, n of them; NULL for None; 0 with an exception where it is of another size. */
static int state_of(PyObject *bytes, uint32_t n, double **state)
{
    *state = NULL;
    if (bytes == Py_None)
        return 1;
    if (!PyByteArray_Check(bytes) || PyByteArray_Size(bytes) != (Py_ssize_t)(n * sizeof **state)) {
        PyErr_SetString(PyExc_ValueError, "the optimizer's state does not fit its parameters");
        return 0;
    }
    *state = (double *)(void *)PyByteArray_AsString(bytes);
    return 1;
}

static PyObject *module_sgd(PyObject *module, PyObject *args)
{
    PyObject *values, *buffer;
    value_list list;
    tg_sgd_rule r;
    double *state;
    int good;
    (void)module;
    if (!PyArg_ParseTuple(args, "OddddpppO", &values, &r.lr, &r.momentum, &r.dampening, &r.weight_decay, &r.nesterov,
                          &r.maximize, &r.first, &buffer))
        return NULL;
    if (tg_note_escape("an optimizer wrote .data: a replay does not see it"))
        return NULL;
    good = tg_gather_values(&list, values) && state_of(buffer, list.n, &state);
    if (good)
        tg_sgd(T, list.id, list.n, &r, state);
    return tg_let_go(&list, good);
}

static PyObject *module_adam(PyObject *module, PyObject *args)
{
    PyObject *values, *first, *second, *largest;
    value_list list;
    tg_adam_rule r;
    double *m, *v, *top;
    int good;
    (void)module;
    if (!PyArg_ParseTuple(args, "OddddddppO!O!O", &values, &r.lr, &r.beta1, &r.beta2, &r.eps, &r.weight_decay, &r.step,
                          &r.decoupled, &r.maximize, &PyByteArray_Type, &first, &PyByteArray_Type, &second, &largest))
        return NULL;
    if (tg_note_escape("an optimizer wrote .data: a replay does not see it"))
        return NULL;
    good = tg_gather_values(&list, values) && state_of(first, list.n, &m) && state_of(second, list.n, &v) &&
           state_of(largest, list.n, &top);
    if (good)
        tg_adam(T, list.id, list.n, &r, m, v, top);
    return tg_let_go(&list, good);
}

static PyObject *module_rmsprop(PyObject *module, PyObject *args)
{
    PyObject *values, *squares, *means, *buffers;
    value_list list;
    tg_rmsprop_rule r;
    double *square, *mean, *buffer;
    int good;
    (void)module;
    if (!PyArg_ParseTuple(args, "OdddddppO!OO", &values, &r.lr, &r.alpha, &r.eps, &r.weight_decay, &r.momentum,
                          &r.centered, &r.maximize, &PyByteArray_Type, &squares, &means, &buffers))
        return NULL;
    if (tg_note_escape("an optimizer wrote .data: a replay does not see it"))
        return NULL;
    good = tg_gather_values(&list, values) && state_of(squares, list.n, &square) && state_of(means, list.n, &mean) &&
           state_of(buffers, list.n, &buffer);
    if (good)
        tg_rmsprop(T, list.id, list.n, &r, square, mean, buffer);
    return tg_let_go(&list, good);
}

static PyObject *module_leaves(PyObject *module, PyObject *iterable)
{
    operand_list list = {0};
    PyObject *leaves = NULL;
    (void)module;
    if (tg_gather(&list, iterable) < 0)
        goto out;
    if (list.numbers < list.n) {
        PyErr_SetString(PyExc_TypeError, "leaves are made of numbers, not 'Value'");
        goto out;
    }
    leaves = bare_list(list.n);
    if (leaves && !tg_make_room(list.n, 0))
        Py_CLEAR(leaves);
    for (uint32_t k = 0; leaves && k < list.n; k++)
        own((Value *)PyList_GetItem(leaves, k), tg_push(T, TG_LEAF, 0, 0, list.number[k]));
    if (leaves)
        PyObject_GC_Track(leaves);
out:
    tg_release(&list);
    return leaves;
}

static PyObject *module_no_grad(PyObject *module, PyObject *step)
{
    int by = (int)PyLong_AsLong(step);
    (void)module;
    if (PyErr_Occurred())
        return NULL;
    tg_passive_by(by);
    Py_RETURN_NONE;
}

static PyObject *module_size(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLong(T->len);
}

static PyObject *module_bytes(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(tg_bytes(T));
}

static PyObject *module_collect(PyObject *module, PyObject *unused)
{
    int64_t freed = tg_reclaim();
    (void)module, (void)unused;
    return freed < 0 ? tg_raise(freed, TG_LEAF, 0.0, 0.0) : PyLong_FromLongLong(freed);
}

static PyObject *module_reset(PyObject *module, PyObject *unused)
{
    int64_t code;
    (void)module, (void)unused;
    if (T->sweep || T->recorders) {
        PyErr_SetString(PyExc_RuntimeError, T->sweep ? "the tape cannot be reset while a sweep is running a rule"
                                                     : "the tape cannot be reset while a program is being recorded");
        return NULL;
    }
    code = tg_forget_history();
    if (code < 0)
        return tg_raise(code, TG_LEAF, 0.0, 0.0);
    Py_RETURN_NONE;
}

static PyObject *module_clear_grads(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    tg_clear_grads(T);
    Py_RETURN_NONE;
}

static PyObject *module_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("IIIKKd", T->len, tg_owners(T), T->cap, (unsigned long long)tg_bytes(T),
                         (unsigned long long)T->reclaims, T->reclaim_seconds);
}

PyMethodDef tg_functions[] = {
    {"dot", (PyCFunction)(void (*)(void))module_dot, METH_VARARGS | METH_KEYWORDS,
     "dot($module, /, xs, ys, bias=None)\n--\n\n"
     "bias + xs[0] * ys[0] + xs[1] * ys[1] + .., as one node.\n\n"
     "Args:\n    xs, ys: iterables of Values and numbers, of the same length n.\n"
     "    bias: where the sum starts: a Value or a number; 0.0 without.\n\n"
     "Returns:\n    A Value whose operands are xs, then ys, then bias.\n\n"
     "Raises:\n    ValueError: the lengths differ.\n    TypeError: an element is no Value and no number."},
    {"sum", module_sum, METH_O,
     "sum($module, xs, /)\n--\n\nxs[0] + xs[1] + .., left to right from 0.0, as one node.\n\n"
     "Args:\n    xs: an iterable of Values and numbers.\n\nReturns:\n    A Value; a leaf 0.0 where xs is empty."},
    {"logsumexp", module_logsumexp, METH_O,
     "logsumexp($module, xs, /)\n--\n\nlog(exp(xs[0]) + exp(xs[1]) + ..) without overflow, as one node.\n\n"
     "Args:\n    xs: an iterable of Values and numbers, not empty.\n\n"
     "Source: Blanchard, Higham, Higham, IMA J. Numer. Anal. 41 (2021)."},
    {"cross_entropy", (PyCFunction)(void (*)(void))module_cross_entropy, METH_VARARGS | METH_KEYWORDS,
     "cross_entropy($module, /, logits, target)\n--\n\n"
     "-log(softmax(logits)[target]), without overflow, as one node.\n\n"
     "Args:\n    logits: an iterable of n Values and numbers.\n"
     "    target: the index of the right class, 0 to n - 1.\n\n"
     "Raises:\n    IndexError: there is no such class."},
    {"mse", (PyCFunction)(void (*)(void))module_mse, METH_VARARGS | METH_KEYWORDS,
     "mse($module, /, predictions, targets)\n--\n\nMean of (predictions[k] - targets[k]) ** 2, as one node.\n\n"
     "Args:\n    predictions, targets: iterables of Values and numbers, of the same length, not empty.\n\n"
     "Raises:\n    ValueError: the lengths differ or are 0."},
    {"hinge", (PyCFunction)(void (*)(void))module_hinge, METH_VARARGS | METH_KEYWORDS,
     "hinge($module, /, scores, targets)\n--\n\n"
     "Mean of max(0, 1 - targets[k] * scores[k]), as one node; targets are -1 or 1.\n\n"
     "Args:\n    scores, targets: iterables of Values and numbers, of the same length, not empty.\n\n"
     "Raises:\n    ValueError: the lengths differ or are 0."},
    {"softmax", module_softmax, METH_O,
     "softmax($module, xs, /)\n--\n\nA list of exp(xs[k]) / (exp(xs[0]) + exp(xs[1]) + ..), without overflow.\n\n"
     "Args:\n    xs: an iterable of Values and numbers.\n\nReturns:\n    As many Values."},
    {"affine", (PyCFunction)(void (*)(void))module_affine, METH_VARARGS | METH_KEYWORDS,
     "affine($module, /, W, b, x, activation=None)\n--\n\n"
     "activation(W x + b): a list of m Values, one dot node a row and one activation node.\n\n"
     "Args:\n    W: m rows of n Values and numbers.\n    b: m Values and numbers, or None.\n"
     "    x: n Values and numbers; a number becomes one leaf for all rows.\n"
     "    activation: None or the name of an operation of one operand that refuses nothing,\n"
     "        as 'relu', 'tanh', 'sigmoid'.\n\n"
     "Returns:\n    The m results; each sum starts from its b and goes from left to right.\n\n"
     "Raises:\n    ValueError: the lengths do not fit, or there is no such activation."},
    {"data", module_data, METH_O, NULL},
    {"grads", module_grads, METH_O, NULL},
    {"set_data", module_set_data, METH_VARARGS, NULL},
    {"set_grads", module_set_grads, METH_VARARGS, NULL},
    {"sgd", module_sgd, METH_VARARGS, NULL},
    {"adam", module_adam, METH_VARARGS, NULL},
    {"rmsprop", module_rmsprop, METH_VARARGS, NULL},
    {"leaves", module_leaves, METH_O,
     "leaves($module, numbers, /)\n--\n\nA list of new leaves, one for every number of an iterable."},
    {"zero_grad", module_zero_grad, METH_O,
     "zero_grad($module, values, /)\n--\n\nSet the grad of every Value of an iterable to 0.0."},
    {"begin_recording", tg_begin_recording, METH_VARARGS, NULL},
    {"end_recording", tg_end_recording, METH_NOARGS, NULL},
    {"freeze", tg_freeze_recording, METH_VARARGS, NULL},
    {"no_grad_by", module_no_grad, METH_O, "Enter (1) or leave (-1) no_grad in this thread."},
    {"size", module_size, METH_NOARGS, NULL},
    {"nbytes", module_bytes, METH_NOARGS, NULL},
    {"collect", module_collect, METH_NOARGS, NULL},
    {"reset", module_reset, METH_NOARGS, NULL},
    {"clear_grads", module_clear_grads, METH_NOARGS, NULL},
    {"stats", module_stats, METH_NOARGS, NULL},
    {0},
};
