#include "quick.h"

#include "call.h"
#include "rows.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    tg_known *known;            /* NULL: not asked, or not for here */
    int asked;
} Quick;

static PyTypeObject *quick_type, *method_type;
static PyObject *bound_type, *told_name, *argnums_name, *zero;

/* ---- the class under tapegrad.Program and batches ---- */

/* Whether there are more paths, or native code, since it was told. */
static int is_older(const tg_known *p)
{
    return PyList_Size(p->paths) != p->n_paths || PyList_Size(p->compiled) != p->n_compiled;
}

/* What is known of self, with a user more; NULL with an exception, and without one where calls are not for here. */
static tg_known *known_of(PyObject *self)
{
    Quick *q = (Quick *)self;
    if (q->known ? is_older(q->known) : !q->asked) {
        PyObject *told = PyObject_CallMethodObjArgs(self, told_name, NULL);
        tg_known *p = told && told != Py_None ? tg_make_known(told) : NULL;
        Py_XDECREF(told);
        if (PyErr_Occurred()) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_OverflowError))
                PyErr_Clear();                          /* __init__ was not called, an empty array has a huge shape */
            return NULL;
        }
        tg_let_go_known(q->known);                      /* of before, or of another thread */
        q->known = p;
        q->asked = 1;
    }
    if (q->known)
        q->known->users++;
    return q->known;
}

static int quick_traverse(PyObject *self, visitproc visit, void *arg)
{
    const tg_known *p = ((Quick *)self)->known;
    Py_VISIT(Py_TYPE(self));
    if (p)
        Py_VISIT(p->told);
    return 0;
}

static int quick_clear(PyObject *self)
{
    tg_known *p = ((Quick *)self)->known;
    ((Quick *)self)->known = NULL;
    tg_let_go_known(p);
    return 0;
}

static void quick_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    quick_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot quick_slots[] = {
    {Py_tp_doc, "What calls of a program go by where they need no Python; a subclass has `_told`."},
    {Py_tp_traverse, quick_traverse},
    {Py_tp_clear, quick_clear},
    {Py_tp_dealloc, quick_dealloc},
    {0, NULL},
};

static PyType_Spec quick_spec = {
    .name = "tapegrad._c_handle.Quick",
    .basicsize = sizeof(Quick),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = quick_slots,
};

/* ---- the decorator of its methods ---- */

/* In the limited API from 3.12 on, and the same before. */
#ifndef Py_TPFLAGS_HAVE_VECTORCALL
#define Py_TPFLAGS_HAVE_VECTORCALL (1UL << 11)
#endif
#define GIVEN(nargsf) ((Py_ssize_t)((nargsf) & ~((size_t)1 << (8 * sizeof(size_t) - 1))))

typedef struct {
    PyObject_HEAD
    PyObject *(*vectorcall)(PyObject *, PyObject *const *, size_t, PyObject *);
    PyObject *dict, *method;        /* method: the general way */
    tg_call_kind kind;
} Method;

/* The general way. */
static PyObject *call_method(PyObject *method, PyObject *const *given, Py_ssize_t n, PyObject *names)
{
    const Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    PyObject *args = PyTuple_New(n), *kwargs = named ? PyDict_New() : NULL, *made = NULL;
    int good = args && (kwargs || !named);
    for (Py_ssize_t k = 0; good && k < n; k++) {
        Py_INCREF(given[k]);
        PyTuple_SetItem(args, k, given[k]);
    }
    for (Py_ssize_t k = 0; good && k < named; k++)
        good = !PyDict_SetItem(kwargs, PyTuple_GetItem(names, k), given[n + k]);
    if (good)
        made = PyObject_Call(method, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return made;
}

/* argnums, where there is no other name; 0 by itself. */
static PyObject *argnums_of(tg_call_kind kind, PyObject *const *named, PyObject *names)
{
    if (!names || !PyTuple_Size(names))
        return zero;
    return kind != TG_VALUE && kind != TG_JVP && PyTuple_Size(names) == 1 && PyTuple_GetItem(names, 0) == argnums_name
        ? named[0] : NULL;
}

static PyObject *method_vectorcall(PyObject *self, PyObject *const *given, size_t nargsf, PyObject *names)
{
    const Method *m = (Method *)self;
    const Py_ssize_t n = GIVEN(nargsf);
    PyObject *argnums = argnums_of(m->kind, given + n, names), *made = NULL;
    if (argnums && n && PyObject_TypeCheck(given[0], quick_type)) {
        tg_known *p = known_of(given[0]);
        if (p) {
            made = (p->mapped ? tg_call_rows : tg_call)(p, m->kind, given + 1, n - 1, argnums);
            tg_let_go_known(p);
        }
        if (made || PyErr_Occurred())
            return made;
        tg_look_for_numpy();
    }
    return call_method(m->method, given, n, names);
}

static PyObject *method_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return PyObject_Call(((Method *)self)->method, args, kwargs);
}

static PyObject *method_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    if (!object || object == Py_None) {
        Py_INCREF(self);
        return self;
    }
    return PyObject_CallFunctionObjArgs(bound_type, self, object, NULL);
}

/* As functions are pickled: by name. */
static PyObject *method_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyMethodDef method_methods[] = {
    {"__reduce__", method_reduce, METH_NOARGS, NULL},
    {0},
};

static int method_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Method *)self)->dict);
    Py_VISIT(((Method *)self)->method);
    return 0;
}

static int method_clear(PyObject *self)
{
    Py_CLEAR(((Method *)self)->dict);
    Py_CLEAR(((Method *)self)->method);
    return 0;
}

static void method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    method_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Method, dict), READONLY, NULL},
    {0},
};

static PyGetSetDef method_attributes[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {0},
};

static PyType_Slot method_slots[] = {
    {Py_tp_members, method_members},
    {Py_tp_methods, method_methods},
    {Py_tp_getset, method_attributes},
    {Py_tp_call, method_call},
    {Py_tp_descr_get, method_get},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_dealloc, method_dealloc},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "tapegrad._c_handle.quick",
    .basicsize = sizeof(Method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = method_slots,
};

static const struct {
    const char *name;
    tg_call_kind kind;
} names_of_kinds[] = {
    {"__call__", TG_VALUE}, {"_of_numbers", TG_VALUE}, {"value_and_grad", TG_VALUE_AND_GRAD}, {"grad", TG_GRAD},
    {"jvp", TG_JVP}, {"hvp", TG_HVP}, {"jacobian", TG_A_JACOBIAN}, {"hessian", TG_A_HESSIAN},
};
enum { NAMES = sizeof names_of_kinds / sizeof *names_of_kinds };

/* The kind of call that a method is, by its name; TG_KINDS with an exception. */
static tg_call_kind kind_of(PyObject *method)
{
    PyObject *name = PyObject_GetAttrString(method, "__name__");
    int k = name ? 0 : NAMES;
    while (k < NAMES && PyUnicode_CompareWithASCIIString(name, names_of_kinds[k].name))
        k++;
    if (name && k == NAMES)
        PyErr_Format(PyExc_ValueError, "there is no quick way for %R", name);
    Py_XDECREF(name);
    return k < NAMES ? names_of_kinds[k].kind : TG_KINDS;
}

/* As functools.update_wrapper does it. */
static int describe(PyObject *made, PyObject *method)
{
    PyObject *functools = PyImport_ImportModule("functools");
    PyObject *done = functools ? PyObject_CallMethod(functools, "update_wrapper", "OO", made, method) : NULL;
    Py_XDECREF(functools);
    Py_XDECREF(done);
    return done != NULL;
}

static PyObject *module_quick(PyObject *module, PyObject *method)
{
    const tg_call_kind kind = kind_of(method);
    const allocfunc alloc = (allocfunc)PyType_GetSlot(method_type, Py_tp_alloc);
    Method *m = kind < TG_KINDS ? (Method *)alloc(method_type, 0) : NULL;
    (void)module;
    if (!m)
        return NULL;
    m->vectorcall = method_vectorcall;
    m->kind = kind;
    Py_INCREF(method);
    m->method = method;
    if (describe((PyObject *)m, method))
        return (PyObject *)m;
    Py_DECREF(m);
    return NULL;
}

static PyMethodDef functions[] = {
    {"quick", module_quick, METH_O,
     "quick($module, method, /)\n--\n\n"
     "A method of theirs that tries the way without Python first, and gives the same."},
    {0},
};

static PyObject *type_named(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name), *type = module ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return type;
}

int tg_add_quick(PyObject *module)
{
    quick_type = (PyTypeObject *)PyType_FromSpec(&quick_spec);
    method_type = (PyTypeObject *)PyType_FromSpec(&method_spec);
    bound_type = type_named("types", "MethodType");
    told_name = PyUnicode_InternFromString("_told");
    argnums_name = PyUnicode_InternFromString("argnums");
    zero = PyLong_FromLong(0);
    if (!quick_type || !method_type || !bound_type || !told_name || !argnums_name || !zero)
        return -1;
    return PyModule_AddFunctions(module, functions) ? -1
                                                    : PyModule_AddObjectRef(module, "Quick", (PyObject *)quick_type);
}
