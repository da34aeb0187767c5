#include "operations.h"

#include "held.h"
#include "program.h"
#include "recording.h"

TG_INLINE int room(uint32_t nodes) { return T->len + (uint64_t)nodes <= T->room || tg_make_room(nodes, 0); }

/* An operation of these nodes, one TG_NONE for its number, was refused: a replay has to ask the same again. */
static PyObject *refuse(int code, int op, uint32_t a, uint32_t b, double da, double db)
{
    const uint32_t as = (uint32_t)(TG_ZERO_DIVISION + 1 - code);
    if (tg_note_question(a, b, a == TG_NONE ? da : db, TG_REFUSES + (uint32_t)op + TG_REFUSAL * as, 1))
        return NULL;
    return tg_raise(code, op, da, db);
}

/* Record y = op(a, b), the last of them a new leaf where k is given. There is room. */
TG_INLINE PyObject *record(int op, uint32_t a, uint32_t b, const double *k, int k_first, int k_written_int)
{
    double da = k && k_first ? *k : T->data[a], db = k && !k_first ? *k : T->data[b], y = tg_primal(op, da, db);
    int code = tg_refusal(op, da, db, y), off = tg_grad_off();
    Value *v;
    if (off < 0)
        return NULL;
    if (code)
        return refuse(code, op, k && k_first ? TG_NONE : a, k && !k_first ? TG_NONE : b, da, db);
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
    v->id = tg_push_owned(T, op, a, b, y, v);
    return (PyObject *)v;
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
    if (PyFloat_CheckExact(y) || !is_value(y)) {
        status = tg_number(y, &k);
        if (status == 1 && owns_left(op, x))
            return derive(op, x, y);
        if (status == 1)
            return has_node(v) && room(2) ? record(op, v->id, v->id, &k, 0, op == TG_POWK && !PyFloat_Check(y)) : NULL;
    } else if (PyFloat_CheckExact(x) || !is_value(x)) {
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
#define TG_ORDER(NAME, ...)                                                                                            \
    PyObject *tg_op_##NAME(PyObject *self, PyObject *k)                                                                \
    {                                                                                                                  \
        return is_value(k) ? tg_wrong_type("the order must be a number", k)                                            \
                           : with_other(binary(TG_##NAME, self, k), "the order must be a number", k);                  \
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

/* Ask a Value for its data, other is a Value or the number b: True, False, or NULL with an exception. */
static PyObject *ask(PyObject *self, PyObject *other, double b, uint32_t how)
{
    const Value *v = (const Value *)self, *w = is_value(other) ? (const Value *)other : NULL;
    double a;
    int outcome = 0;
    if (!has_node(v) || (w && !has_node(w)))
        return NULL;
    a = T->data[v->id];
    b = w ? T->data[w->id] : b;
    switch (how) {
#define HOW(how, sign) case how: outcome = a sign b; break;
    TG_COMPARISONS(HOW)
#undef HOW
    }
    if (tg_note_question(v->id, w ? w->id : TG_NONE, w ? 0.0 : b, how, outcome))
        return NULL;
    return PyBool_FromLong(outcome);
}

/* As tg_number; of an integer beyond all floats an infinity. */
static int nearest(PyObject *o, double *b)
{
    int status = tg_number(o, b), positive;
    PyObject *zero;
    if (status >= 0 || !PyErr_ExceptionMatches(PyExc_OverflowError))
        return status;
    PyErr_Clear();
    zero = PyLong_FromLong(0);
    positive = zero ? PyObject_RichCompareBool(o, zero, Py_GT) : -1;
    Py_XDECREF(zero);
    *b = positive ? INFINITY : -INFINITY;
    return positive < 0 ? -1 : 1;
}

/* Whether b, which is the float nearest to an object, compares so with it: 1, 0, or -1 with an exception. */
static int is_so(double b, PyObject *o, int how)
{
    PyObject *rounded = PyFloat_FromDouble(b);
    int so = rounded ? PyObject_RichCompareBool(rounded, o, how) : -1;
    Py_XDECREF(rounded);
    return so;
}

/* Whether an object is the number b exactly: 1, 0, or -1 with an exception. Where it is not, no float equals it, and
   none is between the two. */
static int exactly(PyObject *o, double b)
{
    return PyFloat_CheckExact(o) || (PyLong_CheckExact(o) && fabs(b) < 0x1p53) ? 1 : is_so(b, o, Py_EQ);
}

PyObject *tg_compare(PyObject *self, PyObject *other, int how)
{
    static const uint8_t code[] = {[Py_LT] = 0, [Py_LE] = 1, [Py_GT] = 2, [Py_GE] = 3, [Py_EQ] = 4, [Py_NE] = 5};
    const int equality = how == Py_EQ || how == Py_NE;
    double b = 0.0;
    int status = equality && !tg_as_numbers() ? 0 : is_value(other) ? 1 : nearest(other, &b);
    int exact = status == 1 && !is_value(other) ? exactly(other, b) : 1;
    if (status < 0 || exact < 0)
        return NULL;
    if (!exact && equality)
        return PyBool_FromLong(how == Py_NE);
    if (!exact) {
        int above = is_so(b, other, Py_GT);
        if (above >= 0)
            how = how == Py_LT || how == Py_LE ? (above ? Py_LT : Py_LE) : above ? Py_GE : Py_GT;
        else if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Clear();              /* it has a float, but no order: the float is compared */
        else
            return NULL;
    }
    if (status == 0) {
        PyObject *answer = how == Py_EQ && self == other ? Py_True : Py_NotImplemented;
        if (equality && !tg_as_numbers() && (is_value(other) || PyNumber_Check(other)))
            tg_note_stranger(((Value *)self)->id, is_value(other) ? ((Value *)other)->id : TG_NONE);
        Py_INCREF(answer);
        return answer;
    }
    return ask(self, other, b, code[how]);
}

int tg_truth(PyObject *self)
{
    PyObject *answer;
    int truth;
    if (!tg_as_numbers()) {
        tg_note_stranger(((Value *)self)->id, TG_NONE);
        return 1;
    }
    answer = ask(self, Py_None, 0.0, 5);
    truth = answer == Py_True;
    Py_XDECREF(answer);
    return answer ? truth : -1;
}
