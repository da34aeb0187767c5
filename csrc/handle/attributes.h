/*  The attributes of a Value: data, grad, _op, operands, _backward; and the sweep from it.  */
#ifndef TG_ATTRIBUTES_H
#define TG_ATTRIBUTES_H

#include "handle.h"

extern PyGetSetDef tg_attributes[];

/* Value.backward(seed=1.0) and Value._push_grad(). */
PyObject *tg_backward_from(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *tg_push_grad_of(PyObject *self, PyObject *unused);

/* Runs the Python rule of a node: a tg_rule. */
int tg_call_rule(void *context, uint32_t id);

#endif
