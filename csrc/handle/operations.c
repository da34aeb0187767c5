#include "operations.h"

#include "held.h"
#include "recording.h"

static inline int room(uint32_t nodes) { return T->len + (uint64_t)nodes <= T->room || tg_make_room(nodes, 0); }

/* Record y = op(a, b), the last of them a new leaf where k is given. There is room. */
TG_INLINE PyObject *record(int op, uint32_t a, uint32_t b, const double *k, int k_first, int k_written_int)
{
    double da = k && k_first ? *k : T->data[a], db = k && !k_first ? *k : T->data[b], y = tg_primal(op, da, db);
    int code = tg_refusal(op, da, db, y);
    Value *v;
    if (code)
        return tg_raise(code, op, da, db);
    v = tg_new_handle();
    if (!v)
        return NULL;
    if (tg_grad_off())
        return own(v, tg_push(T, TG_LEAF, 0, 0, y));
    if (k) {
        uint32_t leaf = tg_push(T, TG_LEAF, (uint32_t)k_written_int, 0, *k);
        if (k_first)
            a = leaf;
        else
            b = leaf;
    }
    return own(v, tg_push(T, op, a, b, y));
}

TG_INLINE PyObject *unary(int op, PyObject *self)
{
    const Value *v = (const Value *)self;
    return has_node(v) && room(1) ? record(op, v->id, v->id, NULL, 0, 0) : NULL;
}

TG_INLINE PyObject *binary(int op, PyObject *x, PyObject *y)
{
    const Value *v = (const Value *)x, *w = (const Value *)y;
    double k;
    int status;
    if (!is_value(y)) {
        status = tg_number(y, &k);
        if (status == 1)
            return has_node(v) && room(2) ? record(op, v->id, v->id, &k, 0, !PyFloat_Check(y)) : NULL;
    } else if (!is_value(x)) {
        status = tg_number(x, &k);
        if (status == 1)
            return has_node(w) && room(2) ? record(op, w->id, w->id, &k, 1, 0) : NULL;
    } else
        return has_node(v) && has_node(w) && room(1) ? record(op, v->id, w->id, NULL, 0, 0) : NULL;
    if (status < 0)
        return NULL;
    Py_INCREF(Py_NotImplemented);
    return Py_NotImplemented;
}

static PyObject *with_other(PyObject *result, const char *what, PyObject *other)
{
    if (result != Py_NotImplemented)
        return result;
    Py_DECREF(result);
    return tg_wrong_type(what, other);
}

#define TG_UNARY(NAME, ...)                                                                                            \
    PyObject *tg_op_##NAME(PyObject *self, PyObject *unused)                                                           \
    {                                                                                                                  \
        (void)unused;                                                                                                  \
        return unary(TG_##NAME, self);                                                                                 \
    }
#define TG_BINARY(NAME, ...)                                                                                           \
    PyObject *tg_op_##NAME(PyObject *x, PyObject *y) { return binary(TG_##NAME, x, y); }
#define TG_NAMED(NAME, ...)                                                                                            \
    PyObject *tg_op_##NAME(PyObject *self, PyObject *other)                                                            \
    {                                                                                                                  \
        return with_other(binary(TG_##NAME, self, other), "the other operand must be a Value or a number", other);     \
    }
#define TG_ORDER(NAME, ...)                                                                                            \
    PyObject *tg_op_##NAME(PyObject *self, PyObject *k)                                                                \
    {                                                                                                                  \
        return is_value(k) ? tg_wrong_type("the order must be a number", k)                                            \
                           : with_other(binary(TG_##NAME, self, k), "the order must be a number", k);                  \
    }
#define TG_PASSIVE(NAME, ...)
#include "ops.def"

PyObject *tg_negative(PyObject *self) { return unary(TG_NEG, self); }
PyObject *tg_absolute(PyObject *self) { return unary(TG_ABS, self); }

PyObject *tg_power(PyObject *x, PyObject *y, PyObject *modulus)
{
    if (modulus == Py_None)
        return is_value(y) ? tg_op_POW(x, y) : binary(TG_POWK, x, y);
    Py_INCREF(Py_NotImplemented);
    return Py_NotImplemented;
}

PyObject *tg_compare(PyObject *self, PyObject *other, int how)
{
    double a, b;
    int status = 1, truth;
    if (how == Py_EQ || how == Py_NE)
        status = 0;
    else if (!is_value(other))
        status = tg_number(other, &b);
    else if (has_node((Value *)other))
        b = T->data[((Value *)other)->id];
    else
        status = -1;
    if (status < 0)
        return NULL;
    if (status == 0) {
        PyObject *answer = how == Py_EQ && self == other ? Py_True : Py_NotImplemented;
        Py_INCREF(answer);
        return answer;
    }
    if (!has_node((Value *)self))
        return NULL;
    a = T->data[((Value *)self)->id];
    truth = how == Py_LT ? a < b : how == Py_LE ? a <= b : how == Py_GT ? a > b : a >= b;
    if (tg_note_comparison(self, other, how, truth))
        return NULL;
    return PyBool_FromLong(truth);
}
