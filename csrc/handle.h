/*  What handle.c and held.c share: the C handle, a Python object that names a node.  */
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

extern PyTypeObject *tg_value_type, *tg_function_type;

static inline int is_value(PyObject *o)
{
    return Py_TYPE(o) == tg_value_type || PyType_IsSubtype(Py_TYPE(o), tg_value_type);
}

static inline int has_node(const Value *v)
{
    if (v->id != TG_NONE)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "this Value has no node: Value.__init__() was not called, or failed");
    return 0;
}

static inline PyObject *own(Value *v, uint32_t id)
{
    v->id = id;
    T->owner[id] = v;
    return (PyObject *)v;
}

/* handle.c: raise what a code stands for, with the operation and its operands; raise TypeError "what, not 'type of o'";
   a handle without a node; this thread's id while a sweep is running a rule. NULL or 0 comes with an exception. */
void *tg_raise(int64_t code, int op, double a, double b);
void *tg_wrong_type(const char *what, PyObject *o);
int tg_need_number(const char *what, PyObject *o, double *out);
Value *tg_new_handle(void);
uint64_t tg_thread(void);

/* Room for nodes and pool words, reclaiming first where that is due. May run Python code: ids are read after. */
int tg_make_room(uint64_t nodes, uint64_t words);
int64_t tg_reclaim(void);
int64_t tg_forget_history(void);

/* recording.c: what a program that is being recorded in this thread has to know. Nothing without one. 0, or -1 with an
   exception: a comparison that was made, how as in Py_LT; something that a replay cannot see; where the next nodes come
   from. */
int tg_tell_comparison(PyObject *a, PyObject *b, int how, int outcome);
int tg_tell_escape(const char *what);
int tg_tell_place(void);

static inline int tg_note_comparison(PyObject *a, PyObject *b, int how, int outcome)
{
    return T->recorders ? tg_tell_comparison(a, b, how, outcome) : 0;
}
static inline int tg_note_escape(const char *what) { return T->recorders ? tg_tell_escape(what) : 0; }
static inline int tg_note_place(void) { return T->recorders ? tg_tell_place() : 0; }

PyObject *tg_begin_recording(PyObject *module, PyObject *args);
PyObject *tg_end_recording(PyObject *module, PyObject *unused);
PyObject *tg_freeze_recording(PyObject *module, PyObject *args);

/* no_grad: how deep this thread is in it; enter it (1) or leave it (-1). */
int tg_passive(void);
void tg_passive_by(int step);

/* operands.c: Values and numbers out of iterables, held and read. */
typedef struct {
    PyObject **item;        /* references of our own */
    double *number;         /* of the items that are no Values */
    uint32_t n, cap, numbers;
} operand_list;

/* Append what an iterable gives, or one object. How many, or -1; 1, or 0. May run Python code. */
int64_t tg_gather(operand_list *list, PyObject *iterable);
int tg_append(operand_list *list, PyObject *item);
int tg_repeat(operand_list *list, uint32_t k);      /* the k-th once more, as it was read */
/* The ids of the items from a to b, numbers becoming leaves, for which there is room. */
void tg_ids_of(const operand_list *list, uint32_t a, uint32_t b, uint32_t *ids);
void tg_release(operand_list *list);

/* Values alone, held, and their ids; 1, or 0 with an exception. None where all went well, and nothing is held any
   more. */
typedef struct {
    PyObject *tuple;
    uint32_t *id, n;
} value_list;
int tg_gather_values(value_list *list, PyObject *values);
PyObject *tg_let_go(value_list *list, int good);

/* functions.c */
extern PyMethodDef tg_functions[];

/* Mark every node that something outside the tape's own rules and attributes holds, with all it depends on. */
void tg_mark_held(void);

/* Make the module tapegrad._c_handle; see handle.c. */
int tg_make_c_handle(void);

#endif
