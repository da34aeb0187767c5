/*  The ground of the C handle: `Value`, a Python object that names a node. How handles come and go, what is set on
    them, numbers, arguments, errors.

    The other files of this folder stand on it and on each other, in this order; none includes a later one:

        operands    Values and numbers out of iterables, held and read
        recording   what a program that is being recorded has to know
        held        which nodes are held from outside; reclaim; room for nodes
        operations  an operation recorded: number slots, methods of the rows, comparisons
        attributes  data, grad, _op, operands, _backward; the sweep from a Value
        value       construction; the type
        many, bulk, gradients, layout   the functions beside the type
        copies      copies of Values, and of their history
        form, call, rows    numbers out of nests, and nests of numbers; calls of a program that need no Python, at a
                            point and over rows
        quick       the class under programs and batches, and the decorator of their methods
        module      makes the module tapegrad._c_handle

    The GIL is the tape's lock: nothing here releases it, but for rules, and for long replays, which leave the tape
    alone. Whatever runs Python code (reading a number, an allocation that collects, reclaim) may move ids: it comes
    before they are read, and from then on until the node is recorded nothing can.  */
#ifndef TG_HANDLE_H
#define TG_HANDLE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>
#include <structmember.h>

#include "ops.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpedantic"     /* the limited API hands functions around as void * */
#endif

#define T (&tg_main)

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

/*  The node's owner points here. What is set on a Value is in dict, Python rule and _op included.

    When a handle dies and its node stays, a handle with a dict (or of a subclass) leaves its memory with the node: the
    owner becomes odd, and the same memory is initialized again when the node is asked for. Nothing is allocated on the
    way down, and the Value that comes back has its attributes, its class and its id().  */
typedef struct Value {
    PyObject_HEAD
    uint32_t id;            /* TG_NONE before __init__ */
    PyObject *dict;
    PyObject *weakrefs;     /* of memory that was left: the next in a list */
} Value;

#define HANDLE(owner) ((Value *)((uintptr_t)(owner) & ~(uintptr_t)1))

/* Set when the module is made: the type; as_number and refused of tapegrad._refusals; names of attributes. */
extern PyTypeObject *tg_value_type;
extern PyObject *tg_as_number, *tg_refused, *tg_rule_name, *tg_op_name;

static inline int is_value(PyObject *o)
{
    return Py_TYPE(o) == tg_value_type || PyType_IsSubtype(Py_TYPE(o), tg_value_type);
}

/* 1; 0 with an exception where there is none. */
static inline int has_node(const Value *v)
{
    if (v->id != TG_NONE)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "this Value has no node: Value.__init__() was not called, or failed");
    return 0;
}

/* Make v the handle of a node without one. */
static inline PyObject *own(Value *v, uint32_t id)
{
    v->id = id;
    T->owner[id] = v;
    return (PyObject *)v;
}

/* Memory of dead handles, linked by dict: each has its type still, and a reference to it. */
extern Value *tg_spare;
extern int tg_spares;

/* A handle without a node that no memory was spare for; as tg_new_handle. */
Value *tg_another_handle(void);

/* A handle without a node, or NULL with an exception. */
static inline Value *tg_new_handle(void)
{
    Value *v = tg_spare;
    if (!v)
        return tg_another_handle();
    tg_spare = (Value *)v->dict;
    tg_spares--;
    Py_SET_REFCNT((PyObject *)v, 1);
    v->id = TG_NONE;
    v->dict = NULL;
    return v;
}

/* The same of any class of Values. */
Value *tg_new_of(PyTypeObject *type);

/* A list of m handles without nodes, or NULL with an exception. gc.get_objects() does not see it: track it when all
   have nodes. */
PyObject *tg_bare_list(uint32_t m);

/* The handle of a node: the live one, the one that was left, or a new one; NULL with an exception. Runs no Python
   code. */
PyObject *tg_handle_of(uint32_t id);

/* tp_dealloc. */
void tg_handle_dies(PyObject *self);

/* Drop ownerless nodes from the end, and what dead handles left with them; none while a program is being recorded. Runs
   Python code. */
void tg_pop_dead(void);

/* Free memory that was left with nodes now gone, and what it refers to. Runs Python code. */
void tg_discard(Value *gone);

/* What is set in the handle's dict, borrowed; NULL, where not all is well with an exception. */
PyObject *tg_attribute(const Value *v, PyObject *name);

/* Put a value in the handle's dict, or with NULL take it out. 0, or -1 with an exception. */
int tg_set_attribute(Value *v, PyObject *name, PyObject *value);

/* Raise what a code stands for, with the operation and its operands. Returns NULL. */
void *tg_raise(int64_t code, int op, double a, double b);

/* Raise TypeError "what, not 'type of o'". Returns NULL. */
void *tg_wrong_type(const char *what, PyObject *o);

/* As tg_number, of what is no float, or of a subclass. */
int tg_other_number(PyObject *o, double *out);

/* 1: *out is the number; 0: no number; -1: an exception is set. May run Python code. */
static inline int tg_number(PyObject *o, double *out)
{
    double other;                       /* out may stay in a register */
    int status;
    if (PyFloat_CheckExact(o)) {
        *out = PyFloat_AsDouble(o);
        return 1;
    }
    status = tg_other_number(o, &other);
    *out = other;
    return status;
}

/* 1: *out is the number; 0 with an exception, for no number TypeError "what, not 'type of o'". */
int tg_need_number(const char *what, PyObject *o, double *out);

/* The arguments of a METH_FASTCALL | METH_KEYWORDS call, borrowed, into out: what was not given stays as it is there.
   names ends with NULL; the first so many are required. 1, or 0 with TypeError. */
int tg_arguments(const char *function, const char *const *names, Py_ssize_t required, PyObject *const *args,
                 Py_ssize_t n, PyObject *keywords, PyObject **out);

/* This thread's id while a sweep is running a rule, else 0. */
uint64_t tg_thread(void);

/* How deep in no_grad this context is, a task's or a thread's; -1 with an exception. Runs no Python code. */
extern int tg_grad_off_anywhere;        /* contexts that are in it: mostly 0, and cheaper to ask */
int tg_grad_off_here(void);
static inline int tg_grad_off(void) { return tg_grad_off_anywhere ? tg_grad_off_here() : 0; }

/* Enter no_grad so many times, or leave it. 0, or -1 with an exception. */
int tg_grad_off_by(int step);

/* Make the context variable that says so. 0, or -1 with an exception. */
int tg_make_no_grad(void);

#endif
