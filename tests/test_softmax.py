"""softmax and cross_entropy keep their digits however large the logits are: on Values, in programs, batches and native
code."""

from __future__ import annotations

import math

import pytest

import tapegrad
from tapegrad import Value, gradient, record

SHIFTS = (0.0, 1e6, -1e6, 1e15, -1e15)
ABOVE = ([0.0, 0.0], [1.0, 0.5, -2.0, 1.0], [3.0, -40.0, 0.0], [0.0, -2000.0], [0.25])
CASES = [[shift + x for x in above] for shift in SHIFTS for above in ABOVE]


def shares(xs):
    """The softmax, and the logarithm of its denominator above the largest."""
    top = max(xs)
    exps = [math.exp(x - top) for x in xs]
    total = math.fsum(exps)
    return [e / total for e in exps], math.log(total)


def near(got, expected):
    return got == pytest.approx(expected, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("xs", CASES)
def test_a_softmax_has_its_digits_and_so_has_its_slope(xs):
    expected, _ = shares(xs)
    values = [Value(x) for x in xs]
    ys = tapegrad.softmax(values)
    assert near([y.data for y in ys], expected)
    program = record(tapegrad.softmax, [0.5] * len(xs))
    assert program(xs) == [y.data for y in ys]
    slopes = [[p * ((j == k) - q) for k, q in enumerate(expected)] for j, p in enumerate(expected)]
    for j, y in enumerate(ys):
        assert near([g.data for g in gradient(y, values)], slopes[j])
        assert near(program.jacobian(xs)[j], slopes[j])


@pytest.mark.parametrize("xs", CASES)
def test_a_cross_entropy_has_its_digits_and_so_has_its_slope(xs):
    share, total = shares(xs)
    for target in range(len(xs)):
        expected, slope = total - (xs[target] - max(xs)), [p - (k == target) for k, p in enumerate(share)]
        values = [Value(x) for x in xs]
        y = tapegrad.cross_entropy(values, target)
        y.backward()
        assert near(y.data, expected) and near([v.grad for v in values], slope)
        assert near([g.data for g in gradient(y, values)], slope)
        program = record(lambda x, k=target: tapegrad.cross_entropy(x, k), [0.5] * len(xs))
        value, found = program.value_and_grad(xs)
        assert value == y.data and near(found, slope)
        rows, grads = program.map().value_and_grad([xs] * 11)
        assert rows == [value] * 11 and all(near(row, slope) for row in grads)


def test_native_code_has_the_same_bits():
    def loss(xs):
        return tapegrad.cross_entropy(xs, 1) + tapegrad.dot(tapegrad.softmax(xs), xs)

    for above in ([1.0, 0.5, -2.0, 1.0], [k * 0.125 for k in range(80)]):
        program = record(loss, above)
        compiled = record(loss, above).native()
        for shift in SHIFTS:
            xs = [shift + x for x in above]
            assert compiled.value_and_grad(xs) == program.value_and_grad(xs)


@pytest.mark.parametrize("xs", [[1.0, -2.0, 0.5], [1e15, 1e15, 1e15 - 2.0]])
def test_second_derivatives_do_not_see_what_was_subtracted(xs):
    share, _ = shares(xs)
    expected = [[p * ((j == k) - q) for k, q in enumerate(share)] for j, p in enumerate(share)]
    program = record(lambda x: tapegrad.cross_entropy(x, 0), [0.5] * 3)
    for found in (program.hessian(xs), tapegrad.hessian(lambda x: tapegrad.cross_entropy(x, 0))(xs)):
        assert all(near(row, other) for row, other in zip(found, expected))


@pytest.mark.parametrize(
    ("xs", "expected"),
    [
        ([math.inf, 1.0], [math.inf, math.nan][::-1]),
        ([-math.inf, 1.0], [math.inf, 0.0]),
        ([-math.inf, -math.inf], [math.nan, math.nan]),
        ([math.nan, 1.0], [math.nan, math.nan]),
    ],
)
def test_infinite_logits_give_what_the_formula_gives(xs, expected):
    for target, y in enumerate(expected):
        found = tapegrad.cross_entropy(map(Value, xs), target).data
        program = record(lambda x, k=target: tapegrad.cross_entropy(x, k), [0.5, 1.0])
        for z in (found, program(xs), program.native()(xs)):
            assert z == y or (math.isnan(z) and math.isnan(y))
