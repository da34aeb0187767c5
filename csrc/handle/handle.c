#include "handle.h"

#include <pythread.h>
#include <string.h>

PyTypeObject *tg_value_type;
PyObject *tg_as_number, *tg_refused, *tg_rule_name, *tg_op_name;

/* ---- handles come and go ---- */

#define SPARE_MOST 256
Value *tg_spare;
int tg_spares;

Value *tg_another_handle(void)
{
    Value *v = PyObject_New(Value, tg_value_type);
    if (v) {
        v->id = TG_NONE;
        v->dict = v->weakrefs = NULL;
    }
    return v;
}

static inline void make_spare(Value *v)
{
    v->dict = (PyObject *)tg_spare;
    v->weakrefs = NULL;
    tg_spare = v;
    tg_spares++;
}

static void free_memory(Value *v)
{
    PyTypeObject *type = Py_TYPE((PyObject *)v);
    if (type == tg_value_type && tg_spares < SPARE_MOST)
        make_spare(v);
    else {
        ((freefunc)PyType_GetSlot(type, Py_tp_free))(v);
        Py_DECREF(type);
    }
}

void tg_discard(Value *gone)
{
    while (gone) {
        Value *v = gone;
        PyObject *dict = v->dict;
        gone = (Value *)v->weakrefs;
        free_memory(v);
        Py_XDECREF(dict);
    }
}

void tg_pop_dead(void)
{
    Value *gone = NULL;
    if (T->recorders)
        return;
    for (tg_pop(T); T->len && TG_LEFT(T->owner[T->len - 1]); tg_pop(T)) {
        Value *v = HANDLE(T->owner[T->len - 1]);
        T->owner[T->len - 1] = NULL;
        v->weakrefs = (PyObject *)gone;
        gone = v;
    }
    tg_discard(gone);
}

PyObject *tg_handle_of(uint32_t id)
{
    void *owner = T->owner[id];
    Value *v = HANDLE(owner);
    if (v && !TG_LEFT(owner) && Py_REFCNT((PyObject *)v) > 0) {     /* 0: dying, and its weakref callbacks run */
        Py_INCREF((PyObject *)v);
        return (PyObject *)v;
    }
    if (v && TG_LEFT(owner)) {
        PyTypeObject *type = Py_TYPE((PyObject *)v);
        PyObject_Init((PyObject *)v, type);
        Py_DECREF(type);                                            /* what was left kept its reference */
        v->weakrefs = NULL;
        if (PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC)
            PyObject_GC_Track(v);
    } else {
        v = tg_new_handle();
        if (!v)
            return NULL;
    }
    return own(v, id);
}

Value *tg_new_of(PyTypeObject *type)
{
    Value *v;
    if (type == tg_value_type)
        return tg_new_handle();
    v = (Value *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (v)
        v->id = TG_NONE;
    return v;
}

PyObject *tg_bare_list(uint32_t m)
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

/* A handle dies that there is more to do for than for most. */
TG_OUTSIDE void ends(Value *v)
{
    PyObject *dict;
    if (v->weakrefs)
        PyObject_ClearWeakRefs((PyObject *)v);
    if (v->id < T->len && T->owner[v->id] == v) {
        T->owner[v->id] = NULL;
        if (v->id == T->len - 1 && !T->recorders)
            tg_pop_dead();
        else if (v->dict || Py_TYPE((PyObject *)v) != tg_value_type) {
            T->owner[v->id] = (void *)((uintptr_t)v | 1);
            return;
        }
    }
    dict = v->dict;
    free_memory(v);
    Py_XDECREF(dict);
}

void tg_handle_dies(PyObject *self)
{
    Value *v = (Value *)self;
    if (!v->weakrefs && !v->dict && Py_TYPE(self) == tg_value_type && tg_spares < SPARE_MOST &&
        (uint64_t)v->id + 1 < T->len && T->owner[v->id] == v) {
        T->owner[v->id] = NULL;
        make_spare(v);
    } else
        ends(v);
}

/* ---- what is set on a handle ---- */

PyObject *tg_attribute(const Value *v, PyObject *name)
{
    return v->dict ? PyDict_GetItemWithError(v->dict, name) : NULL;
}

int tg_set_attribute(Value *v, PyObject *name, PyObject *value)
{
    if (!value) {
        if (v->dict && PyDict_GetItemWithError(v->dict, name))
            return PyDict_DelItem(v->dict, name);
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!v->dict && !(v->dict = PyDict_New()))
        return -1;
    return PyDict_SetItem(v->dict, name, value);
}

/* ---- errors ---- */

void *tg_raise(int64_t code, int op, double a, double b)
{
    PyObject *error;
    if (code == TG_MEMORY)
        return PyErr_NoMemory();
    if (code == TG_RAISED)
        return NULL;
    error = PyObject_CallFunction(tg_refused, "iidd", (int)code, op, a, b);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

void *tg_wrong_type(const char *what, PyObject *o)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(o), "__name__");
    if (name)
        PyErr_Format(PyExc_TypeError, "%s, not '%U'", what, name);
    Py_XDECREF(name);
    return NULL;
}

/* ---- numbers and arguments ---- */

int tg_other_number(PyObject *o, double *out)
{
    PyObject *x;
    *out = 0.0;
    if (Py_TYPE(o) == &PyLong_Type || Py_TYPE(o) == &PyBool_Type || PyFloat_Check(o)) {
        *out = PyFloat_Check(o) ? PyFloat_AsDouble(o) : PyLong_AsDouble(o);
        return *out == -1.0 && PyErr_Occurred() ? -1 : 1;
    }
    x = PyObject_CallFunctionObjArgs(tg_as_number, o, NULL);
    if (!x)
        return -1;
    *out = x == Py_NotImplemented ? 0.0 : PyFloat_AsDouble(x);
    Py_DECREF(x);
    return x == Py_NotImplemented ? 0 : *out == -1.0 && PyErr_Occurred() ? -1 : 1;
}

int tg_need_number(const char *what, PyObject *o, double *out)
{
    int status = tg_number(o, out);
    if (status == 0)
        tg_wrong_type(what, o);
    return status == 1;
}

int tg_arguments(const char *function, const char *const *names, Py_ssize_t required, PyObject *const *args,
                 Py_ssize_t n, PyObject *keywords, PyObject **out)
{
    Py_ssize_t most = 0, named = keywords ? PyTuple_Size(keywords) : 0;
    while (names[most])
        most++;
    if (n > most) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments but %zd were given", function, most, n);
        return 0;
    }
    if (n)
        memcpy(out, args, (size_t)n * sizeof *out);
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i);
        Py_ssize_t k = 0;
        while (k < most && PyUnicode_CompareWithASCIIString(name, names[k]))
            k++;
        if (k == most || k < n) {
            PyErr_Format(PyExc_TypeError, k < n ? "%s() got multiple values for argument '%U'"
                                                : "%s() got an unexpected keyword argument '%U'", function, name);
            return 0;
        }
        out[k] = args[n + i];
    }
    for (Py_ssize_t k = n; k < required; k++)
        if (!out[k]) {
            PyErr_Format(PyExc_TypeError, "%s() missing a required argument: '%s'", function, names[k]);
            return 0;
        }
    return 1;
}

/* ---- threads ---- */

uint64_t tg_thread(void) { return T->sweep ? (uint64_t)PyThread_get_thread_ident() : 0; }

/* ---- no_grad ---- */

/*  A context variable holds how deep its context is in no_grad: None, or a capsule whose pointer is the depth. A task
    starts with a copy of its maker's context and so in no_grad if that is; hence the capsules that live are counted,
    not who entered and left.  */
#define DEPTH "tapegrad.no_grad"

int tg_grad_off_anywhere;

static PyObject *get_depth, *set_depth;         /* the variable's methods */

static void depth_dies(PyObject *unused)
{
    (void)unused;
    tg_grad_off_anywhere--;
}

int tg_grad_off_here(void)
{
    PyObject *depth = PyObject_CallFunctionObjArgs(get_depth, NULL);
    int deep = !depth ? -1 : depth == Py_None ? 0 : (int)(intptr_t)PyCapsule_GetPointer(depth, DEPTH);
    Py_XDECREF(depth);
    return deep;
}

int tg_grad_off_by(int step)
{
    int deep = tg_grad_off();
    PyObject *depth, *token;
    if (deep < 0 || !step)
        return deep < 0 ? -1 : 0;
    if (deep + step > 0) {
        depth = PyCapsule_New((void *)(intptr_t)(deep + step), DEPTH, depth_dies);
        tg_grad_off_anywhere += depth != NULL;
    } else {
        depth = Py_None;
        Py_INCREF(depth);
    }
    token = depth ? PyObject_CallFunctionObjArgs(set_depth, depth, NULL) : NULL;
    Py_XDECREF(depth);
    Py_XDECREF(token);
    return token ? 0 : -1;
}

int tg_make_no_grad(void)
{
    PyObject *module = PyImport_ImportModule("contextvars"), *type, *args, *kwargs, *variable = NULL;
    type = module ? PyObject_GetAttrString(module, "ContextVar") : NULL;
    args = Py_BuildValue("(s)", DEPTH);
    kwargs = Py_BuildValue("{sO}", "default", Py_None);
    if (type && args && kwargs)
        variable = PyObject_Call(type, args, kwargs);
    get_depth = variable ? PyObject_GetAttrString(variable, "get") : NULL;
    set_depth = variable ? PyObject_GetAttrString(variable, "set") : NULL;
    Py_XDECREF(module);
    Py_XDECREF(type);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(variable);
    return get_depth && set_depth ? 0 : -1;
}
