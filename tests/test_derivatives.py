"""Functions of functions: each call runs f on the tape; derivatives compose; the check of a function's derivatives."""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import functools
import inspect
import itertools
import math
import multiprocessing
import operator
import pickle
import random

import mpmath
import pytest
from test_threads import together

import tapegrad
from tapegrad import (
    BranchChanged,
    Value,
    check_grads,
    grad,
    gradient,
    hessian,
    hvp,
    jacobian,
    jvp,
    maximum,
    minimum,
    nn,
    no_grad,
    record,
    set_data,
    special,
    tape,
    value_and_grad,
    vjp,
)
from tapegrad.value import handle

FUNCTIONS = (grad, value_and_grad, jacobian, hessian)


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


def test_the_hessian_by_several_arguments_is_a_tuple_of_tuples_of_blocks(np):
    def f(x, s, m):
        return x[0] * x[1] * s**2 + (m * s).sum() * x[0]

    at = [2.0, 3.0], 5.0, np.ones((1, 2))
    (xx, xm), (mx, mm) = hessian(f, argnums=(0, 2))(*at)
    assert xx == [[0.0, 25.0], [25.0, 0.0]] and [b.tolist() for b in xm] == [[[5.0, 5.0]], [[0.0, 0.0]]]
    assert mx.tolist() == [[[5.0, 0.0], [5.0, 0.0]]] and mm.shape == (1, 2, 1, 2) and not mm.any()
    assert hessian(cubic, argnums=(1, 0, -1))(2.0, 3.0) == ((4.0, 18.0, 4.0), (18.0, 36.0, 18.0), (4.0, 18.0, 4.0))
    assert hessian(cubic, argnums=[1])(2.0, 3.0) == ((4.0,),)


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


def test_a_pullback_gives_the_derivatives_that_it_is_asked_for(np):
    _, pull = vjp(lambda x, m: m @ x, np.array([1.0, 2.0]), np.array([[1.0, 0.0], [3.0, 4.0]]))
    seed = np.array([1.0, 10.0])
    assert pull(seed, argnums=0).tolist() == [31.0, 40.0] and pull(seed, argnums=-1).tolist() == [[1, 2], [10, 20]]
    by_m, by_x, again = pull(seed, argnums=(1, 0, 1))
    assert by_m.tolist() == [[1, 2], [10, 20]] and by_x.tolist() == [31.0, 40.0] and again.tolist() == by_m.tolist()
    assert pull(seed, argnums=()) == ()
    with pytest.raises(TypeError, match="argnums 2: f was called with 2 positional arguments"):
        pull(seed, argnums=2)
    x = Value(3.0)
    found = vjp(lambda x, y: x * y, x, 2.0)[1](Value(5.0), argnums=1)
    assert isinstance(found, Value) and found.data == 15.0


def test_vjp_keeps_the_arguments_that_it_was_given(np):
    x = np.array([3.0, 4.0])
    _, pull = vjp(lambda x: x[0] * x[1], x)
    x[:] = 0.0
    assert pull(1.0)[0].tolist() == [4.0, 3.0]


def test_hvp_is_the_hessian_times_a_vector(np):
    assert hvp(cubic)(2.0, 1.0, 3.0) == 36.0
    assert hvp(cubic, argnums=1)(2.0, 10.0, 3.0) == 40.0
    assert hvp(lambda x: x[0] ** 2 * x[1])([3.0, 5.0], [1.0, 2.0]) == [22.0, 6.0]
    found = hvp(lambda m, *, k: (m**3).sum() * k)(np.ones((2, 3)), np.ones((2, 3)), k=0.5)
    assert found.tolist() == [[3.0] * 3] * 2 and found.dtype == np.float64
    with pytest.raises(TypeError, match="one integer"):
        hvp(cubic, argnums=(0, 1))
    program = record(cubic, 0.0, 0.0)
    assert program.hvp(2.0, 1.0, 3.0) == 36.0
    assert program.hvp(2.0, 1.0, 3.0, argnums=1) == 4.0


def test_the_wrong_number_or_shape_of_tangents_is_named():
    program = record(lambda x, y: x[0] * y, [1.0], 1.0)
    with pytest.raises(TypeError, match="takes 2 tangents, not 1"):
        program.jvp([[1.0], 1.0], [[1.0]])
    with pytest.raises(ValueError, match="tangent x is 'list' of 2"):
        program.jvp([[1.0], 1.0], [[1.0, 2.0], 1.0])
    with pytest.raises(TypeError, match="the cotangent"):
        program.vjp([1.0], 1.0)[1]([1.0])
    with pytest.raises(TypeError, match="v is 'float'"):
        program.hvp([1.0], 1.0, 1.0)
    with pytest.raises(TypeError, match="takes 2 arguments"):
        program.hvp([1.0], [1.0])


# ---- a call of f ----


def test_every_call_runs_f_and_nothing_is_kept():
    calls, scale = [], 0.1

    def f(x):
        calls.append(1)
        return x * x * scale

    df = grad(f)
    assert df(1.0) == 0.2
    scale = 10
    assert (df(1.0), len(calls)) == (20.0, 2)


def test_a_call_has_random_numbers_branches_and_loops_of_its_own():
    def f(x, n):
        for _ in range(n):
            x = x * random.random() if x > 0 else -x * 3
        return x

    random.seed(1)
    expected = random.random() * random.random()
    random.seed(1)
    assert grad(f)(1.0, 2) == expected
    assert [grad(f)(x, 1) for x in (-1.0, -2.0)] == [-3.0, -3.0]
    with pytest.raises(BranchChanged):
        record(lambda x: f(x, 1), -1.0).grad(1.0)


def test_only_the_arguments_of_argnums_become_values(np):
    seen = []

    def f(x, flag, name, nothing, m, span, model, *, scale, k=None):
        seen[:] = [flag, name, nothing, m, span, model, scale, k]
        return x * 2 if flag else x * m.sum() * scale

    given = [False, "adam", None, np.ones(3), range(3), object()]
    assert grad(f)(1.0, *given, scale=5.0, k={"a": 1}) == 15.0
    assert all(a is b for a, b in zip(seen, given)) and seen[-2:] == [5.0, {"a": 1}]
    for derived in FUNCTIONS[1:]:
        derived(f)(1.0, *given, scale=5)
        assert seen[0] is False and type(seen[-2]) is int
    hvp(f)(1.0, 1.0, *given, scale=5)
    assert seen[5] is given[5]


def test_argnums_name_positions_from_either_end():
    assert grad(cubic, argnums=(0, -2, 1))(2.0, 3.0) == (45.0, 45.0, 20.0)
    assert grad(cubic, argnums=())(2.0, 3.0) == () == hessian(cubic, argnums=())(2.0, 3.0)
    with pytest.raises(TypeError, match="argnums 2: f was called with 2 positional arguments"):
        grad(cubic, argnums=2)(2.0, 3.0)
    with pytest.raises(TypeError, match="argnums -3"):
        grad(cubic, argnums=(0, -3))(2.0, 3.0)
    with pytest.raises(TypeError, match="argnums must be an integer or a tuple of them, not 'x'"):
        grad(cubic, argnums="x")(2.0, 3.0)
    with pytest.raises(TypeError, match="argnums 0: f was called with 0"):
        grad(cubic)(x=2.0, y=3.0)


def test_argnums_may_be_numpys(np):
    assert grad(cubic, argnums=np.int64(1))(2.0, 3.0) == 20.0


@pytest.mark.parametrize("at, expected", [(2.0, 4.0), ([2.0], [4.0]), ([[2.0]], [[4.0]])])
def test_has_aux_gives_what_f_returns_besides(at, expected):
    def f(x):
        y = x[0] if isinstance(x, list) else x
        y = y[0] if isinstance(y, list) else y
        return y * y, {"y": y}

    slope, aux = grad(f, has_aux=True)(at)
    assert slope == expected and aux["y"].data == 2.0
    (value, _), again = value_and_grad(f, has_aux=True)(at)
    assert (value, again) == (4.0, expected)
    jac, aux = jacobian(lambda x: ([f(x)[0]], "aux"), has_aux=True)(at)
    assert jac == [expected] and aux == "aux"


@pytest.mark.parametrize("at", [2.0, [2.0], (2.0,)])
@pytest.mark.parametrize("derived", [grad, value_and_grad, jacobian])
def test_has_aux_needs_a_pair(derived, at):
    with pytest.raises(TypeError, match="has to return a pair, not 'Value'"):
        derived(lambda x: Value(1.0), has_aux=True)(at)


def test_a_number_as_result_has_a_derivative_of_zero(np):
    assert grad(lambda x: 3)(2.0) == 0.0 and value_and_grad(lambda x: np.float64(3))([2.0, 1.0]) == (3.0, [0.0, 0.0])
    assert hessian(lambda x: True)([1.0, 2.0]) == [[0.0, 0.0], [0.0, 0.0]]
    assert jacobian(lambda x: [3, x[0], (5.0, x[1])])([1.0, 2.0]) == [[0.0, 0.0], [1.0, 0.0], ([0.0, 0.0], [0.0, 1.0])]
    assert hvp(lambda x: 3)([1.0, 2.0], [1.0, 1.0]) == [0.0, 0.0]
    assert jvp(lambda x: 3, (1.0,), (1.0,)) == (3.0, 0.0)
    assert jvp(lambda x: [3, x], (1.0,), (2.0,)) == ([3.0, 1.0], [0.0, 2.0])
    assert vjp(lambda x: [3, x], 1.0)[1]([5.0, 7.0]) == (7.0,)


def test_f_may_return_an_argument_or_a_value_from_outside():
    w = Value(3.0)
    assert value_and_grad(lambda x: x)(2.0) == (2.0, 1.0) and grad(lambda x: x[1])([2.0, 1.0]) == [0.0, 1.0]
    assert jacobian(lambda x: x)([1.0, 2.0]) == [[1.0, 0.0], [0.0, 1.0]]
    assert value_and_grad(lambda x: w)(2.0) == (3.0, 0.0) and value_and_grad(lambda x: w * w)([2.0]) == (9.0, [0.0])
    assert jacobian(lambda x: [w, x])(2.0) == [0.0, 1.0] and hessian(lambda x: w * w)(1.0) == 0.0
    assert vjp(lambda x: x, 2.0)[1](5.0) == (5.0,) and jvp(lambda x: [x], (2.0,), (5.0,)) == ([2.0], [5.0])


def test_what_f_may_not_return_is_named():
    with pytest.raises(TypeError, match="f returned None"):
        grad(lambda x: None)(1.0)
    with pytest.raises(TypeError, match="a function that returns one Value; this one returns a list of 1"):
        grad(lambda x: [x])(1.0)
    with pytest.raises(TypeError, match="a Hessian is of a function that returns one Value"):
        hessian(lambda x: [x])(1.0)
    with pytest.raises(TypeError, match="f returned 'x': it has to return a Value, or a nest of them"):
        jacobian(lambda x: "x")(1.0)
    with pytest.raises(TypeError, match="argument 0 is 'x': there is no derivative by what is no number"):
        grad(lambda x: x)("x")


def test_arrays_of_any_kind_are_numbers(np):
    def f(x):
        return (x * x).sum() if getattr(x, "shape", ()) else x * x

    for x in (
        np.arange(3),
        np.arange(3.0, dtype=np.float32),
        np.array([0, 1.0, 2], dtype=object),
        np.arange(6)[::2] / 2,
    ):
        found = grad(f)(x)
        assert found.tolist() == [0.0, 2.0, 4.0] and found.dtype == np.float64
    m = np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])
    assert grad(lambda m: m[0, 1] * 3)(m).tolist() == [[0.0, 3.0], [0.0, 0.0]]
    assert grad(f)(np.array(3.0)) == grad(f)(np.int64(3)) == 6.0 and grad(f)(True) == 2.0


def test_there_may_be_nothing_to_differentiate_by(np):
    assert grad(lambda x: 1.0)([]) == [] == jacobian(lambda x: [])([1.0])
    assert grad(lambda x: 1.0)(np.zeros((2, 0))).shape == (2, 0) and hessian(lambda x: 1.0)(np.zeros(0)).size == 0
    assert jvp(lambda: 3.0, (), ()) == (3.0, 0.0) and vjp(lambda: 3.0)[1](1.0) == ()


def test_grads_of_values_from_outside_are_left_alone():
    w = Value(3.0)
    w.grad = 7.0
    assert grad(lambda x: x * w * w)(2.0) == 9.0 and hessian(lambda x: x * x * w)(2.0) == 6.0
    assert jacobian(lambda x: [x * w])(2.0) == [3.0] and w.grad == 7.0


def test_f_may_sweep_itself():
    w = Value(2.0)

    def f(x):
        y = x * x * w
        y.backward()
        return y * x.grad

    assert grad(f)(3.0) == 2.0 * 2 * 3.0 * 12.0 and w.grad == 9.0


def test_no_grad_inside_f_is_obeyed_and_outside_is_none_of_its_business():
    def f(x):
        with no_grad():
            z = x * x
        return z * x

    assert grad(f)(3.0) == 9.0 and grad(no_grad()(lambda x: x * x))(3.0) == 0.0
    with no_grad():
        assert grad(f)(3.0) == 9.0 and grad(lambda x: x[0] * x[0])([3.0]) == [6.0]
        assert hessian(cubic)(2.0, 3.0) == 36.0 and jvp(cubic, (2.0, 3.0), (1.0, 0.0)) == (42.0, 45.0)
        with pytest.raises(ZeroDivisionError):
            grad(lambda x: x / 0)(1.0)
        assert (Value(1.0) * 2).operands == ()
    assert handle.no_grad_by(0) == 0


def test_a_derivative_in_no_grad_is_a_constant_for_what_is_around():
    def f(x):
        with no_grad():
            slope = grad(lambda y: y * y * x)(x)
        return slope * x

    assert grad(f)(3.0) == 18.0


@pytest.mark.parametrize("derived", FUNCTIONS)
def test_an_exception_in_f_comes_out_and_leaves_all_as_it_was(derived, swept, settle):
    class Odd(Exception):
        pass

    def f(x):
        y = x * x
        raise Odd(y.data)

    before = len(tape)
    for at in (2.0, [2.0]):
        with pytest.raises((Odd, TypeError)) as caught:
            derived(f)(at)
        del caught
    settle()
    assert handle.as_numbers_by(0) is False and len(tape) == before
    with pytest.raises(ValueError, match="math domain"):
        derived(lambda x: grad(lambda y: y.log())(x))(-1.0)
    assert handle.as_numbers_by(0) is False


def test_a_call_leaves_nothing_on_the_tape(swept, settle):
    df, before = grad(lambda x: (x * x).tanh()), len(tape)
    for k in range(10_000):
        df(k * 1e-4)
    settle()
    assert len(tape) == before
    for k in range(100):
        hessian(lambda x: x[0] * x[1].sin())([float(k), 1.0])
        grad(grad(cubic))(float(k), 1.0)
    settle()
    assert len(tape) == before


def test_a_million_operations_deep(sized):
    n = sized(10**5, 10**6, cffi=10**5)

    def f(x):
        for _ in range(n):
            x = x + 1e-9
        return x * x

    assert grad(f)(1.0) == pytest.approx(2.0 + 2e-9 * n) and hessian(f)(1.0) == 2.0


def test_slopes_below_the_smallest_normal_number_are_zero():
    def f(x):
        for _ in range(1050):
            x = x * 0.5
        return x

    assert grad(f)(1.0) == jacobian(f)(1.0) == 0.0


def test_an_infinite_slope_turns_no_zero_into_nan():
    def f(x, y):
        return x.sqrt() * y

    assert grad(f, argnums=(0, 1))(0.0, 0.0) == (0.0, 0.0) and grad(f)(0.0, 1.0) == math.inf
    assert hvp(f)(4.0, 0.0, 1.0) == 0.0
    assert jvp(f, (0.0, 1.0), (0.0, 1.0)) == (0.0, 0.0)
    assert jvp(lambda x, y: [f(x, y)], (0.0, 1.0), (0.0, 1.0)) == ([0.0], [0.0])
    assert grad(lambda x: (x * math.inf) * 0.0 + x)(1.0) == 1.0
    assert math.isnan(grad(lambda x: x * math.nan)(1.0))


def test_rules_of_f_run_in_a_sweep_and_are_refused_where_it_is_recorded():
    def cube(x):
        y = x * x
        out = Value(y.data * x.data, (x, y), "cube")

        def _backward():
            x.grad += y.data * out.grad
            y.grad += x.data * out.grad

        out._backward = _backward
        return out

    assert grad(cube)(2.0) == 12.0 and jvp(cube, (2.0,), (3.0,)) == (8.0, 36.0) and vjp(cube, 2.0)[1](3.0) == (36.0,)
    assert jacobian(lambda x: [cube(x), x])(2.0) == [12.0, 1.0]
    for call in (
        lambda: hessian(cube)(2.0),
        lambda: hvp(cube)(2.0, 1.0),
        lambda: grad(grad(cube))(2.0),
        lambda: jvp(lambda x: [cube(x)], (2.0,), (1.0,)),
    ):
        with pytest.raises(RuntimeError, match="rule of its own"):
            call()


# ---- the functions themselves ----


class Scaled:
    def __init__(self, k):
        self.k = k

    def times(self, x, y):
        return x * y * self.k

    slope = grad(times, argnums=1)


def test_a_derived_function_has_a_name_its_doc_and_a_signature():
    df = grad(cubic, argnums=(0, 1))
    assert df.__name__ == "cubic" and df.__qualname__ == "cubic" and df.__module__ == __name__
    assert "cubic" in df.__doc__ and list(inspect.signature(df).parameters) == ["x", "y"]
    assert repr(df) == f"<gradient of {cubic!r} by argument (0, 1)>"
    assert repr(hessian(cubic)) == f"<Hessian of {cubic!r} by argument 0>"
    assert grad(functools.partial(cubic, y=3.0))(2.0) == 45.0


def test_a_derived_function_is_a_method_and_a_decorator():
    assert Scaled(4.0).slope(2.0, 3.0) == 12.0 == Scaled.slope(Scaled(4.0), 2.0, 3.0)
    assert grad(Scaled(4.0).times)(2.0, 3.0) == 12.0

    @grad
    def slope(x):
        """Of the square."""
        return x * x

    assert slope(3.0) == 6.0 and slope.__name__ == "slope"


@pytest.mark.parametrize("derived", FUNCTIONS)
def test_a_derived_function_is_pickled_and_copied(derived):
    df = derived(cubic, argnums=(0, 1))
    expected = df(2.0, 3.0)
    for twin in (pickle.loads(pickle.dumps(df)), copy.copy(df), copy.deepcopy(df)):
        assert twin(2.0, 3.0) == expected and repr(twin) == repr(df) and twin.__name__ == "cubic"
    assert pickle.loads(pickle.dumps(grad(cubic, 1, True)))._has_aux
    assert pickle.loads(pickle.dumps(hvp(cubic, 1)))(2.0, 1.0, 3.0) == 4.0
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(derived(lambda x: x))


def square(x):
    return x * x


@grad
def slope_of_the_cube(x):
    return x**3


def test_a_decorated_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(slope_of_the_cube)) is slope_of_the_cube is copy.copy(slope_of_the_cube)
    assert pickle.loads(pickle.dumps(Scaled.slope))(Scaled(4.0), 2.0, 3.0) == 12.0


def test_a_pool_of_processes_maps_a_derived_function():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(grad(square), [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]


def test_callables_of_any_kind_are_taken():
    class Square:
        __slots__ = ()
        __hash__ = None

        def __call__(self, x):
            return x * x

    assert jvp(Square(), (3.0,), (1.0,)) == (9.0, 6.0) and grad(Square())(3.0) == 6.0
    assert [jvp(Scaled(k).times, (3.0, 1.0), (1.0, 0.0)) for k in (2.0, 5.0)] == [(6.0, 2.0), (15.0, 5.0)]


def test_vjp_calls_f_once_and_keeps_what_it_did():
    calls = []

    def f(x):
        calls.append(1)
        return x * x if x > 0 else -x

    _, pull = vjp(f, 3.0)
    tape.collect()
    assert (pull(1.0), pull(2.0), pull(1.0), len(calls)) == ((6.0,), (12.0,), (6.0,), 1)


def test_threads_share_a_derived_function():
    df = grad(lambda x: x * x * x if x > 0 else -x)
    nested = grad(lambda x: x * grad(lambda y: x * y * y)(3.0))

    def work():
        for k in range(1, 50):
            assert df(float(k)) == 3.0 * k * k and df(-float(k)) == -1.0 and nested(float(k)) == 12.0 * k

    together(*[work] * 4)


def test_a_thread_that_differentiates_does_not_make_another_ones_derivatives_values():
    def work():
        for k in range(1, 50):
            assert type(grad(lambda x: x * Value(2.0))(float(k))) is float
            assert grad(lambda x: x * grad(lambda y: x * y)(1.0))(float(k)) == 2.0 * k

    together(*[work] * 3)


def test_the_wrong_number_or_shape_of_tangents_is_named_here_too(np):
    with pytest.raises(TypeError, match="there are 2 primals, but 1 tangents"):
        jvp(cubic, (2.0, 3.0), (1.0,))
    with pytest.raises(TypeError, match=r"primals must be a tuple with an entry for each argument, not 2\.0"):
        jvp(square, 2.0, 1.0)
    with pytest.raises(TypeError, match="tangents must be a tuple"):
        jvp(square, (2.0,), Value(1.0))
    with pytest.raises(TypeError, match="tangent 1 is 'list' of 1"):
        jvp(cubic, (2.0, 3.0), (1.0, [1.0]))
    with pytest.raises(TypeError, match="the cotangent is 'float'"):
        vjp(lambda x: [x, x], 2.0)[1](1.0)
    with pytest.raises(ValueError, match="v is 'list' of 6"):
        hvp(lambda x: (x * x).sum())(np.ones((2, 3)), [1.0] * 6)
    with pytest.raises(ValueError, match="v is a list of 6, not an array of shape"):
        hvp(lambda x: (x * x).sum())(np.ones((2, 3)), [Value(1.0)] * 6)


# ---- derivatives of derivatives ----


def test_derivatives_of_any_order():

    def f(x, m):
        return m.tanh(x * x) * m.sin(x) + m.exp(-x) * m.log(x) ** 3

    class OfValues:
        def __getattr__(self, name):
            return lambda x: getattr(x, name)()

    mpmath.mp.dps = 40
    for at in (0.3, 0.8, 1.7):
        derived = functools.partial(f, m=OfValues())
        for order in range(1, 6):
            derived = grad(derived)
            expected = float(mpmath.diff(lambda x: f(x, mpmath.mp), at, order))
            assert derived(at) == pytest.approx(expected, rel=1e-11), (at, order)


@pytest.mark.parametrize("op", [op for op in tape.operations if op.kind == "unary" and hasattr(math, op.method)])
def test_third_derivatives_of_rows(op):
    mpmath.mp.dps = 40
    at = {"acosh": 1.5}.get(op.method, 0.3)
    others = {"log2": lambda x: mpmath.log(x, 2), "lgamma": mpmath.loggamma, "trunc": mpmath.floor}
    expected = mpmath.diff(others.get(op.method) or getattr(mpmath, op.method), at, 3)
    assert grad(grad(grad(lambda x: getattr(x, op.method)())))(at) == pytest.approx(float(expected), rel=1e-11)


def test_a_program_recorded_within_says_what_it_took_for_a_constant():
    def f(x):
        return x * record(lambda y: y * y * x, 1.0)(x)

    with pytest.warns(RuntimeWarning, match="a Value was taken for a constant within a function that is being"):
        grad(f)(2.0)
    with pytest.raises(RuntimeError, match="pass it as an argument, or in params"):
        grad(lambda x: record(lambda y: y * x, 1.0, strict=True)(x))(2.0)
    assert grad(lambda x: record(lambda y, z: y * y * z, 1.0, 1.0)(x, x))(2.0) == 12.0
    assert grad(lambda x: record(lambda y: y * y * x, 1.0, params=[x])(x))(2.0) == 12.0


def test_params_of_a_program_that_is_given_numbers_are_numbers_and_said_to_be():
    def f(w, call):
        return w * call(record(lambda x: w * x, 1.0, params=[w]))

    for call in (
        lambda program: program(2.0), lambda program: program.grad(2.0), lambda program: program.map()([2.0])[0],
        lambda program: program.hvp(2.0, 1.0),
    ):  # fmt: skip
        with pytest.warns(RuntimeWarning, match="params were read as numbers"):
            grad(f)(3.0, call)
    assert grad(f)(3.0, lambda program: program(Value(2.0))) == 12.0
    assert grad(f)(3.0, no_grad()(lambda program: program(2.0))) == 6.0


@dataclasses.dataclass
class Pair:
    a: object
    b: object


@pytest.mark.parametrize(
    "f",
    [
        lambda x: sum(copy.deepcopy(x)) ** 2,
        lambda x: copy.copy(x[0]) * x[1],
        lambda x: copy.deepcopy({"a": x, "b": (x[0], x[0] * x[1])})["b"][1] * x[1],
        lambda x: dataclasses.asdict(Pair(x[0] * x[0], x[1]))["a"] * x[1],
    ],
)
def test_a_copy_of_what_is_differentiated_or_recorded_is_that_number(f):
    check_grads(f, [3.0, 0.5])
    program = record(f, [1.0, 2.0], strict=True)
    assert program([3.0, 0.5]) == f([3.0, 0.5])
    assert program.grad([3.0, 0.5]) == grad(f)([3.0, 0.5]) and program.hessian([3.0, 0.5]) == hessian(f)([3.0, 0.5])


def test_a_copy_within_a_function_has_data_of_its_own():
    model = nn.MLP(2, [2, 1])
    before = tapegrad.data(model)

    def f(x):
        other = copy.deepcopy(model)
        set_data(other, [w + 1.0 for w in before])
        return other(x) + model(x)

    grad(f)([1.0, 2.0])
    assert tapegrad.data(model) == before
    assert grad(lambda x: copy.deepcopy(model)(x))([1.0, 2.0]) == grad(model)([1.0, 2.0])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_differentiated_or_recorded_is_not_pickled(protocol):
    """It would come back as a leaf, whose derivative is 0: so would what a cache on disk, or a process, makes of it."""
    model = nn.MLP(1, [1])

    def f(x):
        for what in x, [x], {"product": x * x}, model:
            with pytest.raises(TypeError, match=r"differentiated or recorded.*copy keeps"):
                pickle.dumps(what, protocol)
        return copy.copy(x) * x

    assert grad(f)(3.0) == 6.0 and hessian(f)(3.0) == 2.0 and vjp(f, 3.0)[1](1.0) == (6.0,)
    assert record(f, 1.0, strict=True).grad(3.0) == 6.0
    assert tapegrad.data(pickle.loads(pickle.dumps(model))) == tapegrad.data(model)
    assert pickle.loads(pickle.dumps(grad(cubic)))(2.0, 3.0) == grad(cubic)(2.0, 3.0)


def test_processes_do_not_compute_what_is_differentiated():
    """They pickle in a thread of their own, where what comes back is what cannot be pickled."""

    def f(x):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
            (y,) = processes.map(operator.neg, [x])
            return y

    with pytest.raises(TypeError, match=r"a Value with a history cannot be pickled"):
        grad(f)(3.0)


def test_perturbations_are_not_confused():
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(2.0) == 1.0
    assert grad(lambda x: x * grad(lambda y: x * y)(1.0))(2.0) == 4.0
    assert grad(lambda x: x * grad(lambda x: x * x)(3.0))(2.0) == 6.0
    assert grad(lambda x: x * grad(lambda y: y * y)(x))(2.0) == 8.0
    assert grad(lambda x: x * grad(lambda y: x)(1.0))(2.0) == 0.0
    assert grad(lambda x: x * grad(lambda y: grad(lambda z: x * y * z)(y))(x))(2.0) == 4.0
    assert grad(lambda x: x * jvp(lambda y: x + y, (1.0,), (1.0,))[1])(2.0) == 1.0
    assert grad(lambda x: jvp(lambda y: x * y, (x,), (x,))[1])(3.0) == 6.0


def test_derivatives_pass_what_they_depend_on_by_any_way(np):
    """Closed over, as primal, as tangent or cotangent, as an element of a list or an array."""
    assert grad(lambda x: jvp(lambda y: y**3, (2.0,), (x,))[1])(5.0) == 12.0
    assert grad(lambda x: jvp(lambda y: [y**3, y], (x,), (2.0,))[1][0])(5.0) == 60.0
    assert grad(lambda x: vjp(lambda y: y * y * x, 3.0)[1](1.0)[0])(2.0) == 6.0
    assert grad(lambda x: vjp(lambda y: y * y, 3.0)[1](x)[0])(2.0) == 6.0
    assert grad(lambda x: hvp(lambda y: y[0] ** 3 * y[1])([2.0, 1.0], [x, x])[0])(2.0) == 24.0
    assert grad(lambda x: hvp(lambda y: y[0] ** 3 * y[1])([x, 1.0], [1.0, 0.0])[0])(2.0) == 6.0
    assert grad(lambda x: jacobian(lambda y: [y * x, y * y * x])(3.0)[1])(2.0) == 6.0
    assert grad(lambda x: jacobian(lambda y: y * y * x)(np.ones(2))[0, 0])(2.0) == 2.0
    assert grad(lambda x: value_and_grad(lambda y: y * y * x)(3.0)[0])(2.0) == 9.0
    assert grad(lambda a: sum(sum(row) for row in hessian(lambda x: a * x[0] * x[1] ** 2)([1.0, 2.0])))(1.0) == 10.0
    assert jacobian(lambda x: grad(lambda m: (m * m * x).sum())(np.ones((2, 2))))(5.0).tolist() == [[2.0, 2.0]] * 2


def test_a_hessian_of_a_function_that_differentiates():
    assert hessian(lambda x: x * grad(lambda y: x * x * y * y)(3.0))(2.0) == 72.0
    assert hessian(lambda x: x * grad(lambda y: x * x * y * y)(x))(2.0) == 96.0
    assert hvp(lambda x: x[0] * grad(lambda y: x[1] * y**3)(x[0]))([2.0, 5.0], [1.0, 0.0]) == [180.0, 36.0]


def test_a_newton_step_within_f():
    def step(a):
        def f(x):
            return (x - a) ** 4

        return 1.0 - grad(f)(1.0) / hessian(f)(1.0)

    assert grad(step)(0.3) == pytest.approx(1 / 3, rel=1e-14)


def u(t, p):
    return (p[0] * t).sin() * p[1] + p[2] * t**3


def loss(p):
    """Of a physics-informed network: how far u'' + u is from 0."""
    second = grad(grad(u))
    return sum((second(t, p) + u(t, p)) ** 2 for t in (0.1, 0.5, 0.9))


def test_a_loss_with_second_derivatives_in_it():
    check_grads(loss, [1.3, 0.7, 0.2])
    program = record(loss, [0.0, 0.0, 0.0])
    assert program([1.3, 0.7, 0.2]) == pytest.approx(value_and_grad(loss)([1.3, 0.7, 0.2])[0], rel=1e-13)
    assert program.grad([1.3, 0.7, 0.2]) == pytest.approx(grad(loss)([1.3, 0.7, 0.2]), rel=1e-12)
    found, expected = program.hessian([1.3, 0.7, 0.2]), hessian(loss)([1.3, 0.7, 0.2])
    for a, b in zip(found, expected):
        assert a == pytest.approx(b, rel=1e-11)


def test_where_arguments_are_values_results_are(np):
    x = Value(3.0)
    assert isinstance(grad(square)(x), Value) and grad(square)(x).data == 6.0
    value, slope = value_and_grad(square)(x)
    slope.backward()
    assert (value.data, x.grad) == (9.0, 2.0)
    found = grad(lambda m: (m * m).sum())(np.array([x, 2.0], dtype=object))
    assert found.dtype == object and [g.data for g in found] == [6.0, 4.0]
    assert hessian(cubic)(x, 1.0).data == 18.0 and jvp(square, (x,), (1.0,))[1].data == 6.0
    assert vjp(square, x)[1](2.0)[0].data == 12.0 and vjp(square, 3.0)[1](Value(2.0))[0].data == 12.0


# ---- derivatives as programs ----


def test_a_gradient_is_a_program_with_its_own_derivatives(tmp_path):
    program = record(grad(cubic, argnums=(0, 1)), 0.5, 0.5)
    assert program(2.0, 3.0) == (45.0, 20.0)
    assert program.jacobian(2.0, 3.0) == (36.0, 18.0)
    assert record(grad(cubic), 0.5, 0.5).map()([2.0, 1.0], [3.0, 0.0]) == [45.0, 0.0]
    program.save(tmp_path / "gradient")
    assert tapegrad.load(tmp_path / "gradient")(2.0, 3.0) == (45.0, 20.0)
    assert pickle.loads(pickle.dumps(program))(2.0, 3.0) == (45.0, 20.0)


def test_a_recorded_gradient_is_cleaned_of_what_folds_away():
    program = record(grad(lambda x: 3.0 * x + 1.0), 2.0)
    assert program.stats["instructions"] == 0 and program(7.0) == 3.0
    assert record(grad(lambda x: x * 2.0 * x), 2.0).stats["instructions"] <= 3
    assert record(grad(lambda x: x**2), 2.0).stats["instructions"] == 2  # the square may overflow: it has to be tried
    assert record(grad(lambda x: x * x + x.sin()), 2.0).stats["instructions"] <= 4


@pytest.mark.parametrize("derived", [value_and_grad, hessian, jacobian])
def test_other_derivatives_are_programs(derived):
    def f(x):
        return x[0].sin() * x[1] ** 3

    at = [0.3, 0.7]
    program = record(derived(f), [1.0, 1.0])

    def flat(nest):
        return [n for x in nest for n in flat(x)] if isinstance(nest, (list, tuple)) else [nest]

    assert flat(program(at)) == pytest.approx(flat(derived(f)(at)), rel=1e-14)


def test_a_recorded_gradient_asks_again_on_another_branch():
    def f(x):
        return x * x if x > 0 else x**3

    with pytest.raises(BranchChanged):
        record(grad(f), 1.0)(-2.0)
    program = record(grad(f), 1.0, on_branch="record")
    assert [program(x) for x in (3.0, -2.0, 5.0)] == [6.0, 12.0, 10.0] and program.stats["paths"] == 2
    assert program.grad(-2.0) == -12.0


def test_a_branch_on_a_gradient_is_a_guard():
    def f(x):
        slope = grad(lambda y: y**3 - y)(x)
        return slope * x if slope > 0 else x

    program = record(f, 2.0, on_branch="record")
    assert [program(x) for x in (2.0, 0.1, 3.0)] == [22.0, 0.1, 78.0] and program.stats["paths"] == 2


def test_a_recorded_gradient_refuses_what_f_refuses_but_no_infinite_slope():
    program = record(grad(lambda x: x.sqrt()), 1.0)
    assert program(4.0) == 0.25 and program(0.0) == math.inf
    with pytest.raises(ValueError, match="math domain error"):
        program(-1.0)


def test_instructions_of_a_sweep_have_the_line_that_asked_for_it():
    def f(x):
        slope = grad(square)(x)
        return slope * x

    listing = str(record(f, 2.0)).splitlines()
    first = f.__code__.co_firstlineno
    assert [line.rpartition(":")[2] for line in listing if line.startswith("  %")] == [str(first + 1), str(first + 2)]
    asked = str(record(grad(lambda x: x.log()), 2.0))
    assert "tapegrad/derivatives.py" not in asked and "test_derivatives.py" in asked and "1.0 / in0" in asked


def test_gradient_is_recorded_into_a_program():
    program = record(lambda x: gradient(x[0] ** 3 * x[1], x), [1.0, 1.0])
    assert program([2.0, 5.0]) == [60.0, 8.0]
    assert program.jacobian([2.0, 5.0]) == [[60.0, 12.0], [12.0, 0.0]]


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
    assert {op.method for op in tape.operations if op.kind == "many"} <= {*MANY, "_top"}  # which has no slope
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


@pytest.mark.parametrize(
    "f, at, expected",
    [
        (special.xlogy, (0.0, 0.0), [[0.0, math.inf], [math.inf, 0.0]]),
        (special.xlogy, (-0.0, 0.0), [[0.0, math.inf], [math.inf, 0.0]]),
        (special.xlogy, (0.0, 2.0), [[0.0, 0.5], [0.5, 0.0]]),
        (maximum, (1.0, math.nan), [[0.0, 0.0], [0.0, 0.0]]),
        (minimum, (math.nan, 1.0), [[0.0, 0.0], [0.0, 0.0]]),
        (maximum, (1.0, 1.0), [[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_second_derivatives_in_corners_are_the_same_recorded_and_replayed(f, at, expected):
    """The limit where there is one, as JAX and PyTorch have it."""
    program = record(lambda x: f(x[0], x[1]), [1.0, 2.0], on_branch="record")
    assert hessian(lambda x: f(x[0], x[1]))(list(at)) == expected
    assert program.hessian(list(at)) == [rows[0] for rows in program.map().hessian([list(at)])] == expected
    assert jacobian(grad(lambda x: f(x[0], x[1])))(list(at)) == expected


# ---- the check ----


def test_check_grads_passes_what_is_right(np):
    check_grads(cubic, 1.5, -0.5)
    with no_grad():
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
