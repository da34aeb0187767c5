#include "layout.h"

#include "held.h"
#include "lay_out.h"
#include "operands.h"
#include "recording.h"

#include <stdlib.h>
#include <string.h>

/* Fill a list that was there before the nodes, which nothing holds yet. 1, or 0 with an exception. */
static int fill(PyObject *list, const uint32_t *ids, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        PyObject *v = tg_handle_of(ids[k]);
        if (!v || PyList_SetItem(list, k, v))
            return 0;
    }
    return 1;
}

/* lay_out(address, codes, inputs, nan_errors): the outputs of a program at Values. */
static PyObject *lay_out(PyObject *module, PyObject *args)
{
    unsigned long long address;
    const tg_program *p;
    tg_program *plain = NULL;
    PyObject *codes, *values, *out = NULL;
    value_list in = {0};
    uint32_t *of = NULL;
    int nan_errors;
    (void)module;
    if (!PyArg_ParseTuple(args, "KO!Op", &address, &PyList_Type, &codes, &values, &nan_errors))
        return NULL;
    p = (const tg_program *)(uintptr_t)address;
    if (p->order) {
        p = plain = tg_plain_program(p);
        if (!plain)
            return PyErr_NoMemory();
    }
    if (tg_gather_values(&in, values) && tg_make_room((uint64_t)p->n_const + p->n_instr, p->n_pool)) {
        const size_t n = p->n_instr;
        of = in.n == p->n_in ? tg_realloc(NULL, (3 * n + p->n_out + 1) * sizeof *of) : NULL;
        if (in.n != p->n_in)
            PyErr_Format(PyExc_ValueError, "%u Values for %u inputs", in.n, p->n_in);
        else if (!of)
            PyErr_NoMemory();
        else if ((out = PyList_New(p->n_out)) != NULL) {
            int code;
            tg_read_ids(&in);                           /* making room may have moved them */
            code = tg_lay_out(T, p, in.id, nan_errors, of, of + n, of + 2 * n, of + 3 * n);
            if (code)
                tg_raise(code, TG_LEAF, 0.0, 0.0);
            if (code || !fill(out, of + 3 * n, p->n_out) ||
                (T->recorders && tg_note_layout(p, codes, of, of + n, of + 2 * n)))
                Py_CLEAR(out);
        }
    }
    free(of);
    tg_free_program(plain);
    Py_XDECREF(tg_let_go(&in, 1));
    return out;
}

/* Own new nodes of these data, results of the node of a call, each with this rule; their ids to ids. 1, or 0 with an
   exception. There is room. */
static int own_results(PyObject *list, PyObject *data, uint32_t call, PyObject *rule, uint32_t *ids)
{
    const Py_ssize_t n = PyList_Size(data);
    for (Py_ssize_t k = 0; k < n; k++) {
        uint32_t *operand = tg_push_many(T, TG_NODE, 1);
        ids[k] = T->len - 1;
        operand[0] = call;
        T->data[ids[k]] = PyFloat_AsDouble(PyList_GetItem(data, k));
        own((Value *)PyList_GetItem(list, k), ids[k]);
    }
    PyObject_GC_Track(list);
    for (Py_ssize_t k = 0; k < n; k++) {
        Value *v = (Value *)PyList_GetItem(list, k);
        const int code = tg_set_rule(T, v->id, 1);
        if (code)
            tg_raise(code, TG_LEAF, 0.0, 0.0);
        if (code || tg_set_attribute(v, tg_rule_name, rule))
            return 0;
    }
    return !PyErr_Occurred();
}

/* lay_out_call(address, inputs, data, rule): Values of these data, the results of a loop of the core at Values, for the
   program that is being recorded. A sweep over them calls the rule. */
static PyObject *lay_out_call(PyObject *module, PyObject *args)
{
    unsigned long long address;
    PyObject *values, *data, *rule, *list = NULL;
    value_list in = {0};
    uint32_t *ids = NULL, n;
    (void)module;
    if (!PyArg_ParseTuple(args, "KOO!O", &address, &values, &PyList_Type, &data, &rule))
        return NULL;
    n = (uint32_t)PyList_Size(data);
    if (tg_gather_values(&in, values) && tg_make_room((uint64_t)n + 1, in.n + 2 * (uint64_t)n + 1)) {
        ids = tg_realloc(NULL, (in.n + (size_t)n) * sizeof *ids + 1);
        list = ids ? tg_bare_list(n) : PyErr_NoMemory();
        if (list) {
            tg_read_ids(&in);
            memcpy(ids, in.id, in.n * sizeof *ids);
            memcpy(tg_push_many(T, TG_NODE, in.n), in.id, in.n * sizeof *ids);
            if (!own_results(list, data, T->len - 1, rule, ids + in.n) ||
                tg_note_call((const tg_loop *)(uintptr_t)address, ids, in.n, n))
                Py_CLEAR(list);
        }
    }
    free(ids);
    Py_XDECREF(tg_let_go(&in, 1));
    return list;
}

PyMethodDef tg_layout_functions[] = {
    {"lay_out", lay_out, METH_VARARGS,
     "lay_out(address, codes, inputs, nan_errors): record what a program of the core does at Values; its outputs."},
    {"lay_out_call", lay_out_call, METH_VARARGS,
     "lay_out_call(address, inputs, data, rule): record a loop of the core at Values as one; its outputs."},
    {0},
};
