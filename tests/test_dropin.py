"""The compatibility contract line by line: what a program written for micrograd's Value may do, and what it gets."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import operator
import pickle
import re
import sys
import textwrap
import weakref
from decimal import Decimal
from fractions import Fraction

import pytest
from reference import OPERATORS, UNARY

import tapegrad
from tapegrad import Value, tape
from tapegrad.value import handle

IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow]
ORDERINGS = [operator.lt, operator.le, operator.gt, operator.ge]


class Half:
    """Something that float() takes without being a number of Python's."""

    def __float__(self):
        return 0.5


class Index:
    def __index__(self):
        return 7


NUMBERS = [3, -2.5, True, Fraction(1, 4), Half(), Index(), 10**300]


# constructor and attributes


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_data_becomes_a_float(number):
    v = Value(number)
    assert (v.data, type(v.data)) == (float(number), float)


def test_a_fresh_leaf_has_nothing_but_its_data():
    v = Value(2.0)
    assert (v.grad, v.label, v._op, v._prev, v.operands) == (0.0, "", "", set(), ())


def test_the_constructor_takes_micrograds_keywords():
    a, b = Value(1.0), Value(2.0)
    v = Value(data=3.0, _children=(a, b), _op="+", label="v")
    assert (v.data, v._prev, v._op, v.label, v.operands) == (3.0, {a, b}, "+", "v", (a, b))


def test_the_constructor_takes_micrograds_positions():
    a = Value(1.0)
    v = Value(3.0, (a,), "op", "v")
    assert (v._prev, v._op, v.label) == ({a}, "op", "v")


@pytest.mark.parametrize("make", [list, tuple, set, iter, frozenset])
def test_children_may_come_in_any_iterable(make):
    a, b = Value(1.0), Value(2.0)
    assert Value(3.0, make([a, b]))._prev == {a, b}


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["data", "grad"])
def test_data_and_grad_are_writable_and_become_floats(name, number):
    v = Value(1.0)
    setattr(v, name, number)
    assert (getattr(v, name), type(getattr(v, name))) == (float(number), float)


def test_data_and_grad_add_in_place():
    v = Value(1.0)
    v.data += 0.5
    v.grad -= 0.25
    assert (v.data, v.grad) == (1.5, -0.25)


@pytest.mark.parametrize(("name", "text"), [("label", "loss"), ("_op", "drawn so")])
def test_label_and_op_are_writable(name, text):
    v = Value(1.0) + 1
    setattr(v, name, text)
    assert getattr(v, name) == text


def test_a_renamed_op_still_computes_what_it_did():
    x = Value(3.0)
    y = x * x
    y._op = "+"
    y.backward()
    assert x.grad == 6.0


@pytest.mark.parametrize(
    ("expression", "op"),
    [
        (lambda a, b: a + b, "+"),
        (lambda a, b: a - b, "-"),
        (lambda a, b: a * b, "*"),
        (lambda a, b: a / b, "/"),
        (lambda a, b: a**b, "**"),
        (lambda a, b: 2**b, "**"),
        (lambda a, b: a**2, "**2"),
        (lambda a, b: a**0.5, "**0.5"),
        (lambda a, b: a**-1, "**-1"),
        (lambda a, b: a.tanh(), "tanh"),
        (lambda a, b: a.exp(), "exp"),
        (lambda a, b: a.relu(), "ReLU"),
    ],
)
def test_op_is_the_symbol_that_micrograd_draws(expression, op):
    assert expression(Value(1.0), Value(2.0))._op == op


@pytest.mark.parametrize("k", [2, 0.5, -1])
def test_a_power_with_a_number_has_its_base_alone_as_operand(k):
    x = Value(4.0)
    y = x**k
    assert (y._prev, y.operands) == ({x}, (x,))


def test_a_number_that_meets_a_value_becomes_a_leaf():
    x = Value(4.0)
    _, two = (x * 2).operands
    assert (two.data, two._prev, two._op) == (2.0, set(), "")


def test_operands_come_in_order_and_with_repeats():
    a, b = Value(1.0), Value(2.0)
    assert [(b - a).operands, (a - b).operands, (a * a).operands] == [(b, a), (a, b), (a, a)]


def test_prev_holds_a_repeated_operand_once():
    a = Value(1.0)
    assert (a * a)._prev == {a}


def test_prev_is_a_fresh_set_of_the_very_same_objects():
    a, b = Value(1.0), Value(2.0)
    c = a * b
    first, second = c._prev, c._prev
    assert type(first) is set and first is not second
    assert set(map(id, first)) == set(map(id, second)) == {id(a), id(b)}


def test_changing_prev_changes_nothing():
    c = Value(1.0) * Value(2.0)
    c._prev.clear()
    assert len(c._prev) == 2


def test_an_operand_whose_handle_was_dropped_comes_back_as_one_object():
    a = Value(2.0)
    d = (a * a + 1) * a
    (inner,) = d._prev - {a}
    assert d.operands[0] is inner and d._prev == {inner, a}
    assert (inner.data, inner._op) == (5.0, "+")


def test_prev_and_operands_cannot_be_assigned():
    v = Value(1.0)
    for name in ("_prev", "operands"):
        with pytest.raises(AttributeError):
            setattr(v, name, ())


@pytest.mark.parametrize("name", ["data", "grad"])
def test_data_and_grad_cannot_be_deleted(name):
    v = Value(1.5)
    with pytest.raises((AttributeError, TypeError)):
        delattr(v, name)
    assert getattr(v, name) == (1.5 if name == "data" else 0.0)


def test_any_other_attribute_may_be_set_and_deleted():
    v = Value(1.0)
    v.note = ["anything"]
    assert v.note == ["anything"]
    del v.note
    assert not hasattr(v, "note")


def test_an_attribute_that_was_never_set_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        Value(1.0).nothing_like_it  # noqa: B018


def test_attributes_stay_with_the_node_while_no_handle_is_there(settle):
    a, b = Value(2.0), Value(-3.0)
    e = a * b
    e.label, e._op, e.grad, e.data, e.note = "e", "times", 4.0, -5.0, {"k": 1}
    d = e + 10
    del e
    settle()
    (back,) = (v for v in d._prev if v.label == "e")
    assert (back._op, back.grad, back.data, back.note) == ("times", 4.0, -5.0, {"k": 1})


def test_attributes_stay_with_the_node_over_a_reclaim(settle):
    dead = [Value(float(i)) for i in range(1000)]
    e = Value(2.0) * 3
    e.label, e.note = "e", "here"
    d = e + 10
    del e, dead
    settle()
    tape.collect()
    e = d.operands[0]
    assert (e.label, e.note, e.data) == ("e", "here", 6.0)


def test_attributes_of_a_dead_node_do_not_come_back_on_another(settle):
    v = Value(1.0)
    v.label, v.note = "old", "old"
    del v
    settle()
    w = Value(2.0)
    assert (w.label, hasattr(w, "note"), w._op) == ("", False, "")


def test_attributes_of_a_dead_node_are_let_go(settle):
    class Note:
        pass

    v = Value(1.0)
    v.note = Note()
    note = weakref.ref(v.note)
    del v
    settle()
    gc.collect()
    assert note() is None


# repr and format


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: Value(0.881373), "Value(data=0.881373, grad=0.0)"),
        (lambda: Value(3), "Value(data=3.0, grad=0.0)"),
        (lambda: Value(-8.0, label="L"), "Value(L|data=-8.0, grad=0.0)"),
        (lambda: Value(1e300) * 1e300, "Value(data=inf, grad=0.0)"),
        (lambda: Value(-0.0), "Value(data=-0.0, grad=0.0)"),
    ],
)
def test_repr_shows_label_data_and_grad(value, text):
    assert repr(value()) == str(value()) == f"{value()}" == text


def test_repr_shows_the_grad_as_it_is_now():
    v = Value(2.0, label="v")
    (v * 3).backward()
    assert repr(v) == "Value(v|data=2.0, grad=3.0)"


@pytest.mark.parametrize("spec", [".3f", ">12.2e", "+", "08.3f", "g", "%"])
def test_a_format_formats_data(spec):
    assert format(Value(2.0 / 3), spec) == format(2.0 / 3, spec)


def test_a_format_that_floats_refuse_is_refused():
    with pytest.raises(ValueError):
        format(Value(1.0), "d")


# operators and comparison


@pytest.mark.parametrize("update", IN_PLACE)
def test_an_update_in_place_rebinds(update):
    v = Value(3.0)
    w = update(v, 2)
    assert v.data == 3.0 and w is not v and w.data == update(3.0, 2)


def test_unary_plus_passes_value_and_slope():
    v = Value(-3.0)
    (+v * 2).backward()
    assert (+v).data == -3.0 and v.grad == 2.0


def test_python_sum_starts_from_its_zero():
    xs = [Value(float(i)) for i in range(10)]
    total = sum(xs)
    total.backward()
    assert total.data == 45.0 and {x.grad for x in xs} == {1.0}


def test_minus_divide_and_negation_are_one_node_each():
    a, b = Value(1.0), Value(3.0)
    for y in (a - b, a / b):
        assert y.operands == (a, b)
    assert (-a).operands == (a,)


def test_a_division_is_rounded_once():
    assert (Value(5.0) / Value(49.0)).data == 5.0 / 49.0 != 5.0 * 49.0**-1


def test_equality_is_identity():
    a, b = Value(1.0), Value(1.0)
    same = a
    assert (a == same, a == b, a != same, a != b, a == 1.0, a != 1.0) == (True, False, False, True, False, True)


@pytest.mark.parametrize("ask", [lambda f: tapegrad.record(f, 0.0, 0.0)(0.0, 0.0), lambda f: answered(f)])
def test_what_is_recorded_or_differentiated_answers_as_numbers_do(ask):
    answers = []

    def f(a, b):
        answers.append((a == b, a != b, a == 0.0, 0 != a, bool(a), a in [b], a is b, hash(a) == hash(b)))
        return a + b

    ask(f)
    assert answers == [(True, False, True, False, False, True, False, False)]
    zero = Value(0.0)
    assert zero and zero != 0.0 and not zero == Value(0.0)


def answered(f):
    handle.as_numbers_by(1)
    try:
        f(Value(0.0), Value(0.0))
    finally:
        handle.as_numbers_by(-1)


def test_hash_goes_with_equality():
    a, b = Value(1.0), Value(1.0)
    assert len({a, b, a}) == 2 and {a: "a", b: "b"}[a] == "a"


def test_every_value_is_true():
    assert Value(0.0) and Value(math.nan)


@pytest.mark.parametrize("order", ORDERINGS)
@pytest.mark.parametrize(("a", "b"), [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_order_compares_data(order, a, b):
    assert order(Value(a), Value(b)) is order(a, b)


@pytest.mark.parametrize("order", ORDERINGS)
@pytest.mark.parametrize(("a", "b"), [(1.0, 2), (2.0, 1), (1.0, True)])
def test_order_compares_with_numbers_on_either_side(order, a, b):
    assert (order(Value(a), b), order(b, Value(a))) == (order(a, b), order(b, a))


BETWEEN_FLOATS = [2**53 + 1, -(2**53) - 1, 2**60 - 1, 10**400, -(10**400), *(Fraction(k, 30) for k in (-20, 3, 10))]


@pytest.mark.parametrize("order", ORDERINGS)
@pytest.mark.parametrize("b", BETWEEN_FLOATS, ids=lambda b: repr(b)[:20])
def test_order_with_numbers_between_floats_is_that_of_floats(order, b):
    nearest = [float(b), math.nextafter(float(b), 0.0)] if abs(b) < 1e99 else []
    for a in [*nearest, 0.0, 1e300, -1e300, math.inf, -math.inf, math.nan]:
        assert (order(Value(a), b), order(b, Value(a))) == (order(a, b), order(b, a))


def test_order_with_what_has_a_float_alone_is_that_of_the_float():
    assert Value(0.25) < Half() and Value(0.5) <= Half() and not Value(0.5) > Half()


def test_sorted_max_and_min_work():
    a, b, c = Value(3.0), Value(1.0), Value(2.0)
    assert (sorted([a, b, c]), max(a, b, c), min(a, b, c)) == ([b, c, a], a, b)


def test_order_with_a_string_is_a_type_error():
    with pytest.raises(TypeError):
        Value(1.0) < "s"  # noqa: B015


# copies


@pytest.fixture(params=["copy", "deepcopy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def clone(request):
    """copy, deepcopy and a round trip through every pickle protocol."""
    if isinstance(request.param, str):
        return getattr(copy, request.param)
    return lambda v: pickle.loads(pickle.dumps(v, request.param))


def test_a_copy_is_a_new_leaf_with_data_grad_and_label(clone):
    v = Value(6.0)
    v.label, v.grad = "v", 5.0
    w = clone(v)
    assert w is not v and type(w) is Value
    assert (w.data, w.grad, w.label, w._prev, w._op) == (6.0, 5.0, "v", set(), "")


def test_a_copy_lives_its_own_life(clone):
    v = Value(2.0)
    w = clone(v)
    w.data = 7.0
    (w * v).backward()
    assert (v.data, v.grad, w.grad) == (2.0, 7.0, 2.0)


def test_shared_stays_shared_within_a_copy(clone):
    v, u = Value(2.0), Value(2.0)
    a, b, c = clone([v, v, u])
    assert a is b and a is not c
    assert (a is v) is (clone is copy.copy)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_with_a_history_is_not_pickled(protocol):
    v = Value(2.0) * 3
    for what in (v, [v], {"v": v}):
        with pytest.raises(TypeError, match=r"history .* v\.data"):
            pickle.dumps(what, protocol)
    v.operands[0].label = "leaf"
    assert pickle.loads(pickle.dumps(v.operands[0], protocol)).label == "leaf"


def test_a_copy_shares_its_operands():
    x = Value(2.0)
    v = x * x
    v.label, v.grad, v.seen = "v", 5.0, [1]
    w = copy.copy(v)
    assert w is not v and (w.data, w.grad, w.label, w._op, w._prev) == (4.0, 5.0, "v", "*", {x})
    assert w.seen is v.seen
    w.label = "w"
    w.backward()
    assert (v.label, x.grad, v.grad) == ("v", 4.0, 5.0)


def test_a_deep_copy_has_a_history_of_its_own():
    x = Value(3.0, label="x")
    y = (x * x + 1) ** 2
    y.backward()
    z = copy.deepcopy(y)
    (squared, _) = z.operands[0].operands
    copied = squared.operands[0]
    assert copied is not x and squared.operands == (copied, copied)
    assert (z.data, z._op, z.grad, copied.label, copied.grad) == (100.0, "**2", 1.0, "x", x.grad)
    z.backward()
    assert (x.grad, copied.grad) == (120.0, 240.0)
    copied.data = 7.0
    assert x.data == 3.0


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_deep_copy_of_several_shares_what_they_share(first):
    """Whichever comes first, and the part that no handle names."""
    a = Value(2.0)
    values = [a, (a * 3).exp(), (a * 5).log()]
    shared = a.tanh()
    values += [shared + 1, shared * 2]
    del shared
    order = values[first:] + values[:first]
    copies = copy.deepcopy(order)
    b, exp, log, more, twice = copies[-first:] + copies[:-first] if first else copies
    assert exp.operands[0].operands[0] is b and log.operands[0].operands[0] is b
    assert more.operands[0] is twice.operands[0] and more.operands[0].operands == (b,)
    assert len({*map(id, copies)} | {*map(id, values)}) == 10


def test_a_deep_copy_keeps_operations_of_many_operands():
    x = tapegrad.leaves([1.0, 2.0, 3.0])
    y, by_hand = tapegrad.dot(x, x, 1.0) + tapegrad.logsumexp(x), Value(5.0, x, "made")
    u, v, w = copy.deepcopy([x, y, by_hand])
    assert (v.data, [p._op for p in v.operands]) == (y.data, [p._op for p in y.operands])
    assert w._prev == set(u) and (w.data, w._op) == (5.0, "made")
    v.backward()
    y.backward()
    assert tapegrad.grads(u) == tapegrad.grads(x) != [0.0] * 3


def test_a_deep_copy_of_attributes_stays_within_the_copy():
    x = Value(2.0)
    y = x * 2
    x.made, y.made = [y], {"from": x}
    z = copy.deepcopy(y)
    assert z.made["from"] is z.operands[0] is not x and z.made["from"].made == [z]


def test_the_attributes_of_a_copy_stay_with_its_node():
    x = Value(2.0, label="x")
    for clone in (copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))):
        y = clone(x) * 2
        z = copy.deepcopy(y) + 1
        del y
        assert [v.label for v in z.operands[0].operands] == ["x", ""]


def test_a_deep_copy_is_as_deep_as_it_has_to_be(sized):
    x, depth = Value(1.0), sized(20_000, 1_000_000, cffi=100_000)
    y = x
    for _ in range(depth):
        y = y + x
    z = copy.deepcopy(y)
    z.backward()
    assert (z.data, x.grad) == (depth + 1.0, 0.0)
    del z
    assert copy.deepcopy([x, y])[1].data == depth + 1.0


def test_a_list_of_the_nodes_of_a_deep_graph_copies(sized):
    nodes, depth = [Value(1.0)], sized(20_000, 100_000, cffi=20_000)
    for _ in range(depth):
        nodes.append(nodes[-1] * 1.0)
    copies = copy.deepcopy(nodes)
    copies[-1].backward()
    assert len(copies) == depth + 1 and (copies[0].grad, nodes[0].grad) == (1.0, 0.0)


def test_a_rule_is_not_copied():
    """It closes over the Values that it was written for, and would push to them."""
    x = Value(2.0)
    y = Value(4.0, (x,), "square")

    def push():
        x.grad += 2 * x.data * y.grad

    y._backward = push
    for clone in (copy.copy, copy.deepcopy, lambda v: copy.deepcopy(v + 1), pickle.dumps):
        with pytest.raises(TypeError, match=r"v\.data"):
            clone(y)
    x._backward = push  # a leaf has nowhere to push to
    z = copy.deepcopy(x)
    z.backward()
    assert (z.grad, x.grad) == (1.0, 0.0)


def test_a_copy_of_a_subclass_is_of_it():
    v = Named(2.0, "v")
    w = v * 3
    w = copy.deepcopy(w)
    (u, _) = w.operands
    assert type(u) is Named and u is not v and (u.name, u.doubled().data) == ("v", 4.0)
    assert type(copy.copy(v)) is type(pickle.loads(pickle.dumps(v))) is Named


def test_what_memo_knows_already_is_taken():
    x, other = Value(2.0), Value(5.0)
    y = x * 3
    assert copy.deepcopy(y, {id(x): other}).operands[0] is other
    with pytest.raises(TypeError, match="Values"):
        copy.deepcopy(y, {id(x): "no Value"})


def test_a_pickle_goes_to_another_process(script):
    v = Value(0.1, label="v")
    v.grad = -2.5
    text = pickle.dumps([v, v]).hex()
    out = script(
        f"import pickle; a, b = pickle.loads(bytes.fromhex('{text}')); assert a is b; print(a);"
        "print(pickle.dumps({'w': a}).hex())"
    ).stdout.splitlines()
    assert out[0] == "Value(v|data=0.1, grad=-2.5)"
    assert repr(pickle.loads(bytes.fromhex(out[1]))["w"]) == out[0]


# operators of a program's own

OPERATIONS = {
    "0 + v": lambda V: sum([V(1.0), V(2.0)]),
    "v - 1": lambda V: V(1.0) - 1,
    "1 - v": lambda V: 1 - V(3.0),
    "v - w": lambda V: V(1.0) - V(5.0),
    "1 + v": lambda V: 1 + V(1.0),
    "neg v": lambda V: -V(2.0),
    "2 * v": lambda V: 2 * V(3.0),
    "v / w": lambda V: V(1.0) / V(4.0),
    "v / 2": lambda V: V(1.0) / 2,
    "1 / v": lambda V: 1 / V(4.0),
}  # fmt: skip
# Which of its own operators micrograd calls on the way, in order; all its results are of the class.
OWN = {
    "0 + v": "add add", "v - 1": "add", "1 - v": "neg mul add", "v - w": "neg mul add", "1 + v": "add",
    "neg v": "neg mul", "2 * v": "mul", "v / w": "pow mul", "v / 2": "mul", "1 / v": "pow mul",
}  # fmt: skip


def spy(name, calls, before):
    """An operator that notes that it was called, then does what it did."""

    def operator(self, *other):
        calls.append(name)
        return before(self, *other)

    return operator


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_micrograd_makes_of_patched_operators_goes_through_them(name, monkeypatch):
    calls = []
    expected = OPERATIONS[name](Value).data
    with monkeypatch.context() as patch:
        for own in ("add", "mul", "pow"):
            patch.setattr(Value, f"__{own}__", spy(own, calls, getattr(Value, f"__{own}__")))
        assert OPERATIONS[name](Value).data == expected
        assert calls == OWN[name].replace("neg ", "").split()
        calls.clear()
        patch.setattr(Value, "__neg__", spy("neg", calls, Value.__neg__))
        OPERATIONS[name](Value)
        assert calls == OWN[name].split()
    calls.clear()
    y = OPERATIONS[name](Value)
    assert y.data == expected and calls == [] and y._op == next(w for w in name.split() if w in "+ - * / neg")


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_micrograd_makes_of_a_subclasss_operators_goes_through_them(name):
    """Their results are Sub's, as in micrograd where its methods make them so."""
    calls = []

    class Sub(Value):
        pass

    for own in ("add", "mul", "pow", "neg"):
        call = spy(own, calls, getattr(Value, f"__{own}__"))
        setattr(Sub, f"__{own}__", lambda *args, call=call: Sub(call(*args)))
    y = OPERATIONS[name](Sub)
    assert type(y) is Sub and y.data == OPERATIONS[name](Value).data and calls == OWN[name].split()


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_subclass_without_operators_of_its_own_records_as_value_does(name):
    class Sub(Value):
        def relu(self):
            return self

    y, z = OPERATIONS[name](Sub), OPERATIONS[name](Value)
    assert (y.data, y._op, len(y.operands)) == (z.data, z._op, len(z.operands))


def test_an_operator_of_the_right_operand_alone_counts():
    class Inverted(Value):
        def __pow__(self, k):
            return Value(100.0)

    class Negated(Value):
        def __mul__(self, k):
            return Value(1000.0)

    assert (Value(2.0) / Inverted(4.0)).data == 200.0
    assert (Value(2.0) - Negated(4.0)).data == (2 - Negated(4.0)).data == 1002.0
    with pytest.raises(TypeError):
        Negated(1.0) - "s"


def test_a_value_of_a_value_has_its_data():
    v = Value(2.0)
    w = Value(v)
    assert (w.data, w._prev, type(w.data)) == (2.0, set(), float)
    assert Value(v, (v,), "copy").data == 2.0


# subclasses and weak references


class Named(Value):
    def __init__(self, data, name):
        super().__init__(data)
        self.name = name

    def doubled(self):
        return self * 2


def test_a_subclass_keeps_its_own_methods_and_attributes():
    v = Named(2.0, "n")
    y = v.doubled()
    y.backward()
    assert (v.name, y.data, v.grad, type(v)) == ("n", 4.0, 2.0, Named)


def test_operations_on_a_subclass_give_plain_values():
    v = Named(0.5, "n")
    results = [v + 1, 1 - v, v * v, v / 2, v**2, 2**v, -v, abs(v), v.tanh(), v.max(3), tapegrad.sum([v])]
    assert {type(y) for y in results} == {Value}


def test_a_subclass_instance_is_found_again_through_prev():
    v = Named(0.5, "n")
    assert (v * 2).operands[0] is v


def test_a_subclass_may_override_an_operator():
    class Loud(Value):
        def __add__(self, other):
            return "added"

    assert Loud(1.0) + 1 == 1 + Loud(1.0) == "added" and (2 * Loud(1.0)).data == 2.0


def test_a_subclass_may_have_slots_and_properties():
    class Slotted(Value):
        __slots__ = ("extra",)

        @property
        def twice(self):
            return self.data * 2

    v = Slotted(1.5)
    v.extra = "x"
    assert (v.extra, v.twice) == ("x", 3.0)


def test_a_weak_reference_dies_with_its_handle(settle):
    v = Value(1.0)
    r = weakref.ref(v)
    assert r() is v
    del v
    settle()
    assert r() is None


def test_a_weak_reference_does_not_come_back_with_the_node(settle):
    a = Value(1.0)
    e = a * 2
    r = weakref.ref(e)
    d = e + 1
    del e
    settle()
    e = d.operands[0]
    assert r() is None and weakref.ref(e)() is e


def test_weak_keys_work():
    v = Value(1.0)
    table = weakref.WeakKeyDictionary({v: "v"})
    assert table[v] == "v"


# refusals

REFUSED = [
    (lambda v: v + "s", TypeError, "str"),
    (lambda v: v * None, TypeError, "NoneType"),
    (lambda v: v - [1], TypeError, "list"),
    (lambda v: v * 1j, TypeError, "complex"),
    (lambda v: 1j * v, TypeError, "complex"),
    (lambda v: None + v, TypeError, "NoneType"),
    (lambda v: {} / v, TypeError, "dict"),
    (lambda v: [1] - v, TypeError, "list"),
    (lambda v: v ** "s", TypeError, "str"),
    (lambda v: "s" ** v, TypeError, "str"),
    (lambda v: v**None, TypeError, "NoneType"),
    (lambda v: v // 0, ZeroDivisionError, ""),
    (lambda v: v % 0.0, ZeroDivisionError, ""),
    (lambda v: "2" // v, TypeError, "str"),
    (lambda v: v @ v, TypeError, "Value"),
    (lambda v: v & 1, TypeError, "int"),
    (lambda v: ~v, TypeError, "Value"),
    (lambda v: v[0], TypeError, "Value"),
    (lambda v: pow(v, 2, 3), TypeError, ""),
    (lambda v: v + Decimal(1), TypeError, "Decimal"),
    (lambda v: Decimal(1) * v, TypeError, "Decimal"),
    (lambda v: Value("1.5"), TypeError, "str"),
    (lambda v: Value(b"1.5"), TypeError, "bytes"),
    (lambda v: Value(None), TypeError, "NoneType"),
    (lambda v: Value(1j), TypeError, "complex"),
    (lambda v: Value([1.0]), TypeError, "list"),
    (lambda v: Value(Decimal("1.5")), TypeError, "Decimal"),
    (lambda v: Value(Value), TypeError, "type"),
    (lambda v: setattr(v, "data", "x"), TypeError, "str"),
    (lambda v: setattr(v, "data", 1j), TypeError, "complex"),
    (lambda v: setattr(v, "data", v), TypeError, "Value"),
    (lambda v: setattr(v, "grad", None), TypeError, "NoneType"),
    (lambda v: setattr(v, "grad", Decimal(1)), TypeError, "Decimal"),
    (lambda v: Value(1.0, (2.0,)), TypeError, "float"),
    (lambda v: Value(1.0, (v, None)), TypeError, "NoneType"),
    (lambda v: Value(1.0, 2.0), TypeError, "float"),
    (lambda v: Value(1.0, v), TypeError, "Value"),
    (lambda v: Value(), TypeError, ""),
    (lambda v: Value(1.0, (), "", "", 5), TypeError, ""),
    (lambda v: Value(1.0, nonsense=1), TypeError, "nonsense"),
    (lambda v: v.backward("s"), TypeError, "str"),
    (lambda v: v.backward(1j), TypeError, "complex"),
    (lambda v: v.backward([1.0]), TypeError, "list"),
    (lambda v: v.backward(1.0, 2.0), TypeError, ""),
    (lambda v: Value(10**400), OverflowError, ""),
    (lambda v: v + 10**400, OverflowError, ""),
    (lambda v: 10**400 - v, OverflowError, ""),
    (lambda v: v ** (10**400), OverflowError, ""),
    (lambda v: (10**400) ** v, OverflowError, ""),
    (lambda v: v * Fraction(10**400), OverflowError, ""),
    (lambda v: setattr(v, "data", 10**400), OverflowError, ""),
    (lambda v: setattr(v, "grad", 10**400), OverflowError, ""),
    (lambda v: Value(1e200) ** 2, OverflowError, ""),
    (lambda v: Value(1e200) ** Value(2.0), OverflowError, ""),
    (lambda v: 10 ** Value(400.0), OverflowError, ""),
    (lambda v: Value(1000).exp(), OverflowError, ""),
    (lambda v: Value(1000).sinh(), OverflowError, ""),
    (lambda v: v / 0, ZeroDivisionError, ""),
    (lambda v: v / Value(-0.0), ZeroDivisionError, ""),
    (lambda v: 1 / Value(0.0), ZeroDivisionError, ""),
    (lambda v: Value(0.0) / 0, ZeroDivisionError, ""),
    (lambda v: Value(0.0) ** -1, ZeroDivisionError, ""),
    (lambda v: 0 ** Value(-1.0), ZeroDivisionError, ""),
    (lambda v: Value(0.0).log(), ValueError, r"log\(0\.0\)"),
    (lambda v: Value(-1.0).sqrt(), ValueError, r"sqrt\(-1\.0\)"),
    (lambda v: Value(-8.0) ** (1 / 3), ValueError, ""),
    (lambda v: Value(-8.0) ** Value(1 / 3), ValueError, ""),
    (lambda v: (-8.0) ** Value(0.5), ValueError, ""),
    (lambda v: Value(2.0).asin(), ValueError, r"asin\(2\.0\)"),
    (lambda v: Value(math.inf).sin(), ValueError, ""),
    (lambda v: float(v), TypeError, r"\.data"),
    (lambda v: int(v), TypeError, r"\.data"),
    (lambda v: math.tanh(v), TypeError, r"\.data"),
    (lambda v: math.exp(v), TypeError, r"\.data"),
    (lambda v: v.backward(v), TypeError, "Value"),
    (lambda v: tapegrad.zero_grad([v, 1.0]), TypeError, "float"),
]


@pytest.mark.parametrize(("expression", "error", "message"), REFUSED)
def test_a_refusal_says_what_it_got(expression, error, message):
    with pytest.raises(error, match=message or None):
        expression(Value(2.0))


@pytest.mark.parametrize("expression", [row[0] for row in REFUSED])
def test_after_a_refusal_nothing_has_changed_and_the_next_computation_is_right(expression, settle, works):
    v = Value(2.0)
    y = v * v
    y.backward()
    with pytest.raises((TypeError, ArithmeticError, ValueError)):
        expression(v)
    assert (v.data, v.grad, y.data, y.operands) == (2.0, 4.0, 4.0, (v, v))
    works()


@pytest.mark.parametrize("expression", [row[0] for row in REFUSED])
def test_a_refused_operation_records_nothing(expression, settle):
    v = Value(2.0)
    settle()
    before = len(tape)
    with contextlib.suppress(TypeError, ArithmeticError, ValueError):
        expression(v)
    gc.collect()
    settle()
    assert len(tape) == before


def test_a_refusal_leaves_nothing_between_the_nodes_around_it():
    """The number in v / 0 is no leaf of the tape either."""
    v = Value(2.0)
    before = len(tape)
    kept = []
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            v / 0
        kept.append(Value(1.0))
    assert len(tape) == before + 10


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        (lambda: Value(1e200) * 1e200, math.inf),
        (lambda: Value(-1e308) - 1e308, -math.inf),
        (lambda: Value(math.inf) - math.inf, math.nan),
        (lambda: Value(math.nan) + 1, math.nan),
        (lambda: Value(math.nan).tanh(), math.nan),
        (lambda: Value(1e308) / 1e-10, math.inf),
        (lambda: Value(math.inf) ** 2, math.inf),
        (lambda: Value(math.nan) ** 0, 1.0),
    ],
)
def test_what_floats_let_pass_is_let_pass(expression, result):
    assert expression().data == pytest.approx(result, nan_ok=True)


def test_an_unbounded_slope_is_infinite_and_not_an_error():
    for expression in (Value.sqrt, Value.asin, lambda v: v**0.5):
        v = Value(1.0 if expression is Value.asin else 0.0)
        expression(v).backward()
        assert v.grad == math.inf


def test_an_error_of_a_number_itself_comes_through(settle, works):
    class Broken:
        def __float__(self):
            raise LookupError("no number today")

    v = Value(2.0)
    settle()
    before = len(tape)
    for expression in (lambda: v + Broken(), lambda: Broken() * v, lambda: Value(Broken()), lambda: v.max(Broken())):
        with pytest.raises(LookupError, match="today"):
            expression()
    settle()
    assert len(tape) == before
    works()


def test_a_float_method_that_gives_no_float_is_a_type_error():
    class Liar:
        def __float__(self):
            return "1.5"

    with pytest.raises(TypeError):
        Value(1.0) + Liar()


@pytest.mark.parametrize("meddle", ["collect", "reset"])
def test_a_number_may_use_the_tape_while_it_is_asked_for_its_value(meddle, works):
    class Busy:
        def __float__(self):
            nonlocal dead
            dead = [Value(1.0) * 2 for _ in range(100)]
            getattr(tape, meddle)()
            dead = None
            return 3.0

    dead = [Value(float(i)) for i in range(100)]
    v = Value(2.0)
    for expression in (lambda: v * Busy(), lambda: Busy() * v, lambda: tapegrad.dot([v, Busy()], [Busy(), v])):
        v.grad = 0.0
        y = expression()
        y.backward()
        assert (y.data, v.grad) in ((6.0, 3.0), (12.0, 6.0))
    v.data = Busy()
    assert v.data == 3.0 and Value(Busy(), (v,)).operands == (v,)
    works()


# what must not crash

CONFUSED = [
    lambda: Value.__add__(3, 4),
    lambda: Value.__radd__(3, 4),
    lambda: Value.__pow__(3, 4),
    lambda: Value.__neg__(3),
    lambda: Value.__repr__(3),
    lambda: Value.__lt__(3, 4),
    lambda: Value.__init__(3, 4),
    lambda: Value.__format__(3, ".3f"),
    lambda: Value.data.__get__(3),
    lambda: Value.data.__set__(3, 1.0),
    lambda: Value.grad.__get__(3),
    lambda: Value.grad.__set__(3, 1.0),
    lambda: Value.label.__get__(3),
    lambda: Value._op.__get__(3),
    lambda: Value._prev.__get__(3),
    lambda: Value.operands.__get__("s"),
    lambda: Value._backward.__get__(3),
    lambda: Value.tanh(3),
    lambda: Value.tanh(),
    lambda: Value.max(3, 4),
    lambda: Value.max(3, Value(4.0)),
    lambda: Value.backward(3),
    lambda: Value.backward(None),
    lambda: Value.backward(Value),
    lambda: Value.__reduce_ex__(3),
    lambda: Value.__new__(3),
    lambda: Value.__new__(int),
    lambda: Value.__new__(),
    lambda: float.__add__(Value(1.0), 2.0),
]


@pytest.mark.parametrize("call", CONFUSED)
def test_an_unbound_method_refuses_a_stranger(call, works):
    with pytest.raises((TypeError, AttributeError)):
        call()
    works()


class Forgetful(Value):
    def __init__(self):
        pass


def half_made(how):
    if how == "subclass":
        return Forgetful()
    return (Value if how == "Value.__new__" else object).__new__(Value)


@pytest.fixture(params=["Value.__new__", "object.__new__", "subclass"])
def half(request):
    """Makes an object whose constructor never ran, or refuses even that with a TypeError."""
    return lambda: half_made(request.param)


@pytest.mark.parametrize("name", ["data", "grad", "_prev", "operands", "_op"])
def test_a_half_made_object_has_nothing_that_belongs_to_a_node(half, name, works):
    with pytest.raises((TypeError, AttributeError, ValueError, RuntimeError)):
        getattr(half(), name)
    works()


@pytest.mark.parametrize(
    "expression",
    [
        *(lambda v, f=f: f(v, Value(2.0)) for f in OPERATORS.values() if f not in (operator.neg, operator.abs)),
        *(lambda v, f=f: f(Value(2.0), v) for f in OPERATORS.values() if f not in (operator.neg, operator.abs)),
        *(lambda v, f=f: f(v, 2.0) for f in OPERATORS.values() if f not in (operator.neg, operator.abs)),
        *(lambda v, f=f: f(v) for f in (operator.neg, operator.abs)),
        *(lambda v, name=name: getattr(v, name)() for name in UNARY if name not in OPERATORS),
        lambda v: v.max(1.0),
        lambda v: Value(1.0).max(v),
        lambda v: v.backward(),
        lambda v: v._backward(),
        lambda v: setattr(v, "data", 1.0),
        lambda v: setattr(v, "grad", 1.0),
        lambda v: setattr(v, "_backward", print),
        lambda v: v < Value(1.0),
        lambda v: Value(1.0) < v,
        lambda v: Value(1.0, (v,)),
        lambda v: tapegrad.sum([v]),
        lambda v: tapegrad.dot([v], [1.0]),
        lambda v: tapegrad.dot([1.0], [2.0], v),
        lambda v: tapegrad.zero_grad([v]),
        lambda v: copy.copy(v),
        lambda v: copy.deepcopy(v),
        lambda v: pickle.dumps(v),
        lambda v: f"{v:.3f}",
        lambda v: float(v),
    ],
)
def test_a_half_made_object_takes_part_in_nothing(half, expression, works):
    with pytest.raises((TypeError, AttributeError, ValueError, RuntimeError)):
        expression(half())
    works()


def test_nothing_at_all_crashes_on_a_half_made_object(half, works):
    others = [(), (1,), (Value(1.0),), ("label", 1), (None, Value), (Value(1.0), None)]
    with contextlib.suppress(TypeError):
        others.append((half(),))
    for name in dir(Value):
        for arguments in others:
            with contextlib.suppress(Exception):
                getattr(half(), name)(*arguments)
        with contextlib.suppress(Exception):
            setattr(half(), name, 1.0)
        with contextlib.suppress(Exception):
            delattr(half(), name)
    tape.collect()
    works()


def test_nothing_at_all_crashes_with_the_wrong_arguments(works):
    others = [(), (1,), ("s",), (None, None), (Value,), (Value(1.0), 2, 3, 4), ((), {}), (object(),) * 6]
    for name in dir(Value):
        for arguments in others:
            with contextlib.suppress(Exception):
                getattr(Value(0.5), name)(*arguments)
            with contextlib.suppress(Exception):
                getattr(Value, name)(*arguments)
    works()


def test_a_half_made_object_may_be_made_whole(half):
    with contextlib.suppress(TypeError):
        v = half()
        Value.__init__(v, 2.0)
        y = v * v
        y.backward()
        assert (y.data, v.grad) == (4.0, 4.0)


@pytest.mark.parametrize(
    "arguments",
    [
        (1.0, None),
        (1.0, 5),
        (1.0, "ab"),
        (1.0, {"a": 1}),
        (1.0, [[]]),
        (1.0, Value),
        (1.0, range(3)),
        (1.0, (x for x in [1 / 0 if False else None])),
        (object(),),
        (type,),
        ((),),
        (1.0, (), object(), object()),
        (1.0, [Value.__new__]),
    ],
)
def test_absurd_constructor_arguments_do_no_harm(arguments, works):
    with contextlib.suppress(TypeError):
        v = Value(*arguments)
        assert (v.data, v.operands) == (1.0, ())
    works()


def test_a_second_init_does_no_harm(works):
    v = Value(2.0)
    y = v * v
    with contextlib.suppress(Exception):
        v.__init__(5.0)
    y.backward()
    assert y.data == 4.0
    works()


def test_children_may_run_code_that_reclaims(works):
    def children():
        yield a
        tape.collect()
        yield b

    a, b = Value(1.0), Value(2.0)
    dead = [Value(0.0) for _ in range(100)]
    c = Value(3.0)
    del dead
    assert Value(3.0, children()).operands == (a, b) and c.data == 3.0
    works()


# numpy


def test_numpy_scalars_are_numbers(np):
    for scalar in (np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True), np.uint8(7), np.float16(0.5)):
        v = Value(2.0)
        for y in (v * scalar, scalar * v, v + scalar, scalar + v, Value(scalar) * 1):
            assert type(y) is Value
        y = scalar * v
        y.backward()
        assert (y.data, v.grad) == (2.0 * float(scalar), float(scalar))


def test_numpy_scalars_may_be_written_to_data(np):
    v = Value(2.0)
    v.data = np.float32(0.5)
    v.grad = np.int64(3)
    assert (v.data, v.grad, type(v.data), type(v.grad)) == (0.5, 3.0, float, float)


def test_a_value_times_an_array_is_an_array_of_values(np):
    v = Value(2.0)
    for ys in (v * np.array([1.0, 3.0]), np.array([1.0, 3.0]) * v, v * np.array([1, 3])):
        assert ys.dtype == object and [type(y) for y in ys] == [Value, Value]
        assert [y.data for y in ys] == [2.0, 6.0]


@pytest.mark.parametrize("operate", [operator.add, operator.sub, operator.truediv, operator.pow])
def test_every_operator_meets_arrays_from_either_side(np, operate):
    numbers = np.array([[1.5, 2.0], [3.0, 0.5]])
    v = Value(2.0)
    left, right = operate(v, numbers), operate(numbers, v)
    assert left.shape == right.shape == (2, 2)
    assert [y.data for y in left.flat] == [operate(2.0, float(x)) for x in numbers.flat]
    assert [y.data for y in right.flat] == [operate(float(x), 2.0) for x in numbers.flat]


def test_gradients_pass_through_an_array(np):
    v = Value(2.0)
    np.sum(v * np.array([1.0, 3.0, 5.0])).backward()
    assert v.grad == 9.0


def test_object_arrays_multiply_as_matrices(np):
    w = np.array([[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]])
    x = np.array([10.0, 100.0])
    y = w @ x
    assert [v.data for v in y] == [210.0, 430.0]
    y[1].backward()
    assert [v.grad for v in w.flat] == [0.0, 0.0, 10.0, 100.0]


def test_sum_and_mean_of_an_object_array_are_values(np):
    xs = np.array([Value(1.0), Value(2.0), Value(6.0)])
    assert (np.sum(xs).data, np.mean(xs).data) == (9.0, 3.0)
    np.mean(xs).backward()
    assert [x.grad for x in xs] == pytest.approx([1 / 3] * 3, rel=1e-12)


def test_every_unary_row_is_found_by_the_ufunc_of_its_name(np):
    """NumPy calls the method that has the ufunc's name; operators it calls by their slots."""
    found = []
    for row in tape.operations:
        for name in (row.method.strip("_"), *row.aliases):
            if name == "sign":  # of objects, NumPy compares
                continue
            if row.kind == "unary" and isinstance(getattr(np, name, None), np.ufunc):
                x = 1.25 if name in ("acosh", "arccosh") else 0.25
                (y,) = getattr(np, name)(np.array([Value(x)]))
                assert y.data == getattr(Value(x), row.method)().data
                found.append(name)
    wanted = "tanh exp log sqrt sin cos tan arcsin arccos arctan sinh cosh absolute expm1 log1p log2 log10 negative"
    assert set(wanted.split()) <= set(found)


@pytest.mark.parametrize("name", ["arctan2", "hypot", "maximum", "minimum", "add", "power"])
def test_a_binary_ufunc_takes_object_arrays(np, name):
    a, b = np.array([Value(0.5)]), np.array([Value(0.25)])
    (y,) = getattr(np, name)(a, b)
    assert y.data == pytest.approx(float(getattr(np, name)(0.5, 0.25)), rel=1e-12)


@pytest.mark.parametrize(
    "data",
    [
        lambda np: np.array([1.0]),
        lambda np: np.array(1.0),
        lambda np: np.array([[1.0, 2.0]]),
        lambda np: np.array([], dtype=float),
        lambda np: np.array(["1.0"]),
        lambda np: np.complex64(1),
        lambda np: np.complex128(1j),
        lambda np: np.str_("1.5"),
    ],
)
def test_arrays_and_complex_numbers_are_refused_as_data(np, data, works):
    for use in (lambda x: Value(x), lambda x: setattr(Value(1.0), "data", x), lambda x: setattr(Value(1.0), "grad", x)):
        with pytest.raises(TypeError, match=re.escape(type(data(np)).__name__)):
            use(data(np))
    works()


def test_a_numpy_complex_number_is_refused_as_operand(np):
    for expression in (lambda v: v * np.complex64(1j), lambda v: np.complex64(1j) * v, lambda v: v + np.complex128(1)):
        with pytest.raises(TypeError, match="complex"):
            expression(Value(1.0))


def test_numpy_is_not_imported_by_the_package(script):
    script("import sys, tapegrad; tapegrad.Value(1.0) + 1; assert 'numpy' not in sys.modules")


def test_what_recording_on_values_does_not_need_is_loaded_later(script):
    script(textwrap.dedent("""
        import sys
        for name in list(sys.modules):
            if name in ("typing", "numbers", "random", "copy"):
                del sys.modules[name]
        import tapegrad
        (tapegrad.Value(1.0) * 2.0).backward()
        tapegrad.zero_grad([tapegrad.Value(1.0)])
        late = {"typing", "numbers", "random", "copy", "tapegrad.nn", "tapegrad.optim", "tapegrad.program"}
        if tapegrad.tape.handle == "c":
            assert not late & set(sys.modules)
        assert {"nn", "optim", "record", "__all__"} <= set(dir(tapegrad))
        names = {}
        exec("from tapegrad import *", names)
        assert names["nn"] is tapegrad.nn is sys.modules["tapegrad.nn"] and set(tapegrad.__all__) <= set(names)
        assert names["tape"] is tapegrad.tape and len(tapegrad.tape.operations) > 30
    """))


def test_operators_that_a_program_owns_before_it_loads_layers_are_called(script):
    script(textwrap.dedent("""
        import tapegrad
        calls, multiply = [], tapegrad.Value.__mul__
        tapegrad.Value.__mul__ = lambda self, other: calls.append(other) or multiply(self, other)
        tapegrad.nn.Neuron(2)([1.0, 2.0])
        assert len(calls) == 2
    """))


# names


def test_the_package_offers_what_it_lists():
    names = {"Value", "dot", "logsumexp", "leaves", "no_grad", "zero_grad", "tape", "nn", "__version__"}
    assert names <= set(tapegrad.__all__)
    assert all(hasattr(tapegrad, name) for name in tapegrad.__all__)


@pytest.mark.parametrize("module", ["engine", "tensor"])
def test_micrograds_modules_have_the_same_value(module):
    __import__(f"tapegrad.{module}")
    assert sys.modules[f"tapegrad.{module}"].Value is Value


def test_value_knows_where_it_comes_from():
    assert (Value.__name__, Value.__module__.partition(".")[0]) == ("Value", "tapegrad")
    assert Value.__doc__
