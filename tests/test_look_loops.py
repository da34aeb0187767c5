"""Loops that are looked at: graphs of their steps have the loop's numbers, heat counts every step, and who made the nan
is named with its step, however many steps are looked at together."""

from __future__ import annotations

import gc
import linecache
import math
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_look import data_of, texts
from test_loops import close, gradients, loops, recorded

import tapegrad
from tapegrad import NonFinite, Value, debug, draw, record
from tapegrad.look import steps

INF, NAN = math.inf, math.nan


@pytest.fixture(params=[1, 40, 1 << 20], ids=["step by step", "some steps", "all steps"])
def most(request, monkeypatch):
    """How many nodes are looked at together."""
    monkeypatch.setattr(steps, "MOST", request.param)


def line_of(found):
    return linecache.getline(found.filename, found.lineno).strip()


def decay(state, x, rate):
    after = state * rate + x
    return after, after * after


@pytest.fixture
def loop():
    final = record(lambda state, rate: state * rate, 1.0, 0.5)
    return record(decay, 1.0, 0.0, 0.5).scan(final=final)


# ---- graphs of steps ----


@given(loops(), st.sampled_from([1, 30, 1 << 20]))
@settings(deadline=None, max_examples=60)
def test_graphs_of_steps_have_the_values_and_derivatives_of_the_loop(drawn, most):
    made, state, xs, params = drawn
    loop = recorded(made, state, params)
    value, (by_state, by_xs, *by_params) = gradients(loop, state, xs, params)
    before, steps.MOST = steps.MOST, most
    try:
        at = steps.at(loop, [state, xs, *params])
        windows = [window for _, window in at.backward()][::-1]
    finally:
        steps.MOST = before
    assert list(at.out) == [value]
    assert close(list(at.state_grad), by_state) and close(list(at.param_grads), by_params)
    assert close([w.graph.adjoint(i) for w in windows for i in w.xs], by_xs)
    after, ys = loop(state, xs, *params)
    last = windows[-1].graph
    assert [last.value(i) for i in last.roots[: len(state)]] == after
    if ys is not None:
        shown = [w.graph.value(i) for w in windows for i in w.graph.roots[len(state) :]]
        assert shown[: len(xs)] == ys


def test_a_loop_that_ends_by_itself_is_looked_at_as_far_as_it_goes(most):
    step = record(lambda s, x, k: (s * k, s), 1.0, None, 0.5)
    loop = step.scan(length=2**40, until=lambda s: s < 0.1)
    at = steps.at(loop, [1.0, None, 0.5])
    assert (at.n, max(w.part.stop for _, w in at.backward())) == (4, 4)
    assert (list(at.state_grad), list(at.param_grads)) == ([1.875], [loop.grad(1.0, None, 0.5, argnums=2)])


def test_wide_steps_and_params_of_the_step_are_looked_at():
    w = Value(0.75, label="weight")

    def f(state, x):
        return [(s * w + x).tanh() for s in state]

    start = [0.01 * k for k in range(300)]
    loop = record(f, start, 0.0, params=[w]).scan(final=record(lambda state: tapegrad.sum(state), start))
    assert loop.stats["groups"] > 0
    at = steps.at(loop, [start, [0.1, 0.2, 0.3]])
    assert [k for k, _ in at.backward()] == [0]
    value, (by_state, by_params) = loop.value_and_grad(start, [0.1, 0.2, 0.3], argnums=(0, "params"))
    assert list(at.out) == [value]
    assert close(list(at.state_grad), by_state) and close(list(at.param_grads), by_params)


# ---- heat ----


def test_heat_counts_what_runs_in_each_step_and_its_bytes_once(loop, most):
    xs = [0.5 * k for k in range(50)]
    found = {row.text.strip(): row for row in loop.heat(1.0, xs, 0.5).rows}
    after, both = found["after = state * rate + x"], found["return after, after * after"]
    assert [(row.nodes, row.bytes) for row in (after, both)] == [(50, 56), (50, 32)]
    assert sum(row.time for row in found.values()) == pytest.approx(1.0)

    def whole(state, xs, rate):
        loss = 0.0
        for x in xs:
            state, y = decay(state, x, rate)
            loss = loss + y
        return loss + state * rate

    flat = {row.text.strip(): row for row in record(whole, 1.0, xs, 0.5).heat(1.0, xs, 0.5).rows}
    written_out = flat["after = state * rate + x"]
    assert after.adjoint == pytest.approx(written_out.adjoint, rel=1e-12)
    assert after.partial == pytest.approx(written_out.partial, rel=1e-12)
    with pytest.raises(ValueError, match="by must be one of"):
        loop.heat(1.0, xs, 0.5, by="weather")


def test_heat_counts_each_path_as_often_as_it_is_taken(most):
    def collatz(s, x):
        if s % 2 == 0:
            return s * 0.5
        return 3.0 * s + 1.0

    loop = record(collatz, 4.0, None, on_branch="record").scan(length=16)
    nodes = {row.text.strip(): row.nodes for row in loop.heat(7.0, None).rows}
    assert (nodes["return s * 0.5"], nodes["return 3.0 * s + 1.0"]) in ((11, 5), (11, 10))


# ---- who made the nan ----


def test_what_is_finite_is_no_graph_and_windows_before_a_bad_derivative_are_none(loop, monkeypatch):
    made, window = [], steps.Steps.window
    monkeypatch.setattr(steps, "MOST", 64)
    monkeypatch.setattr(steps.Steps, "window", lambda self, k, swept=True: made.append(k) or window(self, k, swept))
    rooted = record(lambda state, x: state + x.sqrt(), 1.0, 1.0).scan()
    assert rooted.diagnose(0.5, [1.0] * 500) is None and not made
    assert rooted.diagnose(0.5, [1.0] * 400 + [0.0] + [1.0] * 99).step == 400
    assert made and min(made) > 10


def test_the_step_that_made_a_bad_value_is_named(most):
    def f(state, x):
        root = (state[0] - x).sqrt()
        return [root + 1.0, state[1] * 0.5 + root]

    final = record(lambda state: state[0] + state[1], [1.0, 0.0])
    loop = record(f, [1.0, 0.0], 0.0, on_error="nan").scan(final=final)
    xs = [0.0] * 17 + [5.0] + [0.0] * 20
    found = loop.diagnose([1.0, 0.0], xs)
    assert (found.what, found.operation, found.step, found.row) == ("value", "sqrt", 17, None)
    assert line_of(found) == "root = (state[0] - x).sqrt()" and found.operands[0] < 0.0
    assert math.isnan(found.result) and "in step 17" in str(found)
    assert linecache.getline(*found.way[-1]).strip().startswith("final = record(lambda state")
    assert loop.diagnose([1.0, 0.0], [0.0] * 30) is None
    batch = loop.map(in_axes=(None, 0), reduce="mean")
    found = batch.diagnose([1.0, 0.0], [[0.0] * 38, [0.0] * 38, xs])
    assert (found.step, found.row, found.operation) == (17, 2, "sqrt") and "in row 2" in str(found)
    assert batch.diagnose([1.0, 0.0], [[0.0] * 38] * 2) is None


def test_the_step_that_made_a_bad_derivative_is_named(most):
    def f(state, x):
        length = (state * x).sqrt()
        return length + 1.0

    loop = record(f, 1.0, 1.0).scan()
    xs = [1.0] * 5 + [0.0] + [1.0] * 9
    found = loop.diagnose(1.0, xs)
    assert (found.what, found.operation, found.step, found.partial) == ("adjoint", "sqrt", 5, INF)
    assert line_of(found) == "length = (state * x).sqrt()" and found.operands == (0.0,)
    assert loop.diagnose(1.0, [1.0] * 15) is None


def test_a_bad_derivative_by_an_x_or_a_param_alone_is_found_too(most):
    loop = record(lambda s, x, k: (s * 1.0, x.sqrt() * k), 1.0, 1.0, 2.0).scan()
    found = loop.diagnose(1.0, [1.0, 4.0, 0.0, 1.0], 2.0)
    assert (found.operation, found.step) == ("sqrt", 2) and found.input.startswith("x")
    loop = record(lambda s, x, k: (s * 1.0, (k - x).sqrt()), 1.0, 1.0, 2.0).scan()
    found = loop.diagnose(1.0, [1.0, 2.0, 1.0, 1.0], 2.0)
    assert (found.operation, found.step) == ("sqrt", 1)


def test_what_was_masked_on_the_way_is_not_named(most):
    """The first number is infinite after two steps and does no harm; the second is what the result is made of."""
    def f(state, x):
        return [state[0] * 1e200, (state[1] * x).log() + state[0].tanh() - 1.0]

    final = record(lambda state: state[1] * 2.0, [1.0, 1.0])
    loop = record(f, [1.0, 3.0], 3.0, on_error="nan").scan(final=final)
    xs = [20.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1e-9, 20.0, 20.0]
    found = loop.diagnose([1.0, 3.0], xs)
    assert (found.operation, found.step) == ("log", 7)


def test_a_bad_number_that_is_given_is_the_origin_itself(loop, most):
    found = loop.diagnose(NAN, [1.0] * 5, 0.5)
    assert (found.operation, found.input, found.step) == ("input", "state", None)
    found = loop.diagnose(1.0, [1.0, 1.0, INF, 1.0], 0.5)
    assert (found.operation, found.step, found.value) == ("input", 2, INF) and found.input.startswith("x")
    found = loop.diagnose(1.0, [1.0, 1.0], NAN)
    assert (found.operation, found.input, found.step) == ("input", "rate", None)


def test_ys_that_are_finite_may_have_a_sum_that_is_not(most):
    loop = record(lambda s, x: (s * 1.0, s * x), 1e308, 1.0).scan()
    found = loop.diagnose(1e308, [1.0] * 3)
    assert (found.operation, found.result) == ("sum", INF)
    assert loop.diagnose(1e308, [1.0] * 3, inf=False) is None


def test_a_loop_without_a_loss_is_diagnosed_by_all_that_it_gives(most):
    loop = record(lambda s, x: ([s[0] * x, s[1]], [s[0].log(), s[1]]), [1.0, 2.0], 1.0, on_error="nan").scan()
    found = loop.diagnose([1.0, 2.0], [2.0, -1.0, 1.0, 1.0])
    assert (found.operation, found.step, found.what) == ("log", 2, "value")
    assert loop.diagnose([1.0, 2.0], [2.0, 1.0]) is None
    found = loop.map(in_axes=(None, 0)).diagnose([1.0, 2.0], [[2.0, 2.0], [-1.0, 1.0]])
    assert (found.operation, found.step, found.row) == ("log", 1, 1)


def test_within_debug_a_loop_raises_and_names_the_step():
    loop = record(lambda s, x: (s - x).sqrt(), 4.0, 0.0, on_error="nan").scan()
    with debug():
        assert loop(4.0, [0.0, 0.0])[0] == pytest.approx(2**0.5)
        for call in (loop, loop.value_and_grad, loop.grad, lambda s, xs: loop.jvp((s, xs), (1.0, [0.0] * 2))):
            with pytest.raises(NonFinite) as caught:
                call(4.0, [0.0, 9.0])
            assert caught.value.step == 1
        with pytest.raises(NonFinite) as caught:
            loop.map(in_axes=(0, None)).value_and_grad([4.0, 90.0**2], [0.0, 9.0])
        assert (caught.value.step, caught.value.row) == (1, 0)
        value, _ = loop(Value(4.0), [0.0, 0.0])
        assert isinstance(value, Value)
    assert math.isnan(loop(4.0, [0.0, 9.0])[0])


# ---- pictures ----


def test_a_loop_is_a_box_that_opens_to_its_steps(loop, tmp_path):
    xs = [0.5 * k for k in range(100)]
    by_state, by_rate = loop.grad(1.0, xs, 0.5, argnums=(0, 2))
    drawing = draw(loop, 1.0, xs, 0.5)
    svg = drawing.to_svg()
    shown = texts(svg)
    assert {"↻ 100 steps", "state", "x", "rate", "last state", "ys", "final", "loss", "step 99 of 100"} <= set(shown)
    assert ElementTree.fromstring(svg) is not None and drawing.to_dot().count("subgraph") == 1
    films = data_of(drawing.to_html())
    assert [one["title"] for one in films["step"]][:2] == ["step 0 of 100", "step 14 of 100"]
    assert len(films["step"]) == 8 and [one["title"] for one in films["final"]] == ["at the end"]
    first = {v["name"]: v for v in films["step"][0]["film"]["nodes"]}
    assert first["state"]["data"] == 1.0 and first["state"]["adj"] == pytest.approx(by_state, rel=1e-12)
    _, slope = loop.value_and_grad(loop(1.0, xs[:14], 0.5)[0], xs[14:], 0.5)
    there = {v["name"]: v for v in films["step"][1]["film"]["nodes"]}
    assert there["state"]["adj"] == pytest.approx(slope, rel=1e-12) and there["x"]["data"] == xs[14]
    at = shown.index("rate")
    assert shown[at + 1 : at + 3] == [f"data {0.5}", "grad " + shown[at + 2].removeprefix("grad ")]
    assert by_rate == pytest.approx(drawing._at.param_grads[0], rel=1e-12)
    for name in ("x.svg", "x.html", "x.dot"):
        drawing.save(tmp_path / name)
    assert drawing._repr_mimebundle_()["text/html"].startswith("<iframe srcdoc=")
    assert repr(drawing) == "<drawing: a loop of 100 steps>"


def test_a_loop_without_arguments_is_drawn_without_numbers(loop):
    shown = texts(draw(loop).to_svg())
    assert "↻ steps" in shown and "a step" in shown and not any(t.startswith("data") for t in shown)
    assert "It was given no arguments" in draw(loop).to_html()


def test_a_loop_of_no_steps_is_drawn(loop):
    drawing = draw(loop, 2.0, [], 0.5)
    assert {"↻ 0 steps", "data 1.0"} <= set(texts(drawing.to_svg()))
    assert "boxed(" in drawing.to_html()


def test_a_loop_of_large_steps_is_folded_to_its_lines():
    def f(state, x):
        for _ in range(300):
            state = (state * x).tanh() + 0.1
        return state

    loop = record(f, 1.0, 1.0).scan()
    drawing = draw(loop, 1.0, [0.5, 0.25])
    html = drawing.to_html()
    assert not drawing.is_small and "overview(" in html and "state = (state * x).tanh() + 0.1" in html
    assert {"↻ 2 steps", "step 1 of 2"} <= set(texts(drawing.to_svg()))


def test_pictures_of_loops_take_numbers(loop):
    with pytest.raises(TypeError):
        draw(loop, Value(1.0), [1.0], 0.5)
    with pytest.raises(tapegrad.BranchChanged, match="in step 1"):
        draw(record(lambda s, x: s + x if x > 0 else s, 1.0, 1.0).scan(), 1.0, [1.0, -1.0])


def test_a_printed_loop_has_the_instructions_of_all_its_programs(loop):
    assert repr(loop) == "<loop over <program: 3 inputs, 2 outputs, 2 instructions>>"
    text = str(loop)
    assert text.startswith("for each step:\n3 inputs (state in0, x in1, rate in2)") and "at the end:\n2 inputs" in text


# ---- what is odd ----


def test_a_step_that_does_nothing_is_looked_at(most):
    loop = record(lambda state, x: state, 1.0, None).scan(length=5)
    assert loop.diagnose(2.0) is None
    assert not [row for row in loop.heat(2.0).rows if row.lineno]
    assert "↻ 5 steps" in texts(draw(loop, 2.0).to_svg())


def test_the_step_is_that_of_the_input_that_is_named(most):
    loop = record(lambda state, x: state + x.sqrt(), 1.0, 1.0, on_error="nan").scan()
    assert loop.diagnose(1.0, [1.0, 0.0, 1.0, 0.0, 1.0]).step == 1


def test_rows_without_a_loss_are_looked_at_one_by_one():
    step = record(lambda state, x: (state + x, [state.sqrt(), state * 2.0]), 1.0, 1.0, on_error="nan")
    batch = step.scan(length=4, until=lambda state: state > 2.5).map((0, None))
    found = batch.diagnose([2.0, -3.0], [1.0] * 4)
    assert (found.row, found.step) == (1, 0)
    assert batch.diagnose([2.0, 2.25], [1.0] * 4) is None
    batch = record(lambda s, x: [s[0] + s[1].sqrt(), s[1]], [1.0, 1.0], None).scan(length=3).map((0, None))
    assert batch.diagnose([[1.0, 1.0], [1.0, 0.0]], None).row == 1


def test_a_step_in_a_picture_passes_its_own_share_to_params(loop):
    final = record(lambda state, rate: state * rate * 100.0, 1.0, 0.5)
    shown = texts(draw(loop.step.scan(final=final), 1.0, [1.0, 2.0, 3.0], 0.5).to_svg())
    assert not any("575" in text for text in shown)


def guarded(s, x):
    """It catches what log refuses, and nothing else."""
    try:
        y = tapegrad.math.log(s)
    except ValueError:
        y = s * 2.0
    return y + x


def test_what_f_catches_is_looked_at_on_the_path_that_it_takes_then():
    step = record(guarded, 0.5, 1.5, on_branch="record")
    loop, xs = step.scan(), [1.5, 1.75]
    program = record(lambda s: loop(s, xs)[0] * 2.0, 0.5, on_branch="record")
    for s in -3.0, 0.5, -0.5:
        assert program.diagnose(s) is None and program.rounding(s).value == program(s)
        assert step.diagnose(s, 1.5) is None and step.rounding(s, 1.5).value == step(s, 1.5)
        assert loop.diagnose(s, xs) is None
        assert sum(row.nodes for row in loop.heat(s, xs).rows) == 2 * 2
    refusing = record(lambda s, x: tapegrad.math.log(s) + x, 0.5, 1.5)
    assert math.isnan(record(lambda s: refusing.scan()(s, xs)[0], 0.5).rounding(-1.0).value)
    assert refusing.scan().diagnose(-1.0, xs).step == 0


def test_what_f_does_not_catch_is_the_origin_after_what_it_does(most):
    def step(s, x):
        return 1.0 / guarded(s, x)

    one = record(step, -1.0, 1.0, on_branch="record")
    loop = one.scan()
    assert math.isfinite(one(-1.0, 1.0)) and math.isfinite(one(0.5, 1.0))
    found = one.diagnose(-1.0, 2.0)  # 1 / (-2 + 2)
    assert (found.operation, found.operands) == ("truediv", (1.0, 0.0))
    xs = [1.0, 2.0, 1.0]  # -1, -2 and -1 again: only the second cannot go on
    found = loop.diagnose(-1.0, xs)
    assert (found.step, found.operation, found.operands) == (1, "truediv", (1.0, 0.0))
    found = loop.map((0, None)).diagnose([-3.0, 5.0, -1.0, -1.0], xs)
    assert (found.row, found.step, found.operands) == (2, 1, (1.0, 0.0))
    assert one.map((0, None)).diagnose([-3.0, -1.0, -1.0], 2.0).row == 1
    assert one.map((0, None)).diagnose([-3.0, -5.0], 2.0) is None
    assert loop.map((0, None)).diagnose([-3.0, -5.0], [1.0, 0.25]) is None
    found = record(lambda s: loop(s, xs)[0], -3.0, on_branch="record").diagnose(-1.0)
    assert (found.operation, found.operands) == ("truediv", (1.0, 0.0))
    with pytest.raises(ZeroDivisionError, match=r"1\.0 / 0\.0"):  # on a path that cannot be recorded
        record(lambda s: loop(s, xs)[0], 3.0, on_branch="record").diagnose(-1.0)


def test_a_step_that_finds_no_path_once_something_is_nan_raises_what_was_refused():
    def step(s, x):
        y = 1.0 / guarded(s, x)
        return y if y > -10.0 else -y

    loop = record(step, 3.0, 1.0, on_branch="record").scan()
    loop(-1.0, [1.0])
    with pytest.raises(ZeroDivisionError, match="in step 1"):
        loop.diagnose(-1.0, [1.0, 2.0])


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython frees at once")
def test_what_a_loop_refuses_is_let_go_once_it_is_looked_at():
    loop = record(lambda s, x: s.log() * x, 2.0, 1.0).scan()

    def refusals():
        return [e for e in gc.get_objects() if type(e) is ValueError and "log(-0.69" in str(e)]

    gc.disable()
    try:
        assert loop.diagnose(0.5, [1.0, 1.0]).operation == "log" and not refusals()
    finally:
        gc.enable()
