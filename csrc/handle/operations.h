/*  An operation recorded: the number slots and methods of the rows, and comparisons.  */
#ifndef TG_OPERATIONS_H
#define TG_OPERATIONS_H

#include "handle.h"

/* A function a row, a slot or a method; it passes NotImplemented on for an operand that is no number. */
#define TG_UNARY(NAME, ...) PyObject *tg_op_##NAME(PyObject *self, PyObject *unused);
#define TG_BINARY(NAME, ...) PyObject *tg_op_##NAME(PyObject *x, PyObject *y);
#include "ops.def"

/* A method has nobody to pass NotImplemented on to: TypeError. */
#define METHOD_OF_TWO(NAME) PyObject *tg_method_##NAME(PyObject *self, PyObject *other);
METHOD_OF_TWO(MAX)
METHOD_OF_TWO(MIN)
METHOD_OF_TWO(ATAN2)
METHOD_OF_TWO(HYPOT)
#undef METHOD_OF_TWO

PyObject *tg_negative(PyObject *self);
PyObject *tg_absolute(PyObject *self);
PyObject *tg_power(PyObject *x, PyObject *y, PyObject *modulus);

/* tp_richcompare: Values are equal to themselves alone, and ordered by their data. */
PyObject *tg_compare(PyObject *self, PyObject *other, int how);

#endif
