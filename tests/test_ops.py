"""The operation table, row by row, against `math` and difference quotients; the rows are what the core reports."""

from __future__ import annotations

import itertools
import math
import random
import sys
from decimal import Decimal, localcontext

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import BINARY, LOSSES, MANY, OPERATIONS, OPERATORS, UNARY, apply, logsumexp, same

import tapegrad
from tapegrad import Value, tape

INNER = [row.method for row in tape.operations if row.method.startswith("_") and not row.method.startswith("__")]
PASSIVE = [row.method for row in tape.operations if row.kind == "passive"]
ROWS = {row.method.strip("_"): row for row in tape.operations if row.method not in INNER and row.kind != "passive"}
NASTY = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 710.0, -750.0, 1e200, 1e308, 5e-324, math.inf, -math.inf, math.nan]
DOMAIN = {
    **dict.fromkeys(("log", "sqrt", "log2", "log10"), (1e-3, 0.3, 1.0, 2.5, 1e6)),
    **dict.fromkeys(("asin", "acos"), (-0.95, -0.3, 0.2, 0.9)),
    "log1p": (-0.9, -0.3, 1e-3, 2.5),
    "tan": (-1.2, -0.3, 0.7, 2.5),
    "acosh": (1.1, 1.3, 2.5, 1e6),
    "atanh": (-0.95, -0.3, 0.2, 0.9),
    **dict.fromkeys(("gamma", "lgamma"), (-2.5, -0.3, 1e-2, 0.7, 4.3, 30.5)),
    **dict.fromkeys(("ndtri", "logit"), (1e-3, 0.2, 0.45, 0.8)),
    **dict.fromkeys(("floor", "ceil", "trunc", "rint"), (-3.4, -0.7, 0.3, 4.2)),
}
ANYWHERE = (-3.5, -0.7, -0.01, 0.3, 1.0, 4.0)
PAIRS = ((0.7, 2.5), (3.0, -1.5), (0.2, 0.3), (5.0, 3.0))
POINTS = [(name, x) for name in UNARY for x in DOMAIN.get(name, ANYWHERE)]
PAIRS_OF = {
    **dict.fromkeys(("fmod", "mod", "floordiv", "remainder"), ((0.7, 2.5), (3.0, -1.4), (-7.25, 0.3), (-5.5, -3.0))),
    **dict.fromkeys(("xlogy", "betaln"), ((0.7, 2.5), (0.2, 0.3), (5.0, 3.0), (30.0, 0.5), (3.0, 40.0))),
}
PAIRED = [(name, a, b) for name in BINARY for a, b in PAIRS_OF.get(name, PAIRS)]
INSIDE = {"acosh": 1.6}  # others are defined at 0.5 and 0.6
SCORES = (0.7, -1.3, 2.4, 0.2)  # no term of the hinge loss is at its kink
LOSS_ARGUMENTS = {
    "cross_entropy": [(SCORES, 0), (SCORES, 3), ((5.0,), 0)],
    "mse": [(SCORES, (1.5, 0.3, -2.0, 0.2)), ((5.0,), (3.0,))],
    "hinge": [(SCORES, (1.0, -1.0, 1.0, -1.0)), ((0.5, 0.5), (-1.0, 1.0)), ((3.0,), (1.0,))],
}
LOSS_POINTS = [(name, *arguments) for name in LOSSES for arguments in LOSS_ARGUMENTS[name]]


def outcome(function, *operands):
    """The number that an expression gives, or the class of what it raises; a complex number counts as refused."""
    try:
        y = function(*operands)
    except ArithmeticError as refused:
        return type(refused)
    except ValueError:
        return ValueError
    if isinstance(y, complex):
        return ValueError
    return y.data if isinstance(y, Value) else float(y)


def agree(got, expected, name):
    if isinstance(got, type) or isinstance(expected, type):
        return got is expected
    return same(got, expected) or (name in ("max", "min") and got == expected == 0)  # either zero is right


def slope(function, x):
    """A central difference with the step that balances truncation against rounding."""
    h = sys.float_info.epsilon ** (1 / 3) * max(1e-3, abs(x))
    return (function(x + h) - function(x - h)) / ((x + h) - (x - h))


def test_every_row_of_the_table_has_a_reference():
    """A row that is added must be added in tests/reference.py too: this is what makes the loops below complete."""
    assert set(ROWS) == set(OPERATIONS) | set(MANY)


def test_rows_with_a_passive_operand():
    """Another one would need tests like those of the power, and of polygamma and round in tests/test_math.py."""
    assert PASSIVE == ["__pow__", "polygamma", "_round"]


def test_rows_that_nobody_calls_by_name():
    """What others are made of: tested with these."""
    assert INNER == ["_copy", "_weigh", "_round", "_mills", "_mills_gap", "_fsum", "_top"]


def test_no_operation_is_listed_twice():
    assert len({row.name for row in tape.operations}) == len(tape.operations)


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_a_row_has_a_method_with_a_docstring(name):
    assert getattr(Value, ROWS[name].method).__doc__


@pytest.mark.parametrize("name", MANY)
def test_a_fused_row_is_a_function_with_a_docstring(name):
    assert getattr(tapegrad, name).__doc__


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_the_symbol_of_a_row_is_the_op_of_its_nodes(name):
    operands = [Value(INSIDE.get(name, 0.5)) for _ in range(1 + (name in BINARY))]
    assert apply(name, *operands)._op == ROWS[name].symbol


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("arcsin", "asin"),
        ("arccos", "acos"),
        ("arctan", "atan"),
        ("arctan2", "atan2"),
        ("maximum", "max"),
        ("minimum", "min"),
        ("absolute", "abs"),
        ("negative", "neg"),
    ],
)
def test_an_alias_is_in_the_table_and_does_the_same(alias, name):
    assert alias in ROWS[name].aliases
    operands = [Value(0.5), Value(0.25)][: 1 + (name in BINARY)]
    assert getattr(operands[0], alias)(*operands[1:]).data == apply(name, *operands).data


@pytest.mark.parametrize("name", ["abs", "neg"])
def test_operators_of_one_operand_are_methods_too(name):
    assert getattr(Value(-2.5), name)().data == OPERATORS[name](Value(-2.5)).data == 2.5


@pytest.mark.parametrize(("name", "x"), POINTS)
def test_a_unary_value_is_that_of_math(name, x):
    assert same(apply(name, Value(x)).data, OPERATIONS[name].primal(x))


@pytest.mark.parametrize(("name", "a", "b"), PAIRED)
def test_a_binary_value_is_that_of_math(name, a, b):
    expected = outcome(OPERATIONS[name].primal, a, b)
    assert agree(outcome(apply, name, Value(a), Value(b)), expected, name)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv"])
def test_arithmetic_is_that_of_floats_to_the_last_bit(name):
    draw = random.Random(1).gauss
    for _ in range(1000):
        a, b = draw(0, 1e3), draw(0, 1e-3)
        assert apply(name, Value(a), Value(b)).data == OPERATORS[name](a, b)


@pytest.mark.parametrize(("name", "x"), POINTS)
def test_a_unary_partial_is_the_difference_quotient(name, x):
    v = Value(x)
    apply(name, v).backward()
    assert v.grad == pytest.approx(slope(OPERATIONS[name].primal, x), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize(("name", "a", "b"), PAIRED)
def test_binary_partials_are_the_difference_quotients(name, a, b):
    primal, v, w = OPERATIONS[name].primal, Value(a), Value(b)
    apply(name, v, w).backward()
    assert v.grad == pytest.approx(slope(lambda a: primal(a, b), a), rel=1e-7, abs=1e-8)
    assert w.grad == pytest.approx(slope(lambda b: primal(a, b), b), rel=1e-7, abs=1e-8)


@pytest.mark.parametrize(("name", "x"), POINTS)
def test_a_unary_partial_is_the_formula_to_the_last_digits(name, x):
    v = Value(x)
    y = apply(name, v)
    y.backward()
    assert v.grad == pytest.approx(OPERATIONS[name].da(x, 0.0, y.data), rel=1e-12, abs=0)


@pytest.mark.parametrize(("name", "a", "b"), PAIRED)
def test_binary_partials_are_the_formulas_to_the_last_digits(name, a, b):
    v, w = Value(a), Value(b)
    y = apply(name, v, w)
    y.backward()
    assert v.grad == pytest.approx(OPERATIONS[name].da(a, b, y.data), rel=1e-12, abs=0)
    assert w.grad == pytest.approx(OPERATIONS[name].db(a, b, y.data), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", UNARY)
def test_results_of_one_operand_add_up_in_its_grad(name):
    x = INSIDE.get(name, 0.6)
    v = Value(x)
    (apply(name, v) + apply(name, v)).backward()
    assert v.grad == pytest.approx(2 * OPERATIONS[name].da(x, 0.0, OPERATIONS[name].primal(x)), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", BINARY)
def test_an_operand_used_twice_gets_both_partials(name):
    v = Value(1.7)
    y = apply(name, v, v)
    y.backward()
    op = OPERATIONS[name]
    assert v.grad == pytest.approx(op.da(1.7, 1.7, y.data) + op.db(1.7, 1.7, y.data), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("number", [2, 0.25, True])
@pytest.mark.parametrize("name", BINARY)
def test_a_number_may_stand_on_the_right(name, number):
    v, w = Value(1.7), Value(1.7)
    y, z = apply(name, v, number), apply(name, w, Value(number))
    y.backward()
    z.backward()
    assert (y.data, v.grad) == (z.data, w.grad)


@pytest.mark.parametrize("number", [2, 0.25, True])
@pytest.mark.parametrize("name", sorted(set(BINARY) & set(OPERATORS)))
def test_a_number_may_stand_on_the_left(name, number):
    v, w = Value(1.7), Value(1.7)
    y, z = apply(name, number, v), apply(name, Value(number), w)
    y.backward()
    z.backward()
    assert (y.data, v.grad) == (z.data, w.grad)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", NASTY)
def test_a_unary_operation_raises_what_math_raises(name, x):
    assert agree(outcome(apply, name, Value(x)), outcome(OPERATIONS[name].primal, x), name)


@pytest.mark.parametrize("sides", ["value value", "value number", "number value"])
@pytest.mark.parametrize("name", sorted({*BINARY} - {"betaln"}))  # math has no equal of it
def test_a_binary_operation_raises_what_floats_raise(name, sides):
    make = [Value if side == "value" else float for side in sides.split()]
    if make[0] is float and name not in OPERATORS:
        make[0] = Value
    for a, b in itertools.product([*NASTY, -8.0, 1 / 3, 3.0, -3.0, -0.5], repeat=2):
        got, expected = outcome(apply, name, make[0](a), make[1](b)), outcome(OPERATIONS[name].primal, a, b)
        assert agree(got, expected, name), (a, b, got, expected)


@pytest.mark.parametrize("k", [0, 1, 2, 3, -1, -2, 10, 1000, -1000, True])
@pytest.mark.parametrize("x", NASTY)
def test_a_power_with_an_integer_is_that_of_floats(x, k):
    assert agree(outcome(OPERATORS["pow"], Value(x), k), outcome(OPERATIONS["pow"].primal, x, k), "pow")


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", NASTY)
def test_a_refused_unary_operation_records_nothing(name, x, settle, works):
    v = Value(x)
    settle()
    before = len(tape)
    y = outcome(apply, name, v)
    settle()
    assert len(tape) == before
    if isinstance(y, type):
        works()


@pytest.mark.parametrize("x", [0.0, 1.5, -2.0])
def test_the_slope_of_the_zeroth_power_is_zero(x):
    v = Value(x)
    (v**0).backward()
    assert v.grad == 0.0


def test_the_zeroth_power_is_flat_at_a_base_of_zero_whatever_else_depends_on_it():
    v = Value(0.0)
    (v**0 * 3 + v).backward()
    assert v.grad == 1.0


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_pass_half_the_slope_to_each(name):
    a, b = Value(2.0), Value(2.0)
    apply(name, a, b).backward()
    assert (a.grad, b.grad) == (0.5, 0.5)


@pytest.mark.parametrize("name", ["relu", "abs"])
def test_the_kink_at_zero_has_slope_zero(name):
    v = Value(0.0)
    apply(name, v).backward()
    assert v.grad == 0.0


@pytest.mark.parametrize(("a", "b"), [(math.nan, 1.0), (1.0, math.nan)])
@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_goes_through_max_and_min(name, a, b):
    assert math.isnan(apply(name, Value(a), Value(b)).data)


@pytest.mark.parametrize(
    ("x", "digits"),
    [
        (0.881373, 0.7071064876766542),
        (0.8813735870195432, 0.7071067811865476),
        (0.8813758701954324, 0.7071079227726492),
    ],
)
def test_tanh_gives_the_digits_that_the_notebooks_print(x, digits):
    assert Value(x).tanh().data == digits


def ulps(x):
    """How many units in the last place tanh(x) is off."""
    with localcontext() as context:
        context.prec = 60
        a = Decimal(min(abs(x), 100.0))
        exact = a - a**3 / 3 if a < Decimal("1e-12") else 1 - 2 / ((2 * a).exp() + 1)
        return abs(Decimal(abs(Value(x).tanh().data)) - exact) / Decimal(math.ulp(float(exact)))


def test_tanh_is_within_two_and_a_half_ulp_on_every_scale():
    draw = random.Random(2)
    points = [draw.uniform(1, 2) * 2.0 ** draw.uniform(-60, 4.5) for _ in range(5000)]
    points += [draw.uniform(0, 3) for _ in range(5000)]
    points += [5e-324, 1e-300, 2.3e-308, 18.9, 19.0, 19.1, 22.0, 350.0, 1e300]
    worst = max(points, key=ulps)
    assert ulps(worst) <= 2.5, worst


@given(st.floats(-25, 25))
def test_tanh_is_within_two_and_a_half_ulp_anywhere(x):
    assert ulps(x) <= 2.5


@given(st.floats(allow_nan=False))
def test_tanh_is_odd(x):
    assert same(Value(-x).tanh().data, -Value(x).tanh().data, rel=0.0)


@pytest.mark.parametrize("x", [20.0, 50.0, 710.0, 1e300, math.inf])
def test_tanh_is_exactly_one_when_saturated(x):
    assert (Value(x).tanh().data, Value(-x).tanh().data) == (1.0, -1.0)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_tanh_never_leaves_minus_one_to_one(a, b):
    assert -1.0 <= Value(a).tanh().data <= 1.0


def test_dot_is_one_node_whose_operands_are_xs_then_ys_then_bias():
    xs, ys, bias = tapegrad.leaves([1.0, 2.0]), tapegrad.leaves([3.0, 4.0]), Value(5.0)
    before = len(tape)
    y = tapegrad.dot(xs, ys, bias)
    assert (y.data, y._op, y.operands, len(tape)) == (16.0, "dot", (*xs, *ys, bias), before + 1)


def test_dot_adds_from_left_to_right_starting_with_the_bias():
    """The loop is written out: sum() of floats compensates from CPython 3.12 on."""
    draw = random.Random(3).gauss
    xs, ys, bias = [draw(0, 1) for _ in range(100)], [draw(0, 1) for _ in range(100)], draw(0, 1)
    biased, plain = bias, 0.0
    for x, y in zip(xs, ys):
        biased += x * y
        plain += x * y
    assert tapegrad.dot(map(Value, xs), ys, Value(bias)).data == biased
    assert tapegrad.dot(map(Value, xs), ys).data == plain


def test_dot_passes_each_factor_the_other():
    xs, ys, bias = tapegrad.leaves([1.0, 2.0]), tapegrad.leaves([3.0, 4.0]), Value(5.0)
    tapegrad.dot(xs, ys, bias).backward(2.0)
    assert [v.grad for v in (*xs, *ys, bias)] == [6.0, 8.0, 2.0, 4.0, 2.0]


def test_dot_takes_numbers_and_values_mixed():
    v, w = Value(2.0), Value(7.0)
    y = tapegrad.dot([v, 3, 1.5], [10, v, True], w)
    y.backward()
    assert (y.data, v.grad, w.grad) == (34.5, 13.0, 1.0)


@pytest.mark.parametrize("bias", [4, 4.0, True])
def test_the_bias_of_a_dot_may_be_a_number(bias):
    v = Value(2.0)
    y = tapegrad.dot([v], [3.0], bias)
    y.backward()
    assert (y.data, v.grad) == (6.0 + bias, 3.0)


def test_dot_with_itself_passes_both_partials():
    v = Value(3.0)
    tapegrad.dot([v, v], [v, 2.0], v).backward()
    assert v.grad == 2 * 3.0 + 2.0 + 1.0


def test_sum_is_one_node_over_its_operands_in_order():
    xs = tapegrad.leaves([1.0, 2.0, 3.0])
    before = len(tape)
    y = tapegrad.sum(xs)
    assert (y.data, y._op, y.operands, len(tape)) == (6.0, "sum", tuple(xs), before + 1)


def test_sum_adds_from_left_to_right():
    draw = random.Random(4).gauss
    numbers, plain = [draw(0, 1) for _ in range(1000)], 0.0
    for x in numbers:
        plain += x
    assert tapegrad.sum(map(Value, numbers)).data == plain


def test_sum_takes_numbers_and_counts_repeats():
    v = Value(2.0)
    y = tapegrad.sum([v, 1, v, 0.5])
    y.backward()
    assert (y.data, v.grad) == (5.5, 2.0)


@pytest.mark.parametrize("numbers", [[1.0], [0.3, -2.0, 1.7], [1000.0, 1000.0], [-1000.0, -1001.0], [0.0, -math.inf]])
def test_logsumexp_does_not_overflow(numbers):
    assert same(tapegrad.logsumexp(map(Value, numbers)).data, logsumexp(numbers))


@pytest.mark.parametrize("numbers", [[0.3, -2.0, 1.7], [1000.0, 1000.0], [-1000.0, -1001.0], [5.0]])
def test_the_slopes_of_logsumexp_are_the_softmax(numbers):
    xs = tapegrad.leaves(numbers)
    tapegrad.logsumexp(xs).backward()
    exps = [math.exp(x - max(numbers)) for x in numbers]
    assert [x.grad for x in xs] == pytest.approx([e / math.fsum(exps) for e in exps], rel=1e-12)


def test_logsumexp_takes_numbers_and_values_mixed():
    v = Value(1.0)
    y = tapegrad.logsumexp([v, 1, 1.0])
    y.backward()
    assert y.data == pytest.approx(1.0 + math.log(3.0), rel=1e-12)
    assert (y._op, v.grad) == ("logsumexp", pytest.approx(1 / 3, rel=1e-12))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_one_node_whose_op_is_its_symbol(name):
    xs = tapegrad.leaves(SCORES)
    other = 2 if name == "cross_entropy" else tapegrad.leaves([1.0, -1.0, 1.0, -1.0])
    before = len(tape)
    y = getattr(tapegrad, name)(xs, other)
    tail = (xs[2],) if name == "cross_entropy" else tuple(other)
    assert (y._op, y.operands, len(tape)) == (ROWS[name].symbol, (*xs, *tail), before + 1)


@pytest.mark.parametrize(("name", "scores", "other"), LOSS_POINTS)
def test_the_value_of_a_loss_is_that_of_math(name, scores, other):
    assert same(getattr(tapegrad, name)(map(Value, scores), other).data, getattr(reference, name)(scores, other))


def moved(numbers, k, x):
    return [*numbers[:k], x, *numbers[k + 1 :]]


@pytest.mark.parametrize(("name", "scores", "other"), LOSS_POINTS)
def test_the_slopes_of_a_loss_by_its_scores_are_the_difference_quotients(name, scores, other):
    xs, primal = tapegrad.leaves(scores), getattr(reference, name)
    getattr(tapegrad, name)(xs, other).backward()
    for k, x in enumerate(xs):
        quotient = slope(lambda at, k=k: primal(moved(scores, k, at), other), x.data)
        assert x.grad == pytest.approx(quotient, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize(("name", "scores", "targets"), [point for point in LOSS_POINTS if point[0] != "cross_entropy"])
def test_the_slopes_of_a_loss_by_its_targets_are_the_difference_quotients(name, scores, targets):
    ys, primal = tapegrad.leaves(targets), getattr(reference, name)
    getattr(tapegrad, name)(scores, ys).backward()
    for k, y in enumerate(ys):
        quotient = slope(lambda at, k=k: primal(scores, moved(targets, k, at)), y.data)
        assert y.grad == pytest.approx(quotient, rel=1e-7, abs=1e-8)


def test_empty_sums_are_leaves():
    for y in (tapegrad.sum([]), tapegrad.dot([], [])):
        assert (y.data, y.operands) == (0.0, ())


def test_an_empty_dot_is_its_bias():
    bias = Value(4.0)
    y = tapegrad.dot([], [], bias) * 2
    y.backward()
    assert (y.data, bias.grad) == (8.0, 2.0)


@pytest.mark.parametrize(
    ("expression", "error", "message"),
    [
        (lambda v: tapegrad.dot([v], [v, v]), ValueError, ""),
        (lambda v: tapegrad.dot([], [v]), ValueError, ""),
        (lambda v: tapegrad.logsumexp([]), ValueError, ""),
        (lambda v: tapegrad.sum([v, "s"]), TypeError, "str"),
        (lambda v: tapegrad.sum([v, None]), TypeError, "NoneType"),
        (lambda v: tapegrad.dot([v], [1j]), TypeError, "complex"),
        (lambda v: tapegrad.dot([[v]], [v]), TypeError, "list"),
        (lambda v: tapegrad.dot([v], [v], "s"), TypeError, "str"),
        (lambda v: tapegrad.logsumexp([v, "s"]), TypeError, "str"),
        (lambda v: tapegrad.sum([v, 10**400]), OverflowError, ""),
        (lambda v: tapegrad.sum(v), TypeError, ""),
        (lambda v: tapegrad.sum(5), TypeError, ""),
        (lambda v: tapegrad.dot(v, v), TypeError, ""),
        (lambda v: tapegrad.leaves([1.0, "s"]), TypeError, "str"),
        (lambda v: tapegrad.leaves([1.0, 1j]), TypeError, "complex"),
        (lambda v: v.max("s"), TypeError, "str"),
        (lambda v: v.atan2(None), TypeError, "NoneType"),
        (lambda v: v.hypot(1j), TypeError, "complex"),
        (lambda v: v.min(10**400), OverflowError, ""),
        (lambda v: v.max(), TypeError, ""),
        (lambda v: v.tanh(1.0), TypeError, ""),
    ],
)
def test_a_refused_call_says_why_and_records_nothing(expression, error, message, settle, works):
    v = Value(2.0)
    settle()
    before = len(tape)
    with pytest.raises(error, match=message or None):
        expression(v)
    settle()
    assert len(tape) == before
    works()


def test_an_iterable_that_raises_half_way_records_nothing(settle, works):
    def numbers():
        yield v
        raise LookupError("half way")

    v = Value(2.0)
    settle()
    before = len(tape)
    for function in (tapegrad.sum, tapegrad.logsumexp, tapegrad.leaves, lambda xs: tapegrad.dot([v, v], xs)):
        with pytest.raises((LookupError, TypeError)):
            function(numbers())
    settle()
    assert len(tape) == before
    works()
