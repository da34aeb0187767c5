#include "operands.h"

#include <stdlib.h>

void tg_release(operand_list *list)
{
    for (uint32_t k = 0; k < list->n; k++)
        Py_DECREF(list->item[k]);
    free(list->item);
    free(list->number);
}

static int make_space(operand_list *list, uint64_t more)
{
    uint64_t cap = list->n + more;
    PyObject **item;
    double *number;
    if (cap <= list->cap)
        return 1;
    cap = cap < 2 * (uint64_t)list->cap ? 2 * (uint64_t)list->cap : cap;
    item = cap < TG_NONE ? tg_realloc(list->item, cap * sizeof *item) : NULL;
    if (item)
        list->item = item;
    number = item ? tg_realloc(list->number, cap * sizeof *number) : NULL;
    if (!number) {
        PyErr_NoMemory();
        return 0;
    }
    list->number = number;
    list->cap = (uint32_t)cap;
    return 1;
}

int tg_append(operand_list *list, PyObject *item)
{
    if (list->n == list->cap && !make_space(list, list->cap < 8 ? 8 : list->cap))
        return 0;
    if (is_value(item)) {
        if (!has_node((Value *)item))
            return 0;
    } else {
        if (!tg_need_number("operands must be Values or numbers", item, &list->number[list->n]))
            return 0;
        list->numbers++;
    }
    Py_INCREF(item);
    list->item[list->n++] = item;
    return 1;
}

/* What runs on the way may change a list: its size is asked again. */
int64_t tg_gather(operand_list *list, PyObject *iterable)
{
    uint32_t before = list->n;
    if (PyList_CheckExact(iterable)) {
        if (!make_space(list, (uint64_t)PyList_Size(iterable)))
            return -1;
        for (Py_ssize_t k = 0; k < PyList_Size(iterable); k++) {
            PyObject *item = PyList_GetItem(iterable, k);
            int good;
            Py_INCREF(item);
            good = tg_append(list, item);
            Py_DECREF(item);
            if (!good)
                return -1;
        }
    } else {
        PyObject *tuple = PySequence_Tuple(iterable);
        Py_ssize_t n = tuple ? PyTuple_Size(tuple) : 0;
        int good = tuple && make_space(list, (uint64_t)n);
        for (Py_ssize_t k = 0; good && k < n; k++)
            good = tg_append(list, PyTuple_GetItem(tuple, k));
        Py_XDECREF(tuple);
        if (!good)
            return -1;
    }
    return list->n - before;
}

void tg_ids_of(const operand_list *list, uint32_t *ids)
{
    for (uint32_t k = 0; k < list->n; k++)
        ids[k] = is_value(list->item[k]) ? ((Value *)list->item[k])->id : tg_push(T, TG_LEAF, 0, 0, list->number[k]);
}

int tg_gather_values(value_list *list, PyObject *values)
{
    Py_ssize_t n;
    list->id = NULL;
    list->tuple = PySequence_Tuple(values);
    if (!list->tuple)
        return 0;
    n = PyTuple_Size(list->tuple);
    list->n = (uint32_t)n;
    list->id = n < (Py_ssize_t)TG_NONE ? tg_realloc(NULL, ((size_t)n + 1) * sizeof *list->id) : NULL;
    if (!list->id) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t k = 0; k < n; k++) {
        Value *v = (Value *)PyTuple_GetItem(list->tuple, k);
        if (!is_value((PyObject *)v)) {
            tg_wrong_type("this takes Values", (PyObject *)v);
            return 0;
        }
        if (!has_node(v))
            return 0;
        list->id[k] = v->id;
    }
    return 1;
}

void tg_read_ids(value_list *list)
{
    for (uint32_t k = 0; k < list->n; k++)
        list->id[k] = ((Value *)PyTuple_GetItem(list->tuple, k))->id;
}

PyObject *tg_let_go(value_list *list, int good)
{
    free(list->id);
    Py_XDECREF(list->tuple);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *tg_float_list(const double *x, uint32_t n)
{
    PyObject *list = PyList_New(n);
    for (uint32_t k = 0; list && k < n; k++) {
        PyObject *item = PyFloat_FromDouble(x[k]);
        if (!item || PyList_SetItem(list, k, item))
            Py_CLEAR(list);
    }
    return list;
}
