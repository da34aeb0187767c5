"""Random programs: the tape must do what the closure engine of tests/reference.py does, whatever comes in between."""

from __future__ import annotations

import gc
import math
import sys

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import OPERATORS, STEADY_BINARY, STEADY_UNARY, Node, same

import tapegrad
from tapegrad import Value, tape

CPYTHON = sys.implementation.name == "cpython"

index = st.integers(0, 10**6)
numbers = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-4, 4, allow_subnormal=False),
    st.floats(-1e3, 1e3, allow_subnormal=False),
)
several = st.lists(index, min_size=1, max_size=4)

STEPS = st.one_of(
    st.tuples(st.just("leaf"), numbers),
    st.tuples(st.just("unary"), st.sampled_from(STEADY_UNARY), index),
    st.tuples(st.just("binary"), st.sampled_from(STEADY_BINARY), index, index),
    st.tuples(st.just("arithmetic"), st.sampled_from(["add", "sub", "mul", "truediv"]), index, index),
    st.tuples(st.just("left"), st.sampled_from(sorted(set(STEADY_BINARY) & set(OPERATORS))), numbers, index),
    st.tuples(st.just("right"), st.sampled_from([name for name in STEADY_BINARY if name != "pow"]), index, numbers),
    st.tuples(st.just("power"), index, st.sampled_from([0, 1, 2, 3, -1, 0.5, -1.5])),
    st.tuples(st.just("dot"), st.lists(st.tuples(index, index), max_size=4), st.one_of(st.none(), index)),
    st.tuples(st.just("sum"), several),
    st.tuples(st.just("logsumexp"), several),
    st.tuples(st.just("cross_entropy"), several, index),
    st.tuples(st.just("loss"), st.sampled_from(["mse", "hinge"]), st.lists(st.tuples(index, index), min_size=1)),
    st.tuples(st.just("affine"), st.lists(several, max_size=3), several, st.booleans()),
    st.tuples(st.just("softmax"), several),
    st.tuples(st.just("rule"), index, index),
    st.tuples(st.just("backward"), index, st.sampled_from([1.0, 1.0, 1.0, -2.0, 0.5, 0.0])),
    st.tuples(st.just("by_hand"), index),
    st.tuples(st.just("write_data"), index, numbers),
    st.tuples(st.just("write_grad"), index, numbers),
    st.tuples(st.just("zero"), index),
    st.tuples(st.just("drop"), index),
    st.tuples(st.just("find"), index),
    st.tuples(st.just("collect")),
)


class Program:
    """Values and their counterparts, on which each step is done twice."""

    def __init__(self):
        self.pairs = [(Value(x), Node(x)) for x in (0.5, -1.5, 2.0)]

    def pair(self, i):
        return self.pairs[i % len(self.pairs)]

    def both(self, on_tape, on_nodes):
        """Records on either side; both refuse for the same reason, or the numbers agree."""
        before = len(tape)
        try:
            node = on_nodes()
        except (ArithmeticError, ValueError) as refused:
            expected = type(refused)
            try:
                on_tape()
            except (ArithmeticError, ValueError) as got:
                assert type(got) is expected
            else:
                raise AssertionError(f"not refused: {expected}") from None
            assert len(tape) == before or sys.implementation.name != "cpython"
            return
        value = on_tape()
        assert same(value.data, node.data) or value.data == node.data, (value.data, node.data)
        node.data = value.data  # last digits are not to build up
        self.pairs.append((value, node))

    def leaf(self, x):
        self.pairs.append((Value(x), Node(x)))

    def unary(self, name, i):
        v, n = self.pair(i)
        self.both(lambda: reference.apply(name, v), lambda: reference.record(name, n))

    def binary(self, name, i, j):
        (v, n), (w, m) = self.pair(i), self.pair(j)
        self.both(lambda: reference.apply(name, v, w), lambda: reference.record(name, n, m))

    arithmetic = binary

    def left(self, name, x, j):
        w, m = self.pair(j)
        self.both(lambda: reference.apply(name, x, w), lambda: reference.record(name, Node(x), m))

    def right(self, name, i, x):
        v, n = self.pair(i)
        self.both(lambda: reference.apply(name, v, x), lambda: reference.record(name, n, Node(x)))

    def power(self, i, k):
        v, n = self.pair(i)
        self.both(lambda: v**k, lambda: reference.record("pow", n, Node(k)))

    def dot(self, indices, bias):
        xs, ys = [self.pair(i) for i, _ in indices], [self.pair(j) for _, j in indices]
        b, m = (None, None) if bias is None else self.pair(bias)
        if xs:
            self.both(
                lambda: tapegrad.dot([v for v, _ in xs], [v for v, _ in ys], b),
                lambda: reference.dot([n for _, n in xs], [n for _, n in ys], m),
            )

    def sum(self, indices):
        xs = [self.pair(i) for i in indices]
        self.both(lambda: tapegrad.sum(v for v, _ in xs), lambda: reference.total([n for _, n in xs]))

    def logsumexp(self, indices):
        xs = [self.pair(i) for i in indices if math.isfinite(self.pair(i)[0].data)]
        if xs:
            self.both(
                lambda: tapegrad.logsumexp(v for v, _ in xs), lambda: reference.logsumexp_node([n for _, n in xs])
            )

    def cross_entropy(self, indices, target):
        xs = [self.pair(i) for i in indices if math.isfinite(self.pair(i)[0].data)]
        if xs:
            k = target % len(xs)
            self.both(
                lambda: tapegrad.cross_entropy([v for v, _ in xs], k),
                lambda: reference.cross_entropy_node([n for _, n in xs], k),
            )

    def loss(self, name, indices):
        xs, ys = [self.pair(i) for i, _ in indices], [self.pair(j) for _, j in indices]
        node = getattr(reference, f"{name}_node")
        if all(abs(v.data) < 1e100 for v, _ in xs + ys):
            self.both(
                lambda: getattr(tapegrad, name)([v for v, _ in xs], [v for v, _ in ys]),
                lambda: node([n for _, n in xs], [n for _, n in ys]),
            )

    def affine(self, rows, indices, bias):
        """Rows are cut or repeated to the length of x; the biases are the first operands of the rows."""
        x = [self.pair(i) for i in indices]
        rows = [[self.pair(row[k % len(row)]) for k in range(len(x))] for row in rows]
        b = [row[0][0] for row in rows] if bias else None
        values = tapegrad.affine([[v for v, _ in row] for row in rows], b, [v for v, _ in x])
        assert len(values) == len(rows)
        for y, row in zip(values, rows):
            m = row[0][1] if bias else None
            self.both(lambda y=y: y, lambda row=row, m=m: reference.dot([n for _, n in row], [n for _, n in x], m))

    def softmax(self, indices):
        xs = [self.pair(i) for i in indices if abs(self.pair(i)[0].data) < 1e3]
        values = tapegrad.softmax(v for v, _ in xs)
        assert len(values) == len(xs)
        if xs:
            top = reference.Node(max(n.data for _, n in xs))
            below = [reference.record("sub", n, top) for _, n in xs]
            total = reference.logsumexp_node(below)
            total.data = values[0].operands[0].operands[1].data  # an inner node, whose last digits count too
        for k, y in enumerate(values):
            self.both(lambda y=y: y, lambda k=k: reference.record("exp", reference.record("sub", below[k], total)))

    def rule(self, i, j):
        """A product made by hand, with its rule written as for micrograd."""
        (v, n), (w, m) = self.pair(i), self.pair(j)
        out = Value(v.data * w.data, (v, w), "product")

        def _backward():
            v.grad += w.data * out.grad
            w.grad += v.data * out.grad

        out._backward = _backward
        self.pairs.append((out, reference.record("mul", n, m)))

    def backward(self, i, seed):
        v, n = self.pair(i)
        v.backward(seed)
        n.backward(seed)

    def by_hand(self, i):
        v, n = self.pair(i)
        if v.grad:
            v._backward()
            for operand, partial in zip(n.operands, n.partials(n)):
                operand.grad += n.grad * partial
                operand.slack += (abs(n.grad) * 1e-12 + n.slack) * abs(partial)

    def write_data(self, i, x):
        v, n = self.pair(i)
        v.data = n.data = x

    def write_grad(self, i, x):
        v, n = self.pair(i)
        v.grad = n.grad = x
        n.slack = 0.0

    def zero(self, i):
        v, n = self.pair(i)
        tapegrad.zero_grad([v])
        n.grad = n.slack = 0.0

    def drop(self, i):
        if len(self.pairs) > 1:
            del self.pairs[i % len(self.pairs)]

    def find(self, i):
        """An operand of a node, whose handle may have been dropped, is taken up again."""
        v, n = self.pair(i)
        held = {id(node): value for value, node in self.pairs}
        if n.operands:
            operands = v.operands
            known = [m for m in n.operands if id(m) in held]
            assert all(any(w is held[id(m)] for w in operands) for m in known)
            if len(operands) == len(n.operands):
                k = i % len(operands)
                if id(n.operands[k]) not in held:
                    self.pairs.append((operands[k], n.operands[k]))

    def collect(self):
        gc.collect(0)
        tape.collect()

    def check(self):
        for v, n in self.pairs:
            assert v.data == n.data or (math.isnan(v.data) and math.isnan(n.data))
            close = abs(v.grad - n.grad) <= n.slack + 1e-300 if math.isfinite(n.grad) else same(v.grad, n.grad)
            assert close or not math.isfinite(n.slack), (v, n.grad, n.slack)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=60))
def test_a_random_program_gives_what_the_closure_engine_gives(steps):
    program = Program()
    for name, *arguments in steps:
        getattr(program, name)(*arguments)
        program.check()


@settings(max_examples=100 if CPYTHON else 5)  # a reclaim on PyPy is a full collection
@given(st.lists(STEPS, min_size=20, max_size=60), st.integers(1, 5))
def test_a_random_program_does_not_notice_a_reclaim_every_few_steps(steps, every):
    program, junk = Program(), []
    for k, (name, *arguments) in enumerate(steps):
        junk.append(Value(float(k)) * 2)
        getattr(program, name)(*arguments)
        if k % every == 0:
            junk.clear()
            program.collect()
        program.check()


@given(st.lists(STEPS, max_size=40))
def test_a_random_program_gives_the_same_bits_when_it_runs_again(steps):
    def run():
        program = Program()
        for name, *arguments in steps:
            getattr(program, name)(*arguments)
        return [(v.data.hex(), v.grad.hex()) for v, _ in program.pairs]

    assert run() == run()


@pytest.fixture(scope="module")
def unseen():
    """What other tests have left alive is of no interest to full collections."""
    gc.collect()
    if CPYTHON:
        gc.freeze()


@settings(max_examples=50 if CPYTHON else 5)
@given(st.lists(STEPS, max_size=40))
def test_a_random_program_leaves_nothing_behind(unseen, steps):
    gc.collect()
    tape.collect()
    before = len(tape)
    program = Program()
    for name, *arguments in steps:
        getattr(program, name)(*arguments)
    del program
    gc.collect()
    tape.collect()
    gc.collect()
    tape.collect()
    assert len(tape) == before
