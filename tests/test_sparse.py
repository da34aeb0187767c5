"""Sparse Jacobians and Hessians: patterns, values against the dense ones and CasADi's, colourings, paths, what is typed
wrongly, and SciPy's solvers with them."""

from __future__ import annotations

import copy
import itertools
import math
import pathlib
import pickle
import random
import re
import sys
import threading
import warnings
from array import array

import pytest
from cutest import PROBLEMS
from hypothesis import given, reject
from hypothesis import strategies as st
from tapegrad._core import ffi, lib
from test_gradient import MANY, ORDINARY, ROWS

import tapegrad.sparse
from tapegrad import BranchChanged, Value, load, record
from tapegrad.sparse.derivation import Asked, Derivation, derive
from tapegrad.sparse.pattern import HAS_NUMPY, INDEX, Pattern
from tapegrad.sparse.printing import picture

np = pytest.importorskip("numpy") if HAS_NUMPY else None
needs_numpy = pytest.mark.skipif(not HAS_NUMPY, reason="NumPy is not installed")


def close(got, expected, rel=1e-12):
    same = got == expected or (got != got and expected != expected)
    return same or abs(got - expected) <= rel * (1.0 + abs(expected))


def flat(x):
    """The numbers of nested lists and arrays."""
    if hasattr(x, "tolist"):
        x = x.tolist()
    return [y for item in x for y in flat(item)] if isinstance(x, (list, tuple)) else [x]


def entries(matrix, values):
    """By place."""
    return dict(zip(zip(map(int, matrix.rows), map(int, matrix.cols)), flat(values)))


def agree(matrix, dense, *args):
    """Whether a sparse matrix, and its program, are the dense one, and have all that is not 0 there."""
    m, n = matrix.shape
    dense = flat(dense)
    assert len(dense) == m * n
    for values in (matrix.values(*args), matrix.program(*args)):
        found = entries(matrix, values)
        assert len(found) == matrix.nnz
        for (i, j), expected in zip(itertools.product(range(m), range(n)), dense):
            assert close(found.get((i, j), 0.0), expected), (i, j, found.get((i, j)), expected)
    return True


def other_ways(program, second, argnums=0):
    """The same matrix in every way that the core has, whichever is the cheapest, as programs of one pattern."""
    matrix = program.sparse_hessian(argnums) if second else program.sparse_jacobian(argnums)
    asked, path, most = matrix._asked(), program._recorded.paths[0], 1 << 40
    code = ffi.new("int64_t *")

    def opened():
        return lib.tg_open_nonzeros(path.core, asked.first, asked.size, asked.weights, asked.at, code)

    cores = []
    if second:
        n = asked.size
        edges, probe, colours = opened(), opened(), opened()
        assert lib.tg_hessian_edges(edges, most) == 0
        assert lib.tg_hessian_probe(probe, most) == 0
        pattern = Derivation(probe, asked, path, "", 0).pattern
        rows, cols = (ffi.from_buffer("uint32_t[]", part) for part in (pattern.rows, pattern.cols))
        colour = ffi.new("uint32_t[]", n)
        n_colours = lib.tg_star_colours(n, rows, cols, len(pattern), most, colour)
        assert lib.tg_hessian_colours(colours, colour, n_colours, rows, cols, len(pattern), most, 0) == 0
        lib.tg_close_nonzeros(probe)
        cores = [edges, colours]
    else:
        cores = [opened(), opened()]
        assert lib.tg_jacobian_rows(cores[0], most, 0) == 0
        assert lib.tg_jacobian_columns(cores[1], most, 0) == 0
    found = [Derivation(ffi.gc(core, lib.tg_close_nonzeros), asked, path, "", 0) for core in cores]
    pattern = found[0].pattern.union(found[1].pattern)
    return matrix, pattern, [d.program(pattern) for d in found]


def outputs(trace, inputs):
    """What a trace gives."""
    from tapegrad.program.replay import Feed, Job, zeros

    out, numbers = zeros(trace.core.n_out), array("d", inputs)
    job = Job([Feed(0, len(numbers), numbers)], 0, 1)
    job.out(out, trace.core.n_out)
    job.c.nan_errors = 1
    trace.run(job)
    return list(out)


def all_ways_agree(program, second, x, dense, weights=()):
    matrix, pattern, traces = other_ways(program, second)
    n = matrix.shape[1]
    dense = flat(dense)
    for trace in traces:
        found = dict(zip(zip(pattern.rows, pattern.cols), outputs(trace, [*x, *weights])))
        for k, expected in enumerate(dense):
            assert close(found.get(divmod(k, n), 0.0), expected), (divmod(k, n), trace, expected)


# ---- every row of the table ----


@pytest.mark.parametrize("name", ROWS)
def test_the_hessian_of_a_row_is_the_dense_one(name):
    """In both ways; for that its second partials are read as steps, as the first ones are."""
    seen = 0
    for a, b in itertools.product(ORDINARY, ORDINARY[1:]):
        for f in (lambda x: ROWS[name](x[0], x[1]) * 1.5, lambda x: ROWS[name](x[0], x[0]).sin()):
            try:
                program = record(f, [a, b], on_error="nan")
                dense = flat(program.hessian([a, b]))
            except (ArithmeticError, ValueError):
                continue
            if any(h != h or abs(h) > 1e12 for h in dense):
                continue
            agree(program.sparse_hessian(), dense, [a, b])
            all_ways_agree(program, True, [a, b], dense)
            seen += 1
    assert seen > 4


@pytest.mark.parametrize("name", MANY)
def test_derivatives_of_many_operand_nodes_are_the_dense_ones(name):
    x = [0.3, -0.7, 1.1, 0.4]
    for f in (MANY[name], lambda x: MANY[name]([a.sin() * x[1] for a in x]).exp()):
        program = record(f, x)
        agree(program.sparse_hessian(), program.hessian(x), x)
        all_ways_agree(program, True, x, program.hessian(x))
        agree(program.sparse_jacobian(), program.jacobian(x), x)
        all_ways_agree(program, False, x, program.jacobian(x))


# ---- patterns ----


def places(matrix):
    return set(zip(map(int, matrix.rows), map(int, matrix.cols)))


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: x[0] * x[1], {(0, 1), (1, 0)}),
        (lambda x: x[0] / x[1], {(0, 1), (1, 0), (1, 1)}),
        (lambda x: x[0] * x[0], {(0, 0)}),
        (lambda x: (x[0] + x[1]) * x[2], {(0, 2), (1, 2), (2, 0), (2, 1)}),
        (lambda x: x[0] ** 1 + x[1] ** 2, {(1, 1)}),
        (lambda x: abs(x[0]) + x[1].relu() + x[2].max(x[3]) + x[0].floor(), set()),
        (lambda x: tapegrad.where(x[3], x[0] * x[0], x[1] * x[1]), {(0, 0), (1, 1)}),
        (lambda x: x[0].exp() * 0.0 + x[1] * 3.0 - 2.0, set()),
        (lambda x: tapegrad.dot(x[:2], x[2:]), {(0, 2), (2, 0), (1, 3), (3, 1)}),
        (lambda x: x[0] - x[0] * x[0] + x[0] * x[0], {(0, 0)}),
    ],
)
def test_what_is_linear_has_no_second_derivative(f, expected):
    x = [0.3, 0.4, 0.5, 0.6]
    program = record(f, x)
    matrix = program.sparse_hessian()
    assert places(matrix) <= expected
    agree(matrix, program.hessian(x), x)


def test_a_quotient_of_a_sum_has_an_arrow_of_nonzeros():
    """JuMP counted all pairs of the numerator's variables for years; there are a row, a column and no more."""
    for n, nonzeros in ((5, 9), (10, 19), (50, 99)):
        program = record(lambda x: tapegrad.sum(list(x)) / x[0] + x[0] ** 4, [1.0] * n)
        assert program.sparse_hessian().nnz == nonzeros
        agree(program.sparse_hessian(), program.hessian([0.5] * n), [0.5] * n)


def test_nonzeros_come_row_after_row_and_stay_where_they_are_zero_at_a_point():
    program = record(lambda x: [x[1] * x[0], x[2] * x[2], x[0] + x[2]], [1.0, 2.0, 3.0, 4.0])
    matrix = program.sparse_jacobian()
    assert list(zip(matrix.rows, matrix.cols)) == [(0, 0), (0, 1), (1, 2), (2, 0), (2, 2)]
    assert flat(matrix.values([0.0, 0.0, 0.0, 0.0])) == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert (matrix.shape, matrix.nnz, len(matrix.program([0.0] * 4))) == ((3, 4), 5, 5)


def test_a_hessian_makes_what_is_read_alone():
    """No adjoints of inputs, one bias for all numbers, one product for both slopes of a square."""

    def rosenbrock(x):
        return tapegrad.sum([100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2 for a, b in zip(x, x[1:])])

    program = record(rosenbrock, [0.5] * 9)
    matrix = program.sparse_hessian()
    assert matrix.program.stats["instructions"] == 8 * 8
    for x in (0.0, -0.0, 1e-170, -3.0, 1e70):
        agree(matrix, program.hessian([x, -x] * 4 + [x]), [x, -x] * 4 + [x])


@pytest.mark.parametrize("weight", [0.0, 2.0, -1e-300])
def test_second_derivatives_of_squares_near_zero_and_far_out(weight):
    program = record(lambda x, w: w * (x[0] * x[0]) ** 2 + 3.0 * (x[1] * x[1] * x[0]), [1.0, 1.0], 1.0)
    matrix = program.sparse_hessian()
    for x in ([0.0, 0.0], [1e-200, -0.0], [-1.5, 1e150], [1e75, 0.5]):
        agree(matrix, program.hessian(x, weight), x, weight)


def test_a_matrix_without_nonzeros():
    program = record(lambda x: [x[0].floor(), 2.0], [1.0, 2.0])
    for matrix in (program.sparse_jacobian(), record(lambda x: x[0] - x[1], [1.0, 2.0]).sparse_hessian()):
        assert matrix.nnz == 0 and flat(matrix.values([1.0, 2.0])) == [] == flat(matrix.program([1.0, 2.0]))
        assert "0 nonzeros" in str(matrix)


@pytest.mark.parametrize("of_array", [False, pytest.param(True, marks=needs_numpy)])
def test_trees_and_params_are_laid_out_as_the_dense_ones(of_array):
    w = Value(3.0)
    b = np.array([[1.0, 2.0], [3.0, 4.0]]) if of_array else [[1.0, 2.0], [3.0, 4.0]]

    def f(d, t):
        return {"u": d["a"] * d["b"][0][1] * w, "v": [d["b"][1][0].exp() * t, w * w], "w": d["b"][0]}

    program = record(f, {"a": 1.0, "b": b}, 2.0, params=[w])
    given = {"a": 0.5, "b": b}, 1.5

    def columns(tree):
        return [x for leaf in (tree["a"], tree["b"]) for x in flat(leaf)]

    dense = program.jacobian(*given)
    rows = [dense["u"], *dense["v"]]
    rows = [columns(row) for row in rows]
    if of_array:
        rows += [[dense["w"]["a"][i].item(), *flat(dense["w"]["b"][i])] for i in range(2)]
    else:
        rows += [columns(row) for row in dense["w"]]
    agree(program.sparse_jacobian(), rows, *given)
    w.data = 5.0
    assert flat(program.sparse_jacobian("params").values(*given)) == [1.0, 10.0]
    assert flat(program.sparse_jacobian(1).values(*given)) == pytest.approx([math.exp(3.0)])


def test_a_hessian_of_several_outputs_is_that_of_their_weighed_sum():
    x, w = [0.3, 0.4, 0.5, 0.6], [2.0, -3.0, 0.5]
    program = record(lambda x: [x[0] * x[1].sin(), x[2] * x[2] * x[3], x[3].exp()], x)
    scalar = record(lambda x: 2.0 * (x[0] * x[1].sin()) - 3.0 * (x[2] * x[2] * x[3]) + 0.5 * x[3].exp(), x)
    matrix = program.sparse_hessian()
    dense = scalar.hessian(x)
    agree(matrix, dense, x, w)
    assert flat(matrix.values(x, weights=w)) == flat(matrix.values(x, w))
    all_ways_agree(program, True, x, dense, w)
    with pytest.raises(TypeError, match="argument weights is missing"):
        matrix.values(x)
    with pytest.raises(ValueError, match="argument weights is 'list' of 2, but was recorded as a list of 3"):
        matrix.values(x, [1.0, 2.0])
    with pytest.raises(TypeError, match="takes 1 argument, not 2"):
        scalar.sparse_hessian().values(x, w)


def test_a_dense_weighed_hessian():
    program = record(lambda x: [x[0] * x[1], x[0] ** 3 * x[1] ** 2], [1.0, 2.0])
    scalar = record(lambda x: 2.0 * (x[0] * x[1]) - x[0] ** 3 * x[1] ** 2, [1.0, 2.0])
    matrix = program.sparse_hessian()
    assert matrix.how == "dense"
    agree(matrix, scalar.hessian([1.0, 2.0]), [1.0, 2.0], [2.0, -1.0])


def test_one_that_is_mostly_nonzero_gives_those_of_its_pattern():
    x = [0.1 * k for k in range(8)]
    program = record(lambda x: [tapegrad.sum(list(x[: i + 1])) ** 2 for i in range(8)], x)
    matrix = program.sparse_jacobian()
    assert matrix.how == "dense" and matrix.nnz == 36
    agree(matrix, program.jacobian(x), x)


def test_sums_of_few_inputs_many_times():
    """Whose operands are in a pool that is longer than all nodes together."""
    x = [0.5, 2.0]
    program = record(lambda x: [tapegrad.sum([x[k % 2] for k in range(m)]) ** 3 for m in (3001, 3003)], x)
    matrix, scalar = program.sparse_hessian(), record(lambda x: tapegrad.sum(list(program(x))), x)
    agree(program.sparse_jacobian(), program.jacobian(x), x)
    agree(matrix, scalar.hessian(x), x, [1.0, 1.0])
    all_ways_agree(program, True, x, scalar.hessian(x), [1.0, 1.0])


def test_a_dense_matrix_says_so_and_has_a_program_all_the_same():
    x = [0.1 * k for k in range(8)]
    program = record(lambda x: tapegrad.sum(list(x)) ** 3, x)
    matrix = program.sparse_hessian()
    assert matrix.how == "dense" and "dense" in str(matrix) and matrix.nnz == 64
    agree(matrix, program.hessian(x), x)


# ---- which way is taken ----


def test_outputs_that_share_a_long_history_are_derived_column_by_column():
    def f(x):
        y = x[0]
        for _ in range(200):
            y = y.sin() + 0.5
        return [y * (k + 1.0) + x[1 + k] ** 2 for k in range(40)]

    x = [0.1 * k for k in range(41)]
    program = record(f, x)
    matrix = program.sparse_jacobian()
    assert "column" in matrix.how and matrix.nnz == 80
    agree(matrix, program.jacobian(x), x)


def shooting(n, steps):
    """Multiple shooting of a pendulum: n segments of some steps, their ends to meet their next beginnings."""

    def f(z):
        gaps = []
        for k in range(n):
            a, v, u = z[3 * k : 3 * k + 3]
            for _ in range(steps):
                a, v = a + 0.01 * v, v + 0.01 * (u - a.sin() - 0.1 * v * v)
            if k + 1 < n:
                gaps += [a - z[3 * k + 3], v - z[3 * k + 4]]
        return gaps

    return f


def test_a_long_history_that_meets_many_inputs_takes_colours():
    """Edge pushing would push an edge to each of the inputs down all of it."""

    def f(x):
        y = x[0]
        for _ in range(150):
            y = y.sin() + 0.5
        return tapegrad.sum([y * a.exp() for a in x[1:]])

    x = [0.02 * k for k in range(60)]
    program = record(f, x)
    matrix = program.sparse_hessian()
    assert matrix.how == "a tangent and a sweep for each of 2 colours" and matrix.nnz == 3 * 60 - 2
    agree(matrix, program.hessian(x), x)


def test_multiple_shooting():
    z = [0.1 * (k % 7) for k in range(36)]
    program = record(shooting(12, 40), z)
    matrix = program.sparse_hessian()
    w = [1.0 + 0.1 * k for k in range(22)]

    def weighed(z):
        return tapegrad.dot(shooting(12, 40)(z), w)

    agree(matrix, record(weighed, z).hessian(z), z, w)
    agree(program.sparse_jacobian(), program.jacobian(z), z)


def test_single_shooting_is_triangular():
    def f(u):
        a, v, found = 0.1, 0.0, []
        for k in range(len(u)):
            a, v = a + 0.1 * v, v + 0.1 * (u[k] - (a.sin() if k > 1 else 0.1))
            found.append(v)
        return found

    u = [0.1] * 30
    program = record(f, u)
    matrix = program.sparse_jacobian()
    assert all(i >= j for i, j in places(matrix))
    agree(matrix, program.jacobian(u), u)


def bundle(cameras, points, seed=1):
    """The squares of reprojection errors: each point is seen by some cameras."""
    chosen = random.Random(seed)
    seen = [(c, p) for p in range(points) for c in chosen.sample(range(cameras), 3)]

    def f(z):
        total = []
        for c, p in seen:
            r, t, focal = z[6 * c : 6 * c + 3], z[6 * c + 3 : 6 * c + 5], z[6 * c + 5]
            x, y, d = z[6 * cameras + 3 * p : 6 * cameras + 3 * p + 3]
            u, v, s = x + r[1] * d - r[2] * y + t[0], y + r[2] * x - r[0] * d + t[1], d + r[0] * y - r[1] * x + 4.0
            total += [(focal * u / s - 0.1) ** 2, (focal * v / s + 0.2) ** 2]
        return tapegrad.sum(total)

    return f, 6 * cameras + 3 * points


def test_bundle_adjustment_with_twelve_cameras():
    f, n = bundle(12, 40)
    z = [0.3 + 0.01 * (k % 13) for k in range(n)]
    program = record(f, z)
    matrix = program.sparse_hessian()
    assert matrix.how == "edge pushing"
    agree(matrix, program.hessian(z), z)


def test_a_band_with_five_dense_rows(sized):
    """CasADi's open problem 2454."""
    n = sized(2000, 100_000)

    def f(x):
        rows = [x[k - 1] * x[k] + x[k + 1].sin() for k in range(1, len(x) - 1)]
        return rows + [tapegrad.dot(x, x) * (1.0 + k) for k in range(5)]

    x = [0.001 * (k % 997) for k in range(n)]
    program = record(f, x)
    matrix = program.sparse_jacobian()
    assert matrix.nnz == 3 * (n - 2) + 5 * n
    found = entries(matrix, matrix.values(x))
    assert all(found[n - 2 + k, j] == 2.0 * x[j] * (1.0 + k) for k in range(5) for j in range(0, n, 97))
    assert all(found[k - 1, k] == x[k - 1] for k in range(1, n - 1, 89))


def test_work_grows_with_the_program():
    def links(n):
        f = PROBLEMS["ROSENBR"].f
        program = record(lambda x: tapegrad.sum([f(x[k : k + 2]) for k in range(n - 1)]), [0.5] * n)
        found = derive(program._recorded.paths[0], Asked(0, n, True))
        assert len(found.pattern) == 3 * n - 2
        return found.links

    assert links(4000) < 4.05 * links(1000)


# ---- problems of the collection ----


def test_there_are_sixty_problems():
    assert len(PROBLEMS) >= 60


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_of_the_collection(name):
    p = PROBLEMS[name]
    program = record(p.f, p.start)
    matrix = program.sparse_hessian()
    if p.nonzeros is not None:
        assert matrix.nnz == p.nonzeros
    numbers = random.Random(name)
    for _ in range(2):
        x = [0.7 * a + numbers.uniform(0.05, 0.4) for a in p.start]
        dense = program.hessian(x)
        agree(matrix, dense, x)
        all_ways_agree(program, True, x, dense)
    if p.least is not None:
        assert close(program(p.least), p.optimum, 1e-9)
        assert max(map(abs, program.grad(p.least))) < 1e-6


@needs_numpy
@pytest.mark.parametrize("name", PROBLEMS)
def test_patterns_and_values_are_casadis(name):
    casadi = pytest.importorskip("casadi")
    p = PROBLEMS[name]
    program = record(p.f, p.start)
    matrix = program.sparse_hessian()
    x = casadi.SX.sym("x", len(p.start))
    with pytest.MonkeyPatch.context() as patch:
        for function in ("exp", "sin", "cos", "tan"):
            patch.setattr("tapegrad.math." + function, getattr(casadi, function))
        hessian = casadi.Function("h", [x], [casadi.hessian(p.f(casadi.vertsplit(x)), x)[0]])
    at = [0.7 * a + 0.1 for a in p.start]
    theirs = hessian(at)
    found = entries(matrix, matrix.values(at))
    rows, cols = theirs.sparsity().get_triplet()
    assert set(found) == set(zip(rows, cols))
    for place, expected in zip(zip(rows, cols), theirs.nonzeros()):
        assert close(found.get(place, 0.0), expected, 1e-9)


# ---- colourings ----


def star_coloured(n, places, colour):
    """Whether neighbours differ, and no path of four nodes has two colours."""
    near = {v: {j for i, j in places if i == v and j != v} for v in range(n)}
    if any(colour[i] == colour[j] for i, j in places if i != j):
        return False
    return not any(
        colour[a] == colour[c] and colour[b] == colour[d]
        for b in near for c in near[b] for a in near[b] - {c} for d in near[c] - {a, b}
    )  # fmt: skip


@given(st.integers(1, 14), st.data())
def test_colours_are_of_stars(n, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40))
    places = sorted({p for i, j in pairs for p in ((i, j), (j, i))})
    rows, cols = (array(INDEX, [p[k] for p in places]) for k in (0, 1))
    colour = ffi.new("uint32_t[]", n)
    r, c = ffi.from_buffer("uint32_t[]", rows), ffi.from_buffer("uint32_t[]", cols)
    found = lib.tg_star_colours(n, r, c, len(places), 1 << 40, colour)
    assert max(colour) + 1 == found <= n
    assert star_coloured(n, places, list(colour))


def test_an_arrow_has_two_colours_and_a_band_three():
    for places, expected in (
        ([(i, j) for i in range(50) for j in range(50) if i == j or 49 in (i, j)], 2),
        ([(i, j) for i in range(50) for j in range(50) if abs(i - j) <= 1], 3),
    ):
        rows, cols = (array(INDEX, [p[k] for p in places]) for k in (0, 1))
        colour = ffi.new("uint32_t[]", 50)
        r, c = ffi.from_buffer("uint32_t[]", rows), ffi.from_buffer("uint32_t[]", cols)
        assert lib.tg_star_colours(50, r, c, len(places), 1 << 40, colour) == expected
        assert lib.tg_star_colours(50, r, c, len(places), 0, colour) == 0  # no budget


# ---- random functions ----

UNARY = [lambda a: a.sin(), lambda a: a * a, lambda a: a**3, lambda a: -a, lambda a: a.exp() * 0.1, lambda a: a.tanh()]
UNARY += [lambda a: a * 0.0 + 1.0, lambda a: abs(a), lambda a: a.relu()]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / (b * b + 1.5)]
BINARY += [lambda a, b: a.max(b), lambda a, b: tapegrad.where(a.greater(b), a * b, b), lambda a, b: a.hypot(b)]
BINARY += [lambda a, b: tapegrad.dot([a, b, a], [b, b, a]), lambda a, b: tapegrad.logsumexp([a, b, a])]


@st.composite
def functions(draw):
    """A function of n numbers: operations on operands drawn from all that is there, and which of it it returns."""
    n = draw(st.integers(1, 6))
    steps = draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200)), max_size=14))
    returned = draw(st.lists(st.integers(0, 200), min_size=1, max_size=6))

    def f(x):
        found = list(x)
        for op, i, j in steps:
            k, a, b = op % (len(UNARY) + len(BINARY)), found[i % len(found)], found[j % len(found)]
            found.append(UNARY[k](a) if k < len(UNARY) else BINARY[k - len(UNARY)](a, b))
        return [found[k % len(found)] for k in returned]

    numbers = st.floats(-2.0, 2.0).map(lambda x: round(x, 3))
    points = [draw(st.lists(numbers, min_size=n, max_size=n)) for _ in range(2)]
    for x in points:
        try:
            f([Value(number) for number in x])
        except OverflowError:  # of an exponential, or a power
            reject()
    return f, *points


@given(functions())
def test_jacobians_of_random_functions_are_the_dense_ones(drawn):
    f, x, other = drawn
    program = record(f, x)
    matrix = program.sparse_jacobian()
    for at in (x, other):
        agree(matrix, program.jacobian(at), at)
        all_ways_agree(program, False, at, program.jacobian(at))


@given(functions(), st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6))
def test_hessians_of_random_functions_are_the_dense_ones(drawn, weights):
    f, x, other = drawn
    program = record(f, x)
    w = weights[: program.stats["outputs"]]
    matrix, scalar = program.sparse_hessian(), record(lambda x: tapegrad.dot(f(x), w), x)
    for at in (x, other):
        dense = flat(scalar.hessian(at))
        if all(h == h and abs(h) < 1e9 for h in dense):
            agree(matrix, dense, at, w)
            all_ways_agree(program, True, at, dense, w)


# ---- paths ----


def branching(x):
    rest = [x[3]] * 4
    if x[0] > 0.0:
        return [x[0] * x[1], x[2] * x[2], x[3], *rest]
    try:
        return [x[0] * x[3], x[2] / x[3], x[1].exp(), *rest]
    except ZeroDivisionError:
        return [x[1], x[1] * x[0], x[2], *rest]


POINTS = [1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 0.0]


def test_a_known_path_is_in_the_pattern_from_the_start():
    program = record(branching, POINTS[0], on_branch="record")
    for x in POINTS:
        program(x)
    matrix = program.sparse_jacobian()
    for x in POINTS:
        agree(matrix, program.jacobian(x), x)


def test_a_new_path_makes_it_grow_with_a_warning():
    program = record(branching, POINTS[0], on_branch="record")
    matrix = program.sparse_jacobian()
    before = matrix.program
    assert matrix.nnz == 8
    with pytest.warns(RuntimeWarning, match="the Jacobian has 11 now, not 8"):
        matrix.values(POINTS[1])
    with pytest.warns(RuntimeWarning, match="other nonzeros"):
        matrix.values(POINTS[2])
    for x in POINTS:
        agree(matrix, program.jacobian(x), x)
    with pytest.raises(RuntimeError, match="call the matrix there first"):
        before(POINTS[2])
    assert flat(before(POINTS[0])) == [2.0, 1.0, 6.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_a_matrix_that_grows_past_half_is_dense_from_there_on():
    program = record(lambda x: branching(x)[:3], POINTS[0], on_branch="record")
    matrix = program.sparse_jacobian()
    assert matrix.nnz == 4
    with pytest.warns(RuntimeWarning, match="the Jacobian has 12 now, not 4"):
        matrix.values(POINTS[1])
    for x in POINTS:
        agree(matrix, program.jacobian(x), x)


def test_a_path_beyond_max_paths_is_in_the_pattern_too():
    program = record(branching, POINTS[0], on_branch="record", max_paths=1)
    matrix = program.sparse_jacobian()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for x in POINTS * 2:
            agree(matrix, program.jacobian(x), x)


def test_without_recording_another_branch_is_refused_as_the_program_refuses_it():
    program = record(branching, POINTS[0])
    with pytest.raises(BranchChanged) as expected:
        program(POINTS[1])
    for call, args in (program.sparse_jacobian().values, ()), (program.sparse_hessian().program, ([1.0] * 7,)):
        with pytest.raises(BranchChanged) as raised:
            call(POINTS[1], *args)
        assert str(raised.value) == str(expected.value)


def test_what_the_function_refuses_its_derivative_refuses():
    program = record(lambda x: [x[0].log() * x[1], x[1]], [1.0, 2.0])
    with pytest.raises(ValueError, match="math domain error"):
        program.sparse_jacobian().values([-1.0, 2.0])
    lenient = record(lambda x: [x[0].log() * x[1], x[1] * x[2], x[2]], [1.0, 2.0, 1.0], on_error="nan")
    found = flat(lenient.sparse_jacobian().values([-1.0, 2.0, 3.0]))
    assert found[1] != found[1] and found[2:] == [3.0, 2.0, 1.0]


def test_infinite_slopes_are_those_of_the_dense_jacobian():
    program = record(lambda x: [x[0].sqrt() * x[1], x[1] * x[2], x[2]], [1.0, 2.0, 3.0])
    matrix = program.sparse_jacobian()
    for x in ([0.0, 2.0, 3.0], [0.0, 0.0, 3.0]):
        agree(matrix, program.jacobian(x), x)


def test_paths_go_on_where_two_operations_that_can_refuse_became_equal():
    """A dot and the sum of a product are one node when they are drafted again, but each can stop a replay."""

    def f(x):
        inverse = [1.0 / tapegrad.dot([x[0]], [x[1]], x[2]), 1.0 / (x[2] + x[0] * x[1])]
        try:
            last = x[3].log()
        except ValueError:
            last = x[4] * x[3]
        return [*inverse, last, x[0], x[1], x[2], x[3]]

    x, other = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, -4.0, 5.0]
    program = record(f, x, on_branch="record")
    program(other)
    matrix = program.sparse_jacobian()
    for at in (x, other):
        agree(matrix, program.jacobian(at), at)
    with pytest.raises(ZeroDivisionError):
        matrix.values([1.0, 2.0, -2.0, 4.0, 5.0])


def test_a_slope_that_is_an_infinite_number_passes_nothing_on_where_nothing_comes():
    program = record(lambda x, w: [w * (x[0] * math.inf), x[1] * w, x[2]], [1.0, 2.0, 3.0], 2.0)
    matrix = program.sparse_jacobian()
    for w in (0.0, 1.0):
        agree(matrix, program.jacobian([1.0, 2.0, 3.0], w), [1.0, 2.0, 3.0], w)
    assert flat(matrix.values([1.0, 2.0, 3.0], 0.0))[0] == 0.0


@pytest.mark.parametrize("k", [0, 5])
def test_nan_and_infinite_weights_stay_with_their_outputs(k):
    program = record(lambda x: [x[2 * i] ** 3 * x[2 * i + 1] for i in range(6)], [1.0] * 12)
    matrix, w = program.sparse_hessian(), [1.0] * 6
    for weight in (math.nan, math.inf, 0.0):
        w[k] = weight
        found = entries(matrix, matrix.values([1.0] * 12, w))
        here = {place: h for place, h in found.items() if place[0] // 2 == k}
        assert len(found) == 18 and all(repr(h) == repr(weight) for h in here.values())
        assert all(h in (3.0, 6.0) for place, h in found.items() if place not in here)


# ---- the program of the nonzeros ----


def test_one_without_nonzeros_is_saved_and_mapped(tmp_path):
    """Hessians of linear functions have none."""
    x = [1.0, 2.0]
    program = record(lambda x: [x[0] - x[1], x[1]], x).sparse_hessian().program
    program.save(tmp_path / "none.tg")
    for other in (program, load(tmp_path / "none.tg"), pickle.loads(pickle.dumps(program))):
        assert flat(other(x, [1.0, 1.0])) == [] and other.stats["outputs"] == 0
        assert len(flat(other.map()([x, x], [x, x]))) == 0 == len(other.jacobian(x, x))


def test_it_is_mapped_saved_pickled_copied_and_recorded(tmp_path):
    program = record(branching, POINTS[0], on_branch="record")
    program(POINTS[1])
    matrix = program.sparse_jacobian()
    expected = [flat(matrix.values(x)) for x in POINTS[:2]]
    mapped = matrix.program.map(threads=2)([*POINTS[:2]])
    assert [flat(list(row)) for row in (mapped if HAS_NUMPY else zip(*mapped))] == expected
    matrix.program.save(tmp_path / "nonzeros.tg")
    program = matrix.program
    for other in (load(tmp_path / "nonzeros.tg"), pickle.loads(pickle.dumps(program)), copy.copy(program)):
        assert [flat(other(x)) for x in POINTS[:2]] == expected
    for other in (pickle.loads(pickle.dumps(matrix)), copy.copy(matrix), copy.deepcopy(matrix)):
        assert [flat(other.values(x)) for x in POINTS[:2]] == expected
    third = record(lambda x: matrix.program(x)[0] * x[1], POINTS[0])
    assert third(POINTS[0]) == expected[0][0] * 2.0


def test_native_code_has_its_bits():
    try:
        program = record(PROBLEMS["WOODS"].f, PROBLEMS["WOODS"].start)
        matrix = program.sparse_hessian()
        before = flat(matrix.values(PROBLEMS["WOODS"].start))
        matrix.program.native()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert flat(matrix.values(PROBLEMS["WOODS"].start)) == before


def test_first_nonzero_lines_are_those_of_the_source():
    program = record(lambda x: [x[0].sin() * x[1], x[1], x[2]], [1.0, 2.0, 3.0])
    assert "test_sparse.py" in program.sparse_jacobian().program.listing()


# ---- what is typed wrongly ----


@pytest.mark.parametrize(
    ("argnums", "error", "message"),
    [
        ((0, 1), TypeError, "argnums must be one integer or 'params' here, not (0, 1)"),
        ("params", ValueError, "no params"),
        (2, ValueError, "the program takes 2 arguments"),
        (1.0, TypeError, "argnums must be an integer"),
        (True, TypeError, "argnums must be an integer"),
    ],
)
def test_argnums_name_one_argument(argnums, error, message):
    program = record(lambda x, y: x[0] * y, [1.0, 2.0], 3.0)
    for make in (program.sparse_jacobian, program.sparse_hessian):
        with pytest.raises(error) as raised:
            make(argnums)
        assert message in str(raised.value)


def test_arguments_are_as_they_were_recorded():
    program = record(lambda x: [x[0] * x[1], x[1], x[2]], [1.0, 2.0, 3.0])
    matrix = program.sparse_jacobian()
    for args, error in (([1.0, 2.0],), ValueError), ((1.0,), TypeError), ((), TypeError), (([1.0] * 3, 1.0), TypeError):
        with pytest.raises(error):
            matrix.values(*args)
    with pytest.raises(ValueError, match="format must be one of 'csr', 'csc', 'coo', not 'dense'"):
        matrix([1.0, 2.0, 3.0], format="dense")
    assert flat(matrix.values((1.0, 2.0, 3.0))) == flat(matrix.values([1.0, 2.0, 3.0])) == [2.0, 1.0, 1.0, 1.0]
    assert flat(matrix.values(x=[1.0, 2.0, 3.0])) == [2.0, 1.0, 1.0, 1.0]


# ---- the picture ----


def test_the_picture_has_a_dot_for_each_block_with_a_nonzero():
    rows = array(INDEX, range(8))
    assert picture(Pattern((8, 8), rows, rows)) == "⠑⢄⠀⠀\n⠀⠀⠑⢄"
    large = array(INDEX, range(1000))
    shown = picture(Pattern((1000, 1000), large, large)).splitlines()
    assert len(shown) == 12 and all(len(line) == 24 for line in shown)
    assert picture(Pattern((1, 500), array(INDEX, [0]), array(INDEX, [499])))[-1] != "⠀"


# ---- SciPy ----


@needs_numpy
def test_matrices_are_scipys_in_each_format_and_of_their_own():
    sparse = pytest.importorskip("scipy.sparse")
    program = record(lambda x: [x[0] * x[1], x[2] ** 2, x[0] + x[2], x[1] * 2.0], np.ones(3))
    matrix, x = program.sparse_jacobian(), np.array([1.0, 2.0, 0.0])
    dense = np.asarray(program.jacobian(x))
    for format in ("csr", "csc", "coo"):
        found = matrix(x, format=format)
        assert isinstance(found, getattr(sparse, f"{format}_array")) and found.nnz == 6
        assert (found.toarray() == dense).all()
        found.eliminate_zeros()
        found.data[:] = 0.0
        assert (matrix(x, format=format).toarray() == dense).all()
    assert matrix(x).has_canonical_format


@needs_numpy
def test_without_scipy_all_but_the_matrix_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    matrix = record(lambda x: [x[0] * x[1], x[2], x[2]], [1.0, 2.0, 3.0]).sparse_jacobian()
    assert flat(matrix.values([1.0, 2.0, 3.0])) == [2.0, 1.0, 1.0, 1.0]
    with pytest.raises(ImportError, match=r"pip install 'tapegrad\[sparse\]'"):
        matrix([1.0, 2.0, 3.0])


@needs_numpy
def test_minimize_takes_the_hessian():
    optimize = pytest.importorskip("scipy.optimize")
    p = PROBLEMS["LIARWHD"]
    program = record(p.f, np.array(p.start))
    hessian = program.sparse_hessian()
    for method in ("trust-constr", "Newton-CG"):
        found = optimize.minimize(program, p.start, jac=program.grad, hess=hessian, method=method)
        assert abs(found.fun) < 1e-6


@needs_numpy
def test_a_constraint_takes_jacobian_and_hessian():
    optimize = pytest.importorskip("scipy.optimize")
    n = 12
    objective = record(lambda x: tapegrad.sum([(a - 2.0) ** 2 for a in x]), np.ones(n))
    disks = record(lambda x: np.array([x[k] ** 2 + x[k + 1] ** 2 for k in range(n - 1)]), np.ones(n))
    constraint = optimize.NonlinearConstraint(
        disks, -np.inf, 2.0, jac=disks.sparse_jacobian(), hess=disks.sparse_hessian()
    )
    found = optimize.minimize(
        objective, np.full(n, 0.5), jac=objective.grad, hess=objective.sparse_hessian(), method="trust-constr",
        constraints=[constraint],
    )  # fmt: skip
    assert found.x == pytest.approx(np.ones(n), abs=1e-3)


@needs_numpy
def test_least_squares_takes_the_jacobian():
    optimize = pytest.importorskip("scipy.optimize")

    def residuals(x):
        y = [0.0, *x, 0.0]
        return np.array([(3 - 2 * y[i]) * y[i] - y[i - 1] - 2 * y[i + 1] + 1 for i in range(1, len(y) - 1)])

    program = record(residuals, -np.ones(50))
    matrix = program.sparse_jacobian()
    close_to = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-12}
    found = optimize.least_squares(program, -np.ones(50), jac=matrix, tr_solver="lsmr", **close_to)
    assert abs(found.fun).max() < 1e-8
    root = optimize.root(program, -np.ones(50), jac=lambda x: matrix(x).toarray())
    assert root.success and abs(program(root.x)).max() < 1e-7


@needs_numpy
def test_solve_ivp_takes_the_jacobian_by_the_state():
    integrate = pytest.importorskip("scipy.integrate")
    n = 30

    def heat(t, u):
        left, right = np.append(0.0, u[:-1]), np.append(u[1:], 0.0)
        return (left - 2.0 * u + right) * 900.0 + u * u * t

    program = record(heat, 0.0, np.linspace(0.1, 1.0, n))
    matrix = program.sparse_jacobian(argnums=1)
    assert matrix.nnz == 3 * n - 2
    u = np.sin(np.linspace(0.0, 3.0, n))
    by = {j: integrate.solve_ivp(program, (0.0, 0.1), u, method="BDF", jac=j).y[:, -1] for j in (matrix, None)}
    assert by[matrix] == pytest.approx(by[None], rel=1e-2, abs=1e-6)


# ---- the house ----


def test_every_file_stands_on_earlier_ones_alone():
    folder = pathlib.Path(tapegrad.sparse.__file__).parent
    order = re.search(r"alone: ([\w,\s]+)\.", tapegrad.sparse.__doc__)[1].replace(",", "").split()
    assert sorted(order) == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})
    for k, name in enumerate(order):
        found = re.findall(r"^from \.(\w+) import", (folder / f"{name}.py").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(found) <= set(order[:k]), name


# ---- loops ----


def coupled(x, unroll):
    """Each step takes some of what it is given a state further, that of the whole by a number."""

    def step(s, pair):
        (a, b), (c, d) = s, pair
        return [tapegrad.math.sin(c) * d, a * 0.5], a * b * c

    last, ys = tapegrad.scan(step, [x[0], x[1]], [[a, b] for a, b in zip(x[2:], x[3:])], unroll=unroll)
    return [*last, *ys]


def nested(x, unroll):
    def step(s, z):
        inner, ys = tapegrad.scan(lambda t, w: (t * w * 0.5, t * t), z, [z, 0.5, -0.25], unroll=unroll)
        return s * 0.5, inner * ys[1]

    return tapegrad.scan(step, x[0], list(x[1:]), unroll=unroll)[1]


def forking(x, unroll):
    def step(s, z):
        return s, z * z if z > 0.0 else z * s

    return tapegrad.scan(step, x[0], list(x[1:]), unroll=unroll)[1]


LOOPED = [0.25, -0.5, 0.75, 0.5, -1.25, 1.5, 2.0, -0.75]


@pytest.mark.parametrize("on_branch", ["raise", "record"])
@pytest.mark.parametrize("f", [coupled, nested, forking])
def test_loops_of_a_program_are_written_out(f, on_branch):
    program, written = (
        record(lambda x, unroll=unroll: f(x, unroll), LOOPED, on_branch=on_branch) for unroll in (False, True)
    )
    assert program.stats["loops"] == 1
    w = [0.5 - k for k in range(program.stats["outputs"])]
    weighed = record(lambda x: tapegrad.dot(f(x, False), w), LOOPED, on_branch=on_branch).hessian(LOOPED)
    for ours, theirs, dense, args in (
        (program.sparse_jacobian(), written.sparse_jacobian(), program.jacobian(LOOPED), ()),
        (program.sparse_hessian(), written.sparse_hessian(), weighed, (w,)),
    ):
        agree(ours, dense, LOOPED, *args)
        assert (flat(ours.rows), flat(ours.cols)) == (flat(theirs.rows), flat(theirs.cols))
        assert flat(ours.values(LOOPED, *args)) == flat(theirs.values(LOOPED, *args))
        assert str(ours).endswith("all steps of loops written out")


def test_a_loop_takes_the_paths_that_its_program_takes():
    program = record(lambda x: forking(x, False), LOOPED)  # a step may go both ways, whichever it is
    other = [-x for x in LOOPED]
    matrix = program.sparse_jacobian()
    with pytest.warns(RuntimeWarning, match="other nonzeros"):
        agree(matrix, program.jacobian(other), other)
    agree(matrix, program.jacobian(LOOPED), LOOPED)
    one_way = record(lambda x: forking(x, False), [1.0] * 8)
    for at in ([1.0] * 7 + [-1.0], [math.nan] * 8):
        with pytest.raises(BranchChanged) as expected:
            one_way(at)
        for call, args in (one_way.sparse_jacobian().values, ()), (one_way.sparse_hessian().program, ([1.0] * 7,)):
            with pytest.raises(BranchChanged) as raised:
                call(at, *args)
            assert str(raised.value) == str(expected.value)
    agree(one_way.sparse_jacobian(), one_way.jacobian([2.0] * 8), [2.0] * 8)


def test_a_path_that_turns_out_to_hold_loops_is_written_out():
    def f(x):
        return [x[0] * y for y in (coupled(x, False) if x[0] > 0.0 else x[1:])]

    for first, second in (LOOPED, [-x for x in LOOPED]), ([-x for x in LOOPED], LOOPED):
        program = record(f, first, on_branch="record", max_paths=2)
        matrix = program.sparse_jacobian()
        before = matrix.program
        with pytest.warns(RuntimeWarning, match="other nonzeros"):
            matrix.values(second)
        for x in (first, second):
            agree(matrix, program.jacobian(x), x)
        with pytest.raises(RuntimeError, match="call the matrix there first"):
            before(second)


def looped(x):
    return coupled(x, False)


def test_loops_are_written_out_from_the_function_where_there_is_one(tmp_path, monkeypatch):
    program = record(looped, LOOPED)
    expected = flat(program.sparse_jacobian().values(LOOPED))
    for other in (copy.copy(program), copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert flat(other.sparse_jacobian().values(LOOPED)) == expected
    assert flat(pickle.loads(pickle.dumps(program.sparse_jacobian())).values(LOOPED)) == expected
    around = record(lambda x: program([2.0 * y for y in x]), LOOPED)
    assert around.stats["loops"] == 1
    agree(around.sparse_jacobian(), around.jacobian(LOOPED), LOOPED)
    program.save(tmp_path / "looped")
    with pytest.raises(TypeError, match=r"there is none: a saved program has none.*unroll=True"):
        load(tmp_path / "looped").sparse_jacobian()
    monkeypatch.setattr("tapegrad.sparse.written.MOST", 20)
    with pytest.raises(OverflowError, match=r"made from all of their steps, which are .* more than 20"):
        program.sparse_hessian()


def test_a_pickle_holds_what_it_could_not_make_from_the_function_anew():
    weights = [Value(0.5)]
    anonymous = record(lambda x: [y if y > 0.0 else y * y for y in looped(x)], LOOPED, on_branch="record")
    captured = record(lambda x: [w * y for y in looped(x) for w in weights], LOOPED, params=weights)
    other = [-x for x in LOOPED]
    for program in (anonymous, captured):
        weighed = (program.sparse_hessian(), ([1.0] * program.stats["outputs"],))
        for matrix, args in (program.sparse_jacobian(), ()), weighed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # other nonzeros
                expected = [flat(matrix.values(x, *args)) for x in (LOOPED, other, LOOPED)][1:]
            for back in (pickle.loads(pickle.dumps(matrix)), copy.copy(matrix), copy.deepcopy(matrix)):
                assert [flat(back.values(x, *args)) for x in (other, LOOPED)] == expected
            back = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(matrix))))
            assert flat(back.values(other, *args)) == expected[0]
    one_way = record(lambda x: [y if y > 0.0 else y * y for y in looped(x)], LOOPED, on_branch="record")
    matrix = pickle.loads(pickle.dumps(one_way.sparse_jacobian()))
    with pytest.raises(BranchChanged, match="f, which could be recorded here, is missing: f could not be pickled"):
        matrix.values(other)


def test_params_of_a_program_with_loops():
    weights = [Value(0.5), Value(-1.5)]

    def f(x):
        return tapegrad.scan(lambda s, z, w: (s, tapegrad.math.exp(z) * w[0] + w[1]), x[0], x, weights)[1]

    program = record(f, LOOPED[:3], params=weights)
    for matrix in (program.sparse_jacobian(), program.sparse_jacobian("params")):
        for data in (0.5, 2.5):
            weights[0].data = data
            by = 0 if matrix.shape[1] == 3 else "params"
            agree(matrix, program.jacobian(LOOPED[:3], argnums=by), LOOPED[:3])


# ---- in several threads ----


def test_threads_call_one_matrix_that_grows():
    program = record(branching, POINTS[0], on_branch="record")
    matrix, wrong = program.sparse_jacobian(), []
    expected = [flat(record(branching, x).jacobian(x)) for x in POINTS]

    def work(k):
        for turn in range(30):
            x = POINTS[(k + turn) % 3]
            got = matrix._nonzeros((x,), {})
            found = dict(zip(zip(got[0].rows, got[0].cols), got[1]))
            full = [found.get(divmod(i, 4), 0.0) for i in range(28)]
            if not all(map(close, full, expected[(k + turn) % 3])):
                wrong.append((x, full))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


