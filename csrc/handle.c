/*  The C handle: `Value` as a heap type in the limited API, whose number slots append to the one tape directly.

    A handle is the id of a node. It is canonical: the node's owner is its one live handle. Whatever runs Python code
    (reading a number, an allocation that collects, reclaim) comes before ids are read, for it may move them; from then
    on until the node is recorded nothing can. The GIL is the tape's lock: nothing here releases it, but for rules.  */
#include "handle.h"

#include <pythread.h>
#include <stdlib.h>

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

PyTypeObject *tg_value_type;

static PyObject *as_number, *refused;           /* of tapegrad._refusals */
static PyObject *rule_name, *op_name, *label_name;
static PyObject *symbols[TG_OPS];

static uint64_t thread(void) { return T->sweep ? (uint64_t)PyThread_get_thread_ident() : 0; }

/* ---- errors ---- */

/* Raise what a code stands for, with the operation and its operands. */
static void *raise(int64_t code, int op, double a, double b)
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
static void *wrong_type(const char *what, PyObject *o)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(o), "__name__");
    if (name)
        PyErr_Format(PyExc_TypeError, "%s, not '%U'", what, name);
    Py_XDECREF(name);
    return NULL;
}

static int has_node(const Value *v)
{
    if (v->id != TG_NONE)
        return 1;
    PyErr_SetString(PyExc_RuntimeError, "this Value has no node: Value.__init__() was not called, or failed");
    return 0;
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

static int need_number(const char *what, PyObject *o, double *out)
{
    int status = number(o, out);
    if (status == 0)
        wrong_type(what, o);
    return status == 1;
}

/* ---- handles come and go ---- */

#define SPARE_MOST 256
static Value *spare;            /* memory of dead handles, linked by dict */
static int spares;

static inline Value *new_handle(void)
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

static inline PyObject *own(Value *v, uint32_t id)
{
    v->id = id;
    T->owner[id] = v;
    return (PyObject *)v;
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
        v = new_handle();
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

static int64_t reclaim(void)
{
    if (T->sweep)                       /* its ids must stay */
        return 0;
    pop_dead();
    tg_mark_held();
    return slide(tg_slide);
}

/* Make room, reclaiming first where that is due. May run Python code: ids are read after. */
static int make_room(uint64_t nodes, uint64_t words)
{
    int code;
    if (!T->sweep && T->len + nodes > T->reclaim_at)
        reclaim();                      /* without memory for it there may still be some to grow */
    code = tg_grow(T, nodes, words);
    if (code)
        raise(code, TG_LEAF, 0.0, 0.0);
    return !code;
}

static inline int room(uint32_t nodes) { return T->room - T->len >= nodes || make_room(nodes, 0); }

/* ---- recording ---- */

static THREAD_LOCAL int grad_off;       /* depth of no_grad in this thread */
static int grad_off_anywhere;           /* over all threads: mostly 0, and cheaper to ask */

static inline int passive(void) { return grad_off_anywhere && grad_off; }

/* Record y = op(a, b), the last of them a new leaf where k is given. There is room. */
TG_INLINE PyObject *record(int op, uint32_t a, uint32_t b, const double *k, int k_first, int k_written_int)
{
    double da = k && k_first ? *k : T->data[a], db = k && !k_first ? *k : T->data[b], y = tg_primal(op, da, db);
    int code = tg_refusal(op, da, db, y);
    Value *v;
    if (code)
        return raise(code, op, da, db);
    v = new_handle();
    if (!v)
        return NULL;
    if (passive())
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

/* Slots and methods, one each a row. A method of two operands has nobody to pass NotImplemented on to. */
#define TG_UNARY(NAME, ...)                                                                                            \
    static PyObject *op_##NAME(PyObject *self, PyObject *unused)                                                       \
    {                                                                                                                  \
        (void)unused;                                                                                                  \
        return unary(TG_##NAME, self);                                                                                 \
    }
#define TG_BINARY(NAME, method, ...)                                                                                   \
    static PyObject *op_##NAME(PyObject *x, PyObject *y) { return binary(TG_##NAME, x, y); }
#include "ops.def"

static PyObject *with_other(PyObject *result, const char *what, PyObject *other)
{
    if (result != Py_NotImplemented)
        return result;
    Py_DECREF(result);
    return wrong_type(what, other);
}

#define METHOD_OF_TWO(NAME)                                                                                            \
    static PyObject *method_##NAME(PyObject *self, PyObject *other)                                                    \
    {                                                                                                                  \
        return with_other(op_##NAME(self, other), "the other operand must be a Value or a number", other);             \
    }
METHOD_OF_TWO(MAX)
METHOD_OF_TWO(MIN)
METHOD_OF_TWO(ATAN2)
METHOD_OF_TWO(HYPOT)

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

/* A tuple of Values and numbers, taken apart. */
typedef struct {
    PyObject *items;
    double *number;         /* of the items that are none of ours */
    uint32_t n, numbers;
} operand_list;

static void release(operand_list *list)
{
    free(list->number);
    Py_XDECREF(list->items);
}

/* Append what an iterable gives to the list. Runs Python code. */
static int gather(operand_list *list, PyObject *iterable)
{
    PyObject *more = PySequence_Tuple(iterable), *joined;
    double *numbers;
    Py_ssize_t n;
    if (!more)
        return 0;
    joined = list->items ? PySequence_Concat(list->items, more) : more;
    if (list->items) {
        Py_DECREF(more);
        if (!joined)
            return 0;
        Py_DECREF(list->items);
    }
    list->items = joined;
    n = PyTuple_Size(joined);
    numbers = n < (Py_ssize_t)TG_NONE ? tg_realloc(list->number, ((size_t)n + 1) * sizeof *numbers) : NULL;
    if (!numbers) {
        PyErr_NoMemory();
        return 0;
    }
    list->number = numbers;
    for (uint32_t k = list->n; k < n; k++) {
        PyObject *item = PyTuple_GetItem(joined, k);
        if (!is_value(item)) {
            if (!need_number("operands must be Values or numbers", item, &numbers[k]))
                return 0;
            list->numbers++;
        } else if (!has_node((Value *)item))
            return 0;
    }
    list->n = (uint32_t)n;
    return 1;
}

/* Record the many-operand node of a list; without operands, a leaf. */
static PyObject *record_list(int op, const operand_list *list)
{
    uint32_t start, *ids;
    Value *v;
    double y = 0.0;
    if (!make_room((uint64_t)list->numbers + 1, (uint64_t)list->n + 1))
        return NULL;
    v = new_handle();
    if (!v)
        return NULL;
    start = T->len;
    if (!list->n)
        return own(v, tg_push(T, TG_LEAF, 0, 0, y));
    for (uint32_t k = 0; k < list->n; k++)
        if (!is_value(PyTuple_GetItem(list->items, k)))
            tg_push(T, TG_LEAF, 0, 0, list->number[k]);
    ids = tg_push_many(T, op, list->n);
    for (uint32_t k = 0, leaf = start; k < list->n; k++) {
        PyObject *item = PyTuple_GetItem(list->items, k);
        ids[k] = is_value(item) ? ((Value *)item)->id : leaf++;
    }
    switch (op) {
#define TG_MANY(NAME, method, aliases, symbol, refusal, primal, ...)                                                   \
    case TG_##NAME: y = primal(T->data, ids, list->n); break;
#include "ops.def"
    }
    T->data[T->len - 1] = y;
    if (passive()) {
        tg_pop(T);
        tg_push(T, TG_LEAF, 0, 0, y);
    }
    return own(v, T->len - 1);
}

/* ---- construction ---- */

static PyObject *value_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Value *v;
    (void)args, (void)kwargs;
    if (type == tg_value_type)
        return (PyObject *)new_handle();
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
    if (!need_number("data must be a number", data, &number) || (children && !gather(&list, children)))
        goto out;
    for (uint32_t k = 0; k < list.n; k++)
        if (!is_value(PyTuple_GetItem(list.items, k))) {
            wrong_type("_children must be Values", PyTuple_GetItem(list.items, k));
            goto out;
        }
    if (set_unless_empty(v, op_name, op) || set_unless_empty(v, label_name, label) ||
        !make_room(1, (uint64_t)list.n + 1))
        goto out;
    if (v->id < T->len && T->owner[v->id] == v)         /* __init__ again: another node, the old one is its users' */
        T->owner[v->id] = NULL;
    if (!list.n || passive())
        tg_push(T, TG_LEAF, 0, 0, number);
    else {
        uint32_t *ids = tg_push_many(T, TG_NODE, list.n);
        for (uint32_t k = 0; k < list.n; k++)
            ids[k] = ((Value *)PyTuple_GetItem(list.items, k))->id;
        T->data[T->len - 1] = number;
    }
    own(v, T->len - 1);
    done = 0;
out:
    release(&list);
    return done;
}

/* ---- attributes ---- */

static PyObject *get_data(PyObject *self, void *unused)
{
    (void)unused;
    return has_node((Value *)self) ? PyFloat_FromDouble(T->data[((Value *)self)->id]) : NULL;
}

/* The number that is being set; 0 with an exception where it is none, or the attribute is being deleted. */
static int new_number(Value *v, const char *what, PyObject *o, double *out)
{
    if (o)
        return need_number(what, o, out) && has_node(v);
    PyErr_SetString(PyExc_AttributeError, "data and grad of a Value cannot be deleted");
    return 0;
}

static int set_data(PyObject *self, PyObject *o, void *unused)
{
    double x;
    (void)unused;
    if (!new_number((Value *)self, "data must be a number", o, &x))
        return -1;
    T->data[((Value *)self)->id] = x;
    return 0;
}

static PyObject *get_grad(PyObject *self, void *unused)
{
    (void)unused;
    return has_node((Value *)self) ? PyFloat_FromDouble(tg_read_grad(T, ((Value *)self)->id, thread())) : NULL;
}

static int set_grad(PyObject *self, PyObject *o, void *unused)
{
    double x;
    (void)unused;
    if (!new_number((Value *)self, "grad must be a number", o, &x))
        return -1;
    tg_write_grad(T, ((Value *)self)->id, thread(), x);
    return 0;
}

/* What is set in the handle's dict, borrowed, or NULL. */
static PyObject *noted(const Value *v, PyObject *name) { return v->dict ? PyDict_GetItemWithError(v->dict, name) : NULL; }

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
    if (tuple) {
        tg_operands(T, v->id, ids, n);
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
    (void)unused;
    if (!has_node(v))
        return -1;
    if (rule && !PyCallable_Check(rule)) {
        wrong_type("_backward must be callable", rule);
        return -1;
    }
    if (note(v, rule_name, rule))
        return -1;
    tg_set_rule(T, v->id, rule != NULL);
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
        (seed && !need_number("seed must be a number", seed, &g)) || !has_node((Value *)self))
        return NULL;
    code = tg_backward(T, ((Value *)self)->id, g, call_rule, NULL, (uint64_t)PyThread_get_thread_ident());
    if (code)
        return raise(code, TG_LEAF, 0.0, 0.0);
    Py_RETURN_NONE;
}

static PyObject *value_push_grad(PyObject *self, PyObject *unused)
{
    int code;
    (void)unused;
    if (!has_node((Value *)self))
        return NULL;
    code = tg_push_grad(T, ((Value *)self)->id, thread());
    if (code)
        return raise(code, TG_LEAF, 0.0, 0.0);
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
    return PyBool_FromLong(truth);
}

/* ---- the type ---- */

static PyMethodDef value_methods[] = {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, primal, da, doc)                                              \
    {#method, op_##NAME, METH_NOARGS, #method "($self, /)\n--\n\n" doc "."},
#include "ops.def"
#define METHOD(NAME, method)                                                                                           \
    {#method, method_##NAME, METH_O, #method "($self, other, /)\n--\n\nSee the table of operations."},
    METHOD(MAX, max)
    METHOD(MIN, min)
    METHOD(ATAN2, atan2)
    METHOD(HYPOT, hypot)
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

/* ---- functions of the module ---- */

static PyObject *module_dot(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"xs", "ys", "bias", NULL};
    PyObject *xs, *ys, *bias = Py_None, *one, *node = NULL;
    operand_list list = {0};
    uint32_t n;
    int good;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:dot", names, &xs, &ys, &bias))
        return NULL;
    good = gather(&list, xs);
    n = list.n;
    good = good && gather(&list, ys);
    if (good && list.n != 2 * (uint64_t)n) {
        PyErr_Format(PyExc_ValueError, "dot: %u xs but %u ys", n, list.n - n);
        good = 0;
    }
    if (good && bias != Py_None) {
        one = PyTuple_Pack(1, bias);
        good = one && gather(&list, one);
        Py_XDECREF(one);
    }
    if (good)
        node = record_list(TG_DOT, &list);
    release(&list);
    return node;
}

static PyObject *many(int op, PyObject *xs)
{
    operand_list list = {0};
    PyObject *node = NULL;
    if (gather(&list, xs)) {
        if (op == TG_LOGSUMEXP && !list.n)
            PyErr_SetString(PyExc_ValueError, "logsumexp of no operands");
        else
            node = record_list(op, &list);
    }
    release(&list);
    return node;
}

static PyObject *module_sum(PyObject *module, PyObject *xs) { (void)module; return many(TG_SUM, xs); }
static PyObject *module_logsumexp(PyObject *module, PyObject *xs) { (void)module; return many(TG_LOGSUMEXP, xs); }

static PyObject *module_leaves(PyObject *module, PyObject *iterable)
{
    operand_list list = {0};
    PyObject *leaves = NULL;
    (void)module;
    if (!gather(&list, iterable))
        goto out;
    leaves = PyList_New(list.n);
    if (!leaves || !make_room(list.n, 0)) {
        Py_CLEAR(leaves);
        goto out;
    }
    for (uint32_t k = 0; k < list.n; k++) {
        PyObject *item = PyTuple_GetItem(list.items, k);
        Value *v = is_value(item) ? NULL : new_handle();
        if (!v) {
            if (!PyErr_Occurred())
                wrong_type("leaves are made of numbers", item);
            Py_CLEAR(leaves);
            goto out;
        }
        PyList_SetItem(leaves, k, own(v, tg_push(T, TG_LEAF, 0, 0, list.number[k])));
    }
out:
    release(&list);
    return leaves;
}

static PyObject *module_zero_grad(PyObject *module, PyObject *values)
{
    PyObject *items = PySequence_Tuple(values);
    Py_ssize_t n;
    (void)module;
    if (!items)
        return NULL;
    n = PyTuple_Size(items);
    for (Py_ssize_t k = 0; k < n; k++) {
        PyObject *item = PyTuple_GetItem(items, k);
        if (is_value(item) ? !has_node((Value *)item) : !wrong_type("zero_grad takes Values", item)) {
            Py_DECREF(items);
            return NULL;
        }
    }
    for (Py_ssize_t k = 0; k < n; k++)
        tg_write_grad(T, ((Value *)PyTuple_GetItem(items, k))->id, thread(), 0.0);
    Py_DECREF(items);
    Py_RETURN_NONE;
}

static PyObject *module_no_grad(PyObject *module, PyObject *step)
{
    int by = (int)PyLong_AsLong(step);
    (void)module;
    if (PyErr_Occurred())
        return NULL;
    grad_off += by;
    grad_off_anywhere += by;
    Py_RETURN_NONE;
}

static PyObject *module_size(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLong(T->len);
}

static PyObject *module_bytes(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(tg_bytes(T));
}

static PyObject *module_collect(PyObject *module, PyObject *unused)
{
    int64_t freed = reclaim();
    (void)module, (void)unused;
    return freed < 0 ? raise(freed, TG_LEAF, 0.0, 0.0) : PyLong_FromLongLong(freed);
}

static PyObject *module_reset(PyObject *module, PyObject *unused)
{
    int64_t code;
    (void)module, (void)unused;
    if (T->sweep) {
        PyErr_SetString(PyExc_RuntimeError, "the tape cannot be reset while a sweep is running a rule");
        return NULL;
    }
    tg_mark_owned(T);
    code = slide(tg_forget);
    if (code < 0)
        return raise(code, TG_LEAF, 0.0, 0.0);
    for (uint32_t i = 0; i < T->len; i++) {             /* no rule and no symbol is left to a leaf */
        Value *v = HANDLE(T->owner[i]);
        if (TG_LIVE(T->owner[i]) && v->dict && (note(v, rule_name, NULL) || note(v, op_name, NULL)))
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *module_clear_grads(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    tg_clear_grads(T);
    Py_RETURN_NONE;
}

static PyObject *module_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("IIIKKd", T->len, tg_owners(T), T->cap, (unsigned long long)tg_bytes(T),
                         (unsigned long long)T->reclaims, T->reclaim_seconds);
}

static PyMethodDef module_functions[] = {
    {"dot", (PyCFunction)(void (*)(void))module_dot, METH_VARARGS | METH_KEYWORDS,
     "dot($module, /, xs, ys, bias=None)\n--\n\n"
     "bias + xs[0] * ys[0] + xs[1] * ys[1] + .., as one node.\n\n"
     "Args:\n    xs, ys: iterables of Values and numbers, of the same length n.\n"
     "    bias: where the sum starts: a Value or a number; 0.0 without.\n\n"
     "Returns:\n    A Value whose operands are xs, then ys, then bias.\n\n"
     "Raises:\n    ValueError: the lengths differ.\n    TypeError: an element is no Value and no number."},
    {"sum", module_sum, METH_O,
     "sum($module, xs, /)\n--\n\nxs[0] + xs[1] + .., left to right from 0.0, as one node.\n\n"
     "Args:\n    xs: an iterable of Values and numbers.\n\nReturns:\n    A Value; a leaf 0.0 where xs is empty."},
    {"logsumexp", module_logsumexp, METH_O,
     "logsumexp($module, xs, /)\n--\n\nlog(exp(xs[0]) + exp(xs[1]) + ..) without overflow, as one node.\n\n"
     "Args:\n    xs: an iterable of Values and numbers, not empty.\n\n"
     "Source: Blanchard, Higham, Higham, IMA J. Numer. Anal. 41 (2021)."},
    {"leaves", module_leaves, METH_O,
     "leaves($module, numbers, /)\n--\n\nA list of new leaves, one for every number of an iterable."},
    {"zero_grad", module_zero_grad, METH_O,
     "zero_grad($module, values, /)\n--\n\nSet the grad of every Value of an iterable to 0.0."},
    {"no_grad_by", module_no_grad, METH_O, "Enter (1) or leave (-1) no_grad in this thread."},
    {"size", module_size, METH_NOARGS, NULL},
    {"nbytes", module_bytes, METH_NOARGS, NULL},
    {"collect", module_collect, METH_NOARGS, NULL},
    {"reset", module_reset, METH_NOARGS, NULL},
    {"clear_grads", module_clear_grads, METH_NOARGS, NULL},
    {"stats", module_stats, METH_NOARGS, NULL},
    {0},
};

static int fill_module(void)
{
    PyObject *refusals = PyImport_ImportModule("tapegrad._refusals"), *module, *label;
    if (!refusals)
        return -1;
    as_number = PyObject_GetAttrString(refusals, "as_number");
    refused = PyObject_GetAttrString(refusals, "refused");
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
        PyObject_SetAttr((PyObject *)tg_value_type, label_name, label) || PyModule_AddFunctions(module, module_functions))
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
