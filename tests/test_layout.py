"""Programs called on Values: what they do is laid out on the tape, guards included."""

from __future__ import annotations

import math

import pytest

import tapegrad
from tapegrad import BranchChanged, Value, grad, hessian, load, record, tape


def pieces(x, y):
    return (x * y if x < y else x - y) + (x * x).sqrt()


def test_a_program_on_values_is_differentiated_on_the_tape():
    program = record(pieces, 1.0, 2.0)
    x, y = Value(1.5), Value(2.5)
    z = program(x, y)
    z.backward()
    assert z.data == pieces(x, y).data == 5.25
    assert (x.grad, y.grad) == (3.5, 1.5)


def test_numbers_beside_values_are_leaves():
    x = Value(1.5)
    z = record(pieces, 1.0, 2.0)(x, 2.5)
    z.backward()
    assert (z.data, x.grad) == (5.25, 3.5)


def test_the_data_of_the_values_choose_the_path():
    program = record(pieces, 1.0, 2.0, on_branch="record")
    assert program(Value(3.0), Value(2.0)).data == 4.0
    assert program.stats["paths"] == 2
    with pytest.raises(BranchChanged):
        record(pieces, 1.0, 2.0)(Value(3.0), Value(2.0))


def test_its_guards_are_guards_of_the_recording_around_it():
    inner = record(pieces, 1.0, 2.0, on_branch="record")
    outer = record(lambda x, y: inner(x, y) * 2, 1.0, 2.0)
    assert outer.stats["guards"] == 1
    assert outer(1.5, 2.5) == 10.5
    with pytest.raises(BranchChanged, match="test_layout"):
        outer(3.0, 2.0)
    outer = record(lambda x, y: inner(x, y) * 2, 1.0, 2.0, on_branch="record")
    assert (outer(3.0, 2.0), outer(1.5, 2.5), outer.stats["paths"]) == (8.0, 10.5, 2)
    assert outer.map(reduce=None)([3.0, 1.5], [2.0, 2.5]) == [8.0, 10.5]


def test_what_it_refuses_raises_as_on_values(swept, settle):
    program = record(lambda x: x.log(), 1.0)
    settle()
    before = len(tape)
    with pytest.raises(ValueError, match="log"):
        program(Value(-1.0))
    settle()
    assert len(tape) == before
    outer = record(lambda x: program(x) + 1, 1.0)
    with pytest.raises(ValueError, match="log"):
        outer(-1.0)


def test_it_composes_with_functions_of_functions():
    program = record(lambda w: tapegrad.dot(w, [1.0, 2.0, 3.0], w[0]) ** 2, [1.0, 2.0, 3.0])
    at = [1.0, 2.0, 3.0]
    assert grad(program)(at) == program.grad(at)
    assert hessian(lambda w: program(w))(at) == program.hessian(at)
    both = record(lambda w: program.grad(w)[0] * program(w), at)
    assert both(at) == program.grad(at)[0] * program(at)


def test_a_recorded_derivative_refuses_nothing_where_it_is_laid_out():
    slope = record(grad(lambda x: x.sqrt()), 4.0)
    assert slope(0.0) == math.inf
    outer = record(lambda x: slope(x) * 1, 4.0)
    assert outer(0.0) == math.inf
    assert slope(Value(0.0)).data == math.inf


def test_params_are_the_same_values():
    w = Value(3.0)
    program = record(lambda x: w * x, 2.0, params=[w])
    program(Value(5.0)).backward()
    assert w.grad == 5.0


def test_a_loaded_program_is_laid_out_too(tmp_path):
    path = tmp_path / "program"
    record(pieces, 1.0, 2.0).save(path)
    x = Value(1.5)
    load(path)(x, 2.5).backward()
    assert x.grad == 3.5


def test_lines_stay_known_however_often_it_is_called(sized):
    inner = record(lambda x: x * 1.5 + 0.5, 1.0)
    n = sized(500, 10_000)

    def chain(x):
        for _ in range(n):
            x = inner(x)
        return x

    text = record(chain, 1.0).listing()
    assert "<unknown>" not in text and text.count("test_layout.py") >= n


def test_an_argument_that_is_not_as_recorded_is_named():
    program = record(lambda xs: xs[0] * xs[1], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"argument xs is .* of 3, but was recorded as a list of 2"):
        program([Value(1.0), 2.0, 3.0])
    with pytest.raises(TypeError, match="takes 1 argument"):
        program([Value(1.0), 2.0], 3.0)


def test_many_instructions_are_laid_out_at_once(sized):
    n = sized(10_000, 200_000, cffi=50_000)

    def chain(x):
        y = x
        for _ in range(n):
            y = y * 0.5 + x
        return y

    program = record(chain, 1.0)
    x = Value(1.0)
    before = len(tape)
    y = program(x)
    assert y.data == program(1.0)
    assert len(tape) - before <= 2 * n + 2
    y.backward()
    assert x.grad == program.grad(1.0)
