"""`tapegrad.linalg` against NumPy, its slopes against closed forms and central differences."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tapegrad
from tapegrad import BranchChanged, Value, check_grads, data, grads, leaves, linalg, record, set_data
from tapegrad.linalg import LinAlgError


def matrix(n, m=None, seed=0):
    draw = random.Random(1000 * seed + n)
    return [[draw.gauss(0, 1) for _ in range(m or n)] for _ in range(n)]


def values(rows):
    return [leaves(row) for row in rows]


def boxed(np, array):
    return np.array(leaves(array.ravel()), dtype=object).reshape(array.shape)


def floats(np, x):
    """As a float64 array, whether of Values or of floats."""
    array = np.asarray(x, dtype=object)
    return np.array([v.data if isinstance(v, Value) else v for v in array.ravel()], dtype=float).reshape(array.shape)


def close(np, x, expected, rel=1e-12):
    x = floats(np, x)
    assert x.shape == np.shape(expected)
    assert np.abs(x - expected).max(initial=0.0) <= rel * max(np.abs(expected).max(initial=0.0), 1e-300)


def positive(np, n, seed=0):
    a = np.array(matrix(n, seed=seed))
    return a @ a.T + 0.1 * np.eye(n)


SIZES = pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 30])
MAPS = pytest.mark.parametrize("name", ["inv", "det", "slogdet", "cholesky"])


# numbers


@SIZES
def test_values_and_floats_give_what_numpy_gives(np, n):
    a, b, B = np.array(matrix(n)), np.array(matrix(n, 1, 1))[:, 0], np.array(matrix(n, 4, 2))
    s = positive(np, n)
    for make in (lambda x: x, lambda x: x.tolist(), lambda x: boxed(np, x), lambda x: values(x.tolist())):
        close(np, linalg.solve(make(a), make(B)), np.linalg.solve(a, B), 1e-11)
        close(np, linalg.solve(make(a), b), np.linalg.solve(a, b), 1e-11)
        close(np, linalg.solve(a, make(B)), np.linalg.solve(a, B), 1e-11)
        close(np, linalg.inv(make(a)), np.linalg.inv(a), 1e-11)
        close(np, linalg.det(make(a)), np.linalg.det(a))
        close(np, linalg.cholesky(make(s)), np.linalg.cholesky(s))
        close(np, linalg.cholesky(make(s), upper=True), np.linalg.cholesky(s).T)
        sign, size = linalg.slogdet(make(a))
        expected = np.linalg.slogdet(a)
        assert sign == expected[0]
        close(np, size, expected[1], 1e-11)


def test_a_float_gives_a_float_with_the_bits_of_a_value():
    a, b = matrix(6), matrix(6, 2, 1)
    for name, arguments in (("solve", (a, b)), ("inv", (a,)), ("det", (a,)), ("norm", (a,))):
        plain, taped = getattr(linalg, name)(*arguments), getattr(linalg, name)(*map(values, arguments))
        if isinstance(plain, float):
            assert taped.data == plain
        else:
            assert [data(row) for row in taped] == plain
    assert linalg.slogdet(values(a))[1].data == linalg.slogdet(a)[1]


def test_a_zero_on_the_diagonal_is_no_trouble():
    assert linalg.det([[0.0, 1.0], [1.0, 0.0]]) == -1.0
    assert linalg.solve([[0.0, 2.0], [4.0, 0.0]], [2.0, 8.0]) == [2.0, 1.0]
    assert linalg.inv([[0, 0, 1], [1, 0, 0], [0, 1, 0]]) == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_pivots_keep_small_elements_from_hurting():
    assert linalg.solve([[1e-20, 1.0], [1.0, 1.0]], [1.0, 2.0]) == pytest.approx([1.0, 1.0], rel=1e-15)


@pytest.mark.parametrize(
    ("a", "b"), [((4, 3, 3), (4, 3, 2)), ((4, 1, 3, 3), (5, 3, 2)), ((3, 3), (2, 3, 1)), ((2, 3, 3), (3,))]
)
def test_stacks_broadcast_as_numpys(np, a, b):
    draw = np.random.default_rng(1)
    a, b = draw.normal(size=a), draw.normal(size=b)
    expected = np.linalg.solve(a, b if b.ndim > 1 else b[:, None])
    close(np, linalg.solve(a, b), expected if b.ndim > 1 else expected[..., 0], 1e-11)
    close(np, linalg.solve(boxed(np, a), boxed(np, b)), expected if b.ndim > 1 else expected[..., 0], 1e-11)


@MAPS
def test_stacks_are_taken_matrix_by_matrix(np, name):
    a = np.array([[positive(np, 3, 3 * i + j) for i in range(3)] for j in range(2)])
    expected = getattr(np.linalg, name)(a)
    for x in (a, boxed(np, a), a.tolist()):
        found = getattr(linalg, name)(x)
        if name == "slogdet":
            close(np, found.sign, expected[0])
            close(np, found.logabsdet, expected[1])
        else:
            close(np, found, expected)


@pytest.mark.parametrize("ord", [None, 0, 1, 2, 3, 2.5, -1, math.inf, -math.inf])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norms_of_vectors_are_numpys(np, ord, keepdims):
    x = np.random.default_rng(2).normal(size=(3, 4, 2))
    x[0, 1, 0] = 0.0 if ord != -1 else 1.0
    for axis in (0, 1, -1):
        expected = np.linalg.norm(x, ord, axis, keepdims)
        close(np, linalg.norm(x, ord, axis, keepdims), expected)
        close(np, linalg.norm(boxed(np, x), ord, axis, keepdims), expected)
    close(np, linalg.norm(x[0, :, 1], ord), np.linalg.norm(x[0, :, 1], ord))


@pytest.mark.parametrize("ord", [None, "fro", 1, -1, math.inf, -math.inf])
def test_norms_of_matrices_are_numpys(np, ord):
    x = np.random.default_rng(3).normal(size=(3, 4, 2))
    for axis in ((0, 1), (2, 0), (-1, 1)):
        for keepdims in (False, True):
            close(np, linalg.norm(boxed(np, x), ord, axis, keepdims), np.linalg.norm(x, ord, axis, keepdims))
    close(np, linalg.norm(x[0].tolist(), ord), np.linalg.norm(x[0], ord))


def test_a_norm_without_order_and_axis_is_of_all(np):
    x = np.arange(24.0).reshape(2, 3, 4)
    close(np, linalg.norm(x), np.linalg.norm(x))
    assert linalg.norm(x, keepdims=True).shape == (1, 1, 1)
    assert linalg.norm([3, 4]) == 5.0
    assert linalg.norm(-3.0) == 3.0
    assert linalg.norm([]) == linalg.norm([], math.inf) == linalg.norm([], 1) == 0.0


def test_empty_matrices_are_numpys(np):
    empty = np.zeros((0, 0))
    assert (linalg.det(empty), linalg.inv(empty).shape, linalg.cholesky(empty).shape) == (1.0, (0, 0), (0, 0))
    assert linalg.slogdet(empty) == (1.0, 0.0)
    assert linalg.solve(np.eye(2), np.zeros((2, 0))).shape == (2, 0)
    assert linalg.inv(np.zeros((0, 3, 3))).shape == (0, 3, 3)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.floats(-4, 4), min_size=n * n + n, max_size=n * n + n)))
def test_a_solution_solves(numbers):
    n = round((math.sqrt(4 * len(numbers) + 1) - 1) / 2)
    a = [numbers[i * n : i * n + n] for i in range(n)]
    for i in range(n):
        a[i][i] += 25.0  # the diagonal dominates
    b = numbers[n * n :]
    x = linalg.solve(values(a), leaves(b))
    assert data(x) == linalg.solve(a, b)
    for row, expected in zip(a, b):
        assert math.fsum(p * v.data for p, v in zip(row, x)) == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert linalg.det(values(a)).data == linalg.det(a) != 0.0


# what comes, what goes


def test_lists_give_lists_and_arrays_give_arrays(np):
    a = [[2.0, 1.0], [1.0, 3.0]]
    assert linalg.inv(np.array(a)).dtype == np.float64
    assert linalg.inv(np.array(values(a), dtype=object)).dtype == object
    assert isinstance(linalg.inv(a), list) and isinstance(linalg.inv(a)[0], list)
    assert linalg.inv(tuple(map(tuple, a))) == linalg.inv(a)
    assert type(linalg.solve(a, np.ones(2))) is np.ndarray
    assert linalg.inv([np.array(row) for row in a]) == linalg.inv(a)


def test_one_value_among_numbers_makes_all_values():
    a = [[Value(2.0), 0], [0.0, 3.0]]
    assert [data(row) for row in linalg.inv(a)] == [[0.5, 0.0], [0.0, 1 / 3]]
    assert [data(row) for row in linalg.cholesky([[Value(4.0), 0.0], [0.0, 9.0]])] == [[2.0, 0.0], [0.0, 3.0]]
    assert data(linalg.solve([[2.0, 0.0], [0.0, 4.0]], [1.0, Value(1.0)])) == [0.5, 0.25]


def test_numpy_is_not_imported_for_lists():
    code = "import sys; from tapegrad import linalg, Value; linalg.inv([[Value(2.0)]]); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_arguments_are_left_as_they_are():
    a, b = matrix(4), matrix(4, 2, 1)
    twins = [row[:] for row in a], [row[:] for row in b]
    linalg.solve(a, b), linalg.inv(a), linalg.det(a)
    assert (a, b) == twins


# slopes


def test_the_slope_of_a_determinant_is_the_adjugate(np):
    a = matrix(5)
    v = values(a)
    linalg.det(v).backward()
    close(np, [grads(row) for row in v], np.linalg.det(a) * np.linalg.inv(a).T)


def cofactors(np, a):
    n, a = len(a), np.array(a, dtype=float)
    return [
        [(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) for j in range(n)] for i in range(n)
    ]


@pytest.mark.parametrize(
    "a",
    [
        [[0.0]],
        [[1, 2], [2, 4]],
        [[0, 1], [0, 2]],
        [[0, 0], [1, 2]],
        [[0, 0, 1], [0, 0, 2], [3, 4, 5]],
        [[0, 0, 2], [0, 3, 1], [0, 5, 7]],
        [[2, 0, 2], [4, 0, 1], [1, 0, 7]],
        [[0, 1, 2, 3], [0, 4, 5, 6], [0, 7, 8, 8], [0, 1, 1, 5]],
        [[0, 0], [0, 0]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    ],
    ids=str,
)
def test_it_is_so_at_singular_matrices_too(np, a):
    v = values(a)
    d = linalg.det(v)
    d.backward()
    assert d.data == 0.0
    assert np.array([grads(row) for row in v]) == pytest.approx(np.array(cofactors(np, a)), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "a",
    [
        [[0, 0], [0, 0]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[1, 2, 0, 1], [2, 4, 0, 2], [1, 0, 1, 0], [2, 2, 1, 1]],
        [[2.0, 1.0], [1.0, 3.0]],
    ],
    ids=str,
)
def test_second_derivatives_of_a_determinant_are_minors(np, a):
    """It is linear in every element, and so they are mixed differences."""
    a = np.array(a, dtype=float)
    n, units = len(a), np.eye(a.size).reshape(-1, *a.shape)
    det = np.linalg.det
    expected = [det(a + e + f) - det(a + e) - det(a + f) + det(a) if e is not f else 0.0 for e in units for f in units]
    for found in (tapegrad.hessian(linalg.det)(a), record(linalg.det, a).hessian(a)):
        close(np, found, np.array(expected).reshape(n, n, n, n), 1e-12)


def test_a_determinant_has_derivatives_of_any_order():
    def f(t):
        return linalg.det([[t, 0.0, t], [0.0, t, 0.0], [t, 0.0, 2 * t]])  # t ** 3

    assert tapegrad.grad(tapegrad.grad(tapegrad.grad(f)))(0.0) == tapegrad.grad(tapegrad.hessian(f))(0.0) == 6.0
    assert linalg.det([[0.0] * 200] * 200) == 0.0 and tapegrad.grad(linalg.det)([[0.0] * 9] * 9) == [[0.0] * 9] * 9


def test_the_slope_of_the_logarithm_is_the_inverse(np):
    a = matrix(5, seed=4)
    v = values(a)
    linalg.slogdet(v).logabsdet.backward()
    close(np, [grads(row) for row in v], np.linalg.inv(a).T, 1e-11)


def test_the_slope_of_a_solution_is_that_of_the_adjoint_system(np):
    a, b = np.array(matrix(4)), np.array(matrix(4, 1, 1))[:, 0]
    va, vb, weights = boxed(np, a), boxed(np, b), np.array([1.0, -2.0, 3.0, 0.5])
    (linalg.solve(va, vb) @ weights).backward()
    adjoint = np.linalg.solve(a.T, weights)
    close(np, grads(vb), adjoint, 1e-11)
    close(np, grads(va), -np.outer(adjoint, np.linalg.solve(a, b)), 1e-11)


@pytest.mark.parametrize(
    "f",
    [
        lambda a: tapegrad.sum(x * (k + 1) for k, row in enumerate(linalg.inv(a)) for x in row),
        lambda a: tapegrad.sum(x * x for x in linalg.solve(a, [1.0, 2.0, 3.0])),
        lambda a: tapegrad.sum(
            x * (k + 1) for k, row in enumerate(linalg.cholesky(a, upper=True)) for x in row
        ),
        lambda a: linalg.norm(a, 1) + linalg.norm(a, "fro") + linalg.norm(a, -math.inf),
        lambda a: tapegrad.sum(linalg.norm(a, 3, 0)) + linalg.norm(a[1], math.inf),
    ],
)
def test_slopes_are_central_differences(f):
    a = [[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 5.0]]
    check_grads(f, a)


def test_a_norm_at_zero_has_no_slope():
    for ord in (None, 2, 3):
        x = leaves([0.0, 0.0])
        y = linalg.norm(x, ord)
        y.backward()
        assert (y.data, grads(x)) == (0.0, [0.0, 0.0])
        of = record(lambda x, ord=ord: linalg.norm(x, ord), [0.0, 0.0])
        assert of.hessian([0.0, 0.0]) == [[0.0, 0.0], [0.0, 0.0]] and of.grad([3e-200, 4e-200]) == [0.0, 0.0]


def test_a_norm_of_even_order_bends_as_its_powers():
    assert tapegrad.grad(tapegrad.grad(tapegrad.hessian(lambda x: linalg.norm([x, 1.0], 4))))(0.0) == 6.0


# programs


def test_a_recorded_solution_is_replayed_with_the_same_bits():
    a, b = matrix(4), [row[0] for row in matrix(4, 1, 1)]
    program = record(lambda a, b: linalg.solve(a, b), a, b)
    other = [[x * 1.25 + 0.001 for x in row] for row in a]
    assert program(other, b) == linalg.solve(other, b)


def test_another_pivot_is_another_branch():
    program = record(linalg.det, [[3.0, 1.0], [1.0, 2.0]])
    assert program([[4.0, 1.0], [-3.0, 2.0]]) == 11.0
    with pytest.raises(BranchChanged):
        program([[1.0, 1.0], [3.0, 2.0]])
    both = record(linalg.det, [[3.0, 1.0], [1.0, 2.0]], on_branch="record")
    assert both([[1.0, 1.0], [4.0, 2.0]]) == -2.0
    assert both.grad([[1.0, 1.0], [4.0, 2.0]]) == [[2.0, -4.0], [-1.0, 1.0]]


def test_a_replay_sees_that_a_matrix_is_no_longer_positive():
    program = record(linalg.cholesky, [[4.0, 0.0], [1.0, 3.0]])
    with pytest.raises(BranchChanged):
        program([[-4.0, 0.0], [1.0, 3.0]])


def test_a_gaussian_process_learns_its_width():
    xs = [0.0, 0.5, 1.1, 1.7, 2.2, 3.0]
    ys = [math.sin(2 * x) for x in xs]

    def unlikelihood(width):
        a = [[(-((p - q) ** 2) / (2 * width * width)).exp() + (1e-4 if p == q else 0.0) for q in xs] for p in xs]
        L = linalg.cholesky(a)
        z = linalg.solve(L, ys)
        return 0.5 * tapegrad.dot(z, z) + tapegrad.sum(L[i][i].log() for i in range(len(xs)))

    program, width = record(unlikelihood, 0.5, on_branch="record"), 0.5
    first, _ = program.value_and_grad(width)
    for _ in range(100):
        last, slope = program.value_and_grad(width)
        width -= 0.01 * max(-5.0, min(5.0, slope))
    assert last < first - 1.0 and abs(slope) < 1e-6


# refusals


@pytest.mark.parametrize("a", [[[0.0]], [[1.0, 2.0], [2.0, 4.0]], [[0.0, 1.0], [0.0, 2.0]]])
def test_singular_matrices_are_refused_as_by_numpy(np, a):
    for x in (a, values(a), np.array(a)):
        with pytest.raises(LinAlgError, match="singular"):
            linalg.inv(x)
        with pytest.raises(LinAlgError, match="singular"):
            linalg.solve(x, [1.0] * len(a))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.inv(a)
    assert linalg.slogdet(a) == tuple(np.linalg.slogdet(a)) == (0.0, -math.inf)
    assert linalg.slogdet(values(a)).logabsdet.data == -math.inf


def test_the_error_is_a_value_error_as_numpys(np):
    assert LinAlgError.__mro__[1] is np.linalg.LinAlgError.__mro__[1] is ValueError


@pytest.mark.parametrize("a", [[[0.0]], [[-1.0]], [[1.0, 2.0], [2.0, 1.0]], [[math.nan]]])
def test_what_is_not_positive_definite_has_no_factor(a):
    for x in (a, values(a)):
        with pytest.raises(LinAlgError, match="positive definite"):
            linalg.cholesky(x)


@MAPS
@pytest.mark.parametrize("a", [3.0, [1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], []])
def test_only_square_matrices_are_taken(np, name, a):
    with pytest.raises(LinAlgError, match=r"this takes a (square )?matrix"):
        getattr(linalg, name)(a)
    with pytest.raises(np.linalg.LinAlgError):
        getattr(np.linalg, name)(a)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linalg.solve([[1.0]], [1.0, 2.0]), ValueError, r"a is 1 x 1, but b has the shape \(2,\)"),
        (lambda: linalg.solve([[1.0]], [[1.0], [2.0]]), ValueError, r"b has the shape \(2, 1\)"),
        (lambda: linalg.solve([[1.0]], 1.0), ValueError, r"b has the shape \(\)"),
        (lambda: linalg.solve([[[1.0]]] * 2, [[[1.0]]] * 3), ValueError, "broadcast"),
        (lambda: linalg.inv([[1.0, 2.0], [3.0]]), ValueError, "same length"),
        (lambda: linalg.inv([[1.0, 2.0], 3.0]), ValueError, "same length"),
        (lambda: linalg.det([["1"]]), TypeError, "'str'"),
        (lambda: linalg.det([[1j]]), TypeError, "'complex'"),
        (lambda: linalg.det([[None]]), TypeError, "'NoneType'"),
        (lambda: linalg.det([[10**400]]), OverflowError, "too large"),
        (lambda: linalg.norm([1.0], axis=1), ValueError, "axis 1 of 1"),
        (lambda: linalg.norm([[1.0]], axis=(0, -2)), ValueError, "twice"),
        (lambda: linalg.norm([[1.0]], 2), ValueError, "singular values"),
        (lambda: linalg.norm([[1.0]], 3), ValueError, "no ord 3"),
        (lambda: linalg.norm([1.0], "fro"), ValueError, "'fro'"),
        (lambda: linalg.norm([], -math.inf), ValueError, "ord -inf of nothing"),
        (lambda: linalg.norm([], -1), ZeroDivisionError, "negative power"),
        (lambda: linalg.norm([[[1.0]]], 1), ValueError, "3 dimensions"),
    ],
)
def test_a_refusal_says_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_data_that_were_written_count():
    v = values([[1.0, 2.0], [3.0, 4.0]])
    set_data(v[0], [5.0, 6.0])
    assert linalg.det(v).data == linalg.det([[5.0, 6.0], [3.0, 4.0]])


def test_the_module_is_found_by_name():
    assert "linalg" in tapegrad.__all__ and tapegrad.linalg is linalg
    assert all(getattr(linalg, name).__doc__ for name in linalg.__all__)
