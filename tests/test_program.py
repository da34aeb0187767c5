"""Programs: what is recorded, frozen, guarded and replayed, and what bad input gets."""

from __future__ import annotations

import ast
import fractions
import gc
import math
import os
import pathlib
import pickle
import re
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from tapegrad._core import lib
from test_threads import together

import tapegrad
from tapegrad import BranchChanged, Program, Value, nn, no_grad, record, tape
from tapegrad.program.replay import shown

CPYTHON = sys.implementation.name == "cpython"
HOWS = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}


def line_of(f, offset):
    """file:line of a function's line, as messages have it."""
    return f"{shown(f.__code__.co_filename)}:{f.__code__.co_firstlineno + offset}"


def rosenbrock(x):
    return sum((1 - x[k]) ** 2 + 100 * (x[k + 1] - x[k] ** 2) ** 2 for k in range(len(x) - 1))


# ---- results ----


def test_a_program_gives_what_f_gives():
    program = record(lambda x, y: (x * y).tanh() + x**2, 0.5, -1.0)
    for x, y in ((0.5, -1.0), (2.0, 3.0), (-1.25, 0.125)):
        a, b = Value(x), Value(y)
        z = (a * b).tanh() + a**2
        z.backward()
        assert program(x, y) == z.data
        value, (dx, dy) = program.value_and_grad(x, y, argnums=(0, 1))
        assert value == z.data
        assert (dx, dy) == (pytest.approx(a.grad, rel=1e-12), pytest.approx(b.grad, rel=1e-12))


def test_results_keep_the_shape_of_what_f_returns():
    program = record(lambda x: (x, [x * 2, [x * 3, ()]]), 1.0)
    assert program(5.0) == (5.0, [10.0, [15.0, ()]])


def test_an_array_goes_in_as_an_object_array_and_comes_out_as_float64(np):
    program = record(lambda w, x: np.tanh(w @ x), np.ones((2, 3)), np.zeros(3))
    w, x = np.arange(6.0).reshape(2, 3) / 10, np.array([0.5, -1.0, 2.0])
    result = program(w, x)
    assert result.dtype == np.float64 and result.shape == (2,)
    assert np.allclose(result, np.tanh(w @ x), rtol=1e-12)


def test_results_are_arrays_of_their_own(np):
    program = record(lambda x: x * 2, np.zeros(3))
    first = program(np.ones(3))
    first[0] = 99.0
    assert program(np.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_a_program_without_arguments_reads_its_params():
    w = Value(2.0)
    program = record(lambda: w * w, params=[w])
    w.data = 3.0
    assert program() == 9.0
    assert program.value_and_grad(argnums="params") == (9.0, [6.0])


def test_an_output_may_be_an_input_a_constant_or_given_twice():
    program = record(lambda x: [x, x * x, x * x, Value(7.0), x], 2.0)
    assert program(3.0) == [3.0, 9.0, 9.0, 7.0, 3.0]
    assert program.jacobian(3.0) == [1.0, 6.0, 6.0, 0.0, 1.0]
    _, pull = program.vjp(3.0)
    assert pull([1.0, 10.0, 100.0, 1000.0, 10000.0]) == (10001.0 + 660.0,)


def test_a_program_of_no_numbers_has_derivatives_of_none():
    program = record(lambda x: Value(3.0), [])
    for _ in range(2):
        assert program.value_and_grad([]) == (3.0, [])
        assert (program.jacobian([]), program.hessian([]), program.vjp([])[1](1.0)) == ([], [], ([],))


def test_a_pullback_gives_the_derivatives_that_it_is_asked_for(np):
    w = Value(2.0)
    program = record(lambda x, m: [w * x["a"] * m[0], m[1] ** 2], {"a": 1.0}, np.ones(2), params=[w])
    value, pull = program.vjp({"a": 3.0}, np.array([5.0, 7.0]))
    assert value == [30.0, 49.0]
    whole = pull([1.0, 10.0])
    assert whole[0] == {"a": 10.0} and whole[1].tolist() == [6.0, 140.0] and len(whole) == 2
    assert pull([1.0, 10.0], argnums=1).tolist() == [6.0, 140.0] and pull([1.0, 10.0], argnums=-2) == {"a": 10.0}
    assert pull([1.0, 10.0], argnums="params") == [15.0]
    one, params, other = pull([1.0, 10.0], argnums=(1, "params", 1))
    assert params == [15.0] and one.tolist() == other.tolist() and one is not other
    one[0] = 0.0
    assert other[0] == 6.0 and pull([0.0, 0.0], argnums=1).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="argnums 2: the program takes 2 arguments"):
        pull([1.0, 1.0], argnums=2)
    with pytest.raises(ValueError, match="the cotangent is 'list' of 1, but was recorded as a list of 2"):
        pull([1.0], argnums=0)


def test_a_pullback_does_not_run_the_function_again():
    """Params may change, paths be recorded and other pullbacks made: it stays where it was."""
    w = Value(2.0)
    program = record(lambda x: w * x * x if x > 0.0 else w * x, 3.0, params=[w], on_branch="record")
    _, first = program.vjp(3.0)
    pulls = [program.vjp(float(k))[1] for k in range(-50, 50)]
    w.data = 100.0
    assert first(1.0) == (12.0,) and first(2.0, argnums="params") == [18.0]
    expected = [4.0 * k if k > 0 else 2.0 for k in range(-50, 50)]
    assert [pull(1.0)[0] for pull in pulls] == [pull(1.0, argnums=0) for pull in reversed(pulls)][::-1] == expected
    assert program.grad(3.0) == 600.0


def test_threads_share_a_pullback():
    program = record(lambda x: [v.sin() * x[0] for v in x], [1.0] * 50)
    _, pull = program.vjp([0.1 * k for k in range(50)])
    seeds = [[float((i * k) % 7) for i in range(50)] for k in range(40)]
    expected = [pull(seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(pull, seeds)) == expected


def test_an_unused_input_has_a_zero_gradient():
    assert record(lambda x, y: x * 2, 1.0, 1.0).grad(3.0, 4.0, argnums=(0, 1)) == (2.0, 0.0)


def test_numbers_of_all_kinds_are_taken(np):
    program = record(lambda x: x * x, 1)
    three = (3, 3.0, True + 2, fractions.Fraction(3), np.float32(3), np.int8(3), np.array(3.0), np.array(3))
    assert [program(x) for x in three] == [9.0] * len(three)
    assert program(True) == program(np.True_) == 1.0


def test_a_zero_dimensional_array_is_a_number(np):
    program = record(lambda x: np.array(x * x), np.array(2.0))
    assert program(3.0) == program(np.array(3.0)) == 9.0
    assert program.grad(np.array(3)) == 6.0


def test_an_example_may_be_made_of_values_and_of_any_numbers(np):
    values = np.array([Value(1.0), Value(2.0)])
    for example in (values, values.tolist(), [True, 2], np.array([1, 2]), np.array([1, 2], dtype=np.float32)):
        assert record(lambda x: x[0] * x[1], example)([3.0, 4.0]) == 12.0


def test_lists_and_arrays_may_stand_for_each_other(np):
    assert record(lambda x: x.sum(), np.zeros((2, 2)))([[1, 2], [3, 4]]) == 10.0
    assert record(lambda x: x[0][0] * x[1][1], [[0.0, 0.0], [0.0, 0.0]])(np.array([[2, 0], [0, 3]])) == 6.0


def test_an_empty_argument_has_an_empty_gradient(np):
    program = record(lambda nothing, x: x * x, [], 2.0)
    assert program.value_and_grad([], 3.0, argnums=(0, 1)) == (9.0, ([], 6.0))
    assert program.jacobian([], 3.0, argnums=(0, 1)) == ([], 6.0)
    assert program.hessian([], 3.0) == []
    several = record(lambda nothing, x: [x * x, x], [], 2.0)
    assert several.jacobian([], 3.0) == [[], []]
    grad, jacobian = record(lambda a, x: x * x, np.zeros((0, 3)), 2.0), record(lambda a: a[0:0].sum() + a, np.ones(2))
    assert grad.grad(np.zeros((0, 3)), 1.0).shape == (0, 3)
    assert grad.jacobian(np.zeros((0, 3)), 1.0).shape == (0, 3)
    assert jacobian.jacobian(np.ones(2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


# ---- freezing ----


def test_dead_nodes_go():
    def f(x):
        for k in range(100):
            x * k
        return x * 2

    stats = record(f, 1.0).stats
    assert (stats["needed"], stats["instructions"]) == (3, 1)


def test_constants_are_folded():
    w = Value(3.0)
    program = record(lambda x: x * ((w * 2 + 1).exp() - w.sqrt()), 1.0)
    assert program.stats["instructions"] == 1
    a = Value(2.0)
    assert program(2.0) == (a * ((w * 2 + 1).exp() - w.sqrt())).data


def test_common_subexpressions_are_computed_once():
    program = record(lambda x, y: [(x * y).tanh(), (y * x).tanh(), x - y, y - x], 1.0, 2.0)
    assert program.stats["instructions"] == 4  # a product in either order is one, a difference is not
    assert program(3.0, 2.0)[:2] == [math.tanh(6.0)] * 2 and program(3.0, 2.0)[2:] == [1.0, -1.0]


def test_zeros_of_either_sign_are_different_constants():
    program = record(lambda x: [x * 0.0, x * -0.0], 1.0)
    assert [math.copysign(1.0, y) for y in program(1.0)] == [1.0, -1.0]


def test_a_sum_of_products_becomes_a_dot():
    def f(x, y):
        total = Value(1.0)
        for a, b in zip(x, y):
            total = total + a * b
        return total

    program = record(f, [1.0] * 5, [2.0] * 5)
    assert program.stats["instructions"] == 1 and "dot(" in str(program)
    value, grads = program.value_and_grad([1.0, 2, 3, 4, 5], [1.0, -1, 1, -1, 1], argnums=(0, 1))
    assert (value, grads) == (4.0, ([1.0, -1, 1, -1, 1], [1.0, 2, 3, 4, 5]))


def test_a_product_that_is_used_twice_or_returned_is_no_part_of_a_dot():
    def f(a, b):
        p, q = a * b, a * a
        return [p + b, p + a, q, q + 1, (a * 3 + a * 3) + p]

    program = record(f, 1.0, 1.0)
    for a, b in ((2.0, 3.0), (-1.0, 5.0)):
        assert program(a, b) == [a * b + b, a * b + a, a * a, a * a + 1, (a * 3 + a * 3) + a * b]
        rows = program.jacobian(a, b, argnums=(0, 1))
        assert rows == ([b, b + 1, 2 * a, 2 * a, 6 + b], [a + 1, a, 0.0, 0.0, a])


def test_a_sum_that_is_used_twice_is_no_part_of_a_dot():
    def f(x):
        s = x[0] * x[1] + x[2]
        return [s + x[0] * x[2], s * s]

    program = record(f, [1.0, 2.0, 3.0])
    assert program([2.0, 3.0, 5.0]) == [21.0, 121.0]
    assert program.jacobian([2.0, 3.0, 5.0]) == [[8.0, 2.0, 3.0], [66.0, 44.0, 22.0]]


def test_operands_may_repeat_in_many_operand_nodes():
    def f(x, y):
        return [
            tapegrad.dot([x, x, y], [x, y, y], x), tapegrad.sum([x, x, y, x]),
            tapegrad.logsumexp([x, x]), tapegrad.mse([x, x], [y, x]), tapegrad.softmax([x, x])[1],
        ]  # fmt: skip

    program = record(f, 1.0, 2.0)
    x, y = Value(0.5), Value(-0.25)
    for k, z in enumerate(f(x, y)):
        x.grad = y.grad = 0.0
        z.backward()
        assert program(0.5, -0.25)[k] == z.data
        rows = program.jacobian(0.5, -0.25, argnums=(0, 1))
        assert (rows[0][k], rows[1][k]) == (pytest.approx(x.grad, abs=1e-14), pytest.approx(y.grad, abs=1e-14))


def test_a_result_may_take_its_slot_from_no_operand_of_its_own():
    def f(x):
        for k in range(40):
            x = tapegrad.softmax([tapegrad.sum(x), tapegrad.dot(x, x), tapegrad.logsumexp(x), x[k % 3]])[:3]
            x = [x[0] - x[1], x[1] / (1 + x[2]), x[2] * x[0]]
        return x

    program = record(f, [0.1, 0.2, 0.3])
    assert program([-0.5, 0.25, 1.0]) == tapegrad.data(f([Value(x) for x in (-0.5, 0.25, 1.0)]))
    assert program.stats["live_slots"] < 20 + program.stats["constants"]


def test_the_working_set_of_a_chain_does_not_grow():
    def f(x):
        for _ in range(1000):
            x = (x + 1.0) - 1.0
        return x

    assert record(f, 1.0).stats["slots"] <= 6


@pytest.mark.parametrize(
    "step",
    [
        lambda x, a, b: x * a + b,
        lambda x, a, b: b + a * x,
        lambda x, a, b: a - x * x,
        lambda x, a, b: (a - x) * x,
        lambda x, a, b: (x * a).tanh() - b,
        lambda x, a, b: x * a * (1.0 - x) + x,
    ],
)
def test_a_chain_has_the_bits_of_values_of_lanes_and_when_saved(step):
    """What each operation gives the next one, for one row, and adjoints that way back, do not go through memory."""

    def f(x, a, b):
        for _ in range(50):
            x = step(x, a, b)
        return x

    program = record(f, 0.5, 0.75, 0.125)
    saved = pickle.loads(pickle.dumps(program))
    rows = [(0.1 * k - 0.3, 0.75 - 0.05 * k, 0.25 * k - 0.5) for k in range(19)] + [(0.5, 0.0, -0.0)]
    lanes = program.map().value_and_grad(*map(list, zip(*rows)), argnums=(0, 1, 2))
    for k, row in enumerate(rows):
        xs = [Value(x) for x in row]
        y = f(*xs)
        y.backward()
        value, grads = program.value_and_grad(*row, argnums=(0, 1, 2))
        assert repr(program(*row)) == repr(value) == repr(y.data) == repr(lanes[0][k])
        assert list(map(repr, grads)) == [repr(of_rows[k]) for of_rows in lanes[1]]
        assert repr(saved.value_and_grad(*row, argnums=(0, 1, 2))) == repr((value, grads))
        assert grads == pytest.approx([x.grad for x in xs], rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("k", [0, 1, 2, 3, -1, 0.5, -2.5, True])
def test_a_power_keeps_its_exponent(k):
    program, x = record(lambda x: x**k, 1.5), Value(2.25)
    y = x**k
    y.backward()
    assert program.value_and_grad(2.25) == (y.data, x.grad)
    assert program.hessian(2.25) == pytest.approx(k * (k - 1) * 2.25 ** (k - 2), rel=1e-12)


def test_a_constant_to_a_power_and_a_power_of_values_fold_and_differ():
    c = Value(2.0)
    program = record(lambda x: [c**3, x**c, x**2.0, c**x], 1.0)
    assert program(3.0) == [8.0, 9.0, 9.0, 8.0]
    assert program.jacobian(3.0) == pytest.approx([0.0, 6.0, 6.0, 8.0 * math.log(2.0)], rel=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_the_losses_are_exact_inside_programs(n):
    def f(x, y):
        losses = [tapegrad.mse(x, y), tapegrad.hinge(x, y)] if n else [tapegrad.sum(x), tapegrad.dot(x, y)]
        scores = [tapegrad.logsumexp(x), tapegrad.cross_entropy(x, n // 2), *tapegrad.softmax(x)] if n else []
        return losses + scores + tapegrad.affine([x, y], [1.0, 2.0], x) + [Value(0.5)]

    xs, ys = [math.sin(3 * k) * 2 for k in range(n)], [math.cos(k * k) for k in range(n)]
    program = record(f, [0.1 * k for k in range(n)], [1.0] * n)
    v, w = [Value(x) for x in xs], [Value(y) for y in ys]
    expected = f(v, w)
    assert program(xs, ys) == tapegrad.data(expected)
    rows = program.jacobian(xs, ys, argnums=(0, 1))
    for k, z in enumerate(expected):
        tapegrad.zero_grad(v + w)
        z.backward()
        assert rows[0][k] == pytest.approx(tapegrad.grads(v), rel=1e-12, abs=1e-14)
        assert rows[1][k] == pytest.approx(tapegrad.grads(w), rel=1e-12, abs=1e-14)


def test_a_network_is_a_program_of_its_parameters():
    model = nn.MLP(2, [4, 1])
    program = record(lambda x, y: (model(x) - y) ** 2, [0.0, 0.0], 0.0, params=model.parameters())
    for x, y in (([0.5, -1.0], 1.0), ([2.0, 0.25], -1.0)):
        loss = (model([Value(k) for k in x]) - y) ** 2
        model.zero_grad()
        loss.backward()
        value, grad = program.value_and_grad(x, y, argnums="params")
        assert value == loss.data
        assert grad == pytest.approx(tapegrad.grads(model.parameters()), rel=1e-12, abs=1e-300)
        tapegrad.set_data(model.parameters(), [p.data + 0.125 for p in model.parameters()])


def test_the_listing_names_the_line_of_every_instruction():
    def f(x, y):
        a = x.tanh()
        if a < y:
            a = a * y
        return a

    text = str(record(f, 0.5, 2.0))
    assert text.count("\n") == 4
    for what, offset in (("tanh", 1), ("guard 0", 2), ("*", 3)):
        assert any(what in row and row.endswith(line_of(f, offset)) for row in text.splitlines())


def test_a_long_function_is_recorded_in_linear_time_and_tells_its_lines():
    def recorded(n):
        """The program of n lines, and the least of three times that recording it took."""
        source = "def f(x):\n" + "    x = x * 0.9999\n" * n + "    if x > 0.0:\n        return x.exp()\n    return x\n"
        took = []
        for _ in range(3):  # compiled anew each time: nothing is known of the code
            names = {}
            exec(compile(source, "generated.py", "exec"), names)
            begun = time.process_time()
            program = record(names["f"], 1.0)
            took.append(time.process_time() - begun)
        return program, min(took)

    n = 20_000
    program, long = recorded(n)
    assert long < 12 * recorded(n // 5)[1]  # 25 times, were it quadratic
    rows = program.listing().splitlines()
    assert rows[1].endswith("generated.py:2") and rows[n].endswith(f"generated.py:{n + 1}")
    assert rows[n + 1].endswith(f"generated.py:{n + 2}") and rows[n + 2].endswith(f"generated.py:{n + 3}")


def test_stats_count_the_passes():
    program = record(lambda x: (x * 2 + Value(3.0) * 4) + x * 2, 1.0)
    s = program.stats
    assert s["recorded"] >= s["needed"] >= s["after_folding"] >= s["after_sharing"] >= s["after_fusing"]
    assert (s["inputs"], s["outputs"], s["guards"], s["paths"]) == (1, 1, 0, 1)
    assert s["bytes"] > 0 and s["lanes"] >= 1 and s["seconds"] >= 0


@pytest.mark.parametrize("n", [1, 4, 5, 6, 33, 500])
def test_equals_are_found_however_many_are_made_of_an_operand(n):
    def f(w, x):
        x = x.tanh()  # the operand that comes last
        once = [a * x for a in w] + [x - a for a in w] + [x / (2.0 + k) for k in range(n)]
        again = [x * a for a in w] + [x - a for a in w] + [x / (2.0 + k) for k in range(n)]
        return [a + b for a, b in zip(once, again)]

    w = [0.5 + 0.25 * k for k in range(n)]
    program = record(f, w, 0.3)
    assert program.stats["after_folding"] - program.stats["after_sharing"] == 3 * n
    assert program(w, 0.3) == [y.data for y in f(w, Value(0.3))]


def test_programs_of_any_size_follow_each_other():
    """The memory of one recording is that of the next, where it is not large."""
    def sums(n):
        def f(x):
            for k in range(n):
                x = x * 0.5 + (k + 1) * 1e-3
            return x.tanh()

        return f

    for n in [3, 3000, 40, 60_000, 1, 3000]:
        program = record(sums(n), 1e-3)
        instructions = program.stats["instructions"]
        assert record(sums(n), 1e-3).stats["instructions"] == instructions
        assert program(1e-3) == sums(n)(Value(1e-3)).data


# ---- captured Values and params ----


def test_a_captured_value_is_the_constant_that_it_was():
    w = Value(2.0)
    program = record(lambda x: x * w, 1.0)
    w.data = 100.0
    assert program(3.0) == 6.0


def test_a_value_made_on_the_way_from_captured_ones_is_no_output_of_its_own():
    w = Value(2.0)
    with pytest.raises(ValueError, match="was there before"):
        record(lambda x: w, 1.0)
    assert record(lambda x: w * 3, 1.0)(5.0) == 6.0


def test_params_are_read_at_every_replay():
    w, b = Value(2.0), Value(1.0)
    program = record(lambda x: w * x + b, 1.0, params=[w, b])
    assert program(3.0) == 7.0
    w.data = 10.0
    assert program(3.0) == 31.0
    assert program.value_and_grad(3.0, argnums="params") == (31.0, [3.0, 1.0])
    assert program.hvp(3.0, [1.0, 0.0], argnums="params") == [0.0, 0.0]


def test_a_param_may_be_no_leaf_and_may_be_returned():
    w = Value(2.0)
    square = w * w
    program = record(lambda x: [square * x, square], 1.0, params=[square])
    assert program(3.0) == [12.0, 4.0]
    square.data = 5.0
    assert program(3.0) == [15.0, 5.0]
    assert program.jacobian(3.0, argnums="params") == [[3.0], [1.0]]


@pytest.mark.parametrize("params", [[1.0], ["w"], [None]])
def test_params_must_be_values(params):
    with pytest.raises(TypeError, match="params must be Values"):
        record(lambda x: x, 1.0, params=params)


def test_a_value_is_in_params_once():
    w = Value(1.0)
    with pytest.raises(ValueError, match="in params twice"):
        record(lambda x: x * w, 1.0, params=[w, w])


def test_a_program_outlives_its_tape_its_values_and_its_example(np):
    example, w = np.ones(3), Value(2.0)
    program = record(lambda x: (x * w).sum(), example, params=[w])
    example[:] = 99.0
    tape.reset()
    gc.collect()
    tape.collect()
    assert program.value_and_grad(np.array([1.0, 2.0, 3.0]))[0] == 12.0
    del example
    assert program.grad([1.0, 2.0, 3.0]) == [2.0, 2.0, 2.0]


# ---- guards ----


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("sides", ["both", "number right", "number left", "constant right"])
def test_a_guard_raises_where_the_outcome_would_be_another(how, sides):
    holds, c = HOWS[how], Value(1.0)

    def f(x, y):
        a, b = {
            "both": (x, y), "number right": (x, 1.0), "number left": (1.0, y), "constant right": (x, c)
        }[sides]  # fmt: skip
        yes = {"<": lambda: a < b, "<=": lambda: a <= b, ">": lambda: a > b, ">=": lambda: a >= b}[how]()
        return x + y if yes else x - y

    cases = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 0.0), (1.0, 2.0), (math.nan, 1.0), (1.0, math.nan), (1, 1.5)]
    outcomes = []
    for x, y in cases:
        a, b = x if sides != "number left" else 1.0, y if sides in ("both", "number left") else 1.0
        outcomes.append(holds(float(a), float(b)))
    for (x, y), outcome in zip(cases, outcomes):
        program = record(f, x, y)
        for (u, v), now in zip(cases, outcomes):
            if now == outcome:
                result = program(u, v)
                assert result == (u + v if now else u - v) or math.isnan(u + v)
            else:
                with pytest.raises(BranchChanged):
                    program(u, v)


def test_a_changed_branch_names_line_operands_and_outcome():
    def f(x, y):
        if x * 2 > y:
            return x
        return y

    with pytest.raises(BranchChanged) as caught:
        record(f, 3.0, 1.0)(1.0, 5.0)
    e = caught.value
    assert (e.filename, e.lineno) == (f.__code__.co_filename, f.__code__.co_firstlineno + 1)
    assert (e.operands, e.outcome, e.row) == ((2.0, 5.0), False, None)
    assert str(e).startswith(f"{line_of(f, 1)}: 2.0 > 5.0 is False, was True when recorded: record(..")
    assert "on_branch='record'" in str(e) and str(pickle.loads(pickle.dumps(e))) == str(e)


def test_every_replay_looks_at_the_guards():
    program = record(lambda x: x * x if x > 0 else -x, 1.0)
    calls = (
        program, program.grad, program.value_and_grad, program.jacobian, program.hessian, program.vjp,
        lambda x: program.jvp([x], [1.0]), lambda x: program.hvp(x, 1.0), lambda x: program.map()([x]),
        lambda x: program.map().value_and_grad([1.0, x]),
    )  # fmt: skip
    for call in calls:
        call(2.0)
        with pytest.raises(BranchChanged):
            call(-2.0)


def test_a_guard_on_what_is_otherwise_dead_counts():
    def f(x):
        return x * 2 if (x * x - 4).tanh() < 0 else x * 3

    program = record(f, 1.0)
    assert program(1.5) == 3.0
    with pytest.raises(BranchChanged):
        program(3.0)


def test_guards_on_constants_are_dropped():
    c = Value(1.0)
    program = record(lambda x: x * 2 if c < 2 and c * 3 > Value(1.0) else x, 1.0)
    assert program.stats["guards"] == 0
    c.data = 50.0
    assert program(4.0) == 8.0


def test_a_guard_on_a_param_is_kept():
    w = Value(1.0)
    program = record(lambda x: x * 2 if w < 2 else x, 1.0, params=[w])
    w.data = 5.0
    with pytest.raises(BranchChanged):
        program(1.0)


def test_a_comparison_with_itself_is_a_guard():
    program = record(lambda x: x * 2 if x <= x else x * 3, 1.0)
    assert program(5.0) == 10.0
    with pytest.raises(BranchChanged):
        program(math.nan)


def test_max_min_and_sorted_of_python_are_guarded():
    program = record(lambda x: max(x) - min(x) + sorted(x)[1] * 10, [3.0, 1.0, 2.0])
    assert program([30.0, 10.0, 20.0]) == 220.0
    with pytest.raises(BranchChanged):
        program([1.0, 2.0, 3.0])


def test_a_guard_stops_a_replay_before_it_refuses():
    def f(x):
        return x.log() if x > 0 else x

    with pytest.raises(BranchChanged):
        record(f, 1.0)(-1.0)
    assert record(f, 1.0, on_branch="record")(-1.0) == -1.0


def test_a_refusal_stops_a_replay_before_a_guard_on_its_result():
    def f(x):
        return x * 2 if x.log() > 0 else x

    with pytest.raises(ValueError, match="math domain error"):
        record(f, 2.0)(-1.0)


def test_a_comparison_under_no_grad_is_a_guard():
    def f(x):
        with no_grad():
            negative = x < 0
        return -x if negative else x

    program = record(f, 1.0, strict=True)
    assert program(2.0) == 2.0
    with pytest.raises(BranchChanged):
        program(-2.0)


# ---- paths ----


def test_on_branch_record_keeps_a_program_for_every_path():
    def f(x, y):
        z = x * y if x > 0 else x - y
        return z * 2 if z < y else -z

    calls = []

    def counted(x, y):
        calls.append(1)
        return f(x, y)

    program = record(counted, 1.0, 2.0, on_branch="record")
    points = [(a, b) for a in (-2.0, -0.5, 0.0, 0.5, 3.0) for b in (-1.0, 0.0, 2.0)]
    for _ in range(2):
        for a, b in points:
            x, y = Value(a), Value(b)
            z = f(x, y)
            z.backward()
            assert program.value_and_grad(a, b, argnums=(0, 1)) == (z.data, (x.grad, y.grad))
    assert program.stats["paths"] == len(calls) == 4


def test_the_branch_that_was_changed_may_return_another_value_of_the_same_shape_only():
    program = record(lambda x: [x] if x > 0 else x, 1.0, on_branch="record")
    with pytest.raises(ValueError, match="on another path"):
        program(-1.0)
    assert program.stats["paths"] == 1


def test_paths_that_are_kept_are_bounded_and_calls_that_are_right_are_not():
    def f(x):
        k = 0
        while x > k:
            k += 1
        return x * x * k

    program = record(f, 0.5, on_branch="record")
    xs = [k + 0.5 for k in range(80)]
    expected = [x * x * math.ceil(x) for x in xs]
    assert [program(x) for x in xs[:64]] == expected[:64]
    with pytest.warns(RuntimeWarning) as caught:
        assert program(70.5) == 70.5 * 70.5 * 71
        assert program.value_and_grad(70.5) == (70.5 * 70.5 * 71, 2 * 70.5 * 71)
    (warning,) = caught
    assert warning.filename == __file__
    for text in ("64", "max_paths", f"{line_of(f, 2)} branches most, 63 times", "tapegrad.where"):
        assert text in str(warning.message)
    assert (program.stats["paths"], program.stats["unkept"]) == (64, 2)
    assert program(0.5) == 0.25


@pytest.mark.parametrize("reduce", [None, "sum"])
def test_rows_beyond_max_paths_are_right(reduce):
    def f(x):
        k = 0
        while x > k:
            k += 1
        return x * x * k

    program = record(f, 0.5, on_branch="record", max_paths=3)
    xs = [k % 9 + 0.5 for k in range(50)]
    grads = [2 * x * math.ceil(x) for x in xs]
    values = [x * x * math.ceil(x) for x in xs]
    with pytest.warns(RuntimeWarning, match="max_paths"):
        value, grad = program.map(reduce=reduce).value_and_grad(xs)
    assert grad == grads and value == (values if reduce is None else sum(values))
    assert (program.stats["paths"], program.stats["unkept"]) == (3, 6)


def test_an_f_that_raises_beyond_max_paths_raises():
    def f(x):
        if x < 0:
            raise KeyError("negative")
        return x * 2 if x > 1 else x

    program = record(f, 0.5, on_branch="record", max_paths=1)
    with pytest.warns(RuntimeWarning, match="max_paths"), pytest.raises(KeyError, match="negative"):
        program(-1.0)
    assert program(2.0) == 4.0


@pytest.mark.parametrize("max_paths", [0, -1, 1.5, "64", True])
def test_max_paths_is_checked(max_paths):
    with pytest.raises(ValueError, match="max_paths must be a positive integer"):
        record(lambda x: x, 1.0, max_paths=max_paths)


def test_f_that_raises_on_another_path_leaves_the_program_as_it_was():
    def f(x):
        if x < 0:
            raise KeyError("negative")
        return x * 2

    program = record(f, 1.0, on_branch="record")
    for _ in range(2):
        with pytest.raises(KeyError, match="negative"):
            program(-1.0)
    assert program(3.0) == 6.0 and program.stats["paths"] == 1


OWN_PROGRAM = """
from tapegrad import record

def f(x):
    if x > 1.0:
        return x * program(-0.5)
    return -x if x < 0 else x

program = record(f, 0.5, on_branch="record")
assert [program(x) for x in (2.0, -3.0, 0.25)] == [1.0, 3.0, 0.25]
assert program.stats["paths"] == 3
"""


def test_f_may_call_its_own_program_while_another_path_is_recorded(script):
    script(OWN_PROGRAM, timeout=60)


def test_f_that_decides_by_chance_ends():
    state = [False]

    def f(x):
        state[0] = not state[0]
        return x if (x > 0) == state[0] else -x if x > 1 else x * 2

    program = record(f, 0.5, on_branch="record")
    for x in (0.5, -0.5, 2.0):
        program(x)


@pytest.mark.parametrize("how", [{"on_branch": "ignore"}, {"on_error": "ignore"}])
def test_options_are_checked(how):
    with pytest.raises(ValueError, match="must be"):
        record(lambda x: x, 1.0, **how)


# ---- what goes past the tape ----

ESCAPES = {
    ".data was read": lambda x: x.data,
    ".data was written": lambda x: setattr(x, "data", 1.0),
    ".grad was read": lambda x: x.grad,
    "_backward was set": lambda x: setattr(x * x, "_backward", lambda: None),
    "made by hand": lambda x: Value(1.0, (x,), "mine"),
    "data() was called": lambda x: tapegrad.data([x]),
    "grads() was called": lambda x: tapegrad.grads([x]),
    "set_data() was called": lambda x: tapegrad.set_data([x], [1.0]),
    "no_grad was on": no_grad()(lambda x: x * 2),
    "an optimizer": lambda x: tapegrad.optim.SGD([WEIGHT], lr=0.1).step(),
    "an optimizer ": lambda x: tapegrad.optim.Adam([WEIGHT], lr=0.1).step(),
}
WEIGHT = Value(1.0)


@pytest.mark.parametrize("what", ESCAPES)
def test_what_goes_past_the_tape_warns_with_its_line_and_is_refused_when_strict(what):
    escape = ESCAPES[what]

    def f(x):
        escape(x)
        return x * x

    with pytest.warns(RuntimeWarning) as caught:
        program = record(f, 2.0)
    assert what.strip() in str(caught[0].message) and len(caught) == 1
    assert caught[0].filename == __file__
    assert program(3.0) == 9.0
    with pytest.raises(RuntimeError, match="while recording") as refused:
        record(f, 2.0, strict=True)
    assert what.strip() in str(refused.value) and shown(__file__) in str(refused.value)


def test_the_warning_is_of_the_line_that_read():
    def f(x):
        y = x * 2
        return y * y.data

    with pytest.warns(RuntimeWarning) as caught:
        record(f, 2.0)
    assert f"{shown(caught[0].filename)}:{caught[0].lineno}" == line_of(f, 2)


def test_printing_and_formatting_are_reading():
    for escape in (repr, str, "{:.2f}".format):
        with pytest.raises(RuntimeError, match="was read"):
            record(lambda x, escape=escape: (escape(x), x)[1], 1.0, strict=True)


def test_what_does_not_depend_on_numbers_is_no_escape():
    def f(x):
        y = x * x
        y.label = "square"
        assert y == y and y != x and hash(x) is not None and x in {x} and y._prev and y._op == "*"
        return y

    assert record(f, 2.0, strict=True)(3.0) == 9.0


def test_outside_of_a_recording_nothing_warns():
    record(lambda x: x * x, 2.0, strict=True)
    x = Value(2.0)
    assert (x.data, x.grad, tapegrad.data([x])) == (2.0, 0.0, [2.0])


def test_a_warning_that_is_an_error_ends_the_recording():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            record(lambda x: x * x.data, 2.0)
    x = Value(2.0)
    assert x.data == 2.0
    assert tape.collect() is not None


# ---- the tape, before and after ----


def cyclic(x):
    class Loop:
        pass

    loop = Loop()
    loop.self, loop.value = loop, x * 3
    return loop.value * x


LEAKED = []


def leaking(x):
    LEAKED.append(x * 3)
    return LEAKED[-1] * x


def raising(x):
    y = x * 3
    raise KeyError(y)


def refused(x):
    return (x - 5).log()


def backward(x):
    y = x * x
    y.backward()
    return y


def popping(x):
    y = x
    for _ in range(50):
        z = [y * k for k in range(20)]
        y = z[3] + 1
        del z
    return y


STRANGE = [cyclic, leaking, raising, refused, backward, popping, lambda x: 3.0, lambda x: [x, None]]


@pytest.mark.parametrize("f", STRANGE)
def test_the_tape_is_left_as_it_was(f, swept, settle):
    keep = [Value(1.0), Value(2.0)]
    product = keep[0] * keep[1]
    before, handles = len(tape), tape.stats()["handles"]
    try:
        record(f, 2.0)
    except (KeyError, ValueError, TypeError):
        pass
    LEAKED.clear()
    if f in (cyclic, raising):
        gc.collect()
    settle()
    if f is cyclic:
        tape.collect()
    assert (len(tape), tape.stats()["handles"]) == (before, handles)
    product.backward()
    assert (product.data, keep[0].grad, keep[1].grad) == (2.0, 2.0, 1.0)


def test_a_leaked_value_is_still_good():
    record(leaking, 2.0)
    leaked = LEAKED.pop()
    y = leaked * leaked
    y.backward()
    assert (leaked.data, y.data, leaked.grad) == (6.0, 36.0, 12.0)


def test_every_allocation_of_recording_and_replaying_may_fail(swept, works, settle):
    def f(x, y):
        for k in range(40):
            x = tapegrad.softmax([x * k, y])[1] + tapegrad.dot([x, y], [y, x]) if x < 100 else x
        return x * y

    before, refused, results = len(tape), 0, None
    while results is None:
        lib.tg_fail_allocation(refused + 1)
        try:
            program = record(f, 0.5, 0.25)
            results = program.value_and_grad(0.5, 0.25), program.hvp(0.5, 1.0, 0.25), program.map()([0.5], [0.25])
        except MemoryError:
            refused += 1
        finally:
            lib.tg_fail_allocation(0)
        settle()
        assert len(tape) == before
    assert refused >= 5 and results[2] == [results[0][0]]
    works()


def test_recording_leaves_grads_alone():
    w = Value(3.0)
    (w * w).backward()
    program = record(lambda x: x * w, 1.0, params=[w])
    program.value_and_grad(2.0, argnums="params")
    assert w.grad == 6.0


def test_lines_are_those_of_the_code_that_ran_whatever_lay_there_before():
    """Code objects come and go in a loop, generators and other functions take turns."""
    ran = []

    def made(line):
        ran.append(f"made.py:{line}")
        names = {}
        exec(compile("\n" * (line - 1) + "def g(v): return v.sin()", "made.py", "exec"), names)
        return names["g"]

    def steps(v, n):
        for _ in range(n):
            v = v.tanh()
            yield v

    def f(v):
        for k in range(300):
            v = made(1 + 7 * k % 150)(v)
            v = v.cos().exp() if k % 2 else v.exp().cos()
        for one, other in zip(steps(v, 5), steps(v.atan(), 5)):
            v = v.hypot(one).hypot(other)
        return v

    found = [row.split()[-1] for row in record(f, 0.5).listing().splitlines()[1:-1]]
    ran += [line_of(f, 3)] * 600 + [line_of(f, 4)] + [line_of(f, 5)] * 10 + [line_of(steps, 2)] * 10
    assert sorted(found) == sorted(ran)


def test_values_that_die_while_recording_leave_the_lines_right():
    def f(x):
        for _ in range(5):
            y = x * 2
            y = y.tanh()
            del y
        z = x.sin()
        w = z.cos()
        return w

    rows = str(record(f, 1.0)).splitlines()
    assert rows[1].endswith(line_of(f, 5)) and rows[2].endswith(line_of(f, 6))


def test_values_that_die_after_a_comparison_are_kept_for_it():
    def f(x):
        for k in range(5):
            if (x * k).tanh() > 0.5:
                x = x + 1.0
        return x

    program = record(f, 1.0, on_branch="record")
    for at in (1.0, 0.25, -1.0, 3.0):
        assert program(at) == f(Value(at)).data


@pytest.mark.parametrize("work", [150_000 if tape.handle == "cffi" else 1_200_000])
def test_what_would_call_for_a_reclaim_is_recorded(work):
    def f(x):
        held = []
        for _ in range(work // 2):
            x = x * 1.0000001 + 1e-7
        held.append(x)
        return x

    program, x = record(f, 1.0), Value(0.5)
    y = f(x)
    y.backward()
    value, grad = program.value_and_grad(0.5)
    assert value == y.data and grad == pytest.approx(x.grad, rel=1e-12)
    assert program.jvp([0.5], [1.0])[1] == pytest.approx(grad, rel=1e-12)


def test_many_outputs_are_summed():
    n = 20_000
    program = record(lambda x: [x * k for k in range(n)], 1.0)
    assert sum(program(2.0)) == n * (n - 1)
    _, pull = program.vjp(2.0)
    assert pull([1.0] * n) == (n * (n - 1) / 2,)
    total = record(lambda x: tapegrad.sum(x * k for k in range(n)), 1.0)
    assert total.value_and_grad(2.0) == (n * (n - 1), n * (n - 1) / 2)


# ---- nested recordings, no_grad ----


def test_a_recording_within_a_recording_is_a_program_of_its_own():
    inner = []

    def g(y):
        return y * y if y > 1 else y

    def f(x):
        inner.append(record(g, 2.0))
        return x * inner[0](3.0) if x < 5 else x

    outer = record(f, 1.0)
    assert (outer(2.0), inner[0](4.0)) == (18.0, 16.0)
    assert outer.stats["guards"] == inner[0].stats["guards"] == 1
    with pytest.raises(BranchChanged):
        outer(6.0)


def test_a_recording_that_failed_within_one_is_over():
    def f(x):
        for bad in (lambda y: None, lambda y: y.log(), lambda y: {}[y]):
            with pytest.raises((TypeError, ValueError, KeyError)):
                record(bad, -1.0)
        return x * 2 if x > 0 else x

    program = record(f, 1.0, strict=True)
    assert program(2.0) == 4.0 and program.stats["guards"] == 1


def test_recording_under_no_grad_records():
    with no_grad():
        program = record(lambda x: x * x, 1.0, strict=True)
        y = Value(2.0) * 3
        y.backward()
    assert not y._prev
    assert program.value_and_grad(3.0) == (9.0, 6.0)


def test_the_tape_cannot_be_reset_while_recording():
    def f(x):
        with pytest.raises(RuntimeError, match="while a program is being recorded"):
            tape.reset()
        tape.collect()
        return x * 2

    assert record(f, 1.0)(2.0) == 4.0
    tape.reset()


def test_nothing_is_collected_while_recording():
    freed = []

    def f(x):
        last = [x * k for k in range(5)][-1]  # the others are dead, in the middle of the tape
        freed.append(tape.collect())
        return last * 2

    assert record(f, 1.0)(2.0) == 16.0
    assert freed == [0]


def test_a_loss_was_recorded_where_it_was_called():
    def f(x, y):
        a = tapegrad.mse([x, y], [y, 1.0])
        b = tapegrad.cross_entropy([x, 2.0, y], 1)
        return a * tapegrad.logsumexp([b, x]) + tapegrad.softmax([x, y])[0]

    listing = str(record(f, 1.0, 2.0)).splitlines()
    for name, offset in (("dot", 1), ("logsumexp", 2), ("logsumexp", 3)):
        assert any(f"{name}(" in line and line.endswith(line_of(f, offset)) for line in listing), (name, listing)
    assert all(shown(f.__code__.co_filename) in line for line in listing if line.startswith("  %"))


# ---- wrong arguments ----


@pytest.mark.parametrize("returned", [None, [2j], {1: Decimal(1)}])
def test_f_has_to_return_real_numbers(returned):
    with pytest.raises(TypeError, match="return"):
        record(lambda x: returned, 1.0)


@pytest.mark.parametrize("returned", [[], (), [[], ()], {}, "text", object(), (x for x in ())])
def test_f_has_to_return_something(returned):
    with pytest.raises(ValueError, match="nothing to differentiate"):
        record(lambda x: returned, 1.0)


@pytest.mark.parametrize("bad", [1j, Decimal(1), [1.0, 2j], {"a": [Decimal(1)]}])
def test_example_numbers_must_be_real(bad):
    with pytest.raises(TypeError, match=r"example y.* must be a real number"):
        record(lambda x, y: x, 1.0, bad)


def test_example_arrays_must_be_of_numbers(np):
    for bad in (np.array(["a"]), np.array([1j]), np.array([None]), np.array(["2020"], dtype="M8[Y]")):
        with pytest.raises(TypeError, match="example x"):
            record(lambda x: x[0], bad)


@pytest.mark.parametrize("args", [(), (1.0,), (1.0, [1.0, 2.0], 3.0)])
def test_a_wrong_number_of_arguments_is_named(args):
    with pytest.raises(TypeError, match=f"takes 2 arguments, not {len(args)}"):
        record(lambda x, y: x, 1.0, [1.0, 2.0])(*args)


@pytest.mark.parametrize(
    "bad, error, says",
    [
        ([1.0], ValueError, "argument y is 'list' of 1, but was recorded as a list of 2"),
        ([1.0, 2.0, 3.0], ValueError, "of 3"),
        (1.0, TypeError, "argument y is 'float'"),
        ("ab", TypeError, "argument y is 'str'"),
        (None, TypeError, "argument y"),
        ([1.0, "x"], TypeError, r"argument y\[1\] must be a number, not 'str'"),
        ([1.0, [2.0]], TypeError, r"argument y\[1\] is 'list' of 1, but was recorded as a number"),
        ([1.0, 2j], TypeError, r"argument y\[1\]"),
    ],
)
def test_a_wrong_argument_is_named(bad, error, says):
    with pytest.raises(error, match=says):
        record(lambda x, y: x, 1.0, [1.0, 2.0])(1.0, bad)


def test_values_are_no_arguments_of_second_derivatives():
    program = record(lambda x: x * x, 1.0)
    with pytest.raises(TypeError, match=r"argument x is a Value; this takes numbers: v\.data, or tapegrad\.hvp"):
        program.hvp(Value(1.0), 1.0)


def test_a_wrong_array_is_named(np):
    program = record(lambda x: x.sum(), np.zeros((2, 3)))
    cases = (np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3, 1)), np.zeros((2, 3), dtype=complex), np.full((2, 3), "a"))
    for bad in (*cases, np.zeros((2, 3), dtype=object) + 1j, 1.0, np.array(1.0)):
        with pytest.raises((TypeError, ValueError), match="argument x"):
            program(bad)


@pytest.mark.parametrize("argnums, error", [(2, ValueError), (-3, ValueError), ("x", TypeError), (0.0, TypeError)])
def test_wrong_argnums_are_named(argnums, error):
    program = record(lambda x, y: x * y, 1.0, 2.0)
    for call in (program.grad, program.jacobian, program.hessian, program.map().grad):
        with pytest.raises(error, match="argnums"):
            call(*([[1.0]] * 2 if call == program.map().grad else (1.0, 2.0)), argnums=argnums)


def test_a_hessian_times_a_vector_is_by_one_argument():
    program = record(lambda x, y: x * y, 1.0, 2.0)
    with pytest.raises(TypeError, match="argnums"):
        program.hvp(1.0, 1.0, 2.0, argnums=(0, 1))


def test_a_gradient_is_of_one_value():
    program = record(lambda x: [x, x], 1.0)
    calls = (program.grad, program.value_and_grad, program.hessian, lambda x: program.hvp(x, x))
    for call in calls:
        with pytest.raises(TypeError, match="returns a list of 2"):
            call(1.0)


# ---- nan, inf, refusals ----


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_replay_as_they_compute(x):
    def f(x):
        return [x + 1, x * 0.0, x.tanh(), x / 2.0, x.relu(), x**2, tapegrad.logsumexp([x, x]), x.max(3.0), x - x]

    expected = tapegrad.data(f(Value(x)))
    got = record(f, 1.0)(x)
    assert [repr(y) for y in got] == [repr(y) for y in expected]


REFUSALS = {
    "log": (lambda x: x.log(), -1.0), "sqrt": (lambda x: x.sqrt(), -1.0), "divide": (lambda x: 1.0 / x, 0.0),
    "power": (lambda x: x**-1, 0.0), "root": (lambda x: x**0.5, -1.0), "overflow": (lambda x: x.exp(), 1e4),
    "asin": (lambda x: x.asin(), 2.0), "squared": (lambda x: x**2, 1e200), "inf": (lambda x: x.sin(), math.inf),
    "infinities": (lambda x: tapegrad.math.fsum([x, 1.0, -x]), math.inf),
    "sum": (lambda x: tapegrad.math.fsum([x, x, -math.inf]), 1e308),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_that_of_values_with_the_line_that_recorded_it(name):
    f, x = REFUSALS[name]
    with pytest.raises((ValueError, ArithmeticError)) as expected:
        f(Value(x))
    program = record(f, 0.5)
    for call in (program, program.grad, program.hessian, lambda x: program.jvp([x], [1.0])):
        with pytest.raises(type(expected.value)) as got:
            call(x)
        assert type(got.value) is type(expected.value)
        assert str(expected.value) in str(got.value) and f"recorded at {line_of(f, 0)}" in str(got.value)


@pytest.mark.parametrize("name", REFUSALS)
def test_on_error_nan_lets_a_refusal_pass_as_nan(name):
    f, x = REFUSALS[name]
    program = record(lambda x: [f(x), x * 2], 0.5, on_error="nan")
    assert math.isnan(program(x)[0]) and program(x)[1] == 2 * x


def test_what_is_dead_refuses_in_a_replay_too():
    def f(x):
        (x - 5).exp().log()
        x.log()
        return x * 2

    with pytest.raises(ValueError, match=r"log\(-1.0\): math domain error, recorded at"):
        record(f, 1.0)(-1.0)
    assert record(f, 1.0, on_error="nan")(-1.0) == -2.0


def test_what_is_dead_and_refuses_nothing_goes():
    def f(x, y):
        tapegrad.softmax([x, y]), x / 4, (x * y).tanh(), tapegrad.logsumexp([x, y])
        return x * y

    assert record(f, 1.0, 2.0).stats["instructions"] == 1


# ---- scipy ----


def test_minimize_takes_value_and_grad_and_hvp_as_they_are(np):
    optimize = pytest.importorskip("scipy.optimize")
    program = record(rosenbrock, np.zeros(5))
    for method in ("BFGS", "L-BFGS-B", "CG"):
        found = optimize.minimize(program.value_and_grad, np.full(5, 0.5), jac=True, method=method)
        assert np.allclose(found.x, 1.0, atol=1e-4)
    for method in ("trust-ncg", "Newton-CG", "trust-krylov"):
        found = optimize.minimize(program.value_and_grad, np.full(5, 0.5), jac=True, hessp=program.hvp, method=method)
        assert np.allclose(found.x, 1.0, atol=1e-4)
    found = optimize.minimize(program, np.full(5, 0.5), jac=program.grad, hess=program.hessian, method="trust-exact")
    assert np.allclose(found.x, 1.0, atol=1e-4)


def test_least_squares_takes_the_jacobian_as_it_is(np):
    optimize = pytest.importorskip("scipy.optimize")
    t = np.linspace(0.0, 1.0, 20)
    program = record(lambda p: np.array([p[0] * (p[1] * x).exp() - 2.0 * math.exp(-1.5 * x) for x in t]), np.ones(2))
    found = optimize.least_squares(program, np.ones(2), jac=program.jacobian)
    assert np.allclose(found.x, [2.0, -1.5])


# ---- threads, forks, Ctrl-C ----


def test_threads_replay_one_program_at_once():
    def f(x):
        y = x
        for _ in range(200):
            y = (y * x).tanh() + x
        return y

    program = record(f, 0.5, on_branch="record")
    points = [0.1 * k for k in range(20)]
    expected = [(program.value_and_grad(x), program.hvp(x, 1.0)) for x in points]

    def work():
        for _ in range(10):
            assert [(program.value_and_grad(x), program.hvp(x, 1.0)) for x in points] == expected

    together(*[work] * 4)


def test_threads_share_the_paths_that_they_find():
    program = record(lambda x: x * sum(1 for k in range(10) if x > k), 0.5, on_branch="record")

    def work():
        for k in range(10):
            assert program(k + 0.5) == (k + 0.5) * (k + 1)

    together(*[work] * 4)
    assert program.stats["paths"] == 10


def test_threads_record_at_once():
    def work(k):
        def f(x):
            for i in range(100):
                x = x * k + i if x > -1e300 else x
            return x

        def run():
            for _ in range(10):
                program = record(f, 1.0, strict=True)
                value, grad = program.value_and_grad(0.5)
                x = Value(0.5)
                y = f(x)
                y.backward()
                assert (value, program.stats["guards"]) == (y.data, 100) and grad == pytest.approx(x.grad, rel=1e-12)

        return run

    together(*map(work, (0.5, 0.75, -0.25)))


def test_another_thread_is_no_part_of_a_recording():
    went, go = threading.Event(), threading.Event()

    def other():
        assert went.wait(60)
        x = Value(1.0)
        y = x * 2
        assert (y.data, y < 5) == (2.0, True)
        y.backward()
        assert x.grad == 2.0
        go.set()

    def f(x):
        y = x * 2
        went.set()
        assert go.wait(60)
        return y * x

    thread = threading.Thread(target=other)
    thread.start()
    program = record(f, 1.0, strict=True)
    thread.join(60)
    assert (program.stats["guards"], program(3.0)) == (0, 18.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_program_goes_on_after_a_fork():
    program = record(lambda x: x * x if x > 0 else -x, 1.0, on_branch="record")
    child = os.fork()
    if not child:
        good = program.value_and_grad(3.0) == (9.0, 6.0) and program(-2.0) == 2.0
        good = good and program.map(threads=2)([1.0, -2.0]) == [1.0, 2.0]
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert program.grad(3.0) == 6.0


INTERRUPTED = """
import signal, sys, time
from tapegrad import record

kind, threads, n, count = sys.argv[1], *map(int, sys.argv[2:])

def f(x):
    y = x
    for _ in range(n):
        y = (y + 1.5) ** x
    return y

program = record(f, 0.5)
batch = program.map(reduce="sum", threads=threads)
rows = [0.5 + 1e-6 * k for k in range(count)]
begun = []

def stop(*_):
    begun.append(time.monotonic())
    raise KeyboardInterrupt

def alone():
    while True:
        program.value_and_grad(0.5)

signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.25)
due = time.monotonic() + 0.25
try:
    alone() if kind == "alone" else batch.value_and_grad(rows)
except KeyboardInterrupt:
    assert time.monotonic() - due < 1.0, time.monotonic() - due
else:
    sys.exit("not interrupted")
assert program.grad(0.5) == program.map().grad([0.5, 0.5])[1]
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("kind, threads", [("rows", 1), ("rows", 2), ("instructions", 1), ("alone", 1)])
def test_an_interrupt_ends_a_long_replay_within_a_second(script, sized, kind, threads):
    many = sized(100_000, 500_000, cffi=100_000)
    n, count = (20_000, 200_000) if kind == "rows" else (many, 32_000_000 // many)
    script(INTERRUPTED, kind, str(threads), str(n), str(count))


def test_programs_of_equal_functions_are_not_mixed_up():
    programs = [record(lambda x, k=k: x * k, 1.0) for k in range(5)]
    assert [p(2.0) for p in programs] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert all(isinstance(p, Program) and repr(p).startswith("<program: 1 inputs") for p in programs)


def test_what_another_thread_computes_in_f_warns_for_its_comparisons_are_no_guards():
    def in_a_thread(g):
        found = []
        thread = threading.Thread(target=lambda: found.append(g()))
        thread.start()
        thread.join()
        return found[0]

    def f(x):
        return in_a_thread(lambda: x * 2 if x > 0 else -x)

    with pytest.warns(RuntimeWarning, match="another thread computed a part"):
        record(f, 1.0)
    with pytest.raises(RuntimeError, match="another thread computed a part"):
        record(f, 1.0, strict=True)


@pytest.mark.parametrize(
    "ask",
    [lambda x: x > 1, lambda x: 1.0 <= x, lambda x: x == 2.0, lambda x: x != x * 1.0, bool, lambda x: x in (1, 2),
     lambda x: x.data > 1],
)  # fmt: skip
def test_what_another_thread_asks_of_fs_numbers_warns_for_it_is_no_guard(ask):
    def f(x):
        found, y = [], x * x
        thread = threading.Thread(target=lambda: found.append(ask(y)))
        thread.start()
        thread.join()
        return y if found[0] else x

    with pytest.warns(RuntimeWarning, match="another thread asked something of its numbers"):
        record(f, 1.0)
    with pytest.raises(RuntimeError, match="another thread asked something of its numbers"):
        record(f, 1.0, strict=True)


def test_what_another_thread_computes_for_itself_does_not_matter():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            y, z = Value(1.0), Value(1.0) * 2.0
            z.backward()
            assert y < 2.0 and y != z and z in [y, z] and not z < tapegrad.leaves([1.0])[0]

    before = sys.getswitchinterval()
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        sys.setswitchinterval(1e-5)
        for _ in range(20):
            assert record(lambda x: sum((x * k for k in range(50)), 0.0), 1.0, strict=True)(2.0) == 2450.0
    finally:
        sys.setswitchinterval(before)
        stop.set()
        thread.join()


def test_a_program_recorded_within_that_takes_a_value_for_a_constant_warns():
    def f(x):
        return x * record(lambda y: y * x, 2.0)(3.0)

    with pytest.warns(RuntimeWarning, match="took a Value for a constant"):
        record(f, 5.0)
    with pytest.raises(RuntimeError, match="took a Value for a constant"):
        record(f, 5.0, strict=True)


def test_a_comparison_of_an_outer_value_in_a_program_recorded_within_warns():
    def f(x):
        return x * record(lambda y: y if x > 0 else -y, 2.0)(3.0)

    with pytest.warns(RuntimeWarning, match="took a Value for a constant"):
        record(f, 5.0)


def test_a_program_recorded_within_may_use_what_was_there_before():
    w = Value(3.0)
    assert record(lambda x: x * record(lambda y: y * w, 2.0)(4.0), 5.0, strict=True)(2.0) == 24.0


def test_an_argument_that_goes_while_it_is_read_counts_as_it_came():
    class Emptying:
        def __float__(self):
            xs.clear()
            return 2.0

    xs = [Emptying(), 3.0, 5.0]
    assert record(lambda xs: xs[0] * xs[1] * xs[2], [1.0, 1.0, 1.0])(xs) == 30.0


# ---- the house ----


def test_a_program_shows_what_is_documented_and_nothing_else():
    shown = {name for name in dir(record(lambda x: x * x, 1.0)) if not name.startswith("_")}
    assert shown == {
        "diagnose", "grad", "heat", "hessian", "hvp", "jacobian", "jvp", "listing", "map", "native", "params",
        "rounding", "save", "scan", "sparse_hessian", "sparse_jacobian", "stats", "to_c", "value_and_grad", "vjp",
    }  # fmt: skip
    assert all(getattr(Program, name).__doc__ for name in shown)
    shown = {name for name in dir(record(lambda x: x * x, 1.0).map()) if not name.startswith("_")}
    assert shown == {"diagnose", "grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"}


def test_every_import_within_the_package_points_down():
    """In the order that its docstring gives; of the other files of tapegrad it uses those without programs alone, but
    that the faces, when they are asked to, load what looks at programs, sparse derivatives, and loops; and files and
    layouts what is for programs that hold loops."""
    folder = pathlib.Path(tapegrad.program.__file__).parent
    order = re.search(r"alone: ([\w,\s]+)\.", tapegrad.program.__doc__)[1].replace(",", "").split()
    assert sorted(order) == sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})
    for k, name in enumerate(order):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                imported = [node.module] if node.module else [alias.name for alias in node.names]
                below = order[:k] if node.level == 1 else ["_core", "_integer", "_refusals", "value"]
                if name in ("batch", "program", "making"):
                    imported = [module for module in imported if not module.startswith(("look.", "sparse", "loops"))]
                if name in ("file", "layout"):
                    imported = [module for module in imported if module != "loops.called"]
                assert set(imported) <= set(below), f"{name} imports {imported}"


def test_numpy_pools_and_what_compiles_are_loaded_when_they_are_needed(script):
    script(
        "import sys, tapegrad; p = tapegrad.record(lambda x: x * x, 1.0); p.value_and_grad(2.0); p.map()([2.0])\n"
        "later = {'numpy', 'concurrent.futures', 'tapegrad.look'}\n"
        "later |= {'tapegrad.program.' + name for name in ('native', 'source', 'grouped', 'sums')}\n"
        "assert not later & set(sys.modules), later & set(sys.modules)"
    )


def test_a_gradient_at_values_is_by_each_argument_alone():
    """One Value may be two arguments, or a param, too, and an argument may be computed from another."""
    a, w = Value(3.0), Value(2.0)
    program = record(lambda x, y: x * y * y, 1.0, 2.0)
    assert [g.data for g in program.grad(a, a, argnums=(0, 1))] == [9.0, 18.0]
    slope = program.grad(a, a * a)
    slope.backward()
    assert (slope.data, a.grad) == (81.0, 108.0)
    assert record(lambda a: program.grad(a, a * a), 1.0).value_and_grad(3.0) == (81.0, 108.0)
    weighed = record(lambda x: x * x * w, 1.0, params=[w])
    (by_w,), by_x = weighed.grad(w * 1.0, argnums=("params", 0))
    assert (by_w.data, by_x.data) == (4.0, 8.0)
    value, slope = weighed.value_and_grad(w)
    (value + slope).backward()
    assert w.grad == 12.0 + 8.0
