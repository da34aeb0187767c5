"""Loops: values are those of the unrolled function on Values, to the bit; gradients, too, within rounding, and the same
bits for every number of states that is kept, in lanes, on threads, native and loaded."""

from __future__ import annotations

import ast
import copy
import functools
import gc
import math
import os
import pathlib
import pickle
import re
import signal
import struct
import subprocess
import sys
import threading
import weakref
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapegrad._core import ffi

import tapegrad
import tapegrad.loops.chain
import tapegrad.program.native
from tapegrad import BranchChanged, Loop, Value, check_grads, record
from tapegrad.loops.loop import loaded
from tapegrad.loops.path import LoopPath

numbers = st.floats(-2, 2, allow_subnormal=False)
index = st.integers(0, 20)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "sub", "mul", "half", "tanh", "sin"]), index, index),
        st.tuples(st.just("branch"), index, index),
        st.tuples(st.just("where"), index, index),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


PLAIN = {
    "add": lambda a, b: a + b * 0.5, "sub": lambda a, b: a * 0.5 - b, "mul": lambda a, b: a * b * 0.25,
    "half": lambda a, b: a * 0.5, "tanh": lambda a, b: tapegrad.math.tanh(a), "sin": lambda a, b: tapegrad.math.sin(b),
}  # fmt: skip


def performed(steps, pool):
    """What these operations give, on floats or Values."""
    pool = list(pool)
    for name, i, j in steps:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        if name == "branch":
            pool.append(a * 0.5 if a < b else b * 0.25 + 0.125)
        elif name == "where":
            pool.append(tapegrad.where(tapegrad.greater(a, b), a * 0.5, b))
        else:
            pool.append(PLAIN[name](a, b))
    return pool


class Made:
    """A random step of a state of some numbers, one x, and params; and a final."""

    def __init__(self, steps, outs, n_params, with_y):
        self.steps, self.outs, self.n_params, self.with_y = steps, outs, n_params, with_y

    def __repr__(self):
        return f"Made({self.steps}, {self.outs}, {self.n_params}, {self.with_y})"

    def step(self, state, x, *params):
        pool = performed(self.steps, [*state, x, *params])
        after = [bounded(pool[k % len(pool)]) for k in self.outs]
        return (after, pool[-1] * 0.5 + after[0]) if self.with_y else after

    def final(self, state, *params):
        return state[0] * state[-1] + sum(params, state[0])

    def unrolled(self, state, xs, *params):
        """The loss, the last state, the ys."""
        loss, ys = 0.0, []
        for x in xs:
            out = self.step(state, x, *params)
            state = out[0] if self.with_y else out
            if self.with_y:
                ys.append(out[1])
                loss = loss + out[1]
        ended = self.final(state, *params)
        return loss + ended if self.with_y else ended, state, ys


def bounded(x):
    return tapegrad.math.tanh(x) + x * 0.125


@st.composite
def loops(draw, most=12):
    n_state, n_params = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    outs = draw(st.lists(index, min_size=n_state, max_size=n_state))
    made = Made(draw(operations), outs, n_params, draw(st.booleans()))
    state = draw(st.lists(numbers, min_size=n_state, max_size=n_state))
    xs = draw(st.lists(numbers, max_size=most))
    params = draw(st.lists(numbers, min_size=n_params, max_size=n_params))
    return made, state, xs, params


def recorded(made, state, params, **how):
    step = record(made.step, state, 0.5, *params, on_branch="record", max_paths=200)
    return step.scan(final=record(made.final, state, *params, on_branch="record"), **how)


def bits(x):
    """Numbers of a nest, as bytes."""
    if x is None:
        return b""
    if isinstance(x, (int, float)):
        return struct.pack("<d", x)
    return b"".join(map(bits, x))


def known(x):
    """The bits of numbers; of nan only that it is."""
    return [known(y) for y in x] if isinstance(x, (list, tuple)) else b"nan" if x != x else bits(x)


def data(items):
    return [x.data if isinstance(x, Value) else x for x in items]


def close(a, b):
    if isinstance(a, (int, float)):
        return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
    return len(a) == len(b) and all(map(close, a, b))


def gradients(loop, state, xs, params):
    argnums = (0, 1, *range(2, 2 + len(params)))
    return loop.value_and_grad(state, xs, *params, argnums=argnums)


@given(loops())
@settings(deadline=None, max_examples=60)
def test_a_loop_is_the_unrolled_function(drawn):
    made, state, xs, params = drawn
    loop = recorded(made, state, params)
    values = [list(map(Value, state)), list(map(Value, xs)), list(map(Value, params))]
    loss, last, ys = made.unrolled(values[0], values[1], *values[2])
    after, given_ys = loop(state, xs, *params)
    assert bits(after) == bits(data(last))
    assert bits(given_ys) == bits(data(ys))
    value, grads = gradients(loop, state, xs, params)
    assert bits(value) == bits(loss.data)
    loss.backward()
    assert close(grads[0], [v.grad for v in values[0]])
    assert close(grads[1], [v.grad for v in values[1]])
    assert close(grads[2:], [v.grad for v in values[2]])


@given(loops(), st.integers(1, 14))
@settings(deadline=None, max_examples=60)
def test_no_bit_depends_on_how_many_states_are_kept(drawn, checkpoints):
    made, state, xs, params = drawn
    expected = gradients(recorded(made, state, params), state, xs, params)
    assert bits(gradients(recorded(made, state, params, checkpoints=checkpoints), state, xs, params)) == bits(expected)


@given(loops(), st.lists(numbers, min_size=1, max_size=35), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_no_bit_depends_on_lanes_or_threads(drawn, firsts, threads):
    made, state, xs, params = drawn
    loop = recorded(made, state, params, checkpoints=3)
    states = [[x, *state[1:]] for x in firsts]
    batch = loop.map(in_axes=(0, *[None] * (1 + len(params))), threads=threads)
    values, grads = gradients(batch, states, xs, params)
    afters, ys = batch(states, xs, *params)
    for k, one in enumerate(states):
        value, grad = gradients(loop, one, xs, params)
        assert bits(values[k]) == bits(value)
        assert bits([g[k] for g in grads]) == bits(grad)
        after, own = loop(one, xs, *params)
        assert bits([x[k] for x in afters]) == bits(after)
        assert bits([y[k] for y in ys or ()]) == bits(own)


class Hoisting(Made):
    """One that computes numbers from params alone."""

    def step(self, state, x, *params):
        rates = [tapegrad.math.tanh(p * 0.5) * p for p in params]
        return super().step(state, x, *rates, *(a * rates[0] for a in rates))


@given(loops(), st.lists(numbers, min_size=2, max_size=20))
@settings(deadline=None, max_examples=20)
def test_gradients_that_nobody_asks_for_change_no_bit_of_the_others(drawn, firsts):
    made, state, xs, params = drawn
    loop = recorded(Hoisting(made.steps, made.outs, made.n_params, made.with_y), state, params)
    states = [[x, *state[1:]] for x in firsts]
    batch = loop.map(in_axes=(0, *[None] * (1 + len(params))), reduce="sum")
    _, grads = gradients(batch, states, xs, params)
    for k, grad in enumerate(grads):
        assert known(batch.grad(states, xs, *params, argnums=k)) == known(grad)


@given(loops(), st.integers(1, 14), st.lists(numbers, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_what_follows_from_params_alone_is_carried_out_once_and_gives_the_same_bits(drawn, checkpoints, firsts):
    made, state, xs, params = drawn
    straight = [one for one in made.steps if one[0] != "branch"]
    made, params = Hoisting(straight, made.outs, made.n_params, made.with_y), params or [0.75]
    step, final = record(made.step, state, 0.5, *params), record(made.final, state, *params)
    loop, few = step.scan(final=final), step.scan(final=final, checkpoints=checkpoints)
    values = [list(map(Value, state)), list(map(Value, xs)), list(map(Value, params))]
    loss, last, ys = made.unrolled(values[0], values[1], *values[2])
    after, given_ys = loop(state, xs, *params)
    value, grads = gradients(loop, state, xs, params)
    assert bits((after, given_ys, value)) == bits((data(last), data(ys) if made.with_y else None, loss.data))
    loss.backward()
    assert close(grads, ([v.grad for v in values[0]], [v.grad for v in values[1]], *(v.grad for v in values[2])))
    assert bits(gradients(few, state, xs, params)) == bits((value, grads))
    states = [[x, *state[1:]] for x in firsts]
    found, rows = gradients(few.map(in_axes=(0, *[None] * (1 + len(params)))), states, xs, params)
    for k, one in enumerate(states):
        value, grads = gradients(loop, one, xs, params)
        assert bits((found[k], [g[k] for g in rows])) == bits((value, grads))
    direction = ([1.0] * len(state), [0.5] * len(xs), *[0.25] * len(params))
    assert bits(loop.jvp((state, xs, *params), direction)[0]) == bits((after, given_ys))
    assert bits(loop.hvp(state, direction[0], xs, *params)) == bits(few.hvp(state, direction[0], xs, *params))


steep = st.sampled_from([0.0, 1.0, 0.5, 2.0**-1000, 2.0**-600, 2.0**600, 2.0**1000, 2.0**1023, math.inf, math.nan])
signed = st.tuples(steep, st.booleans()).map(lambda x: -x[0] if x[1] else x[0])


def steeply(how, state, x, *params):
    """A step whose numbers from params alone are huge, tiny, or have infinite slopes."""
    pool = [*params, *(abs(p).sqrt() for p in params)]
    for name, i, j in how:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        pool.append(a * b if name == "mul" else a + b if name == "add" else a - b)
    return state + x * pool[-1] + pool[-2] * (x * 0.5)


@given(
    st.lists(st.tuples(st.sampled_from(["mul", "mul", "add", "sub"]), index, index), min_size=1, max_size=6),
    st.lists(signed, min_size=1, max_size=2), st.lists(signed, max_size=6), st.integers(1, 5),
)  # fmt: skip
@settings(deadline=None, max_examples=120)
def test_sums_over_steps_overflow_cancel_and_meet_infinite_slopes_as_written_out(how, params, xs, checkpoints):
    """Where they do, what follows from params alone is swept in each step."""
    adds = [("add" if name == "sub" else name, i, j) for name, i, j in how]
    step, up = (record(functools.partial(steeply, way), 0.5, 0.5, *map(abs, params)) for way in (how, adds))
    loop, few = step.scan(), step.scan(checkpoints=checkpoints)

    def written_out(step, xs, params):
        values, loss = [Value(1.0), list(map(Value, xs)), *map(Value, params)], Value(1.0)
        values[0] = loss
        for x in values[1]:
            loss = step(loss, x, *values[2:])
        loss.backward()
        return loss.data, (values[0].grad, [x.grad for x in values[1]], *(p.grad for p in values[2:]))

    (loss, expected), (value, found) = written_out(step, xs, params), gradients(loop, 1.0, xs, params)
    sizes = written_out(up, list(map(abs, xs)), list(map(abs, params)))[1]  # what cancels, added up
    assert known((value, found[:2])) == known((loss, expected[:2]))
    for a, b, size in zip(found[2:], expected[2:], sizes[2:]):
        assert (math.isnan(a), math.isinf(a)) == (math.isnan(b), math.isinf(b))
        assert math.isnan(a) or a == b or abs(a - b) <= 1e-12 * size
    assert known(gradients(few, 1.0, xs, params)) == known((value, found))
    rows = few.map(in_axes=(None, None, *[0] * len(params)))
    columns = [[p, 1.0, -p] for p in params]
    values, grads = gradients(rows, 1.0, xs, columns)
    for k in range(3):
        one = gradients(loop, 1.0, xs, [column[k] for column in columns])
        assert known((values[k], [g[k] for g in grads])) == known(one)


def test_what_follows_from_params_alone_is_refused_in_the_first_step_in_the_order_of_the_function():
    def f(s, x, p):
        s = s / x
        return s * (p * 0.5 - 1.0).sqrt() + p.log()

    def lines(error):
        return int(re.search(r"in step 0(?: of row \d+)?, recorded at .*:(\d+)$", str(error.value))[1]) - first

    first, step = f.__code__.co_firstlineno, record(f, 1.0, 1.0, 3.0)
    loop = step.scan(final=record(lambda s: s * 2.0, 1.0))
    assert math.isclose(step.scan()(4.0, [2.0, 1.0], 4.0)[0], 2.0 + 2.0 * math.log(4.0))
    for call in (loop, loop.value_and_grad):
        with pytest.raises(ValueError) as caught:
            call(1.0, [1.0, 0.0], -1.0)
        assert lines(caught) == 2
        with pytest.raises(ZeroDivisionError) as caught:
            call(1.0, [0.0, 1.0], -1.0)
        assert lines(caught) == 1
        assert call(1.0, [], -1.0)[0] == (1.0 if call == loop else 2.0)
    with pytest.raises(ValueError, match="in step 0 of row 18, recorded") as caught:
        loop.map(in_axes=(None, None, 0)).grad(1.0, [1.0] * 3, [3.0] * 18 + [-1.0, 3.0], argnums=2)
    assert lines(caught) == 2
    ended = step.scan(length=3, until=lambda s: s > 0.0)
    assert ended(1.0, [1.0] * 3, -1.0) == (1.0, None, 0.0)
    nan = record(f, 1.0, 1.0, 3.0, on_error="nan").scan(checkpoints=1)
    found = nan.map(in_axes=(None, None, 0)).value_and_grad(1.0, [1.0] * 3, [4.0, -1.0, 3.0], argnums=2)
    alone = [nan.value_and_grad(1.0, [1.0] * 3, p, argnums=2) for p in (4.0, -1.0, 3.0)]
    assert bits(found) == bits(zip(*alone)) and math.isnan(found[0][1]) and not math.isnan(found[0][2])


@given(loops(most=6))
@settings(deadline=None, max_examples=40)
def test_derivatives_agree_with_each_other_and_with_differences(drawn):
    made, state, xs, params = drawn
    smooth = Made([s for s in made.steps if s[0] not in ("branch", "where")], made.outs, made.n_params, made.with_y)
    loop = recorded(smooth, state, params)
    args = (state, xs, *params)
    out, pull = loop.vjp(*args)
    direction = ([1.0] * len(state), [0.5] * len(xs), *[0.25] * len(params))
    again, tangent = loop.jvp(args, direction)
    assert bits(again) == bits(out) == bits(loop(*args))
    weights = tuple([1.0 + k for k in range(len(x))] if x is not None else None for x in out)
    back = pull(weights)
    along = sum(w * t for ws, ts in zip(weights, tangent) for w, t in zip(ws or (), ts or ()))
    dot = sum(a * b for g, d in zip(back, direction) for a, b in (zip(g, d) if isinstance(g, list) else [(g, d)]))
    assert math.isclose(along, dot, rel_tol=1e-9, abs_tol=1e-9)
    step = 1e-5
    for k in range(len(state)):
        moved = [[x + sign * step * (i == k) for i, x in enumerate(state)] for sign in (1, -1)]
        up, down = (loop.value_and_grad(s, xs, *params) for s in moved)
        assert math.isclose((up[0] - down[0]) / (2 * step), loop.grad(*args)[k], rel_tol=1e-4, abs_tol=1e-5)
        bent = [(a - b) / (2 * step) for a, b in zip(up[1], down[1])]
        unit = [float(i == k) for i in range(len(state))]
        hvp = loop.hvp(state, unit, xs, *params)
        assert all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in zip(bent, hvp))


# ---- examples of each thing that is said ----


def decay(state, x, rate):
    after = state * rate + x
    return after, after * after


@pytest.fixture
def loop():
    return record(decay, 1.0, 0.0, 0.5).scan()


def test_a_loop_gives_the_last_state_and_all_ys(loop):
    assert loop(1.0, [1.0, 2.0], 0.5) == (2.75, [2.25, 7.5625])
    assert loop(1.0, [], 0.5) == (1.0, [])
    assert loop(state=1.0, xs=[1.0], rate=0.5) == (1.5, [2.25])


def test_the_loss_is_the_sum_of_ys_and_what_final_gives(loop):
    assert loop.value_and_grad(1.0, [1.0, 2.0], 0.5) == (9.8125, 2 * 1.5 * 0.5 + 2 * 2.75 * 0.25)
    ended = loop.step.scan(final=record(lambda s: 10 * s, 1.0))
    assert ended.value_and_grad(1.0, [1.0, 2.0], 0.5)[0] == 9.8125 + 27.5
    assert ended.value_and_grad(1.0, [], 0.5, argnums=(0, 2)) == (10.0, (10.0, 0.0))


def test_the_state_is_the_loss_where_it_is_one_number_and_there_is_nothing_else():
    loop = record(lambda s, x: s * x, 1.0, 2.0).scan()
    assert loop.value_and_grad(1.0, [2.0, 3.0], argnums=(0, 1)) == (6.0, (6.0, [3.0, 2.0]))
    with pytest.raises(TypeError, match="neither, and the state has several"):
        record(lambda s, x: [s[1], s[0] * x], [1.0, 2.0], 1.0).scan().grad([1.0, 2.0], [1.0])


def test_a_loop_without_xs_takes_a_length():
    step = record(lambda s, x, k: s * k, 1.0, None, 2.0)
    assert step.scan(length=10)(1.0, None, 2.0) == (1024.0, None)
    with pytest.raises(ValueError, match="says how many steps"):
        step.scan()(1.0, None, 2.0)
    with pytest.raises(ValueError, match="xs has 3 steps, the loop was made for 2"):
        record(decay, 1.0, 0.0, 0.5).scan(length=2)(1.0, [0.0] * 3, 0.5)


def test_state_and_xs_are_trees():
    def f(state, x, p):
        return {"a": state["b"] * x["u"], "b": state["a"] + x["v"][0] * p}, {"sum": state["a"], "two": [x["u"], p]}

    loop = record(f, {"a": 1.0, "b": 2.0}, {"u": 1.0, "v": (1.0, 2.0)}, 3.0).scan()
    rows = [{"u": 2.0, "v": (1.0, 0.0)}, {"u": 4.0, "v": (3.0, 0.0)}, {"u": 5.0, "v": (7.0, 0.0)}]
    spread = {"u": [2.0, 4.0, 5.0], "v": [(1.0, 0.0), (3.0, 0.0), (7.0, 0.0)]}
    state = {"a": 1.0, "b": 2.0}
    expected, ys = state, []
    for x in rows:
        expected, y = f(expected, x, 3.0)
        ys.append(y)
    for xs in (rows, spread):
        after, got = loop(state, xs, 3.0)
        assert after == expected
        assert got == {"sum": [y["sum"] for y in ys], "two": [y["two"] for y in ys]}
    final = record(lambda s: s["a"] * s["b"], state)
    ended = record(lambda s, x, p: f(s, x, p)[0], state, rows[0], 3.0).scan(final=final)
    by_row, by_leaf = ended.grad(state, rows, 3.0, argnums=1), ended.grad(state, spread, 3.0, argnums=1)
    assert [x["u"] for x in by_row] == by_leaf["u"] != [0.0] * 3
    assert [x["v"] for x in by_row] == by_leaf["v"]


def test_arrays_come_and_go():
    numpy = pytest.importorskip("numpy")
    loop = record(lambda s, x: ([s[1], s[0] * x[0] + x[1]], s[0]), numpy.ones(2), numpy.ones(2)).scan()
    xs = numpy.arange(10.0).reshape(5, 2)
    _, ys = loop(numpy.ones(2), xs)
    assert isinstance(ys, numpy.ndarray) and ys.shape == (5,)
    assert loop(numpy.ones(2), xs.tolist())[1].tolist() == ys.tolist()
    grad = loop.grad(numpy.ones(2), xs, argnums=1)
    assert grad.shape == xs.shape
    batch = loop.map(in_axes=(0, None), reduce="sum")
    assert batch.grad(numpy.ones((3, 2)), xs, argnums=1).tolist() == (3 * grad).tolist()
    rows = loop.map(in_axes=(None, 0))
    many = numpy.stack([xs, 2 * xs])
    assert rows(numpy.ones(2), many)[1].shape == (2, 5)
    assert rows.grad(numpy.ones(2), many, argnums=1)[0].tolist() == grad.tolist()


def test_until_ends_each_row_by_itself():
    def f(s, x):
        return [s[0] * 2.0, s[1] + 1.0], s[0]

    step = record(f, [1.0, 0.0], None)
    for until in (lambda s: s[0] > 20.0, record(lambda s: tapegrad.greater(s[0], 20.0), [1.0, 0.0])):
        loop = step.scan(length=8, until=until, checkpoints=2)
        state, ys, steps = loop([1.0, 0.0], None)
        assert (state, steps) == ([32.0, 5.0], 5.0)
        assert ys[:5] == [1.0, 2.0, 4.0, 8.0, 16.0] and all(map(math.isnan, ys[5:]))
        assert loop([1e-3, 0.0], None)[2] == 8.0
        assert loop([21.0, 0.0], None)[0] == [21.0, 0.0]
        assert loop.grad([1.0, 0.0], None) == [31.0, 0.0]
        starts = [[0.5 * k, 0.0] for k in range(1, 50)]
        (_, counted), _, steps = loop.map(in_axes=(0, None))(starts, None)
        assert counted == steps == [loop(s, None)[2] for s in starts]
        assert loop.map(in_axes=(0, None)).grad(starts, None) == [loop.grad(s, None) for s in starts]
        alone, (_, ys, total) = [loop(s, None) for s in starts], loop.map((0, None), reduce="sum")(starts, None)
        assert total == sum(steps)
        assert ys == [sum(one[k] for _, one, n in alone if k < n) for k in range(8)]
    with pytest.raises(ValueError, match="until takes a length"):
        step.scan(until=lambda s: s[0] > 1.0)


def test_a_loop_that_ends_by_itself_costs_what_it_does_not_what_it_may():
    step = record(lambda s, x, k: (s * k, s), 1.0, None, 0.5)
    loop = step.scan(length=2**40, until=lambda s: s < 0.1)
    assert loop.value_and_grad(1.0, None, 0.5) == (1.875, 1.875)
    assert loop.map(in_axes=(0, None, None)).grad([1.0, 2.0], None, 0.5) == [1.875, 1.9375]
    ended = record(lambda s, x: s * 0.5, 1.0, None).scan(length=2**40, until=lambda s: s < 0.1)
    assert ended(1.0, None) == (0.0625, None, 4.0)


def test_each_step_takes_its_own_path():
    def collatz(s, x):
        return (s * 0.5 if s % 2 == 0 else 3.0 * s + 1.0), s

    step = record(collatz, 4.0, None, on_branch="record")
    loop = step.scan(length=30, checkpoints=4)
    state, ys = loop(7.0, None)
    expected, s = [], 7.0
    for _ in range(30):
        expected.append(s)
        s = collatz(s, None)[0]
    assert (state, ys) == (s, expected)
    assert loop.step.stats["paths"] == 2
    slope = sum(math.prod(0.5 if s % 2 == 0 else 3.0 for s in expected[:k]) for k in range(30))
    assert math.isclose(loop.grad(7.0, None), slope)
    starts = [float(k) for k in range(1, 60)]
    batch = loop.map(in_axes=(0, None))
    assert batch.grad(starts, None) == [loop.grad(s, None) for s in starts]


def test_a_step_may_be_a_wide_program_with_branches():
    def f(state, x):
        after = [(s * 0.75 + x * 0.125 if s > 0.0 else s * 0.5 - x * 0.25) + a * b * 0.01
                 for s, a, b in zip(state, state[1:] + state[:1], state[2:] + state[:2])]  # fmt: skip
        return [tapegrad.math.tanh(a) for a in after], tapegrad.sum(after)

    def start(k):
        return [math.sin(3 * i + k) for i in range(90)]

    step = record(f, [1.0] * 90, 0.5, on_branch="record", max_paths=200)
    assert step.stats["groups"] > 0
    loop, xs = step.scan(checkpoints=2), [0.5, -2.0, 0.25, 1.0, -0.5]
    values, total, end = list(map(Value, start(0))), 0.0, None
    for x in xs:
        end, y = f(end or values, x)
        total = total + y
    total.backward()
    assert bits(loop(start(0), xs)[0]) == bits(data(end))
    value, grad = loop.value_and_grad(start(0), xs)
    assert bits(value) == bits(total.data)
    assert close(grad, [v.grad for v in values])
    batch = loop.map(in_axes=(0, None), threads=2)
    for k, (one, slopes) in enumerate(zip(*batch.value_and_grad([start(k) for k in range(21)], xs))):
        expected, own = loop.value_and_grad(start(k), xs)
        assert bits(one) == bits(expected)
        assert bits(slopes) == bits(own)


def test_what_branches_or_refuses_names_the_step_and_the_row():
    step = record(lambda s, x: s - x if s > 0.0 else s, 1.0, 1.0)
    loop = step.scan()
    with pytest.raises(BranchChanged, match="is False in step 3, was True") as caught:
        loop(3.0, [1.0] * 9)
    assert (caught.value.step, caught.value.row) == (3, None)
    with pytest.raises(BranchChanged, match="in step 2 of row 17") as caught:
        loop.map(in_axes=(0, None)).grad([50.0] * 17 + [2.0] + [1.0] * 5, [1.0] * 9)
    assert (caught.value.step, caught.value.row) == (2, 17)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.step == 2
    logs = record(lambda s, x: (s - x).log() + 5.0, 3.0, 1.0).scan()
    with pytest.raises(ValueError, match="in step 1"):
        logs(3.0, [1.0, 10.0])
    with pytest.raises(ZeroDivisionError, match="in step 0, recorded"):
        record(lambda s, x: s / x, 1.0, 1.0).scan()(1.0, [0.0])
    nan = record(lambda s, x: s / x, 1.0, 1.0, on_error="nan").scan()
    assert math.isnan(nan(1.0, [0.0, 1.0])[0])


def test_a_loop_asks_for_no_more_paths_than_are_kept():
    step = record(lambda s, x: s * x if s < x else s - x, 1.0, 2.0, on_branch="record", max_paths=1)
    with pytest.raises(BranchChanged, match="a loop needs all paths of the step, and 1 are known"):
        step.scan()(3.0, [2.0])


def test_params_of_the_step_may_be_those_of_final():
    w, b = Value(2.0), Value(3.0)
    step = record(lambda s, x: s * w + b, 1.0, None, params=[w, b])
    loop = step.scan(length=2, final=record(lambda s: s * b, 1.0, params=[b]))
    assert loop.value_and_grad(1.0, None, argnums=(0, "params")) == (39.0, (12.0, [21.0, 22.0]))
    with pytest.raises(ValueError, match="params that the step does not have"):
        step.scan(length=2, final=record(lambda s: s * w, 1.0, params=[Value(1.0)]))
    again = pickle.loads(pickle.dumps(loop))
    assert again.grad(1.0, None, argnums="params") == [21.0, 22.0]
    deep = copy.deepcopy(loop)
    deep.params[1].data = 4.0
    assert deep.value_and_grad(1.0, None)[0] == 64.0 != loop.value_and_grad(1.0, None)[0]


def test_a_shared_state_slot_and_a_step_that_ignores_its_state():
    swap = record(lambda s, x: [s[1], s[0]], [1.0, 2.0], None)
    ended = swap.scan(length=3, final=record(lambda s: s[0] * 10.0 + s[1], [1.0, 2.0]))
    assert ended.value_and_grad([1.0, 2.0], None) == (21.0, [1.0, 10.0])
    ignoring = record(lambda s, x: x * x, 1.0, 1.0).scan()
    assert ignoring.value_and_grad(5.0, [2.0, 3.0], argnums=(0, 1)) == (9.0, (0.0, [0.0, 6.0]))
    constant = record(lambda s, x: 4.0, 1.0, 1.0).scan()
    assert constant.value_and_grad(5.0, [2.0], argnums=(0, 1)) == (4.0, (0.0, [0.0]))


def test_what_is_no_step_is_refused():
    with pytest.raises(TypeError, match="a step takes a state, x and params"):
        record(lambda s: s, 1.0).scan()
    with pytest.raises(ValueError, match=r"must give the next state, which is a list of 2, or \(state, y\)"):
        record(lambda s, x: s[0], [1.0, 2.0], 1.0).scan()
    with pytest.raises(ValueError, match=r"it gives a tuple of 2, in which \[1\]\['b'\] is 'kk', not 'k'$"):
        record(lambda s, x: (s[0], {"a": x, "b": "kk"}), (1.0, {"a": 2.0, "b": "k"}), 1.0).scan()
    step = record(decay, 1.0, 0.0, 0.5)
    with pytest.raises(TypeError, match="final must be a program, not 'function'"):
        step.scan(final=decay)
    with pytest.raises(TypeError, match="final must take the state"):
        step.scan(final=record(lambda s: s[0], [1.0, 2.0]))
    with pytest.raises(TypeError, match="final must give one number"):
        step.scan(final=record(lambda s: [s, s], 1.0))
    for bad in (-1, 1.5, "3", True):
        with pytest.raises(ValueError, match="length must be an integer of 0 or more"):
            step.scan(length=bad)
    with pytest.raises(ValueError, match="checkpoints must be an integer of 1 or more"):
        step.scan(checkpoints=0)
    with pytest.raises(TypeError, match="takes 3 arguments, not 2"):
        step.scan()(1.0, [1.0])
    with pytest.raises(ValueError, match="threads must be a positive integer, not 0"):
        step.scan().map(threads=0)
    with pytest.raises(ValueError, match="reduce must be 'mean', 'sum' or None, not 'max'"):
        step.scan().map(reduce="max")


def test_a_loop_on_values_is_recorded_step_by_step(loop):
    x, k = Value(1.0), Value(0.5)
    state, ys = loop(x, [1.0, 2.0], k)
    assert (state.data, [y.data for y in ys]) == loop(1.0, [1.0, 2.0], 0.5)
    value, (by_x, by_k) = loop.value_and_grad(x, [1.0, 2.0], k, argnums=(0, 2))
    expected = loop.value_and_grad(1.0, [1.0, 2.0], 0.5, argnums=(0, 2))
    assert (value.data, (by_x.data, by_k.data)) == expected
    p = record(lambda s, xs, k: loop(s, xs, k)[0] * 2.0, 1.0, [1.0, 2.0], 0.5)
    assert p(1.0, [1.0, 2.0], 0.5) == 5.5
    assert close(tapegrad.grad(lambda s: loop(s, [1.0, 2.0], 0.5)[0])(1.0), 0.25)


@pytest.mark.parametrize("until", [lambda s: s[1] > 2.5, record(lambda s: tapegrad.greater(s[1], 2.5), [1.0, 0.0])])
def test_on_values_a_loop_ends_where_it_ends_on_numbers(until):
    step = record(lambda s, x: ([s[0] * 0.5 + x, s[1] + 1.0], s[0] * x), [1.0, 0.0], 1.0)
    loop, xs = step.scan(length=5, until=until), [0.5, 1.0, 2.0, 4.0, 8.0]
    state, ys, steps = loop(list(map(Value, [1.0, 0.0])), xs)
    assert bits((data(state), data(ys), steps)) == bits(loop([1.0, 0.0], xs))
    assert (steps, len(ys)) == (3.0, 5)
    loss, (by_state, by_x) = loop.value_and_grad(list(map(Value, [1.0, 0.0])), xs, argnums=(0, 1))
    assert (loss.data, (data(by_state), data(by_x))) == loop.value_and_grad([1.0, 0.0], xs, argnums=(0, 1))
    outer = record(lambda a, xs: loop([a, a - 1.0], xs)[0], 1.0, xs)
    assert outer(1.0, xs) == loop([1.0, 0.0], xs)[0]
    with pytest.raises(BranchChanged):
        outer(2.0, xs)


def test_what_would_be_refused_is_nan_on_values_too():
    def bits_of(program, *args):
        return known([data([program(*map(Value, args))]), [program(*args)]])

    logs = record(lambda x: x.log(), 1.0, on_error="nan")
    sums = record(lambda x, y: tapegrad.math.fsum([x, y, 1.0]), 1.0, 2.0, on_error="nan")
    caught = record(lambda x: tapegrad.math.exp(x) if x < 0.0 else 1.0 / x, 1.0, on_error="nan")
    for program, args in ((logs, (0.0,)), (logs, (-1.0,)), (sums, (math.inf, -math.inf)), (caught, (0.0,))):
        assert bits_of(program, *args) == [[b"nan"]] * 2
    assert bits_of(logs, math.inf) == known([[math.inf]] * 2)
    assert bits_of(record(logs, 1.0, on_error="nan"), 0.0) == [[b"nan"]] * 2
    loop = record(lambda s, x: (s / x, s * 0.1), 1.0, 1.0, on_error="nan").scan()
    xs = [1.0, 0.0, 2.0]
    state, ys = loop(Value(1.0), xs)
    assert known((state.data, data(ys))) == known(loop(1.0, xs))
    value, by = loop.value_and_grad(Value(1.0), xs, argnums=1)
    assert known((value.data, data(by))) == known(loop.value_and_grad(1.0, xs, argnums=1))


def test_ys_that_are_numbers_are_added_one_after_the_other_on_values_too():
    """sum() of floats compensates from CPython 3.12 on."""
    loop = record(lambda s, x: (s * x, 0.1), 1.0, 1.0).scan()
    value, by = loop.value_and_grad(Value(1.0), [1.0] * 10)
    assert (value.data, by.data) == loop.value_and_grad(1.0, [1.0] * 10) == (0.9999999999999999, 0.0)


def test_gradients_at_values_are_by_each_argument_alone():
    """A state that is among the xs and the params, and params that the step closes over, of a loaded loop as well."""
    w, a = Value(2.0), Value(3.0)
    step = record(lambda s, x, k: (s * w + x * k, s * x), 1.0, 0.5, 1.0, params=[w])
    loop, by = step.scan(final=record(lambda s, k: s * w * k, 1.0, 1.0, params=[w])), (0, 1, 2, "params")
    loss, expected = loop.value_and_grad(3.0, [3.0, 9.0], 2.0, argnums=by)
    for one in (loop, pickle.loads(pickle.dumps(loop))):
        value, (state, xs, k, params) = one.value_and_grad(a, [a, a * a], w, argnums=by)
        assert (value.data, (state.data, data(xs), k.data, data(params))) == (loss, expected)
    loop.grad(a, [a, a * a], w).backward()
    ends = [loop.grad(3.0 + h, [3.0 + h, (3.0 + h) ** 2], 2.0) for h in (0.5, -0.5)]
    assert a.grad == ends[0] - ends[1]  # a polynomial of degree 2


def test_until_may_take_params_on_values_too():
    until = record(lambda s, k: tapegrad.greater(s, k * 2.0), 1.0, 0.5)
    loop, xs = record(decay, 1.0, 0.0, 0.5).scan(length=5, until=until), [1.0] * 5
    expected = loop(0.5, xs, 0.8)
    assert expected[2] == 2.0
    for k in (0.8, Value(0.8)):
        state, ys, steps = loop(Value(0.5), xs, k)
        assert bits((state.data, data(ys), steps)) == bits(expected)
    loss, by = loop.value_and_grad(0.5, xs, Value(0.8), argnums=2)
    assert (loss.data, by.data) == loop.value_and_grad(0.5, xs, 0.8, argnums=2)
    assert record(lambda a, k: loop(a, xs, k)[0], 0.5, 0.8)(0.5, 0.8) == expected[0]


def test_ys_of_no_steps_are_empty_on_values():
    assert record(decay, 1.0, 0.0, 0.5).scan()(Value(1.0), [], 0.5)[1] == []


def test_what_are_no_steps_is_refused_on_numbers_and_on_values():
    loop = record(lambda s, x: s + x["u"] * x["v"], 0.0, {"u": 1.0, "v": 1.0}).scan()
    odd = {"u": [1.0, 2.0], "v": [1.0, 2.0, 3.0]}
    for call in (lambda: loop(0.0, odd), lambda: loop(Value(0.0), odd), lambda: tapegrad.scan(loop.step, 0.0, odd)):
        with pytest.raises(ValueError, match="xs has 2 and 3 steps"):
            call()
    for xs in (range(2), iter([1.0, 2.0]), "ab", 3.0):
        with pytest.raises(TypeError, match="xs must be a list or an array of steps"):
            tapegrad.scan(lambda s, x: s, 0.0, xs, length=2)
    for bad in (-1, True):
        with pytest.raises(ValueError, match=f"length must be an integer of 0 or more, not {bad}"):
            tapegrad.scan(lambda s, x: s, 0.0, length=bad)
    with pytest.raises(ValueError, match="y is a list of 2 in step 2, and was a number before"):
        tapegrad.scan(lambda s, x: (s + 1.0, s if s < 2.0 else [s, s]), 0.0, length=4)
    with pytest.raises(ValueError, match="y is none in step 2, and was a number before"):
        tapegrad.scan(lambda s, x: (s + 1.0, s if s < 2.0 else None), 0.0, length=4)
    named = record(lambda s, x: s * 2.0 if x == "twice" else s, 1.0, "twice").scan(length=3)
    assert named(1.0, "twice")[0] == named(Value(1.0), "twice")[0].data == 8.0


@given(loops(most=5))
@settings(deadline=None, max_examples=30)
def test_scan_on_values_is_the_loop_written_out(drawn):
    made, state, xs, params = drawn
    _, last, ys = made.unrolled([Value(x) for x in state], xs, *params)
    after, got = tapegrad.scan(made.step, [Value(x) for x in state], xs, *params)
    assert bits(data(after)) == bits(data(last))
    assert bits(data(got or ())) == bits(data(ys))


def test_scan_nests_and_is_recorded():
    def row(s, x, k):
        inner, _ = tapegrad.scan(lambda a, b: a * k + b, s, x)
        return inner, inner * inner

    def f(s, xs, k):
        last, ys = tapegrad.scan(row, s, xs, k)
        return last + sum(ys)

    args = 1.0, [[1.0, 2.0], [3.0, 4.0], [0.5, 0.25]], 0.5
    p = record(f, *args)
    assert p(*args) == f(*args)
    check_grads(f, *args)
    assert tapegrad.scan(lambda s, x: s + 1.0, 0.0, length=3) == (3.0, None)
    assert tapegrad.scan(lambda s, x: (s + x["u"], {"v": s}), 0.0, {"u": [1.0, 2.0]}) == (3.0, {"v": [0.0, 1.0]})
    with pytest.raises(ValueError, match="a loop without xs takes a length"):
        tapegrad.scan(lambda s, x: s, 0.0)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("branches", [False, True])
def test_native_code_gives_the_same_bits(ends, branches):
    def f(s, x, k):
        a, b = s
        rate = tapegrad.math.sqrt(k + 1.0) * k
        c = a * rate + b.tanh() * x if not branches or a > b else a - b * 0.5
        return [b, c], c * c * rate + a

    how = {"length": 40, "until": lambda s: s[0] > 3.0} if ends else {}
    step = record(f, [1.0, 0.5], 0.5, 0.75, on_branch="record" if branches else "raise")
    loop = step.scan(final=record(lambda s, k: s[0] * s[1] * k, [1.0, 1.0], 0.5), checkpoints=5, **how)
    xs = [math.sin(k) for k in range(40)]
    args = [math.cos(1.0), 0.5], xs, 0.75
    states = [[math.cos(k), 0.1 * k] for k in range(40)]
    batch = loop.map(in_axes=(0, None, None), threads=2)

    def everything():
        hvp = loop.hvp(args[0], [1.0, 2.0], *args[1:])
        return bits([gradients(loop, *args[:2], args[2:]), loop(*args), gradients(batch, states, xs, args[2:]), hvp])

    expected = everything()
    assert everything() == expected
    assert loop.native() is loop
    assert everything() == expected


def rewired(state, x, k):
    """A step with all that a state, a y, an x and a param can be: passed on, given twice, a number, for nobody."""
    a, b, c, _, e, f, _ = state
    rate = tapegrad.math.sqrt(k[0] * k[0] + 1.0) * 0.25
    more = tapegrad.where(tapegrad.greater(a, b), a * rate, b - x[0] * k[0])
    root = tapegrad.math.sqrt(tapegrad.maximum(more, 0.0) + 1e-300)
    return [b, more * 0.5 + a / (c + 3.0), rate, 2.0, b, x[0], k[1]], root * k[1] + e * more + x[0] * f


@functools.cache
def chained(on_error):
    """A loop and a compiled one, all of whose steps are carried out at once."""
    args = [0.5] * 7, [0.25, 1.0], [0.75, -0.5]
    step, compiled = (record(rewired, *args, on_error=on_error) for _ in range(2))
    final = record(lambda s, k: s[0] * s[1] + k[1] * s[4], args[0], args[2])
    made = compiled.scan(final=final).native()
    assert made._cells[0].described()[0].chain
    return step.scan(final=final), made


def told(f, *args, **how):
    """What it gives or raises."""
    try:
        return known(f(*args, **how))
    except (ValueError, OverflowError, ZeroDivisionError, BranchChanged) as error:
        return type(error), str(error)


@given(st.data(), st.sampled_from([0, 1, 15, 16, 17, 33, 40]), st.sampled_from([1, 2, 16, 19, 33]))
@settings(deadline=None, max_examples=20)
def test_all_steps_at_once_give_the_same_bits(data, n, rows):
    """Compiled, of a loop whose steps are noted; also where numbers are not finite, or it goes on step by step."""
    odd = st.sampled_from([0.0, -0.0, 5e-324, 1e-310, -3.0, 1e160, 1e300, 1e308])
    some = st.one_of(numbers, numbers, odd) if data.draw(st.booleans()) else numbers
    few = data.draw(st.lists(some, min_size=8, max_size=8))
    states = [[few[(3 * r + k) % 7] for k in range(7)] for r in range(rows)]
    xs = [[[few[(r + k) % 5], float(k)] for k in range(n)] for r in range(rows)]
    params, how = few[6:], {"argnums": (0, 1, 2)}

    def everything(loop):
        batch, added = (loop.map(in_axes=(0, 0, None), reduce=reduce) for reduce in (None, "sum"))
        yield told(loop, states[0], xs[0], params)
        yield told(loop.value_and_grad, states[0], xs[0], params, **how)
        yield told(batch, states, xs, params)
        yield told(batch.value_and_grad, states, xs, params, **how)
        yield told(batch.value_and_grad, states, xs, params, argnums=2)
        yield told(added.value_and_grad, states, xs, params, **how)
        yield told(lambda: loop.map(in_axes=(0, None, 0)).grad(states, xs[0], [params] * rows, argnums=(0, 2)))
        yield told(lambda: batch.vjp(states, xs, params)[1]((states, [few[:1] * n] * rows), **how))

    loop, made = chained(data.draw(st.sampled_from(["raise", "nan"])))
    for expected, got in zip(everything(loop), everything(made)):
        assert got == expected


def damped(s, x, k):
    a, b = s
    for _ in range(10):
        a, b = a * tapegrad.math.exp(-k[0]) + b / x, tapegrad.math.sin(a) + k[1] * b
    return [a, b], a * b + x * k[1]


@pytest.mark.parametrize("rows, n", [(1, 6_000), (17, 400)])
def test_many_steps_are_noted_a_unit_at_a_time_and_give_the_same_bits(rows, n):
    """Compiled, of a loop too long to note all steps at once, for every number of states; also where one refuses."""
    args = [0.5, -0.25], 3.0, [0.5, 0.25]
    step, compiled = (record(damped, *args) for _ in range(2))
    compiled.native()
    random = Random(n)
    xs = [[random.uniform(2.0, 4.0) for _ in range(n)] for _ in range(rows)]
    states = [[random.uniform(-1.0, 1.0) for _ in range(2)] for _ in range(rows)]
    weights = [[0.5, 2.0]] * rows, [x[::-1] for x in xs]
    bad = [*xs[:-1], [*xs[-1][:-5], 0.0, *xs[-1][-4:]]]

    def everything(recorded, checkpoints):
        loop = recorded.scan(checkpoints=checkpoints)
        noted = loop._cells[0].described()[0].chain
        assert not noted or 8 * noted.n_noted * n * min(rows, 16) > 2**20
        many = loop if rows == 1 else loop.map(in_axes=(0, 0, None))
        of = [a[0] if rows == 1 else a for a in (states, xs, bad, *weights)]
        yield told(many.vjp(of[0], of[1], args[2])[1], tuple(of[3:]), argnums=(0, 1, 2))
        yield told(recorded.scan(checkpoints=checkpoints, final=ended).map(in_axes=(0, 0, None)).value_and_grad,
                   states, xs, args[2], argnums=(0, 1, 2))  # fmt: skip
        yield told(many.value_and_grad, of[0], of[2], args[2])

    ended = record(lambda s, k: s[0] * s[1] * k[0], args[0], args[2])
    expected = [*everything(step, None)]
    assert "division" in expected[-1][1]
    for checkpoints in None, 1, 2, 5:
        assert [*everything(compiled, checkpoints)] == expected


@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_what_compiled_loops_carry_out_once_is_refused_as_it_was(on_error):
    def f(s, x, k):
        return s * 0.5 + x * tapegrad.math.exp(k)

    step, compiled = (record(f, 0.5, 0.25, 0.75, on_error=on_error).scan() for _ in range(2))
    compiled.native()
    for k in 800.0, -1.0, math.inf:
        expected, got = (
            [
                told(loop.value_and_grad, 0.5, [1.0, 2.0], k, argnums=(0, 1, 2)),
                told(loop.map(in_axes=(None, None, 0)), 0.5, [1.0, 2.0], [0.5, k, 0.25]),
            ]
            for loop in (step, compiled)
        )
        assert got == expected


def test_a_step_that_sums_many_terms_or_is_long_is_compiled_by_itself():
    def summing(s, x, w):
        return tapegrad.dot([s, *w[1:]], w) * 0.1

    def long(s, x, w):
        for _ in range(300):
            s = (s * w[0] + x).sin()
        return s

    for f in summing, long:
        step, compiled = (record(f, 0.5, 0.25, [0.5] * 20).scan() for _ in range(2))
        compiled.native()
        assert not compiled._cells[0].described()[0].chain
        expected, got = (one.grad(0.5, [0.25] * 5, [0.5] * 20, argnums=2) for one in (step, compiled))
        assert got == expected


def test_whether_a_step_has_a_chain_is_found_out_once_and_what_is_given_out_is_held(monkeypatch):
    asked = []
    monkeypatch.setattr(tapegrad.loops.chain, "write", lambda *args: asked.append(args))
    loop = record(lambda s, x: s + x, 0.5, 0.25).scan().native()
    assert [loop(0.0, [0.25] * n)[0] for n in range(4)] == [0.0, 0.25, 0.5, 0.75] and len(asked) == 1
    cell, made = loop._cells[0], []

    def compiled_anew(self):
        made.append((ffi.new("tg_chain *"),))
        return made[-1]

    monkeypatch.setattr(tapegrad.loops.cell.Cell, "_chain", property(compiled_anew), raising=False)  # by other threads
    described = cell.described()
    assert described[0].chain == described[-1][0]


def spiral(s, x, w):
    return s * x + tapegrad.math.sin(w), s


def test_all_loops_over_a_compiled_step_share_what_is_compiled_for_loops(monkeypatch):
    made = []
    for module in (tapegrad.program.native, tapegrad.loops.chain):
        real = module.compiled
        monkeypatch.setattr(module, "compiled", lambda *args, real=real: made.append(real) or real(*args))
    step = record(spiral, 0.5, 0.25, 2.0).native()
    expected = record(spiral, 0.5, 0.25, 2.0).scan().value_and_grad(0.5, [0.25] * 9, 2.0)
    loops, found = [step.scan() for _ in range(4)], []
    threads = [
        threading.Thread(target=lambda loop=loop: found.append(loop.value_and_grad(0.5, [0.25] * 9, 2.0)))
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for loop in (loops[0], copy.copy(loops[0]), step.scan(length=9, checkpoints=2), step.scan().native()):
        found.append(loop.value_and_grad(0.5, [0.25] * 9, 2.0))
    assert found == [expected] * 8
    assert len(made) == 3  # the step, what is hoisted, the chain
    paths = weakref.ref(step._recorded.paths[0])
    kept = weakref.ref(next(iter(step._recorded.paths[0].hoisted.values())))
    del step, loop, loops, threads
    gc.collect()
    assert paths() is None and kept() is None


def test_a_file_has_the_answers_of_until_that_came_before_it_was_written(tmp_path):
    def again(loop):
        loop.save(tmp_path / "loop.tg")
        return tapegrad.load(tmp_path / "loop.tg")(1.0, None)

    step = record(lambda s, x: s * 0.5, 1.0, None)
    asked = step.scan(length=9, until=lambda s: s < 0.1)
    numbered = step.scan(length=9, until=lambda s: tapegrad.less(s, 0.1))
    with pytest.raises(BranchChanged, match="; call a loop before it is saved, or have until give a number, such as"):
        again(asked)
    counted = asked(1.0, None)
    assert again(asked) == again(numbered) == counted == (0.0625, None, 4.0)


def test_a_loop_is_saved_pickled_and_copied(loop, tmp_path):
    ended = loop.step.scan(final=record(lambda s, k: s * k, 1.0, 0.5), checkpoints=2)
    until = loop.step.scan(length=3, until=record(lambda s: tapegrad.greater(s, 2.0), 1.0))
    args = 1.0, [1.0, 2.0, 3.0], 0.5
    for one in (loop, ended, until):
        one.save(tmp_path / "loop.tg")
        loaded_one = tapegrad.load(tmp_path / "loop.tg")
        for other in (loaded_one, pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
            assert isinstance(other, Loop)
            assert bits(other(*args)) == bits(one(*args))
            assert bits(gradients(other, *args[:2], args[2:])) == bits(gradients(one, *args[:2], args[2:]))
            assert (other.length, other.checkpoints) == (one.length, one.checkpoints)
    batch = pickle.loads(pickle.dumps(ended.map(in_axes=(0, None, None), reduce="mean")))
    assert batch.grad([1.0, 2.0], [1.0], 0.5, argnums=2) == ended.map((0, None, None), "mean").grad(
        [1.0, 2.0], [1.0], 0.5, argnums=2
    )


def test_files_of_loops_are_not_trusted(loop):
    w = Value(2.0)
    made = record(lambda s, x: s * w, 1.0, 1.0, params=[w])
    data = made.scan(final=record(lambda s: s * w, 1.0, params=[w]), length=3)._encoded()
    assert loaded(data).grad(1.0, [1.0] * 3, argnums="params") == [32.0]
    count, refused = int(os.environ.get("TAPEGRAD_FUZZ", "3000")), 0
    import random

    draw = random.Random(1)
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        if draw.random() < 0.2:
            del mutant[draw.randrange(len(mutant)) :]
        if draw.random() < 0.9 and len(mutant) > 12:  # with checksums that are right
            mutant = bytearray(summed(bytes(mutant), len(data)))
        try:
            other = loaded(bytes(mutant))
        except ValueError:
            refused += 1
            continue
        try:
            other.value_and_grad(1.0, [1.0] * 3)
        except (ValueError, TypeError, ZeroDivisionError, OverflowError, BranchChanged):
            pass
    assert refused > count // 4


def summed(data, length):
    """These bytes with the checksums of the file and of what is in it right."""
    import binascii

    if len(data) == length:
        start = data.find(b"\x89TGP", 8)
        while start >= 0:
            following = data.find(b"\x89TGP", start + 8)
            end = following if following >= 0 else len(data) - 4
            data = data[: end - 4] + struct.pack("<I", binascii.crc32(data[start : end - 4])) + data[end:]
            start = following
    return data[:-4] + struct.pack("<I", binascii.crc32(data[:-4]))


def test_a_loop_prints_its_programs(loop):
    ended = loop.step.scan(length=7, final=record(lambda s: s * 2.0, 1.0), until=lambda s: s > 5.0)
    text = str(ended)
    assert "for each step 7 times at most:" in text and "at the end:" in text and "until, before each step:" in text
    assert ended.listing().count("return") >= 3
    assert repr(ended).startswith("<loop at most 7 times over <program: 3 inputs")
    assert {"state", "x", "y", "length", "checkpoints"} <= set(ended.stats)


def test_memory_does_not_grow_with_the_length(sized):
    resource = pytest.importorskip("resource")
    n = sized(2_000_000, 20_000_000)
    step = record(lambda s, x, k: s * k + 0.5, 1.0, None, 0.5)
    step.scan(length=1000, checkpoints=100).grad(1.0, None, 0.5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, grad = step.scan(length=n, checkpoints=100).value_and_grad(1.0, None, 0.5, argnums=2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8_000  # KiB; all states take 15,600
    assert math.isclose(value, 1.0) and math.isclose(grad, 2.0)


def test_adjoints_that_decay_are_flushed_to_zero(sized):
    loop = record(lambda s, x, k: s * k, 1.0, None, 0.999).scan(length=sized(20_000, 1_000_000))
    assert loop.grad(1.0, None, 0.5) == 0.0


def test_adjoints_too_small_are_flushed_however_many_states_are_kept():
    step = record(lambda s, x: [s[0] * 0.5 + x, s[1]], [1.0, 2.0], 1.0)
    args, cotangent = ([1.0, 2.0], [1.0] * 50), ([1.0, 5e-324], None)
    expected = step.scan().vjp(*args)[1](cotangent)
    for checkpoints in (1, 2, 3, 10, 49):
        assert bits(step.scan(checkpoints=checkpoints).vjp(*args)[1](cotangent)) == bits(expected)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_control_c_ends_a_loop_in_the_middle():
    code = """if True:
        import signal, threading, os, time
        from tapegrad import record
        loop = record(lambda s, x, k: s * k, 1.0, None, 0.5).scan(length=10**9, checkpoints=10)
        for one in (lambda: loop.grad(1.0, None, 1.0), lambda: loop(1.0, None, 1.0),
                    lambda: loop.map(in_axes=(0, None, None), threads=2).grad([1.0] * 40, None, 1.0)):
            threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            start = time.perf_counter()
            try:
                one()
            except KeyboardInterrupt:
                print(time.perf_counter() - start < 10.0)
        print(loop.step.scan(length=3)(1.0, None, 0.5)[0])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True"] * 3 + ["0.125"]
    assert signal.getsignal(signal.SIGINT) is not None


def test_every_import_within_the_package_points_down():
    """In the order that its docstring gives."""
    folder = pathlib.Path(tapegrad.loops.__file__).parent
    order = re.search(r"alone: ([\w,\s]+)\.", tapegrad.loops.__doc__)[1].replace(",", "").split()
    assert sorted(order) == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})
    for k, name in enumerate(order):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        for node in tree.body:  # not what type checkers alone import
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                imported = [node.module] if node.module else [alias.name for alias in node.names]
                assert set(imported) <= set(order[:k]), f"{name} imports {imported}"


def test_threads_may_share_a_loop():
    loop = record(lambda s, x, k: s * k + x if s < 2.0 else s - x, 1.0, 0.5, 0.5, on_branch="record").scan()
    xs = [math.sin(k) for k in range(200)]
    expected, found = loop.value_and_grad(1.0, xs, 1.5, argnums=(0, 1, 2)), []
    fresh = copy.copy(loop)
    threads = [
        threading.Thread(target=lambda: found.append(fresh.value_and_grad(1.0, xs, 1.5, argnums=(0, 1, 2))))
        for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [expected] * 8


def test_another_thread_may_record_the_path_that_a_row_of_a_batch_stops_at(monkeypatch):
    loop = record(lambda s, x: s * 0.5 if s < 2.0 else s - x, 1.0, 0.5, on_branch="record").scan()
    alone, starts, xs = LoopPath._alone, [1.0, 3.0, 1.5], [0.5] * 4

    def late(self, c, row):
        loop(starts[row], xs)  # as the other thread would
        return alone(self, c, row)

    monkeypatch.setattr(LoopPath, "_alone", late)
    batch = loop.map(in_axes=(0, None))
    assert batch(starts, xs)[0] == [loop(s, xs)[0] for s in starts]
    assert loop.step.stats["paths"] == 2
