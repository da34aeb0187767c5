"""Jacobians and Hessians of programs: many directions over one replay have the bits of one direction alone."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_gradient import DOMAIN, MANY, ORDINARY, ROWS, SPECIAL
from test_program_properties import bits, numbers, outputs, programs, recorded, written

import tapegrad
from tapegrad import Value, record, where

LANES = record(lambda x: x, 0.0).stats["lanes"]
SIZES = st.sampled_from([1, 2, 3, LANES - 1, LANES, LANES + 1, 2 * LANES + 5])


def unit(k, n):
    return [float(i == k) for i in range(n)]


def signless(xs):
    """Bits, but those of the sign of zero, which a sum that underflows has at will."""
    return bits([x + 0.0 for x in xs])


def check_hessian(program, at):
    """Its rows are those of `hvp` along each unit vector."""
    n = len(at)
    hessian = program.hessian(at)
    assert len(hessian) == n
    for k, row in enumerate(hessian):
        assert signless(row) == signless(program.hvp(at, unit(k, n))), (k, at)


def check_jacobian(program, at):
    """Its rows are those of `vjp`, or where there are more of them, its columns those of `jvp`."""
    n = len(at)
    jacobian, (value, pull) = program.jacobian(at), program.vjp(at)
    assert len(jacobian) == len(value)
    if len(value) <= n:
        for k, row in enumerate(jacobian):
            assert signless(row) == signless(pull(unit(k, len(value)))[0])
    else:
        for k, column in enumerate(zip(*jacobian)):
            assert signless(column) == signless(program.jvp([at], [unit(k, n)])[1])


def refused(f, *args):
    try:
        f(*args)
    except (ArithmeticError, ValueError):
        return True
    return False


@pytest.mark.parametrize("name", ROWS)
def test_every_row_bends_as_one_direction_does(name):
    program = record(lambda x: ROWS[name](*x[:2]) * x[2], [1.5 if name == "ACOSH" else 0.3, 0.7, 0.5], on_error="nan")
    compared = 0
    for a, b in itertools.product(ORDINARY + SPECIAL + DOMAIN.get(name.lower(), ()), ORDINARY + SPECIAL):
        for weight in (1.0, -2.5, 0.0, math.inf):
            check_hessian(program, [a, b, weight])
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", MANY)
def test_every_row_of_many_operands_bends_as_one_direction_does(name):
    program = record(lambda x: MANY[name](x[:4]) * x[4], [0.3, -0.4, 1.0, 0.2, 1.5], on_error="nan", on_branch="record")
    for at in itertools.product((0.3, 0.0, -1.0, math.inf, 1e308, math.nan), repeat=4):
        for weight in (1.5, math.inf):
            check_hessian(program, [*at, weight])


@pytest.mark.parametrize("name", [*ROWS, *MANY])
def test_every_row_has_the_slopes_of_one_direction(name):
    def in_reverse(x):
        y = ROWS[name](x[0], x[1]) if name in ROWS else MANY[name](x[:4])
        return [y * x[3], y + x[2], x[1], y]

    first = [1.5 if name == "ACOSH" else 0.3, 0.7, 0.5, 1.0]
    points = (ORDINARY[1:3] + SPECIAL, (0.3, -1.0, 0.0, math.inf), (0.7, math.nan), (1.0, math.inf))
    for f in (in_reverse, lambda x: in_reverse(x) + [x[2] * in_reverse(x)[3]] * (2 * LANES)):  # the other one forward
        program = record(f, first, on_error="nan", on_branch="record")
        for at in itertools.product(*points):
            check_jacobian(program, list(at))


@settings(max_examples=150)
@given(programs, outputs, SIZES, st.data())
@example([], [0], 1, None)
@example([("unary", "sqrt", 0), ("binary", "mul", 1, 2)], [0, 1, 2], 2, None)
def test_many_directions_of_a_random_program_have_the_bits_of_one(steps, chosen, n, data):
    at = [0.0] * n if data is None else data.draw(st.lists(numbers, min_size=n, max_size=n))
    program = recorded(steps, chosen, at, on_branch="record", on_error="nan")
    check_jacobian(program, at)
    check_jacobian(recorded(steps, range(40), at, on_branch="record", on_error="nan"), at)
    scalar = record(lambda xs: tapegrad.sum(written(steps, chosen)(xs)), at, on_error="nan")
    check_hessian(scalar, at)


@given(st.lists(st.lists(st.integers(-64, 64), min_size=3, max_size=3), min_size=1, max_size=40), st.data())
def test_the_jacobian_of_a_linear_map_is_its_matrix(rows, data):
    at = data.draw(st.lists(st.floats(-8, 8), min_size=3, max_size=3))
    program = record(lambda x: [tapegrad.dot(row, x, row[0]) for row in rows], at)
    assert program.jacobian(at) == rows


@settings(max_examples=60)
@given(st.integers(1, 40), st.data())
def test_the_hessian_of_a_quadratic_form_is_its_matrix(n, data):
    draws = data.draw(st.lists(st.integers(-9, 9), min_size=n * n, max_size=n * n))
    matrix = [[float(draws[i * n + k]) for k in range(n)] for i in range(n)]
    at = data.draw(st.lists(st.integers(-5, 5).map(float), min_size=n, max_size=n))
    program = record(lambda x: tapegrad.dot(x, [tapegrad.dot(row, x) for row in matrix]), at)
    assert program.hessian(at) == [[matrix[i][k] + matrix[k][i] for k in range(n)] for i in range(n)]


def test_the_hessian_of_a_chain_is_banded_and_right():
    """Rosenbrock's: what no direction of a block moves is passed over."""
    n = 100
    at = [0.5 + 0.3 * (k % 5) for k in range(n)]
    program = record(lambda x: sum(100.0 * (b - a**2) ** 2 + (1.0 - a) ** 2 for a, b in zip(x, x[1:])), at)
    expected = [[0.0] * n for _ in range(n)]
    for k in range(n - 1):
        a, b = at[k], at[k + 1]
        expected[k][k] += 1200.0 * a * a - 400.0 * b + 2.0
        expected[k + 1][k + 1] += 200.0
        expected[k][k + 1] = expected[k + 1][k] = -400.0 * a
    for got, row in zip(program.hessian(at), expected):
        assert got == pytest.approx(row, rel=1e-12, abs=1e-9)


INFINITE_BENDS = [
    (lambda x: x[0].sqrt() + x[1] * x[1], [0.0, 2.0], [[-math.inf, 0.0], [0.0, 2.0]]),
    (lambda x: x[0] ** 1.5 * x[1], [0.0, 2.0], [[math.inf, 0.0], [0.0, 0.0]]),
    (lambda x: x[0] ** x[1] + x[0], [0.0, 1.5], [[math.inf, 0.0], [0.0, 0.0]]),
    (lambda x: abs(x[0]) ** 1.5 * x[1], [0.0, 2.0], [[0.0, 0.0], [0.0, 0.0]]),
]


@pytest.mark.parametrize("f, at, expected", INFINITE_BENDS)
@pytest.mark.parametrize("copies", [1, 300])
def test_a_bend_that_is_infinite_leaves_alone_the_directions_that_do_not_move_it(f, at, expected, copies):
    """In lanes, in blocks of directions, in groups of a wide program, on Values."""

    def many(x):
        return tapegrad.sum([f(x[2 * k : 2 * k + 2]) for k in range(copies)])

    program, x = record(many, [0.5, 1.5] * copies), at * copies
    assert bool(program.stats["groups"]) is (copies > 1)
    expected = [row + [0.0] * (len(x) - 2) for row in expected]
    for k in range(2):
        assert program.hvp(x, unit(k, len(x))) == expected[k]
        assert program.map().hvp([x] * 17, [unit(k, len(x))] * 17) == [expected[k]] * 17
    assert program.hessian(x)[:2] == expected
    if copies == 1:
        check_hessian(program, x)
        assert tapegrad.hessian(many)(x) == expected


def test_outputs_that_are_inputs_constants_or_equal_have_their_rows():
    program = record(lambda x: [x[0], x[0], Value(2.0), x[1] * x[1], x[1] * x[1]], [1.0, 3.0])
    assert program.jacobian([1.0, 3.0]) == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 6.0], [0.0, 6.0]]
    wide = record(lambda x: [x[0], x[0], Value(2.0)], [1.0] * 5)
    assert wide.jacobian([1.0] * 5) == [unit(0, 5), unit(0, 5), [0.0] * 5]
    assert record(lambda x: x[1], [1.0, 2.0]).hessian([1.0, 2.0]) == [[0.0, 0.0], [0.0, 0.0]]


def test_the_side_that_is_not_chosen_moves_nothing():
    program = record(lambda x: [where(x[0].greater(0.0), x[1] ** 2, x[2]), x[0]], [1.0, 2.0, 3.0])
    assert program.jacobian([1.0, 2.0, 3.0]) == [[0.0, 4.0, 0.0], [1.0, 0.0, 0.0]]
    assert program.jacobian([-1.0, 2.0, 3.0]) == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
