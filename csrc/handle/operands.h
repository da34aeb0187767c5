/*  Lists of operands: Values and numbers out of iterables, or Values alone.

    Everything is read and held before the first id is looked at, for reading may run Python code.  */
#ifndef TG_OPERANDS_H
#define TG_OPERANDS_H

#include "handle.h"

typedef struct {
    PyObject **item;        /* references of our own */
    double *number;         /* of the items that are no Values */
    uint32_t n, cap, numbers;
} operand_list;

/* Append what an iterable gives: how many, or -1 with an exception. May run Python code. */
int64_t tg_gather(operand_list *list, PyObject *iterable);

/* Append one object: 1, or 0 with an exception. May run Python code. */
int tg_append(operand_list *list, PyObject *item);

/* The ids of all items in order, numbers becoming leaves, for which there is room. */
void tg_ids_of(const operand_list *list, uint32_t *ids);

void tg_release(operand_list *list);

/* Values, held, and their ids. */
typedef struct {
    PyObject *tuple;
    uint32_t *id, n;
} value_list;

/* 1, or 0 with an exception. May run Python code. */
int tg_gather_values(value_list *list, PyObject *values);

/* The ids again, after what may have moved them. */
void tg_read_ids(value_list *list);

/* Hold them no more. None where all went well, else NULL. */
PyObject *tg_let_go(value_list *list, int good);

/* A list of floats, or NULL with an exception. */
PyObject *tg_float_list(const double *x, uint32_t n);

#endif
