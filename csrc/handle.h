/*  What handle.c and held.c share: the C handle, a Python object that names a node.  */
#ifndef TG_HANDLE_H
#define TG_HANDLE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x03090000
#endif
#include <Python.h>
#include <structmember.h>

#include "ops.h"

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpedantic"     /* the limited API hands functions around as void * */
#endif

#define T (&tg_main)

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

extern PyTypeObject *tg_value_type;

static inline int is_value(PyObject *o)
{
    return Py_TYPE(o) == tg_value_type || PyType_IsSubtype(Py_TYPE(o), tg_value_type);
}

/* Mark every node that something outside the tape's own rules and attributes holds, with all it depends on. */
void tg_mark_held(void);

/* Make the module tapegrad._c_handle; see handle.c. */
int tg_make_c_handle(void);

#endif
