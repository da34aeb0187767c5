"""`data`, `grads` and `set_data`: many Values read and written in one call, as lists or arrays."""

from __future__ import annotations

import math
import time
from array import array

import pytest

import tapegrad
from tapegrad import Value, grads, set_data, tape

KINDS = [list, tuple, iter, lambda xs: (x for x in xs), lambda xs: dict.fromkeys(xs)]
NAMES = ["list", "tuple", "iterator", "generator", "dict"]
READ = pytest.mark.parametrize("read", [tapegrad.data, grads], ids=["data", "grads"])


@pytest.fixture
def values():
    """Five Values whose grads are ten times their data."""
    values = tapegrad.leaves([1.0, -2.5, 0.0, math.inf, 5.0])
    for v in values:
        v.grad = 10.0 * v.data
    return values


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_data_come_as_a_list_of_floats_in_order(kind, values):
    numbers = tapegrad.data(kind(values))
    assert numbers == [1.0, -2.5, 0.0, math.inf, 5.0]
    assert type(numbers) is list and {type(x) for x in numbers} == {float}


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_grads_come_as_a_list_of_floats_in_order(kind, values):
    assert grads(kind(values)) == [10.0, -25.0, 0.0, math.inf, 50.0]


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_data_are_written_in_order(kind, values):
    assert set_data(kind(values), kind([5, -0.5, True, 2.0, 7])) is None
    assert [v.data for v in values] == [5.0, -0.5, 1.0, 2.0, 7.0]


def test_writing_data_leaves_grads_alone(values):
    set_data(values, [0.0] * 5)
    assert grads(values) == [10.0, -25.0, 0.0, math.inf, 50.0]


@READ
def test_of_no_values_there_is_an_empty_list(read):
    assert read([]) == []


def test_nothing_may_be_written_to_no_values(works):
    set_data([], [])
    works()


def test_a_value_that_comes_twice_is_read_twice_and_keeps_the_last_that_is_written():
    v = Value(1.0)
    set_data([v, v], [2.0, 3.0])
    assert tapegrad.data([v, v]) == [3.0, 3.0]


def test_what_was_read_can_be_written_back(values):
    before = tapegrad.data(values)
    set_data(values, [0.0] * 5)
    set_data(values, before)
    assert tapegrad.data(values) == before


def test_zero_keeps_its_sign_and_nan_stays_nan():
    values = tapegrad.leaves([1.0, 1.0])
    set_data(values, [-0.0, math.nan])
    zero, nan = tapegrad.data(values)
    assert math.copysign(1.0, zero) == -1.0 and math.isnan(nan)


def test_written_data_count_in_a_sweep_that_comes_later():
    x, y = Value(2.0), Value(3.0)
    z = x * y
    set_data([x, y], [20.0, 30.0])
    z.backward()
    assert grads([x, y, z]) == [30.0, 20.0, 1.0]


def test_results_are_read_and_written_as_leaves_are():
    x = Value(2.0)
    y = (x * 3).tanh()
    set_data([y], [0.5])
    y.backward()
    assert (tapegrad.data([y]), grads([x])) == ([0.5], [3.0 * 0.75])


def test_reading_and_writing_record_nothing(values):
    before = len(tape)
    set_data(values, tapegrad.data(values))
    assert grads(values) and len(tape) == before


def test_fresh_values_of_a_generator_are_held_while_they_are_read(settle):
    settle()
    before = len(tape)
    assert tapegrad.data(Value(float(i)) * 2 for i in range(1000)) == [2.0 * i for i in range(1000)]
    assert grads(Value(float(i)) for i in range(1000)) == [0.0] * 1000
    set_data((Value(1.0) for _ in range(1000)), range(1000))
    settle()
    assert len(tape) == before


def test_subclasses_are_values():
    kind = type("Weight", (Value,), {})
    v = kind(2.0)
    set_data([v], [3.0])
    assert (tapegrad.data([v]), grads([v])) == ([3.0], [0.0])


# arrays


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 2), (6, 1)])
def test_arrays_keep_their_shape(np, shape):
    values = np.array(tapegrad.leaves(range(6)), dtype=object).reshape(shape)
    for v in values.ravel():
        v.grad = v.data + 1
    for read, first in ((tapegrad.data, 0), (grads, 1)):
        numbers = read(values)
        assert (numbers.shape, numbers.dtype) == (shape, np.float64)
        assert numbers.ravel().tolist() == list(range(first, first + 6))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 0)])
def test_arrays_without_axes_or_elements_keep_their_shape(np, shape):
    values = np.full(shape, Value(2.0), dtype=object)
    assert tapegrad.data(values).shape == grads(values).shape == shape
    set_data(values, np.full(shape, 3.0))
    assert tapegrad.data(values).tolist() == np.full(shape, 3.0).tolist()


def test_views_are_read_and_written_in_their_own_order(np):
    values = np.array(tapegrad.leaves(range(6)), dtype=object).reshape(2, 3)
    assert tapegrad.data(values.T).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert tapegrad.data(values[:, ::-1]).tolist() == [[2, 1, 0], [5, 4, 3]]
    set_data(values.T, np.array([[10, 11], [12, 13], [14, 15]]))
    assert tapegrad.data(values).tolist() == [[10, 12, 14], [11, 13, 15]]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "object"])
def test_arrays_of_all_sorts_of_numbers_are_written(np, dtype):
    values = tapegrad.leaves([5.0, 5.0])
    set_data(values, np.array([0, 1], dtype=dtype))
    assert tapegrad.data(values) == [0.0, 1.0]


def test_an_array_of_numbers_may_go_to_a_list_of_values(np, values):
    set_data(values, np.arange(5.0))
    assert tapegrad.data(values) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_list_of_numbers_may_go_to_an_array_of_values(np, values):
    set_data(np.array(values, dtype=object), [0, 1, 2, 3, 4])
    assert tapegrad.data(values) == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 6), (2, 3, 1)])
def test_arrays_of_different_shapes_are_refused(np, shape):
    values = np.array(tapegrad.leaves(range(6)), dtype=object).reshape(2, 3)
    with pytest.raises(ValueError, match="shape"):
        set_data(values, np.ones(shape))
    assert tapegrad.data(values).ravel().tolist() == list(range(6))


def test_an_array_that_is_read_is_the_readers_own(np):
    values = np.array(tapegrad.leaves(range(3)), dtype=object)
    tapegrad.data(values)[:] = 7.0
    assert tapegrad.data(values).tolist() == [0.0, 1.0, 2.0]


# refusals


@READ
@pytest.mark.parametrize(
    ("wrong", "message"),
    [(1.0, "float"), ("s", "str"), (None, "NoneType"), ([Value(1.0)], "list")],
    ids=["float", "str", "None", "list"],
)
def test_what_is_no_value_is_refused_by_name(read, wrong, message, works):
    with pytest.raises(TypeError, match=message):
        read([Value(1.0), wrong])
    works()


@READ
@pytest.mark.parametrize("wrong", [None, 5, 2.0])
def test_what_is_no_iterable_is_refused(read, wrong):
    with pytest.raises(TypeError, match="iterable"):
        read(wrong)


@READ
def test_one_value_is_no_iterable_of_values(read):
    with pytest.raises(TypeError, match="iterable"):
        read(Value(1.0))


@READ
def test_an_array_of_numbers_holds_no_values(read, np):
    with pytest.raises(TypeError, match="float"):
        read(np.ones(3))


@READ
def test_a_value_without_a_node_is_refused(read, works):
    with pytest.raises(RuntimeError, match="no node"):
        read([Value(1.0), Value.__new__(Value)])
    works()


@READ
def test_an_iterable_that_raises_half_way_is_let_through(read, works):
    def broken():
        yield Value(1.0)
        raise LookupError("half way")

    with pytest.raises(LookupError, match="half way"):
        read(broken())
    works()


class Refusing:
    def __float__(self):
        raise LookupError("no number today")


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ([7.0] * 4, ValueError, "5 Values but 4 numbers"),
        ([7.0] * 6, ValueError, "5 Values but 6 numbers"),
        ([], ValueError, "5 Values but 0 numbers"),
        ([7.0, 7.0, 7.0, 7.0, "s"], TypeError, "str"),
        ([7.0, 7.0, 7.0, 7.0, None], TypeError, "NoneType"),
        ([7.0, 7.0, 7.0, 7.0, 1j], TypeError, "complex"),
        ([7.0, 7.0, 7.0, 7.0, [7.0]], TypeError, "list"),
        ([7.0, 7.0, 7.0, 7.0, Value(1.0)], TypeError, "Value"),
        ([7.0, 7.0, 7.0, 7.0, 10**400], OverflowError, "too large"),
        ([7.0, 7.0, 7.0, 7.0, Refusing()], LookupError, "today"),
        (7.0, TypeError, "iterable"),
        ("77777", TypeError, "str"),
        (None, TypeError, "iterable"),
    ],
    ids=str,
)
def test_refused_numbers_leave_every_value_as_it_was(numbers, error, message, values):
    with pytest.raises(error, match=message):
        set_data(values, numbers)
    assert [v.data for v in values] == [1.0, -2.5, 0.0, math.inf, 5.0]


@pytest.mark.parametrize("wrong", [1.0, "s", None, Value.__new__(Value)], ids=["float", "str", "None", "no node"])
def test_refused_values_leave_the_others_as_they_were(wrong, values):
    with pytest.raises((TypeError, RuntimeError)):
        set_data([*values, wrong], [7.0] * 6)
    assert [v.data for v in values] == [1.0, -2.5, 0.0, math.inf, 5.0]


# in the middle of everything


def test_within_a_rule_grads_are_those_of_the_sweep():
    x, y = Value(2.0), Value(3.0)
    x.grad = 100.0
    product = Value(6.0, (x, y), "product")
    seen = []

    def rule():
        seen.append(grads([product, x]))
        x.grad += y.data * product.grad
        seen.append(grads([product, x]))

    product._backward = rule
    (product * 5).backward()
    assert seen == [[5.0, 0.0], [5.0, 15.0]]
    assert grads([x]) == [115.0]


def test_within_a_rule_data_may_be_written():
    x = Value(2.0)
    y = x * x
    z = Value(1.0, (y,), "rule")

    def rule():
        set_data([x], [10.0])
        y.grad += z.grad

    z._backward = rule
    z.backward()
    assert (tapegrad.data([x]), grads([x])) == ([10.0], [20.0])


@pytest.mark.parametrize("act", [tape.collect, tape.reset, lambda: Value(1.0) * 2, lambda: (Value(1.0) * 2).backward()])
def test_a_number_that_uses_the_tape_when_it_is_read_does_no_harm(act, works):
    class Meddler:
        def __float__(self):
            act()
            return 7.0

    junk = [Value(0.0) for _ in range(10)]
    values = tapegrad.leaves([1.0, 2.0, 3.0])
    del junk
    set_data(values, [Meddler(), 4.0, Meddler()])
    assert tapegrad.data(values) == [7.0, 4.0, 7.0]
    works()


def test_an_iterator_that_moves_nodes_does_no_harm(works):
    def moving():
        junk = [Value(0.0) for _ in range(100)]
        kept = tapegrad.leaves([1.0, 2.0])
        yield kept[0]
        junk.clear()
        tape.collect()
        yield kept[1]

    assert tapegrad.data(moving()) == [1.0, 2.0]
    works()


def test_a_hundred_thousand_values_are_read_and_written_in_no_time():
    n = 10**5
    values = tapegrad.leaves(range(n))
    tapegrad.sum(values).backward()
    start = time.perf_counter()
    assert tapegrad.data(values) == list(range(n))
    assert grads(values) == [1.0] * n
    set_data(values, range(n, 0, -1))
    assert tapegrad.data(values) == list(range(n, 0, -1))
    assert time.perf_counter() - start < 10.0


def test_an_array_of_a_hundred_thousand_values_is_read_and_written(np):
    values = np.array(tapegrad.leaves(range(10**5)), dtype=object).reshape(100, 1000)
    set_data(values, tapegrad.data(values) * 2)
    assert (tapegrad.data(values) == 2 * np.arange(10**5).reshape(100, 1000)).all()


def test_the_functions_are_offered_by_name():
    assert {"data", "grads", "set_data"} <= set(tapegrad.__all__)


# leaves of what lies in memory as doubles


def test_leaves_of_arrays_are_their_numbers_whatever_their_layout(np):
    x = np.arange(7.0)
    unaligned = np.frombuffer(b"-" + x.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    arrays = [x, x[::2], x[::-1], x.astype(">f8"), x.astype("f4"), x.astype(int), unaligned, x[:0], x > 3.0]
    for numbers in (*arrays, array("d", x), array("f", x), memoryview(x), bytes(range(7))):
        made = tapegrad.leaves(numbers)
        assert [v.data for v in made] == list(numbers)
        assert [tuple(v._prev) for v in made] == [()] * len(made)
    read_only = x.copy()
    read_only.flags.writeable = False
    made = tapegrad.leaves(read_only)
    read_only.flags.writeable = True
    read_only[0] = 9.0
    assert made[0].data == 0.0
    with pytest.raises(TypeError):
        tapegrad.leaves(x.reshape(1, 7))


def test_examples_of_programs_may_mix_arrays_lists_and_values(np):
    def f(x, rows, pair):
        return x[0, 1] * rows[1][0] + x[1, 0] * pair[1] + pair[0].sum()

    x, rows, pair = np.arange(4.0).reshape(2, 2), [[1.0, 2], [Value(3.0), True]], (np.ones(2), 0.5)
    program = tapegrad.record(f, x, rows, pair)
    assert program(x, [[1.0, 2.0], [3.0, 1.0]], pair) == 6.0
    with pytest.raises(TypeError, match="example x must be a number, not 'str'"):
        tapegrad.record(f, np.array([[1.0, 2.0], ["3", 4.0]], dtype=object), rows, pair)
