/*  The module tapegrad._c_handle: the type, the functions beside it, and the tape as a whole.  */
#include "bulk.h"
#include "copies.h"
#include "gradients.h"
#include "held.h"
#include "layout.h"
#include "many.h"
#include "quick.h"
#include "recording.h"
#include "value.h"

int tg_make_c_handle(void);

static PyObject *module_no_grad(PyObject *module, PyObject *step)
{
    const int by = (int)PyLong_AsLong(step), before = tg_grad_off();
    (void)module;
    if (PyErr_Occurred() || tg_grad_off_by(by))
        return NULL;
    return PyLong_FromLong(before);
}

static PyObject *module_leave_no_grad(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    if (tg_grad_off_by(-1))
        return NULL;
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

static PyMethodDef tape_functions[] = {
    {"no_grad_by", module_no_grad, METH_O,
     "Enter (1) or leave (-1) no_grad in this context; how deep it was in it before."},
    {"leave_no_grad", module_leave_no_grad, METH_VARARGS,
     "Leave no_grad in this context, as __exit__ of a with statement."},
    {"size", module_size, METH_NOARGS, NULL},
    {"nbytes", module_bytes, METH_NOARGS, NULL},
    {"collect", module_collect, METH_NOARGS, NULL},
    {"reset", module_reset, METH_NOARGS, NULL},
    {"clear_grads", module_clear_grads, METH_NOARGS, NULL},
    {"stats", module_stats, METH_NOARGS, NULL},
    {0},
};

static int fill_module(void)
{
    PyMethodDef *functions[] = {tg_many_functions, tg_bulk_functions, tg_gradient_functions, tg_layout_functions,
                                tg_copies_functions, tg_recording_functions, tape_functions};
    PyObject *refusals = PyImport_ImportModule("tapegrad._refusals"), *module;
    if (!refusals)
        return -1;
    tg_as_number = PyObject_GetAttrString(refusals, "as_number");
    tg_refused = PyObject_GetAttrString(refusals, "refused");
    Py_DECREF(refusals);
    tg_rule_name = PyUnicode_InternFromString("_backward");
    tg_op_name = PyUnicode_InternFromString("_op");
    module = PyImport_AddModule("tapegrad._c_handle");      /* borrowed */
    if (!tg_as_number || !tg_refused || !tg_rule_name || !tg_op_name || !module || tg_make_no_grad())
        return -1;
    for (size_t k = 0; k < sizeof functions / sizeof *functions; k++)
        if (PyModule_AddFunctions(module, functions[k]))
            return -1;
    tg_value_type = tg_make_value_type();
    if (!tg_value_type || tg_add_quick(module))
        return -1;
    return PyModule_AddObjectRef(module, "Value", (PyObject *)tg_value_type);
}

/* Called through cffi, which released the GIL and knows no PyObject: the module goes to sys.modules. 0, or -1 after the
   error was printed. */
int tg_make_c_handle(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int code = 0;
    if (!tg_value_type && fill_module()) {
        PyErr_Print();
        code = -1;
    }
    PyGILState_Release(gil);
    return code;
}
