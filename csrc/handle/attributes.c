#include "attributes.h"

#include "recording.h"

#include <pythread.h>
#include <stdlib.h>

static PyObject *get_data(PyObject *self, void *unused)
{
    (void)unused;
    if (!has_node((Value *)self) || tg_note_escape(".data was read: a replay does not see it"))
        return NULL;
    tg_note_stranger(((Value *)self)->id, TG_NONE);
    return PyFloat_FromDouble(T->data[((Value *)self)->id]);
}

/* The number that is being set; 0 with an exception where it is none, or the attribute is being deleted. */
static int new_number(Value *v, const char *what, PyObject *o, double *out)
{
    if (o)
        return tg_need_number(what, o, out) && has_node(v);
    PyErr_SetString(PyExc_AttributeError, "data and grad of a Value cannot be deleted");
    return 0;
}

static int set_data(PyObject *self, PyObject *o, void *unused)
{
    double x;
    (void)unused;
    if (!new_number((Value *)self, "data must be a number", o, &x) ||
        tg_note_escape(".data was written: a replay does not see it"))
        return -1;
    T->data[((Value *)self)->id] = x;
    return 0;
}

static PyObject *get_grad(PyObject *self, void *unused)
{
    (void)unused;
    if (!has_node((Value *)self) || tg_note_escape(".grad was read: a replay does not see it"))
        return NULL;
    return PyFloat_FromDouble(tg_read_grad(T, ((Value *)self)->id, tg_thread()));
}

static int set_grad(PyObject *self, PyObject *o, void *unused)
{
    double x;
    (void)unused;
    if (!new_number((Value *)self, "grad must be a number", o, &x))
        return -1;
    tg_write_grad(T, ((Value *)self)->id, tg_thread(), x);
    return 0;
}

static PyObject *get_op(PyObject *self, void *unused)
{
    Value *v = (Value *)self;
    PyObject *text;
    int op;
    (void)unused;
    if (!has_node(v))
        return NULL;
    text = tg_attribute(v, tg_op_name);
    if (text || PyErr_Occurred()) {
        Py_XINCREF(text);
        return text;
    }
    op = T->op[v->id] & TG_OPCODE;
    if (op == TG_POWK) {
        uint32_t leaf = T->b[v->id];
        PyObject *k = T->a[leaf] ? PyLong_FromDouble(T->data[leaf]) : PyFloat_FromDouble(T->data[leaf]);
        text = k ? PyUnicode_FromFormat("**%R", k) : NULL;
        Py_XDECREF(k);
        return text;
    }
    return PyUnicode_InternFromString(tg_ops[op].symbol);
}

static int set_op(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return has_node((Value *)self) ? tg_set_attribute((Value *)self, tg_op_name, value) : -1;
}

static PyObject *get_operands(PyObject *self, void *unused)
{
    const Value *v = (const Value *)self;
    uint32_t n, *ids;
    PyObject *tuple;
    (void)unused;
    if (!has_node(v))
        return NULL;
    n = tg_operands(T, v->id, NULL, 0);
    ids = tg_realloc(NULL, (n + (size_t)1) * sizeof *ids);
    if (!ids)
        return PyErr_NoMemory();
    tuple = PyTuple_New(n);
    if (tuple && tg_operands(T, v->id, ids, n) != n) {      /* the tape was reset on the way */
        Py_DECREF(tuple);
        tuple = get_operands(self, unused);
    } else if (tuple) {
        for (uint32_t k = 0; k < n; k++) {
            PyObject *operand = tg_handle_of(ids[k]);
            if (!operand) {
                Py_CLEAR(tuple);
                break;
            }
            PyTuple_SetItem(tuple, k, operand);
        }
    }
    free(ids);
    return tuple;
}

static PyObject *get_prev(PyObject *self, void *unused)
{
    PyObject *tuple = get_operands(self, unused), *set = tuple ? PySet_New(tuple) : NULL;
    Py_XDECREF(tuple);
    return set;
}

static PyObject *get_backward(PyObject *self, void *unused)
{
    PyObject *rule;
    (void)unused;
    if (!has_node((Value *)self))
        return NULL;
    rule = tg_attribute((Value *)self, tg_rule_name);
    if (!rule)
        return PyErr_Occurred() ? NULL : PyObject_GetAttrString(self, "_push_grad");
    Py_INCREF(rule);
    return rule;
}

static int set_backward(PyObject *self, PyObject *rule, void *unused)
{
    Value *v = (Value *)self;
    int code;
    (void)unused;
    if (!has_node(v))
        return -1;
    if (rule && !PyCallable_Check(rule)) {
        tg_wrong_type("_backward must be callable", rule);
        return -1;
    }
    if (tg_note_escape("_backward was set: a replay differentiates the operation itself"))
        return -1;
    code = tg_set_rule(T, v->id, rule != NULL);
    if (code) {
        tg_raise(code, TG_LEAF, 0.0, 0.0);
        return -1;
    }
    if (tg_set_attribute(v, tg_rule_name, rule)) {      /* there was none before, or it could not fail */
        tg_set_rule(T, v->id, 0);
        return -1;
    }
    return 0;
}

static PyObject *get_dict(PyObject *self, void *unused)
{
    Value *v = (Value *)self;
    (void)unused;
    if (!v->dict && !(v->dict = PyDict_New()))
        return NULL;
    Py_INCREF(v->dict);
    return v->dict;
}

int tg_call_rule(void *context, uint32_t id)
{
    Value *v = HANDLE(T->owner[id]);
    PyObject *rule = v ? tg_attribute(v, tg_rule_name) : NULL, *result;
    (void)context;
    if (!rule)                          /* deleted through __dict__: the node has no slope */
        return PyErr_Occurred() ? TG_RAISED : TG_OK;
    Py_INCREF(rule);
    result = PyObject_CallFunctionObjArgs(rule, NULL);
    Py_DECREF(rule);
    Py_XDECREF(result);
    return result ? TG_OK : TG_RAISED;
}

PyObject *tg_backward_from(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"seed", NULL};
    PyObject *seed = NULL;
    double g = 1.0;
    int code;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:backward", names, &seed) ||
        (seed && !tg_need_number("seed must be a number", seed, &g)) || !has_node((Value *)self))
        return NULL;
    code = tg_backward(T, ((Value *)self)->id, g, tg_call_rule, NULL, (uint64_t)PyThread_get_thread_ident());
    if (code)
        return tg_raise(code, TG_LEAF, 0.0, 0.0);
    Py_RETURN_NONE;
}

PyObject *tg_push_grad_of(PyObject *self, PyObject *unused)
{
    int code;
    (void)unused;
    if (!has_node((Value *)self))
        return NULL;
    code = tg_push_grad(T, ((Value *)self)->id, tg_thread());
    if (code)
        return tg_raise(code, TG_LEAF, 0.0, 0.0);
    Py_RETURN_NONE;
}

PyGetSetDef tg_attributes[] = {
    {"data", get_data, set_data, "The number, a float; writable.\n\n>>> (Value(3.0) * 2.0).data\n6.0", NULL},
    {"grad", get_grad, set_grad,
     "The accumulated derivative, a float; writable.\n\n"
     ">>> x = Value(3.0)\n>>> (x * x).backward()\n>>> x.grad\n6.0", NULL},
    {"_op", get_op, set_op,
     "Symbol of the operation, '' for a leaf; writable.\n\n>>> (Value(3.0) * 2.0)._op\n'*'", NULL},
    {"operands", get_operands, NULL,
     "The operands in order, with repeats: a tuple.\n\n"
     ">>> (Value(3.0) * 2.0).operands\n(Value(data=3.0, grad=0.0), Value(data=2.0, grad=0.0))", NULL},
    {"_prev", get_prev, NULL,
     "The operands: a new set of the same Values every time.\n\n"
     ">>> x = Value(3.0)\n>>> (x * x)._prev == {x}\nTrue", NULL},
    {"_backward", get_backward, set_backward,
     "Call it: push grad one step to the operands. Assign a function to make it the node's rule.\n\n"
     ">>> x = Value(3.0)\n>>> y = x * x\n>>> y.grad = 1.0\n>>> y._backward()\n>>> x.grad\n6.0", NULL},
    {"__dict__", get_dict, NULL, "The attributes that were set; they stay with the node.", NULL},
    {0},
};
