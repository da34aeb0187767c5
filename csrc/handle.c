/*  The C handle: `Value` as a heap type in the limited API, whose number slots append to the one tape directly.

    A handle is the id of a node. It is canonical: the node's owner is its one live handle. Whatever runs Python code
    (reading a number, an allocation that collects, reclaim) comes before ids are read, for it may move them; from then
    on until the node is recorded nothing can. The GIL is the tape's lock: nothing here releases it, but for rules.  */
#include "handle.h"

#include <pythread.h>
#include <stdlib.h>

PyTypeObject *tg_value_type, *tg_function_type;

static PyObject *as_number, *refused;           /* of tapegrad._refusals */
static PyObject *rule_name, *op_name, *label_name;
static PyObject *symbols[TG_OPS];

uint64_t tg_thread(void) { return T->sweep ? (uint64_t)PyThread_get_thread_ident() : 0; }

/* ---- errors ---- */

/* Raise what a code stands for, with the operation and its operands. */
void *tg_raise(int64_t code, int op, double a, double b)
{
    PyObject *error;
    if (code == TG_MEMORY)
        return PyErr_NoMemory();
    if (code == TG_RAISED)
        return NULL;
    error = PyObject_CallFunction(refused, "iidd", (int)code, op, a, b);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

/* TypeError: "what, not 'type of o'". */
void *tg_wrong_type(const char *what, PyObject *o)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(o), "__name__");
    if (name)
        PyErr_Format(PyExc_TypeError, "%s, not '%U'", what, name);
    Py_XDECREF(name);
    return NULL;
}

/* 1: out is the number; 0: not a number; -1: an exception is set. May run Python code. */
static inline int number(PyObject *o, double *out)
{
    PyObject *x;
    if (PyFloat_Check(o) || Py_TYPE(o) == &PyLong_Type || Py_TYPE(o) == &PyBool_Type) {
        *out = PyFloat_AsDouble(o);
        return *out == -1.0 && PyErr_Occurred() ? -1 : 1;
    }
    x = PyObject_CallFunctionObjArgs(as_number, o, NULL);
    if (!x)
        return -1;
    *out = x == Py_NotImplemented ? 0.0 : PyFloat_AsDouble(x);
    Py_DECREF(x);
    return x == Py_NotImplemented ? 0 : *out == -1.0 && PyErr_Occurred() ? -1 : 1;
}

int tg_need_number(const char *what, PyObject *o, double *out)
{
    int status = number(o, out);
    if (status == 0)
        tg_wrong_type(what, o);
    return status == 1;
}

/* ---- handles come and go ---- */

#define SPARE_MOST 256
static Value *spare;            /* memory of dead handles, linked by dict */
static int spares;

Value *tg_new_handle(void)
{
    Value *v = spare;
    if (v) {
        spare = (Value *)v->dict;
        spares--;
        PyObject_Init((PyObject *)v, tg_value_type);
    } else {
        v = PyObject_New(Value, tg_value_type);
        if (!v)
            return NULL;
    }
    v->id = TG_NONE;
    v->dict = v->weakrefs = NULL;
    return v;
}

static inline void free_memory(Value *v)
{
    PyTypeObject *type = Py_TYPE(v);
    if (type == tg_value_type && spares < SPARE_MOST) {
        v->dict = (PyObject *)spare;
        spare = v;
        spares++;
    } else
        ((freefunc)PyType_GetSlot(type, Py_tp_free))(v);
    Py_DECREF(type);
}

/* Free memory that was left with nodes now gone, and what it refers to: runs Python code. */
static void discard(Value *gone)
{
    while (gone) {
        Value *v = gone;
        PyObject *dict = v->dict;
        gone = (Value *)v->weakrefs;
        free_memory(v);
        Py_XDECREF(dict);
    }
}

static void pop_dead(void)
{
    Value *gone = NULL;
    for (tg_pop(T); T->len && TG_LEFT(T->owner[T->len - 1]); tg_pop(T)) {
        Value *v = HANDLE(T->owner[T->len - 1]);
        T->owner[T->len - 1] = NULL;
        v->weakrefs = (PyObject *)gone;
        gone = v;
    }
    discard(gone);
}

/* The handle of a node: the live one, the one that was left, or a new one. Runs no Python code. */
static PyObject *handle_of(uint32_t id)
{
    void *owner = T->owner[id];
    Value *v = HANDLE(owner);
    if (v && !TG_LEFT(owner) && Py_REFCNT((PyObject *)v) > 0) {     /* 0: dying, and its weakref callbacks run */
        Py_INCREF(v);
        return (PyObject *)v;
    }
    if (v && TG_LEFT(owner)) {
        PyTypeObject *type = Py_TYPE(v);
        PyObject_Init((PyObject *)v, type);
        Py_DECREF(type);                                            /* what was left kept its reference */
        v->weakrefs = NULL;
        if (PyType_GetFlags(type) & Py_TPFLAGS_HAVE_GC)
            PyObject_GC_Track(v);
    } else {
        v = tg_new_handle();
        if (!v)
            return NULL;
    }
    return own(v, id);
}

static void value_dealloc(PyObject *self)
{
    Value *v = (Value *)self;
    PyObject *dict;
    if (v->weakrefs)
        PyObject_ClearWeakRefs(self);
    if (v->id < T->len && T->owner[v->id] == v) {
        T->owner[v->id] = NULL;
        if (v->id == T->len - 1)
            pop_dead();
        else if (v->dict || Py_TYPE(v) != tg_value_type) {
            T->owner[v->id] = (void *)((uintptr_t)v | 1);
            return;
        }
    }
    dict = v->dict;
    free_memory(v);
    Py_XDECREF(dict);
}

/* ---- what is set on a handle ---- */

/* What is set in the handle's dict, borrowed, or NULL. */
static PyObject *noted(const Value *v, PyObject *name)
{
    return v->dict ? PyDict_GetItemWithError(v->dict, name) : NULL;
}

/* Put a value in the handle's dict, or with NULL take it out. */
static int note(Value *v, PyObject *name, PyObject *value)
{
    if (!value) {
        if (v->dict && PyDict_GetItemWithError(v->dict, name))
            return PyDict_DelItem(v->dict, name);
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!v->dict && !(v->dict = PyDict_New()))
        return -1;
    return PyDict_SetItem(v->dict, name, value);
}

/* ---- reclaim ---- */

typedef struct {
    Value *left;                /* memory left with nodes that went */
    Value **severed;            /* handles whose nodes went: only rules and attributes among themselves held them */
    size_t severed_len;
} dropped_owners;

static void dropped(void *context, void *owner)
{
    dropped_owners *gone = context;
    Value *v = HANDLE(owner);
    if (TG_LEFT(owner)) {
        v->weakrefs = (PyObject *)gone->left;
        gone->left = v;
    } else {
        Py_INCREF(v);
        v->id = TG_NONE;
        gone->severed[gone->severed_len++] = v;
    }
}

/* Slide the marked nodes down, or make them leaves first; nodes freed, or a code. Python code runs only afterwards. */
static int64_t slide(int64_t (*how)(tg_tape *, void (*)(void *, void *), void *))
{
    dropped_owners gone = {0};
    uint32_t before = T->len;
    size_t n = 0;
    int64_t code;
    for (uint32_t i = 0; i < T->len; i++)
        n += TG_LIVE(T->owner[i]) && !(T->op[i] & TG_MARK);
    if (n) {
        gone.severed = tg_realloc(NULL, n * sizeof *gone.severed);
        if (!gone.severed) {            /* keep them, then */
            tg_mark_owned(T);
            tg_mark_operands(T, NULL, NULL);
        }
    }
    code = how(T, dropped, &gone);
    for (uint32_t i = 0; i < T->len; i++)
        if (T->owner[i])
            HANDLE(T->owner[i])->id = i;
    discard(gone.left);
    for (size_t k = 0; k < gone.severed_len; k++) {
        PyObject *dict = gone.severed[k]->dict;
        gone.severed[k]->dict = NULL;
        Py_XDECREF(dict);
        Py_DECREF(gone.severed[k]);
    }
    free(gone.severed);
    return code < 0 ? code : before > T->len ? before - T->len : 0;
}

int64_t tg_reclaim(void)
{
    if (T->sweep || T->recorders)       /* their ids must stay */
        return 0;
    pop_dead();
    tg_mark_held();
    return slide(tg_slide);
}

int tg_make_room(uint64_t nodes, uint64_t words)
{
    int code;
    if (tg_note_place())
        return 0;
    if (tg_reclaim_due(T, nodes, words) && tg_reclaim() < 0)
        tg_set_reclaim_point(T);        /* no memory for it: there may still be some to grow, so ask again later */
    code = tg_grow(T, nodes, words);
    if (code)
        tg_raise(code, TG_LEAF, 0.0, 0.0);
    return !code;
}

/* No rule and no symbol is left to a leaf. Letting go of rules runs Python code: their handles are held meanwhile. */
int64_t tg_forget_history(void)
{
    PyObject *with_notes = PyList_New(0);
    int64_t code = with_notes ? TG_OK : TG_MEMORY;
    for (uint32_t i = 0; !code && i < T->len; i++) {
        Value *v = HANDLE(T->owner[i]);
        if (TG_LIVE(T->owner[i]) && v->dict && Py_REFCNT((PyObject *)v) > 0 && PyList_Append(with_notes, (PyObject *)v))
            code = TG_RAISED;
    }
    if (!code) {
        tg_mark_owned(T);
        code = slide(tg_forget);
    }
    for (Py_ssize_t k = 0; code >= 0 && k < PyList_Size(with_notes); k++) {
        Value *v = (Value *)PyList_GetItem(with_notes, k);
        if (note(v, rule_name, NULL) || note(v, op_name, NULL))
            code = TG_RAISED;
    }
    Py_XDECREF(with_notes);
    return code;
}

static inline int room(uint32_t nodes) { return T->len + (uint64_t)nodes <= T->room || tg_make_room(nodes, 0); }

/* ---- recording ---- */

static THREAD_LOCAL int grad_off;       /* depth of no_grad in this thread */
static int grad_off_anywhere;           /* over all threads: mostly 0, and cheaper to ask */

int tg_passive(void) { return grad_off_anywhere ? grad_off : 0; }

void tg_passive_by(int step)
{
    grad_off += step;
    grad_off_anywhere += step;
}

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
    if (tg_passive())
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
        status = number(y, &k);
        if (status == 1)
            return has_node(v) && room(2) ? record(op, v->id, v->id, &k, 0, !PyFloat_Check(y)) : NULL;
    } else if (!is_value(x)) {
        status = number(x, &k);
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

/* Slots and methods, one each a row. A method of two operands has nobody to pass NotImplemented on to. */
#define TG_UNARY(NAME, ...)                                                                                            \
    static PyObject *op_##NAME(PyObject *self, PyObject *unused)                                                       \
    {                                                                                                                  \
        (void)unused;                                                                                                  \
        return unary(TG_##NAME, self);                                                                                 \
    }
#define TG_BINARY(NAME, ...)                                                                                           \
    static PyObject *op_##NAME(PyObject *x, PyObject *y) { return binary(TG_##NAME, x, y); }
#define TG_NAMED(NAME, ...)                                                                                            \
    static PyObject *op_##NAME(PyObject *self, PyObject *other)                                                        \
    {                                                                                                                  \
        return with_other(binary(TG_##NAME, self, other), "the other operand must be a Value or a number", other);     \
    }
#define TG_PASSIVE(NAME, ...)
#include "ops.def"

static PyObject *op_negative(PyObject *self) { return unary(TG_NEG, self); }
static PyObject *op_absolute(PyObject *self) { return unary(TG_ABS, self); }

static PyObject *op_positive(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

static PyObject *op_power(PyObject *x, PyObject *y, PyObject *modulus)
{
    if (modulus == Py_None)
        return is_value(y) ? op_POW(x, y) : binary(TG_POWK, x, y);
    Py_INCREF(Py_NotImplemented);
    return Py_NotImplemented;
}

/* ---- construction ---- */

static PyObject *value_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Value *v;
    (void)args, (void)kwargs;
    if (type == tg_value_type)
        return (PyObject *)tg_new_handle();
    v = (Value *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (v)
        v->id = TG_NONE;
    return (PyObject *)v;
}

/* Set an attribute whose default is the empty string. */
static int set_unless_empty(Value *v, PyObject *name, PyObject *text)
{
    if (!text || (PyUnicode_Check(text) && PyUnicode_GetLength(text) == 0))
        return 0;
    if (!v->dict && !(v->dict = PyDict_New()))
        return -1;
    return PyDict_SetItem(v->dict, name, text);
}

static int value_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "_children", "_op", "label", NULL};
    Value *v = (Value *)self;
    PyObject *data, *children = NULL, *op = NULL, *label = NULL;
    operand_list list = {0};
    double number;
    int done = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO:Value", names, &data, &children, &op, &label))
        return -1;
    if (!tg_need_number("data must be a number", data, &number) || (children && tg_gather(&list, children) < 0))
        goto out;
    if (list.n && tg_note_escape("a node was made by hand: its data is a constant of the program"))
        goto out;
    for (uint32_t k = 0; k < list.n; k++)
        if (!is_value(list.item[k])) {
            tg_wrong_type("_children must be Values", list.item[k]);
            goto out;
        }
    if (set_unless_empty(v, op_name, op) || set_unless_empty(v, label_name, label) ||
        !tg_make_room(1, (uint64_t)list.n + 1))
        goto out;
    if (v->id < T->len && T->owner[v->id] == v)         /* __init__ again: another node, the old one is its users' */
        T->owner[v->id] = NULL;
    if (!list.n || tg_passive())
        tg_push(T, TG_LEAF, 0, 0, number);
    else {
        tg_ids_of(&list, 0, list.n, tg_push_many(T, TG_NODE, list.n));
        T->data[T->len - 1] = number;
    }
    own(v, T->len - 1);
    done = 0;
out:
    tg_release(&list);
    return done;
}

/* ---- attributes ---- */

static PyObject *get_data(PyObject *self, void *unused)
{
    (void)unused;
    if (!has_node((Value *)self) || tg_note_escape(".data was read: a replay does not see it"))
        return NULL;
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
    text = noted(v, op_name);
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
    Py_INCREF(symbols[op]);
    return symbols[op];
}

static int set_op(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return has_node((Value *)self) ? note((Value *)self, op_name, value) : -1;
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
            PyObject *operand = handle_of(ids[k]);
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
    rule = noted((Value *)self, rule_name);
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
    if (note(v, rule_name, rule)) {                     /* there was none before, or it could not fail */
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

/* ---- sweeps ---- */

static int call_rule(void *context, uint32_t id)
{
    Value *v = HANDLE(T->owner[id]);
    PyObject *rule = v ? noted(v, rule_name) : NULL, *result;
    (void)context;
    if (!rule)                          /* deleted through __dict__: the node has no slope */
        return PyErr_Occurred() ? TG_RAISED : TG_OK;
    Py_INCREF(rule);
    result = PyObject_CallFunctionObjArgs(rule, NULL);
    Py_DECREF(rule);
    Py_XDECREF(result);
    return result ? TG_OK : TG_RAISED;
}

static PyObject *value_backward(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"seed", NULL};
    PyObject *seed = NULL;
    double g = 1.0;
    int code;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:backward", names, &seed) ||
        (seed && !tg_need_number("seed must be a number", seed, &g)) || !has_node((Value *)self))
        return NULL;
    code = tg_backward(T, ((Value *)self)->id, g, call_rule, NULL, (uint64_t)PyThread_get_thread_ident());
    if (code)
        return tg_raise(code, TG_LEAF, 0.0, 0.0);
    Py_RETURN_NONE;
}

static PyObject *value_push_grad(PyObject *self, PyObject *unused)
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

/* ---- identity and order ---- */

static Py_hash_t value_hash(PyObject *self)
{
    Py_hash_t h = (Py_hash_t)((uintptr_t)self >> 4);
    return h == -1 ? -2 : h;
}

static PyObject *value_compare(PyObject *self, PyObject *other, int how)
{
    double a, b;
    int status = 1, truth;
    if (how == Py_EQ || how == Py_NE)
        status = 0;
    else if (!is_value(other))
        status = number(other, &b);
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

/* ---- the type ---- */

static PyMethodDef value_methods[] = {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, ...)                                                     \
    {#method, op_##NAME, METH_NOARGS, #method "($self, /)\n--\n\n" doc "."},
#define TG_NAMED(NAME, method, aliases, symbol, refusal, doc, ...)                                                     \
    {#method, op_##NAME, METH_O, #method "($self, other, /)\n--\n\n" doc "."},
#define TG_PASSIVE(NAME, ...)
#include "ops.def"
    {"backward", (PyCFunction)(void (*)(void))value_backward, METH_VARARGS | METH_KEYWORDS,
     "backward($self, /, seed=1.0)\n--\n\n"
     "Add seed * d(self)/d(v) to v.grad for every v that self depends on; set self.grad to seed."},
    {"_push_grad", value_push_grad, METH_NOARGS,
     "_push_grad($self, /)\n--\n\nPush self.grad one step, to the operands' grads."},
    {0},
};

static PyGetSetDef value_attributes[] = {
    {"data", get_data, set_data, "The number, a float; writable.", NULL},
    {"grad", get_grad, set_grad, "The accumulated derivative, a float; writable.", NULL},
    {"_op", get_op, set_op, "Symbol of the operation, '' for a leaf; writable.", NULL},
    {"operands", get_operands, NULL, "The operands in order, with repeats: a tuple.", NULL},
    {"_prev", get_prev, NULL, "The operands: a new set of the same Values every time.", NULL},
    {"_backward", get_backward, set_backward,
     "Called without arguments: push grad one step to the operands. Assign a function to make it the node's rule.",
     NULL},
    {"__dict__", get_dict, NULL, "The attributes that were set; they stay with the node.", NULL},
    {0},
};

static PyMemberDef value_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Value, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Value, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot value_slots[] = {
    {Py_tp_doc, "Value(data, _children=(), _op='', label='')\n--\n\n"
                "A number that remembers the operations it came from: the handle of a node on the tape."},
    {Py_tp_new, value_new},
    {Py_tp_init, value_init},
    {Py_tp_dealloc, value_dealloc},
    {Py_tp_hash, value_hash},
    {Py_tp_richcompare, value_compare},
    {Py_tp_methods, value_methods},
    {Py_tp_getset, value_attributes},
    {Py_tp_members, value_members},
    {Py_nb_add, op_ADD},
    {Py_nb_subtract, op_SUB},
    {Py_nb_multiply, op_MUL},
    {Py_nb_true_divide, op_DIV},
    {Py_nb_power, op_power},
    {Py_nb_negative, op_negative},
    {Py_nb_positive, op_positive},
    {Py_nb_absolute, op_absolute},
    {0, NULL},
};

static PyType_Spec value_spec = {
    .name = "tapegrad.Value",
    .basicsize = sizeof(Value),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = value_slots,
};

static int fill_module(void)
{
    PyObject *refusals = PyImport_ImportModule("tapegrad._refusals"), *module, *label;
    if (!refusals)
        return -1;
    as_number = PyObject_GetAttrString(refusals, "as_number");
    refused = PyObject_GetAttrString(refusals, "refused");
    tg_function_type = refused ? Py_TYPE(refused) : NULL;
    Py_DECREF(refusals);
    rule_name = PyUnicode_InternFromString("_backward");
    op_name = PyUnicode_InternFromString("_op");
    label_name = PyUnicode_InternFromString("label");
    for (int op = 0; op < TG_OPS; op++)
        if (!(symbols[op] = PyUnicode_InternFromString(tg_ops[op].symbol)))
            return -1;
    tg_value_type = (PyTypeObject *)PyType_FromSpec(&value_spec);
    label = PyUnicode_InternFromString("");
    module = PyImport_AddModule("tapegrad._c_handle");      /* borrowed */
    if (!as_number || !refused || !rule_name || !op_name || !label_name || !tg_value_type || !label || !module ||
        PyObject_SetAttr((PyObject *)tg_value_type, label_name, label) || PyModule_AddFunctions(module, tg_functions))
        return -1;
    Py_DECREF(label);
    Py_INCREF(tg_value_type);
    return PyModule_AddObject(module, "Value", (PyObject *)tg_value_type);
}

/* Called through cffi, which released the GIL and knows no PyObject: the module goes to sys.modules. 0, or -1 after the
   error was printed. */
int tg_make_c_handle(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int code = 0;
    if (!tg_value_type && fill_module()) {
        PyErr_Print();
        code = -1;
    }
    PyGILState_Release(gil);
    return code;
}
