/*  An operation recorded: the number slots and methods of the rows, and comparisons.  */
#ifndef TG_OPERATIONS_H
#define TG_OPERATIONS_H

#include "handle.h"

/* A function a row. A slot passes NotImplemented on for an operand that is no number; a method has nobody to pass it on
   to, and raises TypeError. */
#define TG_UNARY(NAME, ...) PyObject *tg_op_##NAME(PyObject *self, PyObject *unused);
#define TG_BINARY(NAME, ...) PyObject *tg_op_##NAME(PyObject *x, PyObject *y);
#define TG_ORDER(NAME, ...) PyObject *tg_op_##NAME(PyObject *self, PyObject *k);
#define TG_PASSIVE(NAME, ...)
#include "ops.def"

PyObject *tg_negative(PyObject *self);
PyObject *tg_absolute(PyObject *self);
PyObject *tg_power(PyObject *x, PyObject *y, PyObject *modulus);

/* tp_richcompare: Values are ordered by their data, and equal to themselves alone, or as numbers where tg_as_numbers()
   says so. */
PyObject *tg_compare(PyObject *self, PyObject *other, int how);
/* nb_bool: a Value is true, or as its number is. */
int tg_truth(PyObject *self);

#endif
