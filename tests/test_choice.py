"""Choice without a branch, against plain Python."""

from __future__ import annotations

import itertools
import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapegrad
from tapegrad import Value, record

COMPARISONS = {
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip
LOGICAL = {"logical_and": lambda a, b: bool(a and b), "logical_or": lambda a, b: bool(a or b)}
anything = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 2.0])


def sides(*numbers):
    """The numbers, each as it is or as a Value, but not all as they are."""
    return [
        [Value(x) if wrapped else x for x, wrapped in zip(numbers, how)]
        for how in itertools.product([True, False], repeat=len(numbers))
        if any(how)
    ]


def same(x, y):
    return (math.isnan(x) and math.isnan(y)) or (x == y and math.copysign(1.0, x) == math.copysign(1.0, y))


@given(anything, anything)
def test_comparisons_are_those_of_floats(a, b):
    for name, compare in (*COMPARISONS.items(), *LOGICAL.items()):
        f = getattr(tapegrad, name)
        assert (f(a, b), type(f(a, b))) == (float(compare(a, b)), float)
        for x, y in sides(a, b):
            z = f(x, y)
            z.backward()
            assert z.data == float(compare(a, b))
            assert all(v.grad == 0.0 for v in (x, y) if isinstance(v, Value))
    assert tapegrad.logical_not(a) == tapegrad.logical_not(Value(a)).data == float(not a)


@given(anything, anything, anything)
def test_where_is_the_conditional_expression(c, a, b):
    assert same(tapegrad.where(c, a, b), a if c else b)
    for x, y, z in sides(c, a, b):
        w = tapegrad.where(x, y, z)
        w.backward()
        assert same(w.data, a if c else b)
        assert [v.grad for v in (x, y, z) if isinstance(v, Value)] == [
            slope for v, slope in ((x, 0.0), (y, float(bool(c))), (z, float(not c))) if isinstance(v, Value)
        ]


@pytest.mark.parametrize("c", [True, False, 1, 0, 2.5])
def test_the_condition_may_be_a_plain_one(c):
    a, b = Value(3.0), Value(4.0)
    y = tapegrad.where(c, a, b)
    y.backward()
    assert (y.data, a.grad, b.grad) == ((3.0, 1.0, 0.0) if c else (4.0, 0.0, 1.0))
    assert tapegrad.where(c, 1, 2) == (1.0 if c else 2.0)


def test_the_other_side_gets_nothing_not_even_nan():
    for x in (0.0, 4.0):
        v = Value(x)
        tapegrad.where(v > 0, v.sqrt(), v * 2.0).backward()
        w = Value(x)
        tapegrad.where(tapegrad.greater(w, 0.0), w.sqrt(), w * 2.0).backward()
        assert v.grad == w.grad == (0.25 if x else 2.0)


def test_what_a_side_refuses_is_refused():
    with pytest.raises(ValueError, match="log"):
        tapegrad.where(Value(0.0), Value(-1.0).log(), 1.0)


@pytest.mark.parametrize("bad", ["s", None, 1j, [1.0]])
def test_what_is_no_number_is_refused(bad):
    v = Value(1.0)
    for call in (
        lambda: tapegrad.where(v, bad, 1.0), lambda: tapegrad.where(1.0, bad, 2.0), lambda: tapegrad.less(v, bad),
        lambda: tapegrad.less(bad, v), lambda: tapegrad.maximum(1.0, bad), lambda: tapegrad.sign(bad),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()


@given(st.floats(allow_nan=True), st.floats(-5, 5), st.floats(-5, 5))
def test_clip_is_within_its_bounds(x, a, b):
    lower, upper = min(a, b), max(a, b)
    v = Value(x)
    y = tapegrad.clip(v, lower, upper)
    y.backward()
    expected = lower if x < lower else upper if x > upper else x
    assert same(y.data, expected) and same(tapegrad.clip(x, lower, upper), expected)
    assert v.grad == (0.0 if x < lower or x > upper else 1.0)
    assert same(tapegrad.clip(x, None, upper), upper if x > upper else x)
    assert same(tapegrad.clip(Value(x), lower, None).data, lower if x < lower else x)


@given(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))
def test_the_others_are_those_of_floats(x, y):
    for f, expected in (
        (tapegrad.sign, float(x > 0) - float(x < 0)), (tapegrad.square, x * x),
        (lambda x: tapegrad.maximum(x, y), max(x, y)), (lambda x: tapegrad.minimum(x, y), min(x, y)),
        (lambda x: tapegrad.maximum(y, x), max(x, y)),
    ):  # fmt: skip
        assert f(x) == f(Value(x)).data == expected
    if x:
        assert tapegrad.reciprocal(x) == tapegrad.reciprocal(Value(x)).data == 1.0 / x


def test_a_reciprocal_of_zero_is_refused():
    for x in (0.0, Value(0.0)):
        with pytest.raises(ZeroDivisionError):
            tapegrad.reciprocal(x)


def leaky(x, w):
    y = x * w
    return tapegrad.where(tapegrad.less(y, 0.0), 0.01 * y, y * y) + tapegrad.clip(w, -1.0, 1.0)


@pytest.mark.parametrize("native", [False, True])
def test_a_program_chooses_row_by_row(native):
    """Recorded on one side, replayed on both: nothing is a guard, and nothing is taken from the lanes."""
    rows = [(x / 7.0, w / 3.0) for x in range(-9, 10) for w in range(-4, 5)]
    program = record(leaky, 1.0, 2.0)
    if native:
        from tapegrad.program import native as compiler

        try:
            compiler.compiler()
        except RuntimeError as error:
            pytest.skip(str(error))
        program.native()
    bent = record(lambda both: leaky(*both), [1.0, 2.0])
    values, slopes, curvatures = [], [], []
    for x, w in rows:
        v, u = Value(x), Value(w)
        y = leaky(v, u)
        y.backward()
        values.append(y.data)
        slopes.append((v.grad, u.grad))
        curvatures.append([2 * w * w, 4 * x * w, 4 * x * w, 2 * x * x] if x * w >= 0 else [0.0, 0.01, 0.01, 0.0])
    columns = [list(column) for column in zip(*rows)]
    assert [program(*row) for row in rows] == list(program.map()(*columns)) == values
    assert list(zip(*program.map().grad(*columns, argnums=(0, 1)))) == slopes
    for row, expected in zip(rows, curvatures):
        assert [second for line in bent.hessian(list(row)) for second in line] == pytest.approx(expected)


def test_a_recorded_sweep_chooses_too():
    slope = record(lambda x, w: tapegrad.grad(leaky, argnums=(0, 1))(x, w), 1.0, 2.0)
    for x, w in ((1.0, 2.0), (-1.0, 2.0), (-1.0, 0.5)):
        assert list(slope(x, w)) == pytest.approx(list(record(leaky, x, w).grad(x, w, argnums=(0, 1))))


def test_arrays_are_mapped_element_by_element(np):
    numbers = np.array([[1.0, -2.0], [0.5, 3.0]])
    values = np.array([[Value(x) for x in row] for row in numbers])
    for f, expected in (
        (lambda x: tapegrad.where(tapegrad.less(x, 0.7), x, 9.0), np.where(numbers < 0.7, numbers, 9.0)),
        (lambda x: tapegrad.where(x < 0.7, x, 9.0), np.where(numbers < 0.7, numbers, 9.0)),
        (lambda x: tapegrad.clip(x, 0.0, None), np.clip(numbers, 0.0, None)),
        (lambda x: tapegrad.maximum(x, numbers[0]), np.maximum(numbers, numbers[0])),
        (tapegrad.sign, np.sign(numbers)), (tapegrad.square, np.square(numbers)),
    ):  # fmt: skip
        assert tapegrad.data(f(values)).tolist() == expected.tolist() == f(numbers).tolist()
