#include "value.h"

#include "attributes.h"
#include "held.h"
#include "operands.h"
#include "operations.h"
#include "recording.h"

static PyObject *label_name;

static PyObject *value_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    return (PyObject *)tg_new_of(type);
}

static int set_unless_empty(Value *v, PyObject *name, PyObject *text)
{
    return text && !(PyUnicode_Check(text) && PyUnicode_GetLength(text) == 0) ? tg_set_attribute(v, name, text) : 0;
}

/* What a node starts with: a number, or the data of a Value. 1, or 0 with an exception. */
static int first_data(PyObject *o, double *data)
{
    if (!is_value(o))
        return tg_need_number("data must be a number", o, data);
    if (!has_node((Value *)o) || tg_note_escape(".data was read: a replay does not see it"))
        return 0;
    *data = T->data[((Value *)o)->id];
    return 1;
}

static int value_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "_children", "_op", "label", NULL};
    Value *v = (Value *)self;
    PyObject *data, *children = NULL, *op = NULL, *label = NULL;
    operand_list list = {0};
    double number;
    int done = -1, off = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO:Value", names, &data, &children, &op, &label))
        return -1;
    if (!first_data(data, &number) || (children && tg_gather(&list, children) < 0))
        goto out;
    if (list.n && tg_note_escape("a node was made by hand: its data is a constant of the program"))
        goto out;
    for (uint32_t k = 0; k < list.n; k++)
        if (!is_value(list.item[k])) {
            tg_wrong_type("_children must be Values", list.item[k]);
            goto out;
        }
    if (set_unless_empty(v, tg_op_name, op) || set_unless_empty(v, label_name, label) ||
        !tg_make_room(1, (uint64_t)list.n + 1) || (off = tg_grad_off()) < 0)
        goto out;
    if (v->id < T->len && T->owner[v->id] == v)         /* __init__ again: another node, the old one is its users' */
        T->owner[v->id] = NULL;
    if (!list.n || off)
        tg_push(T, TG_LEAF, 0, 0, number);
    else {
        tg_ids_of(&list, tg_push_many(T, TG_NODE, list.n));
        T->data[T->len - 1] = number;
    }
    own(v, T->len - 1);
    done = 0;
out:
    tg_release(&list);
    return done;
}

static Py_hash_t value_hash(PyObject *self)
{
    Py_hash_t h = (Py_hash_t)((uintptr_t)self >> 4);
    return h == -1 ? -2 : h;
}

static PyObject *value_positive(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

static PyMethodDef value_methods[] = {
#define TG_UNARY(NAME, method, aliases, symbol, refusal, doc, ...)                                                     \
    {#method, tg_op_##NAME, METH_NOARGS, #method "($self, /)\n--\n\n" doc "."},
#define TG_NAMED(NAME, method, aliases, symbol, refusal, doc, ...)                                                     \
    {#method, tg_op_##NAME, METH_O, #method "($self, other, /)\n--\n\n" doc "."},
#define TG_ORDER(NAME, method, aliases, symbol, refusal, doc, ...)                                                     \
    {#method, tg_op_##NAME, METH_O, #method "($self, other, /)\n--\n\n" doc "."},
#define TG_PASSIVE(NAME, ...)
#include "ops.def"
    {"backward", (PyCFunction)(void (*)(void))tg_backward_from, METH_VARARGS | METH_KEYWORDS,
     "backward($self, /, seed=1.0)\n--\n\n"
     "Add seed * d(self)/d(v) to v.grad for every v that self depends on; set self.grad to seed.\n\n"
     "Where a node's own rule raises, so does this, and every grad is as it was.\n\n"
     ">>> x = Value(3.0)\n>>> (x * x).backward(seed=2.0)\n>>> x.grad\n12.0"},
    {"_push_grad", tg_push_grad_of, METH_NOARGS,
     "_push_grad($self, /)\n--\n\nPush self.grad one step, to the operands' grads."},
    {0},
};

static PyMemberDef value_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(Value, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Value, weakrefs), READONLY, NULL},
    {0},
};

static PyType_Slot value_slots[] = {
    {Py_tp_doc, "Value(data, _children=(), _op='', label='')\n--\n\n"
                "A number that remembers the operations it came from: the handle of a node on the tape.\n\n"
                "Args:\n    data: a number, or a Value, whose data it takes.\n"
                "    _children, _op: of a node made by hand, its operands, Values, and the symbol of its operation.\n"
                "    label: any object to tell it by.\n\n"
                "Raises:\n    TypeError: data is no number, or one of _children is no Value.\n\n"
                ">>> x = Value(3.0, label=\"x\")\n>>> y = x * x + 2.0\n>>> y.backward()\n>>> y, x\n"
                "(Value(data=11.0, grad=1.0), Value(x|data=3.0, grad=6.0))"},
    {Py_tp_new, value_new},
    {Py_tp_init, value_init},
    {Py_tp_dealloc, tg_handle_dies},
    {Py_tp_hash, value_hash},
    {Py_tp_richcompare, tg_compare},
    {Py_tp_methods, value_methods},
    {Py_tp_getset, tg_attributes},
    {Py_tp_members, value_members},
    {Py_nb_add, tg_op_ADD},
    {Py_nb_subtract, tg_op_SUB},
    {Py_nb_multiply, tg_op_MUL},
    {Py_nb_true_divide, tg_op_DIV},
    {Py_nb_remainder, tg_op_MOD},
    {Py_nb_floor_divide, tg_op_FLOORDIV},
    {Py_nb_power, tg_power},
    {Py_nb_negative, tg_negative},
    {Py_nb_positive, value_positive},
    {Py_nb_absolute, tg_absolute},
    {Py_nb_bool, tg_truth},
    {0, NULL},
};

static PyType_Spec value_spec = {
    .name = "tapegrad.Value",
    .basicsize = sizeof(Value),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = value_slots,
};

PyTypeObject *tg_make_value_type(void)
{
    PyObject *type = PyType_FromSpec(&value_spec), *none = PyUnicode_InternFromString("");
    label_name = PyUnicode_InternFromString("label");
    if (!type || !none || !label_name || PyObject_SetAttr(type, label_name, none))
        Py_CLEAR(type);
    Py_XDECREF(none);
    return (PyTypeObject *)type;
}
