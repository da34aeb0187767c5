"""Whole layers and losses in one call, against the same sums written out, and `nn.Layer` on top of them."""

from __future__ import annotations

import itertools
import math
import random

import pytest

import tapegrad
from tapegrad import Value, affine, cross_entropy, dot, hinge, mse, nn, no_grad, softmax, tape
from tapegrad.nn import MLP, Layer, Neuron

ACTIVATIONS = ("relu", "tanh", "sigmoid", "softplus")


def numbers(n, seed=1):
    draw = random.Random(seed).gauss
    return [draw(0, 1) for _ in range(n)]


def matrix(m, n, seed=2):
    flat = iter(numbers(m * n, seed))
    return [[next(flat) for _ in range(n)] for _ in range(m)]


def plain(W, b, x):
    """Plain floats in micrograd's order: the bias first, then the products from left to right."""
    results = []
    for row, y in zip(W, b):
        for w, v in zip(row, x):
            y = y + w * v
        results.append(y)
    return results


def data(values):
    return [v.data for v in values]


def grads(values):
    return [v.grad for v in values]


def slopes(function, at, h=1e-6):
    """Central differences of a function of a list of floats."""
    quotients = []
    for k, x in enumerate(at):
        up, down = ([*at[:k], x + step, *at[k + 1 :]] for step in (h, -h))
        quotients.append((function(up) - function(down)) / (2 * h))
    return quotients


@pytest.fixture
def refused(settle, works):
    """A function that fails unless a call raises that error, with that message, and leaves nothing on the tape."""

    def refused(call, error, message=""):
        settle()
        before = len(tape)
        with pytest.raises(error, match=message or None):
            call()
        settle()
        assert len(tape) == before
        works()

    return refused


# affine: numbers


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 2), (2, 7), (16, 50)])
def test_affine_gives_the_bits_of_micrograds_sums(m, n):
    W, b, x = matrix(m, n), numbers(m), numbers(n, 3)
    values = affine([map(Value, row) for row in W], map(Value, b), map(Value, x))
    assert data(values) == plain(W, b, x)


def test_affine_is_a_loop_of_dots_to_the_bit():
    W, b, x = matrix(4, 9), numbers(4), tapegrad.leaves(numbers(9, 3))
    rows, bias = [tapegrad.leaves(row) for row in W], tapegrad.leaves(b)
    assert data(affine(rows, bias, x)) == [dot(row, x, y).data for row, y in zip(rows, bias)]


def test_affine_without_b_starts_from_zero():
    W, x = matrix(3, 4), numbers(4)
    assert data(affine(W, None, map(Value, x))) == plain(W, [0.0] * 3, x)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_method_of_that_name(name):
    W, b, x = matrix(5, 3), numbers(5), tapegrad.leaves(numbers(3, 4))
    assert data(affine(W, b, x, name)) == [getattr(y, name)().data for y in affine(W, b, x)]


def test_the_activation_may_be_a_keyword():
    assert data(affine(W=[[-2.0]], b=[0.5], x=[1.0], activation="relu")) == [0.0]


@pytest.mark.parametrize("number", [2, 2.0, True, -0.0])
def test_affine_takes_numbers_and_values_mixed(number):
    v = Value(3.0)
    (y,) = affine([[number, v, 1]], [number], [v, 0.5, number])
    y.backward()
    assert y.data == number + number * 3.0 + 3.0 * 0.5 + 1 * number
    assert v.grad == number + 0.5


def test_without_rows_affine_gives_an_empty_list():
    assert affine([], [], [Value(1.0)]) == affine([], None, []) == affine((), [], iter([1.0]), "relu") == []


def test_without_inputs_affine_gives_its_biases():
    b = tapegrad.leaves([2.0, -3.0])
    y, z = affine([[], []], b, [])
    (y * 2 + z).backward()
    assert (data([y, z]), grads(b)) == ([2.0, -3.0], [2.0, 1.0])


def test_infinity_and_nan_go_through_affine():
    y, z = affine([[math.inf], [math.nan]], None, [Value(1.0)], "tanh")
    assert y.data == 1.0 and math.isnan(z.data)


# affine: what is recorded


def test_affine_is_one_node_a_row():
    W, b, x = [tapegrad.leaves(row) for row in matrix(4, 3)], tapegrad.leaves(numbers(4)), tapegrad.leaves(numbers(3))
    before = len(tape)
    values = affine(W, b, x)
    assert len(tape) == before + 4
    assert [v._op for v in values] == ["dot"] * 4


@pytest.mark.parametrize(("name", "symbol"), [*zip(ACTIVATIONS, ("ReLU", "tanh", "sigmoid", "softplus"))])
def test_an_activation_is_one_more_node_a_row(name, symbol):
    W, x = [tapegrad.leaves(row) for row in matrix(4, 3)], tapegrad.leaves(numbers(3))
    before = len(tape)
    values = affine(W, None, x, name)
    assert len(tape) == before + 8
    assert [v._op for v in values] == [symbol] * 4


def test_the_operands_of_a_row_are_its_weights_then_x_then_its_bias():
    W, b, x = [tapegrad.leaves(row) for row in matrix(2, 3)], tapegrad.leaves(numbers(2)), tapegrad.leaves(numbers(3))
    y, z = affine(W, b, x)
    assert (y.operands, z.operands) == ((*W[0], *x, b[0]), (*W[1], *x, b[1]))


def test_a_number_in_x_is_one_leaf_for_all_rows():
    W, b = [tapegrad.leaves(row) for row in matrix(10, 3)], tapegrad.leaves(numbers(10))
    before = len(tape)
    values = affine(W, b, [1.0, Value(2.0), 3])
    assert len(tape) == before + 1 + 2 + 10
    first, last = values[0].operands, values[9].operands
    assert first[3] is last[3] and first[5] is last[5]


def test_a_number_in_w_or_b_is_a_leaf_of_its_own():
    x = tapegrad.leaves([1.0, 2.0])
    before = len(tape)
    values = affine([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0], x)
    assert len(values) == 2 and len(tape) == before + 6 + 2


def test_dropped_rows_give_their_nodes_back(swept, settle):
    W, x = [tapegrad.leaves(row) for row in matrix(50, 20)], tapegrad.leaves(numbers(20))
    before = len(tape)
    for _ in range(20):
        values = affine(W, [1.0] * 50, x, "tanh")
        del values
    settle()
    assert len(tape) == before


def test_a_row_lives_on_when_its_neighbours_are_dropped():
    x = tapegrad.leaves([1.0, 2.0])
    y = affine([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], None, x, "relu")[1]
    tape.collect()
    y.backward()
    assert (y.data, grads(x)) == (17.0, [5.0, 6.0])


def test_affine_in_no_grad_gives_leaves_with_the_same_data():
    W, b, x = [tapegrad.leaves(row) for row in matrix(4, 3)], tapegrad.leaves(numbers(4)), tapegrad.leaves(numbers(3))
    expected = data(affine(W, b, x, "tanh"))
    before = len(tape)
    with no_grad():
        values = affine(W, b, [*x[:2], x[2].data], "tanh")
    assert data(values) == expected
    assert [v.operands for v in values] == [()] * 4
    assert len(tape) <= before + 4


# affine: slopes


@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
def test_the_slopes_of_affine_are_those_of_dots(name):
    rows, biases, inputs = matrix(4, 3), numbers(4), numbers(3, 7)

    def run(layer):
        W, b, x = [tapegrad.leaves(row) for row in rows], tapegrad.leaves(biases), tapegrad.leaves(inputs)
        tapegrad.dot(layer(W, b, x), [1.0, -2.0, 3.0, 0.5]).backward()
        return grads([*itertools.chain(*W), *b, *x])

    def dots(W, b, x):
        values = [dot(row, x, y) for row, y in zip(W, b)]
        return [getattr(v, name)() for v in values] if name else values

    assert run(lambda W, b, x: affine(W, b, x, name)) == pytest.approx(run(dots), rel=1e-12, abs=1e-300)


def test_the_slopes_of_affine_are_difference_quotients():
    rows, biases, inputs = matrix(3, 4), numbers(3), numbers(4, 7)

    def loss(x):
        return math.fsum(math.tanh(y) for y in plain(rows, biases, x))

    x = tapegrad.leaves(inputs)
    tapegrad.sum(affine(rows, biases, x, "tanh")).backward()
    assert grads(x) == pytest.approx(slopes(loss, inputs), rel=1e-7, abs=1e-8)


def test_a_value_that_is_weight_input_and_bias_gets_all_its_slopes():
    v = Value(3.0)
    y, z = affine([[v, 2.0], [v, v]], [v, v], [v, v])
    (y + z).backward()
    assert v.grad == (2 * 3.0 + 2.0 + 1.0) + (4 * 3.0 + 1.0)


def test_a_second_sweep_adds_the_same_again():
    w, x = Value(2.0), Value(3.0)
    (y,) = affine([[w]], None, [x], "relu")
    y.backward()
    y.backward()
    assert (w.grad, x.grad) == (6.0, 4.0)


def test_slopes_are_those_at_the_weights_written_meanwhile():
    w, x = Value(2.0), Value(3.0)
    (y,) = affine([[w]], None, [x])
    w.data = 10.0
    y.backward()
    assert x.grad == 10.0


# affine: what may be handed in

KINDS = [list, tuple, iter, lambda xs: (x for x in xs), lambda xs: dict(enumerate(xs)).values()]


@pytest.mark.parametrize("kind", KINDS, ids=["list", "tuple", "iterator", "generator", "view"])
def test_rows_biases_and_inputs_may_be_any_iterables(kind):
    v = Value(2.0)
    values = affine(kind([kind([v, 1.0]), kind([3.0, v])]), kind([v, 1]), kind([10.0, v]))
    assert data(values) == [2.0 + 20.0 + 2.0, 1.0 + 30.0 + 4.0]


def test_arrays_of_floats_may_be_anything(np):
    W, b, x = np.array(matrix(3, 4)), np.array(numbers(3)), np.array(numbers(4, 5))
    assert data(affine(W, b, x)) == plain(W.tolist(), b.tolist(), x.tolist())


def test_arrays_of_integers_and_single_floats_may_be_anything(np):
    (y,) = affine(np.array([[2, 3]]), np.array([1], dtype=np.int8), np.array([0.5, 4.0], dtype=np.float32))
    assert y.data == 14.0


def test_object_arrays_may_be_anything(np):
    W = np.array([tapegrad.leaves(row) for row in matrix(3, 2)], dtype=object)
    b, x = np.array(tapegrad.leaves(numbers(3)), dtype=object), np.array([Value(0.5), 2.0], dtype=object)
    values = affine(W, b, x, "relu")
    tapegrad.sum(values).backward()
    bits = [[w.data for w in row] for row in W]
    assert data(values) == [max(y, 0.0) for y in plain(bits, [v.data for v in b], [0.5, 2.0])]
    assert [v.grad for v in b] == [float(y.data > 0) for y in values]


def test_the_columns_of_an_array_may_be_rows(np):
    W = np.array(matrix(3, 2))
    x = numbers(3)
    assert data(affine(W.T, None, x)) == plain(W.T.tolist(), [0.0, 0.0], x)


def test_fresh_values_of_a_generator_are_held_while_they_are_needed():
    fresh = ([Value(float(i + j)) for j in range(100)] for i in range(50))
    values = affine(fresh, (Value(1.0) for _ in range(50)), (Value(2.0) for _ in range(100)))
    tape.collect()
    assert data(values) == [1.0 + 2.0 * sum(range(i, i + 100)) for i in range(50)]


@pytest.mark.parametrize("base", [list, tuple])
def test_what_an_iterable_iterates_over_counts_even_where_it_is_a_list(base):
    twice = {"__iter__": lambda self: itertools.chain(*[base.__iter__(self) for _ in "ab"])}
    kind = type("Doubled", (base,), twice)
    v = Value(3.0)
    assert tapegrad.sum(kind([v])).data == dot(kind([v]), kind([1.0])).data == dot(kind([v]), kind([Value(1.0)])).data
    assert tapegrad.sum(kind([v])).data == 6.0
    assert data(affine(kind([kind([v])]), kind([Value(1.0)]), kind([v]))) == [19.0, 19.0]


class Meddler:
    """A number that does something when it is read."""

    def __init__(self, act, number=2.0):
        self.act, self.number = act, number

    def __float__(self):
        self.act()
        return self.number


@pytest.mark.parametrize("where", ["W", "row", "b", "x"])
@pytest.mark.parametrize("what", ["clear", "append", "pop"])
def test_a_list_that_changes_while_it_is_read_does_no_harm(what, where, works):
    """Which of the elements count is left open; that whatever is recorded fits is not."""
    lists = {}
    arguments = {"append": (Value(1.0),)}.get(what, ())
    meddler = Meddler(lambda: lists[where] and len(lists[where]) < 9 and getattr(lists[where], what)(*arguments))
    lists["row"], lists["b"], lists["x"] = [meddler, Value(1.0), 3.0], [meddler, 1.0], [meddler, Value(2.0), 1.0]
    lists["W"] = [lists["row"], [Value(1.0), meddler, 2.0]]
    try:
        values = affine(lists["W"], lists["b"], lists["x"], "tanh")
    except ValueError:
        pass
    else:
        tapegrad.sum(values).backward()
        assert all(len(v.operands[0].operands) % 2 for v in values)
    works()


@pytest.mark.parametrize("act", [tape.collect, tape.reset, lambda: Value(1.0) * 2, lambda: (Value(1.0) * 2).backward()])
def test_a_number_that_uses_the_tape_when_it_is_read_does_no_harm(act, works):
    v, w = Value(2.0), Value(3.0)
    y, z = affine([[v, Meddler(act)], [Meddler(act), w]], [Meddler(act), 1.0], [w, Meddler(act)], "relu")
    (y + z).backward()
    assert (y.data, z.data, v.grad, w.grad) == (12.0, 13.0, 3.0, 2.0 + 2.0 + 2.0)
    works()


# affine: what is refused


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda v: affine([[v]], [v], [v, v]), ValueError, "row 0 of W has 1 elements, x has 2"),
        (lambda v: affine([[v, v], [v]], [v, v], [v, v]), ValueError, "row 1 of W has 1 elements, x has 2"),
        (lambda v: affine([[v, v, v]], [v], [v, v]), ValueError, "row 0 of W has 3 elements, x has 2"),
        (lambda v: affine([[]], [v], [v]), ValueError, "row 0 of W has 0 elements, x has 1"),
        (lambda v: affine([[v]], [], [v]), ValueError, "b has 0 elements, W has 1 rows"),
        (lambda v: affine([[v]], [v, v], [v]), ValueError, "b has 2 elements, W has 1 rows"),
        (lambda v: affine([], [1.0], [v]), ValueError, "b has 1 elements, W has 0 rows"),
        (lambda v: affine([[v, "s"]], [v], [v, 1.0]), TypeError, "str"),
        (lambda v: affine([[v]], ["s"], [1.0]), TypeError, "str"),
        (lambda v: affine([[v]], [v], [1.0j]), TypeError, "complex"),
        (lambda v: affine([[v]], [v], [None]), TypeError, "NoneType"),
        (lambda v: affine([[v]], [v], [[1.0]]), TypeError, "list"),
        (lambda v: affine([v], [v], [1.0]), TypeError, "iterable"),
        (lambda v: affine(v, [v], [1.0]), TypeError, "iterable"),
        (lambda v: affine([[v]], v, [1.0]), TypeError, "iterable"),
        (lambda v: affine([[v]], [v], v), TypeError, "iterable"),
        (lambda v: affine([[v]], [v], [10**400]), OverflowError, ""),
        (lambda v: affine([[v]], [v]), TypeError, ""),
        (lambda v: affine([[v]], [v], [1.0], None, None), TypeError, ""),
        (lambda v: affine([[v]], [v], [1.0], "Relu"), ValueError, "activation.*'Relu'"),
        (lambda v: affine([[v]], [v], [1.0], ""), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], "log"), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], "backward"), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], "dot"), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], "max"), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], 5), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], b"relu"), ValueError, "activation"),
        (lambda v: affine([[v]], [v], [1.0], math.tanh), ValueError, "activation"),
        (lambda v: affine([], [], [], "Relu"), ValueError, "activation"),
    ],
)
def test_a_refused_layer_says_why_and_records_nothing(call, error, message, refused):
    v = Value(2.0)
    refused(lambda: call(v), error, message)


def test_an_array_of_too_many_dimensions_is_refused(np, refused):
    refused(lambda: affine(np.ones((2, 2, 2)), None, [1.0, 1.0]), TypeError, "ndarray")


@pytest.mark.parametrize("where", range(3))
def test_an_iterable_that_raises_half_way_records_nothing(where, refused):
    def broken():
        yield Value(1.0)
        raise LookupError("half way")

    arguments = [[[1.0, 2.0]], [1.0], [1.0, 2.0]]
    arguments[where] = [broken()] if where == 0 else broken()
    refused(lambda: affine(*arguments), LookupError, "half way")


# softmax


@pytest.mark.parametrize("xs", [[0.3, -2.0, 1.7], [5.0], [0.0] * 10, [1e3, 1e3, -1e3], [-1e3, -1001.0]])
def test_softmax_is_a_distribution(xs):
    values = data(softmax(map(Value, xs)))
    assert math.fsum(values) == pytest.approx(1.0, rel=1e-12)
    exps = [math.exp(x - max(xs)) for x in xs]
    assert values == pytest.approx([e / math.fsum(exps) for e in exps], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("shift", [-1e308, -750.0, 750.0, 1e308])
def test_softmax_does_not_overflow(shift):
    assert data(softmax([shift, Value(shift)])) == pytest.approx([0.5, 0.5], rel=1e-12 * max(1.0, abs(shift) / 1e3))


def test_softmax_of_what_is_impossible_is_zero():
    v = Value(1.0)
    assert data(softmax([v, -math.inf])) == [1.0, 0.0]


def test_nan_goes_through_softmax():
    assert all(math.isnan(v.data) for v in softmax([math.nan, Value(1.0)]))


def test_softmax_of_nothing_is_an_empty_list():
    before = len(tape)
    assert softmax([]) == softmax(iter(())) == []
    assert len(tape) == before


@pytest.mark.parametrize("k", range(3))
def test_the_slopes_of_softmax_are_those_of_the_formula(k):
    xs = tapegrad.leaves([0.3, -2.0, 1.7])
    p = softmax(xs)
    p[k].backward()
    assert grads(xs) == pytest.approx([p[k].data * ((i == k) - p[i].data) for i in range(3)], rel=1e-12)


def test_the_slopes_of_all_of_softmax_cancel():
    xs = tapegrad.leaves([0.3, -2.0, 1.7])
    tapegrad.sum(softmax(xs)).backward()
    assert grads(xs) == pytest.approx([0.0] * 3, abs=1e-15)


def test_softmax_takes_numbers_and_values_mixed():
    v = Value(1.0)
    p = softmax([v, 1, True, 1.0])
    p[0].backward()
    assert data(p) == pytest.approx([0.25] * 4, rel=1e-12)
    assert v.grad == pytest.approx(0.1875, rel=1e-12)


def test_a_value_that_comes_twice_in_softmax_gets_both_slopes():
    v, w = Value(1.0), Value(0.0)
    p = softmax([v, v, w])
    p[0].backward()
    assert v.grad == pytest.approx(p[0].data * p[2].data, rel=1e-12)


def test_softmax_shares_one_sum():
    xs = tapegrad.leaves(numbers(10))
    before = len(tape)
    p = softmax(xs)
    assert len(p) == 10 and len(tape) == before + 32


@pytest.mark.parametrize("kind", KINDS, ids=["list", "tuple", "iterator", "generator", "view"])
def test_softmax_takes_any_iterable(kind):
    assert data(softmax(kind([Value(1.0), 1.0]))) == pytest.approx([0.5, 0.5], rel=1e-12)


def test_softmax_takes_arrays(np):
    xs = np.array([Value(1.0), 2.0], dtype=object)
    assert data(softmax(xs)) == data(softmax(np.array([1.0, 2.0]))) == data(softmax([1.0, 2.0]))


def test_softmax_in_no_grad_gives_leaves_with_the_same_data():
    xs = tapegrad.leaves([0.3, -2.0, 1.7])
    expected = data(softmax(xs))
    before = len(tape)
    with no_grad():
        p = softmax([*xs[:2], 1.7])
    assert (data(p), [v.operands for v in p], len(tape)) == (expected, [()] * 3, before + 3)


@pytest.mark.parametrize(
    ("xs", "error", "message"),
    [
        (5, TypeError, "iterable"),
        (None, TypeError, "iterable"),
        ([1.0, "s"], TypeError, "str"),
        ([1.0, [2.0]], TypeError, "list"),
        ([10**400], OverflowError, ""),
    ],
)
def test_a_refused_softmax_says_why_and_records_nothing(xs, error, message, refused):
    refused(lambda: softmax(xs), error, message)


# losses


def test_cross_entropy_is_minus_the_logarithm_of_a_softmax():
    logits = [0.3, -2.0, 1.7]
    for k in range(3):
        assert cross_entropy(logits, k).data == pytest.approx(-math.log(softmax(logits)[k].data), rel=1e-12)


def test_the_slopes_of_cross_entropy_are_softmax_minus_one_at_the_target():
    logits = tapegrad.leaves([0.3, -2.0, 1.7])
    cross_entropy(logits, 2).backward(3.0)
    expected = [3.0 * (p.data - (i == 2)) for i, p in enumerate(softmax(logits))]
    assert grads(logits) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("logits", [[1e3, 0.0], [-1e3, 0.0], [1e308, -1e308], [-1e308, -1e308]])
@pytest.mark.parametrize("target", [0, 1])
def test_cross_entropy_does_not_overflow(logits, target):
    xs = tapegrad.leaves(logits)
    y = cross_entropy(xs, target)
    y.backward()
    assert y.data == max(logits) - logits[target] or y.data == pytest.approx(math.log(2.0), abs=math.ulp(1e308))
    assert all(-1.0 <= x.grad <= 1.0 for x in xs)


def test_the_slopes_of_cross_entropy_are_those_of_the_data_at_the_sweep():
    xs = tapegrad.leaves([1.0, 2.0, 3.0])
    y = cross_entropy(xs, 1)
    xs[1].data = 5.0
    y.backward()
    assert [x.grad for x in xs] == pytest.approx(
        [p.data - k for p, k in zip(softmax([1.0, 5.0, 3.0]), (0, 1, 0))], rel=1e-12
    )


def test_cross_entropy_of_one_logit_is_zero_and_flat():
    v = Value(7.0)
    y = cross_entropy([v], 0)
    y.backward()
    assert (y.data, v.grad) == (0.0, 0.0)


def test_a_logit_that_comes_twice_gets_both_slopes():
    v, w = Value(1.0), Value(0.0)
    cross_entropy([v, v, w], 0).backward()
    assert v.grad == pytest.approx(2 * math.e / (2 * math.e + 1) - 1, rel=1e-12)


def test_the_target_may_be_a_number_among_values():
    v = Value(1.0)
    y = cross_entropy([v, 1.0], 1)
    y.backward()
    assert (y.data, v.grad) == (pytest.approx(math.log(2.0), rel=1e-12), pytest.approx(0.5, rel=1e-12))


def test_the_target_may_be_an_integer_of_numpy(np):
    for target in (np.int64(1), np.uint8(1), np.arange(3)[1]):
        assert cross_entropy([1.0, 2.0], target).data == cross_entropy([1.0, 2.0], 1).data


@pytest.mark.parametrize("target", [True, type("Index", (), {"__index__": lambda self: 1})()])
def test_the_target_may_be_whatever_is_an_index(target):
    assert cross_entropy([1.0, 2.0], target=target).data == cross_entropy([1.0, 2.0], 1).data


def test_a_number_that_is_the_target_is_read_once():
    reads = []
    y = cross_entropy([Value(1.0), Meddler(lambda: reads.append(1))], 1)
    assert y.data == pytest.approx(math.log(1 + math.e) - 1, rel=1e-12) and len(reads) == 1


def test_mse_is_the_mean_of_squares():
    assert mse([1.0, Value(2.0), 4], [1.0, 4.0, Value(1.0)]).data == 13.0 / 3


def test_the_slopes_of_mse_are_twice_the_differences_over_n():
    p, t = tapegrad.leaves([1.0, 5.0]), tapegrad.leaves([4.0, 1.0])
    mse(p, t).backward(2.0)
    assert (grads(p), grads(t)) == ([-6.0, 8.0], [6.0, -8.0])


def test_mse_of_values_with_themselves_is_flat():
    xs = tapegrad.leaves([1.0, 5.0])
    y = mse(xs, xs)
    y.backward()
    assert (y.data, grads(xs)) == (0.0, [0.0, 0.0])


def test_hinge_is_the_mean_of_what_is_short_of_the_margin():
    assert hinge([2.0, Value(0.5), -1.0, 0.25], [1, 1, 1, -1]).data == (0.0 + 0.5 + 2.0 + 1.25) / 4


def test_only_scores_short_of_the_margin_have_slopes_in_hinge():
    s = tapegrad.leaves([2.0, 0.5, -1.0, 0.25])
    hinge(s, [1, 1, 1, -1]).backward(4.0)
    assert grads(s) == [0.0, -1.0, -1.0, 1.0]


def test_a_score_on_the_margin_has_no_slope():
    v = Value(1.0)
    hinge([v], [1.0]).backward()
    assert v.grad == 0.0


def test_hinge_is_that_of_micrograds_demo():
    scores, targets = tapegrad.leaves(numbers(20)), [random.Random(k).choice([-1, 1]) for k in range(20)]
    losses = [(1 + -y * s).relu() for y, s in zip(targets, scores)]
    loss = sum(losses) * (1.0 / len(losses))
    loss.backward()
    expected = grads(scores)
    tapegrad.zero_grad(scores)
    fused = hinge(scores, targets)
    fused.backward()
    assert fused.data == pytest.approx(loss.data, rel=1e-12)
    assert grads(scores) == pytest.approx(expected, rel=1e-12)


LOSSES = {
    "cross_entropy": lambda xs: cross_entropy(xs, 1),
    "mse": lambda xs: mse(xs, [1.0, -2.0, 0.5]),
    "hinge": lambda xs: hinge(xs, [1, -1, 1]),
}
SCORES = [0.3, -1.8, 1.4]


@pytest.mark.parametrize("name", LOSSES)
def test_the_slopes_of_a_loss_are_difference_quotients_of_itself(name):
    xs = tapegrad.leaves(SCORES)
    LOSSES[name](xs).backward()
    assert grads(xs) == pytest.approx(slopes(lambda at: LOSSES[name](at).data, SCORES), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_sweep_of_a_loss_adds_the_same_again(name):
    xs = tapegrad.leaves(SCORES)
    y = LOSSES[name](xs)
    y.backward()
    once = grads(xs)
    y.backward()
    assert grads(xs) == [2 * g for g in once]


def test_mse_and_hinge_have_their_slopes_at_the_data_written_meanwhile():
    p, s = tapegrad.leaves([1.0, 5.0]), tapegrad.leaves([0.0, 5.0])
    y, z = mse(p, [0.0, 0.0]), hinge(s, [1, 1])
    p[0].data = s[0].data = 10.0
    s[1].data = 0.0
    y.backward()
    z.backward()
    assert (grads(p), grads(s)) == ([10.0, 5.0], [0.0, -0.5])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_in_no_grad_is_a_leaf_with_the_same_data(name):
    xs = tapegrad.leaves(SCORES)
    expected = LOSSES[name](xs).data
    before = len(tape)
    with no_grad():
        y = LOSSES[name](xs)
    assert (y.data, y.operands, len(tape)) == (expected, (), before + 1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_takes_arrays_and_generators(name, np):
    xs = tapegrad.leaves(SCORES)
    expected = LOSSES[name](xs).data
    for scores in (np.array(SCORES), np.array(xs, dtype=object), tuple(xs), (Value(x) for x in SCORES)):
        assert LOSSES[name](scores).data == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda v: cross_entropy([v, 1.0], 2), IndexError, "target 2 of 2 logits"),
        (lambda v: cross_entropy([v, 1.0], -1), IndexError, "target -1 of 2 logits"),
        (lambda v: cross_entropy([], 0), IndexError, "target 0 of 0 logits"),
        (lambda v: cross_entropy([v], 10**30), IndexError, ""),
        (lambda v: cross_entropy([v], 0.0), TypeError, "float"),
        (lambda v: cross_entropy([v], "0"), TypeError, "str"),
        (lambda v: cross_entropy([v], None), TypeError, "NoneType"),
        (lambda v: cross_entropy([v], v), TypeError, "Value"),
        (lambda v: cross_entropy([v, "s"], 0), TypeError, "str"),
        (lambda v: cross_entropy(v, 0), TypeError, "iterable"),
        (lambda v: cross_entropy([v]), TypeError, ""),
        (lambda v: mse([v], [1.0, 2.0]), ValueError, "mse: 1 predictions but 2 targets"),
        (lambda v: mse([v], []), ValueError, "mse: 1 predictions but 0 targets"),
        (lambda v: mse([], []), ValueError, "mse of no predictions"),
        (lambda v: mse([v], ["s"]), TypeError, "str"),
        (lambda v: mse([v], [[1.0]]), TypeError, "list"),
        (lambda v: mse(v, [1.0]), TypeError, "iterable"),
        (lambda v: mse([v]), TypeError, ""),
        (lambda v: hinge([v, v], [1.0]), ValueError, "hinge: 2 scores but 1 targets"),
        (lambda v: hinge([], []), ValueError, "hinge of no scores"),
        (lambda v: hinge([v], [None]), TypeError, "NoneType"),
        (lambda v: hinge([v], 1.0), TypeError, "iterable"),
        (lambda v: hinge([v], [1.0], 0.5), TypeError, ""),
    ],
)
def test_a_refused_loss_says_why_and_records_nothing(call, error, message, refused):
    v = Value(2.0)
    refused(lambda: call(v), error, message)


# nn.Layer


def micrograd(layer, x):
    """What a layer of micrograd's gives: neuron by neuron, on plain floats."""
    results = []
    for neuron in layer.neurons:
        (y,) = plain([[w.data for w in neuron.w]], [neuron.b.data], x)
        results.append(max(y, 0.0) if neuron.nonlin else y)
    return results


@pytest.fixture
def layer():
    random.seed(42)
    layer = Layer(3, 4)
    for neuron in layer.neurons:
        neuron.b.data = random.uniform(-1, 1)
    return layer


def test_a_layer_gives_the_bits_of_micrograd(layer):
    for x in ([0.5, -1.5, 2.0], [1.0, 1.0, 1.0], [-3.0, 0.0, 1e-3]):
        assert data(layer(x)) == data(layer(list(map(Value, x)))) == micrograd(layer, x)


def test_a_layer_is_two_nodes_a_neuron(layer):
    x = tapegrad.leaves([0.5, -1.5, 2.0])
    before = len(tape)
    values = layer(x)
    assert len(tape) == before + 2 * len(values)
    assert values[1].operands[0].operands == (*layer.neurons[1].w, *x, layer.neurons[1].b)


def test_a_layer_makes_one_leaf_of_each_number_it_reads(layer):
    before = len(tape)
    values = layer([0.5, -1.5, 2.0])
    assert len(values) == 4 and len(tape) == before + 3 + 8


def test_a_neuron_that_was_replaced_counts(layer):
    layer.neurons[2] = Neuron(3, nonlin=True)
    assert data(layer([0.5, -1.5, 2.0])) == micrograd(layer, [0.5, -1.5, 2.0])


def test_neurons_may_come_and_go(layer):
    del layer.neurons[1:]
    y = layer([0.5, -1.5, 2.0])
    assert [y.data] == micrograd(layer, [0.5, -1.5, 2.0])
    layer.neurons.clear()
    assert layer([0.5, -1.5, 2.0]) == []


@pytest.mark.parametrize("every", [True, False])
def test_a_neuron_of_ones_own_is_called(layer, every):
    class Loud(Neuron):
        def __call__(self, x):
            return super().__call__(x) * 0 + 100.0

    for k in range(4) if every else [1]:
        layer.neurons[k].__class__ = Loud
    assert [y.data == 100.0 for y in layer([0.5, -1.5, 2.0])] == [every, True, every, every]


def test_whatever_can_be_called_may_stand_for_a_neuron(layer):
    layer.neurons[0] = sum
    assert layer([0.5, Value(-1.5), 2.0])[0].data == 1.0


def test_a_call_put_into_the_class_of_neurons_counts(layer, monkeypatch):
    monkeypatch.setattr(Neuron, "__call__", lambda self, x: "called")
    assert layer([0.5, -1.5, 2.0]) == ["called"] * 4


def test_neurons_may_differ_in_their_activation(layer):
    layer.neurons[1].nonlin = layer.neurons[3].nonlin = False
    x = [-5.0, -1.5, 2.0]
    assert data(layer(x)) == micrograd(layer, x)
    assert [v._op for v in layer(x)] == ["ReLU", "dot", "ReLU", "dot"]


def test_an_activation_that_was_switched_off_is_off(layer):
    for neuron in layer.neurons:
        neuron.nonlin = 0
    assert {v._op for v in layer([0.5, -1.5, 2.0])} == {"dot"}


def test_neurons_that_differ_in_their_width_have_no_inputs_in_common(layer):
    layer.neurons[1] = Neuron(2, nonlin=False)
    with pytest.raises(ValueError, match="2 weights takes 2 inputs, not 3"):
        layer([0.5, -1.5, 2.0])


@pytest.mark.parametrize("x", [[], [0.5], [0.5, -1.5], [0.5, -1.5, 2.0, 7.0], (0.5,), [0.5, -1.5, 2.0, "never read"]])
def test_a_wrong_number_of_inputs_of_a_layer_is_refused(layer, refused, x):
    refused(lambda: layer(x), ValueError, f"3 weights takes 3 inputs, not {len(x)}")


def test_a_generator_is_used_up_by_the_first_neuron(layer):
    """As in micrograd, where the others go without inputs; here they say so."""
    with pytest.raises(ValueError, match="takes 3 inputs, not 0"):
        layer(x for x in [0.5, -1.5, 2.0])


def test_inputs_may_be_a_tuple_or_an_array(layer, np):
    expected = micrograd(layer, [0.5, -1.5, 2.0])
    assert data(layer((0.5, Value(-1.5), 2))) == expected
    assert data(layer(np.array([0.5, -1.5, 2.0]))) == expected


def test_weights_may_be_replaced_by_other_values(layer):
    layer.neurons[0].w = [Value(1.0), Value(2.0), Value(3.0)]
    layer.neurons[0].b = Value(4.0)
    y = layer([1.0, 1.0, 1.0])[0]
    y.backward()
    assert y.data == 10.0
    assert [p.grad for p in layer.neurons[0].parameters()] == [1.0] * 4


def test_weights_may_be_shared_between_neurons(layer):
    layer.neurons[1].w, layer.neurons[1].b = layer.neurons[0].w, layer.neurons[0].b
    w = layer.neurons[0].w
    for v, number in zip([*w, layer.neurons[0].b], (1.0, 2.0, 3.0, 0.5)):
        v.data = number
    y = layer([1.0, 10.0, 100.0])
    (y[0] + y[1]).backward()
    assert grads(w) == [2.0, 20.0, 200.0]


@pytest.mark.parametrize("weights", [(1.0, 2.0, 3.0), [1, Value(2.0), True + 2]])
def test_weights_may_be_numbers(layer, weights):
    layer.neurons[0].w, layer.neurons[0].b = weights, 0.5
    assert layer([1.0, 1.0, 1.0])[0].data == 6.5


def test_weights_may_be_an_array_of_values(layer, np):
    for neuron in layer.neurons:
        neuron.w = np.array(neuron.w, dtype=object)
    assert data(layer([0.5, -1.5, 2.0])) == micrograd(layer, [0.5, -1.5, 2.0])


def test_a_refused_input_of_a_layer_records_nothing(layer, refused):
    refused(lambda: layer([0.5, "s", 2.0]), TypeError, "str")
    refused(lambda: layer(5.0), TypeError, "iterable")


def test_a_layer_in_no_grad_gives_leaves(layer):
    with no_grad():
        values = layer([0.5, -1.5, 2.0])
    assert (data(values), {v.operands for v in values}) == (micrograd(layer, [0.5, -1.5, 2.0]), {()})


# Printed by micrograd 0.1.0: the loss of step k, and the sum of its slopes by all parameters.
PRINTED = {
    0: (18.432196474034008, 272.2774885069245),
    1: (3.0303889145680563, -3.4824237270175153),
    2: (2.5020323184907856, -1.7303701438422805),
    5: (1.6477425248203519, 1.88180157956519),
    10: (1.0076709656557548, 1.299349948806274),
    19: (0.5678298498717962, -0.058814748793979854),
}
ANSWERS = [1.177289298874053, -0.4905968366299062, -0.8285352007864479, 0.5486253112472965]


def test_a_seeded_perceptron_trains_to_the_numbers_that_micrograd_prints():
    random.seed(1337)
    model = MLP(3, [4, 4, 1])
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    for k in range(20):
        loss = sum((model(x) - y) ** 2 for x, y in zip(xs, ys))
        model.zero_grad()
        loss.backward()
        if k in PRINTED:
            assert (loss.data, sum(p.grad for p in model.parameters())) == pytest.approx(PRINTED[k], rel=1e-12)
        for p in model.parameters():
            p.data -= 0.01 * p.grad
    assert [model(x).data for x in xs] == pytest.approx(ANSWERS, rel=1e-12)


def test_a_perceptron_is_two_nodes_a_neuron_and_a_leaf_an_input():
    model = MLP(2, [16, 16, 1])
    before = len(tape)
    y = model([0.5, -0.5])
    assert y._op == "dot" and len(tape) == before + 2 + 2 * 32 + 1


def test_the_functions_are_offered_by_name():
    assert {"affine", "softmax", "cross_entropy", "mse", "hinge"} <= set(tapegrad.__all__)
    assert all(getattr(tapegrad, name).__doc__ for name in ("affine", "softmax", "cross_entropy", "mse", "hinge"))
    assert nn.Layer is Layer
