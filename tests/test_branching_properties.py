"""Random Python functions that branch by all that one can ask of a number: by order, equality, truth, exceptions and
loops over data. Written once, they are the same function of floats, of Values, as programs, in batches, loaded.

A function is a list of steps over a pool of numbers, any index into which is good; a step that branches has steps of
its own. Operations are those whose bits are the same for floats and Values; of the others in STEPS the math module is
asked within 1e-12, and programs to the bit."""

from __future__ import annotations

import math
import operator
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapegrad import BranchChanged, Value, record, tape
from tapegrad.look.graph import COMPUTED, Graph
from tapegrad.program import Program
from tapegrad.program.recorded import decoded
from tapegrad.value import handle

index = st.integers(0, 50)
few = st.sampled_from([0.0, 1.0, -1.0, 2.0, -0.0, 0.5])  # so that they are often equal, and zero
numbers = st.one_of(few, st.integers(-3, 3).map(float), st.floats(-3, 3, allow_subnormal=False))
signs = st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"])

PLAIN = ("add", "sub", "mul", "truediv")
FUNCTIONS = ("log", "sqrt", "exp", "log1p", "asin")
CAUGHT = (ValueError, ZeroDivisionError, OverflowError)

plain = st.tuples(st.just("number"), st.sampled_from(PLAIN), index, numbers, st.booleans())
refusing = st.one_of(
    st.tuples(st.just("two"), st.just("truediv"), index, index),
    st.tuples(st.just("function"), st.sampled_from(FUNCTIONS), index),
    st.tuples(st.just("power"), index, st.sampled_from([0, 1, 2, 3, -1, 0.5, -2, 150])),
)
caught = st.tuples(
    st.just("try"), st.lists(refusing, min_size=1, max_size=2), st.lists(plain, min_size=1, max_size=2), st.booleans()
)
simple = st.one_of(st.tuples(st.just("two"), st.sampled_from(PLAIN), index, index), plain, refusing, caught, caught)


def compound(steps):
    body = st.lists(steps, max_size=4)
    return st.one_of(
        st.tuples(st.just("if"), signs, index, index, body, body),
        st.tuples(st.just("if number"), signs, index, numbers, body, body),
        st.tuples(st.just("if in"), index, st.lists(numbers, max_size=3), body, body),
        st.tuples(st.just("if true"), index, st.booleans(), body, body),
        st.tuples(st.just("and or"), index, index, index),
        st.tuples(st.just("sorted"), st.lists(index, min_size=1, max_size=3)),
        st.tuples(st.just("try"), body, body, st.booleans()),
        st.tuples(st.just("dead"), body),
        st.tuples(st.just("for"), body),
        st.tuples(st.just("while"), index, numbers, body),
    )


steps = st.recursive(simple, compound, max_leaves=12)
functions = st.lists(steps, min_size=1, max_size=6)
inputs = st.lists(numbers, min_size=3, max_size=3)


def power(a, k):
    y = a**k
    if isinstance(y, complex):
        raise ValueError("the result is complex")
    return y


def called(name, a):
    return getattr(math, name)(a) if isinstance(a, float) else getattr(a, name)()


def perform(steps, pool, xs):
    """What these steps add to the pool."""

    def at(i):
        return pool[i % len(pool)]

    for kind, *how in steps:
        if kind == "two":
            pool.append(getattr(operator, how[0])(at(how[1]), at(how[2])))
        elif kind == "number":
            a, k = (at(how[1]), how[2]) if how[3] else (how[2], at(how[1]))
            pool.append(getattr(operator, how[0])(a, k))
        elif kind == "function":
            pool.append(called(how[0], at(how[1])))
        elif kind == "power":
            pool.append(power(at(how[0]), how[1]))
        elif kind == "if":
            perform(how[3] if getattr(operator, how[0])(at(how[1]), at(how[2])) else how[4], pool, xs)
        elif kind == "if number":
            perform(how[3] if getattr(operator, how[0])(at(how[1]), how[2]) else how[4], pool, xs)
        elif kind == "if in":
            perform(how[2] if at(how[0]) in how[1] else how[3], pool, xs)
        elif kind == "if true":
            perform(how[2] if (not at(how[0])) is how[1] else how[3], pool, xs)
        elif kind == "and or":
            pool.append((at(how[0]) and at(how[1])) or at(how[2]))
        elif kind == "sorted":
            pool.append(sorted(at(i) for i in how[0])[0])
        elif kind == "try":
            kept = len(pool)
            try:
                perform(how[0], pool, xs)
            except CAUGHT:
                if how[2]:
                    del pool[kept:]
                perform(how[1], pool, xs)
        elif kind == "dead":
            perform(how[0], list(pool), xs)
        elif kind == "for":
            for x in xs:
                if x:
                    pool.append(x)
                    perform(how[0], pool, xs)
        else:
            i = how[0] % len(pool)
            for _ in range(3):
                if not pool[i] < how[1]:
                    break
                pool[i] = pool[i] + 1
                perform(how[2], pool, xs)


def written(steps):
    """The function of a list that these steps are: what came last, of what depends on the inputs."""

    def f(xs):
        pool = list(xs)
        perform(steps, pool, xs)
        return pool[-1] * 1.0 + xs[0]

    return f


def bits(x):
    return b"nan" if math.isnan(x) else struct.pack("<d", x)


def outcome(call, *args):
    """The value to the bit, or the class of what was raised."""
    try:
        return call(*args)
    except CAUGHT as error:
        return type(error)


def largest(y):
    """The largest number that a sweep from y adds up somewhere, 1 at least: a gradient has its digits."""
    graph = Graph.of_values([y]).sweep()
    nodes = [i for i in range(graph.n) if graph.core.kind[i] == COMPUTED]
    return max((abs(g) for i in nodes for g in graph.passed(i, graph.core.adjoint[i]) if math.isfinite(g)), default=1.0)


def on_tape(f, at):
    """Value, gradient by a sweep of the tape, and how large what it added up was; or the class of what was raised."""
    handle.as_numbers_by(1)
    try:
        leaves = [Value(x) for x in at]
        y = f(leaves)
    except CAUGHT as error:
        return type(error), None, 1.0
    finally:
        handle.as_numbers_by(-1)
    y.backward()
    return y.data, [x.grad for x in leaves], max(1.0, largest(y))


def agree(got, expected):
    if isinstance(got, type) or isinstance(expected, type):
        return got is expected
    return bits(got) == bits(expected)


def close(got, expected, scale):
    """Sweeps of programs and of the tape add in another order: where 1e95 - 1e95 + 1 is added up, 1 may be lost."""
    return bits(got) == bits(expected) or abs(got - expected) <= 1e-12 * scale


def exact(steps):
    """Whether floats have the bits of Values: the functions of the math module do not everywhere."""
    return not any(
        step[0] in ("function", "power") or any(isinstance(part, list) and not exact(part) for part in step)
        for step in steps
        if isinstance(step, tuple)
    )


def check(steps, points):
    f = written(steps)
    reference = [on_tape(f, at) for at in points]
    if exact(steps):
        for at, (value, *_) in zip(points, reference):
            assert agree(outcome(f, at), value)
    programs = []
    for at in points[:2]:
        try:
            programs.append((record(f, at, on_branch="record"), record(f, at)))
        except CAUGHT:
            continue
    for program, strict in programs:
        for at, (value, grad, scale) in zip(points, reference):
            assert agree(outcome(program, at), value)
            got = outcome(strict, at) if not branches(strict, at) else None
            assert got is None or agree(got, value) or isinstance(got, type)  # never a silent difference
            if grad is not None:
                assert all(close(got, expected, scale) for got, expected in zip(program.grad(at), grad))
        good = [k for k, (value, *_) in enumerate(reference) if not isinstance(value, type)]
        rows = [points[k] for k in good]
        for kept in (program, Program(decoded(program._recorded.__reduce__()[1][0]))):
            values, grads = kept.map().value_and_grad(rows)
            assert all(bits(value) == bits(reference[k][0]) for k, value in zip(good, values))
            assert [[bits(x) for x in grad] for grad in grads] == [[bits(x) for x in program.grad(at)] for at in rows]
        for k, (value, *_) in enumerate(reference):
            if isinstance(value, type):
                with pytest.raises(value, match="in row 0"):
                    program.map()([points[k]])


def branches(program, at):
    try:
        program(at)
    except BranchChanged:
        return True
    except CAUGHT:
        return False
    return False


def test_a_gradient_whose_largest_terms_cancel_is_held_to_their_digits():
    """Of the sum and the quotient, one sweep keeps the 1 of the sum, the other loses it among 1e95."""
    sums = [("two", "add", 0, 0), ("two", "add", 0, 0)]
    quotient = [("for", [*sums, ("if in", 0, [], [], [("two", "add", 0, 0), ("two", "truediv", 33, 40)])])]
    at = [6.188256181009154e-96, 0.0, 1.0]
    assert record(written(quotient), at).grad(at) != on_tape(written(quotient), at)[1]
    check(quotient, [at])


def test_a_function_is_the_same_on_floats_on_values_and_as_a_program(sized):
    @settings(max_examples=sized(300, 2_000 if tape.handle == "c" else 500))
    @given(functions, st.lists(inputs, min_size=3, max_size=4))
    def random_functions(steps, points):
        check(steps, points)

    random_functions()
