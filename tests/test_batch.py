"""Batches: a program over rows gives what it gives for each row, in any number, form, order and on any path."""

from __future__ import annotations

import math

import pytest
from test_threads import together

import tapegrad
from tapegrad import BranchChanged, Value, record

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
    monkeypatch.setattr("tapegrad.program.batch.WORTH_THREADS", 0)


# ---- sizes ----


@pytest.mark.parametrize("n", SIZES)
def test_each_row_has_the_bits_of_the_row_alone(program, n):
    rows = rows_of(n)
    batch = program.map(in_axes=(None, 0))
    assert batch(WEIGHTS, rows) == [program(WEIGHTS, row) for row in rows]
    values, grads = batch.value_and_grad(WEIGHTS, rows)
    assert (values, grads) == ([program(WEIGHTS, row) for row in rows], [program.grad(WEIGHTS, row) for row in rows])
    assert batch.grad(WEIGHTS, rows, argnums=1) == [program.grad(WEIGHTS, row, argnums=1) for row in rows]


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
    assert program.map()([[1.0, (2.0, 3.0)], [4.0, (5.0, 6.0)]]) == [(2.0, [3.0]), (20.0, [6.0])]
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
    assert record(lambda x: x * x, 2.0).map(reduce="sum").grad([3.0], argnums="params") == []


def test_an_output_that_is_an_input_a_constant_or_given_twice_is_written_for_every_row():
    program = record(lambda x, y: [y, x, Value(3.0), x, x * y], 1.0, 2.0)
    assert program.map(in_axes=(0, None))([1.0, 2.0], 5.0) == [[5.0, 1.0, 3.0, 1.0, 5.0], [5.0, 2.0, 3.0, 2.0, 10.0]]
    assert program.map(in_axes=(0, None), reduce="sum")([1.0] * 40, 5.0) == [200.0, 40.0, 120.0, 40.0, 200.0]


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

    line = f"recorded at {f.__code__.co_filename}:{f.__code__.co_firstlineno + 1}"
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


def test_on_error_nan_makes_the_row_nan_and_leaves_the_others():
    rows = [1.0] * 40
    rows[7], rows[33] = -1.0, 0.0
    program = record(lambda x: [x.log(), x], 1.0, on_error="nan")
    got = program.map()(rows)
    assert [k for k, (y, _) in enumerate(got) if math.isnan(y)] == [7, 33]
    assert [x for _, x in got] == rows


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
        ({"in_axes": 0.0}, TypeError, "in_axes must be integers and None"),
        ({"in_axes": (0, "1")}, TypeError, "in_axes must be integers and None"),
        ({"reduce": "max"}, ValueError, "reduce must be"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"threads": 1.5}, ValueError, "threads must be a positive integer"),
    ],
)
def test_options_are_checked(program, how, error, says):
    with pytest.raises(error, match=says):
        program.map(**how)


@pytest.mark.parametrize(
    "args, error, says",
    [
        ((WEIGHTS,), TypeError, "takes 2 arguments, not 1"),
        ((WEIGHTS, 1.0), TypeError, "argument 1 must be a list or an array of rows, not 'float'"),
        ((WEIGHTS, None), TypeError, "argument 1 must be"),
        ((WEIGHTS, [[1.0, 2.0], [3.0]]), ValueError, "argument 1, row 1 is 'list' of 1, but was recorded as a"),
        ((WEIGHTS, [[1.0, 2.0], 3.0]), TypeError, "argument 1, row 1"),
        ((WEIGHTS, [[1.0, 2.0], [3.0, "x"]]), TypeError, r"argument 1, row 1\[1\] must be a number"),
        (([1.0], [[1.0, 2.0]]), ValueError, "argument 0 is 'list' of 1"),
    ],
)
def test_wrong_arguments_are_named(program, args, error, says):
    with pytest.raises(error, match=says):
        program.map(in_axes=(None, 0))(*args)


def test_wrong_arrays_are_named(program, np):
    batch = program.map(in_axes=(None, 0))
    for bad in (np.zeros(3), np.zeros((4, 3)), np.zeros((2, 2, 2)), np.array(1.0)):
        with pytest.raises(ValueError, match="argument 1"):
            batch(WEIGHTS, bad)
    with pytest.raises(TypeError, match="argument 1 is an array of complex128"):
        batch(WEIGHTS, np.zeros((4, 2), dtype=complex))
    with pytest.raises(ValueError, match="has no axis 5"):
        program.map(in_axes=(None, 5))(WEIGHTS, np.zeros((4, 2)))
    with pytest.raises(TypeError, match="axis 1: it must be an array"):
        program.map(in_axes=(None, 1))(WEIGHTS, [[1.0, 2.0]])


def test_different_numbers_of_rows_are_named():
    batch = record(lambda x, y: x * y, 1.0, 1.0).map()
    with pytest.raises(ValueError, match="argument 1 has 3 rows, argument 0 has 2"):
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
