"""Batches: a program over rows gives what it gives for each row, in any number, form, order and on any path."""

from __future__ import annotations

import gc
import itertools
import math
import pickle
import sys
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapegrad._core import lib
from test_threads import together

import tapegrad
from tapegrad import BranchChanged, Value, record
from tapegrad.program.replay import shown

LANES = record(lambda x: x, 0.0).stats["lanes"]
SIZES = (0, 1, 2, LANES - 1, LANES, LANES + 1, 2 * LANES, 64, 65, 1000)


def model(w, x):
    """A row: a list of three weights, shared, and a list of two features."""
    return (w[0] * x[0] + w[1] * x[1] + w[2]).tanh() * x[0] - w[2] * w[2]


@pytest.fixture(scope="module")
def program():
    return record(model, [0.1, 0.2, 0.3], [0.0, 0.0])


WEIGHTS = [0.5, -1.25, 0.75]


def rows_of(n):
    return [[math.sin(k * 1.7), math.cos(k * 0.3) * 2] for k in range(n)]


@pytest.fixture
def tiny(monkeypatch):
    """Threads are worth their while for any amount of work."""
    monkeypatch.setattr(lib.tg_chunks, "worth", 0)


# ---- sizes ----


@pytest.mark.parametrize("n", SIZES)
def test_each_row_has_the_bits_of_the_row_alone(program, n):
    rows = rows_of(n)
    batch = program.map(in_axes=(None, 0))
    assert batch(WEIGHTS, rows) == [program(WEIGHTS, row) for row in rows]
    values, grads = batch.value_and_grad(WEIGHTS, rows)
    assert (values, grads) == ([program(WEIGHTS, row) for row in rows], [program.grad(WEIGHTS, row) for row in rows])
    assert batch.grad(WEIGHTS, rows, argnums=1) == [program.grad(WEIGHTS, row, argnums=1) for row in rows]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 9, 10, 23, 64, 65])
@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_rows_of_any_width_are_read_and_their_gradients_written(width, on_error):
    """Rows go on two paths, so that blocks of lanes have some that are out."""

    def f(xs):
        s = tapegrad.dot(xs, xs)
        return s * 2.0 if xs[-1] > 0.25 else s.tanh() - xs[0]

    def row(k):
        return [math.sin(k * 1.1 + i) for i in range(width)]

    program = record(f, row(0), on_branch="record", on_error=on_error)
    for n in (1, 2, LANES - 1, LANES, LANES + 1, 3 * LANES + 5):
        rows = [row(k) for k in range(n)]
        assert program.map().value_and_grad(rows) == tuple(
            [one(x) for x in rows] for one in (program, program.grad)
        )


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_a_reduced_batch_is_the_sum_or_the_mean_of_the_rows(program, n, reduce):
    rows, weight = rows_of(n), 1.0 if reduce == "sum" or n == 0 else 1.0 / n
    value, (grad, by_row) = program.map(in_axes=(None, 0), reduce=reduce).value_and_grad(
        WEIGHTS, rows, argnums=(0, 1)
    )  # fmt: skip
    alone = [program.value_and_grad(WEIGHTS, row, argnums=(0, 1)) for row in rows]
    if n or reduce == "sum":
        assert value == pytest.approx(weight * math.fsum(v for v, _ in alone), rel=1e-12, abs=1e-12)
    else:
        assert math.isnan(value)
    for k in range(3):
        assert grad[k] == pytest.approx(weight * math.fsum(g[k] for _, (g, _) in alone), rel=1e-12, abs=1e-12)
    for got, (_, (_, expected)) in zip(by_row, alone):
        assert got == pytest.approx([weight * x for x in expected], rel=1e-12)
    assert len(by_row) == n
    assert program.map(in_axes=(None, 0), reduce=reduce)(WEIGHTS, rows) == value or n == 0


@pytest.mark.parametrize("n", [1, LANES + 1, 65, 1000, 5000])
@pytest.mark.parametrize("reduce", ["sum", "mean", None])
def test_the_bits_do_not_depend_on_the_number_of_threads(program, tiny, n, reduce):
    rows = rows_of(n)
    results = [
        program.map(in_axes=(None, 0), reduce=reduce, threads=threads).value_and_grad(WEIGHTS, rows, argnums=(0, 1))
        for threads in (1, 2, 3, 7)
    ]
    assert results[0] == results[1] == results[2] == results[3]


def test_rows_are_added_in_their_order():
    """Within a chunk one after the other, chunks one after the other."""
    batch = record(lambda x: x, 1.0).map(reduce="sum")
    assert batch([1e16, 1.0, -1e16, 1.0]) == 1.0
    assert batch([1.0, 1e16, -1e16, 1.0]) == 1.0
    assert batch([1e16, -1e16, 1.0, 1.0]) == 2.0


def test_several_python_threads_use_one_batch(program, tiny):
    rows = rows_of(300)
    batch = program.map(in_axes=(None, 0), reduce="mean", threads=2)
    expected = batch.value_and_grad(WEIGHTS, rows)

    def work():
        for _ in range(5):
            assert batch.value_and_grad(WEIGHTS, rows) == expected

    together(*[work] * 3)


# ---- what is mapped ----


def test_one_axis_is_for_all_arguments():
    batch = record(lambda x, y: x * y, 1.0, 1.0).map(0)
    assert batch([1.0, 2.0], [3.0, 4.0]) == [3.0, 8.0]


def test_arrays_are_mapped_over_any_axis(np):
    program = record(lambda w, x: (w * x).sum(), np.zeros(3), np.zeros(3))
    w, x = np.arange(3.0), np.arange(12.0).reshape(4, 3)
    expected = x @ w
    assert program.map(in_axes=(None, 0))(w, x).tolist() == expected.tolist()
    for axis in (1, -1):
        values, grads = program.map(in_axes=(None, axis)).value_and_grad(w, x.T, argnums=(0, 1))
        assert values.tolist() == expected.tolist()
        assert grads[0].tolist() == x.tolist() and grads[1].tolist() == np.tile(w, (4, 1)).T.tolist()
    both = program.map(in_axes=(1, 0))(np.tile(w, (4, 1)).T, x)
    assert both.tolist() == expected.tolist()


def test_the_middle_axis_of_a_stack_of_matrices_is_mapped(np):
    program = record(lambda m: (m * m).sum(), np.zeros((2, 3)))
    stack = np.arange(30.0).reshape(2, 5, 3)
    values, grads = program.map(in_axes=1).value_and_grad(stack)
    assert values.tolist() == (stack**2).sum(axis=(0, 2)).tolist()
    assert grads.shape == stack.shape and (grads == 2 * stack).all()


def test_arrays_of_other_types_and_layouts_are_converted(np):
    program = record(lambda x: x[0] - 2 * x[1], np.zeros(2))
    batch, x = program.map(), np.arange(80.0).reshape(40, 2)
    expected = (x[:, 0] - 2 * x[:, 1]).tolist()
    for other in (
        x.astype(np.float32), x.astype(int), x.astype(">f8"), np.asfortranarray(x), np.repeat(x, 3, axis=1)[:, ::3],
        np.repeat(x, 2, axis=0)[::2], x[::-1].copy()[::-1], x.astype(object), x.astype(np.uint8), x.tolist(),
        list(x), [tuple(row) for row in x],
    ):  # fmt: skip
        assert list(batch(other)) == expected
    x.flags.writeable = False
    assert batch(x).tolist() == expected
    assert batch(x > 1e9).tolist() == [0.0] * 40


def test_a_scalar_argument_takes_a_list_or_a_vector_of_numbers(np):
    batch = record(lambda x: x * x, 1.0).map()
    assert batch([1, 2.0, True]) == [1.0, 4.0, 1.0]
    assert batch((1.0, 2.0)) == [1.0, 4.0]
    result = batch(np.array([1, 2]))
    assert result.dtype == np.float64 and result.tolist() == [1.0, 4.0]


def test_nests_are_mapped_row_by_row():
    program = record(lambda x: (x[0] * x[1][0], [x[1][1]]), [1.0, (2.0, 3.0)])
    assert program.map()([[1.0, (2.0, 3.0)], [4.0, (5.0, 6.0)]]) == ([2.0, 20.0], [[3.0, 6.0]])
    assert program.map(reduce="sum")([[1.0, (2.0, 3.0)], [4.0, (5.0, 6.0)]]) == (22.0, [9.0])


def test_an_array_of_results_has_the_rows_first(np):
    program = record(lambda x: np.array([[x, x * 2, x * 3], [x * 4, x * 5, x * 6]]), 1.0)
    result = program.map()(np.arange(5.0))
    assert result.shape == (5, 2, 3) and result[3, 1, 2] == 18.0
    assert program.map()(np.arange(0.0)).shape == (0, 2, 3)
    assert program.map(reduce="mean")(np.arange(5.0)).tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]


def test_no_rows_give_nothing_a_sum_of_zero_and_no_gradient(np):
    program = record(lambda w, x: (w * x).sum(), np.zeros(3), np.zeros(3))
    values, grads = program.map(in_axes=(None, 0)).value_and_grad(np.ones(3), np.zeros((0, 3)), argnums=(0, 1))
    assert values.shape == (0,) and grads[0].shape == grads[1].shape == (0, 3)
    value, grad = program.map(in_axes=(None, 0), reduce="sum").value_and_grad(np.ones(3), np.zeros((0, 3)))
    assert value == 0.0 and grad.tolist() == [0.0, 0.0, 0.0]
    assert math.isnan(program.map(in_axes=(None, 0), reduce="mean")(np.ones(3), np.zeros((0, 3))))
    for batch in (record(lambda x, y: x * y, 1.0, 1.0).map(reduce=reduce) for reduce in (None, "sum")):
        for call in batch, batch.grad, batch.value_and_grad:
            with pytest.raises(ValueError, match="argument y has 5 rows, argument x has 0"):
                call(np.zeros(0), np.ones(5))


def test_params_are_shared_and_read_at_every_replay():
    w = Value(2.0)
    batch = record(lambda x: x * w * w, 1.0, params=[w]).map(reduce="sum")
    assert batch.value_and_grad([1.0, 2.0, 3.0], argnums="params") == (24.0, [24.0])
    w.data = 3.0
    assert batch.value_and_grad([1.0, 2.0, 3.0], argnums="params") == (54.0, [36.0])
    rows = record(lambda x: x * w * w, 1.0, params=[w]).map()
    assert rows.grad([1.0, 2.0], argnums="params") == [[6.0], [12.0]]


def test_an_empty_argument_has_its_own_empty_gradient(np):
    batch = record(lambda nothing, x: x * x, [], 2.0).map(in_axes=(None, 0))
    assert batch.value_and_grad([], [3.0, 4.0], argnums=(0, 1)) == ([9.0, 16.0], ([[], []], [6.0, 8.0]))
    batch = record(lambda nothing, x: x * x, np.zeros(0), 2.0).map(reduce="sum")
    value, (nothing, grad) = batch.value_and_grad(np.zeros((2, 0)), np.array([3.0, 4.0]), argnums=(0, 1))
    assert (value, nothing.shape, grad.tolist()) == (25.0, (2, 0), [6.0, 8.0])


def test_an_output_that_is_an_input_a_constant_or_given_twice_is_written_for_every_row():
    program = record(lambda x, y: [y, x, Value(3.0), x, x * y], 1.0, 2.0)
    expected = [[5.0, 5.0], [1.0, 2.0], [3.0, 3.0], [1.0, 2.0], [5.0, 10.0]]
    assert program.map(in_axes=(0, None))([1.0, 2.0], 5.0) == expected
    assert program.map(in_axes=(0, None), reduce="sum")([1.0] * 40, 5.0) == [200.0, 40.0, 120.0, 40.0, 200.0]


@pytest.mark.parametrize("n", [1, 2, LANES, 2 * LANES + 1])
def test_gradients_that_nobody_asks_for_change_no_bit_of_the_others(n):
    """A sweep of lanes leaves them out, whatever an instruction passes on to them."""

    def f(w, x, b):
        first = [tapegrad.dot(w[2 * k : 2 * k + 2], x, b) for k in range(3)]
        chosen = tapegrad.where(tapegrad.greater(x[0], w[0]), x[1] * b, w[1])
        return tapegrad.logsumexp([*first, x[0], w[0]]) + tapegrad.sum([chosen, b, x[1], first[0] / (x[0] * x[0] + b)])

    args = [0.5, -0.25, 1.0, 0.75, -1.5, 0.125], rows_of(n), 1.25
    batch = record(f, args[0], [0.5, 1.0], 1.0).map(in_axes=(None, 0, None))
    _, gradients = batch.value_and_grad(*args, argnums=(0, 1, 2))
    for asked in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        assert batch.grad(*args, argnums=asked) == tuple(gradients[k] for k in asked)


def test_an_argument_that_is_named_twice_has_its_gradient_twice(np):
    program = record(lambda x, y: x * y, 1.0, 1.0)
    assert program.grad(1.0, 3.0, argnums=(0, 1, 0, -2)) == (3.0, 1.0, 3.0, 3.0)
    assert program.map().grad([1.0, 2.0], [3.0, 4.0], argnums=(0, 0)) == ([3.0, 4.0], [3.0, 4.0])
    shared = program.map(in_axes=(None, 0), reduce="sum")
    assert shared.grad(1.0, [3.0, 4.0], argnums=(0, 1, -2)) == (7.0, [1.0, 1.0], 7.0)
    first, second = program.map().grad(np.ones(2), np.ones(2), argnums=(0, 0))
    first[0] = 99.0
    assert second.tolist() == [1.0, 1.0]


# ---- paths, errors ----


def branching(x, y):
    z = x * y if x > 0 else x - y
    return (z * 2 if z < y else -z) + x


@pytest.mark.parametrize("n", [1, LANES, 200])
def test_every_row_takes_its_own_path(n, tiny):
    xs = [math.sin(k * 2.1) * 3 for k in range(n)]
    ys = [math.cos(k * 1.3) * 2 for k in range(n)]
    program = record(branching, xs[-1], ys[-1], on_branch="record")
    for threads in (1, 2):
        values, grads = program.map(threads=threads).value_and_grad(xs, ys, argnums=(0, 1))
        for k, (a, b) in enumerate(zip(xs, ys)):
            x, y = Value(a), Value(b)
            z = branching(x, y)
            z.backward()
            assert (values[k], grads[0][k], grads[1][k]) == (z.data, x.grad, y.grad)
    assert program.stats["paths"] <= 4
    totals = [program.map(reduce="sum", threads=t).value_and_grad(xs, ys) for t in (1, 2, 3)]
    assert totals[0] == totals[1] == totals[2]
    assert totals[0][0] == pytest.approx(math.fsum(values), rel=1e-12)


def test_a_row_that_leaves_its_path_adds_nothing_to_a_shared_gradient():
    program = record(lambda w, x: w * x if x > 0 else w * 1000.0 * x, 1.0, 1.0, on_branch="record")
    batch = program.map(in_axes=(None, 0), reduce="sum")
    assert batch.value_and_grad(2.0, [1.0, -1.0, 2.0, -2.0]) == (-5994.0, -2997.0)


def test_a_changed_branch_names_the_row():
    rows = [1.0] * 100
    rows[70], rows[90] = -3.0, -4.0
    with pytest.raises(BranchChanged) as caught:
        record(lambda x: x if x > 0 else -x, 1.0).map()(rows)
    assert (caught.value.row, caught.value.operands) == (70, (-3.0, 0.0))
    assert "is False in row 70, was True when recorded" in str(caught.value)


@pytest.mark.parametrize("at", [0, 1, LANES, 99])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_refusal_names_the_row_and_the_line(tiny, at, threads):
    rows = [1.0] * 100
    rows[at] = -5.0

    def f(x):
        return x.log()

    line = f"recorded at {shown(f.__code__.co_filename)}:{f.__code__.co_firstlineno + 1}"
    for batch in (record(f, 1.0).map(threads=threads), record(f, 1.0).map(reduce="mean", threads=threads)):
        for call in (batch, batch.value_and_grad):
            with pytest.raises(ValueError, match=rf"log\(-5.0\): math domain error in row {at}, {line}"):
                call(rows)


def test_a_refusal_on_a_path_that_is_recorded_in_a_batch_names_the_row():
    program = record(lambda x: x.log() if x < 2 else (x - 4).log(), 1.0, on_branch="record")
    with pytest.raises(ValueError, match="math domain error in row 1"):
        program.map()([1.0, 3.0, 5.0])
    program.map()([1.0, 5.0])
    with pytest.raises(ValueError, match="math domain error in row 2"):
        program.map()([5.0, 1.0, 3.0])


def several_paths(x):
    if x == 7:
        raise LookupError("seven")
    return 1 / (x + 2) if x < 0 else (3 - x).log() if x < 10 else x.exp()


@pytest.mark.parametrize("known", [(), (-1.0,), (11.0,), (-1.0, 11.0), (11.0, -1.0)])
@pytest.mark.parametrize("reduce", [None, "sum"])
@pytest.mark.parametrize("max_paths", [1, 64])
@pytest.mark.filterwarnings("ignore:f takes more paths")
def test_of_rows_that_fail_on_several_paths_the_first_one_is_told(known, reduce, max_paths):
    """Paths are carried out one after the other, whichever rows take them."""
    errors = {-2.0: "division by zero in row 3", 5.0: "domain error in row 3", 7.0: "seven", 800.0: "too large.* row 3"}
    for failing in itertools.permutations(errors):
        program = record(several_paths, 1.0, on_branch="record", max_paths=max_paths)
        for x in known:
            program(x)
        rows = [1.0, -1.0, 12.0, failing[0], 2.0, *failing[1:], *[1.5] * 20]
        for call in (program.map(reduce=reduce), program.map(reduce=reduce).value_and_grad):
            with pytest.raises((ArithmeticError, ValueError, LookupError), match=errors[failing[0]]):
                call(rows)


def test_what_a_failing_row_raises_keeps_nothing_alive():
    class Kept:
        pass

    def fails(x):
        if x == 7:
            own = Kept()
            kept.append(weakref.ref(own))
            raise LookupError("seven")
        return x.log()

    kept = []
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(LookupError, match="seven"):
            record(fails, 1.0, on_branch="record").map()([1.0, 7.0, 2.0])
        assert [ref() for ref in kept] == [None] or sys.implementation.name != "cpython"
    finally:
        gc.enable()


def test_memory_that_runs_out_in_a_row_is_told_at_once():
    def f(x):
        if x == 7:
            raise MemoryError("all of it")
        return 1 / (x + 2) if x < 0 else x.log()

    program = record(f, 1.0, on_branch="record")
    program(-1.0)
    with pytest.raises(MemoryError, match="all of it"):  # row 1 fails as well, but on a path that comes later
        program.map()([1.0, -2.0, 7.0])


def test_on_error_nan_makes_the_row_nan_and_leaves_the_others():
    rows = [1.0] * 40
    rows[7], rows[33] = -1.0, 0.0
    program = record(lambda x: [x.log(), x], 1.0, on_error="nan")
    logs, xs = program.map()(rows)
    assert [k for k, y in enumerate(logs) if math.isnan(y)] == [7, 33]
    assert xs == rows


def test_infinite_slopes_of_one_row_stay_in_that_row():
    program = record(lambda x, w: x.sqrt() * w, 1.0, 1.0)
    grads = program.map(in_axes=(0, None)).grad([0.0, 1.0, 4.0] * 20, 0.0, argnums=0)
    assert grads == [0.0] * 60
    values, (by_x, by_w) = program.map(in_axes=(0, 0)).value_and_grad([0.0, 4.0], [1.0, 1.0], argnums=(0, 1))
    assert (values, by_x, by_w) == ([0.0, 2.0], [math.inf, 0.25], [0.0, 2.0])


# ---- bad input ----


@pytest.mark.parametrize(
    "how, error, says",
    [
        ({"in_axes": (0,)}, ValueError, "in_axes has 1 entries, the program takes 2 arguments"),
        ({"in_axes": None}, ValueError, "in_axes maps no argument"),
        ({"in_axes": (None, None)}, ValueError, "in_axes maps no argument"),
        ({"in_axes": 0.0}, TypeError, r"in_axes\[.\] must be integers and None"),
        ({"in_axes": (0, "1")}, TypeError, r"in_axes\[.\] must be integers and None"),
        ({"reduce": "max"}, ValueError, "reduce must be"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"threads": 1.5}, ValueError, "threads must be a positive integer"),
        ({"threads": True}, ValueError, "threads must be a positive integer"),
    ],
)
def test_options_are_checked(program, how, error, says):
    with pytest.raises(error, match=says):
        program.map(**how)


@pytest.mark.parametrize(
    "args, error, says",
    [
        ((WEIGHTS,), TypeError, "takes 2 arguments, not 1"),
        ((WEIGHTS, 1.0), TypeError, "argument x must be a list or an array of rows, not 'float'"),
        ((WEIGHTS, None), TypeError, "argument x must be"),
        ((WEIGHTS, [[1.0, 2.0], [3.0]]), ValueError, "argument x, row 1 is 'list' of 1, but was recorded as a"),
        ((WEIGHTS, [[1.0, 2.0], 3.0]), TypeError, "argument x, row 1"),
        ((WEIGHTS, [[1.0, 2.0], [3.0, "x"]]), TypeError, r"argument x, row 1\[1\] must be a number"),
        (([1.0], [[1.0, 2.0]]), ValueError, "argument w is 'list' of 1"),
    ],
)
def test_wrong_arguments_are_named(program, args, error, says):
    with pytest.raises(error, match=says):
        program.map(in_axes=(None, 0))(*args)


def test_a_gradient_is_by_something(program):
    batch = program.map(in_axes=(None, 0))
    assert batch.value_and_grad(WEIGHTS, [[1.0, 2.0]], argnums=()) == (batch(WEIGHTS, [[1.0, 2.0]]), ())
    with pytest.raises(TypeError, match=r"argnums must be .*, not None"):
        batch.grad(WEIGHTS, [[1.0, 2.0]], argnums=None)


def test_wrong_arrays_are_named(program, np):
    batch = program.map(in_axes=(None, 0))
    for bad in (np.zeros(3), np.zeros((4, 3)), np.zeros((2, 2, 2)), np.array(1.0)):
        with pytest.raises(ValueError, match="argument x"):
            batch(WEIGHTS, bad)
    with pytest.raises(TypeError, match="argument x is an array of complex128"):
        batch(WEIGHTS, np.zeros((4, 2), dtype=complex))
    with pytest.raises(ValueError, match="has no axis 5"):
        program.map(in_axes=(None, 5))(WEIGHTS, np.zeros((4, 2)))
    with pytest.raises(TypeError, match="axis 1: it must be an array"):
        program.map(in_axes=(None, 1))(WEIGHTS, [[1.0, 2.0]])


def test_different_numbers_of_rows_are_named():
    batch = record(lambda x, y: x * y, 1.0, 1.0).map()
    with pytest.raises(ValueError, match="argument y has 3 rows, argument x has 2"):
        batch([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_gradient_is_of_one_value_a_row():
    with pytest.raises(TypeError, match="returns a list of 2"):
        record(lambda x: [x, x], 1.0).map().grad([1.0])


def test_a_wide_sum_in_a_row_is_the_same_in_a_batch():
    def f(xs):
        return tapegrad.sum(xs) + tapegrad.logsumexp(xs) + tapegrad.dot(xs, xs, xs[0])

    program = record(f, [0.0] * 300)
    rows = [[math.sin(k + 10 * r) for k in range(300)] for r in range(LANES + 3)]
    values, grads = program.map().value_and_grad(rows)
    assert values == [program(row) for row in rows] and grads == [program.grad(row) for row in rows]


class Emptying:
    """A number that empties a list when it is read."""

    def __init__(self, held):
        self.held = held

    def __float__(self):
        self.held.clear()
        return 2.0


def test_rows_that_go_while_they_are_read_count_as_they_came():
    rows = []
    rows += [Emptying(rows), *([3.0] * 99)]
    assert record(lambda x: x * x, 1.0).map()(rows) == [4.0, *([9.0] * 99)]
    row = []
    row += [Emptying(row), 3.0]
    assert record(lambda xs: xs[0] * xs[1], [1.0, 1.0]).map()([row, [1.0, 5.0]]) == [6.0, 5.0]


# ---- trees in rows ----


def unstacked(tree, k):
    """Row k of what has the rows at each leaf."""
    if isinstance(tree, dict):
        return {key: unstacked(part, k) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(unstacked(part, k) for part in tree)
    return tree[k] if hasattr(tree, "__getitem__") and not isinstance(tree, str) else tree


def same(a, b):
    """Whether two nests hold the same numbers, arrays being lists."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if hasattr(a, "tolist"):
        return same(a.tolist(), b)
    if hasattr(b, "tolist"):
        return same(a, b.tolist())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, rel=1e-12) if isinstance(a, float) else a == b


def test_results_have_the_rows_at_each_leaf_whatever_its_shape(np):
    scalars = record(lambda x: (x[0] * 2, x[1] * 3), np.ones(2)).map()
    mixed = record(lambda x: (x * 2, x[1] * 3, "so", {"one": 1.0}), np.ones(2)).map()
    x = np.arange(6.0).reshape(3, 2)
    first, second = scalars(x)
    assert (first.tolist(), second.tolist()) == ([0.0, 4.0, 8.0], [3.0, 9.0, 15.0])
    first, second, so, ones = mixed(x)
    assert (first.tolist(), second.tolist(), so) == ((2 * x).tolist(), [3.0, 9.0, 15.0], "so")
    assert ones["one"].tolist() == [1.0, 1.0, 1.0]
    first, second, _, ones = mixed(x.tolist())
    assert (first.tolist(), second, ones) == ((2 * x).tolist(), [3.0, 9.0, 15.0], {"one": [1.0, 1.0, 1.0]})


def test_a_tree_is_mapped_as_a_list_of_rows_or_with_the_rows_at_each_leaf(np):
    program = record(lambda p, c: p["w"][0] * p["w"][1] * p["b"] + c, {"w": np.ones(2), "b": 1.0, "how": "so"}, 0.5)
    rows = [{"w": np.array([k, 2.0]), "b": k + 1.0, "how": "so"} for k in (1.0, 2.0, 3.0)]
    batch = program.map(in_axes=(0, None))
    stacked = {"w": np.array([row["w"] for row in rows]), "b": [2.0, 3.0, 4.0], "how": "so"}
    expected = [program(row, 0.5) for row in rows]
    assert list(batch(rows, 0.5)) == list(batch(stacked, 0.5)) == expected
    alone = [program.grad(row, 0.5) for row in rows]
    assert same(batch.grad(rows, 0.5), alone)
    gradient = batch.grad(stacked, 0.5)
    assert all(same(unstacked(gradient, k), row) for k, row in enumerate(alone))
    assert gradient["how"] == "so" and gradient["w"].shape == (3, 2) and type(gradient["b"]) is list


def test_axes_may_be_a_tree(np):
    example = {"w": np.ones(2), "b": 1.0, "c": [1.0, 2.0]}
    program = record(lambda p, x: (p["w"] * x).sum() + p["b"] * p["c"][1], example, np.ones(2))
    batch = program.map(in_axes=({"w": 1, "b": None, "c": [None, 0]}, None))
    w, x = np.arange(6.0).reshape(2, 3), np.array([1.0, 10.0])
    p = {"c": [1.0, [1.0, 2.0, 3.0]], "w": w, "b": 5.0}
    expected = [program({"w": w[:, k], "b": 5.0, "c": [1.0, k + 1.0]}, x) for k in range(3)]
    assert batch(p, x).tolist() == expected
    gradient = batch.grad(p, x)
    assert gradient["w"].tolist() == [[1.0] * 3, [10.0] * 3] and gradient["b"].tolist() == [1.0, 2.0, 3.0]
    assert [list(part) for part in gradient["c"]] == [[0.0] * 3, [5.0] * 3]
    mean = program.map(in_axes=({"w": 1, "b": None, "c": [None, 0]}, None), reduce="sum").grad(p, x)
    assert mean["b"] == 6.0 and mean["w"].tolist() == gradient["w"].tolist() and mean["c"] == [0.0, [5.0] * 3]
    again = pickle.loads(pickle.dumps(batch))
    assert again(p, x).tolist() == expected


@pytest.mark.parametrize(
    "axes, error, says",
    [
        ({"a": 0}, ValueError, r"in_axes\[0\] has no key 'b', but was recorded with it"),
        ({"a": 0, "b": 0, "c": 0}, ValueError, r"in_axes\[0\] has the key 'c', but was recorded without it"),
        ({"a": "0", "b": 0}, TypeError, r"in_axes\[0\]\['a'\] must be integers and None, or made up like the argument"),
        ({"a": [0, 0], "b": [0]}, ValueError, r"in_axes\[0\]\['b'\] is 'list' of 1, but was recorded as a list of 2"),
        ({"a": None, "b": [None, None]}, ValueError, "in_axes maps no argument"),
    ],
)
def test_axes_have_to_go_with_the_argument(axes, error, says):
    with pytest.raises(error, match=says):
        record(lambda p: p["a"][0] * p["b"][1], {"a": [1.0, 2.0], "b": [1.0, 2.0]}).map(in_axes=(axes,))


def test_parts_have_as_many_rows_as_one_another():
    batch = record(lambda p: p["a"] * p["b"], {"a": 1.0, "b": 2.0}).map()
    with pytest.raises(ValueError, match="argument p has parts of 2 and of 3 rows"):
        batch({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]})
    with pytest.raises(TypeError, match=r"argument p\['b'\] must be a list or an array of rows, not 'float'"):
        batch({"a": [1.0, 2.0], "b": 1.0})
    with pytest.raises(TypeError, match="argument p, row 1 is 'float', but was recorded as a dict of"):
        batch([{"a": 1.0, "b": 1.0}, 2.0])


# ---- more derivatives ----


@pytest.fixture
def paths():
    """Of two numbers that all rows share and a row of three; with two paths."""

    def f(w, x, s):
        y = w[0] * x[0] * x[1] + w[1] ** 2 * x[2].exp() * s
        return y * y if y > 1 else y.sin()

    return record(f, [1.0, 2.0], [0.1, 0.2, 0.3], 1.0, on_branch="record")


W, S = [0.5, -1.25], [1.0, 0.5, 2.0, -1.0] * 10
X = [[math.sin(3 * k + i) for i in range(3)] for k in range(40)]
ARGUMENTS = (0, 1, 2, (0, 1), (2, 0))


def summed(nests):
    """The sum of nests of numbers."""
    first = nests[0]
    if isinstance(first, (list, tuple)):
        return [summed(parts) for parts in zip(*nests)]
    return math.fsum(nests)


@pytest.mark.parametrize("as_arrays", [False, True])
def test_derivatives_of_rows_are_those_of_each_row(paths, as_arrays, tiny, np):
    x, s = (np.array(X), np.array(S)) if as_arrays else (X, S)
    batch = paths.map(in_axes=(None, 0, 0), threads=2)
    alone = [(W, row, scalar) for row, scalar in zip(X, S)]
    if as_arrays:  # by what has rows, row after row; of what has none, the rows are stacked at each leaf
        assert same(batch.hessian(W, x, s, argnums=1), [paths.hessian(*row, argnums=1) for row in alone])
        assert same(batch.hessian(W, x, s, argnums=2), [paths.hessian(*row, argnums=2) for row in alone])
        (ww, _), (xw, _) = batch.hessian(W, x, s, argnums=(0, 1))
        blocks = [paths.hessian(*row, argnums=(0, 1)) for row in alone]
        assert same(list(np.swapaxes(ww, 0, 1)), [block[0][0] for block in blocks])
        assert same(xw, [block[1][0] for block in blocks])
    for argnums in ARGUMENTS:
        assert same(batch.jacobian(W, x, s, argnums=argnums), batch.grad(W, x, s, argnums=argnums))
    value, pull = batch.vjp(W, x, s)
    seeds = [0.5 * k - 3 for k in range(40)]
    got = pull(np.array(seeds) if as_arrays else seeds)
    for k, row in enumerate(alone):
        expected = paths.vjp(*row)
        assert same(value[k], expected[0]) and same([part[k] for part in got], expected[1](seeds[k]))
    tangents = ([1.0, -2.0], [[0.5, k, 1.0] for k in range(40)], [0.25] * 40)
    value, along = batch.jvp((W, x, s), tangents)
    for k, row in enumerate(alone):
        assert same((value[k], along[k]), paths.jvp(row, (tangents[0], tangents[1][k], 0.25)))
    by_x = batch.hvp(W, tangents[1], x, s, argnums=1)
    by_w = batch.hvp(W, [1.0, -2.0], x, s)
    for k, row in enumerate(alone):
        assert same(by_x[k], paths.hvp(W, tangents[1][k], *row[1:], argnums=1))
        assert same(by_w[k], paths.hvp(W, [1.0, -2.0], *row[1:]))


@given(st.lists(st.tuples(*[st.sampled_from([0.0, -0.0, 0.5, -1.25, 2.0])] * 4), min_size=1, max_size=20))
def test_squares_in_a_dot_bend_as_they_do_in_closed_form(rows):
    """And as products of two operands, at which the same numbers stand."""
    squares = record(lambda x: tapegrad.dot(x, x).exp(), [1.0, 2.0])
    product = record(lambda x, y: tapegrad.dot(x, y).exp(), [1.0, 2.0], [1.0, 2.0])
    points, along = [list(row[:2]) for row in rows], [list(row[2:]) for row in rows]
    found = squares.map().hvp(points, along)
    tangents = squares.map().jvp((points,), (along,))[1]
    assert same(tangents, product.map().jvp((points, points), (along, along))[1])
    for x, v, of, tangent in zip(points, along, found, tangents):
        y, slope = math.exp(x[0] ** 2 + x[1] ** 2), 2.0 * (x[0] * v[0] + x[1] * v[1])
        assert of == pytest.approx([2.0 * y * (a + slope * b) for a, b in zip(v, x)], rel=1e-12, abs=1e-12)
        assert tangent == pytest.approx(y * slope, rel=1e-12, abs=1e-12)
        assert same(of, squares.hvp(x, v))


@pytest.mark.parametrize("reduce, weight", [("sum", 1.0), ("mean", 1 / 40)])
def test_derivatives_of_a_sum_or_mean(paths, reduce, weight, tiny):
    batch = paths.map(in_axes=(None, 0, 0), reduce=reduce, threads=2)
    alone = [(W, row, scalar) for row, scalar in zip(X, S)]

    def total(nests):
        return summed([[weight * x for x in nest] if isinstance(nest, list) else weight * nest for nest in nests])

    assert same(batch.jacobian(W, X, S, argnums=(0, 1, 2)), batch.grad(W, X, S, argnums=(0, 1, 2)))
    value, pull = batch.vjp(W, X, S)
    assert same(pull(2.0)[0], total([paths.vjp(*row)[1](2.0)[0] for row in alone]))
    assert same(pull(2.0)[1], [[weight * v for v in paths.vjp(*row)[1](2.0)[1]] for row in alone])
    tangents = ([1.0, -2.0], [[0.5, k, 1.0] for k in range(40)], [0.25] * 40)
    got = batch.jvp((W, X, S), tangents)
    expected = [paths.jvp(row, (tangents[0], tangents[1][k], 0.25)) for k, row in enumerate(alone)]
    assert same(got, [total([v for v, _ in expected]), total([t for _, t in expected])]) and got[0] == value
    assert same(batch.hvp(W, [1.0, -2.0], X, S), total([paths.hvp(W, [1.0, -2.0], *row[1:]) for row in alone]))
    hessians = [paths.hessian(*row, argnums=(0, 1)) for row in alone]
    assert same(batch.hessian(W, X, S), [total([h[0][0][i] for h in hessians]) for i in range(2)])
    with pytest.raises(ValueError, match="argument x is mapped: its Hessian is one for each row"):
        batch.hessian(W, X, S, argnums=(0, 1))


@pytest.mark.parametrize("reduce", [None, "sum"])
def test_a_jacobian_of_trees_by_trees_in_rows(reduce, np):
    """Forward and in reverse, by what is shared and by what has rows."""

    def f(w, x):
        return {"y": np.array([w["a"] * x, x * x * w["b"][0], w["a"] ** 2]), "s": w["b"][1] * x}

    small = record(f, {"a": 1.0, "b": np.ones(2)}, 1.0)
    w, xs = {"a": 3.0, "b": np.array([2.0, 5.0])}, np.array([1.0, 2.0, 4.0, 7.0])
    by_w, by_x = small.map(in_axes=(None, 0), reduce=reduce).jacobian(w, xs, argnums=(0, 1))
    alone = [small.jacobian(w, x, argnums=(0, 1)) for x in xs]
    if reduce is None:
        for k, (w_alone, x_alone) in enumerate(alone):
            assert same(unstacked(by_w, k), w_alone) and same(unstacked(by_x, k), x_alone)
        assert by_w["y"]["b"].shape == (4, 3, 2) and by_w["s"]["b"].shape == (4, 2) and by_x["y"].shape == (4, 3)
    else:
        assert same(by_w["y"]["b"], sum(one["y"]["b"] for one, _ in alone))
        assert by_w["y"]["a"].tolist() == [14.0, 0.0, 24.0]
        assert same(by_w["s"]["b"], sum(one["s"]["b"] for one, _ in alone)) and by_w["s"]["a"] == 0.0
        assert same(by_x["y"].T, [one["y"] for _, one in alone]) and by_x["s"].tolist() == [5.0] * 4


def test_a_hessian_of_arrays_in_rows(np):
    program = record(lambda w, x: (w * x).sum() ** 2, np.ones((2, 3)), np.ones((2, 3)))
    w, x = np.arange(6.0).reshape(2, 3), np.arange(24.0).reshape(4, 2, 3) / 7
    (ww, wx), (xw, xx) = program.map(in_axes=(None, 0)).hessian(w, x, argnums=(0, 1))
    for k in range(4):
        blocks = program.hessian(w, x[k], argnums=(0, 1))
        assert same(((ww[k], wx[k]), (xw[k], xx[k])), blocks)
    total = program.map(in_axes=(None, 0), reduce="mean").hessian(w, x)
    assert total.shape == (2, 3, 2, 3) and same(total, ww.mean(axis=0))
    assert program.map(in_axes=(None, 0)).hessian(w, x[:0]).shape == (0, 2, 3, 2, 3)


@pytest.mark.parametrize("reduce", [None, "sum"])
def test_second_derivatives_of_rows_by_params(reduce):
    w = Value(2.0)
    program = record(lambda x: x * w**3, 1.0, params=[w])
    batch = program.map(reduce=reduce)
    rows = [[12.0], [24.0], [36.0]]
    assert batch.hvp([1.0, 2.0, 3.0], [1.0], argnums="params") == (rows if reduce is None else [72.0])
    assert batch.hessian([1.0, 2.0, 3.0], argnums="params") == [rows if reduce is None else [72.0]]
    assert batch.jacobian([1.0, 2.0, 3.0], argnums="params") == batch.grad([1.0, 2.0, 3.0], argnums="params")


@pytest.mark.parametrize("most", [0, 1 << 23])
def test_the_value_of_a_vjp_is_of_the_arguments_as_they_were(np, monkeypatch, most):
    monkeypatch.setattr("tapegrad.program.batch.MOST_KEPT", most)
    x = np.array([1.0, 2.0])
    _, pull = record(lambda x: x * x, 1.0).map().vjp(x)
    x[:] = 99.0
    assert pull(np.ones(2))[0].tolist() == [2.0, 4.0]


@settings(max_examples=40)
@given(
    st.sampled_from((*SIZES[:7], 600)), st.sampled_from([None, "sum", "mean"]), st.integers(1, 3), st.integers(0, 99),
    st.floats(-3, 3),
)  # fmt: skip
def test_a_pullback_of_rows_has_the_bits_of_a_replay(n, reduce, threads, salt, shared):
    """Whether it keeps primals or not, on every path; and it gives the gradients that it is asked for."""
    program = record(written_in_parts, [1.0, 2.0], 1.0, on_branch="record")
    rows = [[math.sin(k * 1.7 + salt), math.cos(k * 0.3 + salt) * 2] for k in range(n)]
    batch = program.map(in_axes=(0, None), reduce=reduce, threads=threads)
    seeds = [[1.5, -2.0]] * (n if reduce is None else 1)
    cotangent = [[a for a, _ in seeds], [b for _, b in seeds]] if reduce is None else seeds[0]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lib.tg_chunks, "worth", 0)
        for most in (0, 1 << 23):
            patch.setattr("tapegrad.program.batch.MOST_KEPT", most)
            value, pull = batch.vjp(rows, shared)
            assert repr(value) == repr(batch(rows, shared))
            found.append(pull(cotangent))
            assert repr(pull(cotangent, argnums=(1, 0, 1))) == repr((found[-1][1], *found[-1]))
            assert repr(pull(cotangent, argnums=0)) == repr(found[-1][0])
    assert repr(found[0]) == repr(found[1])
    if reduce is None:
        for k, row in enumerate(rows):
            assert repr((found[0][0][k], found[0][1][k])) == repr(program.vjp(row, shared)[1]([1.5, -2.0]))


def written_in_parts(x, s):
    """Two results on four paths."""
    y = x[0] * s if x[0] < 0.5 else (x[1] * s).sin()
    return [y * x[1], y + x[0] if x[1] > -1.0 else x[0].tanh() * s]


def test_wrong_tangents_and_cotangents_of_rows_are_named():
    batch = record(lambda x, y: {"a": x * y}, 1.0, 2.0).map(in_axes=(0, None))
    with pytest.raises(TypeError, match="takes 2 tangents, not 1"):
        batch.jvp(([1.0], 2.0), ([1.0],))
    with pytest.raises(ValueError, match="tangent x has other rows than its argument"):
        batch.jvp(([1.0, 2.0], 2.0), ([1.0], 1.0))
    with pytest.raises(TypeError, match="tangent y must be a number"):
        batch.jvp(([1.0, 2.0], 2.0), ([1.0, 2.0], "x"))
    pull = batch.vjp([1.0, 2.0], 3.0)[1]
    assert pull({"a": [1.0, 2.0]}) == ([3.0, 6.0], [1.0, 4.0])
    with pytest.raises(ValueError, match="the cotangent has 1 rows, the arguments have 2"):
        pull({"a": [1.0]})
    with pytest.raises(TypeError, match="the cotangent is 'float', but was recorded as a dict"):
        pull(1.0)
    with pytest.raises(TypeError, match="a Hessian is of a function that returns one Value"):
        batch.hvp([1.0], [1.0], 2.0)


def test_a_refusal_in_a_derivative_of_rows_names_the_row():
    batch = record(lambda x: x.log(), 1.0).map()
    v = [1.0] * 3
    calls = (batch.jacobian, batch.hessian, batch.vjp, lambda x: batch.hvp(x, v), lambda x: batch.jvp((x,), (v,)))
    for call in calls:
        with pytest.raises(ValueError, match=r"log\(-2.0\): math domain error in row 1"):
            call([1.0, -2.0, 3.0])


@pytest.mark.parametrize("reduce", [None, "sum", "mean"])
def test_the_vjp_of_a_dot_that_reads_what_rows_share_is_the_gradient_each_time(np, reduce):
    """Its sweep starts from primals that are kept, and never loads the numbers that all rows have."""
    weights = [0.1 * k for k in range(20)]
    rows = np.random.default_rng(7).normal(size=(700, 20))
    batch = record(lambda w, x: tapegrad.dot(w, x).tanh() * 2, weights, weights).map(in_axes=(None, 0), reduce=reduce)
    _, expected = batch.value_and_grad(weights, rows, argnums=(0, 1))
    _, pull = batch.vjp(weights, rows)
    for _ in range(2):
        found = pull(np.ones(700) if reduce is None else 1.0)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))


# ---- many weights ----

WIDE = 30


def crowd(w, u, x):
    """Over 2,048 weights that are read once, on either side of a dot; and others, that are read more often, or not by a
    dot's pairs alone."""
    hidden = [tapegrad.dot(row, x) if k % 3 else tapegrad.dot(x, row, u[0]) for k, row in enumerate(w[:-1])]
    hidden.append(tapegrad.dot([*w[-1], x[1], u[1], u[2]], [*x, u[2], u[3], x[2]]))
    total = tapegrad.sum([h.tanh() for h in hidden]) + u[4] * x[0]
    return total * 2.0 if x[0] > 2.0 else total


def added_as_rows_are(rows, step):
    """Sums in chunks of so many rows, of each in sixteen lanes, and of these in halves."""
    total = 0.0 * rows[0]
    for start in range(0, len(rows), step):
        lanes = [0.0 * rows[0] for _ in range(LANES)]
        for k, row in enumerate(rows[start : start + step]):
            lanes[k % LANES] = lanes[k % LANES] + row
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [a + b for a, b in zip(lanes[:half], lanes[half:])]
        total = total + lanes[0]
    return total


@pytest.fixture(scope="module")
def crowded():
    w = [[math.sin(k * WIDE + m) / 5 for m in range(WIDE)] for k in range(71)]
    return record(crowd, w, [0.3, -0.2, 0.7, 0.1, 0.4], [0.1] * WIDE, on_branch="record"), w


@pytest.mark.parametrize("n, sums", [(2, 256), (LANES + 1, 256), (333, 256), (333, 512)])
def test_many_weights_have_the_sums_of_their_rows_to_the_bit(crowded, np, tiny, monkeypatch, n, sums):
    """With chunks of up to seven blocks, and of more than are kept."""
    monkeypatch.setattr(lib.tg_chunks, "summed", sums)
    program, w = crowded
    w, u = np.array(w), np.array([0.3, -0.2, 0.7, 0.1, 0.4])
    x = np.sin(np.arange(n * WIDE).reshape(n, WIDE) * 0.7)
    x[1, 3] = math.inf  # what comes out of tanh passes nothing on: no nan
    rows = program.map((None, None, 0))
    value, (by_w, by_u, by_x) = rows.value_and_grad(w, u, x, argnums=(0, 1, 2))
    some = list(range(min(n, 20)))
    assert [program(w, u, x[k]) for k in some] == list(value[some])
    assert all(np.array_equal(program.grad(w, u, x[k], argnums=2), by_x[k]) for k in some)
    assert np.array_equal(rows(w, u, x), value)
    for threads in (1, 2):
        batch = program.map((None, None, 0), reduce="sum", threads=threads)
        step = batch._rows._shared(batch._rows.recorded.paths[0], n)[0]
        assert n < 300 or (step < n and (step > 8 * LANES) == (sums > 256))
        total, (sum_w, sum_u, each_x) = batch.value_and_grad(w, u, x, argnums=(0, 1, 2))
        assert math.isclose(total, value.sum(), rel_tol=1e-12, abs_tol=1e-12)
        assert np.array_equal(sum_w, added_as_rows_are(by_w, step))
        assert np.array_equal(each_x, by_x)
        assert np.allclose(sum_u, by_u.sum(0), rtol=1e-12, atol=1e-12)
        assert np.array_equal(batch.grad(w, u, x, argnums=2), by_x)  # what nobody asks for is not made
        assert np.array_equal(batch.grad(w, u, x, argnums=0), sum_w)


def test_rows_on_other_paths_and_tangents_have_many_weights_too(crowded, np):
    program, w = crowded
    w, u = np.array(w), np.array([0.3, -0.2, 0.7, 0.1, 0.4])
    x = np.sin(np.arange(50 * WIDE).reshape(50, WIDE) * 0.7)
    x[::7, 0] = 2.5
    batch, rows = program.map((None, None, 0), reduce="mean"), program.map((None, None, 0))
    assert np.allclose(batch.grad(w, u, x), rows.grad(w, u, x).mean(0), rtol=1e-12, atol=1e-14)
    along = np.cos(np.arange(w.size).reshape(w.shape))
    slope = batch.jvp((w, u, x), (along, 0 * u, 0 * x))[1]
    assert math.isclose(slope, float((batch.grad(w, u, x) * along).sum()), rel_tol=1e-11)
