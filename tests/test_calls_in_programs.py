"""Loops within programs: one instruction each, with the bits of the steps written out; gradients, too, within rounding;
in lanes, on threads, native, saved, within one another."""

from __future__ import annotations

import copy
import math
import pickle
import random
import threading
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapegrad._core import lib

import tapegrad
from tapegrad import BranchChanged, Value, check_grads, record
from tapegrad.look.graph import Graph

numbers = st.floats(-2, 2, allow_subnormal=False)
index = st.integers(0, 20)
operations = st.lists(
    st.tuples(st.sampled_from(["add", "sub", "mul", "tanh", "sin", "branch", "where"]), index, index),
    min_size=1, max_size=6,
)  # fmt: skip


def added(xs):
    """One after the other, as Values are; sum() of floats compensates from CPython 3.12 on."""
    total = 0.0
    for x in xs:
        total = total + x
    return total


def performed(steps, pool):
    """What these operations give, on floats or Values."""
    pool = list(pool)
    for name, i, j in steps:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        pool.append({
            "add": lambda a, b: a + b * 0.5, "sub": lambda a, b: a * 0.5 - b, "mul": lambda a, b: a * b * 0.25,
            "tanh": lambda a, b: tapegrad.math.tanh(a), "sin": lambda a, b: tapegrad.math.sin(b),
            "branch": lambda a, b: a * 0.5 if a < b else b * 0.25 + 0.125,
            "where": lambda a, b: tapegrad.where(tapegrad.greater(a, b), a * 0.5, b),
        }[name](a, b))  # fmt: skip
    return pool


class Made:
    """A random function of a, b and weights with a loop in it, and perhaps one in each step of that."""

    def __init__(self, body, inner, n_state, n_y, length, captures, mixed):
        self.body, self.inner, self.n_state, self.n_y, self.length = body, inner, n_state, n_y, length
        self.captures, self.mixed, self.unroll = captures, mixed, False

    def unrolled(self):
        other = copy.copy(self)
        other.unroll = True
        return other

    def __call__(self, a, b, w):
        first = [a * 0.5 + k * b for k in range(self.n_state)]
        xs = [[k * 0.125 - 0.5, a * 0.25 if self.mixed else 0.75] for k in range(self.length)]
        around = [a - b] if self.captures else []

        def within(s, x, p):
            pool = performed(self.inner, [s, x, p, *around])
            return pool[-1] * 0.5, pool[-2]

        def step(s, x, p, name):
            assert name == "name"
            pool = [*s, *x, *p, *around, b] if self.captures else [*s, *x, *p]
            if self.inner:
                last, ys = tapegrad.scan(within, s[0], [x[0], pool[1], 0.25], p[0], unroll=self.unroll)
                pool += [last, ys[1]]
            pool = performed(self.body, pool)
            new = [pool[-1 - k] * 0.5 for k in range(self.n_state)]
            return (new, pool[-self.n_y :]) if self.n_y else new

        last, ys = tapegrad.scan(step, first, xs or None, w, "name", length=self.length, unroll=self.unroll)
        total = added(last) + a * w[0]
        if ys is not None:
            total = total + added(map(added, ys))
        return [total, *last]


shapes = st.builds(
    Made, operations, st.one_of(st.just([]), operations), st.integers(1, 3), st.integers(0, 2), st.integers(0, 12),
    st.booleans(), st.booleans(),
)  # fmt: skip
points = st.tuples(numbers, numbers, st.tuples(numbers, numbers).map(list))


def close(x, y):
    """Equal but for rounding, nests of floats."""
    if isinstance(x, (list, tuple)):
        return len(x) == len(y) and all(map(close, x, y))
    return x == y or (math.isnan(x) and math.isnan(y)) or abs(x - y) <= 1e-11 * max(1.0, abs(x), abs(y))


def bits(x):
    """Nests of floats so that nan equals nan, and 0.0 not -0.0."""
    return [bits(y) for y in x] if isinstance(x, (list, tuple)) else float(x).hex()


def loops_in(program):
    """How many calls all paths of a program have."""
    return sum(len(path.calls) for path in program._recorded.paths)


def pair_of(made, point, **how):
    """The program with a loop in it, and the one in which it is unrolled."""
    one = record(made, *point, on_branch="record", **how)
    other = record(made.unrolled(), *point, on_branch="record", **how)
    assert loops_in(other) == 0
    return one, other


def first(f):
    return lambda *args: f(*args)[0]


@settings(max_examples=60, deadline=None)
@given(shapes, points, st.lists(points, min_size=1, max_size=3))
def test_a_loop_in_a_program_gives_what_its_steps_do(made, point, others):
    one, other = pair_of(made, point)
    assert loops_in(one) == (made.length > 1 or (made.length == 1 and made.inner != []))
    for at in (point, *others):
        assert bits(one(*at)) == bits(other(*at)) == bits(made(*at))
        seed = [0.5, *([-1.0] * made.n_state)]
        assert close(list(one.vjp(*at)[1](seed)), list(other.vjp(*at)[1](seed)))
        tangents = 0.5, -1.0, [0.25, 2.0]
        assert close(one.jvp(at, tangents), other.jvp(at, tangents))
        assert close(one.jacobian(*at, argnums=(0, 2)), other.jacobian(*at, argnums=(0, 2)))


@settings(max_examples=25, deadline=None)
@given(shapes, points, points)
def test_second_derivatives_go_through_a_loop(made, point, at):
    one, other = (
        record(first(f), *point, on_branch="record") for f in (made, made.unrolled())
    )
    assert close(one.value_and_grad(*at, argnums=(0, 1, 2)), other.value_and_grad(*at, argnums=(0, 1, 2)))
    assert close(one.hvp(at[0], 1.0, *at[1:]), other.hvp(at[0], 1.0, *at[1:]))
    assert close(one.hessian(*at, argnums=(0, 2)), other.hessian(*at, argnums=(0, 2)))


@settings(max_examples=20, deadline=None)
@given(shapes, points, points)
def test_sparse_derivatives_go_through_all_steps_of_a_loop(made, point, at):
    one, other = pair_of(made, point)
    for ours, theirs, seed in (
        (one.sparse_jacobian(2), other.sparse_jacobian(2), ()),
        (one.sparse_hessian(2), other.sparse_hessian(2), ([0.5, *([-1.0] * made.n_state)],)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of paths with other nonzeros
            for x in (point, at):
                found = list(ours.values(*x, *seed))
                assert close(found, list(theirs.values(*x, *seed)))
        assert [list(ours.rows), list(ours.cols)] == [list(theirs.rows), list(theirs.cols)]
        if not seed:
            dense = one.jacobian(*at, argnums=2)
            assert close(found, [dense[i][j] for i, j in zip(ours.rows, ours.cols)])


@settings(max_examples=25, deadline=None)
@given(shapes, points, st.lists(points, min_size=1, max_size=20), st.sampled_from([1, 2]))
def test_rows_have_the_bits_of_one(made, point, rows, threads):
    one = record(first(made), *point, on_branch="record")
    columns = [list(column) for column in zip(*rows)]
    batch = one.map(threads=threads)
    values, grads = batch.value_and_grad(*columns, argnums=(0, 1, 2))
    for k, row in enumerate(rows):
        value, grad = one.value_and_grad(*row, argnums=(0, 1, 2))
        assert bits(values[k]) == bits(value)
        assert bits([g[k] for g in grads[:2]]) == bits(list(grad[:2]))
        assert bits(grads[2][k]) == bits(grad[2])
    tangent = batch.jvp(columns, [[1.0] * len(rows), [0.5] * len(rows), [[0.0, 1.0]] * len(rows)])[1]
    along = [batch.hvp(columns[0], [1.0] * len(rows), *columns[1:])]
    for k, row in enumerate(rows):
        assert bits(tangent[k]) == bits(one.jvp(row, (1.0, 0.5, [0.0, 1.0]))[1])
        assert bits(along[0][k]) == bits(one.hvp(row[0], 1.0, *row[1:]))


@settings(max_examples=15, deadline=None)
@given(shapes, points, points)
def test_a_saved_program_has_the_same_bits(tmp_path_factory, made, point, at):
    one = record(first(made), *point, on_branch="record")
    one(*at)
    where = tmp_path_factory.mktemp("saved") / "program"
    one.save(where)
    for other in (tapegrad.load(where), pickle.loads(pickle.dumps(one)), copy.copy(one)):
        assert bits(other(*at)) == bits(one(*at))
        assert bits(other.grad(*at, argnums=(0, 1, 2))) == bits(one.grad(*at, argnums=(0, 1, 2)))
        assert str(other) == str(one)
    assert tapegrad.load(where).save(where) is None
    assert bits(tapegrad.load(where)(*at)) == bits(one(*at))


def orbit(a, w):
    """A loop with a branch, a loop in each step, params and Values around it."""
    scale = a * 0.5

    def within(s, x, w):
        return s + scale * x * w, s * x

    def step(s, x):
        inner, ys = tapegrad.scan(within, s * 0.25, [x, 0.5, 0.25], w)
        return (inner + tapegrad.math.sin(s) if s < 1.0 else s * 0.5 - inner), ys[1] * a

    last, ys = tapegrad.scan(step, a, [0.125 * k for k in range(20)])
    return last * w + added(ys)


def test_native_code_has_the_same_bits_within_and_around_a_loop():
    one, other = (record(orbit, 0.5, 0.75, on_branch="record") for _ in range(2))
    rows = [0.1 * k - 1.0 for k in range(40)]
    for p in (one, other):
        p.map(in_axes=(0, None))(rows, 0.75)
    other.native()
    assert bits(one.map(in_axes=(0, None))(rows, 0.75)) == bits(other.map(in_axes=(0, None))(rows, 0.75))
    for a in rows:
        assert bits(one(a, 0.75)) == bits(other(a, 0.75)) == bits(orbit(a, 0.75))
        assert bits(one.value_and_grad(a, 0.75, argnums=(0, 1))) == bits(other.value_and_grad(a, 0.75, argnums=(0, 1)))
    batches = [p.map(in_axes=(0, None)).value_and_grad(rows, 0.75, argnums=(0, 1)) for p in (one, other)]
    assert bits(batches[0]) == bits(batches[1])


def test_derivatives_are_those_of_central_differences():
    check_grads(record(orbit, 0.5, 0.75, on_branch="record"), 0.5, 0.75)


def test_a_program_does_not_grow_with_its_loops():
    def f(a, length):
        return tapegrad.scan(lambda s, x: tapegrad.math.sin(s) * a, a, None, length=length)[0]

    sizes = {record(lambda a, n=n: f(a, n), 0.5).stats["bytes"] for n in (2, 10, 100000)}
    assert len(sizes) == 1
    assert record(lambda a: f(a, 100000), 0.5)(0.5) == f(0.5, 100000)


def test_an_unknown_branch_in_a_step_is_recorded_or_named():
    def f(a):
        return tapegrad.scan(lambda s, x: s + x if s < 2.0 else s * 0.5, a, [0.25, 0.5, 0.75])[0]

    p = record(f, 0.0)
    assert p(0.25) == f(0.25)
    with pytest.raises(BranchChanged, match=r"1\.75 \+|2\.25 < 2\.0 is False in step 2, was True") as caught:
        p(1.5)
    assert caught.value.step == 2
    assert caught.value.filename == __file__
    with pytest.raises(BranchChanged, match="in step 2 of row 1"):
        p.map()([0.0, 1.5])
    recorded = record(f, 0.0, on_branch="record")
    assert recorded(1.5) == f(1.5)
    assert recorded.grad(1.5) == 0.5
    assert recorded.stats["paths"] == 2
    assert recorded.map()([0.0, 1.5, 3.0]) == [f(0.0), f(1.5), f(3.0)]


def test_what_a_step_refuses_is_refused_as_on_values_and_can_be_caught():
    def f(a):
        try:
            return tapegrad.scan(lambda s, x: tapegrad.math.log(s - x), a, [1.0, 0.5])[0]
        except ValueError:
            return a * 3.0

    p = record(f, 20.0)
    assert p.stats["paths"] == 1
    with pytest.raises(ValueError, match=r"log\(-1\.0\): math domain error in step 0, recorded at .*test_calls"):
        p(0.0)
    with pytest.raises(ValueError, match="in step 0 of row 1"):
        p.map()([20.0, 0.0])
    recorded = record(f, 20.0, on_branch="record")
    assert recorded(0.0) == 0.0
    assert recorded.grad(0.0) == 3.0
    assert recorded(30.0) == f(30.0)
    assert math.isnan(record(f, 20.0, on_error="nan")(0.0))
    assert math.isnan(record(f, 20.0, on_error="nan").grad(0.0))


def test_what_only_numbers_can_do_unrolls_the_steps():
    table = [1.0, 2.0, 3.0]

    def by_index(a):
        return tapegrad.scan(lambda s, k: s * table[k], a, [0, 1, 2])[0]

    def by_counter(a):
        return tapegrad.scan(lambda s, x: (s[0] * table[s[1]], s[1] + 1), (a, 0), None, length=3)[0][0]

    def by_data(a):
        return tapegrad.scan(lambda s, x: s * s.data, a, None, length=3)[0]

    for f in (by_index, by_counter):
        p = record(f, 0.5)
        assert loops_in(p) == 0
        assert p(1.5) == f(1.5)
    with pytest.warns(RuntimeWarning, match=r"\.data was read"):
        p = record(by_data, 0.5)
    assert loops_in(p) == 0


def test_params_of_the_program_and_values_around_are_differentiated():
    w, k = Value(0.5), Value(3.0)

    def f(a):
        double = w * 2.0
        return tapegrad.scan(lambda s, x: s * double + w + k * x, a, [1.0, 2.0, 3.0])[0]

    p = record(f, 1.0, params=[w])
    assert loops_in(p) == 1
    value, (by_a, by_w) = p.value_and_grad(2.0, argnums=(0, "params"))
    written = record(lambda a, w: f_of(a, w, 3.0), 1.0, 0.5)
    assert value == written(2.0, 0.5)
    assert close([by_a, by_w[0]], list(written.grad(2.0, 0.5, argnums=(0, 1))))
    w.data = 0.25
    assert p(2.0) == f_of(2.0, 0.25, 3.0)


def f_of(a, w, k):
    s = a
    for x in (1.0, 2.0, 3.0):
        s = s * (w * 2.0) + w + k * x
    return s


def test_a_path_that_comes_later_may_use_other_values_around_it():
    def f(a, b):
        return tapegrad.scan(lambda s, x: s * 0.5 + x if s < 3.0 else s - b, a, [1.0] * 8)[0]

    p = record(f, 5.0, 0.75, on_branch="record")
    assert loops_in(p) == 1
    assert p(5.0, 0.75) == f(5.0, 0.75)
    assert p.grad(5.0, 0.75, argnums=1) < 0.0
    check_grads(p, 5.0, 0.75)


def test_derivatives_within_a_recording_unroll_the_steps_or_say_so():
    def loop(a, unroll=False):
        return tapegrad.scan(lambda s, x: tapegrad.math.sin(s) * a, a, None, length=5, unroll=unroll)[0]

    p = record(lambda a: tapegrad.grad(loop)(a), 0.5)
    q = record(loop, 0.5)
    assert close(p(0.75), q.grad(0.75))
    with pytest.raises(RuntimeError, match="unroll=True"):
        record(lambda a: tapegrad.gradient(loop(a), a), 0.5)
    with pytest.raises(RuntimeError, match="unroll=True"):
        record(lambda a: loop(a).backward(), 0.5)
    assert close(record(lambda a: tapegrad.gradient(loop(a, True), a), 0.5)(0.75), q.grad(0.75))


def test_what_cannot_see_into_a_loop_says_what_to_do():
    p = record(lambda a: tapegrad.scan(lambda s, x: s * a, a, None, length=5)[0], 0.5)
    x = Value(0.5)
    y = p(x)
    y.backward()
    assert (y.data, x.grad) == (p(0.5), p.grad(0.5))
    with pytest.raises(RuntimeError, match="unroll=True"):
        tapegrad.gradient(p(x), x)

    with pytest.raises(RuntimeError, match="a program that holds loops have one elsewhere: its own grad, hvp"):
        tapegrad.hvp(p)(0.5, 1.0)
    assert close(record(tapegrad.grad(p), 0.5)(0.75), p.grad(0.75))  # written out from its function
    lone = copy.deepcopy(p)
    lone._recorded.f = None

    def inside():
        record(lambda a: tapegrad.grad(lone)(a), 0.5)

    with pytest.raises(TypeError, match="unroll=True"):
        inside()


def test_a_program_is_looked_into_with_its_loops_written_out(tmp_path):
    def growth(unroll):
        def step(s, x, rate):
            return s * rate + x, tapegrad.math.exp(s)

        def f(x, rate):
            last, ys = tapegrad.scan(step, 1.0, [x, -x, 0.25], rate, unroll=unroll)
            return last + tapegrad.sum(ys)

        return record(f, 0.5, 1.5, on_error="nan")

    p, written = growth(False), growth(True)
    assert loops_in(p) == 1 and loops_in(written) == 0
    p.save(tmp_path / "growth")
    for q in (p, tapegrad.load(tmp_path / "growth")):
        for at in ((0.5, 1.5), (-0.25, 0.5)):
            nodes = {row.text.strip(): row.nodes for row in q.heat(*at).rows}
            assert nodes["return s * rate + x, tapegrad.math.exp(s)"] == 3 * 2  # a dot and exp in each step
            lines, others = ({line.lineno for line in r.rounding(*at).lines} for r in (q, written))
            assert lines == others
            drawn = tapegrad.draw(q, *at).graph
            assert bits(drawn.value(drawn.roots[0])) == bits(written(*at))
            assert close([drawn.adjoint(i) for i in drawn.given], written.grad(*at, argnums=(0, 1)))
            assert q.diagnose(*at) is None
        found = q.diagnose(0.5, -1e200)
        assert (found.operation, found.operands) == ("dot", (-1e200, -1e200, -0.5))
    with pytest.raises(tapegrad.NonFinite, match="dot"), tapegrad.debug():
        p(0.5, -1e200)
    assert tapegrad.draw(p).graph.n == drawn.n


def test_what_a_loop_within_a_program_refuses_is_told_where_it_gives_nan():
    def f(a, b):
        last, ys = tapegrad.scan(lambda s, x: (tapegrad.math.log(s - x), s * b), a, [1.0, 0.5])
        return last + added(ys)

    p = record(f, 20.0, 0.5, on_error="nan")
    assert p.diagnose(20.0, 0.5) is None
    found = p.diagnose(1.25, 0.5)
    assert (found.operation, found.text.count("log"), found.operands[0] < 0.0) == ("log", 1, True)
    assert p.map((0, None)).diagnose([20.0, 1.25], 0.5).row == 1
    with pytest.raises(tapegrad.NonFinite, match="log"), tapegrad.debug():
        p(1.25, 0.5)
    assert record(f, 20.0, 0.5).diagnose(1.25, 0.5).operation == "log"


def test_what_a_loop_within_a_step_refuses_is_nan_where_the_step_is_to_give_nan():
    def f(s, x):
        last, ys = tapegrad.scan(lambda t, y: (tapegrad.math.log(t - y), t), s, [x, 0.5])
        return last + 4.0, added(ys)

    step = record(f, 9.0, 1.0, on_error="nan")
    ends = record(lambda s: f(s, 1.0)[0], 9.0, on_error="nan")
    xs, around = [1.0, 9.0, 1.0], record(lambda s: step(s, 1.0)[0] * 2.0, 9.0, on_error="nan")
    far = record(lambda s: tapegrad.greater(f(s, 1.0)[0], 50.0), 9.0, on_error="nan")
    for loop in (step.scan(), step.scan(final=ends, checkpoints=1), step.scan(length=3, until=far)):
        assert math.isnan(loop(9.0, xs)[1][2]) and not math.isnan(loop(9.0, xs)[1][0])
        losses = loop.map((None, 0)).value_and_grad(9.0, [xs, [1.0] * 3])[0]
        assert [math.isnan(x) for x in losses] == [True, False]
        found = loop.diagnose(9.0, xs)
        assert (found.operation, found.step) == ("log", 1)
    assert math.isnan(around(1.0)) and around(9.0) == 2.0 * step(9.0, 1.0)[0]
    assert record(f, 9.0, 1.0).scan().diagnose(9.0, xs).operation == "log"


@settings(max_examples=25, deadline=None)
@given(shapes, points, points)
def test_graphs_of_programs_with_loops_have_their_values_and_derivatives(made, point, at):
    one, other = (record(first(f), *point, on_branch="record") for f in (made, made.unrolled()))
    graph = tapegrad.draw(one, *at).graph
    assert bits(graph.value(graph.roots[0])) == bits(other(*at))
    by_a, by_b, by_w = other.grad(*at, argnums=(0, 1, 2))
    assert close([graph.adjoint(i) for i in graph.given], [by_a, by_b, *by_w])


def test_a_loop_whose_step_holds_loops_is_looked_at(monkeypatch, tmp_path):
    from tapegrad.look import steps

    def inner(s, x, rate):
        return s * rate + x, (tapegrad.math.sin(s) if s < 1.0 else s * 0.25)

    def f(state, x, rate, unroll=False):
        last, ys = tapegrad.scan(inner, state, [x, 0.5, -x], rate, unroll=unroll)
        return last * 0.5, added(ys)

    xs = [0.25 * k - 0.5 for k in range(7)]
    made = [record(lambda s, x, r, u=u: f(s, x, r, u), 0.5, 0.25, 0.75, on_branch="record") for u in (False, True)]
    final = record(lambda s, r: tapegrad.scan(lambda t, _: t * r, s, None, length=3)[0], 0.5, 0.75)
    one, other = (step.scan(final=final) for step in made)
    assert loops_in(one.step) == 1 and loops_in(other.step) == 0
    at = 0.5, xs, 0.75
    loss, by = other.value_and_grad(*at, argnums=(0, 1, 2))
    for most in (1, 60, 1 << 20):
        monkeypatch.setattr(steps, "MOST", most)
        found = steps.at(one, at)
        windows = [window for _, window in found.backward()][::-1]
        assert list(found.out) == [loss]
        assert close([*found.state_grad, *found.param_grads], [by[0], by[2]])
        assert close([w.graph.adjoint(i) for w in windows for i in w.xs], by[1])
        long, short = (
            next(row for row in one.heat(0.5, x, 0.75).rows if row.text.strip().startswith("return s * rate"))
            for x in (3 * xs, xs)
        )  # fmt: skip
        assert (long.nodes, short.nodes) == (3 * 7 * 3 * 3, 7 * 3 * 3) and long.bytes == short.bytes
    one(*at), one(0.5, [*xs, 1e308, 1e308, 0.5], 1e5)  # for a file has no function
    one.save(tmp_path / "loop")
    for loop in (one, tapegrad.load(tmp_path / "loop")):
        drawn = tapegrad.draw(loop, *at)
        assert "\u21bb 7 steps" in drawn.to_svg() and drawn.to_html() and tapegrad.draw(loop).to_dot()
        assert loop.diagnose(*at) is None
        assert loop.diagnose(0.5, [*xs, 1e308, 1e308, 0.5], 1e5).step == 7
    with pytest.raises(tapegrad.NonFinite) as caught, tapegrad.debug():
        one.value_and_grad(0.5, [*xs, 1e308, 1e308, 0.5], 1e5)
    assert caught.value.step == 7 and caught.value.filename == __file__


def test_a_program_that_holds_loops_may_be_part_of_another():
    p = record(orbit, 0.5, 0.75, on_branch="record")
    q = record(lambda a, w: p(a * 0.5, w) + a, 0.5, 0.75, on_branch="record")
    assert loops_in(q) == 1
    for at in ((0.5, 0.75), (3.0, -0.5), (-1.0, 2.0)):
        assert q(*at) == p(at[0] * 0.5, at[1]) + at[0]
        (a, w), (b, v) = q.grad(*at, argnums=(0, 1)), p.grad(at[0] * 0.5, at[1], argnums=(0, 1))
        assert close([a, w], [b * 0.5 + 1.0, v])
    step = record(lambda s, x: p(s, x) * 0.125, 0.5, 0.25, on_branch="record")
    loop, xs = step.scan(), [0.25, 0.5, 0.75, 2.0]
    s = 0.5
    for x in xs:
        s = orbit(s, x) * 0.125
    assert loop(0.5, xs)[0] == s
    around = record(lambda a: loop(a, xs)[0] * 2.0, 0.5)
    assert loops_in(around) == 1
    assert around(0.5) == 2.0 * s
    assert close(around.grad(0.5), 2.0 * loop.grad(0.5, xs))
    of_ints = record(lambda a: loop(a, [1, 0, -2])[0], 0.5, on_branch="record")
    assert (loops_in(of_ints), of_ints(0.25)) == (1, loop(0.25, [1, 0, -2])[0])


def test_a_listing_shows_loops_and_their_steps():
    p = record(orbit, 0.5, 0.75, on_branch="record")
    text = str(p)
    assert "loop 0 of 20 steps(" in text and "each step of loop 0, path 0:" in text and "loop 0 of 3 steps(" in text


def test_a_loop_of_constants_is_one():
    p = record(lambda a: a * tapegrad.scan(lambda s, x: s * x, Value(2.0), [1.5, 2.5])[0], 0.5)
    assert loops_in(p) == 0
    assert p(2.0) == 15.0


def test_a_step_that_is_more_than_a_function_of_its_arguments_is_refused():
    def by_list(a):
        seen = []

        def step(s, x):
            seen.append(s)
            return s * a

        return tapegrad.scan(step, a, None, length=4)[0] + sum(seen)

    def by_name(a):
        before = a

        def step(s, x):
            nonlocal before
            before, new = s, s * before
            return new

        return tapegrad.scan(step, a, None, length=4)[0]

    def by_counter(a):
        k = 0

        def step(s, x):
            nonlocal k
            k += 1
            return s * (a + k)

        return tapegrad.scan(step, a, None, length=4)[0]

    def by_counter_within(a):
        return tapegrad.scan(lambda s, x: s * by_counter(a), a, None, length=3)[0]

    for f in (by_list, by_name, by_counter, by_counter_within):
        with pytest.raises(RuntimeError, match="unroll=True"):
            record(f, 0.5)
        assert f(0.75) == f(0.75)
    assert record(lambda a: tapegrad.scan(lambda s, x: s * random.random(), a, None, length=4, unroll=True)[0], 0.5)
    with pytest.raises(RuntimeError, match="would be the same in all steps"):
        record(lambda a: tapegrad.scan(lambda s, x: s * random.random(), a, None, length=4)[0], 0.5)


def test_values_of_other_threads_are_none_of_a_step():
    """Neither those that they hold meanwhile, nor what they record."""
    held = []

    def elsewhere(x):
        held.append(Value(x) * 2.0)
        held.append(record(lambda a: tapegrad.scan(lambda s, y: s * a + y, a, [x, 0.5])[0], x))

    def step(s, x):
        other = threading.Thread(target=elsewhere, args=(0.75,))
        other.start()
        other.join()
        return s * x

    p = record(lambda a: tapegrad.scan(step, a, [0.5, 0.25, 2.0])[0] + a, 0.5)
    assert loops_in(p) == 1
    assert p(3.0) == 3.75
    assert len(held) == 4
    assert {held[1](0.5), held[3](0.5)} == {1.0}


def test_threads_may_record_and_replay_loops_at_once():
    program = record(orbit, 0.5, 0.75, on_branch="record")
    points = [(0.25 * k - 3.0, 0.125 * k) for k in range(24)]
    found, errors = [], []

    def work(k):
        try:
            own = record(orbit, *points[k], on_branch="record")
            found.append([(program(*at), own(*at), own.grad(*at)) for at in points[k:] + points[:k]])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(5 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    expected = sorted((orbit(*at), orbit(*at), program.grad(*at)) for at in points)
    assert all(sorted(rows) == expected for rows in found) and len(found) == 4


def test_long_loops_within_a_loop_are_the_same_a_part_at_a_time():
    """What a step of them does is laid down in the middle, so that one can look for signals."""
    length = 1 << 16

    def within(s, x, a):
        return s * 0.9375 + a if s < a * 15.0 else s * 0.5

    def f(a, b, unroll):
        def step(s, x):
            if s[0] < x:
                return [tapegrad.scan(within, s[0] - s[1], None, a * b, length=length)[0] * 0.5, s[1] * b], s[0] * a
            long = tapegrad.scan(lambda t, _: t * 0.875 + tapegrad.math.sin(b), s[1] * a, None, length=length)[0]
            return [s[0] * 0.25, long], long - s[0]

        (s, t), ys = tapegrad.scan(step, [a, b], [0.5, a, 8.0], unroll=unroll)
        return s * t + sum(ys)

    one, other = (
        record(lambda a, b, unroll=unroll: f(a, b, unroll), 0.5, 0.75, on_branch="record") for unroll in (False, True)
    )
    points = [(0.5, 0.75), (-0.25, 0.5)]
    columns = [list(column) for column in zip(*points)]
    values, grads = one.map().value_and_grad(*columns, argnums=(0, 1))
    assert bits(values) == bits([other(*at) for at in points])
    steps = [path for call in one._recorded.paths[0].calls for path in call.step.paths]
    assert len(steps) == 2 and max(path.cost for path in steps) > 1 << 20  # in a lane alone, too
    for k, at in enumerate(points):
        grad = one.grad(*at, argnums=(0, 1))
        assert bits(grad) == bits([by[k] for by in grads])
        assert close(grad, other.grad(*at, argnums=(0, 1)))
    assert close(one.hvp(0.5, 1.0, 0.75), other.hvp(0.5, 1.0, 0.75))
    assert close(one.jvp(points[1], (1.0, 0.5)), other.jvp(points[1], (1.0, 0.5)))
    again = one.native().map().value_and_grad(*columns, argnums=(0, 1))
    assert bits(list(again)) == bits([values, grads])
    assert bits(one.grad(*points[0], argnums=(0, 1))) == bits([by[0] for by in grads])


def test_long_loops_at_the_end_of_a_loop_and_where_it_is_asked_for_its_end_are_the_same_a_part_at_a_time():
    def settled(a, b, length):
        return tapegrad.scan(lambda s, _: s * 0.9375 + a * b, a - b, None, length=length)[0]

    def ended(s, b):
        return settled(s, b, 1 << 18) * s if s < 0.25 else settled(b, s, 1 << 18) + tapegrad.math.sin(s)

    final = record(ended, 0.5, 0.75, on_branch="record")
    until = record(lambda s, b: tapegrad.less(settled(s, b, 1 << 18), 2.0), 0.5, 0.75)
    step = record(lambda s, x, b: s * 0.5, 0.5, None, 0.75)
    starts, lanes = [1.0, 3.0], [0.25, 0.5]
    plain, asked = step.scan(length=3, final=final), step.scan(length=3, final=final, until=until)
    values, grads = plain.map((0, None, None)).value_and_grad(starts, None, 0.75, argnums=(0, 2))
    for k, s in enumerate(starts):
        value, (by_s, by_b) = final.value_and_grad(s / 8.0, 0.75, argnums=(0, 1))
        alone = plain.value_and_grad(s, None, 0.75, argnums=(0, 2))
        assert bits(alone) == bits((value, (by_s / 8.0, by_b))) == bits((values[k], (grads[0][k], grads[1][k])))
    value, slopes = asked.map((0, None, None)).value_and_grad(lanes, None, 0.75)
    for k, s in enumerate(lanes):
        steps = next(n for n in range(8) if until(s / 2.0**n, 0.75))
        assert 0 < steps < 3
        expected = final.value_and_grad(s / 2.0**steps, 0.75)
        assert bits((value[k], slopes[k] * 2.0**steps)) == bits(expected)
        assert bits(asked.value_and_grad(s, None, 0.75)) == bits((value[k], slopes[k]))
    costs = [path.cost for p in (final, until) for path in p._recorded.paths]
    assert len(costs) == 3 and min(costs) > 1 << 20  # in a lane alone, too


def test_the_loops_of_a_program_share_the_room_for_states(script):
    """64 MiB for all of them, not for each."""
    pytest.importorskip("resource")
    out = script(
        "import resource, tapegrad\n"
        "def turned(s, a):\n"
        "    return tapegrad.scan(lambda s, x: s[1:] + s[:1], s, None, length=2**14)[0][:-1] + [a]\n"
        "def f(a):\n"
        "    s = [a] * 32\n"
        "    for _ in range(64):\n        s = turned(s, a)\n"
        "    return tapegrad.sum(s)\n"
        "p = tapegrad.record(f, 0.5)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(p.stats['loops'], p.grad(0.5), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    ).stdout.split()
    assert out[:2] == ["64", "32.0"]
    assert int(out[2]) < 96 << 10  # KiB; of each loop they would take 256 MiB


def test_a_program_holds_no_values_of_its_recording():
    tapegrad.tape.collect()
    before = len(tapegrad.tape)
    w = Value(0.5)
    p = record(lambda a: tapegrad.scan(lambda s, x: s * (w + a), a, None, length=5)[0], 0.5, params=[w])
    tapegrad.tape.collect()
    assert loops_in(p) == 1
    assert len(tapegrad.tape) - before == 1


def test_every_allocation_of_the_core_may_fail():
    def work():
        p = pickle.loads(pickle.dumps(record(orbit, 0.5, 0.75, on_branch="record")))
        rows = p.map(in_axes=(0, None), reduce="mean").value_and_grad([0.5, 0.25, 0.5], 0.75, argnums=(0, 1))
        return p.grad(0.5, 0.75), p.hvp(0.5, 1.0, 0.75), rows

    expected, n, failed, streak = work(), 0, 0, 0
    while streak < 3:
        n += 1
        lib.tg_fail_allocation(n)
        try:
            given = work()
        except MemoryError:
            failed, given = failed + 1, None
        finally:
            lib.tg_fail_allocation(0)
        assert given is None or bits(list(given)) == bits(list(expected))
        streak = 0 if given is None else streak + 1
    assert failed > 20
    assert bits(list(work())) == bits(list(expected))


def test_a_loop_too_long_to_be_written_out_is_not_looked_at():
    p = record(lambda a: tapegrad.scan(lambda s, _: s * 0.5 + a, a, None, length=100)[0], 0.5)
    p._recorded.paths[0].calls[0].length = 10**9
    loop = record(lambda s, x: p(s), 0.5, None).scan(length=2)
    for ask in (lambda: p.heat(0.5), lambda: p.diagnose(0.5), lambda: tapegrad.draw(p), lambda: loop.heat(0.5)):
        with pytest.raises(ValueError, match=r"written out it has up to \d,\d\d\d,\d\d\d,\d\d\d nodes: too many"):
            ask()


def test_every_allocation_of_a_graph_may_fail():
    p = record(orbit, 0.5, 0.75, on_branch="record")
    expected, n, made = p(0.5, 0.75), 0, None
    while made is None:
        n += 1
        lib.tg_fail_allocation(n)
        try:
            made = Graph.of_program(p._recorded, p._recorded.flat((0.5, 0.75)))
        except MemoryError:
            assert n < 1000
        finally:
            lib.tg_fail_allocation(0)
    assert n > 50 and made.value(made.roots[0]) == expected


def test_a_loop_under_way_can_be_interrupted(script):
    """Also where it is one instruction of a program that has no other, or of the step of another loop."""
    out = script(
        "import os, signal, sys, threading, time, tapegrad\n"
        "p = tapegrad.record(lambda a: tapegrad.scan(lambda s, _: s * 0.999 + a, a, None, length=10**5)[0], 0.5)\n"
        "q = tapegrad.record(lambda a: p(a) * 2.0, 0.5)\n"
        "p._recorded.paths[0].calls[0].core.length = 10**10\n"
        "step = tapegrad.record(lambda s, x: s * 0.5, 0.5, None)\n"
        "ends, asks = step.scan(length=2, final=p), step.scan(length=2, until=p)\n"
        "for ask in (lambda: p(0.5), lambda: p.map()([0.5] * 20), lambda: q.grad(0.5), lambda: q.map()([0.5] * 20),\n"
        "            lambda: ends.grad(0.5, None), lambda: ends.map((0, None)).grad([0.5] * 20, None),\n"
        "            lambda: asks(0.5, None), lambda: asks.map((0, None))([0.5] * 20, None)):\n"
        "    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "    start = time.perf_counter()\n"
        "    try:\n        ask()\n    except KeyboardInterrupt:\n        print(time.perf_counter() - start < 5.0)\n"
    )
    assert out.stdout.split() == ["True"] * 8


def product(s, x):
    inner, _ = tapegrad.scan(lambda a, b: a * b + tapegrad.math.sin(a), s, [x, x + 1.0, 0.5])
    return inner * 0.5, inner * x


def test_gradients_at_values_go_through_loops_within_steps(tmp_path):
    step = record(product, 1.0, 2.0)
    final = record(lambda s: tapegrad.scan(lambda a, _: a.tanh(), s, length=3)[0], 1.0)
    loop, xs = step.scan(final=final), [0.5, 1.25]
    loss, grads = loop.value_and_grad(0.75, xs, argnums=(0, 1))
    second = loop.hvp(0.75, 1.0, xs)
    s = Value(0.75)
    found, by = loop.value_and_grad(s, xs, argnums=(0, 1))
    assert close([found.data, by[0].data, *(x.data for x in by[1])], [loss, grads[0], *grads[1]])
    by[0].backward()
    again = record(loop.grad, 0.75, xs)
    assert close([s.grad, tapegrad.grad(loop.grad)(0.75, xs), again.grad(0.75, xs)], [second] * 3)
    assert close(again(0.75, xs), grads[0])
    whole = record(lambda s: product(s, 1.0)[1], 0.5)
    assert close(tapegrad.grad(whole.grad)(0.5), whole.hessian(0.5))
    loop.save(tmp_path / "loop")
    loaded = tapegrad.load(tmp_path / "loop")
    assert close(loaded.grad(0.75, xs), grads[0])
    with pytest.raises(TypeError, match="and there is none: a saved program has none"):
        loaded.grad(s, xs)
