#include "operations.h"

#include "held.h"
#include "recording.h"

static inline int room(uint32_t nodes) { return T->len + (uint64_t)nodes <= T->room || tg_make_room(nodes, 0); }

/* Record y = op(a, b), the last of them a new leaf where k is given. There is room. */
TG_INLINE PyObject *record(int op, uint32_t a, uint32_t b, const double *k, int k_first, int k_written_int)
{
    double da = k && k_first ? *k : T->data[a], db = k && !k_first ? *k : T->data[b], y = tg_primal(op, da, db);
    int code = tg_refusal(op, da, db, y), off = tg_grad_off();
    Value *v;
    if (off < 0)
        return NULL;
    if (code)
        return tg_raise(code, op, da, db);
    v = tg_new_handle();
    if (!v)
        return NULL;
    if (off)
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

/*  micrograd makes - and / and what a number on the left asks for of + * ** and unary minus. Where one of these is a
    program's own, of a subclass or of Value that was patched, so do we: then the slot of its class is another one.  */

static inline int owns(PyObject *o, int slot, void *ours)
{
    return PyType_GetSlot(Py_TYPE(o), slot) != ours;
}

static inline int owns_sum(PyObject *o)
{
    return owns(o, Py_nb_add, tg_op_ADD) || owns(o, Py_nb_negative, tg_negative) || owns(o, Py_nb_multiply, tg_op_MUL);
}

static inline int owns_product(PyObject *o)
{
    return owns(o, Py_nb_multiply, tg_op_MUL) || owns(o, Py_nb_power, tg_power);
}

/* Whether op is to be made of a program's own operators, where this Value is on the left, or on the right. */
TG_INLINE int owns_left(int op, PyObject *v)
{
    return op == TG_SUB ? owns_sum(v) : op == TG_DIV ? owns_product(v) : 0;
}

TG_INLINE int owns_right(int op, PyObject *v)
{
    return op == TG_ADD   ? owns(v, Py_nb_add, tg_op_ADD)
           : op == TG_MUL ? owns(v, Py_nb_multiply, tg_op_MUL)
                          : owns_left(op, v);
}

/* The same of x and y, numbers or Values, made as micrograd makes it. */
static PyObject *derive(int op, PyObject *x, PyObject *y)
{
    PyObject *minus_one = NULL, *part, *result;
    if (op == TG_ADD)
        return PyNumber_Add(y, x);
    if (op == TG_MUL)
        return PyNumber_Multiply(y, x);
    if (op == TG_SUB)
        part = PyNumber_Negative(y);
    else {
        minus_one = PyLong_FromLong(-1);
        part = minus_one ? PyNumber_Power(y, minus_one, Py_None) : NULL;
    }
    result = !part ? NULL : op == TG_SUB ? PyNumber_Add(x, part) : PyNumber_Multiply(x, part);
    Py_XDECREF(minus_one);
    Py_XDECREF(part);
    return result;
}

TG_INLINE PyObject *binary(int op, PyObject *x, PyObject *y)
{
    const Value *v = (const Value *)x, *w = (const Value *)y;
    double k;
    int status;
    if (!is_value(y)) {
        status = tg_number(y, &k);
        if (status == 1 && owns_left(op, x))
            return derive(op, x, y);
        if (status == 1)
            return has_node(v) && room(2) ? record(op, v->id, v->id, &k, 0, !PyFloat_Check(y)) : NULL;
    } else if (!is_value(x)) {
        status = tg_number(x, &k);
        if (status == 1 && owns_right(op, y))
            return derive(op, x, y);
        if (status == 1)
            return has_node(w) && room(2) ? record(op, w->id, w->id, &k, 1, 0) : NULL;
    } else if (owns_left(op, x) || (Py_TYPE(x) != Py_TYPE(y) && owns_left(op, y)))
        return derive(op, x, y);
    else
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
#define TG_PASSIVE(NAME, ...)
#include "ops.def"

PyObject *tg_negative(PyObject *self)
{
    PyObject *minus_one, *result;
    if (!owns(self, Py_nb_multiply, tg_op_MUL))
        return unary(TG_NEG, self);
    minus_one = PyLong_FromLong(-1);
    result = minus_one ? PyNumber_Multiply(self, minus_one) : NULL;
    Py_XDECREF(minus_one);
    return result;
}

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
