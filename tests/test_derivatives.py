"""Derivatives by programs, with JAX's names and shapes, and the check of a function's derivatives."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
from test_threads import together

import tapegrad
from tapegrad import (
    BranchChanged,
    Value,
    check_grads,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    record,
    tape,
    value_and_grad,
    vjp,
)


def cubic(x, y):
    return x**3 * y + x * y**2


# ---- names and shapes ----


def test_grad_is_a_function_of_numbers():
    assert grad(cubic)(2.0, 3.0) == 45.0
    assert grad(cubic, 1)(2.0, 3.0) == grad(cubic, argnums=-1)(2.0, 3.0) == 20.0
    assert grad(cubic, argnums=(1, 0))(2.0, 3.0) == (20.0, 45.0)
    assert grad(cubic, argnums=(0,))(2, 3) == (45.0,)


def test_value_and_grad_is_a_pair():
    assert value_and_grad(cubic, argnums=1)(2.0, 3.0) == (42.0, 20.0)
    assert value_and_grad(cubic, argnums=(0, 1))(2.0, 3.0) == (42.0, (45.0, 20.0))


def test_a_gradient_is_shaped_like_its_argument(np):
    def f(nest, m):
        return nest[0] * nest[1][0] * m.sum() + nest[1][1]

    example = ([2.0, (3.0, 4.0)], np.ones((2, 2)))
    by_nest, by_matrix = grad(f, argnums=(0, 1))(*example)
    assert by_nest == [12.0, (8.0, 1.0)]
    assert by_matrix.tolist() == [[6.0, 6.0], [6.0, 6.0]] and by_matrix.dtype == np.float64


def test_the_jacobian_is_the_result_with_a_gradient_in_every_place(np):
    x, m = np.array([1.0, 2.0, 3.0]), np.arange(6.0).reshape(2, 3)
    by_m, by_x = jacobian(lambda m, x: m @ x, argnums=(0, 1))(m, x)
    assert by_m.shape == (2, 2, 3) and by_x.shape == (2, 3)
    assert by_x.tolist() == m.tolist() and by_m[0].tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
    assert jacobian(lambda x: [x * 2, (x * 3, x * x)])(5.0) == [2.0, (3.0, 10.0)]
    assert jacobian(lambda x: x[0] * x[1])([2.0, 3.0]) == [3.0, 2.0]
    nested = jacobian(lambda x: [x[0] * x[1][0], x[1][0]])([2.0, [3.0]])
    assert nested == [[3.0, [2.0]], [0.0, [1.0]]]


@pytest.mark.parametrize("n, m", [(1, 1), (1, 40), (40, 1), (3, 5), (5, 3), (17, 16), (16, 17), (33, 33)])
def test_the_jacobian_by_rows_is_that_by_columns(n, m):
    def f(x):
        return [(x[k % n] * x[(k * 3 + 1) % n]).sin() * (k + 1) for k in range(m)]

    at = [0.1 * k - 0.5 for k in range(n)]
    program = record(f, [0.0] * n)
    found = program.jacobian(at)
    _, pull = program.vjp(at)
    for k, row in enumerate(found):
        assert row == pytest.approx(pull([float(i == k) for i in range(m)])[0], rel=1e-12, abs=1e-300)
    for i in range(n):
        _, column = program.jvp([at], [[float(k == i) for k in range(n)]])
        assert column == pytest.approx([row[i] for row in found], rel=1e-12, abs=1e-300)


def test_the_hessian_is_a_gradient_in_every_place_of_a_gradient(np):
    assert hessian(cubic)(2.0, 3.0) == 36.0
    assert hessian(cubic, argnums=1)(2.0, 3.0) == 4.0
    assert hessian(lambda x: x[0] ** 2 * x[1])([3.0, 5.0]) == [[10.0, 6.0], [6.0, 0.0]]
    found = hessian(lambda m: (m * m * m).sum())(np.arange(6.0).reshape(2, 3))
    assert found.shape == (2, 3, 2, 3) and found[1, 2, 1, 2] == 30.0 and found[0, 1, 1, 0] == 0.0


def test_jvp_gives_the_value_and_its_derivative_along_the_tangents():
    assert jvp(cubic, (2.0, 3.0), (1.0, 0.0)) == (42.0, 45.0)
    assert jvp(cubic, (2.0, 3.0), (10.0, 1.0)) == (42.0, 470.0)
    assert jvp(lambda x: [x[0] * x[1], x[0]], ([2.0, 3.0],), ([1.0, 1.0],)) == ([6.0, 2.0], [5.0, 1.0])


def test_vjp_gives_the_value_and_a_function_of_the_cotangent(np):
    value, pull = vjp(lambda x, m: m @ x, np.array([1.0, 2.0]), np.array([[1.0, 0.0], [3.0, 4.0]]))
    assert value.tolist() == [1.0, 11.0]
    by_x, by_m = pull(np.array([1.0, 10.0]))
    assert by_x.tolist() == [31.0, 40.0] and by_m.tolist() == [[1.0, 2.0], [10.0, 20.0]]
    assert [g.tolist() for g in pull([0.0, 0.0])] == [[0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]]
    assert vjp(cubic, 2.0, 3.0)[1](2.0) == (90.0, 40.0)


def test_vjp_keeps_the_arguments_that_it_was_given(np):
    x = np.array([3.0, 4.0])
    _, pull = vjp(lambda x: x[0] * x[1], x)
    x[:] = 0.0
    assert pull(1.0)[0].tolist() == [4.0, 3.0]


def test_hvp_is_the_derivative_of_the_gradient():
    assert hvp(cubic, (2.0, 3.0), (1.0, 0.0)) == 36.0
    assert hvp(cubic, (2.0, 3.0), (0.0, 1.0)) == 18.0
    assert hvp(lambda x: x[0] ** 2 * x[1], ([3.0, 5.0],), ([1.0, 2.0],)) == [22.0, 6.0]
    program = record(cubic, 0.0, 0.0)
    assert program.hvp(2.0, 1.0, 3.0) == 36.0
    assert program.hvp(2.0, 1.0, 3.0, argnums=1) == 4.0


def test_the_wrong_number_or_shape_of_tangents_is_named():
    program = record(lambda x, y: x[0] * y, [1.0], 1.0)
    with pytest.raises(TypeError, match="takes 2 tangents, not 1"):
        program.jvp([[1.0], 1.0], [[1.0]])
    with pytest.raises(ValueError, match="tangent 0 is 'list' of 2"):
        program.jvp([[1.0], 1.0], [[1.0, 2.0], 1.0])
    with pytest.raises(TypeError, match="the cotangent"):
        program.vjp([1.0], 1.0)[1]([1.0])
    with pytest.raises(TypeError, match="v is 'float'"):
        program.hvp([1.0], 1.0, 1.0)
    with pytest.raises(TypeError, match="takes 2 arguments"):
        program.hvp([1.0], [1.0])


# ---- programs are kept ----


def test_f_is_recorded_once_for_every_shape_and_path():
    calls = []

    def f(x):
        calls.append(1)
        x = x if isinstance(x, list) else [x]
        return x[0] * x[-1] if x[0] > 0 else -x[0]

    df = grad(f)
    assert [df(2.0), df(3.0)] == [4.0, 6.0] and len(calls) == 1
    assert df([2.0, 3.0]) == df([2, 3]) == [3.0, 2.0] and len(calls) == 2
    assert df(-1.0) == -1.0 and len(calls) == 3
    assert df((1.0, 2.0)[0]) == 2.0 and len(calls) == 3


def test_the_functions_of_primals_keep_programs_as_long_as_f_lives():
    calls = []

    def make():
        def f(x):
            calls.append(1)
            return x * x

        return f

    f = make()
    for _ in range(3):
        assert (jvp(f, (3.0,), (1.0,)), hvp(f, (3.0,), (1.0,)), vjp(f, 3.0)[1](1.0)) == ((9.0, 6.0), 2.0, (6.0,))
    assert len(calls) == 1
    gone = weakref.ref(f)
    del f
    gc.collect()
    assert gone() is None


def test_a_cotangent_is_pulled_back_after_f_is_gone():
    _, pull = vjp(lambda x: x * x if x > 0 else -x, -3.0)
    gc.collect()
    assert pull(1.0) == (-1.0,)


def test_callables_that_are_neither_hashed_nor_referred_to_are_taken():
    class Square:
        __slots__ = ()
        __hash__ = None

        def __call__(self, x):
            return x * x

    class Scaled:
        def __init__(self, k):
            self.k = k

        def times(self, x):
            return x * self.k

    assert jvp(Square(), (3.0,), (1.0,)) == (9.0, 6.0) and grad(Square())(3.0) == 6.0
    assert [jvp(Scaled(k).times, (3.0,), (1.0,)) for k in (2.0, 5.0)] == [(6.0, 2.0), (15.0, 5.0)]


def test_a_derived_function_has_a_name_and_its_doc():
    assert grad(cubic).__name__ == "cubic" and "cubic" in grad(cubic).__doc__
    assert grad(lambda x: x * x)(3.0) == 6.0


def test_threads_share_a_derived_function():
    df = grad(lambda x: x * x * x if x > 0 else -x)

    def work():
        for k in range(1, 50):
            assert df(float(k)) == 3.0 * k * k and df(-float(k)) == -1.0

    together(*[work] * 4)


# ---- every row of the table ----

POINTS = {"log": 0.7, "log2": 0.7, "log10": 0.7, "sqrt": 0.7, "asin": 0.3, "acos": 0.3, "log1p": 0.3}
ROWS = [op for op in tape.operations if op.kind in ("unary", "binary")]


@pytest.mark.parametrize("op", ROWS, ids=lambda op: op.method)
@pytest.mark.parametrize("at", [(0.7, 1.3), (1.6, 0.45), (-0.8, 1.7), (0.25, -0.6)])
def test_second_partials_are_the_differences_of_the_gradient(op, at):
    n = 2 if op.kind == "binary" else 1
    at = list(at[:n])
    program = record(lambda x: getattr(x[0], op.method)(*x[1:]), [1.5 if op.method == "acosh" else 0.5] * n)
    h = 1e-5
    try:
        rows = [[program.grad([x + s * h * (k == i) for k, x in enumerate(at)]) for s in (1, -1)] for i in range(n)]
    except ValueError:
        assert op.refusal in ("MATH", "POLE", "POWER", "PAIR")
        return
    found = program.hessian(at)
    for i, k in itertools.product(range(n), repeat=2):
        difference = (rows[i][0][k] - rows[i][1][k]) / (2 * h)
        assert found[i][k] == pytest.approx(difference, rel=1e-6, abs=1e-8)
        assert found[i][k] == pytest.approx(found[k][i], rel=1e-12, abs=1e-15)


MANY = {
    "dot": lambda x: tapegrad.dot(x[:3], x[1:4], x[0]),
    "sum": lambda x: tapegrad.sum([x[0], x[0], x[1]]) ** 2,
    "_fsum": lambda x: tapegrad.math.fsum([x[0], x[0], x[1]]) ** 2,
    "where": lambda x: tapegrad.where(tapegrad.less(x[0], x[1]), x[2] * x[2], x[2] * x[3]),
    "logsumexp": tapegrad.logsumexp,
    "cross_entropy": lambda x: tapegrad.cross_entropy(x, 2),
    "mse": lambda x: tapegrad.mse(x[:2], x[2:]),
    "hinge": lambda x: tapegrad.hinge(x[:2], x[2:]),
    "softmax": lambda x: tapegrad.softmax(x)[1],
    "affine": lambda x: tapegrad.sum(tapegrad.affine([x[:2], x[2:]], x[:2], x[1:3])),
}


@pytest.mark.parametrize("name", MANY)
def test_second_partials_of_many_operands_are_the_differences_of_the_gradient(name):
    assert {op.method for op in tape.operations if op.kind == "many"} <= set(MANY)
    check_grads(MANY[name], [0.3, -0.4, 0.5, 0.9], order=2, tolerance=1e-7)


@pytest.mark.parametrize("k", [0, 1, 2, 3, -1, 0.5, 2.5])
def test_second_derivatives_of_powers(k):
    program = record(lambda x: x**k, 1.5)
    assert program.hessian(2.0) == pytest.approx(k * (k - 1) * 2.0 ** (k - 2), rel=1e-12)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_second_derivatives_of_powers_at_zero(k):
    expected = 2.0 if k == 2 else 0.0
    assert record(lambda x: x**k, 1.5).hessian(0.0) == expected
    program = record(lambda x, y: x**y, 1.5, 1.5)
    if k > 2:
        assert program.hessian(0.0, float(k)) == 0.0


def test_second_derivatives_where_infinity_meets_no_tangent():
    program = record(lambda x, y: x.sqrt() * y, 1.0, 1.0)
    assert program.hvp(4.0, 1.0, 0.0) == 0.0
    assert record(lambda x: x.relu() * x.abs(), 1.0).hessian(-1.0) == 0.0
    assert record(lambda x: x.hypot(0.0), 1.0).hessian(0.0) == 0.0


def test_derivatives_below_the_smallest_normal_number_are_zero():
    def f(x):
        for _ in range(1050):
            x = x * 0.5
        return x

    program = record(f, 1.0)
    assert program.grad(1.0) == program.jvp([1.0], [1.0])[1] == program.map().grad([1.0, 1.0])[0] == 0.0
    assert program.jacobian(1.0) == 0.0
    assert record(lambda x: [f(x), x], 1.0).jacobian(1.0) == [0.0, 1.0]
    assert 5e-324 / 2 == 0.0 and 1e-310 / 2 != 0.0


# ---- the check ----


def test_check_grads_passes_what_is_right(np):
    check_grads(cubic, 1.5, -0.5)
    check_grads(lambda x: [x[0] * x[1].tanh(), x[0] ** 2], [0.5, 0.7])
    check_grads(lambda m, x: np.tanh(m @ x), np.arange(6.0).reshape(2, 3) / 5, np.array([0.5, -0.5, 1.0]))
    check_grads(lambda x: x.sin(), 1.0, order=1)


@pytest.mark.filterwarnings("ignore:while recording:RuntimeWarning")
def test_check_grads_catches_a_wrong_rule_and_says_which_input_and_by_how_much():
    def f(x, y):
        out = x * y[1]

        def _backward():
            x.grad += y[1].data * out.grad
            y[1].grad += 3 * x.data * out.grad  # three times too much

        out._backward = _backward
        return out + y[0]

    with pytest.raises(AssertionError) as caught:
        check_grads(f, 2.0, [1.0, 5.0])
    message = str(caught.value)
    assert "the sweep's derivative of output 0 by argument 1, element 1: 6.0, central difference 2.0" in message
    assert "off by 0.667" in message


@pytest.mark.filterwarnings("ignore:while recording:RuntimeWarning")
def test_check_grads_catches_what_went_past_the_tape():
    with pytest.raises(AssertionError, match="output 0 by argument 0"):
        check_grads(lambda x: x * x.data, 2.0)


def test_check_grads_catches_a_kink():
    with pytest.raises(AssertionError, match="argument 0"):
        check_grads(lambda x: x.abs(), 0.0)


def test_check_grads_is_as_strict_as_it_is_told():
    check_grads(lambda x: (x * 30).sin(), 1.0, order=1)
    with pytest.raises(AssertionError):
        check_grads(lambda x: (x * 30).sin(), 1.0, order=1, tolerance=1e-15)
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        check_grads(lambda x: x, 1.0, order=3)


def test_derived_functions_take_other_branches_and_programs_do_not():
    def f(x):
        return x * x if x > 1 else -x

    assert [grad(f)(x) for x in (2.0, 0.0)] == [4.0, -1.0]
    with pytest.raises(BranchChanged):
        record(f, 2.0).grad(0.0)


def test_derivatives_of_a_captured_value_are_of_a_constant():
    w = Value(3.0)
    df = grad(lambda x: x * w)
    assert (df(2.0), w.grad) == (3.0, 0.0)
