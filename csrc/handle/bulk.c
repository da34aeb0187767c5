#include "bulk.h"

#include "held.h"
#include "operands.h"
#include "recording.h"

#include <stdlib.h>
#include <string.h>

static PyObject *floats(PyObject *values, int grads)
{
    value_list list;
    PyObject *out = NULL;
    double *x = NULL;
    if (tg_gather_values(&list, values)) {
        x = tg_realloc(NULL, (list.n + (size_t)1) * sizeof *x);
        for (uint32_t k = 0; x && k < list.n; k++)
            x[k] = grads ? tg_read_grad(T, list.id[k], tg_thread()) : T->data[list.id[k]];
        out = x ? tg_float_list(x, list.n) : PyErr_NoMemory();
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

static PyObject *module_primals(PyObject *module, PyObject *values)
{
    (void)module;
    return floats(values, 0);
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
    int64_t count = tg_gather(&list, numbers);
    int good = 0;
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
    tg_sgd_settings r;
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
    tg_adam_settings r;
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
    tg_rmsprop_settings r;
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

/* Leaves of numbers, and of Values, where they may be there, nodes with the same data that pass everything on. */
static PyObject *new_nodes(PyObject *iterable, int values)
{
    operand_list list = {0};
    PyObject *nodes = NULL;
    if (tg_gather(&list, iterable) >= 0) {
        if (values || list.numbers == list.n)
            nodes = tg_bare_list(list.n);
        else
            PyErr_SetString(PyExc_TypeError, "leaves are made of numbers, not 'Value'");
    }
    if (nodes && !tg_make_room(list.n, 0))
        Py_CLEAR(nodes);
    for (uint32_t k = 0; nodes && k < list.n; k++) {
        uint32_t id = is_value(list.item[k]) ? ((Value *)list.item[k])->id : TG_NONE;
        own((Value *)PyList_GetItem(nodes, k), id == TG_NONE ? tg_push(T, TG_LEAF, 0, 0, list.number[k])
                                                             : tg_push(T, TG_COPY, id, id, T->data[id]));
    }
    if (nodes)
        PyObject_GC_Track(nodes);
    tg_release(&list);
    return nodes;
}

/* Leaves of the doubles that lie side by side in an array; None, borrowed, where there are none. */
static PyObject *leaves_of_doubles(PyObject *array)
{
    PyObject *leaves = Py_None;
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_CONTIG_RO | PyBUF_FORMAT)) {
        PyErr_Clear();
        return leaves;
    }
    if (view.ndim == 1 && view.format && !strcmp(view.format, "d") && view.shape[0] < (Py_ssize_t)TG_NONE) {
        const uint32_t n = (uint32_t)view.shape[0];
        leaves = tg_bare_list(n);
        if (leaves && !tg_make_room(n, 0))
            Py_CLEAR(leaves);
        for (uint32_t k = 0; leaves && k < n; k++) {
            double number;                              /* which may lie anywhere */
            memcpy(&number, (const char *)view.buf + k * sizeof number, sizeof number);
            own((Value *)PyList_GetItem(leaves, k), tg_push(T, TG_LEAF, 0, 0, number));
        }
        if (leaves)
            PyObject_GC_Track(leaves);
    }
    PyBuffer_Release(&view);
    return leaves;
}

/* Of an array with a mask, which its buffer does not know, elements are asked for. */
static PyObject *module_leaves(PyObject *module, PyObject *iterable)
{
    const int plain = PyObject_CheckBuffer(iterable) && !PyObject_HasAttrString(iterable, "mask");
    PyObject *leaves = plain ? leaves_of_doubles(iterable) : Py_None;
    (void)module;
    return leaves == Py_None ? new_nodes(iterable, 0) : leaves;
}

static PyObject *module_fresh(PyObject *module, PyObject *iterable)
{
    (void)module;
    return new_nodes(iterable, 1);
}

static int floats_alone(PyObject *list, Py_ssize_t n)
{
    if (PyList_Size(list) != n)
        return 0;
    for (Py_ssize_t k = 0; k < n; k++)
        if (!PyFloat_CheckExact(PyList_GetItem(list, k)))
            return 0;
    return 1;
}

static PyObject *module_plain_leaves(PyObject *module, PyObject *numbers)
{
    const Py_ssize_t n = PyList_CheckExact(numbers) ? PyList_Size(numbers) : -1;
    PyObject *leaves;
    (void)module;
    if (n < 0 || n >= (Py_ssize_t)TG_NONE || !floats_alone(numbers, n))
        Py_RETURN_NONE;
    leaves = tg_bare_list((uint32_t)n);
    if (leaves && !tg_make_room((uint64_t)n, 0))
        Py_CLEAR(leaves);
    if (leaves && !floats_alone(numbers, n)) {          /* making room may have run Python code */
        PyErr_SetString(PyExc_RuntimeError, "the list changed while it was read");
        Py_CLEAR(leaves);
    }
    for (Py_ssize_t k = 0; leaves && k < n; k++)
        own((Value *)PyList_GetItem(leaves, k),
            tg_push(T, TG_LEAF, 0, 0, PyFloat_AsDouble(PyList_GetItem(numbers, k))));
    if (leaves)
        PyObject_GC_Track(leaves);
    return leaves;
}

PyMethodDef tg_bulk_functions[] = {
    {"data", module_data, METH_O, NULL},
    {"grads", module_grads, METH_O, NULL},
    {"primals", module_primals, METH_O,
     "primals($module, values, /)\n--\n\nTheir data; a recording is not told."},
    {"set_data", module_set_data, METH_VARARGS, NULL},
    {"set_grads", module_set_grads, METH_VARARGS, NULL},
    {"sgd", module_sgd, METH_VARARGS, NULL},
    {"adam", module_adam, METH_VARARGS, NULL},
    {"rmsprop", module_rmsprop, METH_VARARGS, NULL},
    {"leaves", module_leaves, METH_O,
     "leaves($module, numbers, /)\n--\n\nA list of new leaves, one for every number of an iterable.\n\n"
     "Args:\n    numbers: n of them, in any iterable or array.\n\nReturns:\n    A list of n Values.\n\n"
     "Raises:\n    TypeError: one of them is a Value or no number.\n\n"
     ">>> leaves([1.0, 2.0])\n[Value(data=1.0, grad=0.0), Value(data=2.0, grad=0.0)]"},
    {"fresh", module_fresh, METH_O,
     "fresh($module, items, /)\n--\n\n"
     "Leaves of numbers, and of Values nodes of their own with the same data, which pass everything on."},
    {"plain_leaves", module_plain_leaves, METH_O,
     "plain_leaves($module, numbers, /)\n--\n\nAs `leaves`, of a list of floats alone; None of anything else."},
    {"zero_grad", module_zero_grad, METH_O,
     "zero_grad($module, values, /)\n--\n\nSet the grad of every Value of an iterable to 0.0."},
    {0},
};
